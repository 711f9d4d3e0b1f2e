#!/bin/bash
# The round trip: what the hook exports, behind a daemon, for a single user and in a
# container, three generations of Nix read into empty stores that ask for signatures;
# and what these write, in every compression, stowage reads.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"
unset STOWAGE_SECRET_KEY STOWAGE_CACHE STOWAGE_CONFIG STOWAGE_SPEC STOWAGE_STRICT CI_PROJECT_DIR
start_docker

get bookworm ci
ci=$(debnix bookworm sets.ci)
get_generations
generations=(old new ${newest:+newest})
for name in daemon single container stranger; do new_key "key-$name"; done

# --- What is built -----------------------------------------------------------

# project WAY: a folder of the ordinary user, with what he builds: a program that
# refers to a library when it runs, and to more when it is built.
project() {
  project=$work/$1/project
  mkdir -p "$project"
  cat > "$project/graph.nix" <<'NIX'
{ tag }:
let
  make = name: script: more: derivation ({
    name = "${name}-${tag}"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin:/usr/bin";
    args = [ "-c" script ];
  } // more);
  tool = make "tool" ''mkdir -p $out/bin; echo 'echo made by a tool' > $out/bin/tool'' { };
  fixed = make "fixed" ''echo fixed > $out'' {
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed\n";
  };
  library = make "library" ''mkdir $out $dev; cp $source $out/library; echo $out > $dev/header'' {
    outputs = [ "out" "dev" ]; source = builtins.toFile "source-${tag}" "a source\n";
  };
in make "program" ''
  mkdir -p $out/bin; /bin/sh $tool/bin/tool > $out/made; read fixed < $fixed; read header < $dev/header
  printf '#!/bin/sh\nread text < %s/library; echo $text\n' $library > $out/bin/program; chmod +x $out/bin/program
'' { inherit tool fixed; library = library.out; dev = library.dev; }
NIX
  # make.sh EXTENT: builds, and lists what has to be in the cache then.
  cat > "$project/make.sh" <<'SH'
set -eu
nix-instantiate graph.nix --argstr tag "$1" > "$1.drv"
nix-build graph.nix --argstr tag "$1" --no-out-link > "$1.out"
drv=$(cat "$1.drv")
nix-store --query --requisites "$(cat "$1.out")" | sort > "$1.runtime"
case $1 in
  # Each of the derivations was built with the hook.
  closure) nix-store --query --requisites $(nix-store --query --outputs $(nix-store --query --requisites "$drv" | grep '\.drv$')) ;;
  build) nix-store --query --requisites --include-outputs "$drv" ;;
esac | sort > "$1.paths"
SH
  chown -R "$ordinary:$ordinary" "$work/$1"
}

# configuration CACHE EXTENT [LINE]...
configuration() { printf '%s\n' "cache = \"$1\"" "export = \"$2\"" "${@:3}"; }

# What each extent has to have, by name.
right_names() {
  local names='library-closure program-closure'
  [ "$1" = closure ] || names='fixed-build fixed-build.drv library-build library-build-dev library-build.drv program-build program-build.drv source-build tool-build tool-build.drv'
  [ "$1" = build ] || names="fixed-closure $names library-closure-dev tool-closure"
  same names "$(tr ' ' '\n' <<< "$names" | sort)" "$(sed "s|.*/[^-]*-||" "$project/$1.paths" | sort)"
}

# --- Behind a daemon -----------------------------------------------------------

# What a client tells its daemon and its hook.
client() {
  as_ordinary "$work/daemon/project" NIX_REMOTE="unix://$work/daemon/socket" \
    OUT_PATHS="$evil" DRV_PATH="$evil.drv" STOWAGE_CACHE="$evil/cache" CI_PROJECT_DIR="$evil" STOWAGE_STRICT=1 \
    STOWAGE_CONFIG="$evil/config.toml" STOWAGE_SECRET_KEY="$(cat "$work/key-stranger")" \
    NIX_CONFIG="post-build-hook = $evil/hook" "$@"
}

build_behind_daemon() {
  use_store "$work/daemon"
  configuration "$project/$1" "$1" "secretKeyFiles = [\"$work/daemon/key\"]" > "$work/daemon/etc/config.toml"
  client sh make.sh "$1"
  as_ordinary "$project" "$program" cache wait "$project/$1"
  right_names "$1"
}

