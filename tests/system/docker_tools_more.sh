#!/bin/bash
# dockerTools' own tests, with our functions on debnix, as docker_tools.sh: configuration, files, owners,
# several images in one archive; and its tests of other things than the images.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix/cases.sh
. "$repo/tests/nix/cases.sh"
: "${STOWAGE:?the binary to test}"
start_docker

# --- Configuration ---

variables() {
  local line
  loaded "$1"
  in_image "$1" env > "$work/env"
  for line in FROM_PARENT=true FROM_CHILD=true LAST_LAYER=child; do grep -x "$line" "$work/env"; done
}

variable_is_there_once() {
  case_output images.environmentVariablesLayered.stream > "$work/stream"
  "$(cat "$work/stream")" > "$work/archive.tar"
  tar --extract --to-stdout --file "$work/archive.tar" manifest.json | jq --raw-output '.[0].Config' > "$work/name"
  tar --extract --to-stdout --file "$work/archive.tar" "$(cat "$work/name")" > "$work/config.json"
  same variables 'LAST_LAYER=child' "$(jq --raw-output '.config.Env[] | select(startswith("LAST_LAYER="))' "$work/config.json")"
}

is_for_arm64() {
  loaded "$1"
  same architecture arm64 "$(of_image "$1" .Architecture)"
}

# --- Files, owners and commands ---

owner_of_alice() {
  same owner 1000 "$(in_image layeredImageWithFakeRootCommands sh -c 'stat -c %u /home/alice')"
}

chown_stays() {
  loaded layeredImageWithFakeRootCommands
  owner_of_alice
}

chown_in_chroot_stays() {
  loaded chownTestImage
  same owner 12345:12345 "$(in_image chownTestImage)"
}

linked_path_is_there() {
  loaded layeredImageWithFakeRootCommands
  in_image layeredImageWithFakeRootCommands /hello/bin/linked-hello | says_hello
}

has_dummy() {
  loaded "$1"
  in_image "$1" bash -c '[[ -e /hello.txt ]]'
}

certificates() {
  local file
  loaded image-with-certs
  for file in etc/ssl/certs/ca-bundle.crt etc/ssl/certs/ca-certificates.crt etc/pki/tls/certs/ca-bundle.crt; do
    in_image image-with-certs cat "/$file" > "$work/certificates"
    grep -c -x -- '-----BEGIN CERTIFICATE-----' "$work/certificates"
  done
}

ordinary_user() {
  loaded nonRootTestImage
  same 'owner of a store path' 1000:1000 "$(in_image nonRootTestImage)"
  same user 1000 "$(in_image nonRootTestImage "$(case_output debnix.coreutils)/bin/id" -u)"
}

# --- Several images in one ---

# merged NAME IMAGE...: loads it when Docker has none of its images; it has all of them then.
merged() {
  local name stream
  for name in "${@:2}"; do docker image rm --force "$(ref "$name")" > /dev/null; done
  stream=$(case_output "merged.$1")
  "$stream" | docker load
  for name in "${@:2}"; do docker image inspect "$(ref "$name")" > /dev/null; done
}

bash_and_redis() {
  merged "$1" "$2" redis
  in_image "$2" bash --version
  in_image redis redis-cli --version
  in_image redis /bin/bash -c 'test -x /bin/healthcheck && test -d /data'
}

owners_in_merged() {
  merged mergedBashFakeRoot bash layeredImageWithFakeRootCommands
  owner_of_alice
}

compressors_in_merged() {
  merged mergeVaryingCompressor redis bashUncompressed bashZstdCompressed
}

# As in the original, with redis' own program.
healthy() {
  local container
  loaded redis
  container=$(docker run --detach --network=none "$(ref redis)")
  for _ in $(seq 30); do
    docker inspect --format '{{.State.Health.Status}}' "$container" > "$work/health"
    if grep -x healthy "$work/health"; then break; fi
    sleep 0.5
  done
  docker logs "$container"
  docker rm --force "$container" > /dev/null
  same health healthy "$(cat "$work/health")"
}

# --- Environments of derivations ---

# shell_says IMAGE LINE [COMMAND...]: with a terminal, which a command of its own is for.
shell_says() {
  loaded "$1"
  docker run --rm --tty --network=none "$(ref "$1")" "${@:3}" | tr -d '\r' | tee "$work/said"
  grep -xF "$2" "$work/said"
}

