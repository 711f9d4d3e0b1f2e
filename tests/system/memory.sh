#!/bin/bash
# A cold build takes little memory, whatever the image's size. How fast it is,
# bench/ shows: time is no matter for a test.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

set=${SET:-ci}

# Of the whole process, in kB; the archive goes to somebody who reads it.
memory() {
  python3 - "$program" "$profile" <<'PYTHON' > "$work/memory"
import os, subprocess, sys
reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
command = [sys.argv[1], "build", sys.argv[2], "--name", "x", "--to", "docker-archive:-", "--quiet"]
child = subprocess.Popen(command, stdout=reader.stdin)
reader.stdin.close()
_, status, usage = os.wait4(child.pid, 0)
assert status == 0
print(usage.ru_maxrss)
PYTHON
  cat "$work/memory"
  test "$(cat "$work/memory")" -lt 100000
}

get bookworm "$set"
profile=$(debnix bookworm "sets.$set")
check "$set: a cold build to a pipe takes less than 100 MB of memory" memory
[ ! -s "$work/memory" ] || echo "      $(cat "$work/memory") kB"
