#!/bin/bash
# The functions in nix/: images and layers as derivations, with Nix 2.8 here, and with 2.26 in a
# container. What comes of them is the same as outside of Nix, has no bytes of the store, and works.
#
# STOWAGE_LONG=yes adds the set large.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix/lib.sh
. "$repo/tests/nix/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../registry.sh
. "$repo/tests/registry.sh"
: "${STOWAGE:?the binary to test}"
start_docker
get bookworm small ci stdenv project images ${STOWAGE_LONG:+large}
get trixie ci stdenv project images

set=${STOWAGE_LONG:+large}
set=${set:-ci}
# What an image is built by has to be the same, to the byte: the hook is in some of them.
inner=$(nix_of bookworm stowage)/bin/stowage

# --- In a build, and out of it -----------------------------------------------

# same_outside EXPRESSION: the image of a derivation, and what the spec gives outside of a build.
same_outside() {
  local image_folder spec
  image_folder=$(nix_expression bookworm "$1")
  spec=$(nix_expression bookworm "($1).spec")
  rm -rf "$work/outside"
  "$inner" build --quiet --spec "$spec" --to "stowage:$work/outside"
  same digest "$(digest_of "$image_folder")" "$(digest_of "$work/outside")"
  nix_expression bookworm "$1" --check
  nix_expression bookworm "($1).plan"
}

with_everything='buildLayeredImage {
  name = "all"; contents = [ debnix.bash debnix.coreutils ]; maxLayers = 20; uid = 7;
  extraCommands = "mkdir -p srv; echo x > srv/x"; fakeRootCommands = "chown 12345:54321 srv/x";
  layers = [ (buildLayer { deps = [ debnix.bash ]; uid = 7; }) [ "coreutils" ] ];
  config = { Env = [ "A=b" ]; Cmd = [ "${debnix.hello}/bin/hello" ]; };
}'

# --- Layers ------------------------------------------------------------------

# lists_of FOLDER: the keys of an image's layers of store paths.
keys_of() { jq --raw-output '.layers[] | select(.paths) | .key' "$1/stowage.json"; }

layers_are_shared() {
  local small large shell git
  small=$(nix_of bookworm examples.layers.small)
  large=$(nix_of bookworm examples.layers.large)
  shell=$(nix_of bookworm examples.layers.shell)
  git=$(nix_of bookworm examples.layers.git)
  for layer in "$shell" "$git"; do
    for folder in "$small" "$large"; do
      keys_of "$folder" | grep -Fx "$(jq --raw-output .key "$layer")"
    done
    test "$(stat --format %s "$layer")" -lt 50000
  done
  # What is below is not in it again; Nix keeps what is.
  test -z "$(comm -12 <(jq --raw-output '.paths | keys[]' "$shell") <(jq --raw-output '.paths | keys[]' "$git"))"
  nix-store --query --references "$shell" | grep bash
  jq --raw-output '.layers[] | select(.comment | contains("hello")) | .paths | length' "$large/stowage.json" | grep -x 1
}

overlapping() {
  local image_folder
  # A name of its own, since what is built already says nothing.
  image_folder=$(nix_expression bookworm "buildLayeredImage {
    name = \"overlap-$$\"; layers = map (dep: buildLayer { deps = [ dep ]; }) [ debnix.bash debnix.hello debnix.libc6 ];
  }" 2> "$work/said")
  cat "$work/said"
  grep -E 'is made anew: [0-9]+ of its [0-9]+ paths' "$work/said"
  jq --raw-output '.layers[].paths[]?' "$image_folder/stowage.json" | sort > "$work/paths"
  cat "$work/paths"
  test "$(uniq --repeated "$work/paths" | wc -l)" = 0
  grep hello "$work/paths"
}

whole="buildLayeredImage {
  name = \"whole\"; layers = [ (buildLayer { deps = [ debnix.sets.$set ]; }) ];
  config.Cmd = [ \"\${debnix.sets.$set}/bin/bash\" ];
}"

