#!/bin/bash
# Images that can build a project: with what its derivation takes (buildDepsOf), and the
# expressions that it is made of (nixpkgs), as uid 1000, without a network. tests/projects has the
# projects.
#
#   build_deps.sh [SUITE]...
#
# STOWAGE_LONG=yes leaves out each path of more projects, and adds Nix 2.34, whose suite moves from
# day to day, and which counts for nothing.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

projects=(example outputs fixed headers structured chain addressed)

# touch_source PROJECT: the file of a project that a change is made to, and the change.
touched() {
  case $1 in
    example) echo src/crc.c '/* touched */' ;;
    outputs) echo src/main.txt touched ;;
    fixed) echo src/greeting touched ;;
    headers) echo src/answer.c '/* touched */' ;;
    structured) echo src/text touched ;;
    chain) echo src/third touched ;;
    addressed) echo src/text touched ;;
  esac
}

# The projects as somebody has checked them out; debnix's example is beside debnix there.
checkout=$work/projects
cp -r "$repo/tests/projects" "$checkout"
cp -r "$debnix/example" "$checkout/example"
echo 'arguments: import <nixpkgs> arguments' > "$checkout/default.nix"

# nix_build PROJECT ARGUMENT...: here or in a container, by the expression.
# shellcheck disable=SC2016 # the container's shell expands that
nix_build='
  nix_build() {
    case $1 in
      addressed) nix-build "$checkout/$1" --no-out-link --extra-experimental-features ca-derivations "${@:2}" ;;
      example) nix-build "$checkout/example" --no-out-link --arg index "<index>" "${@:2}" ;;
      *) nix-build "$checkout/$1" --no-out-link "${@:2}" ;;
    esac
  }
'
eval "$nix_build"

# sources SUITE: the trees of a suite, as Nix finds them here.
sources() { echo "nixpkgs=$debnix:index=$(index_of "$1")"; }

# with_trees SUITE: the same as arguments.
with_trees() { trees=(--nixpkgs "$debnix" --nixpkgs "index=$(index_of "$1")"); }

# image_for SUITE ARGUMENT...: builds $image of the suite's set ci, with its trees.
image_for() {
  with_trees "$1"
  stowage build "$profile" --name "$image" "${trees[@]}" "${@:2}" --to "docker-daemon:$image" --quiet
}

