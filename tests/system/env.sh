#!/bin/bash
# `stowage env`: Nix does what it prints, and where a daemon would not, it says so,
# and what root must do.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

export NIX_STORE_DIR=$work/store NIX_STATE_DIR=$work/var NIX_LOG_DIR=$work/nixlog NIX_CONF_DIR=$work/conf NIX_REMOTE=
mkdir -p "$NIX_CONF_DIR"
printf 'sandbox = false\nbuild-users-group =\nsubstituters =\n' > "$NIX_CONF_DIR/nix.conf"
# shellcheck disable=SC2016 # for the builder
expression='derivation { name = "one"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo one > $out" ]; }'
socket=$NIX_STATE_DIR/daemon-socket/socket

# take [COMMAND...]: has Nix take it from a cache, and no builder run.
take() { "$@" nix-build --no-out-link --option max-jobs 0 --expr "$expression" 2>&1; }

forget() { nix-store --delete --ignore-liveness "$out"; }

believed_itself() {
  forget
  (eval "$(stowage env "$work/unsigned")" && take) | tee "$work/said"
  grep -F "from 'file://$work/unsigned'" "$work/said"
}

# Of two caches that both have it, the one that is to be asked first.
by_priority() {
  forget
  (eval "$(stowage env "$work/unsigned" --priority 20)" &&
    eval "$(stowage env "$work/signed" --public-key "$work/key.pub" --priority 10)" && take) | tee "$work/said"
  grep -F "from 'file://$work/signed'" "$work/said"
  forget
  (eval "$(stowage env "$work/signed" --public-key "$work/key.pub" --priority 20)" &&
    eval "$(stowage env "$work/unsigned" --priority 10)" && take) | tee "$work/said"
  grep -F "from 'file://$work/unsigned'" "$work/said"
}

by_signature() {
  forget
  (eval "$(stowage env "$work/signed" --public-key "$work/key.pub")" && take)
  forget
  # Nobody else's key, and no trust in a folder.
  (eval "$(stowage env "$work/signed" --public-key "$work/other.pub")" && fails take)
  (eval "$(stowage env "$work/unsigned" --public-key "$work/key.pub")" && fails take)
}

by_dotenv() {
  stowage env "$work/unsigned" --format dotenv > "$work/dotenv"
  same lines 1 "$(wc -l < "$work/dotenv")"
  take env "$(cat "$work/dotenv")"
  forget
  refused 'NIX_USER_CONF_FILES' stowage env "$work/signed" --public-key "$work/key.pub" --format dotenv
  stowage env "$work/signed" --public-key "$work/key.pub" --format nix.conf > "$work/more.conf"
  NIX_USER_CONF_FILES=$work/more.conf take
}

# --- With a daemon ---------------------------------------------------------------

start_daemon() {
  nix-daemon > "$work/daemon.log" 2>&1 &
  daemon=$!
  started "$daemon"
  for _ in $(seq 100); do
    [ ! -S "$socket" ] || return 0
    sleep 0.1
  done
  return 1
}

stop_daemon() {
  kill "$daemon"
  wait "$daemon" || true
  rm -f "$socket"
}

# as_user COMMAND...: an ordinary user, with the daemon.
as_user() {
  setpriv --reuid=1000 --regid=1000 --clear-groups env HOME="$work/home" USER=somebody NIX_REMOTE=daemon "$@"
}

user_env() { as_user "$program" env "$@" 2> "$work/notice"; }

distrusted() {
  local setting
  forget
  setting=$(user_env "$work/signed" --public-key "$work/key.pub")
  cat "$work/notice"
  grep -F "add to $NIX_CONF_DIR/nix.conf" "$work/notice"
  # It is right: Nix takes no notice.
  (eval "$setting" && fails take as_user)
}

allowed() {
  local setting
  setting=$(user_env "$work/signed" --public-key "$work/key.pub")
  same notice "bytes: 0" "bytes: $(wc -c < "$work/notice")"
  (eval "$setting" && take as_user)
}

trusted() {
  local setting
  forget
  setting=$(user_env "$work/unsigned")
  same notice "bytes: 0" "bytes: $(wc -c < "$work/notice")"
  (eval "$setting" && take as_user)
}

# Who may write the state has no need of a daemon, and of its trust.
alone() {
  "$program" env "$work/unsigned" 2>&1 > /dev/null | tee "$work/notice"
  test ! -s "$work/notice"
}

mkdir -p "$work/home"
chown 1000:1000 "$work/home"
nix-store --generate-binary-cache-key ci-1 "$work/key" "$work/key.pub"
nix-store --generate-binary-cache-key other-1 "$work/other" "$work/other.pub"
out=$(nix-build --no-out-link --expr "$expression" 2> /dev/null)
stowage cache add "$work/unsigned" "$out" --quiet
stowage cache add "$work/signed" "$out" --quiet --secret-key-file "$work/key"

check 'a cache that is believed itself' believed_itself
check 'a cache whose signatures are believed' by_signature
check 'one before another' by_priority
check 'as a line of a dotenv file, and as a nix.conf' by_dotenv
check 'single-user: nothing to notice' alone
start_daemon
check 'a daemon that trusts nobody: said, with what root must add' distrusted
sed -n 's/^    //p' "$work/notice" >> "$NIX_CONF_DIR/nix.conf"
stop_daemon
start_daemon
check 'that is added: it works' allowed
echo 'trusted-users = root *' >> "$NIX_CONF_DIR/nix.conf"
stop_daemon
start_daemon
check 'a daemon that trusts its users' trusted
