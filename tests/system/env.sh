#!/bin/bash
# `stowage env`: Nix does what it prints, and where a daemon would not, it says so,
# and what root must do.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"

new_store "$work"
# shellcheck disable=SC2016 # for the builder
expression='derivation { name = "one"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo one > $out" ]; }'

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

# restart_daemon: it reads nix.conf anew.
restart_daemon() {
  kill "${pids[-1]}"
  wait "${pids[-1]}" || true
  rm -f "$work/socket"
  start_daemon "$work"
}

as_user() { NIX_REMOTE=daemon as_ordinary "$work/home" NIX_DAEMON_SOCKET_PATH="$work/socket" NIX_CONFIG="${NIX_CONFIG-}" "$@"; }

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
new_key key
new_key other
out=$(nix-build --no-out-link --expr "$expression" 2> /dev/null)
stowage cache add "$work/unsigned" "$out" --quiet
stowage cache add "$work/signed" "$out" --quiet --secret-key-file "$work/key"

check 'a cache that is believed itself' believed_itself
check 'a cache whose signatures are believed' by_signature
check 'one before another' by_priority
check 'as a line of a dotenv file, and as a nix.conf' by_dotenv
check 'single-user: nothing to notice' alone
start_daemon "$work"
check 'a daemon that trusts nobody: said, with what root must add' distrusted
sed -n 's/^    //p' "$work/notice" >> "$NIX_CONF_DIR/nix.conf"
restart_daemon
check 'that is added: it works' allowed
echo 'trusted-users = root *' >> "$NIX_CONF_DIR/nix.conf"
restart_daemon
check 'a daemon that trusts its users' trusted