# The derivation's own command, with what Nix gives to it, and nothing else.
reads_nothing() {
  local image_folder drv spec
  image_folder=$(nix_expression bookworm "$whole")
  drv=$(nix-store --query --deriver "$image_folder")
  spec=$(nix_expression bookworm "($whole).spec")
  mkdir -p "$work/build"
  nix_expression bookworm "derivation ((removeAttrs ($whole).image.drvAttrs [ \"args\" ]) // {
    name = \"attributes\"; builder = \"\${debnix.busybox}/bin/sh\";
    args = [ \"-c\" \"\${debnix.busybox}/bin/cp .attrs.json \${placeholder \"out\"}\" ];
  })" > "$work/attributes"
  cp "$(cat "$work/attributes")" "$work/build/.attrs.json"
  echo "$drv"
  (
    cd "$work/build"
    NIX_BUILD_TOP=$PWD TMPDIR=$PWD HOME=/homeless-shelter strace --follow-forks -qq -y --string-limit=4096 \
      --trace=open,openat,openat2,readlink,readlinkat,getdents,getdents64,execve,execveat,truncate,name_to_handle_at \
      --output="$work/trace" "$program" build --quiet --spec "$spec" --closure .attrs.json --name whole --to "stowage:$work/whole"
  )
  same digest "$(digest_of "$image_folder")" "$(digest_of "$work/whole")"
  # The spec and the layer are all that it reads of the store.
  "$repo/tests/system/opened" "$work/trace" > "$work/opened"
  cat "$work/opened"
  test -z "$(grep -vE -- '-(whole-spec|debnix-[a-z]*\.layer)\.json$' "$work/opened")"
  test "$(wc -l < "$work/opened")" = 2
}

is_small() {
  local image_folder system all
  image_folder=$(nix_expression bookworm "$1")
  system=$(stat --format %s "$(system_layer "$image_folder")")
  all=$(du --summarize --bytes --apparent-size "$image_folder" | cut -f 1)
  echo "$all bytes, $system of them the system layer"
  test $((all - system)) -lt 1000000
}

# --- Files at / --------------------------------------------------------------

commands='buildImageWithNixDb {
  name = "commands"; tag = "1"; copyToRoot = [ debnix.sets.images ]; uid = 77;
  extraCommands = "mkdir -p srv var/data; echo ${debnix.redis-server} > srv/reference; ln srv/reference srv/again";
  fakeRootCommands = "
    cp -L bin/hello srv/hello; chmod u+w srv/hello; chown 0:0 srv/hello; setcap cap_net_bind_service=+ep srv/hello
    chown -R 1000:100 var/data; chmod 2770 var/data
    # Nobody says whose these are, so they are of root, and not of who builds.
    cp -L bin/hello srv/roots; (cd srv && setcap cap_net_bind_service=+ep roots)
    grant() { setcap cap_chown=+ep \$1; }; cp -L bin/hello var/data/roots; grant var/data/roots
  ";
}'

