#!/bin/bash
# Registries: a real one on this machine, with and without passwords, tokens and
# TLS; and what is pushed there is pulled by others, and runs.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../registry.sh
. "$repo/tests/registry.sh"
: "${STOWAGE:?the binary to test}"

calls=open,openat,openat2,readlink,readlinkat,getdents,getdents64,execve,execveat,truncate,name_to_handle_at
# No credentials but those of the test.
export HOME=$work/home DOCKER_CONFIG=$work/home/.docker XDG_RUNTIME_DIR=$work/runtime
unset REGISTRY_AUTH_FILE DOCKER_AUTH_CONFIG CI_REGISTRY
mkdir -p "$DOCKER_CONFIG" "$XDG_RUNTIME_DIR"
# podman wants one.
echo "{}" > "$DOCKER_CONFIG/config.json"

raw() { skopeo inspect --tls-verify=false --raw "docker://$1"; }
config_digest() { raw "$1" | jq --raw-output .config.digest; }

# push SPEC NAME ARGUMENT...: builds to the registry at $host.
push() {
  local spec=$1 name=$2
  shift 2
  stowage build --spec "$spec" --to "docker://$host/$name" --json --digest-file "$work/digest" "$@" > "$work/built.json"
}

others_pull_it() {
  local name=$host/ci/plain:1
  push "$work/old.json" ci/plain:1
  same 'digest file' "$(cat "$work/digest")" "$(jq --raw-output .digest "$work/built.json")"
  same manifest "$(cat "$work/digest")" "sha256:$(raw "$name" | sha256sum | cut -d' ' -f1)"
  raw "$name" | jq --exit-status '[.layers[].mediaType] | unique == ["application/vnd.oci.image.layer.v1.tar+zstd"]'
  skopeo copy --quiet --src-tls-verify=false "docker://$name" "oci:$work/copied:1"
  same config "$(jq --raw-output .config "$work/built.json")" "$(config_digest "$name")"
}

# The digest that scripts are told is one to pull by.
two_places() {
  stowage build --spec "$work/small.json" --to "docker://$host/ci/two:1" --to "oci:$work/two:1" --digest-file "$work/digest" --quiet
  raw "$host/ci/two@$(cat "$work/digest")" > /dev/null
  # With a digest that has to be right the tag is set all the same.
  stowage copy "docker://$host/ci/two:1" "docker://$host/ci/two:2@$(cat "$work/digest")" --quiet
  same manifest "$(raw "$host/ci/two:1")" "$(raw "$host/ci/two:2")"
  refused 'names another image' stowage build --spec "$work/old.json" --to "docker://$host/ci/two:3@$(cat "$work/digest")"
  fails raw "$host/ci/two:3"
}

docker_runs() {
  local name=$host/ci/$1:1
  push "$work/old.json" "ci/$1:1" "${@:2}"
  docker pull --quiet "$name"
  same 'image ID' "$(docker image inspect --format '{{.Id}}' "$name")" "$(jq --raw-output .config "$work/built.json")"
  docker run --rm --network=none "$name" /bin/sh -c 'nix-store --verify && id -u' | grep -x 1000
}

podman_has_it() {
  local id
  id=$(podman --root "$work/podman" --runroot "$work/podman-run" pull --quiet --tls-verify=false "$host/ci/plain:1")
  same 'image ID' "sha256:$id" "$(config_digest "$host/ci/plain:1")"
}

requests_of_second_push() {
  requests registry > /dev/null
  strace --follow-forks -qq -y --string-limit=4096 --trace="$calls" --output="$work/trace" \
    "$program" build --spec "$work/old.json" --to "docker://$host/ci/plain:1" --quiet
  "$repo/tests/system/opened" "$work/trace" > "$work/opened"
  requests registry | tee "$work/asked"
  test ! -s "$work/opened"
  # What finds out that there is no TLS is no request of an image.
  grep -v '^GET /v2/ 200$' "$work/asked" > "$work/of-image"
  same requests 'HEAD /v2/ci/plain/manifests/1 200' "$(cat "$work/of-image")"
}

