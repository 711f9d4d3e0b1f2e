#!/bin/bash
# dockerTools' own tests, with our functions on debnix: the cases of its test docker-tools, by their
# numbers and images as in tests/nix/CASES.md.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../registry.sh
. "$repo/tests/registry.sh"
# shellcheck source-path=SCRIPTDIR source=../nix/cases.sh
. "$repo/tests/nix/cases.sh"
: "${STOWAGE:?the binary to test}"
start_docker

epoch=1970-01-01T00:00:01Z

# --- Store paths, or none ---

# All files of an image, without a leading `./`.
files_of() {
  local container
  container=$(docker create --network=none "$(ref "$1")" none)
  docker export "$container" | tar --list | sed 's|^\./||'
  docker rm "$container" > /dev/null
}

# Docker's exit code where the program is not there.
has_no_program() {
  local status=0
  loaded "$1"
  in_image "$1" || status=$?
  same 'exit code' 127 "$status"
}

has_no_store_paths() {
  files_of "$1" > "$work/files"
  grep -xE 'bin(/hello)?' "$work/files"
  ! grep '^nix/store/.' "$work/files"
}

# The store that is mounted is this machine's.
runs_with_store() {
  docker run --rm --network=none --volume /nix/store:/nix/store:ro "$(ref "$1")" | says_hello
}

needs_no_store() {
  loaded no-store-paths
  in_image no-store-paths ls / | grep -x bin
  files_of no-store-paths > "$work/files"
  grep -x bin/busybox "$work/files"
  ! grep '^nix/store/.' "$work/files"
}

# --- Names, dates and compressors ---

was_created() { same created "$2" "$(of_image "$1" .Created)"; }

stable_date() {
  loaded bash
  was_created bash "$epoch"
}

# It is the moment of the evaluation.
unstable_date() {
  local created age
  loaded "$1"
  created=$(of_image "$1" .Created)
  age=$(($(date +%s) - $(date --date "$created" +%s)))
  echo "$created, $age s ago"
  ((age >= 0 && age < 600))
}

has_tag() {
  loaded "$1"
  docker image ls --format '{{.Repository}} {{.Tag}}' | grep -Fx "$(case_value "images.$1.imageName") $(case_value "images.$1.imageTag")"
}

# Without a tag, it is a hash that changes with the image.
has_hash() {
  has_tag "$1"
  case_value "images.$1.imageTag" | grep -xE '[0-9a-z]{32}'
}

# bytes FILE OFFSET COUNT: in hexadecimal digits.
bytes() { od -A n -t x1 -j "$2" -N "$3" "$1" | tr -d ' \n'; }

# Docker knows zstd since its version 23.
loads_archive() {
  local archive version zstd
  zstd=$(case_output debnix.zstd)
  archive=$(case_output "images.$1.tarball")
  docker image rm --force "$(ref "$1")" > /dev/null
  version=$(docker version --format '{{.Server.Version}}')
  case $2 in
    none)
      same 'a tar' "$(printf ustar | od -A n -t x1 | tr -d ' ')" "$(bytes "$archive" 257 5)"
      docker load --input "$archive"
      ;;
    zstd)
      same 'what zstd begins with' 28b52ffd "$(bytes "$archive" 0 4)"
      if [ "${version%%.*}" -lt 23 ]; then "$zstd/bin/zstd" --decompress --stdout "$archive" | docker load; else docker load --input "$archive"; fi
      ;;
  esac
  in_image "$1" bash --version
}

prefixed() {
  loaded "$1"
  docker image ls --format '{{.Repository}}' | grep -Fx "$(case_value "images.$1.imageName")"
  in_image "$1" | says_hello
}

# --- Nix's database ---

lists_nix() {
  local nix
  nix=$(case_output debnix.nix-bin)
  loaded nix
  in_image nix nix-store -qR "$nix" | sort > "$work/listed"
  nix-store -qR "$nix" | sort | diff "$work/listed" -
}

# The modes of /nix and /nix/store let an ordinary user in.
others_may_run() {
  loaded bashLayeredWithUser
  docker run --rm --network=none --user somebody "$(ref bashLayeredWithUser)" \
    "$(case_output debnix.bash)/bin/bash" -euc 'id -u; stat --format=%a /nix /nix/store' > "$work/modes"
  same 'uid and modes' '999 755 755' "$(xargs < "$work/modes")"
}

nix_is_linked() {
  loaded "$1"
  same link nix "$(in_image "$1" bash -c "readlink $(case_output debnix.nix-bin)/bin/nix-daemon")"
}

