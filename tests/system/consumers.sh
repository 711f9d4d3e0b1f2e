#!/bin/bash
# What others make of the images: skopeo, podman, Docker and tar.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

archive=$work/image.tar
layout=$work/layout

build() {
  stowage build --spec "$work/spec.json" --to "docker-archive:$archive" --to "oci:$layout:latest" --json > "$work/built.json"
  jq --exit-status '.digest and .config' "$work/built.json"
}

of_build() { jq --raw-output "$1" "$work/built.json"; }

# config_of IMAGE: the digest of the config, as skopeo computes it.
config_of() { echo "sha256:$(skopeo inspect --raw --config "$1" | sha256sum | cut -d ' ' -f 1)"; }

inspect() {
  skopeo inspect "$1"
  same config "$(of_build .config)" "$(config_of "$1")"
}

# OCI's manifest survives as it is in a layout; in the archive there is none.
layout_has_digest() {
  same digest "$(of_build .digest)" "$(skopeo inspect --format '{{.Digest}}' "oci:$layout:latest")"
}

copy() {
  skopeo copy --insecure-policy "$1" "$2"
  same config "$(of_build .config)" "$(config_of "$2")"
}

# Docker's config is not OCI's, so skopeo writes another one; the layers stay.
copy_to_layout() {
  skopeo copy --insecure-policy "docker-archive:$archive" "oci:$work/copied:latest"
  same layers "$(skopeo inspect --config "oci:$layout:latest" | jq --compact-output .rootfs)" \
    "$(skopeo inspect --config "oci:$work/copied:latest" | jq --compact-output .rootfs)"
}

docker_load() {
  stowage build --spec "$work/spec.json" --name "$image" --to docker-archive:- --quiet | docker load
  same config "$(of_build .config)" "$(docker image inspect --format '{{.Id}}' "$image")"
}

# Its own storage; without a network of its own podman needs no netfilter.
podman_() {
  podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver "${storage:-overlay}" --cgroup-manager cgroupfs "$@"
}

podman_load() {
  podman_ load --input "$archive"
  same config "$(of_build .config)" "sha256:$(podman_ image inspect --format '{{.Id}}' localhost/consumers:latest)"
}

# Its manifest has annotations of ours.
podman_pull() {
  skopeo inspect --raw "oci:$layout:latest" | jq --exit-status '.layers[0].annotations["stowage.layer.v1"]'
  # It makes a name of the path.
  cd "$work"
  same image "$(of_build .config)" "sha256:$(podman_ pull --quiet "oci:$(basename "$layout"):latest" | tail -n 1)"
}

# tar warns of what it finds odd, and succeeds.
lists_quietly() {
  local errors=$work/tar.errors layer count=0
  tar --list --verbose --file "$archive" > "$work/members" 2> "$errors"
  for layer in $(jq --raw-output '.layers[].digest' "$layout/blobs/sha256/$(of_build .digest | cut -d : -f 2)"); do
    tar --list --verbose --file "$layout/blobs/sha256/${layer#sha256:}" > "$work/members" 2>> "$errors"
    test -s "$work/members"
    count=$((count + 1))
  done
  for layer in $(tar --extract --to-stdout --file "$archive" manifest.json | jq --raw-output '.[0].Layers[]'); do
    tar --extract --to-stdout --file "$archive" "$layer" | tar --list --verbose > "$work/members" 2>> "$errors"
    test -s "$work/members"
    count=$((count + 1))
  done
  cat "$errors"
  test ! -s "$errors"
  echo "$count layers"
  test "$count" -ge 4
}

get bookworm ci stdenv
spec "$(debnix bookworm sets.ci)" '{"name": "consumers", "hook": true}' > "$work/spec.json"
need 'an archive and a layout are built' build
check 'skopeo inspects the archive' inspect "docker-archive:$archive"
check 'skopeo inspects the layout' inspect "oci:$layout:latest"
check 'skopeo finds the digest that stowage told' layout_has_digest
check 'skopeo copies the archive to an archive' copy "docker-archive:$archive" "docker-archive:$work/again.tar:consumers:latest"
check 'skopeo copies the archive to a folder' copy "docker-archive:$archive" "dir:$work/dir"
check 'skopeo copies the archive to a layout' copy_to_layout
check 'skopeo copies the layout to a layout' copy "oci:$layout:latest" "oci:$work/layout2:latest"
check 'skopeo copies the layout to an archive' copy "oci:$layout:latest" "docker-archive:$work/from-layout.tar:consumers:latest"
check 'podman loads the archive' podman_load
check 'podman pulls from the layout' podman_pull
new_image consumers
check 'Docker loads from a pipe' docker_load
check 'tar lists the archive and each layer without a warning' lists_quietly