only_what_changed_is_sent() {
  local sent
  push "$work/leaf-old.json" ci/leaf:1 --max-layers 100
  requests registry > /dev/null
  push "$work/leaf-new.json" ci/leaf:1 --max-layers 100
  requests registry > "$work/asked"
  sent=$(grep -c '^PUT /v2/ci/leaf/blobs/uploads/.* 201$' "$work/asked")
  # The leaf's layer, the system layer, and the config.
  same 'blobs sent' 3 "$sent"
  same 'manifests sent' 1 "$(grep -c '^PUT /v2/ci/leaf/manifests/1 201$' "$work/asked")"
}

# A layer that is bigger than a chunk of 4 MiB goes in several, each once.
in_chunks() {
  local chunks
  rm -rf "$XDG_CACHE_HOME"
  requests registry > /dev/null
  push "$work/old.json" ci/chunks:1 --compress none
  requests registry > "$work/asked"
  chunks=$(raw "$host/ci/chunks:1" | jq '[.layers[].size - 1 | . / (4 * 1024 * 1024) | floor] | add')
  test "$chunks" -gt 4
  same 'chunks' "$chunks" "$(grep -c '^PATCH /v2/ci/chunks/.* 202$' "$work/asked")"
  same 'requests that were refused' 0 "$(grep -vcE ' (20[0-9]|404)$' "$work/asked" || true)"
  same 'bytes' "$(jq .size "$work/built.json")" "$(raw "$host/ci/chunks:1" | jq '[.layers[].size] | add')"
  skopeo copy --quiet --src-tls-verify=false "docker://$host/ci/chunks:1" "oci:$work/chunks:1"
}

# killed TIMES: killed so often at random moments, nobody ever sees half an image; and the last run
# ends right.
killed() {
  local milliseconds status hits=0 runs=0
  rm -rf "$XDG_CACHE_HOME"
  while ((hits < $1)); do
    runs=$((runs + 1))
    # Most runs take longer than they are given.
    test "$runs" -lt $((10 * $1))
    milliseconds=$((RANDOM % 900 + 20))
    status=0
    timeout --signal=KILL "0.$(printf '%03d' $milliseconds)" "$program" build --spec "$work/old.json" \
      --to "docker://$host/ci/killed:1" --compress "gzip:$((RANDOM % 3 + 1))" --quiet || status=$?
    if [ "$status" != 137 ] && [ "$status" != 0 ]; then return 1; fi
    if [ "$status" = 137 ]; then hits=$((hits + 1)); fi
    # Whole, or not there.
    if raw "$host/ci/killed:1" > /dev/null 2>&1; then
      skopeo copy --quiet --src-tls-verify=false "docker://$host/ci/killed:1" "dir:$work/whole"
    fi
    # Sometimes from nothing, sometimes with what was there before.
    if ((RANDOM % 2)); then rm -rf "$XDG_CACHE_HOME" "$work/registry/data/docker/registry/v2/repositories/ci/killed"; fi
  done
  push "$work/old.json" ci/killed:1
  same config "$(jq --raw-output .config "$work/built.json")" "$(config_digest "$host/ci/killed:1")"
  skopeo copy --quiet --src-tls-verify=false "docker://$host/ci/killed:1" "oci:$work/after-kill:1"
}

# flaky HOW: through somebody who breaks connections, or says that he is busy.
flaky() {
  local front real=$host status=0
  rm -rf "$XDG_CACHE_HOME"
  front=$(free_port)
  "$repo/tests/system/flaky" "$1" "$front" "${host#*:}" > "$work/flaky.log" 2>&1 &
  local pid=$!
  sleep 1
  host=127.0.0.1:$front
  push "$work/old.json" "ci/flaky-$1:1" --compress none || status=$?
  stowage copy "docker://$host/ci/flaky-$1:1" "oci:$work/flaky-pulled-$1:1" --quiet || status=$?
  host=$real
  kill "$pid"
  test "$status" = 0
  # It has to have had something to do.
  test "$(grep -c '^broken' "$work/flaky.log")" -ge 3
  skopeo copy --quiet --src-tls-verify=false "docker://$host/ci/flaky-$1:1" "oci:$work/flaky-$1:1"
  same config "$(jq --raw-output .config "$work/built.json")" "$(config_digest "$host/ci/flaky-$1:1")"
  # What was pulled are the same blobs, and each is what its digest says.
  same 'what was pulled' "$(skopeo inspect --raw "oci:$work/flaky-pulled-$1:1" | sha256sum)" "$(raw "$host/ci/flaky-$1:1" | sha256sum)"
  skopeo copy --quiet "oci:$work/flaky-pulled-$1:1" "dir:$work/flaky-dir-$1"
  rm -r "$work/flaky-$1" "$work/flaky-pulled-$1" "$work/flaky-dir-$1"
}

