# The images of dockerTools' tests, in Docker; to be sourced after lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154

cases=$repo/tests/nix/cases.nix
# What cases.nix is to know of an image that is pulled.
pulled='{ }'

of_cases() {
  "$1" "$cases" --arg index "$(index_of bookworm)" --arg stowage "$program" --arg pulled "$pulled" "${@:2}"
}

# case_output ATTRIBUTE: builds it, prints the store path.
case_output() { of_cases nix-build --no-out-link --attr "$1"; }

# case_value ATTRIBUTE: as JSON, or the text that it is.
case_value() { of_cases nix-instantiate --eval --strict --json --attr "$1" | jq --raw-output .; }

# ref IMAGE: what it is called in Docker.
ref() { jq --exit-status --raw-output --arg name "$1" '.[$name]' "$work/names"; }

# loaded IMAGE...: has Docker load what their scripts write.
loaded() {
  local name stream
  for name; do
    stream=$(case_output "images.$name.stream")
    # Another image of that name must not do.
    docker image rm --force "$(ref "$name")" > /dev/null 2>&1
    "$stream" | docker load
  done
}

# in_image IMAGE [COMMAND...]: runs it, or a command in it.
in_image() {
  local name
  name=$(ref "$1")
  docker run --rm --network=none "$name" "${@:2}"
}

# of_image IMAGE FILTER: what Docker knows of it, by jq.
of_image() { docker image inspect "$(ref "$1")" | jq --raw-output --exit-status ".[0] | $2"; }

layers_of() { of_image "$1" '.RootFS.Layers[]' | sort; }

says_hello() { grep -x 'Hello, world!'; }

runs_hello() {
  loaded "$1"
  in_image "$1" | says_hello
}

get bookworm ci images
case_value names > "$work/names"
# What goes in the end. None of these is of anybody else.
mapfile -t images < <(jq --raw-output '.[]' "$work/names")
