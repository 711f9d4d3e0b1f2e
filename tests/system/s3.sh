#!/bin/bash
# A cache in a bucket: what stowage puts there, Nix takes, whoever else writes, is killed,
# or is wrong about something.  The server is s3s-fs; tests/garage has another.
# shellcheck disable=SC2030,SC2031 # checks are subshells
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
# shellcheck source-path=SCRIPTDIR source=../registry.sh
. "$repo/tests/registry.sh"
# shellcheck source-path=SCRIPTDIR source=../install.sh
. "$repo/tests/install.sh"
# shellcheck source-path=SCRIPTDIR source=../s3.sh
. "$repo/tests/s3.sh"
: "${STOWAGE:?the binary to test}"
unset STOWAGE_SECRET_KEY STOWAGE_CONFIG STOWAGE_SPEC STOWAGE_STRICT CI_PROJECT_DIR

kills=5
races=3
[ -z "${STOWAGE_LONG-}" ] || kills=20 races=20
export HOME=$work/home XDG_STATE_HOME=$work/home/state
mkdir -p "$HOME"
need 's3s-fs is there' install_s3
get bookworm small
small=$(debnix bookworm sets.small)
mapfile -t closure < <(nix-store --query --requisites "$small")
new_key key-1
mkdir -p "$work/data/cache"
start_buckets "$work/data"
cache=$(bucket "$port")
http=http://127.0.0.1:$public_port/cache
files=$work/data/cache

narinfo_of() { echo "$(basename "$1" | cut -c 1-32).narinfo"; }

# nix_takes PATH [OPTION]...: by HTTP, into an empty store that wants signatures of key-1, and
# finds it right.
nix_takes() {
  local store
  store=$(fresh store)
  believing key-1
  nix_of old "${trust[@]}" --option narinfo-cache-negative-ttl 0 copy --from "$http" --to "$store" "$@"
  nix_of old "${trust[@]}" store verify --store "$store" --recursive --sigs-needed 1 "$1"
  chmod -R u+w "$store" && rm -rf "$store"
}
# shellcheck disable=SC2034 # nix_of names it
old=$(command -v nix)

# --- In and out ------------------------------------------------------------------------

check 'the small set goes into a bucket, signed' stowage cache add "$cache" "$small" --secret-key-file "$work/key-1" --quiet
check 'Nix takes it from there, and wants signatures' nix_takes "$small"

nothing_new() {
  local before
  before=$(find "$files/nar" -printf '%p %T@\n' | sort)
  stowage cache add "$cache" "$small" --json | jq --exit-status '.added == 0 and .skipped == '"${#closure[@]}"
  same NARs "$before" "$(find "$files/nar" -printf '%p %T@\n' | sort)"
}
check 'what is there is not sent again' nothing_new

two_signatures() {
  new_key key-2
  stowage cache add "$cache" "$small" --secret-key-file "$work/key-2" --json | jq --exit-status '.signed == '"${#closure[@]}"
  same signatures 2 "$(grep -c ^Sig: "$files/$(narinfo_of "$small")")"
  nix_takes "$small"
}
check 'a second signature is added to the first' two_signatures

extras() {
  stowage cache add "$cache" "$small" --listing --logs --quiet
  jq --exit-status '.version == 1' "$files/$(basename "$small" | cut -c 1-32).ls"
}
check 'listings are added' extras

check 'a check finds all right, to the last byte' stowage cache check "$cache" --deep --strict
check 'info counts it' sh -c "'$program' cache info '$cache' --json | jq --exit-status '.paths == ${#closure[@]} and .withoutNar == 0'"

env_is_for_nix() {
  stowage env "$cache" --format nix.conf --public-key "$work/key-1.pub" | tee "$work/conf"
  grep -qx "extra-substituters = s3://cache?endpoint=127.0.0.1:$port&region=us-east-1&scheme=http" "$work/conf"
  stowage env "$cache" | grep 'trusted=1' > /dev/null
}
check 'env names the store as Nix has it' env_is_for_nix

