#!/bin/bash
# A cache that is a store: jobs build in it, and nothing is copied. In images whose /nix leads
# there, with Docker's defaults; and by user namespaces, where a runner allows them.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"
# shellcheck source-path=SCRIPTDIR source=../gitlab.sh
. "$repo/tests/gitlab.sh"
start_docker
get bookworm ci small
get trixie ci

unconfined=(--security-opt seccomp=unconfined --security-opt systempaths=unconfined)

# in_project PROJECT SCRIPT [DOCKER-OPTION]...: as a job of the image.
in_project() {
  local project=$1 script=$2
  shift 2
  docker run --rm --network=none --volume "$project:/builds/group/project" --workdir /builds/group/project \
    --volume "$debnix:/debnix:ro" --volume "$(index_of bookworm):/index.json:ro" \
    --volume "$debnix_home/debs:/debs:ro" "$@" "$image" /bin/sh -euc "$script"
}

# is_right PROJECT: Nix, in the image, finds no fault with the store; which is then as it was.
is_right() {
  # shellcheck disable=SC2016 # for the container
  in_project "$1" 'nix-store --verify --check-contents 2>&1
    test "$(nix-store --query --references /nix/store/*-program)"
    stowage cache wait cache' > "$work/verified" || { cat "$work/verified"; return 1; }
  fails grep -iE 'warning|error|disappeared|modified' "$work/verified"
}

# inodes PROJECT: which files there are of store paths.
inodes() { find "$1/cache/nix/store" -mindepth 1 -maxdepth 1 -printf '%f %i\n' | sort; }

# --- /nix leads into the cache ------------------------------------------------------------

first_job() {
  local project=$work/first format
  clone "$project" one
  job "$project" "$work/log.first"
  built 13 "$work/log.first"
  same 'what is built' one "$(in_result "$project")"
  # Archivers can unpack all that is there.
  test -z "$(find "$project/cache" ! -type l ! -perm -200)"
  test ! -e "$project/cache/nix/store/.links"
  test ! -e "$project/cache/nix/var/nix/db/db.sqlite-wal"
  for format in $formats; do
    pack "$project" "$format" "$(archive_of "$format")" | grep 'Created cache'
  done
  is_right "$project"
}

# In a second container: nothing is copied or built, and nothing new is uploaded.
next_job() {
  local project=$work/next log=$work/log.next before
  clone "$project" one
  restore "$project" "$1" "$(archive_of "$1")"
  before=$(inodes "$project")
  job "$project" "$log"
  built 0 "$log"
  test -z "$(copies "$log")"
  same 'store paths' "$before" "$(inodes "$project")"
  same 'what is built' one "$(in_result "$project")"
  pack "$project" "$1" "$(archive_of "$1")" | grep 'Archive is up to date!'
  is_right "$project"
}

changed_job() {
  local project=$work/changed log=$work/log.changed
  clone "$project" two
  restore "$project" "$1" "$(archive_of "$1")"
  job "$project" "$log"
  built 1 "$log"
  same 'what is built' two "$(in_result "$project")"
  is_right "$project"
  cp --preserve=timestamps "$(archive_of "$1")" "$(archive_of "$1" second)"
  pack "$project" "$1" "$(archive_of "$1" second)" | grep 'Created cache'
}