contents_are_right() {
  loaded filesInStore
  in_image filesInStore nix-store --verify --check-contents
  in_image filesInStore | grep -x 'some data'
}

knows_bash() {
  local bash
  bash=$(case_output debnix.bash)
  loaded "$1"
  in_image "$1" nix-store -q --references /bin/bash | sort > "$work/known"
  nix-store -q --references "$bash" | sort | diff "$work/known" -
}

# --- Images of others, and services ---

serve_nix() {
  loaded nix
  "$(case_output images.nix.copyTo)/bin/copy-to" "docker://$host/stowage-test/nix:2.2.1"
}

# What cases.nix is to know of it; a path that nobody has, so that it has to be pulled.
where() {
  local digest
  digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$host/stowage-test/nix:2.2.1")
  pulled="{ name = \"pulled-nix-$$\"; imageName = \"$host/stowage-test/nix\"; imageDigest = \"$digest\"; tlsVerify = false; hash = \"HASH\"; }"
}

# Nix says the hash, as it does to users.
pull_it() {
  local unknown=sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= hash template path
  where
  template=$pulled
  pulled=${template/HASH/$unknown}
  if case_output images.nixFromDockerHub 2> "$work/mismatch"; then return 1; fi
  hash=$(sed -n 's/.*got: *\(sha256-[^ ]*\).*/\1/p' "$work/mismatch")
  test -n "$hash"
  pulled=${template/HASH/$hash}
  echo "$pulled" > "$work/pulled"
  path=$(case_output images.nixFromDockerHub)
  # Where Nix finds what the puller consists of in a pulled image, it is not.
  nix-store --check-validity "$path"
}

pulled_image_loads() {
  pull_it
  loaded nixFromDockerHub
  in_image nixFromDockerHub nix-store --version | grep '^nix-store (Nix) 2'
}

runs_on_pulled() {
  pulled=$(cat "$work/pulled")
  loaded onTopOfPulledImage
  in_image onTopOfPulledImage hello | says_hello
  in_image onTopOfPulledImage nix-store --version
}

serves() {
  local container pid
  loaded nginx
  container=$(docker run --detach --network=none "$(ref nginx)")
  echo "$container" > "$work/container"
  pid=$(docker inspect --format '{{.State.Pid}}' "$container")
  # It has a network that nobody else is in.
  for _ in $(seq 50); do
    if nsenter --target "$pid" --net curl --silent --fail http://127.0.0.1/ > "$work/page"; then break; fi
    sleep 0.1
  done
  docker logs "$container"
  docker rm --force "$container"
  grep -F 'Hello from NGINX' "$work/page"
  of_image nginx '.Config.ExposedPorts == {"80/tcp": {}}'
}

quoting() {
  loaded runAsRootExtraCommands
  same extraCommands '(extraCommand)' "$(in_image runAsRootExtraCommands cat extraCommands)"
  same runAsRoot '(runAsRoot)' "$(in_image runAsRootExtraCommands cat runAsRoot)"
  # What there is in place of a virtual machine is said.
  fails case_output images.layersUnpackOrder 2> "$work/error"
  grep -F 'runAsRoot needs a virtual machine; use fakeRootCommands' "$work/error"
}

# --- Layers ---

layered_runs() {
  loaded layered-image
  in_image layered-image | says_hello
  same file '(extraCommand)' "$(in_image layered-image cat extraCommands)"
}

on_top_runs() {
  loaded "$1"
  same output hello "$(in_image "$1")"
  # The parent's file is there, too.
  same file '(extraCommand)' "$(in_image "$1" cat /extraCommands)"
}

layers_are_shared() {
  loaded layered-image another-layered-image
  layers_of layered-image > "$work/one"
  layers_of another-layered-image > "$work/other"
  comm -12 "$work/one" "$work/other" | tee "$work/shared"
  test -s "$work/shared"
  in_image another-layered-image | says_hello
}

order() {
  loaded layersOrder
  same files 'layer1 layer2 layer3' "$(in_image layersOrder cat /tmp/layer1 /tmp/layer2 /tmp/layer3 | xargs)"
}

repeated_layers() {
  local name
  for name in repeatedLayerTestImage repeatedLayerLinks; do
    loaded "$name"
    in_image "$name" /bin/bash -c 'exit 0'
  done
}

two_layers() {
  loaded two-layered-image
  same layers 2 "$(layers_of two-layered-image | wc -l)"
  in_image two-layered-image | says_hello
}

bulk_layer() {
  loaded bulk-layer
  same file /bin/hello "$(in_image bulk-layer ls /bin/hello)"
  in_image bulk-layer hello | says_hello
  same layers 2 "$(layers_of bulk-layer | wc -l)"
}

