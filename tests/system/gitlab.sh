#!/bin/bash
# GitLab's jobs, with the pipeline of hooks/gitlab-ci.yml: tests/system/runner restores and
# packs ./cache as GitLab's runner does, the job runs in a container as its own user.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"
# shellcheck source-path=SCRIPTDIR source=../gitlab.sh
. "$repo/tests/gitlab.sh"
start_docker

# is_right PROJECT: Nix finds no fault with the cache.
is_right() {
  nix --extra-experimental-features nix-command store verify --store "file://$1/cache" --all --no-trust
  "$program" cache check "$1/cache" --deep --strict
  test -z "$(find "$1/cache" -name '.tmp-*')"
}

# --- The first job, and what the runner makes of it --------------------------------------

first_job() {
  local project=$work/first format
  clone "$project" one
  restore "$project" fastzip "$work/none"
  job "$project" "$work/log.first"
  built 13 "$work/log.first"
  grep "cache is a binary cache, which suits a folder that GitLab's runner archives" "$work/log.first"
  is_right "$project"
  same 'narinfos' 13 "$(find "$project/cache" -name '*.narinfo' | wc -l)"
  for format in $formats; do
    pack "$project" "$format" "$(archive_of "$format")" | grep 'Created cache'
  done
}

# What the next job does, in a place of its own.
next_job() {
  local project=$work/next log=$work/log.next
  clone "$project" one
  restore "$project" "$1" "$(archive_of "$1")"
  job "$project" "$log"
  built 0 "$log"
  fails grep 'which suits' "$log"
  test "$(copies "$log" | wc -l)" = 1
  same 'what is built' one "$(in_result "$project")"
  pack "$project" "$1" "$(archive_of "$1")" | grep 'Archive is up to date!'
}

# A commit: one builder, and an archive that is larger by as much.
changed_job() {
  local project=$work/changed log=$work/log.changed before after
  clone "$project" two
  restore "$project" "$1" "$(archive_of "$1")"
  job "$project" "$log"
  built 1 "$log"
  is_right "$project"
  cp --preserve=timestamps "$(archive_of "$1")" "$(archive_of "$1" second)"
  pack "$project" "$1" "$(archive_of "$1" second)" | grep 'Created cache'
  before=$(stat -c %s "$(archive_of "$1")") after=$(stat -c %s "$(archive_of "$1" second)")
  echo "$before bytes before, $after after"
  test "$((after - before))" -lt 8192
}

# --- What goes wrong -------------------------------------------------------------------

# A cache that is restored where another one is, older or newer.
over_another() {
  local project=$work/over order
  for order in 'first second' 'second first'; do
    clone "$project" two
    for archive in $order; do restore "$project" "$1" "$(archive_of "$1" "$archive")"; done
    job "$project" "$work/log.over"
    built 0 "$work/log.over"
    is_right "$project"
  done
}

# A restore that ended in the middle: what is missing is built, and nothing fails.
cut_off() {
  local project=$work/cut keep
  for keep in 30 60 90; do
    clone "$project" one
    restore "$project" "$1" "$(archive_of "$1")"
    # In the order in which they come out.
    (cd "$project" && find cache -type f | LC_ALL=C sort | awk -v "keep=$keep" 'NR % 100 >= keep || NR > keep / 2' | xargs rm -f)
    job "$project" "$work/log.cut"
    is_right "$project"
  done
}

# as UID: jobs run as that user from now on.
as() { image=${image_of[$1]}; }

another_user() {
  local project=$work/user log=$work/log.user
  as 1234
  clone "$project" one
  restore "$project" "$1" "$(archive_of "$1")"
  job "$project" "$log"
  built 0 "$log"
  clone "$project" three
  restore "$project" "$1" "$(archive_of "$1")"
  job "$project" "$log"
  built 1 "$log"
  cp --preserve=timestamps "$(archive_of "$1")" "$(archive_of "$1" user)"
  pack "$project" "$1" "$(archive_of "$1" user)" | grep 'Created cache'
  # And back again.
  as 1000
  clone "$project" three
  restore "$project" "$1" "$(archive_of "$1" user)"
  job "$project" "$log"
  built 0 "$log"
  clone "$project" four
  restore "$project" "$1" "$(archive_of "$1" user)"
  job "$project" "$log"
  built 1 "$log"
  is_right "$project"
}