docker_manifest() {
  refused 'know no zstd' push "$work/old.json" ci/schema2:1 --format docker --compress zstd
  refused 'is for registries' stowage build --spec "$work/old.json" --to "oci:$work/no" --format docker
  docker_runs schema2 --format docker
  raw "$host/ci/schema2:1" > "$work/manifest.json"
  jq --exit-status '.mediaType == "application/vnd.docker.distribution.manifest.v2+json"
    and .config.mediaType == "application/vnd.docker.container.image.v1+json"
    and ([.layers[].mediaType] | unique == ["application/vnd.docker.image.rootfs.diff.tar.gzip"])' "$work/manifest.json"
}

# --- Who may ---

with_password() {
  local name=$host/private/ci:1
  refused 'log in first' push "$work/small.json" private/ci:1
  echo "{\"auths\": {\"$host\": {\"auth\": \"$(printf 'ann:wrong' | base64)\"}}}" > "$DOCKER_CONFIG/config.json"
  refused 'are user and password' push "$work/small.json" private/ci:1
  echo "{\"auths\": {\"$host\": {\"auth\": \"$(printf 'ann:se:cret' | base64)\"}}}" > "$DOCKER_CONFIG/config.json"
  push "$work/small.json" private/ci:1
  stowage inspect "docker://$name" > /dev/null
  # As podman has it, and only there.
  mv "$DOCKER_CONFIG/config.json" "$work/auth.json"
  refused 'log in first' stowage inspect "docker://$name"
  REGISTRY_AUTH_FILE=$work/auth.json stowage inspect "docker://$name" > /dev/null
  install -D "$work/auth.json" "$XDG_RUNTIME_DIR/containers/auth.json"
  stowage inspect "docker://$name" > /dev/null
  rm "$XDG_RUNTIME_DIR/containers/auth.json"
  DOCKER_AUTH_CONFIG=$(cat "$work/auth.json") stowage inspect "docker://$name" > /dev/null
  CI_REGISTRY=$host CI_REGISTRY_USER=ann CI_REGISTRY_PASSWORD=se:cret stowage inspect "docker://$name" > /dev/null
}

# What docker and podman write when somebody logs in.
after_login() {
  echo se:cret | docker login --username ann --password-stdin "$host"
  stowage inspect "docker://$host/private/ci:1" > /dev/null
  docker logout "$host"
  refused 'log in first' stowage inspect "docker://$host/private/ci:1"
  echo se:cret | podman login --tls-verify=false --username ann --password-stdin "$host"
  stowage inspect "docker://$host/private/ci:1" > /dev/null
  podman logout "$host"
}

with_helper() {
  mkdir -p "$work/helpers"
  cat > "$work/helpers/docker-credential-test" <<SCRIPT
#!/bin/sh
test "\$1" = get && read -r host
echo "\$host" >> "$work/helper-asked"
test "\$host" = "$host" || { echo 'credentials not found in native keychain'; exit 1; }
echo '{"ServerURL": "x", "Username": "ann", "Secret": "se:cret"}'
SCRIPT
  chmod 755 "$work/helpers/docker-credential-test"
  for config in "{\"credHelpers\": {\"$host\": \"test\"}}" '{"credsStore": "test"}'; do
    echo "$config" > "$DOCKER_CONFIG/config.json"
    PATH=$work/helpers:$PATH stowage inspect "docker://$host/private/ci:1" > /dev/null
    refused 'docker-credential-test' stowage inspect "docker://$host/private/ci:1"
  done
  # A helper for one registry is not told of others, and a store's answer counts before what is listed.
  echo "{\"credHelpers\": {\"$host\": \"test\"}}" > "$DOCKER_CONFIG/config.json"
  PATH=$work/helpers:$PATH refused "can't reach" stowage inspect "docker://127.0.0.1:1/private/ci:1"
  same 'hosts that the helper was asked for' "$host" "$(sort --unique "$work/helper-asked")"
  echo "{\"credsStore\": \"test\", \"auths\": {\"$host\": {\"auth\": \"$(printf 'ann:old' | base64)\"}}}" > "$DOCKER_CONFIG/config.json"
  PATH=$work/helpers:$PATH stowage inspect "docker://$host/private/ci:1" > /dev/null
  echo "{}" > "$DOCKER_CONFIG/config.json"
}

