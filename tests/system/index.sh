#!/bin/bash
# Images for several platforms: indexes in a real registry, in layouts and
# archives, and what skopeo, podman, Docker and stowage itself choose of them.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

# --- A registry --------------------------------------------------------------

log=$work/registry.log

# run_registry: starts one on a free port, and puts its address into $registry.
run_registry() {
  local port pid
  for port in $(shuf --input-range 20000-32000 --head-count 20); do
    cat > "$work/registry.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
END
    docker-registry serve "$work/registry.yml" > "$log" 2>&1 &
    pid=$!
    for _ in $(seq 50); do
      if curl --silent --fail --output /dev/null "http://127.0.0.1:$port/v2/"; then
        started "$pid"
        registry=127.0.0.1:$port
        return
      fi
      kill -0 "$pid" 2> /dev/null || break
      sleep 0.1
    done
    kill "$pid" 2> /dev/null || true
  done
  tail -n 20 "$log" >&2
  return 1
}

# requests COMMAND...: runs it, and puts the methods and paths of what it asked
# of the registry into the file requests.
requests() {
  local before
  before=$(wc --lines < "$log")
  "$@"
  sleep 0.2
  tail -n "+$((before + 1))" "$log" | sed -n 's/.*"\([A-Z]* [^ ]*\) HTTP.*/\1/p' > "$work/requests"
  cat "$work/requests"
}

# --- Images ------------------------------------------------------------------

# build ARCHITECTURE: an image folder of that name, and ARCHITECTURE.json.
build() {
  spec "$content" "{\"architecture\": \"$1\"}" > "$work/spec-$1.json"
  stowage build --spec "$work/spec-$1.json" --to "stowage:$work/$1" --json > "$work/$1.json"
  jq --exit-status '.config' "$work/$1.json"
}

config_of() { jq --raw-output .config "$work/$1.json"; }

# seen ARCHITECTURE IMAGE: the config that skopeo takes for that architecture.
seen() {
  same "$1 of $2" "$(config_of "$1")" \
    "sha256:$(skopeo --override-arch "$1" inspect --tls-verify=false --raw --config "$2" | sha256sum | cut -d ' ' -f 1)"
}

index() {
  stowage index "stowage:$work/amd64" "stowage:$work/arm64" --to "$@" --digest-file "$work/digest" --json > "$work/index.json"
  same digest "$(cat "$work/digest")" "$(jq --raw-output .digest "$work/index.json")"
}

# lists IMAGE KIND: skopeo finds those very bytes, an index of that media type with both platforms.
lists() {
  skopeo inspect --tls-verify=false --raw "$1" > "$work/raw"
  same digest "$(cat "$work/digest")" "sha256:$(sha256sum < "$work/raw" | cut -d ' ' -f 1)"
  same kind "$2" "$(jq --raw-output .mediaType "$work/raw")"
  same platforms '[{"architecture":"amd64","os":"linux"},{"architecture":"arm64","os":"linux"}]' \
    "$(jq --compact-output '[.manifests[].platform]' "$work/raw")"
  same images "$(jq --compact-output '[.images[].digest]' "$work/index.json")" \
    "$(jq --compact-output '[.manifests[].digest]' "$work/raw")"
  seen amd64 "$1"
  seen arm64 "$1"
}

oci_index=application/vnd.oci.image.index.v1+json
docker_list=application/vnd.docker.distribution.manifest.list.v2+json

pushes() {
  index "docker://$registry/team/multi:1"
  lists "docker://$registry/team/multi:1" $oci_index
}

# The images have no tags: the index alone names them.
has_one_tag() {
  same tags '["1"]' "$(curl --silent --fail "http://$registry/v2/team/multi/tags/list" | jq --compact-output .tags)"
}

pushes_nothing_twice() {
  local digest
  digest=$(cat "$work/digest")
  requests stowage index "stowage:$work/arm64" "stowage:$work/amd64" --to "docker://$registry/team/multi:1" \
    --digest-file "$work/digest" --quiet
  same digest "$digest" "$(cat "$work/digest")"
  same requests 'HEAD /v2/team/multi/manifests/1' "$(grep -v ' /v2/$' "$work/requests")"
}

