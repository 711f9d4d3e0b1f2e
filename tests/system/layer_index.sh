#!/bin/bash
# A layer index that machines share, by a folder or by an image: the second one
# opens no store file of layers; any number of builders, killed or not, leave
# right records; and nothing that lies in the folder does harm.
#
# A machine is a cache folder of its own; all have one store.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"

calls=open,openat,openat2,readlink,readlinkat,getdents,getdents64,execve,execveat,truncate,name_to_handle_at
shared=$work/shared

# on MACHINE ARGUMENT...: builds, and prints what stowage says of it.
on() {
  local machine=$1
  shift
  XDG_CACHE_HOME=$work/machine-$machine timeout 120 "$program" build --json "$@"
}

# traced MACHINE ARGUMENT...: builds, with all that is opened in $work/trace, the digest in $work/digest.
traced() {
  local machine=$1
  shift
  XDG_CACHE_HOME=$work/machine-$machine strace --follow-forks -qq -y --string-limit=4096 --trace="$calls" \
    --output="$work/trace" "$program" build --json "$@" > "$work/built.json"
  jq --raw-output .digest "$work/built.json" > "$work/digest"
}

# files: the files below store paths that were opened; listing contents is none.
files() { grep -E '"?/nix/store(>, ")?/?[a-z0-9]{32}-' "$work/trace" | grep -E 'open(at2?)?\(' | grep -vE 'O_DIRECTORY|O_PATH|ENOENT' || true; }

opens_all() {
  traced "$@"
  test "$(files | wc -l)" -gt 20
  test "$("$repo/tests/system/opened" "$work/trace" | wc -l)" -gt 3
}

opens_none() {
  traced "$@"
  "$repo/tests/system/opened" "$work/trace" > "$work/opened"
  cat "$work/opened"
  test ! -s "$work/opened"
  same digest "$(cat "$work/first")" "$(cat "$work/digest")"
}

# Contents are listed, to lay them out.
opens_no_file() {
  traced "$@"
  files > "$work/opened"
  head "$work/opened"
  test ! -s "$work/opened"
}

first() {
  opens_all "$@"
  cp "$work/digest" "$work/first"
}

# Blobs that are there already, as in a registry.
knows_compressed() {
  on one --spec "$1" --to "oci:$work/zstd" --compress zstd --layer-index "$shared" > "$work/zstd.json"
  jq --raw-output .digest "$work/zstd.json" > "$work/first"
  opens_none four --spec "$1" --to "oci:$work/zstd" --compress zstd --layer-index "$shared"
}

knows_compressed_by_image() {
  opens_none five --spec "$1" --to "oci:$work/zstd" --compress zstd --layer-index "oci:$work/zstd"
}

own_is_told() {
  rm -rf "$shared"
  on one --spec "$1" --to "stowage:$work/again" --layer-index "$shared"
  opens_none six --spec "$1" --to "stowage:$work/six" --layer-index "$shared"
}

# What others say stays theirs.
own_stays_own() {
  on one --spec "$1" --to "stowage:$work/again" --layer-index "$shared"
  on seven --spec "$1" --to "stowage:$work/seven" --layer-index "$shared"
  # The system layer, and nothing else.
  ls "$work/machine-seven/stowage/layers"
  test "$(find "$work/machine-seven" -name '*.layer.json' | wc -l)" = 1
}

archives_tell_nothing() {
  on one --spec "$1" --to "docker-archive:$work/archive.tar"
  fails on eight --spec "$1" --to "stowage:$work/eight" --layer-index "docker-archive:$work/archive.tar" 2>&1 | tee "$work/said"
  grep 'a docker archive has no manifest' "$work/said"
}

# --- Many builders -----------------------------------------------------------

# plan NUMBER: arguments of a build with layers like no other's.
plan() { echo --strategy popularity --max-layers $((4 + $1)); }

builder() {
  # shellcheck disable=SC2046 # word splitting is meant
  on "round$2-$1" --spec "$spec" $(plan "$1") --to "stowage:$work/image-$2-$1" --layer-index "$shared"
}

# round NUMBER: eight builders, of which half are killed, if they are not done by then.
round() {
  local number pid pids=()
  for number in 1 2 3 4 5 6 7 8; do
    XDG_CACHE_HOME=$work/machine-round$1-$number "$program" build --json --spec "$spec" --strategy popularity \
      --max-layers $((4 + number)) --to "stowage:$work/image-$1-$number" --layer-index "$shared" > "$work/out-$number" 2>&1 &
    pids+=($!)
  done
  for number in 0 2 4 6; do
    sleep "0.01$((RANDOM % 10))"
    kill -9 "${pids[number]}" 2> /dev/null || true
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || killed=$((killed + 1))
  done
}