layers_on_parent() {
  loaded layered-bulk-layer
  same file /bin/hello "$(in_image layered-bulk-layer ls /bin/hello)"
  same layers 4 "$(layers_of layered-bulk-layer | wc -l)"
}

link_stays() {
  local link
  link=$(case_value images.layeredStoreSymlink.symlink)
  loaded layeredStoreSymlink
  in_image layeredStoreSymlink bash -c "test -L $link && read -r text < $link/dir/target && test \"\$text\" = \"Content doesn't matter.\""
}


check '1 helloOnRoot: an image with store paths runs' runs_hello helloOnRoot
check '2 helloOnRootNoStore: without store paths it does not' has_no_program helloOnRootNoStore
check '3 helloOnRootNoStoreFakechroot: nor with enableFakechroot' has_no_program helloOnRootNoStoreFakechroot
check '4 helloOnRootNoStore: no store paths are in it' has_no_store_paths helloOnRootNoStore
check '4 helloOnRootNoStoreFakechroot: nor with enableFakechroot' has_no_store_paths helloOnRootNoStoreFakechroot
check '5 helloOnRootNoStore: it runs with the store mounted' runs_with_store helloOnRootNoStore
check '5 helloOnRootNoStoreFakechroot: likewise with enableFakechroot' runs_with_store helloOnRootNoStoreFakechroot
check '6 bash: images are made a second after 1970' stable_date
check '7 unstableDate: or now' unstable_date unstableDate
check '7 unstableDateLayered: likewise, a layered one' unstable_date unstableDateLayered
check '8 bash: it runs' in_image bash bash --version
check '9 bash: imageTag is the tag that Docker sees' has_tag bash
check '9 bashNoTag: likewise where none is given' has_hash bashNoTag
check '9 bashNoTagLayered: and where the image is layered' has_hash bashNoTagLayered
check '9 bashNoTagStreamLayered: or a stream' has_hash bashNoTagStreamLayered
check '9 nixLayered: or has a database' has_tag nixLayered
check '10 bashZstdCompressed: an archive by zstd loads' loads_archive bashZstdCompressed zstd
check '10 bashUncompressed: and one that is not compressed' loads_archive bashUncompressed none
check '10 bashLayeredUncompressed: likewise of a layered image' loads_archive bashLayeredUncompressed none
check '10 bashLayeredZstdCompressed: by zstd, too' loads_archive bashLayeredZstdCompressed zstd
check '11 nix: the database knows all that Nix needs' lists_nix
check '12 bashLayeredWithUser: an ordinary user may run programs of the store' others_may_run
check '13 nix: links within a store path stay' nix_is_linked nix
check '13 nixLayered: likewise in a layered image' nix_is_linked nixLayered
check '14 filesInStore: all contents are as registered' contents_are_right
check '15 nix: the database knows references' knows_bash nix
check '15 nix-layered: likewise in a layered image' knows_bash nix-layered
start_registry registry
need 'a registry has an image' serve_nix
check '16 nixFromDockerHub: pullImage loads' pulled_image_loads
check '17 nginx: it serves a page' serves
check '18 onTopOfPulledImage: a pulled image can be built on' runs_on_pulled
# Nobody will want it again, and it is large.
if pulled=$(cat "$work/pulled") && path=$(case_output images.nixFromDockerHub); then
  nix-store --query --referrers-closure "$path" | xargs nix-store --delete
fi > "$work/deleted" 2>&1 || tail -n 1 "$work/deleted"
check '19 runAsRootExtraCommands: quotes and parentheses in commands' quoting
check '20 layered-image: it runs, and has the file of extraCommands' layered_runs
check '21 layered-on-top: buildImage on a layered image' on_top_runs layered-on-top
check '22 layered-on-top-layered: a layered image on a layered image' on_top_runs layered-on-top-layered
check '23 another-layered-image: it has layers of another image' layers_are_shared
check '24 layersOrder: the uppermost layer wins' order
check '26 repeatedLayerTestImage: a parent with the same layer twice' repeated_layers
check '29 two-layered-image: two layers are enough' two_layers
check '30 bulk-layer: the last layer has all that is left' bulk_layer
check '31 layered-bulk-layer: maxLayers counts those of the parent' layers_on_parent
check '32 no-store-paths: only what is needed is in the store' needs_no_store
check '34 layeredStoreSymlink: a store path that is a link stays one' link_stays
check '35 prefixedImage: a name with a registry' prefixed prefixedImage
check '35 prefixedLayeredImage: likewise a layered one' prefixed prefixedLayeredImage
