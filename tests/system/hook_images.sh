#!/bin/bash
# The hook builds images: behind a daemon, a nix-build of the environment leaves the
# image in a registry, and it runs.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
# shellcheck source-path=SCRIPTDIR source=../registry.sh
. "$repo/tests/registry.sh"
: "${STOWAGE:?the binary to test}"
unset STOWAGE_SECRET_KEY STOWAGE_CACHE STOWAGE_CONFIG STOWAGE_SPEC STOWAGE_STRICT CI_PROJECT_DIR
start_docker

get bookworm small
busybox=$(debnix bookworm busybox)/bin/busybox
start_registry registry
home=$work/nix/home
install --directory --owner="$ordinary" --group="$ordinary" "$home"
mkdir "$work/nix/etc"

# configuration HOST: what the hook does, and where the image goes.
configuration() {
  cat > "$work/nix/etc/config.toml" <<TOML
cache = "$home/cache"
[[image]]
match = "ci-environment*"
spec = "$work/nix/etc/ci.json"
to = ["docker://$1/team/ci:latest", "oci:$work/layouts/ci:latest"]
TOML
}

# build NAME TEXT: behind the daemon, as a user who can't read the configuration.
build() {
  # shellcheck disable=SC2016 # for Nix and the builder
  as_ordinary "$home" NIX_REMOTE="unix://$work/nix/socket" nix-build --no-out-link --expr "
    derivation {
      name = \"$1\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; PATH = \"/bin\";
      needs = derivation {
        name = \"tools\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; PATH = \"/bin\";
        args = [ \"-c\" \"mkdir -p \$out/bin; cp $busybox \$out/bin/sh\" ];
      };
      args = [ \"-c\" \"mkdir -p \$out/bin; echo '$2' > \$out/text; ln -s \$needs/bin/sh \$out/bin/sh\" ];
    }"
}

pushed() { requests registry | grep -c "^PUT /v2/team/ci/$1.* 201$" || true; }

raw() { skopeo inspect --tls-verify=false --raw "docker://$host/team/ci:latest"; }

# Nobody waits for the worker but those who look.
appears() {
  for _ in $(seq 300); do
    if raw > "$work/manifest.json" 2> /dev/null; then return; fi
    sleep 0.1
  done
  echo "no image in the registry"
  return 1
}

# runs OUTPUT TEXT: the image that is in the registry has what was built.
runs() {
  images+=("$host/team/ci:latest")
  docker pull --quiet "$host/team/ci:latest"
  same text "$2" "$(docker run --rm --network=none "$host/team/ci:latest" /bin/sh -c "cat $1/text; cat /text > /dev/null")"
}

leaves_an_image() {
  local out
  out=$(build ci-environment first)
  appears
  runs "$out" first
  stowage inspect "oci:$work/layouts/ci:latest" --json > "$work/inspected"
  same config "$(jq --raw-output .config.digest "$work/manifest.json")" "$(jq --raw-output .configDigest "$work/inspected")"
  test -s "$home/cache/$(basename "$out" | cut -c 1-32).narinfo"
}

others_make_none() {
  local out
  requests registry > /dev/null
  out=$(build other-environment other)
  stowage cache wait "$home/cache"
  test -s "$home/cache/$(basename "$out" | cut -c 1-32).narinfo"
  test -z "$(requests registry)"
}

follows() {
  local out
  requests registry > /dev/null
  out=$(build ci-environment-2 second)
  stowage cache wait "$home/cache"
  requests registry > "$work/requests"
  runs "$out" second
  # The environment's layer, the system's, and the config.
  same 'blobs that were sent' 3 "$(grep -c '^PUT /v2/team/ci/blobs/uploads/.* 201$' "$work/requests")"
}

# The build has nothing to do with it, and it is tried again.
waits_for_a_registry() {
  local out none
  none=127.0.0.1:$(free_port)
  configuration "$none"
  out=$(build ci-environment-3 third)
  fails stowage cache wait "$home/cache" > "$work/said" 2>&1
  cat "$work/said"
  grep -F "$none" "$work/said"
  # What was built is in the cache nevertheless.
  test -s "$home/cache/$(basename "$out" | cut -c 1-32).narinfo"
  configuration "$host"
  stowage cache wait "$home/cache"
  runs "$out" third
}

# Without a daemon, with a configuration that a variable names.
of_single_user() {
  local out
  new_store "$work/single"
  printf '%s\n' '[[image]]' 'match = "ci-*"' "spec = \"$work/nix/etc/ci.json\"" "to = [\"oci:$work/layouts/single:latest\"]" \
    > "$work/single/config.toml"
  cd "$work/single"
  export STOWAGE_CONFIG=config.toml STOWAGE_CACHE=cache
  out=$(nix-build --no-out-link --option post-build-hook "$work/bin/stowage-hook" --expr \
    "derivation { name = \"ci-one\"; system = \"x86_64-linux\"; builder = \"$busybox\"; args = [ \"mkdir\" (builtins.placeholder \"out\") ]; }")
  stowage cache wait cache
  stowage inspect "oci:$work/layouts/single:latest" --json | grep -F "$(basename "$out")"
}

ln -s stowage "$work/bin/stowage-hook"
mkdir "$work/layouts"
# Docker 20.10 reads no zstd.
echo '{"name": "ci", "compression": "gzip"}' > "$work/nix/etc/ci.json"
configuration "$host"
chmod 700 "$work/nix/etc"
start_daemon_with_hook "$work/nix"
check 'a nix-build of the environment leaves its image in the registry, and it runs' leaves_an_image
check 'builds of other names leave none' others_make_none
check 'the next one replaces it, and what stayed is not sent again' follows
check 'a registry that is not there fails no build, and gets the image later' waits_for_a_registry
check 'an image of a single user, in a layout' of_single_user
