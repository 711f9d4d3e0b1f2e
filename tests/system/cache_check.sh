#!/bin/bash
# Damaged and shrunk caches: after `stowage cache check`, no nix-build fails or
# gets wrong contents; `stowage cache gc` loses no path that another needs; and a
# cache in which nothing changes keeps every time.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

count=60
[ -z "${STOWAGE_LONG-}" ] || count=2000

# A store of its own.
export NIX_STORE_DIR=$work/store NIX_STATE_DIR=$work/var NIX_LOG_DIR=$work/nix-log NIX_CONF_DIR=$work/conf
mkdir "$work/conf"
printf '%s\n' 'sandbox = false' 'substituters =' 'build-users-group =' 'require-sigs = false' \
  'experimental-features = nix-command' > "$work/conf/nix.conf"

# damaged: two at a time, each with stores of its own.
damaged() {
  local status=0 first
  for first in 1 2; do
    mkdir -p "$work/damage-$first"
  done
  env -u NIX_STORE_DIR -u NIX_STATE_DIR -u NIX_LOG_DIR -u NIX_CONF_DIR \
    "$repo/tests/system/damage" "$program" "$work/damage-1" 1 "$((count / 2))" &
  started "$!"
  env -u NIX_STORE_DIR -u NIX_STATE_DIR -u NIX_LOG_DIR -u NIX_CONF_DIR \
    "$repo/tests/system/damage" "$program" "$work/damage-2" "$((count / 2 + 1))" "$count" || status=1
  wait "$!" || status=1
  return "$status"
}

# 500 paths: 100 chains of 5, each on one of 10 that all share.
build() {
  cat > "$work/many.nix" <<'NIX'
let
  mk = name: needs: derivation {
    inherit name needs;
    system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "echo ${name} $needs > $out; head -c 3000 /dev/urandom >> $out" ];
  };
  count = n: builtins.genList (i: i) n;
  base = map (i: mk "base-${toString i}" [ ]) (count 10);
  chain = i: builtins.foldl' (below: level: mk "chain-${toString i}-${toString level}" [ below ])
    (builtins.elemAt base (i - i / 10 * 10)) (count 5);
in map chain (count 98)
NIX
  nix-build --no-out-link "$work/many.nix" --max-jobs 4 > "$work/roots" 2> "$work/build.log" || { tail "$work/build.log"; return 1; }
  xargs "$program" cache add "$work/cache" < "$work/roots"
  same paths 500 "$(paths "$work/cache")"
}

paths() { find "$1" -maxdepth 1 -name '*.narinfo' | wc -l; }

times() { find "$1" -printf '%p %T@ %i\n' | sort | sha256sum; }

untouched() {
  local before
  before=$(times "$work/cache")
  xargs "$program" cache add "$work/cache" < "$work/roots"
  stowage cache check "$work/cache"
  stowage cache check "$work/cache" --deep
  stowage cache info "$work/cache"
  stowage cache gc "$work/cache" --max-size 1G --keep-days 30
  same times "$before" "$(times "$work/cache")"
}

# Well below a second, when files are at hand.
fast() {
  local start
  start=$(date +%s%N)
  stowage cache check "$work/cache"
  echo "$((($(date +%s%N) - start) / 1000000)) ms"
  [ "$((($(date +%s%N) - start) / 1000000))" -lt 500 ]
}

# whole CACHE: each path that a path refers to is there, and Nix finds all right.
whole() {
  local hash
  sed -n 's/^References: //p' "$1"/*.narinfo | tr ' ' '\n' | grep . | cut -c-32 | sort -u > "$work/needed"
  while read -r hash; do
    test -e "$1/$hash.narinfo"
  done < "$work/needed"
  nix store verify --store "file://$1" --all --no-trust
  stowage cache check "$1" --deep --strict
}

# Half of the chains were used yesterday, the others 40 days ago.
by_age() {
  local root
  rm -rf "$work/aged"
  cp -a "$work/cache" "$work/aged"
  find "$work/aged" -name '*.narinfo' -exec touch -d '40 days ago' {} +
  { echo 'stowage-used 1'; head -n 49 "$work/roots" | while read -r root; do
    echo "$(basename "$root" | cut -c-32) $(date -d yesterday +%s)"
  done; } > "$work/aged/stowage/used"
  stowage cache gc "$work/aged" --keep-days 30
  same 'number of paths' 255 "$(paths "$work/aged")"
  whole "$work/aged"
  head -n 49 "$work/roots" | while read -r root; do
    test -e "$work/aged/$(basename "$root" | cut -c-32).narinfo"
  done
}

by_size() {
  local size kept
  rm -rf "$work/sized"
  cp -a "$work/cache" "$work/sized"
  kept=$(tail -n 1 "$work/roots")
  size=$(stowage cache info "$work/sized" --json | jq .size)
  stowage cache gc "$work/sized" --max-size "$((size / 2))" --keep "$kept"
  [ "$(stowage cache info "$work/sized" --json | jq .size)" -le "$((size / 2))" ]
  [ "$(paths "$work/sized")" -gt 200 ]
  test -e "$work/sized/$(basename "$kept" | cut -c-32).narinfo"
  whole "$work/sized"
}

check "$count damaged caches: no build fails, and none gets wrong contents" damaged
need 'a cache of 500 paths' build
check 'an unchanged cache keeps every time' untouched
check 'a check takes less than half a second' fast
check 'gc by age: what stays has all it needs' by_age
check 'gc by size: what stays has all it needs, and fits' by_size