# Under another tag only the index is new.
pushes_only_the_index() {
  requests stowage index "stowage:$work/arm64" "stowage:$work/amd64" --to "docker://$registry/team/multi:2" --quiet
  same sent 'PUT /v2/team/multi/manifests/2' "$(grep -E '^(POST|PUT|PATCH)' "$work/requests")"
}

# What another repository of the registry has is taken from there.
adds_a_platform() {
  requests stowage index "docker://$registry/team/multi:1" "stowage:$work/riscv64" --to "docker://$registry/team/more:1" --quiet
  same platforms '["amd64","arm64","riscv64"]' \
    "$(skopeo inspect --tls-verify=false --raw "docker://$registry/team/more:1" | jq --compact-output '[.manifests[].platform.architecture]')"
  for architecture in amd64 arm64 riscv64; do seen $architecture "docker://$registry/team/more:1"; done
  # $work/raw is the first index.
  same 'the same images' "$(jq --compact-output '[.manifests[].digest]' "$work/raw")" \
    "$(skopeo inspect --tls-verify=false --raw "docker://$registry/team/more:1" | jq --compact-output '[.manifests[:2][].digest]')"
  grep -q '^POST .*mount=' "$work/requests"
}

# Docker 20.10 pulls no zstd.
pushes_gzip() {
  index "docker://$registry/team/gzip:1" --compress gzip
  lists "docker://$registry/team/gzip:1" $oci_index
}

docker_pulls() {
  local architecture
  for architecture in arm64 amd64; do
    docker pull --quiet --platform "linux/$architecture" "$1"
    same $architecture "$(config_of $architecture)" "$(docker image inspect --format '{{.Id}}' "$1")"
  done
  docker run --rm --network=none "$1" /bin/sh -c 'echo it runs' | grep 'it runs'
}

podman_() {
  podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver "${storage:-overlay}" --cgroup-manager cgroupfs "$@"
}

podman_pulls() {
  local architecture
  for architecture in arm64 amd64; do
    podman_ pull --quiet --tls-verify=false --arch $architecture "$registry/team/multi:1"
    same $architecture "$(config_of $architecture)" "sha256:$(podman_ image inspect --format '{{.Id}}' "$registry/team/multi:1")"
  done
}

pushes_a_docker_list() {
  index "docker://$registry/team/docker:1" --format docker
  lists "docker://$registry/team/docker:1" $docker_list
  same 'kind of images' '["application/vnd.docker.distribution.manifest.v2+json"]' \
    "$(jq --compact-output '[.manifests[].mediaType] | unique' "$work/raw")"
}

in_layouts() {
  index "oci:$work/layout:1"
  lists "oci:$work/layout:1" $oci_index
  same 'one entry' 1 "$(jq '.manifests | length' "$work/layout/index.json")"
  cp "$work/digest" "$work/digest.layout"
  index "oci:$work/layout:1"
  same 'one entry' 1 "$(jq '.manifests | length' "$work/layout/index.json")"
  index "oci-archive:$work/archive.tar:1"
  lists "oci-archive:$work/archive.tar:1" $oci_index
  same digest "$(cat "$work/digest.layout")" "$(cat "$work/digest")"
}

# --- What stowage chooses ----------------------------------------------------

# copies SOURCE: both images come out of it, each as it was built.
copies() {
  local architecture
  for architecture in amd64 arm64; do
    rm -rf "$work/one"
    stowage copy --platform "linux/$architecture" "$1" "oci:$work/one:x" --json > "$work/copied.json"
    same config "$(config_of $architecture)" "$(jq --raw-output .config "$work/copied.json")"
    seen $architecture "oci:$work/one:x"
    same inspect "$(config_of $architecture)" "$(stowage inspect --platform "linux/$architecture" "$1" --json | jq --raw-output .configDigest)"
  done
}