# inside SCRIPT: runs it in $image as its user, without a network, with the projects in $checkout.
inside() {
  docker run --rm --network=none --volume "$checkout:/projects:ro" "$image" /bin/bash -euc "
    checkout=/tmp/projects
    cp -r /projects \$checkout
    chmod -R u+w \$checkout
    cd /tmp
    $nix_build
    # builds: how many builders have run, by Nix's own log.
    builds() { grep -c \"^building '/nix/store/.*\\.drv'\" \"\$1\" || true; }
    $1"
}

# what_is_built PROJECT: what is new in the store, and what the build says of it; then the same
# after a change.
what_is_built() {
  local file text
  read -r file text <<< "$(touched "$1")"
  inside "
    test \"\$(id -u)\" = 1000
    ls /nix/store > before
    result=\$(nix_build $1 2> log) || { cat log; exit 1; }
    ls /nix/store > after
    echo \"built \$(builds log)\"
    echo \"hash \$(nix-store --query --hash \$result)\"
    echo \"new \$(comm -13 before after | tr '\n' ' ')\"
    echo '$text' >> \$checkout/$1/$file
    touched=\$(nix_build $1 2> log) || { cat log; exit 1; }
    test \"\$touched\" != \"\$result\"
    echo \"then \$(builds log)\"
  " | tee "$work/built"
}

builds_one() {
  what_is_built "$2"
  same 'builders that ran' "$(sed -n 's/^built //p' "$work/built")" 1
  same 'builders that ran after a change' "$(sed -n 's/^then //p' "$work/built")" 1
  same hash "$(sed -n 's/^hash //p' "$work/built")" "$(nix-store --query --hash "$result")"
}

# Another version of Nix writes other derivations for what is fetched.
only_outputs_are_new() {
  sed -n 's/^new //p' "$work/built" | tr ' ' '\n' | grep . > "$work/new"
  cat "$work/new"
  nix-store --query --outputs "$drv" | sed 's|.*/||' | sort > "$work/outputs"
  diff "$work/outputs" "$work/new"
}

# in_image PATH: whether $image has it.
in_image() { docker run --rm --network=none "$image" /bin/sh -c "test -e $1"; }

own_outputs_are_not_there() {
  local output
  for output in $(nix-store --query --outputs "$drv"); do
    fails in_image "$output"
  done
}

# built_here SUITE PROJECT: its first output goes into the file $work/result.
built_here() {
  NIX_PATH=$(sources "$1") nix_build "$2" > "$work/results"
  head -n 1 "$work/results" > "$work/result"
}

try_project() {
  local suite=$1 project=$2
  need "$suite, $project: builds here" built_here "$suite" "$project"
  result=$(cat "$work/result")
  drv=$(nix-store --query --deriver "$result")
  new_image build-deps
  need "$suite, $project: the image is built" image_for "$suite" --build-deps-of "$result"
  check "$suite, $project: its outputs are not in it" own_outputs_are_not_there
  check "$suite, $project: one builder runs, of the same result, and again after a change" builds_one "$suite" "$project"
  # Of content-addressed inputs Nix makes a derivation with what they turned out to be.
  if [ "$suite" = bookworm ] && [ "$project" != addressed ]; then
    check "$suite, $project: nothing is instantiated anew" only_outputs_are_new
  fi
}

# --- What an image has, and has not --------------------------------------------

# Of the library, whose outputs are three, the project names one.
only_named_outputs() {
  docker run --rm --network=none "$image" /bin/sh -c 'ls -d /nix/store/*-library-1.0*' | sed 's|.*-library-1.0||' > "$work/library"
  cat "$work/library"
  diff "$work/library" <(printf '%s\n' -dev .drv | sort)
}

# top_level: the paths that no other path in $image refers to, but for the set itself.
top_level() {
  # shellcheck disable=SC2016 # the container's shell expands that
  docker run --rm --network=none "$image" /bin/bash -euc '
    for path in $(nix-store --query --requisites /nix/var/nix/gcroots/stowage/????????????????????????????????-*); do
      [ "$(nix-store --query --referrers "$path" | grep -cvxF "$path" || true)" != 0 ] || echo "$path"
    done' | grep -vxF "$profile" | sort
}

# image_of PATH...: builds $image, which has these and what they need, and is otherwise the same.
image_of() {
  with_trees bookworm
  trees=()
  for other in $(trees_in_store); do
    # A tree of another name keeps its path, if it is there.
    case " $* " in *" ${other#*=} "*) trees+=(--nixpkgs "$other") ;; esac
  done
  jq --null-input --arg paths "$*" '{config: {Labels: {paths: $paths}}}' > "$work/paths.json"
  stowage build "$profile" --spec "$work/paths.json" --name "$image" "${trees[@]}" --to "docker-daemon:$image" --quiet
}

