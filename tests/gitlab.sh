# shellcheck shell=bash disable=SC2034,SC2154,SC2164 # others set and use what is here
# What tests of GitLab's jobs share: a project, and the runner's part. To be sourced after lib.sh.

pipeline=$repo/hooks/gitlab-ci.yml
runner=${RUNNER:-$repo/tests/system/runner}
export CACHE_COMPRESSION_LEVEL=fastest
formats='legacy fastzip tarzstd'

# A project: a chain of a dozen, and a program of its own source.
write_project() {
  cat > default.nix << 'NIX'
let
  make = name: script: derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/bin";
    args = [ "-c" script ];
  };
  chain = i: make "part-${toString i}" ''
    mkdir $out; seq ${toString i} 4000 > $out/numbers
    echo ${if i == 0 then "end" else chain (i - 1)} > $out/before
  '';
in make "program" "mkdir $out; cp ${./source.txt} $out/program; ln -s ${chain 11} $out/chain"
NIX
  echo "${1-one}" > source.txt
}

# clone PROJECT [SOURCE]: as the runner's helper does it, as root and without an umask, in a
# place of its own or where an earlier job was, which it cleans.
clone() {
  (
    umask 0
    rm -rf "$1"
    mkdir -p "$1"
    cd "$1"
    write_project "${2-}"
  )
}

# restore PROJECT FORMAT FILE
restore() { (cd "$1" && "$runner" extract "$2" "$3"); }

# pack PROJECT FORMAT FILE: prints what the runner says.
pack() {
  # In a tar, times are rounded: what was written in the last half second is newer, once
  # restored, than an archive that was made at once; and the runner then makes one more.
  [ "$2" != tarzstd ] || [ -e "$3" ] || sleep 1
  (umask 0; cd "$1" && "$runner" archive "$2" "$3" cache/)
}

# section NAME...: these sections of the pipeline's job, as one script.
section() {
  local name
  for name; do
    # shellcheck disable=SC2016 # for jq
    yq --raw-output --arg name "$name" '(.default + .[.build.extends] + .build)[$name][]' "$pipeline"
  done
}

# job PROJECT LOG: in one container, before_script and script in one shell, and after_script in
# another, whatever becomes of the first.  LOG gets what Nix says.
job() {
  run_job "$1" > "$2" 2>&1 || { cat "$2"; return 1; }
}

run_job() {
  docker run --rm ${container:+--name "$container"} --network=none --volume "$1:/builds/group/project" \
    --workdir /builds/group/project --env CI=true --env GITLAB_CI=true --env CI_PROJECT_DIR=/builds/group/project \
    ${variables[@]+"${variables[@]}"} ${options[@]+"${options[@]}"} "$image" \
    /bin/sh -c 'status=0; sh -e -c "$1" || status=$?; sh -e -c "$2" || status=$?
      cat result/program > result.txt; exit "$status"' \
    job "$(section before_script script)" "$(section after_script)"
}

# The archive of each format.
archive_of() { echo "$work/$1-${2:-first}.archive"; }

# in_result PROJECT: what the last job built.
in_result() { cat "$1/result.txt"; }

# built N LOG: so many builds, and nothing wrong.
built() {
  cat "$2"
  same builds "$1" "$(builds "$2")"
  fails grep -iE 'warning|error|quarantine[^d]' "$2"
}
