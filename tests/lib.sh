# What the tests, the demo and the benchmarks share; to be sourced.
#
# $work is a folder of the script's own.  When the script ends, the processes
# it has named to `started`, its Docker images and that folder go.
# shellcheck shell=bash
set -euo pipefail
shopt -s inherit_errexit

repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
debnix=$repo/tests/debnix
debnix_home=${DEBNIX_HOME:-/var/cache/debnix}
export LC_ALL=C

work=$(mktemp -d "${TMPDIR:-/tmp}/stowage-test.XXXXXX")
# Ordinary users look into it.
chmod 755 "$work"
# The machine's layer index stays out of it.
export XDG_CACHE_HOME=$work/xdg

# --- Checks ------------------------------------------------------------------

passed=0
failed=0
last=ok

# check NAME COMMAND...: runs the command, and counts whether it succeeds.
# Within it, the first command that fails ends it.  $last says how it went.
check() {
  local name=$1 status
  shift
  # As the condition of an `if`, the command would run without `set -e`.
  set +e
  (
    set -e
    "$@"
  ) > "$work/log" 2>&1
  status=$?
  set -e
  if [ "$status" = 0 ]; then
    ok "$name"
  else
    fail "$name (exit $status)"
    tail -n 25 "$work/log" | sed 's/^/      | /'
  fi
}

ok() {
  echo "ok    $1"
  passed=$((passed + 1))
  last=ok
}

fail() {
  echo "FAIL  $1"
  failed=$((failed + 1))
  last=failed
}

# need NAME COMMAND...: a check without which the rest makes no sense.
need() {
  check "$@"
  [ "$last" = ok ] || exit 1
}

# same WHAT A B: succeeds when A and B are the same text, and not empty.
same() {
  [ -n "$2" ] && [ "$2" = "$3" ] && return
  echo "$1: '$2' and '$3'"
  return 1
}

# fails COMMAND...: succeeds when the command fails with an exit code of its
# own, rather than by a signal or a panic.
fails() {
  local status=0
  "$@" || status=$?
  [ "$status" -gt 0 ] && [ "$status" -lt 100 ] && return
  echo "exit $status where a failure was expected: $*"
  return 1
}

# refused MESSAGE COMMAND...: the command fails, and says that on one line.
refused() {
  local message=$1
  shift
  fails "$@" 2> "$work/error"
  cat "$work/error"
  same lines 1 "$(wc -l < "$work/error")"
  grep -qF -- "$message" "$work/error"
}

# --- What ends with the script -----------------------------------------------

pids=()
images=()

started() { pids+=("$1"); }

# tmpfs SIZE FOLDER: mounts a folder that holds no more than SIZE.
tmpfs() {
  mkdir -p "$2"
  mount -t tmpfs -o "size=$1" stowage-test "$2"
}

# clean_up: of what can't be undone nothing is worth a failed test.
clean_up() {
  local item
  for item in ${images[@]+"${images[@]}"}; do
    docker image rm --force "$item" > /dev/null 2>&1 || true
  done
  for item in ${pids[@]+"${pids[@]}"}; do
    if kill "$item" 2> /dev/null; then wait "$item" 2> /dev/null || true; fi
  done
  # A Docker daemon may leave its folder mounted on itself, too.
  awk -v "work=$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort --reverse |
    xargs --no-run-if-empty --delimiter '\n' umount --lazy || true
  rm -rf --one-file-system "$work" || true
}

on_exit() {
  local status=$?
  trap - EXIT
  # A script that ended early has not done all of its checks.
  if [ "$status" != 0 ] && [ "$last" = ok ]; then
    fail "$(basename "$0") ended early (exit $status)"
  fi
  clean_up
  if [ "$((passed + failed))" -gt 0 ]; then
    if [ -n "${STOWAGE_COUNTS-}" ]; then
      echo "$passed $failed" >> "$STOWAGE_COUNTS"
    else
      echo "$passed passed, $failed failed"
    fi
    [ "$failed" = 0 ] || status=1
  fi
  exit "$status"
}
trap on_exit EXIT

# --- stowage -----------------------------------------------------------------

# A copy of $STOWAGE that every user may run, and that stays the same while the
# script runs.
program=$work/bin/stowage
[ -z "${STOWAGE-}" ] || install -D -m 755 "$STOWAGE" "$program"

stowage() { "$program" "$@"; }

# spec CONTENT [JSON]: an image spec for the set ci or small, plus JSON.
spec() {
  jq --null-input --arg content "$1" --argjson more "${2:-null}" \
    '{name: "ci", contents: [$content], nixConf: {substituters: ""}, config: {Cmd: ["/bin/sh"]}} + $more'
}

# new_image NAME: puts a name for a Docker image into $image.
new_image() {
  image=stowage-test-$1:$$
  images+=("$image")
}

# load SPEC: builds $image straight into Docker.
load() {
  stowage build --spec "$1" --name "$image" --to docker-archive:- --quiet | docker load
}

# --- debnix ------------------------------------------------------------------

index_of() {
  case $1 in
    bookworm) echo "$debnix_home/packages.json" ;;
    *) echo "$debnix_home/packages-$1.json" ;;
  esac
}

