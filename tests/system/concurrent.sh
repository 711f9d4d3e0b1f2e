#!/bin/bash
# Builds at the same time, of one destination and one layer index: both images
# are there, or the later one, and whole.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

# both PACKAGE DESTINATION PACKAGE DESTINATION: two builds at the same time.
both() {
  local first second
  "$program" build "$1" --name x --to "$2" --quiet &
  first=$!
  "$program" build "$3" --name x --to "$4" --quiet &
  second=$!
  wait "$first"
  wait "$second"
}

config_of() { "$program" inspect "$1" --json | jq --raw-output .configDigest; }

# Which comes last is by chance, so there are many tries; the same image twice
# is ready at about the same time.
layout_has_both() {
  local try to=oci:$work/layout
  for try in $(seq 50); do
    rm -rf "$work/layout"
    both "$hello" "$to:one" "$hello" "$to:two"
    "$repo/tests/system/valid" "$to"
    same "tags after try $try" '["one","two"]' \
      "$(jq --compact-output '[.manifests[].annotations["org.opencontainers.image.ref.name"]] | sort' "$work/layout/index.json")"
  done
}

has_one() {
  local to=$1
  for _ in $(seq 30); do
    both "$hello" "$to" "$bash" "$to"
    "$repo/tests/system/valid" "$to"
    config_of "$to" | grep -Fx -f "$work/hello.config" -f "$work/bash.config"
  done
}

get bookworm small
hello=$(debnix bookworm hello)
bash=$(debnix bookworm bash)
for name in hello bash; do
  "$program" build "${!name}" --name x --to "oci:$work/alone-$name" --json | jq --raw-output .config > "$work/$name.config"
done
check 'two builds into one layout: both are there' layout_has_both
check 'two builds into one image folder: one is there, and whole' has_one "stowage:$work/folder"
check 'two builds into one archive: one is there, and whole' has_one "docker-archive:$work/image.tar"
