#!/bin/bash
# Images built on images, in every format that a parent can have: chains of
# three (tools, then what a project needs, then the project) and of six; on
# images that were made by hand as dockerTools makes them; on a plain Debian.
#
#   parents.sh
#
# STOWAGE_LONG=yes has all eight checks of debnix run in each of them.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

# --- Images ------------------------------------------------------------------

# put FORMAT NAME ARGUMENT...: builds an image, and puts the reference to it, in
# that format, into $reference.
put() {
  local format=$1 name=$2 place=$work/$1/$2
  shift 2
  mkdir -p "$work/$format"
  case $format in
    stowage | oci)
      stowage build "$@" --name "$name" --to "$format:$place" --quiet
      reference=$format:$place
      ;;
    docker-archive)
      stowage build "$@" --name "$name" --to "docker-archive:$place.tar" --quiet
      reference=docker-archive:$place.tar
      ;;
    # skopeo compresses the layers.
    oci-archive | zstd)
      stowage build "$@" --name "$name" --to "oci:$place.raw:x" --quiet
      case $format in
        oci-archive) reference=oci-archive:$place.tar:x ;;
        zstd) reference=oci:$place:x ;;
      esac
      skopeo copy --insecure-policy --quiet --dest-compress-format "$([ "$format" = zstd ] && echo zstd || echo gzip)" \
        "oci:$place.raw:x" "$reference"
      rm -rf "$place.raw"
      ;;
    # As dockerTools.buildImage and others leave them: compressed as a whole.
    gzip | zstd-archive | xz)
      stowage build "$@" --name "$name" --to "docker-archive:$place.tar" --quiet
      case $format in
        gzip) gzip -1 "$place.tar" ;;
        zstd-archive) zstd --quiet --rm -1 "$place.tar" ;;
        xz) xz -0 "$place.tar" ;;
      esac
      reference=docker-archive:$(echo "$place".tar.*)
      ;;
    docker-save)
      new_image "saved-$name"
      stowage build "$@" --name "$image" --to docker-archive:- --quiet | docker load
      docker save --output "$place.tar" "$image"
      reference=docker-archive:$place.tar
      ;;
  esac
}

