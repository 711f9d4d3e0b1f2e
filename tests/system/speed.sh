#!/bin/bash
# What can be told of speed whatever else the machine is doing: the memory of a
# cold build, and how a second one compares with Nix.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

set=${SET:-ci}

second_build() {
  "$repo/bench/second-build" --set "$set" --index "$(index_of bookworm)" | tee "$work/second"
  awk '/^a second build takes/ { exit !($5 <= 3) }' "$work/second"
}

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
check "$set: a second build takes at most 3 times as long as nix-store --query --requisites" second_build
[ ! -s "$work/second" ] || echo "      $(tail -n 1 "$work/second")"
check "$set: a cold build to a pipe takes less than 100 MB of memory" memory
[ ! -s "$work/memory" ] || echo "      $(cat "$work/memory") kB"
