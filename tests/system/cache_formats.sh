#!/bin/bash
# The binary cache as Nix has it: what stowage writes, Nix 2.8 and 2.26 read and
# believe, in every compression.  What Nix writes is in round_trip.sh.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"
unset STOWAGE_SECRET_KEY

# --- What is exported, and who reads it ---------------------------------------

# Two paths, the second refers to the first, that were built here: there are logs.
chain() {
  nix-build --no-out-link --quiet --expr "
    let debnix = import $debnix { index = $(index_of bookworm); };
      make = name: more: derivation {
        inherit name; system = \"x86_64-linux\"; builder = \"\${debnix.busybox}/bin/sh\";
        args = [ \"-c\" ''
          PATH=\${debnix.busybox}/bin; echo building \${name}
          mkdir -p \$out/bin \$out/empty \"\$out/a b\"; echo \${name} \${more} > \$out/bin/x; chmod +x \$out/bin/x
          ln -s ../bin/x \"\$out/a b/link\"; printf 1234567 > \"\$out/a b/we\\\"ird\"; : > \$out/zero
        '' ];
      };
    in make \"chain-b\" (make \"chain-a\" \"\")" 2> /dev/null
}

get bookworm small
get trixie ci
small=$(debnix bookworm sets.small)
chain=$(chain)
# shellcheck disable=SC2034 # nix_of names them
old=$(command -v nix) new=$(debnix trixie sets.ci)/bin/nix
for name in key-1 key-2 stranger; do new_key "$name"; done
nix-store --query --requisites "$small" | sort > "$work/small.paths"

# --- Nix reads what stowage wrote -----------------------------------------------

# nix_reads WHICH CACHE: into an empty store that asks for signatures.
nix_reads() {
  local store which=$1 cache=$2
  store=$(fresh store)
  believing key-1
  nix_of "$which" "${trust[@]}" copy --from "file://$cache" --to "$store" "$small"
  nix_of "$which" "${trust[@]}" store verify --store "$store" --recursive --sigs-needed 1 "$small"
  nix_of "$which" path-info --store "file://$cache" --recursive "$small" | sort > "$work/closure"
  diff "$work/small.paths" "$work/closure"
  nix_of "$which" path-info --store "file://$cache" --all | sort > "$work/all"
  diff "$work/small.paths" "$work/all"
}

nix_refuses_strangers() {
  local which=$1 cache=$2
  believing stranger
  fails nix_of "$which" "${trust[@]}" copy --from "file://$cache" --to "$(fresh store)" "$small"
}

for form in none zstd xz:0; do
  cache=$work/cache-$form
  check "$form: the small set is exported and signed" \
    stowage cache add "$cache" "$small" --compress "$form" --secret-key-file "$work/key-1" --quiet
  for which in old new; do
    version=$("${!which}" --version)
    check "$form: $version takes it into an empty store, where it is clean" nix_reads "$which" "$cache"
    check "$form: $version believes nobody else" nix_refuses_strangers "$which" "$cache"
  done
done

# --- Byte for byte -----------------------------------------------------------------