# raw_layers NAME: how many layers an image has.
raw_layers() { stowage inspect "docker://$host/$1" --json | jq '.layers | length'; }

with_token() {
  refused 'log in first' push "$work/small.json" tokens/ci:1
  echo "{\"auths\": {\"$host\": {\"auth\": \"$(printf 'ann:se:cret' | base64)\"}}}" > "$DOCKER_CONFIG/config.json"
  push "$work/small.json" tokens/ci:1
  requests tokens > /dev/null
  push "$work/small.json" tokens/other:1 --from "docker://$host/tokens/ci:1"
  requests tokens > "$work/asked"
  same 'blobs mounted' "$(raw_layers tokens/ci:1)" "$(grep -c '^POST /v2/tokens/other/blobs/uploads/?mount=.* 201$' "$work/asked")"
  # One that the registry takes no longer is asked for again.
  touch "$work/tokens-key/expired"
  : > "$work/tokens.log"
  push "$work/old.json" tokens/expired:1 --compress gzip:9
  test ! -e "$work/tokens-key/expired"
  same 'tokens to push' 2 "$(grep -c '^given GET repository:tokens/expired:pull,push$' "$work/tokens.log")"
  echo "{\"auths\": {\"$host\": {\"identitytoken\": \"identity\"}}}" > "$DOCKER_CONFIG/config.json"
  push "$work/small.json" tokens/identity:1
  grep '^given POST repository:tokens/identity:pull,push$' "$work/tokens.log"
  echo "{}" > "$DOCKER_CONFIG/config.json"
  # Everybody may pull.
  stowage copy "docker://$host/tokens/ci:1" "oci:$work/with-token:1" --quiet
}

with_tls() {
  refused 'is not trusted' push "$work/small.json" tls/ci:1
  SSL_CERT_FILE=$work/authority/authority.pem push "$work/small.json" tls/ci:1
  mkdir -p "$HOME/.config/containers/certs.d/$host"
  cp "$work/authority/authority.pem" "$HOME/.config/containers/certs.d/$host/ca.crt"
  stowage inspect "docker://$host/tls/ci:1" > /dev/null
  skopeo inspect --cert-dir "$HOME/.config/containers/certs.d/$host" "docker://$host/tls/ci:1" > /dev/null
  # For another name it is no proof.
  SSL_CERT_FILE=$work/authority/authority.pem refused 'is not trusted' stowage inspect "docker://localhost:${host#*:}/tls/ci:1"
}

# --- What goes wrong ---

wrong_places() {
  refused 'no such host' push_to no-such-host.invalid/ci:1
  refused "can't reach the registry 127.0.0.1:1:" push_to 127.0.0.1:1/ci:1
  refused 'MANIFEST_UNKNOWN' stowage inspect "docker://$host/ci/none:1"
  refused 'MANIFEST_UNKNOWN' stowage copy "docker://$host/never/was@sha256:$(printf 'a%.0s' $(seq 64))" "oci:$work/none"
  fails push_to "$host/Upper:1" 2>&1 | grep -F 'not an image name'
  test ! -e "$work/none"
}

push_to() { stowage build --spec "$work/small.json" --to "docker://$1" --quiet; }

full() { refused 'is full' push "$work/old.json" ci/full:1 --compress none; }

# blob DIGEST: the registry's file of it.
blob() { echo "$work/registry/data/docker/registry/v2/blobs/sha256/$(echo "$1" | sed -E 's,sha256:(..).*,\1,')/${1#sha256:}/data"; }