# --- Other storage, and the table ---

# Folders of the store that nobody but root may read would be found here.
another_user() {
  docker info --format '{{.Driver}}'
  loaded bash
  docker run --rm --network=none --user 1000:1000 "$(ref bash)" bash --version
}

# The cases of the table that are said to pass, and those that are tried.
table_is_right() {
  awk -F ' *[|] *' '$2 ~ /^([0-9]+|shell|overlay|cross)$/ && $5 ~ /^passes/ { print $2, $3 }' "$repo/tests/nix/CASES.md" | tr -d '`' | sort > "$work/table"
  sed -n "s/^check '\([0-9]* [A-Za-z0-9-]*\|[a-z]* [A-Za-z0-9-]*\): .*/\1/p" "$repo"/tests/system/docker_tools*.sh | sort > "$work/checks"
  test -s "$work/table"
  diff "$work/table" "$work/checks"
  # Each of the original's has a line, whether it passes or not.
  same numbers "$(seq 45 | xargs)" "$(awk -F ' *[|] *' '$2 ~ /^[0-9]+$/ { print $2 }' "$repo/tests/nix/CASES.md" | sort --numeric-sort --unique | xargs)"
}

check '27 environmentVariables: a child has its own variables and the parent'"'"'s' variables environmentVariables
check '27 environmentVariablesLayered: likewise a layered one' variables environmentVariablesLayered
check '28 environmentVariablesLayered: what the child sets is there once' variable_is_there_once
check '33 cross: the architecture is that of the programs' is_for_arm64 cross
check '33 build-image-with-architecture: or the one that is given' is_for_arm64 build-image-with-architecture
check '33 layered-image-with-architecture: likewise a layered one' is_for_arm64 layered-image-with-architecture
check '36 layeredImageWithFakeRootCommands: a file of another owner' chown_stays
check '37 chownTestImage: an owner is kept in a chroot, too' chown_in_chroot_stays
check '38 layeredImageWithFakeRootCommands: store paths that only commands name' linked_path_is_there
check '39 mergedBashAndRedis: both images are loaded' bash_and_redis mergedBashAndRedis bash
check '39 mergedBashNoTagAndRedis: also one without a tag' bash_and_redis mergedBashNoTagAndRedis bashNoTag
check '39 mergedBashFakeRoot: owners stay' owners_in_merged
check '39 mergeVaryingCompressor: compressors may differ' compressors_in_merged
check '41 imageViaFakeChroot: commands see / as the image will' runs_hello imageViaFakeChroot
check '42 build-image-with-path: a folder that is no derivation' has_dummy build-image-with-path
check '42 layered-image-with-path: likewise in a layered image' has_dummy layered-image-with-path
check '44 image-with-certs: certificates are where programs look' certificates
check '45 nonRootTestImage: store paths and processes of an ordinary user' ordinary_user
check '39 redis: the health check that commands have written' healthy
# shellcheck disable=SC2016 # it is the container's
check 'shell nix-shell-basic: buildDerivation builds' shell_says nix-shell-basic 'Hello, world!' bash -c 'buildDerivation && $out/bin/hello'
check 'shell nix-shell-hook: shellHook runs' shell_says nix-shell-hook 'This is the shell hook!'
check 'shell nix-shell-inputs: the stdenv has inputs found' shell_says nix-shell-inputs 'Hello, world!'
check 'shell nix-shell-pass-as-file: passAsFile' shell_says nix-shell-pass-as-file 'this is a string'
check 'shell nix-shell-run: run has no interactive shell' shell_says nix-shell-run 'This shell is not interactive'
check 'shell nix-shell-command: command has one' shell_says nix-shell-command 'This shell is interactive'
check 'shell nix-shell-writable-home: HOME can be written to' shell_says nix-shell-writable-home 'home directory is writable'
check 'shell nix-shell-nonexistent-home: or is not there' shell_says nix-shell-nonexistent-home "home directory doesn't exist"
check 'shell nix-shell-build-derivation: run can build' shell_says nix-shell-build-derivation 'Hello, world!'
check 'overlay bash: it runs as any user' another_user
check 'the table of cases is right' table_is_right
