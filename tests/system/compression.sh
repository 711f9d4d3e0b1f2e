#!/bin/bash
# Compressed layers, and copies between all kinds of places: what Docker,
# podman, skopeo, gzip and zstd make of them.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

# build DEST ARGUMENT...: puts what stowage tells into built.json.
build() { stowage build --spec "$work/spec.json" --json --to "$@" > "$work/built.json"; }

of_build() { jq --raw-output "$1" "$work/built.json"; }

# blobs: of each layer the names of its blob and of its tar.
blobs() { of_build '.layers[] | "\(.blob.digest[7:]) \(.diffId[7:])"'; }

# unpacks CODEC: the real program finds each blob whole, and in it the layer.
unpacks() {
  local blob tar count=0
  while read -r blob tar; do
    "$1" --test --quiet < "$work/layout-$1/blobs/sha256/$blob"
    same "layer $count" "$tar" "$("$1" --decompress --stdout < "$work/layout-$1/blobs/sha256/$blob" | sha256sum | cut -d ' ' -f 1)"
    count=$((count + 1))
  done < <(blobs)
  echo "$count layers"
  test "$count" -ge 4
}

# same_digest CODEC: whatever the threads, and with nothing remembered.
same_digest() {
  local jobs first=''
  for jobs in 1 2 8; do
    rm -rf "$work/xdg" "$work/layout-again"
    build "oci:$work/layout-again" --compress "$1" --jobs "$jobs"
    first=${first:-$(of_build .digest)}
    same "--jobs $jobs" "$first" "$(of_build .digest)"
  done
}

# config_of IMAGE: the digest of the config, as skopeo computes it.
config_of() { echo "sha256:$(skopeo inspect --raw --config "$1" | sha256sum | cut -d ' ' -f 1)"; }

skopeo_copies() {
  rm -rf "$work/skopeo"
  skopeo copy --quiet --insecure-policy "$1" "oci:$work/skopeo:latest"
  same config "$config" "$(config_of "$1")"
  same 'diff IDs' "$(skopeo inspect --config "$1" | jq --compact-output .rootfs.diff_ids)" "$diff_ids"
}

# runs: $image runs in Docker, and is the one that was built.
runs() {
  same config "$config" "$(docker image inspect --format '{{.Id}}' "$image")"
  docker run --rm --network=none "$image" /bin/sh -c 'nix-store --verify --check-contents && echo it runs' | grep 'it runs'
}

docker_runs() {
  docker image rm --force "$image" > /dev/null 2>&1 || true
  stowage build --spec "$work/spec.json" --name "$image" --to docker-archive:- --quiet --compress "$1" | docker load
  runs
}

# Through a registry's form of it: skopeo hands the compressed layers on.
skopeo_to_docker() {
  docker image rm --force "$image" > /dev/null 2>&1 || true
  skopeo copy --quiet --insecure-policy "$1" "docker-archive:$work/loaded.tar:$image"
  docker load --quiet --input "$work/loaded.tar"
  rm "$work/loaded.tar"
  docker run --rm --network=none "$image" /bin/sh -c 'nix-store --verify --check-contents && echo it runs' | grep 'it runs'
}

copied_runs() {
  docker image rm --force "$image" > /dev/null 2>&1 || true
  stowage copy "$1" "docker-archive:-:$image" --quiet | docker load
  runs
}

podman_loads() {
  podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs --cgroup-manager cgroupfs load --quiet --input "$1"
  podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs --cgroup-manager cgroupfs image rm --all --force > /dev/null
}

docker_takes_no_zstd() { fails stowage build --spec "$work/spec.json" --to "docker-archive:$work/zstd.tar" --compress zstd; }

# A second build writes no blob, and reads no store path.
made_once() {
  find "$work/layout-zstd/blobs" -type f -printf '%p %T@ %i\n' | sort > "$work/before"
  strace --follow-forks -qq -y --string-limit=4096 --trace=openat,openat2,open,readlinkat,getdents64 --output="$work/trace" \
    "$program" build --spec "$work/spec.json" --to "oci:$work/layout-zstd" --compress zstd --quiet
  "$repo/tests/system/opened" "$work/trace" | tee "$work/opened"
  test ! -s "$work/opened"
  find "$work/layout-zstd/blobs" -type f -printf '%p %T@ %i\n' | sort > "$work/after"
  diff "$work/before" "$work/after"
}

# place KIND: where copies of that kind are.
place() {
  case $1 in
    docker-archive) echo "docker-archive:$work/copy.docker.tar" ;;
    oci-archive) echo "oci-archive:$work/copy.oci.tar" ;;
    oci) echo "oci:$work/copy.oci" ;;
    stowage) echo "stowage:$work/copy.stowage" ;;
  esac
}

# copies FROM TO ARGUMENT...: the copy's config and diff IDs are the image's.
copies() {
  local from=$1 to=$2
  shift 2
  rm -rf "$work/copied.tar" "$work/copied"
  case $to in
    *archive) to=$to:$work/copied.tar ;;
    *) to=$to:$work/copied ;;
  esac
  stowage copy "$(place "$from")" "$to" --json "$@" > "$work/copied.json"
  same config "$config" "$(jq --raw-output .config "$work/copied.json")"
  same 'diff IDs' "$diff_ids" "$(jq --compact-output '[.layers[].diffId]' "$work/copied.json")"
  case $to in
    stowage:*) ;;
    *) same 'config by skopeo' "$config" "$(config_of "$to")" ;;
  esac
}

get bookworm ci
spec "$(debnix bookworm sets.ci)" '{"name": "compression", "maxLayers": 12}' > "$work/spec.json"
new_image compression
for codec in gzip zstd; do
  need "$codec: a layout is built" build "oci:$work/layout-$codec" --compress "$codec"
  config=$(of_build .config)
  diff_ids=$(of_build '[.layers[].diffId] | tojson')
  check "$codec: the real $codec finds the layers in the blobs" unpacks "$codec"
  check "$codec: the same digest from 1, 2 and 8 threads" same_digest "$codec"
  check "$codec: skopeo copies the layout" skopeo_copies "oci:$work/layout-$codec:latest"
  need "$codec: an OCI archive is built" build "oci-archive:$work/$codec.tar" --compress "$codec"
  check "$codec: skopeo copies the OCI archive" skopeo_copies "oci-archive:$work/$codec.tar"
  check "$codec: podman loads the OCI archive" podman_loads "$work/$codec.tar"
done
check 'gzip: Docker loads the archive from a pipe, and it runs' docker_runs gzip
check 'gzip: Docker runs what skopeo makes of the OCI archive' skopeo_to_docker "oci-archive:$work/gzip.tar"
check 'zstd: refused in docker archives' docker_takes_no_zstd
build "oci:$work/layout-zstd" --compress zstd
check 'zstd: a second build writes no blob, and reads no store path' made_once
check 'zstd: copied to a docker archive, it runs in Docker' copied_runs "oci:$work/layout-zstd"

# All pairs: from an image that was made, and from copies.
build "$(place stowage)" --to "$(place docker-archive)" --compress none --to "$(place oci)" --to "$(place oci-archive)"
for from in stowage docker-archive oci oci-archive; do
  for to in stowage docker-archive oci oci-archive; do
    [ "$from$to" = stowagestowage ] || check "copy: $from to $to" copies "$from" "$to"
    [ "$to" = stowage ] || check "copy: $from to $to, gzip" copies "$from" "$to" --compress gzip
  done
done
check 'copy: an image folder to a layout, zstd' copies stowage oci --compress zstd
check 'copy: a docker archive to an OCI archive, zstd' copies docker-archive oci-archive --compress zstd