# says TEXT COMMAND...: the command fails, and says so.
says() {
  local text=$1
  shift
  fails "$@" 2> "$work/said"
  cat "$work/said"
  grep -q -F -e "$text" "$work/said"
}

has_to_choose() {
  local source
  for source in "docker://$registry/team/multi:1" "oci:$work/layout:1" "oci-archive:$work/archive.tar:1"; do
    for command in "copy $source oci:$work/none" "inspect $source"; do
      # shellcheck disable=SC2086 # word splitting is meant
      says 'choose one by --platform' stowage $command
      grep -q 'it has: linux/amd64, linux/arm64' "$work/said"
      # shellcheck disable=SC2086 # word splitting is meant
      says 'has no image for linux/s390x; it has: linux/amd64, linux/arm64' stowage $command --platform linux/s390x
    done
  done
  says 'has no image for linux/arm64; it has: linux/amd64' stowage copy --platform linux/arm64 "stowage:$work/amd64" "oci:$work/none"
  test ! -e "$work/none"
}

builds_on_it() {
  local architecture
  for architecture in amd64 arm64; do
    stowage build --spec "$work/spec-$architecture.json" --from "docker://$registry/team/multi:1" --to "stowage:$work/child" --json > "$work/child.json"
    stowage inspect "stowage:$work/child" --json > "$work/inspected.json"
    same architecture $architecture "$(jq --raw-output .config.architecture "$work/inspected.json")"
  done
  says 'has no image for linux/riscv64' stowage build --spec "$work/spec-riscv64.json" --from "docker://$registry/team/multi:1" --to "stowage:$work/child"
}

refuses() {
  local status=0
  says "stowage:$work/amd64 and oci:$work/one-amd64:x are both for linux/amd64" \
    stowage index "stowage:$work/amd64" "stowage:$work/arm64" "oci:$work/one-amd64:x" --to "docker://$registry/team/none:1"
  says 'are both for linux/arm64' stowage index "docker://$registry/team/multi:1" "stowage:$work/arm64" --to "oci:$work/none"
  curl --silent "http://$registry/v2/team/none/tags/list" | grep NAME_UNKNOWN > /dev/null
  stowage index "stowage:$work/amd64" --to "docker-archive:$work/none.tar" 2> "$work/said" || status=$?
  same 'exit code' 2 "$status"
  grep -q 'name docker://.*oci:DIR.*oci-archive:FILE' "$work/said"
  test ! -e "$work/none" && test ! -e "$work/none.tar"
}

get bookworm small
content=$(debnix bookworm sets.small)
run_registry
for architecture in amd64 arm64 riscv64; do
  need "an image for $architecture is built" build $architecture
done
need 'an index of two images goes to a registry' pushes
check 'only the index has a tag' has_one_tag
check 'a second time one HEAD is all, whatever the order of images' pushes_nothing_twice
check 'another tag needs only the index' pushes_only_the_index
check 'an index and one more image are an index of all' adds_a_platform
images+=("$registry/team/gzip:1" "$registry/team/docker:1")
check 'the layers are compressed otherwise' pushes_gzip
check 'Docker pulls each platform' docker_pulls "$registry/team/gzip:1"
check 'podman pulls each platform' podman_pulls
check "Docker's list of manifests goes to a registry" pushes_a_docker_list
check 'Docker pulls each platform of its own list' docker_pulls "$registry/team/docker:1"
check 'skopeo reads the index in a layout and in an archive' in_layouts
check 'one platform is copied out of the registry' copies "docker://$registry/team/multi:1"
check 'one platform is copied out of a layout' copies "oci:$work/layout:1"
check 'one platform is copied out of an archive' copies "oci-archive:$work/archive.tar:1"
check 'of several platforms one has to be chosen' has_to_choose
check 'an image is built on the one of its architecture' builds_on_it
need 'an image is copied' stowage copy "stowage:$work/amd64" "oci:$work/one-amd64:x"
check 'what makes no index is refused' refuses
