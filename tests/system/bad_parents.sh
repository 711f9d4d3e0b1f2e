#!/bin/bash
# Parents that are damaged, or made to harm: each is an error that says which
# layer, in bounded memory, and nothing is left behind.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

# In kB, of a whole build.
most_memory=100000

# build REFERENCE DEST: a build on that, with its memory in $work/memory and a
# folder for temporary files of its own.
build() {
  mkdir -p "$work/tmp"
  TMPDIR=$work/tmp python3 - "$program" build "$path" --spec "$work/spec.json" --from "$1" --to "$2" --name x --quiet <<'PYTHON'
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
with open(os.path.join(os.path.dirname(os.environ["TMPDIR"]), "memory"), "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
PYTHON
}

# What is in the folder for temporary files.
left() { find "$work/tmp" -mindepth 1; }

# refused KIND MESSAGE...
refused() {
  local kind=$1 folder=$work/parent reference kind_of_destination destination message
  shift
  rm -rf "$folder" "$work/out"
  reference=$("$repo/tests/system/bad-parent" "$kind" "$folder")
  for kind_of_destination in stowage oci docker-archive; do
    mkdir -p "$work/out"
    destination=$kind_of_destination:$work/out/$kind_of_destination
    fails build "$reference" "$destination" 2> "$work/error"
    cat "$work/error" "$work/memory"
    for message in "$@"; do grep -qF -- "$message" "$work/error"; done
    test "$(wc -l < "$work/error")" = 1
    test "$(cat "$work/memory")" -lt "$most_memory"
    test -z "$(left)"
    # No image, under whatever name.
    test -z "$(find "$work/out" -name stowage.json -o -type f -size +0 -path '*blobs*' -o -name docker-archive)"
    test ! -e /tmp/escaped
  done
}

works() {
  local reference
  rm -rf "$work/parent"
  reference=$("$repo/tests/system/bad-parent" good "$work/parent")
  build "$reference" "docker-archive:$work/good.tar"
  test -s "$work/good.tar"
  test -z "$(left)"
}

get bookworm small
path=$(debnix bookworm sets.small)
echo '{"architecture": "amd64"}' > "$work/spec.json"

# Else the others may be refused for what all of them have.
need 'a sound image made the same way is built on' works
check 'a layer with another digest' refused wrong-digest 'layer 1 of oci:' 'digest'
check 'a layer with another diff ID' refused wrong-diff-id 'layer 2 of oci:' 'uncompressed the digest'
check 'a layer that is cut off' refused cut-layer 'layer 2 of oci:' 'cut off'
check 'a layer that is missing' refused missing-layer 'layer 2'
check 'an index without our platform' refused other-platforms 'no image for linux/amd64' 'linux/arm64'
check 'a name with ..' refused parent-folder 'layer 2 of oci:' '..'
check 'an entry below a link' refused through-link 'layer 2 of oci:' 'leads through'
check 'a database that is none' refused database 'layer 2 of oci:' 'database'
check 'ten GiB of zeros after the end of a layer' refused zeros 'layer 2 of oci:'
check 'a file of ten GiB of zeros in a layer' refused zero-file 'layer 2 of oci:'
check 'an archive that is cut off' refused cut-archive 'cut-archive'
check 'a compressed archive that is cut off' refused cut-archive.gz 'cut-archive.gz'
check 'a compressed archive with ten GiB of zeros' refused zero-archive.gz 'zero-archive.gz'
