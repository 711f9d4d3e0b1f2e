#!/bin/bash
# The image's database is what the host's Nix says, and its rows are its
# folders; and the host's database is read correctly whoever has it open.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

# --- The image's database ----------------------------------------------------

image_has_the_hosts_rows() {
  local suite=$1 profile
  profile=$(debnix "$suite" "sets.${SET:-ci}")
  spec "$profile" > "$work/$suite.json"
  new_image "database-$suite"
  need "$suite: the image loads" load "$work/$suite.json"
  nix-store --query --requisites "$profile" | sort > "$work/paths"
  xargs nix-store --dump-db < "$work/paths" > "$work/host.dump"
  check "$suite: nix-store --dump-db in the container is the host's" dumps_are_equal
  check "$suite: rows and folders are the closure" rows_are_folders
}

# The first that Nix does in the container.
dumps_are_equal() {
  docker run --rm --network=none "$image" nix-store --dump-db > "$work/image.dump"
  "$repo/tests/system/dump" "$work/host.dump" > "$work/expected.dump"
  test -s "$work/expected.dump"
  cmp "$work/expected.dump" "$work/image.dump"
}

# In the files of the image, on which no Nix has run.
rows_are_folders() {
  local id root=$work/files
  rm -rf "$root"
  mkdir "$root"
  id=$(docker create --network=none "$image" /none)
  docker export "$id" > "$work/files.tar"
  docker rm "$id" > /dev/null
  tar --list --file "$work/files.tar" | sed -n 's|^nix/store/\([^/]\+\)/\?$|/nix/store/\1|p' | sort > "$work/folders"
  tar --extract --file "$work/files.tar" --directory "$root" nix/var/nix/db
  python3 - "$root/nix/var/nix/db/db.sqlite" <<'PYTHON' | sort > "$work/rows"
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute("select path from ValidPaths"):
    print(row[0])
PYTHON
  rm "$work/files.tar"
  diff "$work/paths" "$work/rows"
  diff "$work/rows" "$work/folders"
  same 'files of the database' "$(ls "$root/nix/var/nix/db")" "$(printf 'db.sqlite\nschema')"
}

# --- The host's database -----------------------------------------------------

# A store of our own, that others may look into.
make_store() {
  nix --extra-experimental-features nix-command copy --no-check-sigs --option build-users-group '' \
    --to "local?root=$root" "$small"
  # Nix's own folders are for root alone here and there; in the system's store
  # these are not.
  test ! -e "$db-wal"
}

built_digest() {
  XDG_CACHE_HOME=$(mktemp -d "$work/cache.XXXXXX") "$program" build --store "$root" "$1" --name x --to "stowage:$2" --json |
    jq --raw-output .digest
}

# as_user COMMAND...: as somebody who may write nothing of the store.
as_user() {
  setpriv --reuid 1000 --regid 1000 --clear-groups env HOME="$user_home" XDG_CACHE_HOME="$user_home/.cache" "$@"
}

# What reading might change.
database_folder() { (cd "$(dirname "$db")" && sha256sum db.sqlite && ls); }

user_builds() {
  local before digest
  before=$(database_folder)
  digest=$(as_user "$program" build --store "$root" "$small" --name x --to "stowage:$user_home/$1" --json | jq --raw-output .digest)
  same digests "$(cat "$work/small-digest")" "$digest"
  same 'the database, before and after' "$before" "$(database_folder)"
}

root_builds() {
  local before
  before=$(database_folder)
  same digests "$(cat "$work/small-digest")" "$(built_digest "$small" "$work/root-$1")"
  same 'the database, before and after' "$before" "$(database_folder)"
}

# hold STATEMENT FILE: a process that has the database open, after STATEMENT,
# until it is ended.
hold() {
  python3 - "$db" "$1" "$2" <<'PYTHON' &
import signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("select count(*) from ValidPaths").fetchall()
for statement in filter(None, sys.argv[2].split(";")):
    database.execute(statement).fetchall()
open(sys.argv[3], "w").close()
signal.pause()
PYTHON
  holder=$!
  started "$holder"
  for _ in $(seq 100); do
    [ -e "$2" ] && return
    sleep 0.1
  done
  return 1
}

let_go() {
  kill "$holder"
  wait "$holder" || true
}

# The rows of $hello are in the write-ahead log alone: who reads the file as
# immutable misses them.
new_rows_are_seen() {
  nix --extra-experimental-features nix-command copy --no-check-sigs --option build-users-group '' \
    --to "local?root=$root" "$sed"
  test -s "$db-wal"
  python3 - "$db" "$sed" <<'PYTHON'
import sqlite3, sys
rows = sqlite3.connect(f"file:{sys.argv[1]}?immutable=1", uri=True).execute(
    "select count(*) from ValidPaths where path = ?", [sys.argv[2]]).fetchone()
assert rows == (0,), "the row is in the file already, so this test shows nothing"
PYTHON
  same digest "$(cat "$work/sed-digest")" "$(built_digest "$sed" "$work/new")"
  user_builds wal
}

# What it should come to, from the system's store.
expect_digests() {
  local name
  for name in small sed; do
    "$program" build "${!name}" --name x --to "stowage:$work/expected" --json | jq --raw-output .digest > "$work/$name-digest"
    test -s "$work/$name-digest"
  done
}

locked_is_an_error() {
  local error=$work/locked.log
  timeout 120 "$program" build --store "$root" "$small" --name x --to "stowage:$work/locked" 2> "$error" && return 1
  test $? != 124
  cat "$error"
  grep -qiE 'lock|busy' "$error"
  test ! -e "$work/locked/stowage.json"
}

for suite in ${SUITES:-bookworm trixie}; do
  need "$suite: the index" get "$suite" "${SET:-ci}"
  image_has_the_hosts_rows "$suite"
done

get bookworm small stdenv
small=$(debnix bookworm sets.small)
sed=$(debnix bookworm sed)
root=$work/store
db=$root/nix/var/nix/db/db.sqlite
user_home=$work/user
install -d -o 1000 -g 1000 "$user_home"
need 'a store of our own' make_store
need 'what it should come to' expect_digests
check 'an ordinary user reads the database when nobody has it open' user_builds closed
check 'root reads it, and leaves its folder as it was' root_builds closed
check 'the ordinary user still reads it' user_builds after-root

hold '' "$work/held"
check 'rows that are only in the write-ahead log are seen, by an ordinary user too' new_rows_are_seen
let_go

hold 'begin immediate' "$work/writing"
check 'a writer does not keep others from reading' user_builds writing
check 'nor root' root_builds writing
let_go

hold 'pragma journal_mode=delete; begin exclusive' "$work/exclusive"
check 'a locked database is an error that says so' locked_is_an_error
let_go
check 'and no longer, once it is free' root_builds free
check 'for the ordinary user neither' user_builds free
