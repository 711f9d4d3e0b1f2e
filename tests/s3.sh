# Real servers of S3 for tests; to be sourced after lib.sh, install.sh and registry.sh.
# shellcheck shell=bash disable=SC2034,SC2154

# Nobody's own settings count.
unset "${!AWS_@}"
export AWS_ACCESS_KEY_ID=ci-key AWS_SECRET_ACCESS_KEY=ci-secret-key

# start_s3 FOLDER [OPTION]...: s3s-fs, whose buckets are the folders in FOLDER; puts its
# port into $port.
start_s3() {
  local folder=$1
  shift
  port=$(free_port)
  mkdir -p "$folder"
  "$tools/bin/s3s-fs" --host 127.0.0.1 --port "$port" "$@" "$folder" > "$work/s3-$port.log" 2>&1 &
  started "$!"
  wait_for_port "$port" "$work/s3-$port.log"
}

# start_buckets FOLDER: the same for whoever has the keys, as $port, and for everybody who
# wants to read, as $public_port: as with a bucket that a web server shows.
start_buckets() {
  start_s3 "$1"
  public_port=$port
  start_s3 "$1" --access-key "$AWS_ACCESS_KEY_ID" --secret-key "$AWS_SECRET_ACCESS_KEY"
}

# bucket PORT [NAME]: its address.
bucket() { echo "s3://${2-cache}?endpoint=127.0.0.1:$1&scheme=http"; }

# start_strained PORT: somebody between stowage and the server at PORT, who has the moods in
# $work/mood; puts his port into $strained_port.
start_strained() {
  strained_port=$(free_port)
  python3 "$repo/tests/system/strained" "$strained_port" "$1" "$work/mood" > "$work/strained.log" 2>&1 &
  started "$!"
  wait_for_port "$strained_port" "$work/strained.log"
}
