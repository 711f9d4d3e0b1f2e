#!/bin/bash
# The hook finds out the layers of the next image while Nix builds: then the build
# of the image opens no file of a store path.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

calls=open,openat,openat2,readlink,readlinkat,getdents,getdents64,execve,execveat,truncate,name_to_handle_at
# The hook has what Nix has.
export STOWAGE_CACHE=$work/cache

# leaf NAME TEXT: builds, with the hook, a path that nothing refers to, and that refers to the set.
leaf() {
  NIX_CONFIG="post-build-hook = $work/bin/stowage-hook" nix-build --out-link "$work/result" --expr "
    let debnix = import $debnix { index = $(index_of bookworm); };
    in derivation {
      name = \"$1\"; system = \"x86_64-linux\"; builder = \"\${debnix.busybox}/bin/sh\";
      args = [ \"-c\" \"\${debnix.busybox}/bin/mkdir -p \$out/share; echo $2 \${debnix.sets.small} > \$out/share/leaf\" ];
    }" 2> "$work/nix.log" || { cat "$work/nix.log"; return 1; }
  stowage cache wait "$STOWAGE_CACHE"
  built+=("$(readlink "$work/result")")
  cat "$work/nix.log"
}

opens() {
  strace --follow-forks -qq -y --string-limit=4096 --trace="$calls" --output="$work/trace" "$program" build "$@" > "$work/build.log"
  # The link itself leads to what is listed, to lay it out.
  "$repo/tests/system/opened" "$work/trace" | grep -vFx "$(readlink "$work/result")" > "$work/opened" || true
  cat "$work/opened"
}

opens_none() {
  opens "$@" > "$work/listed"
  cat "$work/listed"
  test ! -s "$work/listed"
}

hook_knows() {
  leaf "$1" "$RANDOM$RANDOM"
  opens_none "$work/result" --spec "$work/spec.json" --to "stowage:$work/$1" --json
}

not_asked_for() {
  rm -rf "$XDG_CACHE_HOME"
  leaf other-leaf "$RANDOM$RANDOM"
  opens "$work/result" --spec "$work/spec.json" --to "stowage:$work/other" > "$work/listed"
  test "$(wc -l < "$work/listed")" -gt 3
}

# The forms of compressed layers, too: where they are, nothing is made.
knows_compressed() {
  leaf ci-compressed "$RANDOM$RANDOM"
  find "$XDG_CACHE_HOME" -name '*.zstd-5-v1.json' | wc -l
  test "$(find "$XDG_CACHE_HOME" -name '*.zstd-5-v1.json' | wc -l)" -gt 3
  XDG_CACHE_HOME=$work/elsewhere "$program" build "$work/result" --spec "$STOWAGE_SPEC" --to "oci:$work/layout" --json > "$work/one.json"
  opens_none "$work/result" --spec "$STOWAGE_SPEC" --to "oci:$work/layout" --json
}

shares() {
  leaf ci-shared "$RANDOM$RANDOM"
  export XDG_CACHE_HOME=$work/second
  opens_none "$work/result" --spec "$work/spec.json" --to "stowage:$work/shared-image" --layer-index "$work/shared"
}

# A hook never fails.
survives() {
  leaf ci-survivor "$RANDOM$RANDOM" > "$work/said"
  grep "the layers of what was built are not known yet: .*$1" "$work/said"
}

export XDG_CACHE_HOME=$work/hook-cache
get bookworm small
debnix bookworm sets.small
ln -s stowage "$work/bin/stowage-hook"
built=()
echo '{"name": "ci", "precompute": ["ci-*"], "config": {"Cmd": ["/bin/sh"]}}' > "$work/spec.json"
jq '.compression = "zstd:5"' "$work/spec.json" > "$work/zstd.json"
echo '{"precompute": ["["]}' > "$work/wrong.json"
mkfifo "$work/pipe"
export STOWAGE_SPEC=$work/spec.json
check 'what the hook has seen, the build of the image does not open' hook_knows ci-leaf
check 'and what the spec does not name, it does' not_asked_for
STOWAGE_SPEC=$work/zstd.json check "in the spec's compression" knows_compressed
STOWAGE_LAYER_INDEX=$work/shared check 'into the index that the environment names' shares
STOWAGE_SPEC=$work/none.json check 'a spec that is not there fails no build' survives 'none.json: No such file'
STOWAGE_SPEC=$work/wrong.json check 'nor does a wrong one' survives precompute
STOWAGE_SPEC=$work/pipe check 'nor a pipe' survives 'no regular file'
rm -f "$work/result"