capabilities_are_kept() {
  local image_folder in_chroot
  image_folder=$(nix_expression bookworm "$commands")
  in_chroot=$(nix_expression bookworm "($commands).override { enableFakechroot = true; }")
  same digest "$(digest_of "$image_folder")" "$(digest_of "$in_chroot")"
  python3 - "$(system_layer "$image_folder")" <<'PYTHON'
import sys, tarfile
with tarfile.open(sys.argv[1]) as tar:
    for member in tar:
        print(member.name, oct(member.mode), member.uid, member.gid, member.pax_headers)
    member = tar.getmember("srv/hello")
    value = member.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape")
    # linux/capability.h: version 2 and effective, CAP_NET_BIND_SERVICE permitted.
    assert value == bytes.fromhex("0100000200040000000000000000000000000000"), value.hex()
    data = tar.getmember("var/data")
    assert (data.uid, data.gid, data.mode) == (1000, 100, 0o2770)
    for member in map(tar.getmember, ("srv/roots", "var/data/roots")):
        assert (member.uid, member.gid) == (0, 0), member
    assert tar.extractfile("srv/again").read() == tar.extractfile("srv/reference").read() != b""
PYTHON
  load_image "$image_folder"
  docker run --rm --network=none "$image" /sbin/getcap /srv/hello | tee "$work/said"
  grep 'cap_net_bind_service=ep' "$work/said"
  # What commands name is in the image, and its database knows it.
  docker run --rm --network=none "$image" /bin/sh -c 'test -e "$(cat /srv/reference)/bin/redis-server"'
  # No store path has one.
  stowage copy --quiet "stowage:$image_folder" "oci:$work/capabilities"
  python3 - "$work"/capabilities/blobs/sha256/* <<'PYTHON'
import sys, tarfile
found = []
for path in sys.argv[1:]:
    if not tarfile.is_tarfile(path):
        continue
    with tarfile.open(path) as tar:
        found += [member.name for member in tar if any(key.startswith("SCHILY.") for key in member.pax_headers)]
print(found)
assert found == ["srv/hello", "srv/roots", "var/data/roots"]
PYTHON
}

home_is_mutable() {
  local image_folder home
  image_folder=$(nix_of bookworm examples.mutable-home)
  load_image "$image_folder"
  docker run --rm --network=none "$image" bash -euc '
    test "$(id -u)" = 1001
    echo more >> ~/.config/settings
    ~/bin/hello
    ls -la ~/.config
    rm ~/.config/settings'
  # Its files are there once.
  home=$(nix-store --query --references "$(nix-store --query --deriver "$(nix_expression bookworm 'examples.mutable-home.spec')")" | grep -- '-home.drv')
  home=$(nix-store --query --outputs "$home")
  test -z "$(grep "$(basename "$home")" "$image_folder/stowage.json")"
  docker run --rm --network=none "$image" bash -c "test ! -e $home"
  grep -l greeting "$image_folder"/blobs/sha256/* | wc -l | grep -x 1
}

# --- Copies ------------------------------------------------------------------

is_loaded() { docker run --rm --network=none "$1" | grep 'Hello, world'; }

copies() {
  local minimal
  minimal=$(nix_of bookworm examples.minimal)
  "$(nix_of bookworm examples.minimal.stream)" | docker load
  images+=(hello:latest)
  is_loaded hello:latest
  "$(nix_of bookworm examples.minimal.stream)" -t "$image" | docker load
  is_loaded "$image"
  docker image rm --force hello:latest
  "$(nix_of bookworm examples.minimal.copyToDockerDaemon)/bin/copy-to-docker-daemon"
  is_loaded hello:latest
  docker image rm --force hello:latest
  docker load --input "$(nix_of bookworm examples.minimal.tarball)"
  is_loaded hello:latest
  "$(nix_of bookworm examples.minimal.copyTo)/bin/copy-to" "oci:$work/minimal:tag"
  same digest "$(digest_of "$minimal")" "$(skopeo inspect --format '{{.Digest}}' "oci:$work/minimal:tag")"
  same tag latest "$(nix_instantiate_value 'examples.minimal.imageTag')"
}

nix_instantiate_value() {
  nix-instantiate --eval --json --expr "
    (import $repo/tests/nix { index = $(index_of bookworm); stowage = $program; }).$1" | jq --raw-output .
}

to_a_registry() {
  push=$(nix_expression bookworm "(buildLayeredImage { name = \"$host/hello\"; config.Cmd = [ \"\${debnix.hello}/bin/hello\" ]; }).copyToRegistry")
  "$push/bin/copy-to-registry" --json > "$work/pushed.json"
  digest=$(jq --raw-output .digest "$work/pushed.json")
  same digest "$digest" "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$host/hello@$digest")"
}

to_podman() {
  local podman
  podman=$(nix_of bookworm examples.minimal.copyToPodman)
  for storage in overlay vfs; do
    if "$podman/bin/copy-to-podman" --root "$work/podman" --runroot "$work/podman-run" --storage-driver "$storage"; then break; fi
  done
  podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver "$storage" image exists localhost/hello:latest
}

# --- Examples ----------------------------------------------------------------

builds_one() {
  load_image "$(nix_of bookworm examples.ci-image)"
  expected=$(nix_of bookworm project)
  docker run --rm --network=none --volume "$(index_of bookworm):/index.json:ro" "$image" bash -euc '
    test "$(id -un)" = ci
    nix-build "<nixpkgs/example>" --arg index /index.json --no-out-link 2> /tmp/log || { cat /tmp/log; exit 1; }
    while read -r line; do case $line in "building "*.drv*) echo "$line" ;; esac; done < /tmp/log | wc -l
    export STOWAGE_CACHE=/tmp/cache
    stowage cache wait "$STOWAGE_CACHE" > /tmp/waited
    test -n "$(echo "$STOWAGE_CACHE"/*.narinfo)"' | tee "$work/said"
  same output "$expected" "$(head -n 1 "$work/said")"
  same builders 1 "$(tail -n 1 "$work/said")"
}

runs_examples() {
  load_image "$(nix_of bookworm examples.chain.project)"
  is_loaded "$image"
  docker run --rm --network=none --user 0 "$image" /bin/git --version
  load_image "$(nix_of bookworm examples.layers.large)"
  docker run --rm --network=none "$image" /bin/jq --null-input --raw-output '"jq runs"' | grep 'jq runs'
}

# A job as GitLab's runner has it: a script for the image's shell, in the project's folder.
runs_jobs() {
  load_image "$(nix_of bookworm examples.gitlab-runner)"
  rm -rf "$work/builds"
  install -d -o 1000 -g 1000 "$work/builds"
  cat > "$work/job" <<'JOB'
git --version
stowage cache check ./cache
stowage cache init ./cache
eval "$(stowage env ./cache)"
nix-build --expr 'derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo built > $out" ]; }'
stowage cache wait ./cache
JOB
  for builds in 1 0; do
    docker run --rm --interactive --network=none --volume "$work/builds:/builds" --workdir /builds --env CI_PROJECT_DIR=/builds \
      "$image" bash -eux < "$work/job" > "$work/said" 2>&1
    cat "$work/said"
    same builders "$builds" "$(builds "$work/said")"
  done
  ls "$work"/builds/cache/*.narinfo
}

chain_has_each_path_once() {
  local paths
  paths=$(nix_of bookworm examples.chain.project)
  jq --raw-output '.layers[].paths[]?' "$paths/stowage.json" | sort | uniq --repeated > "$work/twice"
  cat "$work/twice"
  test ! -s "$work/twice"
  load_image "$paths"
  docker run --rm --network=none --volume "$(debnix bookworm sets.ci):/nix-of-the-test:ro" "$image" /bin/ls /nix/store | sort > "$work/on-disk"
  stowage why "stowage:$paths" '*' > "$work/why"
  jq --raw-output '.layers[].paths[]?' "$paths/stowage.json" | xargs --max-args=1 basename | sort > "$work/listed"
  diff "$work/listed" "$work/on-disk"
}

# All of nix/examples, whatever is in there, with the layers that some have for themselves.
examples_again() {
  local all='let
      collect = value: if value.type or "" == "derivation" then [ value ] else builtins.concatMap collect (builtins.attrValues value);
    in collect examples'
  nix_expression bookworm "$all" > "$work/examples"
  nix_expression bookworm "$all" --check | sort | diff <(sort "$work/examples") -
  for file in "$repo"/nix/examples/*.nix; do
    nix-instantiate --eval --expr "(import $repo/tests/nix { index = $(index_of bookworm); stowage = $program; }).examples ? $(basename "$file" .nix)" | grep true
  done
  wc -l < "$work/examples"
}

# --- Nix 2.26 ----------------------------------------------------------------

# with_226 FILE:ATTRIBUTE...: builds these of tests/nix, twice.
with_226() {
  docker run --rm --network=none --volume "$repo/nix:/repo/nix:ro" --volume "$repo/tests/nix:/repo/tests/nix:ro" \
    --volume "$debnix:/repo/tests/debnix:ro" --volume "$(index_of trixie):/index.json:ro" --volume "$debnix_home/debs:/debs:ro" \
    --volume "$program:/stowage:ro" --volume "$work/shared:/shared" "$image" /bin/sh -euc '
      nix --version
      build() { nix-build "/repo/tests/nix/${1%%:*}" --arg index /index.json --argstr debs /debs --arg stowage /stowage -A "${1#*:}" --no-out-link; }
      for name; do
        folder=$(build "$name")
        nix-store --realise --check "$(nix-store --query --deriver "$folder")"
        /stowage inspect "stowage:$folder" --json | /bin/jq --raw-output .digest
      done > /shared/digests' build "$@"
}

same_with_226() {
  local names=(
    default.nix:examples.minimal default.nix:examples.layers.large default.nix:examples.chain.project
    default.nix:examples.mutable-home cases.nix:images.chownTestImage.image cases.nix:images.imageViaFakeChroot.image
    cases.nix:images.layeredImageWithFakeRootCommands cases.nix:images.nixLayered
    cases.nix:images.environmentVariablesLayered
  )
  install -d -m 777 "$work/shared"
  with_226 "${names[@]}"
  for name in "${names[@]}"; do
    digest_of "$(nix-build "$repo/tests/nix/${name%%:*}" --arg index "$(index_of trixie)" --arg stowage "$program" -A "${name#*:}" --no-out-link)"
  done > "$work/digests"
  cat "$work/shared/digests"
  grep '^sha256:' "$work/shared/digests" | diff "$work/digests" -
}

new_image nix-functions
check 'an image is the same in a build and out of it, and again' same_outside 'examples.minimal'
check 'one with its database, its own user and the hook' same_outside 'buildCIImage { name = "ci"; contents = [ debnix.bash debnix.coreutils ]; }'
check 'one that can build a project, and a source tree' same_outside 'examples.ci-image'
check 'one with all that is to be had' same_outside "$with_everything"
check 'the last of a chain' same_outside 'examples.chain.project'
check 'one with files that are copied' same_outside 'examples.mutable-home'
check 'one with layers of its own' same_outside 'examples.layers.large'
check 'layers are shared, small, and above one another' layers_are_shared
check 'of layers that overlap, each path is there once' overlapping
check "an image of layers that are there reads nothing of the set $set" reads_nothing
check 'and is less than 1 MB beside its system layer' is_small "$whole"
check 'an image without such layers, too' is_small "buildLayeredImage { name = \"large\"; contents = [ debnix.sets.$set ]; includeNixDB = true; }"
check 'files have owners, modes and capabilities' capabilities_are_kept
check 'a home can be mutable, and its files are there once' home_is_mutable
check 'images go to Docker, archives and layouts' copies
start_registry pushed
check 'and to a registry' to_a_registry
check 'and to podman' to_podman
check 'the example for CI builds its project, with one builder' builds_one
check 'the other examples run' runs_examples
check 'the example for GitLab runs jobs, and builds nothing twice' runs_jobs
check 'in a chain each path is there once' chain_has_each_path_once
check 'all examples are the same when they are built again' examples_again
profile=$(debnix trixie sets.ci)
spec "$profile" > "$work/trixie.json"
need 'an image with Nix 2.26 loads' load "$work/trixie.json"
check 'Nix 2.26 makes the same images as 2.8' same_with_226