# records FOLDER: all its records, each with its text.
records() { (cd "$1" && for record in *.json; do echo "$record $(cat "$record")"; done | sort); }

stay_right() {
  local number killed=0
  rm -rf "$shared"
  for number in $(seq "${STOWAGE_LONG:+2}5"); do round "$number"; done
  echo "$killed killed"
  test "$killed" -gt 2
  # What a machine of its own finds out, with all eight plans.
  for number in 1 2 3 4 5 6 7 8; do
    # shellcheck disable=SC2046 # word splitting is meant
    on alone --spec "$spec" $(plan "$number") --to "stowage:$work/alone-$number" | jq --raw-output .digest > "$work/alone-$number.digest"
  done
  records "$work/machine-alone/stowage/layers" > "$work/right"
  records "$shared" > "$work/found"
  echo "$(wc -l < "$work/found") records"
  test "$(wc -l < "$work/found")" -gt 8
  comm -13 "$work/right" "$work/found" > "$work/wrong"
  cat "$work/wrong"
  test ! -s "$work/wrong"
  for number in 1 2 3 4 5 6 7 8; do
    same "digest of $number" "$(cat "$work/alone-$number.digest")" "$(builder "$number" last | jq --raw-output .digest)"
  done
  test -z "$(find "$shared" -name '.tmp-*' -mtime +1)"
}

deleted_meanwhile() {
  local number deleter
  while :; do rm -rf "$shared" 2> /dev/null || true; sleep 0.01; done &
  deleter=$!
  # shellcheck disable=SC2064 # now is meant
  trap "kill $deleter" EXIT
  for number in 1 2 3 4 5 6 7 8; do
    builder "$number" deleted > "$work/out"
    same "digest of $number" "$(cat "$work/alone-$number.digest")" "$(jq --raw-output .digest "$work/out")"
  done
}

# --- Harm --------------------------------------------------------------------

# spoil FOLDER: puts what is no record under the names of all records of store layers.
spoil() {
  local record kind=0 system
  # What is made in memory is nothing for others, so nobody would mend it.
  system=$(jq --raw-output '.layers[-1].key' "$work/alone-1/stowage.json")
  rm -rf "$1"
  install -d -o 1000 -g 1000 "$1"
  for record in $(cd "$work/machine-alone/stowage/layers" && echo *.layer.json); do
    [ "$record" != "${system#sha256:}.layer.json" ] || continue
    case $((kind++ % 8)) in
      0) ln -s "$work/precious" "$1/$record" ;;
      1) mkfifo "$1/$record" ;;
      2) mkdir "$1/$record" ;;
      3) truncate --size 1G "$1/$record" ;;
      4) echo '[1, {"version": "one"}]' > "$1/$record" ;;
      5) head -c 50 "$work/machine-alone/stowage/layers/$record" > "$1/$record" ;;
      6) sed 's/"version":1/"version":7/' "$work/machine-alone/stowage/layers/$record" > "$1/$record" ;;
      7) ln -s /dev/zero "$1/$record" ;;
    esac
  done
  chown -h -R 1000:1000 "$1"
  echo "$kind records spoilt"
  test "$kind" -ge 8
}

harmless() {
  local number
  echo precious > "$work/precious"
  spoil "$shared"
  for number in 1 2 3 4 5 6 7 8; do
    same "digest of $number" "$(cat "$work/alone-$number.digest")" "$(builder "$number" spoilt | jq --raw-output .digest)"
  done
  same 'what a link leads to' precious "$(cat "$work/precious")"
  # What root wrote belongs to the folder's owner, and is right.
  test -z "$(find "$shared" ! -uid 1000)"
  test "$(find "$shared" -type f -name '*.layer.json' -size -2 | wc -l)" -gt 4
  find "$shared" -type f -exec cat '{}' + | jq --exit-status .version > "$work/versions"
  test -z "$(find "$shared" -type l -o -type p)"
}

foreign_link() {
  mkdir "$work/roots"
  ln -s "$work/roots" "$work/link"
  chown -h 1000:1000 "$work/link"
  on link --spec "$spec" --to "stowage:$work/linked" --layer-index "$work/link" 2> "$work/said"
  cat "$work/said"
  grep "the layer index $work/link is not used" "$work/said"
  test -z "$(ls "$work/roots")"
}