signatures_are_those_of_nix() {
  local file
  old_copy "?compression=none&secret-key=$work/key-1" "$1"
  for file in "$work/nix"/*.narinfo; do
    diff <(grep ^Sig: "$file") <(grep ^Sig: "$work/cache-none/$(basename "$file")")
  done
}

# old_copy PARAMETERS PATH: into the new folder $work/nix.
old_copy() {
  rm -rf "$work/nix"
  nix_of old copy --to "file://$work/nix$1" "$2"
}

listings_are_those_of_nix() {
  local path file
  for path in "$small" "$chain"; do
    old_copy '?compression=none&write-nar-listing=1' "$path"
    # Of what was there before, too.
    stowage cache add "$work/cache-none" "$path" --listing --compress none --quiet
    for file in "$work/nix"/*.ls "$work/nix"/nar/*; do
      cmp "$file" "$work/cache-none/${file#"$work/nix/"}"
    done
  done
}

# Nix finds a file in a NAR by the listing.
nix_lists() {
  nix_of old store ls --store "file://$work/cache-none" --recursive "$chain" > "$work/listed"
  grep -F 'a b/link' "$work/listed"
  same file "$(cat "$chain/bin/x")" "$(nix_of old store cat --store "file://$work/cache-none" "$chain/bin/x")"
}

logs_are_there() {
  local path which cache=$work/cache-logs
  stowage cache add "$cache" "$chain" --quiet
  same "logs unasked" 0 "$(find "$cache/log" -type f | wc -l)"
  stowage cache add "$cache" "$chain" --logs --quiet
  for path in $(nix-store --query --requisites "$chain"); do
    for which in old new; do
      same log "building ${path#*-}" "$(nix_of "$which" log --store "file://$cache" "$path")"
    done
  done
}

check 'signatures are those that Nix writes' signatures_are_those_of_nix "$small"
check 'listings, and NARs that are not compressed, are those that Nix writes' listings_are_those_of_nix
check 'Nix lists and reads single files' nix_lists
check 'logs are in the cache, and both generations show them' logs_are_there

# --- Other compressions ------------------------------------------------------------------

other_forms_count_as_there() {
  local form
  for form in none zstd:9 xz; do
    same added 0 "$(stowage cache add "$work/cache-zstd" "$small" --compress "$form" --json | jq .added)"
  done
  same files "$(find "$work/cache-zstd/nar" -type f | wc -l)" "$(find "$work/cache-zstd/nar" -name '*.nar.zst' | wc -l)"
  # A NAR that lost its narinfo is found in whatever form it has.
  rm "$work"/cache-zstd/*.narinfo
  stowage cache add "$work/cache-zstd" "$small" --compress none --quiet
  same 'files that are not compressed' 0 "$(find "$work/cache-zstd/nar" -name '*.nar' | wc -l)"
  nix_of old path-info --store "file://$work/cache-zstd" --recursive "$small" | sort | diff "$work/small.paths" -
}
check 'what is there in one compression counts as there in each' other_forms_count_as_there

# --- Keys ------------------------------------------------------------------------------

two_keys_sign() {
  local cache=$work/cache-two before
  stowage cache add "$cache" "$chain" --quiet
  before=$(snapshot "$cache/nar")
  STOWAGE_SECRET_KEY="$(cat "$work/key-1")
$(cat "$work/key-2")" stowage cache add "$cache" "$chain" --json > "$work/json"
  same signed 2 "$(jq .signed "$work/json")"
  same 'the NARs' "$before" "$(snapshot "$cache/nar")"
  believing key-1 key-2
  nix_of old "${trust[@]}" copy --from "file://$cache" --to "$work/two" "$chain"
  nix_of old "${trust[@]}" store verify --store "$work/two" --recursive --sigs-needed 2 "$chain"
  before=$(snapshot "$cache")
  stowage cache add "$cache" "$chain" --secret-key-file "$work/key-2" --secret-key-file "$work/key-1" --quiet
  same 'a cache in which all is signed' "$before" "$(snapshot "$cache")"
}

snapshot() { find "$1" -printf '%p %i %T@ %s\n' | sort; }

# Whoever can write the cache must not get our name under what is not ours.
strangers_contents_are_not_signed() {
  local cache=$work/cache-forged narinfo hash
  stowage cache add "$cache" "$chain" --quiet
  narinfo=$cache/$(basename "$chain" | cut -c 1-32).narinfo
  hash=$(grep ^NarHash: "$narinfo")
  sed -i 's/^NarHash: .*/NarHash: sha256:05shsc68ywd7zgjqqcmkl3ig1c5yldkxdqcxi222aw9dg6z2wk2a/' "$narinfo"
  stowage cache add "$cache" "$chain" --secret-key-file "$work/key-1" --quiet
  same hash "$hash" "$(grep ^NarHash: "$narinfo")"
  grep ^Sig: "$narinfo"
}

# Signatures of the database come along.
signatures_stay() {
  local store=$work/signed-store
  believing key-1
  nix_of old "${trust[@]}" copy --from "file://$work/cache-none" --to "$store" "$small"
  stowage cache add "$work/cache-stay" "$small" --store "$store" --secret-key-file "$work/key-2" --quiet
  same 'keys' "$(printf 'key-1\nkey-2')" "$(cat "$work"/cache-stay/*.narinfo | sed -n 's/^Sig: \(.*\):.*/\1/p' | sort -u)"
}