# get SUITE SET...: downloads what the index of SUITE lacks of the sets.  What
# others have asked for before stays in the index.
get() {
  local suite=$1 index
  shift
  index=$(index_of "$suite")
  python3 - "$debnix/sets.json" "$index" "$@" <<'PYTHON' > "$work/wanted"
import json, os, sys
sets = json.load(open(sys.argv[1]))
roots = json.load(open(sys.argv[2]))["roots"] if os.path.exists(sys.argv[2]) else []
wanted = {package for name in sys.argv[3:] for package in sets[name]}
print("\n".join(sorted(wanted.union(roots)) if wanted.difference(roots) else []))
PYTHON
  mapfile -t wanted < <(grep . "$work/wanted")
  [ "${#wanted[@]}" = 0 ] || "$debnix/fetch" --suite "$suite" "${wanted[@]}"
}

# debnix SUITE ATTRIBUTE: builds with debnix, prints the store path.
debnix() {
  nix-build "$debnix" --arg index "$(index_of "$1")" -A "$2" --no-out-link
}

# get_moving SUITE SET...: gets a suite that moves from day to day, and may be broken
# today.  $profile is its set ci then; else why not is said, which counts for nothing.
get_moving() {
  local suite=$1
  profile=
  if get "$@" && profile=$(debnix "$suite" sets.ci) && "$profile/bin/nix" --version; then
    return
  fi > "$work/moving" 2>&1
  tail -n 5 "$work/moving"
  echo "$suite: could-not-build, which does not count"
  return 1
}

# leaf TEXT: a store path that nothing refers to, and that refers to the set.
leaf() {
  nix-build --no-out-link --quiet --expr "
    let debnix = import $debnix { index = $(index_of bookworm); };
    in derivation {
      name = \"leaf\"; system = \"x86_64-linux\"; builder = \"\${debnix.busybox}/bin/sh\";
      args = [ \"-c\" \"\${debnix.busybox}/bin/mkdir -p \$out/share; echo $1 \${debnix.sets.ci} > \$out/share/leaf\" ];
    }" 2> /dev/null
}

# in_job SUITE PROJECT SCRIPT: runs a script as a CI job does, in a container of
# $image, as its ordinary user, without a network, in the project's folder.
# debnix is there as if it were part of the project.
in_job() {
  docker run --rm --network=none --volume "$2:/project" --workdir /project \
    --volume "$debnix:/debnix:ro" --volume "$(index_of "$1"):/index.json:ro" --volume "$debnix_home/debs:/debs:ro" \
    "$image" /bin/sh -euc "$3"
}

# builds LOG: how many derivations Nix says it has built.
builds() { grep -c "^building '/nix/store/.*\.drv'" "$1" || true; }

# copies LOG: how many paths Nix says it has copied, and from where.
copies() {
  sed -n "s/^copying path '.*' from '\(.*\)'\.*$/\1/p" "$1" | sort | uniq --count |
    while read -r count from; do echo "$count copied from $from"; done
}

# --- Docker ------------------------------------------------------------------

# start_docker: leaves a Docker daemon alone that answers; else starts one with
# its own state, for as long as the script runs.
start_docker() {
  local options
  docker info > /dev/null 2>&1 && return
  export DOCKER_HOST=unix://$work/docker.sock
  mount_cgroups
  # A kernel may have no netfilter, and no overlayfs on this file system.
  for options in '' '--iptables=false --ip6tables=false --bridge=none' \
    '--iptables=false --ip6tables=false --bridge=none --storage-driver=vfs'; do
    # shellcheck disable=SC2086 # word splitting is meant
    if try_docker $options; then
      echo "Docker runs here until the end${options:+, with $options}"
      return
    fi
  done
  echo 'No Docker daemon runs, and none could be started:' >&2
  tail -n 20 "$work/dockerd.log" >&2
  return 1
}

# try_docker OPTION...: starts a daemon and has it make a container.
try_docker() {
  local pid
  rm -rf "$work/docker"
  dockerd --host "$DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/docker-run" \
    --pidfile "$work/docker.pid" "$@" > "$work/dockerd.log" 2>&1 &
  pid=$!
  for _ in $(seq 60); do
    if docker info > /dev/null 2>&1; then
      if docker_works; then
        started "$pid"
        return
      fi
      break
    fi
    kill -0 "$pid" 2> /dev/null || break
    sleep 0.5
  done
  kill "$pid" 2> /dev/null || true
  wait "$pid" || true
  return 1
}

# docker_works: a storage driver may start, and fail at the first container.
docker_works() {
  tar --create --files-from /dev/null | docker import - stowage-test-empty > /dev/null &&
    docker create --name stowage-test-empty --network=none stowage-test-empty /none > /dev/null &&
    docker rm stowage-test-empty > /dev/null && docker image rm stowage-test-empty > /dev/null
}

# mount_cgroups: where nothing has done so, since there is no systemd.
mount_cgroups() {
  local name
  grep -q ' /sys/fs/cgroup' /proc/mounts && return
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups | while read -r name; do
    mkdir "/sys/fs/cgroup/$name"
    mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" || rmdir "/sys/fs/cgroup/$name"
  done
}
