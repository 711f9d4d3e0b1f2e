# The functions in nix/, in tests; to be sourced after lib.sh.
# shellcheck shell=bash disable=SC2154

# nix_of SUITE ATTRIBUTE ARGUMENT...: builds something of tests/nix/default.nix, prints the store path.
nix_of() {
  nix-build "$repo/tests/nix" --arg index "$(index_of "$1")" --arg stowage "$program" -A "$2" --no-out-link "${@:3}"
}

# nix_expression SUITE EXPRESSION ARGUMENT...: likewise of an expression that sees all of it.
nix_expression() {
  nix-build --no-out-link --expr "
    let all = import $repo/tests/nix { index = $(index_of "$1"); stowage = $program; };
    in with all; with tools; $2" "${@:3}"
}

# digest_of FOLDER: the manifest's digest of an image folder.
digest_of() { stowage inspect "stowage:$1" --json | jq --raw-output .digest; }

# system_layer FOLDER: the file of an image folder's top layer.
system_layer() {
  local digest
  digest=$(jq --raw-output '.layers[-1].diffId' "$1/stowage.json")
  echo "$1/blobs/sha256/${digest#sha256:}"
}

# load_image PATH: loads what a function gave into Docker, as $image.
load_image() {
  stowage copy --quiet "stowage:$1" "docker-daemon:$image"
}
