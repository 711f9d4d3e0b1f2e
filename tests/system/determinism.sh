#!/bin/bash
# The image depends on the arguments only: not on who builds it where, on the
# way its registrations came, or on how the store lies on disk.
#
# Each build has a layer index of its own, which is empty: otherwise a later one
# would only repeat what the first one found.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

nix_command() { nix --extra-experimental-features nix-command "$@"; }

# build ARGUMENT...: prints the digests of the image, and of its config.
build() {
  XDG_CACHE_HOME=${cache-$(mktemp -d "$work/cache.XXXXXX")} "$program" build --json \
    --to "${to-oci:$(mktemp -d "$work/oci.XXXXXX")}" "$@" | jq --raw-output '.digest, .config'
}

same_image() { same digests "$expected" "$("$@")"; }

other_surroundings() {
  # shellcheck disable=SC2030 # of this subshell alone
  (
    cd /
    umask 077
    export TZ=Pacific/Kiritimati LC_ALL=tr_TR.UTF-8 LANG=tr_TR.UTF-8 HOME=/nonexistent SOURCE_DATE_EPOCH=1234567890
    build --spec "$work/ci.json"
  )
}

as_user() {
  local home=$work/user
  install -d -o 1000 -g 1000 "$home"
  setpriv --reuid 1000 --regid 1000 --clear-groups env HOME="$home" XDG_CACHE_HOME="$home/.cache" \
    "$program" build --json --to "oci:$home/oci" --spec "$work/ci.json" | jq --raw-output '.digest, .config'
}

# Three destinations, of which the later ones profit from the first.
three_destinations() {
  build --spec "$work/ci.json" --to "stowage:$work/folder.three" --to "docker-archive:$work/three.tar"
}

after_another_image() {
  cache=$work/cache.shared
  to=oci:$work/oci.shared
  build --name other "$small" > "$work/other"
  build --spec "$work/ci.json"
}

# All layers are known, and have to be made all the same.
known_layers() {
  cache=$work/cache.warm
  to=stowage:$work/folder build --spec "$work/ci.json" > "$work/other"
  build --spec "$work/ci.json"
}

# Some are known, and have to be made beside the others.
some_known_layers() {
  cache=$work/cache.some
  to=stowage:$work/folder.some build --name other "$package" > "$work/other"
  build --spec "$work/ci.json"
}

# Some are known and there, some known, some neither.
some_layers_are_there() {
  cache=$work/cache.there
  to=stowage:$work/folder.there build --name other "$small" > "$work/other"
  to=oci:$work/oci.there
  build --name other "$package" > "$work/other"
  build --spec "$work/ci.json"
}

# On 1, 2 and 8 threads.
compressed() {
  local jobs=1 one
  one=$(build --name s "$small" --compress "$1" --jobs 1)
  for jobs in 2 8; do
    same "digests on $jobs threads" "$one" "$(build --name s "$small" --compress "$1" --jobs "$jobs")"
  done
}

from_archive() {
  to=docker-archive:$work/image.tar build --spec "$work/ci.json" > "$work/archive"
  cat "$work/archive"
  # What the archive holds, not only what was said of it.
  same config "$(sed -n 2p "$work/archive")" "sha256:$(tar --extract --to-stdout --file "$work/image.tar" \
    "$(tar --extract --to-stdout --file "$work/image.tar" manifest.json | jq --raw-output '.[0].Config')" | sha256sum | cut -d ' ' -f 1)" >&2
}

from_json() {
  nix_command path-info --json --recursive "$ci" > "$work/closure.json"
  build --spec "$work/ci.json" --closure "$work/closure.json"
}

# Rows with a ca are in every set, so here it is a package, and its closure.
from_dump() {
  local rows
  rows=$(nix-store --query --requisites "$package" | sort)
  same 'paths with a ca' none "$(nix_command path-info --json --recursive "$package" | jq --raw-output 'map(select(.ca)) | if . == [] then "none" else .[].path end')"
  xargs nix-store --dump-db <<< "$rows" > "$work/dump"
  same digests "$(build --name p "$package")" "$(build --name p "$package" --registration "$work/dump")"
  nix_command path-info --json --recursive "$package" > "$work/package.json"
  same digests "$(build --name p "$package")" "$(build --name p "$package" --closure "$work/package.json")"
}

# A newer Nix writes another kind of JSON.  It also changes the database that
# it opens, so it gets a store of ours.
from_newer_json() {
  local newer
  newer=$(debnix trixie sets.ci)
  nix_command copy --no-check-sigs --option build-users-group '' --to "local?root=$work/newer" "$small"
  "$newer/bin/nix" --extra-experimental-features nix-command --option build-users-group '' \
    --store "local?root=$work/newer" path-info --json --recursive "$small" > "$work/newer.json"
  jq --exit-status 'type == "object"' "$work/newer.json"
  same digests "$(build --name s "$small")" "$(build --name s "$small" --closure "$work/newer.json")"
}

# Rows of this set have a ca, which no text has; the paths themselves tell it.
from_dump_with_ca() {
  local told
  nix_command path-info --json --recursive "$small" | jq --exit-status 'any(.[]; .ca)'
  xargs nix-store --dump-db <<< "$(nix-store --query --requisites "$small")" > "$work/small.dump"
  for told in first again; do
    echo "$told"
    same digests "$(build --name s "$small")" "$(build --name s "$small" --registration "$work/small.dump")"
  done
}

make_store() {
  nix_command copy --no-check-sigs --option build-users-group '' --to "local?root=$work/store" "$ci"
}

optimise() {
  nix-store --store "local?root=$work/store" --option build-users-group '' --optimise
  test -n "$(find "$work/store/nix/store" -path '*/.links' -prune -o -type f -links +2 -print -quit)"
}

get bookworm ci small stdenv
get trixie ci stdenv
ci=$(debnix bookworm sets.ci)
small=$(debnix bookworm sets.small)
package=$(debnix bookworm hello)
spec "$ci" '{"hook": true}' > "$work/ci.json"
expected=$(build --spec "$work/ci.json")
need 'the image has digests' grep -cE '^sha256:[0-9a-f]{64}$' <<< "$expected"
echo "      ${expected/$'\n'/, config }"

check 'another umask, time zone, locale, HOME and folder' same_image other_surroundings
check 'another uid' same_image as_user
check 'one thread' same_image build --spec "$work/ci.json" --jobs 1
check 'two threads' same_image build --spec "$work/ci.json" --jobs 2
check 'eight threads' same_image build --spec "$work/ci.json" --jobs 8
for compression in none gzip zstd; do
  check "$compression on 1, 2 and 8 threads" compressed "$compression"
done
check 'after another image in the same layout' same_image after_another_image
check 'three destinations at once' same_image three_destinations
check 'with all layers known' same_image known_layers
check 'with some layers known' same_image some_known_layers
check 'with some layers known, and some there' same_image some_layers_are_there
check 'a Docker archive' same_image from_archive
check 'from nix path-info --json' same_image from_json
check 'from a text dump, and from JSON, where no row has a ca' from_dump
check 'from the JSON of a newer Nix' from_newer_json
check 'from a text dump, which has lost the ca of rows' from_dump_with_ca
need 'a scratch store' make_store
check 'from the scratch store' same_image build --spec "$work/ci.json" --store "$work/store"
need 'nix-store --optimise links files' optimise
check 'after nix-store --optimise' same_image build --spec "$work/ci.json" --store "$work/store"
