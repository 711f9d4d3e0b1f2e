# The real Nix for tests: stores of their own, a daemon, several generations, and
# keys; to be sourced after lib.sh.
# shellcheck shell=bash disable=SC2154

# --- Stores ------------------------------------------------------------------

# An ordinary user, whom nobody trusts.
ordinary=1000

# use_store FOLDER: from now on, Nix and stowage use the store in FOLDER.
use_store() {
  export NIX_STORE_DIR=$1/store NIX_STATE_DIR=$1/var NIX_LOG_DIR=$1/nix-log NIX_CONF_DIR=$1/conf NIX_REMOTE=
}

# new_store FOLDER [LINE]...: makes one with these lines in its nix.conf, and uses it.
new_store() {
  use_store "$1"
  # Without a state folder, a daemon would call itself.
  mkdir -p "$NIX_CONF_DIR" "$NIX_STATE_DIR"
  printf '%s\n' 'sandbox = false' 'build-users-group =' 'substituters =' \
    'experimental-features = nix-command' "${@:2}" > "$NIX_CONF_DIR/nix.conf"
}

# start_daemon FOLDER: a daemon as systemd would start it, as root, in /, without
# anybody's variables, for the store in FOLDER.
start_daemon() {
  (
    cd /
    exec env --ignore-environment HOME=/root PATH="$PATH" XDG_CACHE_HOME="$1/root-cache" \
      NIX_STORE_DIR="$1/store" NIX_STATE_DIR="$1/var" NIX_LOG_DIR="$1/nix-log" NIX_CONF_DIR="$1/conf" \
      NIX_DAEMON_SOCKET_PATH="$1/socket" nix-daemon
  ) > "$1/daemon.log" 2>&1 < /dev/null &
  started "$!"
  for _ in $(seq 100); do
    [ ! -S "$1/socket" ] || return 0
    sleep 0.1
  done
  cat "$1/daemon.log"
  return 1
}

# start_daemon_with_hook FOLDER: and nix.conf has the line that `hook --install` shows,
# for the configuration $FOLDER/etc/config.toml.
start_daemon_with_hook() {
  new_store "$1"
  stowage hook --install --dir "$1/etc" --config "$1/etc/config.toml" > "$1/advice"
  grep --only-matching 'post-build-hook = .*' "$1/advice" >> "$NIX_CONF_DIR/nix.conf"
  start_daemon "$1"
}

# as_ordinary FOLDER [NAME=VALUE]... COMMAND...: as the ordinary user, at home in
# FOLDER, with the store that is used, and no other variables.
as_ordinary() {
  local home=$1
  shift
  setpriv --reuid="$ordinary" --regid="$ordinary" --clear-groups env --ignore-environment --chdir="$home" \
    HOME="$home" USER=ordinary PATH="$PATH" NIX_STORE_DIR="$NIX_STORE_DIR" NIX_STATE_DIR="$NIX_STATE_DIR" \
    NIX_LOG_DIR="$NIX_LOG_DIR" NIX_CONF_DIR="$NIX_CONF_DIR" NIX_REMOTE="$NIX_REMOTE" "$@"
}

# --- Generations -------------------------------------------------------------

# get_generations: $old is the machine's Nix, $new is trixie's, and $newest sid's, or
# empty: sid moves from day to day, and where it can't be had that is said and no more.
# shellcheck disable=SC2034 # for others
get_generations() {
  old=$(command -v nix)
  get trixie ci
  new=$(debnix trixie sets.ci)/bin/nix
  newest=
  if get_moving sid ci; then newest=$profile/bin/nix; fi
}

# nix_of GENERATION ARGUMENT...: that Nix, for stores of their own.
nix_of() {
  local which=$1
  shift
  "${!which}" --extra-experimental-features nix-command --option build-users-group '' --option substituters '' \
    --option sandbox false "$@"
}

# --- Keys --------------------------------------------------------------------

# new_key NAME: a pair of keys in $work/NAME and $work/NAME.pub.
new_key() { nix-store --generate-binary-cache-key "$1" "$work/$1" "$work/$1.pub"; }

# believing KEY...: what makes Nix believe signatures of these keys, and no other.
believing() {
  local key keys=
  for key; do keys+=" $(cat "$work/$key.pub")"; done
  # shellcheck disable=SC2034 # for others
  trust=(--option require-sigs true --option trusted-public-keys "$keys")
}

# fresh NAME: a new folder.
fresh() { mktemp -d "$work/$1.XXXXXX"; }

# --- NixOS -------------------------------------------------------------------

# nixos SETTINGS [MODULE]: an expression of a machine with these of nix.stowage, by the
# stand-in for nixpkgs.
nixos() {
  printf 'import %s { modules = [ %s { nix.stowage = { %s }; } ({ lib, ... }: { %s }) ]; }' \
    "$repo/tests/nix/system.nix" "$repo/nix/module.nix" "$1" "${2-}"
}