# lie: makes all records in $shared name another layer.
lie() {
  rm -rf "$shared"
  on one --spec "$spec" --to "stowage:$work/again" --layer-index "$shared" > "$work/true.json"
  sed -i -E 's/"diffId":"sha256:[0-9a-f]{8}/"diffId":"sha256:00000000/' "$shared"/*.layer.json
}

# liar NAME DESTINATION [WARNING]: a build that reads all bytes comes to what is right, and mends
# the records.
liar() {
  lie
  on "$1" --spec "$spec" --to "$2" --layer-index "$shared" > "$work/out" 2> "$work/said"
  cat "$work/said"
  same digest "$(jq --raw-output .digest "$work/true.json")" "$(jq --raw-output .digest "$work/out")"
  [ -z "${3-}" ] || grep "$3" "$work/said"
  ! grep -l 'sha256:00000000' "$shared"/*.layer.json
}

liar_to_stdout() {
  lie
  XDG_CACHE_HOME=$work/machine-stdout "$program" build --spec "$spec" --to "$1" --layer-index "$shared" > "$work/stdout.tar"
  rm -f "$work/config" && "$program" inspect "${1%-}$work/stdout.tar" --json | jq --raw-output .configDigest > "$work/config"
  same config "$(jq --raw-output .config "$work/true.json")" "$(cat "$work/config")"
}

# The README says so: an image folder reads nothing, so it believes what it is told.
own_wins() {
  lie
  same digest "$(jq --raw-output .digest "$work/true.json")" \
    "$(on one --spec "$spec" --to "stowage:$work/again" --layer-index "$shared" | jq --raw-output .digest)"
  ! grep -l 'sha256:00000000' "$shared"/*.layer.json
}

get bookworm small
small=$(debnix bookworm sets.small)
spec "$small" '{"contents": []}' | jq --arg small "$small" '.config.Cmd = [$small + "/bin/hello"]' > "$work/config.json"
spec "$small" > "$work/contents.json"
need 'a first machine opens all' first one --spec "$work/config.json" --to "stowage:$work/one" --layer-index "$shared"
check 'a second one opens nothing' opens_none two --spec "$work/config.json" --to "stowage:$work/two" --layer-index "$shared"
STOWAGE_LAYER_INDEX=$shared check 'nor where the variable names the folder' opens_none env --spec "$work/config.json" --to "stowage:$work/env"
check 'nor where an image is named' opens_none three --spec "$work/config.json" --to "stowage:$work/three" --layer-index "stowage:$work/one"
check 'nor where it is the previous one' opens_none previous --spec "$work/config.json" --to "stowage:$work/previous" --previous "$work/one"
check 'nor where compressed layers are there' knows_compressed "$work/config.json"
check 'nor where the image with these is named' knows_compressed_by_image "$work/config.json"
need 'with contents, a first machine opens all' opens_all with --spec "$work/contents.json" --to "stowage:$work/with" --layer-index "$work/shared2"
check 'and a second one no file' opens_no_file with2 --spec "$work/contents.json" --to "stowage:$work/with2" --layer-index "$work/shared2"
check 'and by the image no file' opens_no_file with3 --spec "$work/contents.json" --to "stowage:$work/with3" --layer-index "stowage:$work/with"
traced one --spec "$work/config.json" --to "stowage:$work/one" && cp "$work/digest" "$work/first"
check 'a folder is told what only the own index knows' own_is_told "$work/config.json"
check 'what others know is not copied to the own index' own_stays_own "$work/config.json"
check 'a docker archive is refused as an index' archives_tell_nothing "$work/config.json"
spec=$work/contents.json
check '8 builders at once, half of them killed, leave right records' stay_right
check 'the folder is deleted during builds' deleted_meanwhile
check 'links, pipes, folders, and huge, cut and foreign files do no harm' harmless
check 'a link of somebody else is not followed to the folder' foreign_link
check 'wrong records: a layout gets what is right' liar lied-layout "oci:$work/lied" 'none of them is believed now'
check 'wrong records: a docker archive gets what is right' liar lied-docker "docker-archive:$work/lied.tar"
check 'wrong records: an OCI archive gets what is right' liar lied-oci "oci-archive:$work/lied-oci.tar"
check 'wrong records: so does a docker archive in a pipe' liar_to_stdout docker-archive:-
check 'wrong records: so does an OCI archive in a pipe' liar_to_stdout oci-archive:-
check 'wrong records: the own index wins, and mends them' own_wins