over_another() {
  local project=$work/over order
  for order in 'first second' 'second first'; do
    clone "$project" two
    restore "$project" "$1" "$(archive_of "$1" "${order% *}")"
    # The runner can't replace links by those of a tar; then the job has what was there.
    restore "$project" "$1" "$(archive_of "$1" "${order#* }")" || test "$1" = tarzstd
    job "$project" "$work/log.over"
    same 'what is built' two "$(in_result "$project")"
    is_right "$project"
  done
}

# A runner whose helper is no root can unpack it, over what is there, too.
helper_is_no_root() {
  local project=$work/own number
  clone "$project" one
  chown -R 1000:1000 "$project"
  chmod 644 "$(archive_of "$1")"
  for number in 1 2; do
    (cd "$project" && setpriv --reuid=1000 --regid=1000 --clear-groups "$runner" extract "$1" "$(archive_of "$1")") ||
      test "$1" = legacy || [ "$1 $number" = 'tarzstd 2' ]
    test -z "$(find "$project/cache" ! -uid 1000)"
    job "$project" "$work/log.own"
    built 0 "$work/log.own"
    is_right "$project"
  done
}

# What a container reads of the store before its program starts: nothing. Times of last access
# tell, on a file system that always writes them.
nothing_is_read() {
  local project=$work/strict/project
  mkdir "$work/strict"
  mount -t tmpfs -o strictatime,size=2G stowage-test "$work/strict"
  trap 'umount "$work/strict"' RETURN
  clone "$project" one
  restore "$project" tarzstd "$(archive_of tarzstd)"
  find "$project/cache/nix/store" -mindepth 1 -type f -exec touch -a --date=2001-01-01 {} +
  test "$(find "$project/cache/nix/store" -type f | wc -l)" -gt 1000
  docker run --rm --network=none --volume "$project:/builds/group/project" "$image" /usr/bin/stowage --version
  test -z "$(find "$project/cache/nix/store" -type f -newerat 2001-01-02)"
  # The first builder reads what it needs, and that shows.
  in_project "$project" 'nix-build --no-out-link'
  test -n "$(find "$project/cache/nix/store" -type f -newerat 2001-01-02)"
  # What the job built before, and does not need, nobody has read.
  test -z "$(find "$project"/cache/nix/store/*-part-0 -type f -newerat 2001-01-02)"
}

# What was lost on the way is built again, and nothing else.
cut_off() {
  local project=$work/cut log=$work/log.cut lost
  for lost in '*-part-3/numbers' '*-part-3' '*-part-3/before'; do
    clone "$project" one
    restore "$project" fastzip "$(archive_of fastzip)"
    find "$project/cache/nix/store" -path "$project/cache/nix/store/$lost" -prune -exec rm -r {} +
    job "$project" "$log"
    grep -E 'part-3 will be built again: (its files are not what they were|it is not there)' "$log"
    # It, and what refers to it: the rest of the chain, and the program.
    same builds 10 "$(builds "$log")"
    is_right "$project"
  done
  # Half a file, as where a disk was full.
  clone "$project" one
  restore "$project" fastzip "$(archive_of fastzip)"
  truncate --size=10 "$project"/cache/nix/store/*-part-11/numbers
  job "$project" "$log"
  same builds 2 "$(builds "$log")"
  is_right "$project"
}

damaged_database() {
  local project=$work/damaged log=$work/log.damaged change
  for change in 'truncate --size=20000' 'truncate --size=0' 'cp /etc/passwd' rm; do
    clone "$project" one
    restore "$project" fastzip "$(archive_of fastzip)"
    # shellcheck disable=SC2086 # a command
    $change "$project/cache/nix/var/nix/db/db.sqlite"
    job "$project" "$log"
    grep 'nothing of this cache can be used, and it begins anew' "$log"
    same builds 13 "$(builds "$log")"
    is_right "$project"
  done
}

# What is damaged in no size and no name is found by hashing.
deep() {
  local project=$work/deep file
  clone "$project" one
  restore "$project" fastzip "$(archive_of fastzip)"
  file=$(echo "$project"/cache/nix/store/*-part-11/numbers)
  tr 1 2 < "$file" > "$work/numbers"
  cat "$work/numbers" > "$file"
  chown -R 1000:1000 "$project"
  in_project "$project" 'stowage cache check cache --strict'
  in_project "$project" 'if stowage cache check cache --deep --strict; then exit 1; else test $? = 8; fi' 2>&1 |
    grep 'part-11 will be built again: it is not what was registered'
  in_project "$project" 'stowage cache check cache --deep --strict'
  in_project "$project" nix-build 2> "$work/log.deep"
  same builds 2 "$(builds "$work/log.deep")"
}

# Killed in the middle of a first job's begin, and of a build.
killed() {
  local project=$work/killed name=stowage-test-killed-$$ seconds
  for seconds in $delays; do
    clone "$project" "killed $seconds"
    (container=$name run_job "$project" > "$work/log.killed" 2>&1) &
    sleep "$seconds"
    docker kill "$name" || true
    wait $! || true
    job "$project" "$work/log.again"
    same 'what is built' "killed $seconds" "$(in_result "$project")"
    is_right "$project"
  done
}

# Another image: what it brings comes in, what only the old one had can go.
another_image() {
  local project=$work/image old=$image new added
  clone "$project" one
  restore "$project" fastzip "$(archive_of fastzip)"
  added=$(leaf more)
  spec "$(debnix bookworm sets.ci)" "$linked" | jq --arg path "$added" '.contents += [$path]' > "$work/more.json"
  new_image more
  new=$image
  load "$work/more.json"
  job "$project" "$work/log.image"
  built 0 "$work/log.image"
  in_project "$project" "nix-store --query --references $added; cat $added/share/leaf"
  is_right "$project"
  image=$old
  in_project "$project" 'stowage cache gc cache --max-size 1k' 2>&1 | grep 'GC roots name all that is left'
  test ! -e "$project/cache/$added"
  image=$new
  in_project "$project" "cat $added/share/leaf; nix-store --verify --check-contents"
}

# The least recently used goes.
collected() {
  local project=$work/collected log=$work/log.collected notes before
  clone "$project" one
  restore "$project" fastzip "$(archive_of fastzip second)"
  notes=$project/cache/nix/var/nix/stowage/store.json
  before=$(($(date +%s) - 20 * 24 * 60 * 60))
  jq --arg before "$before" '.paths[].used = ($before | tonumber)' "$notes" > "$work/notes"
  cat "$work/notes" > "$notes"
  sqlite3 "$project/cache/nix/var/nix/db/db.sqlite" "update ValidPaths set registrationTime = $before where registrationTime > 1"
  same 'programs before' 2 "$(find "$project/cache/nix/store" -maxdepth 1 -name '*-program' | wc -l)"
  job "$project" "$log"
  built 0 "$log"
  same 'programs' 1 "$(find "$project/cache/nix/store" -maxdepth 1 -name '*-program' | wc -l)"
  same 'parts' 12 "$(find "$project/cache/nix/store" -maxdepth 1 -name '*-part-*[0-9]' | wc -l)"
  is_right "$project"
  in_project "$project" 'stowage cache info cache --json' | jq --exit-status '.paths > 90'
}

# Rows of the database are believed: a folder of somebody else's is not used.
somebody_elses() {
  local project=$work/others
  clone "$project" one
  restore "$project" fastzip "$(archive_of fastzip)"
  chown -R 1234:1234 "$project/cache"
  fails in_project "$project" true 2> "$work/error"
  grep "is user 1234's, and only that user can use it; this is user 1000" "$work/error"
}

# Where no folder is mounted, the container has one of its own.
alone() {
  # shellcheck disable=SC2016 # for the container
  docker run --rm --network=none "$image" /bin/sh -c 'nix-store --verify --check-contents && readlink /nix'
}

# Nix 2.26 leaves a log beside its database, and builds in a folder of its own.
newer_nix() {
  local project=$work/newer log=$work/log.newer old=$image
  spec "$(debnix trixie sets.ci)" "$linked" > "$work/newer.json"
  new_image newer
  load "$work/newer.json"
  clone "$project" one
  job "$project" "$log"
  built 13 "$log"
  pack "$project" fastzip "$work/newer.archive"
  clone "$project" one
  restore "$project" fastzip "$work/newer.archive"
  job "$project" "$log"
  built 0 "$log"
  pack "$project" fastzip "$work/newer.archive" | grep 'Archive is up to date!'
  is_right "$project"
  # And back: the older Nix goes on with it.
  image=$old
  clone "$project" two
  restore "$project" fastzip "$work/newer.archive"
  job "$project" "$log"
  same 'what is built' two "$(in_result "$project")"
  is_right "$project"
}

# Where Nix may make namespaces, the image works as it does elsewhere.
unconfined_jobs() {
  local project=$work/free log=$work/log.free
  clone "$project" free
  options=("${unconfined[@]}")
  job "$project" "$log"
  built 13 "$log"
  is_right "$project"
}

# The folder is a store of Nix's in every way: others copy from it, and images are made from it.
a_store_like_others() {
  local project=$work/first program_path store
  program_path=$(basename "$project"/cache/nix/store/*-program)
  chown -R 0:0 "$project/cache"
  store=$(fresh store)
  eval "$("$program" env "$project/cache" --substituter)"
  nix-store --store "$store" --realise "/nix/store/$program_path" --option substitute true
  grep one "$store/nix/store/$program_path/program"
  unset NIX_CONFIG
  "$program" build --store "$project/cache" "/nix/store/$program_path" --name program --to "oci:$work/program:latest" --quiet
  "$program" inspect "oci:$work/program:latest" | grep "$program_path"
  chown -R 1000:1000 "$project/cache"
  fails "$program" cache add "$project/cache" "$(debnix bookworm sets.small)"
  fails "$program" cache init "$project/cache" --as binary-cache
}

# --- By user namespaces --------------------------------------------------------------------

# shellcheck disable=SC2016 # for the container
build_small='stowage cache init cache --as store
  eval "$(stowage env cache)"
  nix-build /debnix --arg index /index.json --argstr debs /debs -A sets.small --option sandbox-paths /debs
  nix-store --verify --check-contents
  stowage cache wait cache'

by_namespaces() {
  local project=$work/namespaces format
  clone "$project"
  in_project "$project" "$build_small" "${unconfined[@]}" 2> "$work/log.namespaces"
  test "$(builds "$work/log.namespaces")" -gt 10
  for format in $formats; do
    pack "$project" "$format" "$work/namespaces.$format"
    clone "$project"
    restore "$project" "$format" "$work/namespaces.$format"
    in_project "$project" "$build_small" "${unconfined[@]}" 2> "$work/log.namespaces"
    same builds 0 "$(builds "$work/log.namespaces")"
    test -z "$(copies "$work/log.namespaces")"
    fails grep -iE 'warning|error|disappeared|modified' "$work/log.namespaces"
    pack "$project" "$format" "$work/namespaces.$format" | grep 'Archive is up to date!'
  done
}

# Docker's defaults allow none: Nix 2.8 would build in the image's store, and say nothing.
no_namespaces() {
  local project=$work/none
  clone "$project"
  in_project "$project" 'if stowage cache init cache --as store; then exit 1; else test $? = 6; fi; test ! -e cache' 2> "$work/error"
  grep 'needs user namespaces for that (making user namespaces: Operation not permitted' "$work/error"
  grep 'seccomp=unconfined' "$work/error"
}

delays='0.2 0.8 2'
[ -z "${STOWAGE_LONG-}" ] || delays='0.1 0.2 0.3 0.4 0.6 0.8 1 1.2 1.5 2 3'
# shellcheck disable=SC2034 # others use it
container='' variables=() options=()
linked='{"cacheStore": "/builds/group/project/cache"}'
spec "$(debnix bookworm sets.ci)" "$linked" > "$work/linked.json"
new_image linked
need 'an image whose /nix leads into the cache loads' load "$work/linked.json"
need 'job 1 builds all in the cache' first_job
for format in $formats; do
  check "$format: the next job builds nothing, copies nothing, and the archive is up to date" next_job "$format"
  [ "$format" = fastzip ] || [ -n "${STOWAGE_LONG-}" ] || continue
  check "$format: a commit is one build" changed_job "$format"
  check "$format: a cache restored over another" over_another "$format"
  check "$format: a helper that is no root restores it" helper_is_no_root "$format"
done
check 'nothing of the store is read before the first builder starts' nothing_is_read
check 'what an archive has lost is built again' cut_off
check 'a damaged database: all is built again' damaged_database
check 'damage that only hashing finds' deep
check 'containers that are killed leave what the next ones can use' killed
check 'another image brings its paths, and the old one leaves' another_image
check 'what no job has used for 14 days goes' collected
check "a folder of somebody else's is refused" somebody_elses
check 'a container with no folder mounted works' alone
check 'Nix 2.26 builds in it, and 2.8 after it' newer_nix
check 'where namespaces are allowed, it works as well' unconfined_jobs
check 'others copy from it, and images are made from it' a_store_like_others

spec "$(debnix bookworm sets.ci)" '{"hook": true, "nixConf": {"substituters": "", "post-build-hook": ""}}' > "$work/plain.json"
new_image plain
need 'an image with stowage loads' load "$work/plain.json"
check 'by user namespaces: the next job builds nothing, and the archive is up to date' by_namespaces
check 'without them, that is said' no_namespaces