# leaf NAME TEXT: a store path of a project's.
leaf() {
  nix-build --no-out-link --quiet --expr "
    let debnix = import $debnix { index = $(index_of bookworm); };
    in derivation {
      name = \"$1\"; system = \"x86_64-linux\"; builder = \"\${debnix.busybox}/bin/sh\";
      args = [ \"-c\" \"\${debnix.busybox}/bin/mkdir -p \$out/share; echo $2 > \$out/share/$1\" ];
    }" 2> /dev/null
}

# --- What must be true of the last image --------------------------------------

# loads FORMAT ARGUMENT...: the last image of a chain, which goes to Docker.
loads() {
  stowage build "${@:2}" --name "$image" --to "docker-archive:$work/last.tar" --quiet
  docker load --quiet --input "$work/last.tar"
}

# In the files of the image, on which no Nix has run: the rows of the database,
# the folders of the store, and $expected are the same.
rows_are_folders() {
  local id root=$work/files
  rm -rf "$root"
  mkdir "$root"
  id=$(docker create --network=none "$image" /none)
  docker export "$id" > "$work/files.tar"
  docker rm "$id" > /dev/null
  tar --list --file "$work/files.tar" | sed -n 's|^nix/store/\([^/.][^/]*\)/\?$|/nix/store/\1|p' | sort > "$work/folders"
  tar --extract --file "$work/files.tar" --directory "$root" nix/var/nix
  # Nix writes there, too.
  tar --list --verbose --numeric-owner --file "$work/files.tar" | grep -E ' nix/store/(\.links/)?$' > "$work/stores"
  cat "$work/stores"
  same 'owners of the store' "$(awk '{ print $2 }' "$work/stores" | sort -u)" 1000/1000
  rm "$work/files.tar"
  python3 - "$root/nix/var/nix/db/db.sqlite" <<'PYTHON' | sort > "$work/rows"
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute("select path from ValidPaths"):
    print(row[0])
PYTHON
  # shellcheck disable=SC2086 # word splitting is meant
  nix-store --query --requisites $expected | sort -u > "$work/paths"
  diff "$work/paths" "$work/rows"
  diff "$work/rows" "$work/folders"
  same 'files of the database' "$(ls -A "$root/nix/var/nix/db")" "$(printf 'db.sqlite\nschema')"
  find "$root/nix/var/nix" -type d ! -uid 1000 > "$work/others"
  cat "$work/others"
  test ! -s "$work/others"
  test ! -e "$root/nix/var/nix/gc.lock"
}

no_path_is_twice() {
  local layer
  : > "$work/in-layers"
  for layer in $(tar --extract --to-stdout --file "$work/last.tar" manifest.json | jq --raw-output '.[0].Layers[]'); do
    # Compressed ones went in as they are.
    tar --extract --to-stdout --file "$work/last.tar" "$layer" > "$work/layer"
    if ! tar --list --file "$work/layer" > "$work/members" 2> /dev/null; then
      zstd --decompress --quiet --stdout "$work/layer" | tar --list > "$work/members"
    fi
    sed -n 's|^\./||; s|^nix/store/\([^/.][^/]*\)/\?$|\1|p' "$work/members" | sort -u >> "$work/in-layers"
  done
  rm "$work/layer"
  sort "$work/in-layers" | uniq --repeated > "$work/twice"
  cat "$work/twice"
  test "$(grep -c . "$work/in-layers")" = "$(grep -c . "$work/paths")"
  test ! -s "$work/twice"
}

# As the image's ordinary user, without a network.
nix_works() {
  docker run --rm --interactive --network=none "$image" /bin/sh -eu <<'SCRIPT'
test "$(id -u)" = 1000
cd "$HOME"
nix-store --verify --check-contents
nix --extra-experimental-features nix-command path-info --all | sort > /tmp/shipped
bash=$(readlink -f "$(command -v bash)")
bash=${bash%/bin/bash}
cat > built.nix <<NIX
let bash = builtins.storePath "$bash";
in derivation {
  name = "built";
  system = builtins.currentSystem;
  builder = "\${bash}/bin/bash";
  args = [ "-c" "echo \$BASH_VERSION > \$out" ];
}
NIX
nix-build built.nix
cat result
rm result
nix-collect-garbage
nix --extra-experimental-features nix-command path-info --all | sort > /tmp/left
comm -23 /tmp/shipped /tmp/left > /tmp/lost
cat /tmp/lost
test ! -s /tmp/lost
nix-store --verify --check-contents
SCRIPT
}

debnix_works() { "$debnix/container-smoke" --image "$image" --rounds 2 "$(index_of bookworm)"; }

# all_of WHAT PATH...: the checks of $image, whose closure is that of the paths.
all_of() {
  local what=$1
  shift
  expected=$*
  check "$what: the rows of the database are the folders of the store" rows_are_folders
  check "$what: no store path is in two layers" no_path_is_twice
  check "$what: nix-store --verify, nix-build and nix-collect-garbage work" nix_works
  [ -z "${STOWAGE_LONG-}" ] || check "$what: debnix's checks pass" debnix_works
  docker image rm --force "$image" > /dev/null 2>&1 || true
}

# --- Chains ------------------------------------------------------------------

# chain FORMAT: each image is built on the one before.
chain() {
  put "$1" tools --spec "$work/tools.json"
  put "$1" dependencies "$dependencies" --from "$reference"
  new_image "chain-$1"
  loads "$1" "$project" --from "$reference"
  rm -rf "${work:?}/$1"
}

config_stays() {
  docker image inspect "$image" | jq --exit-status --arg path "$project" '
    .[0].Config | (.Env | index("TOOLS=yes")) and .Labels.stage == "tools" and .Cmd == ["/bin/sh"]
      and .User == "1000:1000"'
  docker run --rm --network=none "$image" /bin/sh -c 'grep -q "^cores = 1$" /etc/nix/nix.conf && cat /share/project && hello'
}

six_are_built() {
  local number path
  put oci six-1 --spec "$work/tools.json"
  for number in 2 3 4 5; do
    path=$(leaf "leaf$number" "$number")
    leaves="$leaves $path"
    put oci "six-$number" "$path" --from "$reference"
  done
  new_image six
  loads oci "$(leaf leaf6 6)" --from "$reference"
  docker image inspect --format '{{len .RootFS.Layers}} layers' "$image"
  rm -rf "$work/oci"
}

too_few_are_refused() {
  put stowage few --spec "$work/tools.json" --max-layers 9
  fails stowage build "$dependencies" --from "$reference" --max-layers 10 --to "stowage:$work/none" 2> "$work/errors"
  cat "$work/errors"
  grep -q 'has 9, and the image needs 11 at the least' "$work/errors"
}

# --- Images by hand ------------------------------------------------------------

# layer FOLDER OUT: all that is in a folder, as root's.
layer() { tar --create --file "$2" --directory "$1" --numeric-owner --owner 0 --group 0 --mtime @1 .; }

# store_layer OUT PATH...: store paths, which are all in one layer.
store_layer() {
  local out=$1
  shift
  printf '%s\n' "${@#/}" |
    tar --create --file "$out" --directory / --numeric-owner --owner 0 --group 0 --mtime @1 --files-from -
}

# custom_layer NAME PATH: what dockerTools puts on top of the store paths: the
# database of the closure of PATH, as `nix-store --load-db` makes it, a GC root,
# and links at /, of which /bin is one into the store.
custom_layer() {
  local root=$work/custom-$1
  mkdir -p "$root"
  nix-store --query --requisites "$2" | xargs nix-store --dump-db |
    nix-store --store "local?root=$root" --option build-users-group '' --load-db
  mkdir -p "$root/nix/var/nix/gcroots/docker"
  ln -s "$2" "$root/nix/var/nix/gcroots/docker/"
  ln -s "$2/bin" "$root/bin"
  touch "$root/nix/var/nix/gc.lock"
  layer "$root" "$work/custom-$1.tar"
}

# A log that changes each row, and that SQLite would apply to whatever database
# it stands beside.
add_log() {
  python3 - "$work/custom-$1/nix/var/nix/db" <<'PYTHON'
import shutil, sqlite3, sys
folder = sys.argv[1]
database = sqlite3.connect(f"{folder}/db.sqlite", isolation_level=None)
database.execute("pragma journal_mode = wal")
database.execute("pragma wal_autocheckpoint = 0")
database.execute("update ValidPaths set registrationTime = 5")
for name in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"]:
    shutil.copy(f"{folder}/{name}", f"{folder}/{name}.copy")
database.close()
for name in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"]:
    shutil.move(f"{folder}/{name}.copy", f"{folder}/{name}")
PYTHON
  test -s "$work/custom-$1/nix/var/nix/db/db.sqlite-wal"
  layer "$work/custom-$1" "$work/custom-$1.tar"
}

one_database() {
  mapfile -t paths < <(nix-store --query --requisites "$tools")
  store_layer "$work/store-tools.tar" "${paths[@]}"
  custom_layer tools "$tools"
  add_log tools
  "$repo/tests/system/archive" "$work/by-hand.tar" '{"Cmd": ["/bin/sh"], "Env": ["USER=nobody"]}' \
    "$work/store-tools.tar" "$work/custom-tools.tar"
}

# The database of the upper image knows nothing of what only the lower one has.
two_databases() {
  mapfile -t paths < <(nix-store --query --requisites "$dependencies" | grep -vxFf <(nix-store --query --requisites "$tools"))
  store_layer "$work/store-dependencies.tar" "${paths[@]}"
  custom_layer dependencies "$dependencies"
  rm "$work/custom-dependencies/bin"
  layer "$work/custom-dependencies" "$work/custom-dependencies.tar"
  "$repo/tests/system/archive" "$work/by-hand-2.tar" '{"Cmd": ["/bin/sh"]}' \
    "$work/store-tools.tar" "$work/custom-tools.tar" "$work/store-dependencies.tar" "$work/custom-dependencies.tar"
}

# by_hand NAME ARCHIVE: an image on an archive, and one on that.
by_hand() {
  put stowage "on-$1" "$dependencies" --spec "$work/nix.json" --from "$2"
  new_image "$1"
  loads stowage "$project" --from "$reference"
}

# Podman hides what is hidden, as Docker does.
podman_hides() {
  local root
  storage=(--root "$work/podman" --runroot "$work/podman-run" --storage-driver "$1" --cgroup-manager cgroupfs)
  podman "${storage[@]}" load --input "$work/last.tar"
  root=$(podman "${storage[@]}" image mount "localhost/$image")
  same 'files of the database' "$(ls -A "$root/nix/var/nix/db")" "$(printf 'db.sqlite\nschema')"
  test ! -e "$root/nix/var/nix/gc.lock"
  podman "${storage[@]}" image umount --all
}

podman_hides_somehow() { podman_hides overlay || podman_hides vfs; }

# --- Debian ------------------------------------------------------------------

debian() {
  local root=$work/debian
  debootstrap --variant=minbase bookworm "$root"
  test -L "$root/bin"
  tar --create --directory "$root" --exclude ./var/cache/apt --exclude ./var/lib/apt/lists . | docker import - "$image"
  docker save --output "$work/debian.tar" "$image"
  rm -rf "$root"
}

debian_stays_debian() {
  docker run --rm --network=none "$image" /bin/sh -euc '
    for link in /bin /lib /sbin /lib64; do test -L $link; done
    test "$(stat -c "%a %G" /var/mail)" = "2775 mail"
    test "$(readlink /var/run)" = /run
    test "$(stat -c %a /tmp)" = 1777
    test -L /usr/bin/git
    apt-get --version && perl -e "print qq(perl works\n)"
    getent passwd daemon user
    git --version'
}

get bookworm ci small stdenv
tools=$(debnix bookworm sets.ci)
dependencies=$(debnix bookworm sets.small)
project=$(leaf project text)
spec "$tools" '{"config": {"Cmd": ["/bin/sh"], "Env": ["TOOLS=yes"], "Labels": {"stage": "tools"}}, "nixConf": {"substituters": "", "cores": 1}}' > "$work/tools.json"
echo '{"nixConf": {"substituters": ""}}' > "$work/nix.json"

formats=(stowage oci docker-archive gzip oci-archive zstd docker-save)
[ -z "${STOWAGE_LONG-}" ] || formats+=(zstd-archive xz)
for format in "${formats[@]}"; do
  check "chain, $format: three images are built, and Docker loads the last" chain "$format"
  if [ "$last" = ok ]; then
    # Within a check, names are lost.
    image=stowage-test-chain-$format:$$
    images+=("$image" "stowage-test-saved-tools:$$" "stowage-test-saved-dependencies:$$")
    [ "$format" != stowage ] || check "chain, $format: what the first config says is in the last" config_stays
    all_of "chain, $format" "$tools" "$dependencies" "$project"
  fi
done

leaves=
check 'a chain of six is built without saying how many layers' six_are_built
image=stowage-test-six:$$
images+=("$image")
for number in 2 3 4 5 6; do leaves="$leaves $(leaf "leaf$number" "$number")"; done
# shellcheck disable=SC2086 # word splitting is meant
[ "$last" != ok ] || all_of 'a chain of six' "$tools" $leaves
check 'too few layers are refused, with the numbers' too_few_are_refused

need 'an image as dockerTools makes it' one_database
check 'on it: two images are built, and Docker loads the last' by_hand one "$work/by-hand.tar"
image=stowage-test-one:$$
images+=("$image")
if [ "$last" = ok ]; then
  check 'on it: podman hides the old database, too' podman_hides_somehow
  all_of 'on it' "$tools" "$dependencies" "$project"
fi
need 'an image whose database hides that of a lower one' two_databases
check 'on that: two images are built, and Docker loads the last' by_hand two "$work/by-hand-2.tar"
image=stowage-test-two:$$
images+=("$image")
[ "$last" != ok ] || all_of 'on that' "$tools" "$dependencies" "$project"

image=stowage-test-debian:$$
images+=("$image" "stowage-test-on-debian:$$")
need 'a plain Debian' debian
image=stowage-test-on-debian:$$
check 'on Debian: an image is built, and Docker loads it' loads stowage --spec "$work/tools.json" --from "$work/debian.tar"
if [ "$last" = ok ]; then
  check 'on Debian: it stays a Debian' debian_stays_debian
  all_of 'on Debian' "$tools"
fi
