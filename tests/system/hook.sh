#!/bin/bash
# The hook with the machine's Nix, in a store of the test's own: it records and lets go,
# whatever happens, and nothing that was built is lost.  Kills are in kills.sh, images in
# hook_images.sh.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"
program=$STOWAGE

new_store "$work/nix"
export HOME=$work/home XDG_STATE_HOME=$work/home/state
unset CI_PROJECT_DIR STOWAGE_CONFIG STOWAGE_STRICT STOWAGE_SPEC
export STOWAGE_CACHE=$work/cache
mkdir -p "$HOME" "$work/bin"
ln -s "$program" "$work/bin/stowage-hook"
hook=$work/bin/stowage-hook
queue=$NIX_STATE_DIR/stowage/queue
seed=$RANDOM$RANDOM

# trivial NAME [SCRIPT]: an expression of a derivation.
trivial() {
  # shellcheck disable=SC2016 # for Nix and the builder
  printf 'derivation { name = "%s-%s"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-c" "%s" ]; %s }' \
    "$1" "$seed" "${2:-echo $1 > \$out}" "${3-}"
}

# make NAME [SCRIPT [MORE]]: builds it with the hook.
make() { nix-build --no-out-link --option post-build-hook "$hook" --expr "$(trivial "$@")" 2> "$work/make.log"; }

in_cache() { test -s "$STOWAGE_CACHE/$(basename "$1" | cut -c 1-32).narinfo"; }

queued() { find "$queue" -name '*.json' 2> /dev/null | wc -l; }

# Somebody else seems to be at work, so that what is recorded stays.
hold_worker() {
  mkdir -p "$NIX_STATE_DIR/stowage"
  exec 9> "$NIX_STATE_DIR/stowage/lock"
  flock 9
}
let_go() { exec 9>&-; }

drained() {
  for _ in $(seq 100); do
    [ "$(queued)" = 0 ] && return
    sleep 0.1
  done
  echo "$(queued) left"
  return 1
}

worker_exports() {
  local out
  out=$(make first)
  drained
  sleep 0.1
  in_cache "$out"
}

records_and_holds() {
  local out
  hold_worker
  out=$(make held)
  same 'records' "$(queued)" 1
  fails in_cache "$out"
  # Whoever collects garbage now does not get it.
  nix-store --gc > /dev/null 2>&1
  test -e "$out"
  let_go
  stowage cache wait "$STOWAGE_CACHE"
  in_cache "$out"
  nix-store --gc > /dev/null 2>&1
  test ! -e "$out"
}

# Nix waits until nobody has the pipe any more; so does this one.
lets_go() {
  local out start=$SECONDS
  # The worker tries again for half a minute.
  out=$(STOWAGE_CACHE=$work/none/cache make lets-go | cat)
  test -n "$out"
  test $((SECONDS - start)) -lt 20
  out=$(STOWAGE_CACHE=$work/none/cache nix-build --no-out-link --option post-build-hook "$hook" --expr "$(trivial third-descriptor)" 3>&1 2> /dev/null | cat)
  test -n "$out"
  test $((SECONDS - start)) -lt 20
}

# The worker that another hook has started does not have this one's key.
signs() {
  local out
  nix-store --generate-binary-cache-key ci-1 "$work/key" "$work/key.pub"
  make unsigned
  out=$(STOWAGE_SECRET_KEY=$(cat "$work/key") make signed)
  STOWAGE_SECRET_KEY=$(cat "$work/key") stowage cache wait "$STOWAGE_CACHE"
  in_cache "$out"
  grep '^Sig: ci-1:' "$STOWAGE_CACHE/$(basename "$out" | cut -c 1-32).narinfo"
}

unreachable() {
  local status=0
  STOWAGE_CACHE=$work/none/cache stowage cache wait "$work/none/cache" > "$work/out" 2>&1 || status=$?
  cat "$work/out"
  same 'exit code' "$status" 6
  grep -q 'no folder' "$work/out"
  test "$(queued)" -ge 2
  mkdir -p "$work/none"
  stowage cache wait "$work/none/cache"
  same records "$(queued)" 0
  test "$(find "$work/none/cache" -name '*.narinfo' | wc -l)" = 2
}

