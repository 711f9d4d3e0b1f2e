#!/bin/bash
# Nix works in the images: debnix's eight checks, twice, as an ordinary user
# without a network, in an image of the set ci of each generation.
#
#   containers.sh [SUITE]...
#
# sid moves from day to day, so it is told how it went and counts for nothing.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

checks=8
rounds=${ROUNDS:-2}

# image_works SUITE PROFILE: each line of container-smoke is a check.
image_works() {
  local suite=$1 lines
  spec "$2" > "$work/$suite.json"
  new_image "$suite"
  need "$suite: the image loads in Docker" load "$work/$suite.json"
  echo "      $(docker run --rm --network=none "$image" nix --version)"
  lines=$work/$suite.log
  "$debnix/container-smoke" --image "$image" --rounds "$rounds" "$(index_of "$suite")" > "$lines" 2>&1 || true
  while read -r line; do
    case $line in
      'ok '*) ok "$suite: ${line#ok    }" ;;
      'FAIL '*) fail "$suite: ${line#FAIL  }" ;;
      *) echo "      | $line" ;;
    esac
  done < "$lines"
  check "$suite: all $((checks * rounds)) checks have run" test "$(grep -c '^ok ' "$lines")" = "$((checks * rounds))"
}

# try SUITE: for the suite that may be broken today.
try() {
  local suite=$1 counts=$work/counts
  get_moving "$suite" ci stdenv || return 0
  if STOWAGE_COUNTS=$counts "$0" --strict "$suite"; then
    echo "$suite: passed, which does not count"
  else
    echo "$suite: failed, which does not count"
  fi
}

strict=
if [ "${1-}" = --strict ]; then
  strict=yes
  shift
fi
[ $# -gt 0 ] || set -- bookworm trixie
for suite; do
  if [ "$suite" = sid ] && [ -z "$strict" ]; then
    try sid
    continue
  fi
  need "$suite: the index" get "$suite" ci stdenv
  profile=$(debnix "$suite" sets.ci)
  image_works "$suite" "$profile"
done
