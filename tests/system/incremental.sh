#!/bin/bash
# A second build opens no store file, and one with a single changed path opens
# only that path's.  An lstat is allowed: it finds what is gone.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

calls=open,openat,openat2,readlink,readlinkat,getdents,getdents64,execve,execveat,truncate,name_to_handle_at

# build SPEC DESTINATION: builds, and puts into $work/opened what it opened.  Paths
# that share a layer with a changed one must be read again, so each has its own.
build() {
  strace --follow-forks -qq -y --string-limit=4096 --trace="$calls" --output="$work/trace" \
    "$program" build --max-layers 125 --spec "$1" --to "$2" --json > "$work/built.json"
  "$repo/tests/system/opened" "$work/trace" > "$work/opened"
}

built() { jq --raw-output .digest "$work/built.json"; }

# The recipe must see what is opened, or it shows nothing.
first_opens_all() {
  build "$1" "$2"
  built > "$work/first"
  nix-store --query --requisites "$old" | sort > "$work/closure"
  diff "$work/closure" "$work/opened"
}

second_opens_none() {
  build "$1" "$2"
  cat "$work/opened"
  test ! -s "$work/opened"
  same digest "$(cat "$work/first")" "$(built)"
}

changed_is_opened() {
  build "$1" "$2"
  same 'what is opened' "$new" "$(cat "$work/opened")"
  test "$(cat "$work/first")" != "$(built)"
}

# three_builds WHERE DESTINATION JSON: a first build, a second one, and one with
# another leaf; JSON is the spec, with the name LEAF for the leaf.
three_builds() {
  export XDG_CACHE_HOME="$work/cache-$1"
  spec "$ci" "${3//LEAF/$old}" > "$work/old.json"
  spec "$ci" "${3//LEAF/$new}" > "$work/new.json"
  check "$1: a first build opens all store paths" first_opens_all "$work/old.json" "$2"
  check "$1: a second build opens none" second_opens_none "$work/old.json" "$2"
  check "$1: with a changed path, only that is opened" changed_is_opened "$work/new.json" "$2"
}

get bookworm ci stdenv
ci=$(debnix bookworm sets.ci)
old=$(leaf old)
new=$(leaf new)
in_contents='{"contents": ["LEAF"]}'
in_config='{"contents": [], "config": {"Cmd": ["/bin/cat", "LEAF/share/leaf"]}}'
beside_contents="{\"contents\": [\"$ci\"], \"config\": {\"Cmd\": [\"/bin/cat\", \"LEAF/share/leaf\"]}}"
three_builds 'image folder' "stowage:$work/folder" "$in_contents"
three_builds 'layout' "oci:$work/layout" "$in_contents"
three_builds 'image folder, leaf in the config' "stowage:$work/folder2" "$in_config"
three_builds 'layout, leaf in the config beside contents' "oci:$work/layout2" "$beside_contents"