# A runner whose helper is no root restores what belongs to others, too.
helper_is_no_root() {
  local project=$work/own log=$work/log.own
  as 1000
  clone "$project" three
  chown -R 1000:1000 "$project"
  chmod 755 "$project"
  chmod 644 "$(archive_of "$1" user)"
  (cd "$project" && setpriv --reuid=1000 --regid=1000 --clear-groups "$runner" extract "$1" "$(archive_of "$1" user)") ||
    test "$1" = legacy
  test -z "$(find "$project/cache" ! -uid 1000)"
  job "$project" "$log"
  built 0 "$log"
}

# A job that is killed, in the middle of its exports; the next is where it was.
aborted() {
  local project=$work/aborted container=stowage-test-aborted-$$ number pid
  for number in 1 2 5 9; do
    clone "$project" "aborted $number"
    run_job "$project" > "$work/log.aborted" 2>&1 &
    pid=$!
    until [ "$(find "$project/cache" -name '*.narinfo' 2> /dev/null | wc -l)" -ge "$number" ]; do
      kill -0 "$pid" || break
      sleep 0.02
    done
    docker kill "$container" || true
    wait "$pid" || true
    # The runner packs what a job leaves that ran into its time limit.
    rm -f "$work/aborted.archive"
    pack "$project" fastzip "$work/aborted.archive"
    container='' job "$project" "$work/log.again"
    # Unfinished files of a killed job stay for a day: others may be at work.
    find "$project/cache" -name '.tmp-*' -delete
    is_right "$project"
    clone "$project" "aborted $number"
    restore "$project" fastzip "$work/aborted.archive"
    container='' job "$project" "$work/log.again"
    # Unfinished files of a killed job stay for a day: others may be at work.
    find "$project/cache" -name '.tmp-*' -delete
    is_right "$project"
  done
}

# What an early stowage has written of the same project.
from_an_older_version() {
  local project=$work/older log=$work/log.older
  clone "$project" one
  tar --extract --zstd --directory "$project" --file "$repo/tests/data/older-cache.tar.zst"
  job "$project" "$log"
  built 0 "$log"
  clone "$project" two
  tar --extract --zstd --directory "$project" --file "$repo/tests/data/older-cache.tar.zst"
  job "$project" "$log"
  built 1 "$log"
  is_right "$project"
}

# An early stowage's folders are open to their owner alone: other users' jobs take from them.
only_readable() {
  local project=$work/readable log=$work/log.readable
  as 1234
  clone "$project" one
  tar --extract --zstd --directory "$project" --file "$repo/tests/data/older-cache.tar.zst"
  job "$project" "$log"
  same builds 0 "$(builds "$log")"
  grep "what is built will not get into .*/cache: .* is user 1000's, and user 1234 may not write there" "$log"
  # What is built is not in the cache then, and the job's end says so.
  clone "$project" two
  tar --extract --zstd --directory "$project" --file "$repo/tests/data/older-cache.tar.zst"
  fails job "$project" "$log"
  same builds 1 "$(builds "$log")"
  grep 'program.drv: using the cache: .*Permission denied' "$log"
}

# What a later one may write: fields and files that nobody here knows.
from_a_newer_version() {
  local project=$work/newer log=$work/log.newer
  clone "$project" one
  restore "$project" fastzip "$(archive_of fastzip)"
  sed -i '$a Novelty: yes' "$project"/cache/*.narinfo
  sed -i '1s/.*/stowage-used 99 of another form/' "$project/cache/stowage/used"
  mkdir "$project/cache/novelty"
  touch "$project/cache/novelty/file" "$project/cache/stowage/novelty"
  chown -R 1000:1000 "$project/cache"
  job "$project" "$log"
  built 0 "$log"
  is_right "$project"
  test -e "$project/cache/novelty/file"
  test -e "$project/cache/stowage/novelty"
  echo five > "$project/source.txt"
  job "$project" "$log"
  built 1 "$log"
  is_right "$project"
}

