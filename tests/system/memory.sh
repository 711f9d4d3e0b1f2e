#!/bin/bash
# A cold build takes little memory, whatever the image's size. How fast it is,
# bench/ shows: time is no matter for a test.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

set=${SET:-ci}

# memory LIMIT DESTINATION [OPTION]...: of the whole process, in kB.  What goes to
# standard output goes to somebody who reads it.
memory() {
  python3 - "$program" build "$profile" --name x --quiet --to "${@:2}" <<'PYTHON' > "$work/memory"
import os, subprocess, sys
reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
child = subprocess.Popen(sys.argv[1:], stdout=reader.stdin)
reader.stdin.close()
_, status, usage = os.wait4(child.pid, 0)
assert status == 0
print(usage.ru_maxrss)
PYTHON
  cat "$work/memory"
  test "$(cat "$work/memory")" -lt "$1"
}

# measured NAME LIMIT DESTINATION [OPTION]...
measured() {
  : > "$work/memory"
  check "$set: $1" memory "${@:2}"
  [ ! -s "$work/memory" ] || echo "      $(cat "$work/memory") kB"
}

get bookworm "$set"
profile=$(debnix bookworm "sets.$set")
measured 'a cold build to a pipe takes less than 100 MB of memory' 100000 docker-archive:-

# More threads have more blocks at once. zstd:19 takes minutes for a large set.
compressions='gzip zstd'
[ -z "${STOWAGE_LONG-}" ] || compressions='gzip zstd zstd:19'
for compression in $compressions; do
  # An index that knows the layers would spare the work.
  rm -rf "$XDG_CACHE_HOME"
  measured "$compression on 8 threads to a layout takes less than 256 MB" 256000 \
    "oci:$work/layout-$compression" --compress "$compression" --jobs 8
  rm -rf "$XDG_CACHE_HOME" "$work/layout-$compression"
  measured "$compression on 8 threads to an archive takes less than 256 MB" 256000 \
    oci-archive:- --compress "$compression" --jobs 8
done