client_is_not_heard() {
  printf '#!/bin/sh\ntouch %s/ran\n' "$evil" > "$evil/hook"
  chmod +x "$evil/hook"
  use_store "$work/daemon"
  fails as_ordinary "$project" cat "$work/daemon/key"
  as_ordinary "$project" touch "$evil/config.toml"
  client nix-build graph.nix --argstr tag evil --no-out-link --option post-build-hook "$evil/hook"
  stowage cache wait "$project/build"
  ls "$project"/build/*.narinfo
  grep -l '^StorePath: .*program-evil$' "$project"/build/*.narinfo
  same 'what is there of the client' config.toml,hook "$(find "$evil" -mindepth 1 -printf '%f\n' | sort | paste -sd ,)"
  if grep -r '^Sig: key-stranger' "$project"; then return 1; fi
}

# --- Of a single user, and in a container --------------------------------------------

# The hook's usual place, and that of its configuration.
install_for_user() {
  new_store "$work/single"
  mkdir -p "$project/.config/stowage" "$project/.config/nix"
  configuration "$project/closure" closure > "$project/.config/stowage/config.toml"
  cp "$work/key-single" "$project/key"
  chown -R "$ordinary:$ordinary" "$work/single"
  as_ordinary "$project" "$program" hook --install > "$work/single/advice"
  grep --only-matching 'post-build-hook = .*' "$work/single/advice" > "$project/.config/nix/nix.conf"
}

build_as_user() {
  use_store "$work/single"
  configuration "$project/$1" "$1" "secretKeyFiles = [\"$project/key\"]" > "$project/.config/stowage/config.toml"
  as_ordinary "$project" sh make.sh "$1"
  as_ordinary "$project" "$program" cache wait "$project/$1"
  right_names "$1"
}

build_in_container() {
  configuration "/project/$1" "$1" > "$project/$1.toml"
  in_job bookworm "$project" "
    export STOWAGE_CONFIG=/project/$1.toml STOWAGE_SECRET_KEY=\"\$(cat key)\"
    sh make.sh $1
    stowage cache wait $1"
  right_names "$1"
}

# --- Nix reads it ------------------------------------------------------------------------

# as_built WAY: with the store dir of those who built, and nothing of the machine's.
as_built() {
  case $1 in
    container) unset NIX_STORE_DIR ;;
    *) export NIX_STORE_DIR=$work/$1/store ;;
  esac
  project=$work/$1/project
  export NIX_CONF_DIR=$work
}

# holds WAY EXTENT GENERATION: the cache has what it should, and no more.
holds() {
  as_built "$1"
  nix_of "$3" path-info --store "file://$project/$2" --all | sort > "$work/all"
  diff "$project/$2.paths" "$work/all"
  nix_of "$3" store verify --store "file://$project/$2" --all --no-trust
}

# take WAY EXTENT GENERATION PATH...: into the empty store $store, which has just that then.
take() {
  local way=$1 cache=file://$project/$2 which=$3
  shift 3
  believing "key-$way"
  nix_of "$which" "${trust[@]}" copy --from "$cache" --to "$store" "$@"
  nix_of "$which" "${trust[@]}" store verify --store "$store" --all --sigs-needed 1
}

stored() { nix_of "$1" path-info --store "$store" --all | sort; }

runs() {
  local store
  as_built "$1"
  store=$(fresh store)
  take "$1" closure "$2" "$(cat "$project/closure.out")"
  diff "$project/closure.runtime" <(stored "$2")
  believing key-stranger
  fails nix_of "$2" "${trust[@]}" copy --from "file://$project/closure" --to "$(fresh store)" "$(cat "$project/closure.out")"
}

# builds_again WAY GENERATION: with nothing but what is in the cache.
builds_again() {
  local store drv
  as_built "$1"
  store=$(fresh store)
  drv=$(cat "$project/build.drv")
  take "$1" build "$2" --derivation "$drv"
  grep -v '\.drv$' "$project/build.paths" > "$work/outputs"
  mapfile -t outputs < "$work/outputs"
  take "$1" build "$2" "${outputs[@]}"
  diff "$project/build.paths" <(stored "$2")
  "$(dirname "${!2}")/nix-store" --store "$store" --realise --check "$drv" --option substitute false \
    --option build-users-group '' --option sandbox-paths '/bin=/usr/bin /lib=/usr/lib /lib64=/usr/lib64 /usr'
}

is_ordinary_s() {
  local extent
  for extent in closure build; do
    test -z "$(find "$work/$1/project/$extent" ! -user "$ordinary" -o ! -group "$ordinary")"
    test -z "$(find "$work/$1/project/$extent" -type f ! -perm 644 -o -type d ! -perm 755)"
  done
}

reads() {
  local which version way=$1
  check "$way: the cache is the ordinary user's" is_ordinary_s "$way"
  for which in "${generations[@]}"; do
    version=$("${!which}" --version)
    for extent in closure build; do
      check "$way: $version lists what there is of export = \"$extent\", and finds it right" holds "$way" "$extent" "$which"
    done
    check "$way: $version takes what runs, signed, into an empty store" runs "$way" "$which"
    check "$way: $version takes what it was built with, and builds it again" builds_again "$way" "$which"
  done
}

evil=$work/evil
install --directory --owner="$ordinary" "$evil"
project daemon
mkdir "$work/daemon/etc"
configuration "$project/closure" closure > "$work/daemon/etc/config.toml"
install --mode=600 "$work/key-daemon" "$work/daemon/key"
start_daemon_with_hook "$work/daemon"
for extent in closure build; do
  need "daemon: an ordinary client builds, and the hook exports, export = \"$extent\"" build_behind_daemon "$extent"
done
reads daemon
use_store "$work/daemon"
check 'daemon: nothing that the client says reaches the hook' client_is_not_heard

project single
need 'single: the hook is installed by the user' install_for_user
for extent in closure build; do
  need "single: a build without a daemon, export = \"$extent\"" build_as_user "$extent"
done
reads single

project container
install --mode=600 --owner="$ordinary" "$work/key-container" "$project/key"
spec "$ci" '{"hook": true}' > "$work/image.json"
new_image round-trip
unset NIX_STORE_DIR NIX_STATE_DIR NIX_LOG_DIR NIX_CONF_DIR NIX_REMOTE
need 'container: the image loads' load "$work/image.json"
for extent in closure build; do
  need "container: a build as its user, export = \"$extent\"" build_in_container "$extent"
done
reads container

# --- What Nix has written ------------------------------------------------------------

# nix_wrote GENERATION COMPRESSION [UNCHECKED]: it counts as there and as right, is
# signed, and still is what Nix reads.
nix_wrote() {
  local cache built store
  as_built single
  use_store "$work/single"
  cache=$(fresh nix-wrote)
  built=$(cat "$project/closure.out")
  nix_of "$1" copy --to "file://$cache?compression=$2" "$built"
  stowage cache check "$cache" --deep --strict --json > "$work/json"
  cat "$work/json"
  same 'narinfos, damaged and not checked' "[2,0,${3-0}]" \
    "$(jq --compact-output '[.narinfos, (.quarantined | length), .unchecked]' "$work/json")"
  same 'added, there and signed' '[0,2,0]' "$(add)"
  same 'added, there and signed' '[0,2,2]' "$(add --secret-key-file "$work/key-single")"
  store=$(fresh store)
  believing key-single
  nix_of "$1" "${trust[@]}" copy --from "file://$cache" --to "$store" "$built"
  nix_of "$1" "${trust[@]}" store verify --store "$store" --all --sigs-needed 1
}

add() { stowage cache add "$cache" "$built" --json "$@" | jq --compact-output '[.added, .skipped, .signed]'; }

for which in "${generations[@]}"; do
  version=$("${!which}" --version)
  for form in none xz bzip2 zstd gzip; do
    check "$form: what $version wrote counts as there and right, and is signed" nix_wrote "$which" "$form"
  done
  # What only Nix can unpack is not called damaged.  (lzma Nix 2.8 writes, and then aborts.)
  for form in br lzip lz4 compress; do
    check "$form: what $version wrote counts as there, not checked, and is signed" nix_wrote "$which" "$form" 2
  done
done