# Nix without the AWS libraries opens s3:// from 2.34 on, and asks without credentials.
nix_reads_s3() {
  local store
  store=$(fresh store)
  believing key-1
  nix_of newest "${trust[@]}" copy --from "s3://cache?endpoint=127.0.0.1:$public_port&region=us-east-1&scheme=http" --to "$store" "$small"
}
get_moving sid ci && newest=$profile/bin/nix
if [ -n "${newest-}" ]; then check 'the newest Nix takes it by s3://' nix_reads_s3; fi

# --- A job ------------------------------------------------------------------------------

mkdir -p "$work/data/jobs"

a_job() (
  export STOWAGE_CACHE
  STOWAGE_CACHE=$(bucket "$port" jobs)
  ln -sf stowage "$work/bin/stowage-hook"
  new_store "$work/nix" "post-build-hook = $work/bin/stowage-hook"
  stowage cache init "$STOWAGE_CACHE"
  build() {
    nix-build --no-out-link "${@:2}" --expr "derivation {
      name = \"$1\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo $1 > \$out\" ]; }"
  }
  built=$(build job)
  unhooked=$(build alone --option post-build-hook '')
  # The same bucket, written otherwise.
  stowage cache wait "s3://jobs/?scheme=http&endpoint=127.0.0.1:$port"
  test -s "$work/data/jobs/$(narinfo_of "$built")"
  test -s "$work/data/jobs/$(narinfo_of "$unhooked")"
)
check "a job's hook and its end export to a bucket" a_job

# --- Two writers and a reader --------------------------------------------------------------

# noise NAME: a chain of paths, one of which is large enough to be sent in parts.
noise() {
  nix-build --no-out-link --quiet --expr "
    builtins.foldl' (needs: size: derivation {
      name = \"$1-\${toString size}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\";
      inherit needs; args = [ \"-c\" \"head -c \${toString size} /dev/urandom > \$out; echo \$needs >> \$out\" ];
    }) \"\" [ 300000 12000000 200000 310000 20000 ]" 2> /dev/null
}

# forget: what was only made for a test, and is large, stays in no store.
forget() {
  xargs nix-store --query --requisites < "$work/noise" | sort --unique | xargs nix-store --delete > /dev/null
}

# write PATH: the program itself, so that it is what is killed.
write() { exec "$program" cache add "$cache" "$1" --secret-key-file "$work/key-1" --quiet; }

# read_while PID PATH...: whatever has a narinfo, Nix takes, with all that it refers to.
read_while() {
  local pid=$1 path
  shift
  while kill -0 "$pid" 2> /dev/null; do
    for path; do
      if curl --silent --fail --output "$work/narinfo" "$http/$(narinfo_of "$path")"; then
        nix_takes "$path"
        echo "$path" >> "$work/taken"
      fi
    done
  done
}

# one_round NUMBER: two writers of the same paths, of whom one is killed, and a reader.
one_round() {
  local top one other paths
  top=$(noise "round-$1")
  echo "$top" >> "$work/noise"
  mapfile -t paths < <(nix-store --query --requisites "$top")
  (write "$top") & one=$!
  (write "$top") & other=$!
  read_while "$other" "${paths[@]}" & reader=$!
  sleep "$(printf '0.%03d' "$((RANDOM % 400))")"
  if kill -KILL "$one" 2> /dev/null; then echo killed >> "$work/killed"; fi
  wait "$one" || true
  wait "$other"
  wait "$reader"
  nix_takes "$top"
}

killed() {
  local round=0
  : > "$work/killed"
  : > "$work/taken"
  while [ "$(wc -l < "$work/killed")" -lt "$kills" ]; do
    round=$((round + 1))
    [ "$round" -le "$((4 * kills))" ]
    one_round "$round"
  done
  echo "$(wc -l < "$work/killed") killed in $round rounds, while $(wc -l < "$work/taken") paths were taken"
  [ "$(wc -l < "$work/taken")" -ge "$kills" ]
  stowage cache check "$cache" --deep --strict --json | tee "$work/report"
  jq --exit-status '.incomplete == 0' "$work/report"
}
check "two writers, of whom one is killed, $kills times: no reader's Nix sees what is not right" killed

