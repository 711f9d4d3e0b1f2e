#!/bin/bash
# Kills, full disks, read-only caches and links: whatever happens to a hook, a worker
# or an export, nothing that was built is lost, and Nix finds the cache right.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"
unset STOWAGE_SECRET_KEY STOWAGE_CONFIG STOWAGE_SPEC STOWAGE_STRICT CI_PROJECT_DIR

kills=20
[ -z "${STOWAGE_LONG-}" ] || kills=200
export HOME=$work/home XDG_STATE_HOME=$work/home/state STOWAGE_CACHE=$work/cache
mkdir -p "$HOME/.config/stowage"
# xz takes its time.
echo 'compression = "xz:0"' > "$HOME/.config/stowage/config.toml"
ln -s stowage "$work/bin/stowage-hook"
new_store "$work/nix" "post-build-hook = $work/bin/stowage-hook"
queue=$NIX_STATE_DIR/stowage/queue

# expression NAME COUNT SIZE: derivations of so many bytes of noise, each of which
# refers to the one before.
expression() {
  cat <<NIX
builtins.foldl' (list: number: list ++ [ (derivation {
  name = "$1-\${toString number}"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
  args = [ "-c" "head -c $3 /dev/urandom > \$out; echo \$needs >> \$out" ];
  needs = if list == [ ] then "" else builtins.elemAt list (number - 2);
}) ]) [ ] (builtins.genList (n: n + 1) $2)
NIX
}

# build NAME COUNT SIZE [OPTION]...: the store paths.
build() { nix-build --no-out-link --expr "$(expression "$1" "$2" "$3")" "${@:4}"; }

in_cache() { test -s "$STOWAGE_CACHE/$(basename "$1" | cut -c 1-32).narinfo"; }
in_queue() { grep -qrF "\"$(basename "$1")\"" "$queue" --include='*.json'; }

# Each path that was built and has not been deleted.
built() { nix path-info --all | grep -v '\.drv$'; }