# trees_in_store: the trees, added to the store by Nix itself.
trees_in_store() {
  local name path
  for tree in "nixpkgs=$debnix" "index=$(index_of bookworm)"; do
    name=${tree%%=*} path=${tree#*=}
    echo "$name=$(nix-instantiate --eval --read-write-mode --expr "builtins.path { path = $path; name = \"source\"; } + \"\"" | tr -d '"')"
  done
}

# leave_out PROJECT PATH: builds the project in an image without the path, and says what is
# otherwise than with it.
leave_out() {
  local project=$1 without=$2 left
  left=$(grep -vxF "$without" "$work/top-level")
  # shellcheck disable=SC2086 # word splitting is meant
  image_of $left
  if ! what_is_built "$project" > "$work/left-out" 2>&1; then
    echo 'the build fails'
  elif [ "$(sed -n 's/^built //p' "$work/left-out")" != 1 ]; then
    echo 'more is built'
  elif [ "$(sed -n 's/^new //p' "$work/left-out" | wc -w)" -gt "$(nix-store --query --outputs "$drv" | wc -l)" ]; then
    echo 'more is instantiated'
  else
    cat "$work/left-out"
    echo 'nothing is missing'
    return 1
  fi > "$work/without"
}

# with_all PROJECT: the image that is made of all of them by hand is no different.
with_all() {
  # shellcheck disable=SC2046 # word splitting is meant
  image_of $(cat "$work/top-level")
  what_is_built "$1"
  same 'builders that ran' "$(sed -n 's/^built //p' "$work/built")" 1
  only_outputs_are_new
}

everything_is_needed() {
  local project=$1 path
  built_here bookworm "$project"
  result=$(cat "$work/result")
  drv=$(nix-store --query --deriver "$result")
  new_image build-deps
  image_for bookworm --build-deps-of "$result"
  top_level > "$work/top-level"
  new_image build-deps
  check "$project: its top-level paths are what it takes" with_all "$project"
  while read -r path; do
    new_image build-deps
    : > "$work/without"
    check "$project: without ${path#*-} it fails or makes more" leave_out "$project" "$path"
    sed 's/^/      | /' "$work/without"
  done < "$work/top-level"
}

# --- What else can be asked for -------------------------------------------------

# build_image ARGUMENT...: builds $image of these alone, with the trees of $suite.
build_image() {
  with_trees "$suite"
  stowage build "$profile" --name "$image" "${trees[@]}" "$@" --to "docker-daemon:$image" --quiet
}

# by KIND: the names of the paths in $image that this has brought in.
by() {
  stowage why "docker-daemon:$image" '*' --json |
    jq --raw-output --arg kind "$1" '.[] | select(.by | index($kind)) | .path | .[44:]' | sort -u
}

every_path_has_a_reason() {
  stowage why "docker-daemon:$image" '*' --json > "$work/why.json"
  same 'paths without a reason' "$(jq '[.[] | select(.by | index("unknown"))] | length' "$work/why.json")" 0
  docker run --rm --network=none "$image" /bin/sh -c 'ls -d /nix/store/*-*' | sort > "$work/there"
  jq --raw-output '.[].path' "$work/why.json" | sort -u | diff - "$work/there"
  by tree | diff - <(echo source)
  by input | grep -x library-1.0-dev > /dev/null
  by derivation | grep -x headers-1.0.drv > /dev/null
  by source | grep -x src > /dev/null
  by contents | grep -x debnix-ci > /dev/null
  fails grep -qx debnix-ci <(by input)
}

# Without derivations the evaluation makes them; the builder runs as before.
without_derivations() {
  build_image --build-deps-of "$result" --without-drvs
  same 'derivations in it' "$(docker run --rm --network=none "$image" /bin/sh -c 'ls -d /nix/store/*.drv 2> /dev/null | wc -l')" 0
  builds_one bookworm headers
}

# Two at once: what both take is there once, and each builds by itself.
two_at_once() {
  build_image --build-deps-of "$result" --build-deps-of "$other"
  inside 'nix_build headers 2> log > /dev/null; builds log; nix_build structured 2> log > /dev/null; builds log' > "$work/counted"
  cat "$work/counted"
  diff "$work/counted" <(printf '1\n1\n')
}

# What it is built from can be built again, by all that it was built from.
all_the_way_down() {
  local again='nix-build "<nixpkgs>" --no-out-link --arg index "<index>" -A jq --check'
  build_image --build-deps-of "$other"
  inside "if $again 2> log; then exit 1; fi; cat log" > "$work/again"
  # What it is made of has to be fetched, from where nothing is.
  grep -q 'unable to download' "$work/again"
  build_image --build-deps-of "$other" --depth all
  inside "$again 2> log || { cat log; exit 1; }; grep 'checking outputs of' log"
  result=$other
  builds_one bookworm structured
}

# The third of a chain, with what all three take: a change to the first runs three builders.
a_chain_from_its_first() {
  build_image --build-deps-of "$third" --depth all
  inside 'echo touched >> $checkout/chain/src/first; nix_build chain 2> log; builds log' > "$work/three"
  same 'builders that ran' "$(tail -n 1 "$work/three")" 3
}

# On a parent that has Nix and the trees, an image adds what the project takes.
on_a_parent() {
  with_trees bookworm
  stowage build "$profile" --name tools "${trees[@]}" --to "oci:$work/tools:1" --quiet
  stowage build --from "oci:$work/tools:1" --name "$image" --build-deps-of "$result" --to "docker-daemon:$image" --quiet
  builds_one bookworm headers
  # What the parent knows of content-addressed outputs, the image knows.
  result=$addressed
  stowage build "$profile" --name tools "${trees[@]}" --build-deps-of "$addressed" --to "oci:$work/tools:2" --quiet
  stowage build --from "oci:$work/tools:2" --name "$image" "$other" --to "docker-daemon:$image" --quiet
  builds_one bookworm addressed
}

# A spec says the same as the command line, and so does a tree that Nix has in its store.
the_same_image() {
  local digest=$work/digest spec=$work/same.json index nixpkgs
  index=$(index_of bookworm)
  with_trees bookworm
  stowage build "$profile" --name same "${trees[@]}" --build-deps-of "$result" --to "oci:$work/same-image" --digest-file "$digest" --quiet
  jq --null-input --arg of "$result" --arg nixpkgs "$debnix" --arg index "$index" \
    '{name: "same", buildDepsOf: {of: [$of]}, nixpkgs: {nixpkgs: $nixpkgs, index: $index}}' > "$spec"
  stowage build "$profile" --spec "$spec" --to "oci:$work/same-image-by-spec" --digest-file "$digest.spec" --quiet
  same digest "$(cat "$digest.spec")" "$(cat "$digest")"
  # As another user, whose machine remembers nothing, from what Nix has copied.
  trees=()
  for nixpkgs in $(trees_in_store); do trees+=(--nixpkgs "$nixpkgs"); done
  install -d -o nobody "$work/nobody"
  setpriv --reuid=nobody --clear-groups env HOME="$work/nobody" XDG_CACHE_HOME="$work/nobody/cache" "$program" build "$profile" \
    --name same "${trees[@]}" --build-deps-of "$drv" --to "oci:$work/nobody/image" --digest-file "$work/nobody/digest" --quiet
  same digest "$(cat "$work/nobody/digest")" "$(cat "$digest")"
}

# Of a bump, layers of stable paths are not sent.
a_bump_sends_no_stable_path() {
  local tree=$work/bump
  cp -r "$debnix" "$tree"
  index=$(index_of bookworm)
  stowage build "$profile" --name bump --nixpkgs "$tree" --nixpkgs "index=$index" --build-deps-of "$result" --to "oci:$work/bumps:old" --quiet
  echo '# bumped' >> "$tree/README.md"
  # A derivation of another source: its own, and nothing that it takes.
  bumped=$(cd "$checkout" && cp -r headers bumped && echo '/* bumped */' >> bumped/src/answer.c &&
    NIX_PATH=$(sources bookworm) nix-build bumped --no-out-link 2> /dev/null)
  stowage build "$profile" --name bump --nixpkgs "$tree" --nixpkgs "index=$index" --build-deps-of "$bumped" --to "oci:$work/bumps:new" --quiet
  for tag in old new; do
    stowage inspect --json "oci:$work/bumps:$tag" | jq --raw-output '.layers[] | "\(.diffId) \(.comment)"' | sort > "$work/$tag.layers"
  done
  comm -13 "$work/old.layers" "$work/new.layers" > "$work/sent"
  cut -c 1-200 "$work/sent"
  same 'layers that are sent' "$(wc -l < "$work/sent")" 3
}

# A flake, and what is in it: not Git's folder, nor what is left out.
trees_are_found() {
  local tree=$work/tree
  mkdir -p "$tree/.git" "$tree/doc"
  echo '{ outputs = { self }: { answer = 42; }; }' > "$tree/flake.nix"
  echo '{ answer = 43; }' > "$tree/default.nix"
  echo 44 > "$work/file.nix"
  stowage build "$profile" --name "$image" --nixpkgs "$tree" --nixpkgs "file=$work/file.nix" --exclude /doc \
    --to "docker-daemon:$image" --quiet
  # shellcheck disable=SC2016 # the container's shell expands that
  docker run --rm --network=none "$image" /bin/sh -euc '
    nix-instantiate --eval --expr "(import <nixpkgs>).answer"
    nix-instantiate --eval --expr "import <file>"
    nix eval nixpkgs#answer
    mkdir /tmp/own
    echo "{ inputs.nixpkgs.url = \"nixpkgs\"; outputs = { self, nixpkgs }: { x = nixpkgs.answer; }; }" > /tmp/own/flake.nix
    nix eval /tmp/own#x
    ls -A "$(nix-instantiate --find-file nixpkgs)"
    nix-store --verify --check-contents
  ' 2> "$work/found.log" > "$work/found" || { cat "$work/found.log"; return 1; }
  diff "$work/found" <(printf '%s\n' 43 44 42 42 default.nix flake.nix)
}

# An image folder has what it was made of, whatever becomes of that.
an_image_folder_keeps_its_trees() {
  local tree=$work/kept
  mkdir "$tree"
  echo 1 > "$tree/default.nix"
  stowage build "$profile" --name "$image" --nixpkgs "$tree" --to "stowage:$work/folder" --quiet
  rm -r "$tree"
  stowage copy "stowage:$work/folder" "docker-daemon:$image" --quiet
  same value "$(docker run --rm --network=none "$image" nix-instantiate --eval --expr 'import <nixpkgs>')" 1
}

# An image whose store is put into a cache builds there, and keeps the roots of this image only.
in_a_cache_store() {
  local store=$work/cache-store
  install -d -o 1000 -g 1000 "$store"
  echo '{ "cacheStore": "/builds/project/cache" }' > "$work/cache-store.json"
  build_in() {
    docker run --rm --network=none --volume "$checkout:/projects:ro" --volume "$store:/builds/project" "$image" \
      /bin/bash -euc "nix-build /projects/$1 --no-out-link --extra-experimental-features ca-derivations \
        2> /tmp/log > /dev/null || { cat /tmp/log; exit 1; }
        grep -c '^building .*\.drv' /tmp/log; ls /nix/var/nix/gcroots/stowage"
  }
  build_image --build-deps-of "$result" --spec "$work/cache-store.json"
  build_in headers > "$work/in-store"
  cat "$work/in-store"
  same 'builders that ran' "$(head -n 1 "$work/in-store")" 1
  grep -qx inputs-of "$work/in-store"
  # Of another image the roots are gone.
  build_image --build-deps-of "$addressed" --spec "$work/cache-store.json"
  build_in addressed > "$work/in-store"
  same 'builders that ran' "$(head -n 1 "$work/in-store")" 1
  find "$store/cache/nix/var/nix/gcroots/stowage/inputs-of" -type l -path '*headers*' > "$work/old-roots"
  test ! -s "$work/old-roots"
}

# An image is not put where it would be part of the next one.
not_into_its_own_tree() {
  mkdir "$work/within"
  echo 1 > "$work/within/default.nix"
  (
    cd "$work/within"
    refused 'is in the source tree' stowage build "$profile" --nixpkgs .
    refused 'is in the source tree' stowage build "$profile" --nixpkgs . --to oci:new/image
    refused 'is in the source tree' stowage build "$profile" --nixpkgs . --to "oci:$work/outside" --digest-file digest
    stowage build "$profile" --nixpkgs . --exclude /image --quiet
    stowage build "$profile" --nixpkgs . --exclude /image --quiet --digest-file "$work/within.digest"
    stowage build "$profile" --nixpkgs "$work/within" --exclude /image --to "oci:$work/outside" --quiet --digest-file "$work/outside.digest"
  )
  same digest "$(cat "$work/within.digest")" "$(cat "$work/outside.digest")"
}

# The database of an image names derivers, whoever has built the paths here.
derivers_are_known() {
  local path
  for path in $(nix-store --query --references "$drv" | grep 'library-1.0.drv$'); do
    inside "nix-store --query --deriver \$(nix-store --query --outputs $path | grep dev\$)" > "$work/deriver"
    same deriver "$(cat "$work/deriver")" "$path"
  done
}

try_the_rest() {
  suite=bookworm
  for project in structured chain addressed headers; do
    built_here bookworm "$project"
    cp "$work/result" "$work/$project"
  done
  other=$(cat "$work/structured") third=$(cat "$work/chain") addressed=$(cat "$work/addressed") result=$(cat "$work/headers")
  drv=$(nix-store --query --deriver "$result")
  new_image build-deps
  need 'an image for headers' build_image --build-deps-of "$result"
  check 'why tells of each path what has brought it in' every_path_has_a_reason
  check 'derivers are in the database' derivers_are_known
  for name in without_derivations two_at_once all_the_way_down a_chain_from_its_first on_a_parent the_same_image \
    a_bump_sends_no_stable_path an_image_folder_keeps_its_trees in_a_cache_store not_into_its_own_tree; do
    new_image build-deps
    check "${name//_/ }" "$name"
  done
}

# Of a derivation that another derivation makes, the output is what is needed. Nix 2.26 builds such
# things step by step only, as the command says that brings what is missing.
what_others_make() {
  local dir=$work/dynamic missing
  mkdir -p "$dir/conf"
  cat > "$dir/conf/nix.conf" <<'CONF'
sandbox = false
substituters =
build-users-group =
experimental-features = nix-command ca-derivations dynamic-derivations
CONF
  cat > "$dir/default.nix" <<'NIX'
let
  build = name: script: attributes: derivation ({
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-ec" script ];
  } // attributes);
  made = build "made" "echo made > $out" { };
  maker = build "made.drv" "cp ${builtins.unsafeDiscardOutputDependency made.drvPath} $out" {
    __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256";
  };
in build "top" "cat $made > $out" { made = builtins.outputOf maker.outPath "out"; }
NIX
  export NIX_STORE_DIR=$dir/store NIX_STATE_DIR=$dir/var NIX_LOG_DIR=$dir/log NIX_CONF_DIR=$dir/conf
  top=$("$profile/bin/nix-instantiate" "$dir")
  grep -q '^DrvWithVersion("xp-dyn-drv"' "$top"
  # First the derivation, then what it makes.
  for _ in 1 2; do
    fails stowage plan --build-deps-of "$top" 2> "$work/missing"
    cat "$work/missing"
    missing=$(sed -n 's/^build or fetch with: nix-store //p' "$work/missing")
    eval "$profile/bin/nix-store $missing"
  done
  stowage plan --build-deps-of "$top" --json | jq --raw-output '.layers[].paths[]' | sed 's|.*/[^-]*-||' | sort > "$work/made"
  diff "$work/made" <(printf '%s\n' made made.drv made.drv.drv top.drv)
}

# try_suite SUITE
try_suite() {
  suite=$1
  need "$suite: the index" get "$suite" ci stdenv project
  profile=$(debnix "$suite" sets.ci)
  for project in "${projects[@]}"; do
    try_project "$suite" "$project"
    if [ "$suite $project" = 'bookworm headers' ]; then
      check 'only the outputs that are named are in it' only_named_outputs
    fi
  done
  new_image build-deps
  check "$suite: source trees are found, by NIX_PATH and as flakes" trees_are_found
}

# try_sid: Nix 2.34 comes from a suite that may be broken today, so it is told how it went.
try_sid() {
  local counts=$work/sid-counts
  get_moving sid ci stdenv project || return 0
  if STOWAGE_COUNTS=$counts "$0" sid; then
    echo 'sid: passed, which does not count'
  else
    echo 'sid: failed, which does not count'
  fi
}

if [ $# -gt 0 ]; then
  for suite; do try_suite "$suite"; done
  exit
fi
try_suite bookworm
try_the_rest
everything_is_needed headers
if [ -n "${STOWAGE_LONG-}" ]; then
  for project in example structured chain; do everything_is_needed "$project"; done
fi
try_suite trixie
check 'trixie: what derivations take that others make is found' what_others_make
[ -z "${STOWAGE_LONG-}" ] || try_sid
