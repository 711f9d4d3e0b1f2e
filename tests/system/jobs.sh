#!/bin/bash
# CI jobs: the first builds debnix's example in a container, and the hook fills
# ./cache; the second, in a fresh container, builds nothing.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

command='nix-build /debnix/example --arg index /index.json --argstr debs /debs'

# In the end it notes what has been built, since only this store knows.
first_job() {
  in_job "$suite" "$project" "
    $command 2> first.log || { cat first.log; exit 1; }
    stowage cache wait ./cache
    sed -n \"s/^building '\\(.*\\.drv\\)'.*/\\1/p\" first.log | xargs nix-store --query --outputs | sort > built"
}

has_built() {
  echo "$(builds "$project/first.log") builds"
  test "$(builds "$project/first.log")" -gt 50
  test -z "$(copies "$project/first.log")"
}

cache_has_all() {
  same 'number of builds' "$(builds "$project/first.log")" "$(grep -c . "$project/built")"
  sed -n 's/^StorePath: //p' "$project"/cache/*.narinfo | sort > "$work/cached"
  comm -23 "$project/built" "$work/cached" > "$work/missing"
  cat "$work/missing"
  test ! -s "$work/missing"
}

cache_is_right() {
  nix --extra-experimental-features nix-command store verify --store "file://$project/cache" --all --no-trust
  test -z "$(find "$project/cache" ! -uid 1000)"
}

second_job() {
  in_job "$suite" "$project" "eval \"\$(stowage env ./cache)\"; $command; printf debnix | ./result/bin/crc" > "$work/second.out" 2> "$work/second.log"
  same 'what the program prints' 4af2e490 "$(tail -n 1 "$work/second.out")"
}

has_built_nothing() {
  same builds 0 "$(builds "$work/second.log")"
  copies "$work/second.log"
  all_from_cache "$work/second.log"
}

# all_from_cache LOG: some paths are copied, and from nowhere else.
all_from_cache() {
  copies "$1" | grep -E '^[1-9][0-9]* copied from file:///project/cache' > /dev/null
  test "$(copies "$1" | wc -l)" = 1
}

# Another program of the same sources needs the compiler, and all that.
other_project() {
  cat > "$project/other.nix" <<'NIX'
let debnix = import /debnix { index = /index.json; debs = "/debs"; };
in debnix.mkDerivation {
  name = "other-1.0";
  src = /debnix/example/src;
  buildInputs = [ debnix.pkgs.gcc debnix.pkgs.make debnix.pkgs.zlib1g-dev ];
  buildCommand = ''
    make SHELL="$BASH" crc
    install -D crc "$out/bin/other"
  '';
}
NIX
  # shellcheck disable=SC2016 # for the shell in the container
  in_job "$suite" "$project" 'eval "$(stowage env ./cache)"; nix-build other.nix; printf debnix | ./result/bin/other' > "$work/third.out" 2> "$work/third.log"
  same 'what the program prints' 4af2e490 "$(tail -n 1 "$work/third.out")"
  copies "$work/third.log"
  same builds 1 "$(builds "$work/third.log")"
  all_from_cache "$work/third.log"
}

# With no cache the second job would have had to build.
without_cache_it_builds() {
  in_job "$suite" "$work/empty" "$command --dry-run" > "$work/empty.out" 2> "$work/empty.log"
  grep 'will be built' "$work/empty.log"
}

for suite in ${SUITES:-bookworm trixie}; do
  need "$suite: the index" get "$suite" ci stdenv project
  spec "$(debnix "$suite" sets.ci)" '{"hook": true}' > "$work/$suite.json"
  nix-instantiate "$debnix/example" --arg index "$(index_of "$suite")" --quiet > "$work/drv" 2> /dev/null
  new_image "jobs-$suite"
  need "$suite: the image loads" load "$work/$suite.json"
  project=$work/project-$suite
  install -d -o 1000 -g 1000 "$project" "$work/empty"
  need "$suite: job 1 builds the example" first_job
  check "$suite: job 1 built it from its sources" has_built
  check "$suite: all it built is in ./cache" cache_has_all
  check "$suite: Nix finds ./cache right, and the user's own" cache_is_right
  need "$suite: job 2 builds the example, and it runs" second_job
  check "$suite: job 2 built nothing, and took all from ./cache" has_built_nothing
  check "$suite: job 3, of another project, builds that alone" other_project
  check "$suite: without ./cache it would have built" without_cache_it_builds
done