keys_are_nowhere() {
  local key
  for key in key-1 key-2; do
    key=$(cut -d : -f 2 "$work/$key" | cut -c 1-20)
    if grep -rqF "$key" "$work"/cache-* "$work/warning" "$work/error"; then return 1; fi
  done
}

readable_keys_are_warned_of() {
  chmod 600 "$work/key-1"
  stowage cache add "$work/cache-warn" "$chain" --secret-key-file "$work/key-1" 2> "$work/warning"
  test ! -s "$work/warning"
  chmod 640 "$work/key-1"
  stowage cache add "$work/cache-warn" "$chain" --secret-key-file "$work/key-1" 2> "$work/warning"
  grep -F 'chmod 600' "$work/warning"
  chmod 600 "$work/key-1"
}

wrong_keys_are_refused() {
  refused 'it is a public key' stowage cache add "$work/cache-wrong" "$chain" --secret-key-file "$work/key-1.pub"
  STOWAGE_SECRET_KEY="$(cat "$work/key-1") $(cut -c 1-40 "$work/key-2")" \
    refused 'key 2 in STOWAGE_SECRET_KEY' stowage cache add "$work/cache-wrong" "$chain"
  test ! -e "$work/cache-wrong"
}

check 'two keys from the environment sign what is there, once' two_keys_sign
check 'what is not ours is not signed' strangers_contents_are_not_signed
check 'signatures of the database stay' signatures_stay
check 'a key that others may read gives a warning' readable_keys_are_warned_of
check 'what is no secret key is refused before anything is written' wrong_keys_are_refused
check 'no key is in a cache or a message' keys_are_nowhere

# --- Content-addressed derivations ---------------------------------------------------------

# ca_nix OPTION...: Nix 2.8 with a store of its own, that may be empty.
ca_nix() {
  NIX_STORE_DIR=$work/ca/store NIX_STATE_DIR=$work/ca/var NIX_LOG_DIR=$work/ca/log NIX_REMOTE='' \
    NIX_CONFIG='experimental-features = nix-command ca-derivations
build-users-group =
sandbox = false' "$@"
}

realisations_are_those_of_nix() {
  local first again
  mkdir "$work/ca"
  cat > "$work/ca.nix" <<'NIX'
    let make = name: more: derivation {
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
      __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
      args = [ "-c" "mkdir -p $out; echo ${name} ${more} > $out/x" ];
    };
    in make "ca-b" (make "ca-a" "")
NIX
  first=$(ca_nix nix-build "$work/ca.nix" --no-out-link --option substituters '')
  ca_nix nix copy --to "file://$work/ca-nix" --file "$work/ca.nix"
  ca_nix "$program" cache add "$work/ca-plain" "$first" --quiet
  for file in "$work"/ca-nix/realisations/*; do cmp "$file" "$work/ca-plain/realisations/$(basename "$file")"; done
  ca_nix "$program" cache add "$work/cache-ca" "$first" --secret-key-file "$work/key-1" --quiet
  chmod -R u+w "$work/ca"
  rm -rf "$work/ca"
  mkdir "$work/ca"
  believing key-1
  again=$(ca_nix nix-build "$work/ca.nix" --no-out-link "${trust[@]}" --option substituters "file://$work/cache-ca" \
    --option max-jobs 0)
  same output "$first" "$again"
}
check 'realisations are those of Nix, which builds nothing again' realisations_are_those_of_nix

# --- nix-cache-info -----------------------------------------------------------------------

priority_is_set() {
  local cache=$work/cache-priority
  stowage cache add "$cache" "$chain" --priority 50 --quiet
  same info "$(printf 'StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 50')" "$(cat "$cache/nix-cache-info")"
  stowage cache add "$cache" "$chain" --quiet
  grep -x 'Priority: 50' "$cache/nix-cache-info"
  test -d "$cache/realisations" && test -d "$cache/build-trace-v2"
}
check 'the priority is set, and stays' priority_is_set