# with_other_bytes FILE: changes a digit of its first size, or else a byte.
with_other_bytes() {
  python3 - "$1" <<'PYTHON'
import re, sys
with open(sys.argv[1], "rb+") as file:
    data = file.read()
    found = re.search(rb'"(?:size|created)":"?(\d)', data)
    at = found.start(1) if found else 100
    byte = b"12"[data[at] == ord("1")] if found else data[at] ^ 0xff
    file.seek(at)
    file.write(bytes([byte]))
PYTHON
}

damaged() {
  local file what digest name=$host/ci/damaged:1
  push "$work/small.json" ci/damaged:1
  digest=$(jq --raw-output .digest "$work/built.json")
  for what in layer config manifest; do
    case $what in
      layer) file=$(blob "$(raw "$name" | jq --raw-output '.layers[0].digest')") ;;
      config) file=$(blob "$(config_digest "$name")") ;;
      manifest) file=$(blob "$digest") ;;
    esac
    cp "$file" "$work/blob"
    with_other_bytes "$file"
    fails cmp "$file" "$work/blob"
    refused 'digest' stowage copy "docker://$host/ci/damaged@$digest" "oci:$work/damaged-$what:1"
    refused 'digest' stowage copy "docker://$host/ci/damaged@$digest" "docker-archive:$work/damaged.tar"
    test ! -e "$work/damaged.tar"
    head -c 50 "$work/blob" > "$file"
    fails stowage copy "docker://$host/ci/damaged@$digest" "oci:$work/damaged-$what:1"
    cp "$work/blob" "$file"
  done
  stowage copy "docker://$name" "oci:$work/damaged:1" --quiet
}

# --- Parents and copies ---

on_a_parent() {
  local parent=docker://$host/ci/parent:1
  push "$work/leaf-old.json" ci/parent:1 --compress gzip
  requests registry > /dev/null
  stowage build --spec "$work/on-parent.json" --from "$parent" --to "docker://$host/ci/child:1" --compress gzip --json > "$work/built.json"
  requests registry > "$work/asked"
  # The config, and the system layer with the database; of the store's layers none.
  grep '^GET /v2/ci/parent/blobs/' "$work/asked" | sort --unique | tee "$work/fetched"
  same 'blobs fetched' 2 "$(wc -l < "$work/fetched")"
  same 'blobs mounted' "$(raw "$host/ci/parent:1" | jq '.layers | length')" \
    "$(grep -c '^POST /v2/ci/child/blobs/uploads/?mount=.* 201$' "$work/asked")"
  # The child's own layer, its system layer, its config.
  same 'blobs sent' 3 "$(grep -c '^PUT /v2/ci/child/blobs/uploads/.* 201$' "$work/asked")"
  docker pull --quiet "$host/ci/child:1"
  docker run --rm --network=none "$host/ci/child:1" /bin/sh -c "nix-store --verify && nix-store --query --requisites $(leaf child)" |
    grep -cFx -e "$(leaf child)" -e "$(leaf old)"
  # The same as on a parent that is read whole.
  stowage copy "$parent" "oci:$work/parent:1" --quiet
  stowage build --spec "$work/on-parent.json" --from "oci:$work/parent:1" --to "oci:$work/child:1" --compress gzip --json > "$work/built2.json"
  same digest "$(jq --raw-output .digest "$work/built.json")" "$(jq --raw-output .digest "$work/built2.json")"
  # As a docker archive the layers have to be read, and are.
  stowage build --spec "$work/on-parent.json" --from "$parent" --to "docker-archive:$work/child.tar" --name "$host/ci/child:2" --quiet
  docker load --quiet --input "$work/child.tar"
  same 'image ID' "$(docker image inspect --format '{{.Id}}' "$host/ci/child:1")" \
    "$(docker image inspect --format '{{.Id}}' "$host/ci/child:2")"
}

