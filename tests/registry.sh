# Real registries for tests and benchmarks; to be sourced after lib.sh.
# shellcheck shell=bash disable=SC2154

# free_port: a port of this machine that nobody has.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for_port PORT LOG: until somebody answers there.
wait_for_port() {
  for _ in $(seq 100); do
    if python3 -c "import socket; socket.create_connection(('127.0.0.1', $1))" 2> /dev/null; then return; fi
    sleep 0.1
  done
  cat "$2"
  return 1
}

# start_registry NAME [YAML]: Debian's registry, in $work/NAME, with more
# configuration.  Puts its host into $host; its requests go to $work/NAME/requests.
start_registry() {
  local folder=$work/$1 port
  port=$(free_port)
  host=127.0.0.1:$port
  mkdir -p "$folder/data"
  cat > "$folder/config.yml" <<YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $folder/data}}
http:
  addr: $host
  secret: a
${2-}
YAML
  docker-registry serve "$folder/config.yml" > "$folder/requests" 2> "$folder/log" &
  started "$!"
  wait_for_port "$port" "$folder/log"
}

# requests NAME: what was asked since the last time, a line each: METHOD PATH STATUS.
requests() {
  local file=$work/$1/requests
  sleep 0.2
  sed -n 's/.*"\([A-Z]* [^ ]*\) HTTP\/1.1" \([0-9]*\) .*/\1 \2/p' "$file"
  : > "$file"
}

# certificate FOLDER: in FOLDER a certificate for this machine, by an authority of its own.
certificate() {
  mkdir -p "$1"
  (
    cd "$1"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout authority.key -out authority.pem
    openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout key.pem -out request.pem
    echo 'subjectAltName=IP:127.0.0.1' > names
    openssl x509 -req -in request.pem -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out cert.pem
  ) 2> /dev/null
}
