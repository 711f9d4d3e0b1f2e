#!/bin/bash
# The Docker daemon, through its socket: what it gets, what it need not get, and
# what is said when it is not there.
# shellcheck source-path=SCRIPTDIR source=../lib.sh disable=SC2154
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

calls=open,openat,openat2,readlink,readlinkat,getdents,getdents64,execve,execveat,truncate,name_to_handle_at

id() { docker image inspect --format '{{.Id}}' "$1"; }
config() { jq --raw-output .config "$work/built.json"; }

# build ARGUMENT...
build() { stowage build --spec "$work/ci.json" --json "$@" > "$work/built.json"; }

it_runs() {
  build --to "docker-daemon:$image" "$@"
  same 'image ID' "$(config)" "$(id "$image")"
  docker run --rm --network=none "$image" /bin/sh -c 'nix-store --verify && id -u' | grep -x 1000
}

# A second time it is asked whether it has the image, and that is all; so under
# another name.
nothing_is_sent() {
  image=$again
  strace --follow-forks -qq -y --string-limit=4096 --trace="$calls,sendto,write,writev,connect" --output="$work/trace" \
    "$program" build --spec "$work/ci.json" --to "docker-daemon:$image" --quiet
  "$repo/tests/system/opened" "$work/trace" > "$work/opened"
  test ! -s "$work/opened"
  grep -F '/images/sha256:' "$work/trace" | grep -F 'GET /images/'
  if grep -F /images/load "$work/trace"; then return 1; fi
  same 'image ID' "$(config)" "$(id "$image")"
}

no_tarball() {
  rm -rf "$XDG_CACHE_HOME"
  strace --follow-forks -qq --trace=openat,creat,memfd_create --output="$work/trace" \
    "$program" build --spec "$work/ci.json" --to "docker-daemon:$image" --quiet
  # The layer index is the only thing that is written.
  if grep -E 'O_TMPFILE|O_CREAT|memfd_create' "$work/trace" | grep -v -F "\"$XDG_CACHE_HOME/"; then return 1; fi
}

copies() {
  stowage copy "docker-daemon:$image" "oci:$work/copied:1" --quiet
  same 'config' "$(config)" "$(stowage inspect "oci:$work/copied:1" --json | jq --raw-output .configDigest)"
  same 'diff IDs' "$(docker image inspect "$image" | jq --compact-output '.[0].RootFS.Layers')" \
    "$(skopeo inspect --config "oci:$work/copied:1" | jq --compact-output .rootfs.diff_ids)"
  docker image rm "$image"
  image=$back
  stowage copy "oci:$work/copied:1" "docker-daemon:$image" --quiet
  same 'image ID' "$(config)" "$(id "$image")"
}

on_a_parent() {
  local parent=$image
  image=$child
  stowage build "$small" --from "docker-daemon:$parent" --to "docker-daemon:$image" --quiet
  docker run --rm --network=none "$image" /bin/sh -c "nix-store --verify && nix-store --query --requisites $small" | grep -xF "$small"
  stowage inspect "docker-daemon:$image" | grep -F "user: "
}

into() { stowage build --spec "$work/ci.json" --name "$image" --to docker-archive:- --quiet | "$@" load; }

podman_here() { podman --root "$work/podman" --runroot "$work/podman-run" "$@"; }

loads_stream() {
  into podman_here
  same 'image ID' "$(config | cut -d: -f2)" "$(podman_here image inspect --format '{{.Id}}' "localhost/$image")"
  into docker
  same 'image ID' "$(config)" "$(id "$image")"
}

to_daemon() { stowage build --spec "$work/ci.json" --to "docker-daemon:$image" --quiet "$@"; }

# As nobody, whom the socket does not let in; the binary is everybody's.
as_nobody() {
  setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/ XDG_CACHE_HOME="$work/none" \
    "$program" build --spec "$work/ci.json" --to "docker-daemon:$image" --quiet
}

says_why() {
  refused 'does it run, and there?' env DOCKER_HOST="unix://$work/none.sock" "$program" build "$small" --to docker-daemon:x:1
  refused 'neither unix' env DOCKER_HOST=ssh://x "$program" build "$small" --to docker-daemon:x:1
  refused 'no zstd' to_daemon --compress zstd
  refused 'reference does not exist' stowage inspect docker-daemon:stowage-test-none:1
  refused 'reference does not exist' stowage copy docker-daemon:stowage-test-none:1 "oci:$work/none"
  test ! -e "$work/none"
}

group_docker() {
  python3 -c "
import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind('$work/closed.sock')
os.chmod('$work/closed.sock', 0o600)
server.listen()
import time; time.sleep(60)" &
  local pid=$!
  until [ -S "$work/closed.sock" ]; do sleep 0.1; done
  chmod 644 "$work/ci.json"
  DOCKER_HOST=unix://$work/closed.sock refused 'group docker' as_nobody
  kill "$pid"
}

# A daemon that goes away, or says in the middle that it has enough.
breaks_off() {
  local how=$1
  rm -rf "$XDG_CACHE_HOME"
  python3 - "$work/$how.sock" "$how" <<'PYTHON' &
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
client, _ = server.accept()
got = 0
while got < 3_000_000 and (data := client.recv(65536)):
    got += len(data)
if sys.argv[2] != "goes":
    body = b'{"stream":"a"}\n{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}\n'
    if sys.argv[2] == "silent":
        body = b""
    more = data
    while more and not data.endswith(b"0\r\n\r\n"):
        more = client.recv(65536)
        data = data[-5:] + more
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
client.close()
PYTHON
  until [ -S "$work/$how.sock" ]; do sleep 0.1; done
  DOCKER_HOST=unix://$work/$how.sock refused "$2" to_daemon
}

get bookworm small ci
small=$(debnix bookworm sets.small)
spec "$(debnix bookworm sets.ci)" > "$work/ci.json"
chmod 644 "$work/ci.json"
for name in again back child piped gzip; do
  new_image "daemon-$name"
  declare "$name=$image"
done
new_image daemon
need 'the daemon gets an image, and runs it' it_runs
check 'what it has it is not sent again' nothing_is_sent
check 'nothing is written to a disk on the way' no_tarball
image=$gzip
check 'gzip, too' it_runs --compress gzip
check 'copies from it and to it keep config and layers' copies
image=$back
check 'on a parent that it has' on_a_parent
image=$piped
check 'podman and docker load what comes through a pipe' loads_stream
check 'what is wrong is said' says_why
check 'the group docker is named' group_docker
check 'a daemon that goes away' breaks_off goes 'the Docker daemon at'
check 'a daemon that has no room' breaks_off says 'no space left on device'
check 'a daemon that does not say what it has done' breaks_off silent 'does not say that it has loaded'