# A cache that all branches share: what a merge request puts there is not believed by the jobs
# of a protected branch, which have the keys.
shared_by_branches() {
  local project=$work/shared log=$work/log.shared archive=$work/shared.archive protected=() variables=() forged narinfo
  new_key key-shared
  protected=(--env "STOWAGE_SECRET_KEY=$(cat "$work/key-shared")" --env "STOWAGE_PUBLIC_KEY=$(cat "$work/key-shared.pub")")
  variables=("${protected[@]}")
  clone "$project" one
  job "$project" "$log"
  built 13 "$log"
  pack "$project" fastzip "$archive"

  # The merge request has something of its own, and tells lies of the other's program.
  variables=()
  clone "$project" evil
  restore "$project" fastzip "$archive"
  job "$project" "$log"
  built 1 "$log"
  forged=$(grep -l '^StorePath: .*-program$' "$project"/cache/*.narinfo | xargs grep -L '^Sig:')
  narinfo=$(grep -l '^StorePath: .*-program$' "$project"/cache/*.narinfo | xargs grep -l '^Sig:')
  { grep '^StorePath:' "$narinfo"; grep -v '^StorePath:' "$forged"; } > "$work/narinfo"
  cat "$work/narinfo" > "$narinfo"
  pack "$project" fastzip "$archive"

  # Who has no key believes it,
  clone "$project" one
  restore "$project" fastzip "$archive"
  job "$project" "$log"
  built 0 "$log"
  same 'what an unprotected branch gets' evil "$(in_result "$project")"
  # and who has one builds it, signs it, and has it from the cache from then on.
  variables=("${protected[@]}")
  for number in 1 0; do
    clone "$project" one
    restore "$project" fastzip "$archive"
    job "$project" "$log"
    # Nix says so itself.
    same 'times Nix says that it is not signed' "$number" "$(grep -c 'program.* is not signed by any of the keys' "$log" || true)"
    sed -i '/is not signed by any of the keys/d' "$log"
    built "$number" "$log"
    same 'what a protected branch gets' one "$(in_result "$project")"
    pack "$project" fastzip "$archive"
  done
}

# What was used last 20 days ago goes; what the job takes has not been.
old_paths() {
  local project=$work/old log=$work/log.old day=$((24 * 60 * 60)) before
  clone "$project" two
  restore "$project" fastzip "$(archive_of fastzip second)"
  before=$(($(date +%s) - 20 * day))
  sed -i -E "s/^([0-9a-z]{32}) [0-9]+ /\1 $before /" "$project/cache/stowage/used"
  find "$project/cache" -name '*.narinfo' -exec touch --date="@$before" {} +
  job "$project" "$log"
  built 0 "$log"
  # The program of the first source is gone.
  same 'narinfos' 13 "$(find "$project/cache" -name '*.narinfo' | wc -l)"
  is_right "$project"
}

declare -A image_of
for uid in 1000 1234; do
  spec "$(debnix bookworm sets.ci)" "{\"hook\": true, \"user\": {\"name\": \"ci\", \"uid\": $uid}}" > "$work/$uid.json"
  new_image "gitlab-$uid"
  image_of[$uid]=$image
  need "uid $uid: the image loads" load "$work/$uid.json"
done
as 1000
container=
variables=()
need 'job 1 builds all, in a project as the runner clones it' first_job
for format in $formats; do
  check "$format: the next job builds nothing, and the archive is up to date" next_job "$format"
  check "$format: a commit is one build, and the archive grows by that" changed_job "$format"
  check "$format: a cache restored over another" over_another "$format"
  check "$format: a cache of which a part was restored" cut_off "$format"
  check "$format: jobs of two users share a cache" another_user "$format"
  check "$format: a helper that is no root restores it" helper_is_no_root "$format"
done
check 'jobs that are killed leave what the next ones can use' aborted
check 'an older stowage wrote the cache' from_an_older_version
check 'a job that can only read the cache says so' only_readable
as 1000
check 'a newer stowage wrote the cache' from_a_newer_version
check 'branches share a cache, and the protected ones believe only their own' shared_by_branches
check 'what no job has used for 14 days goes, and what one has used stays' old_paths