# s3s-fs looks whether a condition holds, and writes a moment later: two may have their way, and
# then the next export signs again.
both_sign() {
  local top path
  top=$(noise signed)
  echo "$top" >> "$work/noise"
  stowage cache add "$cache" "$top" --secret-key-file "$work/key-1" --quiet & one=$!
  stowage cache add "$cache" "$top" --secret-key-file "$work/key-2" --quiet
  wait "$one"
  for key in key-1 key-2; do stowage cache add "$cache" "$top" --secret-key-file "$work/$key" --quiet; done
  nix-store --query --requisites "$top" | while read -r path; do
    same "signatures of $path" 2 "$(grep -c ^Sig: "$files/$(narinfo_of "$path")")"
  done
}
check 'two writers with a key each: in the end both signatures are there' both_sign
check 'what was made for that goes' forget

# --- What can be wrong ------------------------------------------------------------------------

mkdir -p "$work/data/other"
other=$(bucket "$port" other)
as() { env "$@"; }
check 'a wrong secret is told' refused 'the credentials for the bucket other, from AWS_ACCESS_KEY_ID, are wrong' \
  as AWS_SECRET_ACCESS_KEY=wrong "$program" cache add "$other" "$small"
check 'a wrong key is told' refused 'are wrong' as AWS_ACCESS_KEY_ID=wrong "$program" cache add "$other" "$small"
check 'that there are none is told' refused 'there are no credentials for the bucket other' \
  as -u AWS_ACCESS_KEY_ID AWS_EC2_METADATA_DISABLED=true "$program" cache add "$other" "$small"
check 'TLS where there is none is told' refused 'say scheme=http where it has no TLS' \
  "$program" cache add "s3://other?endpoint=127.0.0.1:$port" "$small"
check 'that nobody is there is told' refused 'is the endpoint right, and does it run?' \
  "$program" cache info "$(bucket "$(free_port)")"

start_strained "$port"
strained=$(bucket "$strained_port" other)
in_mood() {
  echo "$1" > "$work/mood"
  shift
  "$@"
}
check 'a missing bucket is told' in_mood missing refused 'there is no bucket other' "$program" cache add "$strained" "$small"
check 'a full one is told' in_mood full refused 'the bucket other is full' "$program" cache add "$strained" "$small"
check 'clocks that differ are told' in_mood skewed refused 'set the clock' "$program" cache info "$strained"

slow() {
  stowage cache add "$strained" "$small" --quiet
  stowage cache check "$strained" --deep --strict
  grep -q '^busy PUT' "$work/strained.log"
}
check 'a slow one that drops some requests, and breaks off some answers, is only slow' in_mood slow slow
rm "$work/mood"