multiple_outputs() {
  local outs
  hold_worker
  # shellcheck disable=SC2016
  make several 'echo a > $out; echo b > $dev' 'outputs = [ "out" "dev" ];' > /dev/null
  let_go
  stowage cache wait "$STOWAGE_CACHE"
  # shellcheck disable=SC2016
  outs=$(nix-store --query --outputs "$(nix-instantiate --expr "$(trivial several 'echo a > $out; echo b > $dev' 'outputs = [ "out" "dev" ];')" 2> /dev/null | sed 's/!.*//')")
  same outputs 2 "$(wc -w <<< "$outs")"
  for out in $outs; do in_cache "$out"; done
}

fixed_output() {
  local out
  # shellcheck disable=SC2016
  out=$(make fixed 'echo fixed > $out' "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = \"$(echo fixed | sha256sum | cut -c 1-64)\";")
  stowage cache wait "$STOWAGE_CACHE"
  in_cache "$out"
  grep -q '^CA: fixed:' "$STOWAGE_CACHE/$(basename "$out" | cut -c 1-32).narinfo"
}

content_addressed() {
  local out
  # shellcheck disable=SC2016
  out=$(nix-build --no-out-link --option post-build-hook "$hook" --option experimental-features 'ca-derivations nix-command' \
    --expr "$(trivial floating 'echo floating > $out' '__contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";')" 2> "$work/make.log")
  stowage cache wait "$STOWAGE_CACHE"
  in_cache "$out"
}

checked() {
  local out
  out=$(make checked)
  stowage cache wait "$STOWAGE_CACHE"
  nix-build --check --no-out-link --option post-build-hook "$hook" --expr "$(trivial checked)" > /dev/null 2> "$work/make.log"
  stowage cache wait "$STOWAGE_CACHE"
  in_cache "$out"
}

two_at_once() {
  local names=() one
  for one in $(seq 20); do names+=("$(trivial "left-$one")"); done
  nix-build --no-out-link --option post-build-hook "$hook" --expr "[ $(printf '(%s) ' "${names[@]}") ]" > "$work/left" 2> /dev/null &
  names=()
  for one in $(seq 20); do names+=("$(trivial "right-$one")"); done
  nix-build --no-out-link --option post-build-hook "$hook" --expr "[ $(printf '(%s) ' "${names[@]}") ]" > "$work/right" 2> /dev/null
  wait $!
  stowage cache wait "$STOWAGE_CACHE"
  same paths 40 "$(cat "$work/left" "$work/right" | wc -l)"
  while read -r out; do in_cache "$out"; done < <(cat "$work/left" "$work/right")
}

# What was built without a hook, and what a hook that was killed has not told.
unhooked() {
  local out killed
  stowage cache init "$STOWAGE_CACHE"
  out=$(nix-build --no-out-link --expr "$(trivial unhooked)" 2> /dev/null)
  printf '#!/bin/sh\nkill -9 $$\n' > "$work/bin/killed"
  chmod +x "$work/bin/killed"
  killed=$(trivial killed)
  fails nix-build --no-out-link --option post-build-hook "$work/bin/killed" --expr "$killed" 2> /dev/null
  stowage cache wait "$STOWAGE_CACHE" --json | tee "$work/waited"
  in_cache "$out"
  in_cache "$(nix-build --no-out-link --expr "$killed" 2> /dev/null)"
  jq --exit-status '.unhooked >= 2' "$work/waited"
}

# Where nothing can be recorded, it is exported at once.
full_disk() {
  local out
  tmpfs 64k "$NIX_STATE_DIR/stowage"
  mkdir -p "$queue"
  head -c 100k /dev/zero > "$NIX_STATE_DIR/stowage/fill" 2> /dev/null || true
  out=$(make full-disk)
  cat "$work/make.log"
  umount "$NIX_STATE_DIR/stowage"
  in_cache "$out"
}

strict_stops() {
  local out
  fails env STOWAGE_STRICT=1 STOWAGE_CACHE="$work/no/cache" nix-build --no-out-link --option post-build-hook "$hook" --expr "$(trivial strict)" > "$work/out" 2>&1
  cat "$work/out"
  grep -q 'no folder' "$work/out"
  out=$(STOWAGE_STRICT=1 make strict-ok)
  in_cache "$out"
}

installs() {
  mkdir -p "$work/etc"
  printf 'cache = "%s"\nexport = "outputs"\nexclude = ["unwanted*"]\n' "$work/configured" > "$work/etc/config.toml"
  stowage hook --install --dir "$work/etc" --config "$work/etc/config.toml" > "$work/advice"
  cat "$work/advice"
  grep -q "post-build-hook = $work/etc/stowage-hook" "$work/advice"
}

configured() {
  local out two
  # shellcheck disable=SC2016
  two="derivation { name = \"wanted-$seed\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo \${$(trivial needed)} > \$out\" ]; }"
  out=$(env -u STOWAGE_CACHE nix-build --no-out-link --option post-build-hook "$work/etc/stowage-hook" --expr "[ ($two) ($(trivial unwanted)) ]" 2> "$work/make.log")
  stowage cache wait "$work/configured"
  STOWAGE_CACHE=$work/configured in_cache "$(head -n 1 <<< "$out")"
  # The outputs, and not what they refer to: `needed` was built, too.
  same narinfos 2 "$(find "$work/configured" -name '*.narinfo' | wc -l)"
}

wrong_configuration() {
  printf 'cash = 1\n' > "$work/etc/wrong.toml"
  refused_lines 'unknown field' stowage hook --install --dir "$work/etc" --config "$work/etc/wrong.toml"
}

# Somebody makes a mistake later, and mends it.
mended_configuration() {
  local out config=$work/etc/mistaken.toml
  printf 'cash = 1\n' > "$config"
  out=$(unset STOWAGE_CACHE && STOWAGE_CONFIG=$config make mistaken)
  grep 'unknown field' "$work/make.log"
  same records 1 "$(queued)"
  refused_lines 'unknown field' stowage cache wait "$work/mended"
  printf 'cache = "%s"\n' "$work/mended" > "$config"
  stowage cache wait "$work/mended"
  STOWAGE_CACHE=$work/mended in_cache "$out"
}

refused_lines() {
  local message=$1
  shift
  fails "$@" 2> "$work/error"
  cat "$work/error"
  grep -qF -- "$message" "$work/error"
}

check 'what was built is exported by a worker' worker_exports
check 'what is recorded is held, and exported by cache wait' records_and_holds
check 'the worker has nothing of Nix'"'"'s' lets_go
check 'a key in the environment of a hook signs what was built with it' signs
check 'a cache that is not there: cache wait says so, and later all is exported' unreachable
check 'all outputs are exported' multiple_outputs
check 'a fixed output is exported' fixed_output
check 'a content-addressed output is exported' content_addressed
check 'nix-build --check' checked
check 'two Nix processes at once' two_at_once
check 'what no hook told of is exported by cache wait' unhooked
check 'where nothing can be recorded, it is exported at once' full_disk
check 'strict: a hook that fails stops the build' strict_stops
check 'hook --install writes a script' installs
check 'the configuration says what goes out' configured
check 'a wrong configuration is refused' wrong_configuration
check 'what was built with a wrong one is exported when that is mended' mended_configuration
units() {
  mkdir -p "$work/units"
  cp "$repo"/hooks/stowage-worker.* "$work/units"
  sed -i 's|/usr/local/bin/stowage|/bin/true|' "$work/units/stowage-worker.service"
  same units 3 "$(find "$work/units" -type f | wc -l)"
  systemd-analyze verify "$work"/units/*
}

check 'systemd takes the units' units
