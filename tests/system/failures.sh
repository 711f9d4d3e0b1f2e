#!/bin/bash
# A full disk, a killed build, a reader that goes away: nothing half-made is
# left under a final name, and what was there before stays whole.  Caches are in kills.sh.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

valid="$repo/tests/system/valid"

# build CACHE ARGUMENT...: with a layer index of its own.
build() {
  XDG_CACHE_HOME=$work/cache-$1 "$program" build "${@:2}" --quiet
}

# files FOLDER: what has a final name there, and what it contains.
files() {
  (cd "$1" && find . -type f -not -name '.*' -print0 | sort --zero-terminated | xargs --null --no-run-if-empty sha256sum)
}

# --- A full disk -------------------------------------------------------------

full_is_an_error() {
  fails build full --spec "$work/big.json" --to "$2" 2> "$work/error"
  cat "$work/error"
  grep -q 'No space left on device' "$work/error"
  "$valid" "$2"
  test ! -e "$1/image.tar"
  test ! -e "$1/image/stowage.json"
  "$program" inspect "$2" && return 1
  # It works as soon as there is room.
  mount -o remount,size=600m "$1"
  build full --spec "$work/big.json" --to "$2"
  "$valid" "$2"
  "$program" inspect "$2"
}

full_keeps_the_image() {
  local before
  build full --spec "$work/small.json" --to "$2"
  before=$(files "$1")
  fails build full --spec "$work/big.json" --to "$2" 2> "$work/error"
  "$valid" "$2"
  # More blobs may be there now, whole ones.
  comm -23 <(sort <<< "$before") <(files "$1" | sort) > "$work/lost"
  cat "$work/lost"
  test ! -s "$work/lost"
  same config "$(config_of "$2")" "$(cat "$work/small.config")"
}

config_of() { "$program" inspect "$1" --json | jq --raw-output .configDigest; }

full_index_is_no_error() {
  local full=$work/full-index
  head --bytes=64k /dev/zero > "$full/fill" || true
  XDG_CACHE_HOME=$full "$program" build --spec "$work/small.json" --to "oci:$work/oci-index" --json > "$work/built.json"
  same config "$(jq --raw-output .config "$work/built.json")" "$(cat "$work/small.config")"
}

# --- A killed build ----------------------------------------------------------

# Kills builds at ever later moments, until one is too late.
killed_leaves_all_valid() {
  local pid status wait=0.00 to=$1 count=0
  build kill --spec "$work/small.json" --to "$to"
  while true; do
    rm -rf "$work/cache-killed"
    XDG_CACHE_HOME=$work/cache-killed "$program" build --spec "$work/big.json" --to "$to" --quiet 2> /dev/null &
    pid=$!
    sleep "$wait"
    kill -KILL "$pid" || true
    status=0
    wait "$pid" || status=$?
    "$valid" "$to"
    [ "$status" = 0 ] && break
    # Either image, since a build may be killed after its work is done.
    config_of "$to" | grep -Fx -f "$work/small.config" -f "$work/big.config"
    count=$((count + 1))
    wait=$(awk -v "wait=$wait" 'BEGIN { print wait * 1.3 + 0.01 }')
  done
  echo "$count builds were killed"
  test "$count" -ge 5
  same config "$(config_of "$to")" "$(cat "$work/big.config")"
}

# --- A reader that goes away -------------------------------------------------

# The archive ends early, and who makes it says so.
gone_reader_is_an_error() {
  local status
  build pipe --spec "$work/big.json" --to docker-archive:- 2> "$work/error" | head --bytes=100k > /dev/null || status=$?
  cat "$work/error"
  test "${status-0}" != 0
  test "${status-0}" != 101
}

full_stdout_is_an_error() {
  fails build pipe --spec "$work/big.json" --to docker-archive:- > /dev/full 2> "$work/error"
  grep -q 'No space left on device' "$work/error"
}

get bookworm ci small stdenv
ci=$(debnix bookworm sets.ci)
spec "$(debnix bookworm sets.small)" > "$work/small.json"
spec "$ci" '{"hook": true}' > "$work/big.json"
for size in small big; do
  XDG_CACHE_HOME=$work/cache-$size "$program" build --spec "$work/$size.json" --to "oci:$work/$size" --json |
    jq --raw-output .config > "$work/$size.config"
  test -s "$work/$size.config"
done

# The image folder holds the system layer only, so its disk is smaller.
for to in docker-archive:image.tar:64m oci:image:64m stowage:image:2m; do
  IFS=: read -r kind name size <<< "$to"
  tmpfs "$size" "$work/full-$kind"
  check "$kind on a full disk is an error, and nothing half-made" full_is_an_error "$work/full-$kind" "$kind:$work/full-$kind/$name"
  tmpfs "$size" "$work/kept-$kind"
  check "$kind keeps the image that was there" full_keeps_the_image "$work/kept-$kind" "$kind:$work/kept-$kind/$name"
  mkdir "$work/killed-$kind"
  check "$kind is whole after builds that were killed" killed_leaves_all_valid "$kind:$work/killed-$kind/$name"
done
tmpfs 64k "$work/full-index"
check 'a layer index on a full disk is no error' full_index_is_no_error
check 'a reader that goes away is an error' gone_reader_is_an_error
check 'a full standard output is an error' full_stdout_is_an_error