# A hook's build waits until the bucket takes it.
mkdir -p "$work/data/late"
# shellcheck disable=SC2016 # it is Nix's
nothing_is_lost() (
  export STOWAGE_CACHE
  STOWAGE_CACHE=$(bucket "$strained_port" late)
  new_store "$work/lossless" "post-build-hook = $work/bin/stowage-hook"
  stowage cache init "$STOWAGE_CACHE"
  echo full > "$work/mood"
  built=$(nix-build --no-out-link --expr 'derivation {
    name = "late"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo late > $out" ]; }')
  fails stowage cache wait "$STOWAGE_CACHE" 2> "$work/error"
  grep 'the bucket late is full' "$work/error"
  rm "$work/mood"
  stowage cache wait "$STOWAGE_CACHE"
  test -s "$work/data/late/$(narinfo_of "$built")"
)
check 'what a full bucket does not take is told, and goes there later' nothing_is_lost

# A disk that is really full; the server knows no better than that it has failed.
tmpfs 3m "$work/tiny"
mkdir "$work/tiny/cache"
start_s3 "$work/tiny" --access-key "$AWS_ACCESS_KEY_ID" --secret-key "$AWS_SECRET_ACCESS_KEY"
tiny=$(bucket "$port")
full_disk() {
  refused 'overloaded, broken or full' "$program" cache add "$tiny" "$small"
  stowage cache check "$tiny" --deep --strict
}
check 'a server whose disk is full: what is there is right' full_disk

# --- Damage ------------------------------------------------------------------------------------

damage() {
  local nar hello
  hello=$(printf '%s\n' "${closure[@]}" | grep -m 1 -- -hello-)
  nar=$files/$(sed -n 's/^URL: //p' "$files/$(narinfo_of "$hello")")
  # As many bytes as before, but others.
  printf 'damaged' | dd of="$nar" bs=1 seek=100 conv=notrunc status=none
  truncate --size=100 "$files/$(narinfo_of "$small")"
  stowage cache check "$cache" --deep --json | tee "$work/report"
  jq --exit-status '[.quarantined[].file] | any(startswith("nar/")) and any(. == "'"$(narinfo_of "$small")"'")' "$work/report"
  test ! -e "$nar"
  test -e "$files/quarantine/$(basename "$nar")"
  stowage cache check "$cache" --deep --strict
  stowage cache add "$cache" "$small" --secret-key-file "$work/key-1" --quiet
  nix_takes "$small"
}
check 'what is damaged goes out of the way, and is made again' damage

# Nothing is damaged only since the server is not there for a while.
unreachable() {
  local before
  before=$(find "$files" | sort)
  echo busy > "$work/mood"
  fails stowage cache check "$(bucket "$strained_port")" --deep
  rm "$work/mood"
  same files "$before" "$(find "$files" | sort)"
}
check 'a server that is busy for long is no damage' unreachable

# --- Room ----------------------------------------------------------------------------------------

# age DAYS: all that is in the bucket was written and used so long ago.
age() {
  rm -f "$files"/stowage/used/* "$files"/stowage/begun/*
  find "$files" -type f -exec touch --date="$1 days ago" {} +
}

what_is_new_stays() {
  stowage cache gc "$cache" --keep-days 0 --json | tee "$work/report"
  jq --exit-status '.removed == []' "$work/report"
  nix_takes "$small"
}
check 'gc leaves alone what is not a day old' what_is_new_stays

what_is_old_goes() {
  age 3
  # What somebody has sent, and not named yet.
  echo new > "$files/nar/new.nar"
  echo old > "$files/nar/old.nar"
  touch --date='2 days ago' "$files/nar/old.nar"
  stowage cache gc "$cache" --keep-days 1 --keep "$small" --json | tee "$work/report"
  jq --exit-status '.kept == '"${#closure[@]}"' and (.removed | length > 0)' "$work/report"
  test -e "$files/nar/new.nar"
  test ! -e "$files/nar/old.nar"
  same NARs "$((${#closure[@]} + 1))" "$(find "$files/nar" -type f | wc -l)"
  stowage cache check "$cache" --deep --strict
  nix_takes "$small"
}
check 'gc deletes what was not used for long, and nothing that is needed' what_is_old_goes

# Records of use are one again, and what is used stays.
use_is_known() {
  age 3
  stowage cache add "$cache" "$small" --quiet
  stowage cache add "$cache" "$small" --quiet
  stowage cache gc "$cache" --keep-days 1 --json | jq --exit-status '.removed == []'
  same records 1 "$(find "$files/stowage/used" -type f | wc -l)"
}
check 'what an export has only found is used' use_is_known

# Two who delete, while somebody needs what is going.
at_once() {
  local round pids pid
  for round in $(seq "$races"); do
    stowage cache add "$cache" "$small" --secret-key-file "$work/key-1" --quiet
    age 3
    pids=()
    for _ in 1 2; do
      (exec "$program" cache gc "$cache" --keep-days 1 --quiet) & pids+=($!)
    done
    sleep "0.$((RANDOM % 5))"
    stowage cache add "$cache" "$small" --secret-key-file "$work/key-1" --quiet
    for pid in "${pids[@]}"; do wait "$pid"; done
    test ! -e "$files/stowage/collecting"
    stowage cache check "$cache" --deep --strict --json > "$work/report"
    jq --exit-status '.incomplete == 0' "$work/report"
    nix_takes "$small"
  done
  echo "$round rounds"
}
check "two who delete and one who adds, $races times: all that was added is there" at_once