# copies_keep_it: from a registry to every form, and back.
copies_keep_it() {
  local from=docker://$host/ci/plain:1 to config form
  config=$(config_digest "$host/ci/plain:1")
  for form in "docker-archive:$work/c.tar" "oci:$work/c:1" "oci-archive:$work/c.oci" "stowage:$work/c.folder" "docker://$host/ci/c:1"; do
    stowage copy "$from" "$form" --quiet
    same "config in $form" "$config" "$(stowage inspect "$form" --json | jq --raw-output .configDigest)"
    to=docker://$host/ci/back:$RANDOM
    stowage copy "$form" "$to" --quiet
    same "config from $form" "$config" "$(config_digest "${to#docker://}")"
  done
  # The same forms, from the same bytes: nothing was compressed anew.
  same manifest "$(raw "$host/ci/plain:1")" "$(raw "$host/ci/c:1")"
  # An image folder on its way: its layers are made then.
  stowage build --spec "$work/old.json" --to "stowage:$work/folder" --quiet
  stowage copy "stowage:$work/folder" "docker://$host/ci/folder:1" --quiet
  same manifest "$(raw "$host/ci/plain:1")" "$(raw "$host/ci/folder:1")"
  stowage copy "docker://$host/ci/plain@$(stowage inspect "$from" --json | jq --raw-output .digest)" "oci:$work/by-digest:1" --quiet
}

# bounded_memory CODEC JOBS
bounded_memory() {
  rm -rf "$XDG_CACHE_HOME"
  python3 - "$program" build --spec "$work/old.json" --to "docker://$host/ci/memory:1" --jobs "$2" --compress "$1" --quiet <<'PYTHON' > "$work/memory"
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
PYTHON
  cat "$work/memory"
  test "$(cat "$work/memory")" -lt 256000
}

get bookworm small ci stdenv
ci=$(debnix bookworm sets.ci)
small=$(debnix bookworm sets.small)
spec "$ci" > "$work/old.json"
spec "$small" > "$work/small.json"
for name in old new child; do
  spec "$ci" "{\"contents\": [\"$ci\", \"$(leaf "$name")\"]}" > "$work/leaf-$name.json"
done
jq 'del(.contents[0])' "$work/leaf-child.json" > "$work/on-parent.json"

start_docker
start_registry registry
images+=("$host/ci/gzip:1" "$host/ci/schema2:1" "$host/ci/child:1" "$host/ci/child:2")
need 'skopeo pulls what was pushed' others_pull_it
check 'of several places the digest is that of the registry, whose tag is set' two_places
check 'a second push asks for the manifest only, and opens no store file' requests_of_second_push
# Docker 20.10 knows no zstd, whoever made it; podman does.
check 'Docker pulls gzip, and runs it' docker_runs gzip --compress gzip
check 'podman pulls zstd' podman_has_it
check "Docker's manifests, schema 2" docker_manifest
check 'of a changed image only what changed is sent' only_what_changed_is_sent
check 'a big layer goes in chunks' in_chunks
check 'killed at random moments, it ends right' killed "$([ -n "${STOWAGE_LONG-}" ] && echo 20 || echo 5)"
for how in drop busy cut fail torn; do
  check "a registry that is unsteady: $how" flaky "$how"
done
check "on a parent in a registry, whose layers stay there" on_a_parent
check 'copies from and to all forms' copies_keep_it
check 'wrong hosts and names are said to be wrong' wrong_places
check 'blobs that are damaged are refused' damaged
check 'in bounded memory, zstd' bounded_memory zstd 8
check 'in bounded memory, uncompressed' bounded_memory none 8
check 'in bounded memory on many threads' bounded_memory none 64
tmpfs 24m "$work/full/data"
start_registry full
check 'a full registry is said to be full' full

# Of libxcrypt, as htpasswd -B.
hash=$(python3 -W ignore -c 'import crypt; print(crypt.crypt("se:cret", crypt.mksalt(crypt.METHOD_BLOWFISH)))')
echo "ann:$hash" > "$work/htpasswd"
start_registry private "auth: {htpasswd: {realm: test, path: $work/htpasswd}}"
check 'with a password' with_password
check 'after docker login and podman login' after_login
check 'with a credential helper' with_helper

certificate "$work/tokens-key"
realm_port=$(free_port)
"$repo/tests/system/token-server" "$realm_port" "$work/tokens-key" > "$work/tokens.log" 2>&1 &
started "$!"
start_registry tokens "auth: {token: {realm: 'http://127.0.0.1:$realm_port/token', service: test, issuer: test, rootcertbundle: $work/tokens-key/authority.pem}}"
check 'with tokens' with_token

certificate "$work/authority"
start_registry tls "  tls: {certificate: $work/authority/cert.pem, key: $work/authority/key.pem}"
check "with a certificate of one's own" with_tls