# is_right CACHE: to Nix, and to stowage; what a path refers to is there, too.
is_right() {
  local reference
  nix store verify --store "file://$1" --all --no-trust
  stowage cache check "$1" --deep --strict
  sed -n 's/^References: //p' "$1"/*.narinfo | tr --squeeze-repeats ' ' '\n' | while read -r reference; do
    [ -z "$reference" ] || STOWAGE_CACHE=$1 in_cache "$reference"
  done
}

# pause MILLISECONDS: less than that, by chance.
pause() { sleep "$(printf '0.%03d' "$((RANDOM % $1))")"; }

# --- Kills ---------------------------------------------------------------------------

# A hook that may not live to tell.
cat > "$work/bin/short-lived" <<SH
#!/bin/bash
"$work/bin/stowage-hook" &
pid=\$!
read -rt "0.00\$((RANDOM % 10))\$((RANDOM % 10))" <> <(:) || true
kill -KILL "\$pid" 2> /dev/null && echo killed >> "$work/killed-hooks"
wait "\$pid"
SH
chmod +x "$work/bin/short-lived"

# The first worker that there is within a second.
kill_worker() {
  local pid
  for _ in $(seq 20); do
    if pid=$(pgrep --full --oldest "^$program worker"); then
      pause 40
      if kill -KILL "$pid" 2> /dev/null; then echo killed >> "$work/killed-workers"; fi
      return
    fi
    sleep 0.02
  done
}

kill_add() {
  local pid paths
  mapfile -t paths < "$work/unhooked"
  # Not the function, whose shell would be killed.
  "$program" cache add "$STOWAGE_CACHE" "${paths[@]}" --compress xz:0 --quiet &
  pid=$!
  pause 60
  if kill -KILL "$pid" 2> /dev/null; then echo killed >> "$work/killed-adds"; fi
  wait "$pid" || true
}

# while_building NAME KILL: three builds, and a kill meanwhile.
while_building() {
  local pid
  build "$1" 3 300000 > "$work/outs" 2> "$work/build.log" &
  pid=$!
  "$2"
  wait "$pid"
}

# kills_of KIND: how many there were.
kills_of() { find "$work" -maxdepth 1 -name "killed-$1" -exec cat {} + | wc -l; }

# Rounds of kills of one kind each, until there were enough.
killed() {
  local round=0 status
  stowage cache init "$STOWAGE_CACHE"
  while [ "$(kills_of '*')" -lt "$kills" ]; do
    round=$((round + 1))
    status=0
    case $((round % 3)) in
      0) build "hook-$round" 3 300000 --option post-build-hook "$work/bin/short-lived" > "$work/outs" 2> "$work/build.log" || status=$? ;;
      1) while_building "worker-$round" kill_worker || status=$? ;;
      2)
        # What no hook tells of.
        build "unhooked-$round" 3 300000 --option post-build-hook '' > "$work/unhooked" 2> /dev/null
        while_building "add-$round" kill_add || status=$?
        ;;
    esac
    # A hook that was killed is Nix's failure.
    if [ $((round % 3)) != 0 ] || [ "$status" = 0 ]; then
      same "how the build of round $round ended" 0 "$status"
      same 'paths' 3 "$(wc -l < "$work/outs")"
      while read -r path; do
        # The worker takes a record away once its path is in the cache.
        in_queue "$path" || in_cache "$path"
      done < "$work/outs"
    fi
    [ $((round % 10)) != 0 ] || nix store verify --store "file://$STOWAGE_CACHE" --all --no-trust
  done
  for kind in hooks workers adds; do
    echo "$(kills_of "$kind") $kind were killed in $round rounds"
    [ "$(kills_of "$kind")" -ge $((kills / 10)) ]
  done
}

nothing_is_lost() {
  stowage cache wait "$STOWAGE_CACHE"
  same 'records that are left' 0 "$(find "$queue" -name '*.json' | wc -l)"
  built > "$work/built"
  [ "$(wc -l < "$work/built")" -ge "$kills" ]
  while read -r path; do in_cache "$path"; done < "$work/built"
  is_right "$STOWAGE_CACHE"
}

# Each exports half of the same paths, in an order of its own.
eight_writers() {
  local cache=$work/eight number paths half pids=() status
  build eight 40 300000 --option post-build-hook '' > "$work/eight.paths" 2> /dev/null
  mapfile -t paths < "$work/eight.paths"
  for number in $(seq 0 7); do
    shuf -n 20 "$work/eight.paths" > "$work/eight.$number"
    mapfile -t half < "$work/eight.$number"
    "$program" cache add "$cache" "${half[@]}" --jobs 1 --compress xz:0 --quiet &
    pids+=("$!")
  done
  pause 300
  for number in 1 3 5 7; do
    if kill -KILL "${pids[number]}"; then echo "killed $number" >> "$work/eight.killed"; fi
  done
  for number in 0 2 4 6; do wait "${pids[number]}"; done
  for number in 1 3 5 7; do
    status=0
    wait "${pids[number]}" || status=$?
    echo "writer $number ended with $status"
  done
  test -s "$work/eight.killed"
  is_right "$cache"
  for number in 0 2 4 6; do
    while read -r path; do STOWAGE_CACHE=$cache in_cache "$path"; done < "$work/eight.$number"
  done
  # What the killed ones had left to do.
  stowage cache add "$cache" "${paths[@]}" --quiet
  while read -r path; do STOWAGE_CACHE=$cache in_cache "$path"; done < "$work/eight.paths"
  is_right "$cache"
}

check "$kills kills of hooks, workers and exports: what was built is in the cache or recorded" killed
check 'cache wait exports all that is left, and Nix finds the cache right' nothing_is_lost
check 'eight writers, four of them killed' eight_writers

# --- Where nothing can be written -------------------------------------------------------

# fails_with CAUSE COMMAND...: fails, and says where and why.
fails_with() {
  local cause=$1
  shift
  fails "$@" > "$work/said" 2>&1
  cat "$work/said"
  grep -F "$cause" "$work/said" | grep -F "$cache"
}

# exports_later PATH...: when the hook has told of them, cache wait says what is wrong, and
# they stay recorded.
stays_recorded() {
  local path
  fails_with "$1" stowage cache wait "$cache"
  shift
  for path; do in_queue "$path"; done
}

full_disk() {
  local cache=$work/full/cache paths
  export STOWAGE_CACHE=$cache
  tmpfs 20m "$work/full"
  mapfile -t paths < <(build full 8 4000000 2> "$work/build.log")
  test "${#paths[@]}" = 8
  stays_recorded 'No space left on device' "${paths[7]}"
  fails_with 'No space left on device' stowage cache add "$cache" "${paths[7]}"
  is_right "$cache"
  test "$(find "$cache" -name '*.narinfo' | wc -l)" -ge 2
  same 'unfinished files' 0 "$(find "$cache" -name '.tmp-*' | wc -l)"
  mount -o remount,size=60m "$work/full"
  stowage cache wait "$cache"
  for path in "${paths[@]}"; do in_cache "$path"; done
  is_right "$cache"
}

read_only() {
  local cache=$work/mounted/cache path first
  export STOWAGE_CACHE=$cache
  mkdir -p "$cache"
  first=$(build first 1 1000 2> /dev/null)
  stowage cache wait "$cache"
  mount --bind "$work/mounted" "$work/mounted"
  mount -o remount,bind,ro "$work/mounted"
  path=$(build read-only 1 1000 2> "$work/build.log")
  stays_recorded 'Read-only file system' "$path"
  fails_with 'Read-only file system' stowage cache add "$cache" "$path"
  # What is there counts as there, and Nix reads it.
  stowage cache add "$cache" "$first"
  nix copy --no-check-sigs --from "file://$cache" --to "$work/from-read-only" "$first"
  stowage cache check "$cache" --deep --strict
  umount "$work/mounted"
  stowage cache wait "$cache"
  in_cache "$path"
  is_right "$cache"
}

# An ordinary user, whose cache is root's now.
not_permitted() {
  local home=$work/ordinary cache=$work/ordinary/cache first path
  mkdir "$home"
  new_store "$home/nix" "post-build-hook = $work/bin/stowage-hook"
  chown -R "$ordinary:$ordinary" "$home"
  queue=$NIX_STATE_DIR/stowage/queue
  first=$(as_ordinary "$home" STOWAGE_CACHE="$cache" nix-build --no-out-link --expr "$(expression first 1 1000)")
  as_ordinary "$home" "$program" cache wait "$cache"
  chown -R root:root "$cache"
  path=$(as_ordinary "$home" STOWAGE_CACHE="$cache" nix-build --no-out-link --expr "$(expression second 1 1000)")
  stowage() { as_ordinary "$home" "$program" "$@"; }
  stays_recorded 'Permission denied' "$path"
  fails_with 'Permission denied' stowage cache add "$cache" "$path"
  as_ordinary "$home" nix copy --no-check-sigs --from "file://$cache" --to "$home/store" "$first"
  chown -R "$ordinary:$ordinary" "$cache"
  stowage cache wait "$cache"
  STOWAGE_CACHE=$cache in_cache "$path"
}

check 'a full disk is an error, the cache stays right, and all goes on when there is room' full_disk
check 'a read-only file system: the build goes on, the record stays, and Nix reads the cache' read_only
check 'a cache that one may not write to, likewise' not_permitted

# --- Links ---------------------------------------------------------------------------------

times() { find "$1" -printf '%p %i %U %m %T@ %C@ %s\n' | sort; }

# swapped FOLDER: while root exports, the owner puts a link in the place of the cache,
# or of its folder nar.
swapped() {
  local name=$1 project outside before round paths swaps=0
  project=$(fresh swapped) outside=$(fresh outside)
  build swapped 12 200000 --option post-build-hook '' > "$work/swapped.paths" 2> /dev/null
  mapfile -t paths < "$work/swapped.paths"
  mkdir -p "$outside/nar"
  touch "$outside/nar/file"
  before=$(times "$outside")
  chown "$ordinary:$ordinary" "$project"
  chmod 755 "$project"
  for round in $(seq 10); do
    rm -rf "$project/cache" "$project/real"
    "$program" cache add "$project/cache" "${paths[@]}" --compress xz:6 --jobs 1 --quiet 2> "$work/said" &
    until [ -d "$project/cache/nar" ]; do sleep 0.005; done
    pause 200
    as_ordinary "$project" sh -c "mv '$name' real; ln -s '$outside${name#cache}' '$name'"
    kill -0 $! && swaps=$((swaps + 1))
    wait $! || true
    cat "$work/said"
    same 'outside' "$before" "$(times "$outside")"
  done
  echo "$swaps of $round swaps were in time"
  test "$swaps" -ge 5
  # Now it is there from the beginning.
  fails stowage cache add "$project/cache" "${paths[@]}" 2> "$work/said"
  cat "$work/said"
  grep 'symbolic link' "$work/said"
  same 'outside' "$before" "$(times "$outside")"
}

check 'a link in the place of the cache in the midst of an export of root: nothing is written there' swapped cache
check 'nor in the place of its folder nar' swapped cache/nar
