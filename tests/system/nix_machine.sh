#!/bin/bash
# A machine that is made of NixOS's module: its files in their places, its daemon with its
# hook, and its units' programs with what systemd would take from them: what they may write,
# their capabilities, and their system calls.
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
# For the stand-in's package.
STOWAGE=$(readlink -f "$STOWAGE")
new_key key

# machine NAME SETTINGS [MODULE]: from now on, the machine is one of these settings: in a mount
# namespace of its own, with /nix, /etc, /srv and the like of its own, and its daemon running.
# What is in them is in $root, too. Not within a check, which would not end what it starts.
machine() {
  root=$work/machines/$1
  mkdir -p "$root"/nix/{store,var/nix} "$root"/{srv,cache,run}
  cp -a /etc "$root/etc"
  mkdir -p "$root/etc/nix" "$root/etc/stowage"
  # Somebody else's, which root without capabilities can't read.
  install -m 400 -o "$ordinary" "$work/key" "$root/run/key"
  # shellcheck disable=SC2016 # for the other shell
  unshare --mount --propagation private /bin/sh -euc '
    for folder in nix etc srv run; do mount --bind "$1/$folder" /$folder; done
    mount --bind "$1/cache" /var/cache
    touch "$1/ready"
    exec sleep infinity' sh "$root" &
  inside=$!
  started "$inside"
  until_there -e "$root/ready"
  need "the machine $1 is made" make_machine "${@:2}"
  # As its own unit would run it: root, in /, with nobody's variables.
  enter=exec in_machine nix-daemon > "$root/daemon.log" 2>&1 < /dev/null &
  started "$!"
  until_there -S "$root/nix/var/nix/daemon-socket/socket"
}

until_there() {
  for _ in $(seq 200); do
    [ "$@" ] && return
    sleep 0.05
  done
  echo "$2 does not appear"
  return 1
}

# make_machine SETTINGS [MODULE]: puts what NixOS would put there.
make_machine() {
  local own='nix.settings = { sandbox = false; substituters = [ ]; build-users-group = ""; };'
  printf 'sandbox = false\nsubstituters =\nbuild-users-group =\n' > "$root/etc/nix/nix.conf"
  in_machine env STOWAGE="$STOWAGE" nix-build --out-link /nix/var/nix/gcroots/system --expr "($(nixos "$1" "$own ${2-}")).file"
  cp "$root/nix/store/$(basename "$(readlink "$root/nix/var/nix/gcroots/system")")" "$root/system.json"
  jq --raw-output '.settings | to_entries[] | "\(.key) = \(.value | if type == "array" then join(" ") else tostring end)"' \
    "$root/system.json" > "$root/etc/nix/nix.conf"
  # By links, as there.
  mkdir -p "$root/etc/static/stowage"
  jq --raw-output '.etc["stowage/config.toml"]' "$root/system.json" > "$root/etc/static/stowage/config.toml"
  ln -s /etc/static/stowage/config.toml "$root/etc/stowage/config.toml"
  jq --raw-output '.tmpfiles[]' "$root/system.json" > "$root/tmpfiles.conf"
  in_machine systemd-tmpfiles --create "$root/tmpfiles.conf"
}

# in_machine COMMAND...: there.  With $enter as `exec`, in place of this shell.
in_machine() {
  ${enter-} nsenter --target "$inside" --mount --wd=/ env --ignore-environment PATH="$PATH" LC_ALL=C HOME=/run "$@"
}

# make NAME [SCRIPT]: has the daemon build it, as an ordinary user.
make() {
  in_machine setpriv --reuid="$ordinary" --regid="$ordinary" --clear-groups env HOME=/tmp NIX_REMOTE=daemon \
    nix-build --no-out-link --expr "derivation {
      name = \"$1\"; system = builtins.currentSystem; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\";
      args = [ \"-c\" \"${2:-echo $1 > \$out}\" ]; }" 2> "$work/make.log"
}

# unit NAME [FILTER]: what the machine's systemd would run for it, with its settings as the
# filter changes them, for $patience seconds at the most: a worker waits for what failed.
patience=60
unit() {
  jq ".services | .[\"$1\"] |= (. | ${2:-.})" "$root/system.json" > "$root/units.json"
  in_machine timeout "$patience" "$repo/tests/nix/as-unit" "$root/units.json" "$1"
}

narinfo() { echo "$root/srv/cache/$(basename "$1" | cut -c 1-32).narinfo"; }

# left: what is recorded still, or held without need.
left() { find "$root/nix/var/nix/stowage/queue" "$root/nix/var/nix/gcroots/stowage-queue" ! -type d | wc -l; }

works() {
  local out
  out=$(make recorded)
  same 'record and root' 2 "$(left)"
  test ! -e "$(narinfo "$out")"
  unit stowage-worker
  same 'record and root' 0 "$(left)"
  grep '^Sig: key:' "$(narinfo "$out")"
  test -s "$(narinfo "$out" | sed 's/narinfo$/ls/')"
  test -n "$(find "$root/srv/cache/log" -type f)"
  same 'owners' 'root:root' "$(find "$root/srv/cache" -printf '%u:%g\n' | sort -u)"
  # Nobody else gets the key, and nothing of the unit's stays.
  fails grep -rqF "$(cut -d : -f 2 "$work/key")" "$root/nix" "$root/etc" "$root/srv" "$root/cache"
  fails test -e "$root/tmp"
}

# While a build runs, the newest rows are in a file beside the database, which is read only.
beside_a_build() {
  local out
  make slow "sleep 6; echo > \$out" > "$work/slow" &
  sleep 1
  out=$(make beside)
  test -s "$root/nix/var/nix/db/db.sqlite-wal"
  unit stowage-worker
  test -s "$(narinfo "$out")"
  kill -0 "$!"
  wait "$!"
  unit stowage-worker
  test -s "$(narinfo "$(cat "$work/slow")")"
}

# Without one of the folders that it may write to, something is left.
each_folder() {
  local folder
  jq --raw-output '.services["stowage-worker"].ReadWritePaths[]' "$root/system.json" > "$work/writable"
  same folders 3 "$(wc -l < "$work/writable")"
  while read -r folder; do
    make "without-$(basename "$folder")"
    patience=3 unit stowage-worker ".ReadWritePaths -= [\"$folder\"]" || true
    echo "without $folder: $(left) left"
    test "$(left)" != 0
    # Now, and not when what failed is due.
    in_machine "$(jq --raw-output '.packages[0]' "$root/system.json")/bin/stowage" cache wait /srv/cache
    # What is left without a record goes after a day.
    find "$root/nix/var/nix/gcroots/stowage-queue" -type l -delete
    same left 0 "$(left)"
  done < "$work/writable"
}

# What somebody could do who has taken over a unit; CAPABILITIES is what it may have.
confined() {
  local name=$1 capabilities=$2
  cat > "$root/run/attack" <<'SH'
can() { "$@" > /dev/null 2>&1 && echo "CAN $*"; }
for folder in / /nix/store /nix/var/nix /nix/var/nix/db /nix/var/nix/gcroots /nix/var/nix/profiles /etc /etc/nix /srv /var /usr /run /dev /proc/sys/kernel; do
  can touch "$folder/planted"
done
can sqlite3 /nix/var/nix/db/db.sqlite 'create table planted (x)'
can test -e /tmp/stowage-test-mine
[ -z "$(ls -A /root 2> /dev/null)" ] || echo "CAN see homes"
can mount -t tmpfs none /srv/cache
can mknod /srv/cache/disk b 8 0
can unshare --user true
can unshare --mount true
can nsenter --target 1 --mount true
can chmod u+s /srv/cache/nix-cache-info
can setpriv --reuid=1000 --clear-groups true
can date --set=@0
can python3 -c 'import socket; socket.socket(socket.AF_INET)'
can python3 -c 'import socket; socket.socket(socket.AF_UNIX)'
can python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'
cat /proc/self/status
echo ended
SH
  in_machine touch /tmp/stowage-test-mine
  unit "$name" ".ExecStart = \"/bin/sh /run/attack\"" > "$work/attacked" 2>&1
  rm /tmp/stowage-test-mine
  cat "$work/attacked"
  grep '^ended' "$work/attacked"
  fails grep '^CAN' "$work/attacked"
  grep '^Seccomp:.*2$' "$work/attacked"
  grep '^NoNewPrivs:.*1$' "$work/attacked"
  same capabilities "$capabilities" "$(awk '$1 == "CapEff:" { print $2 }' "$work/attacked")"
}

collects() {
  local before
  make big "head -c 3000000 /dev/urandom > \$out"
  unit stowage-worker
  before=$(du -s "$root/srv/cache" | cut -f 1)
  unit stowage-gc | tee "$work/collected"
  test "$(du -s "$root/srv/cache" | cut -f 1)" -lt $((before - 2000))
}

owned() {
  local out
  out=$(make owned)
  same owner nobody:nogroup "$(stat --format %U:%G "$root/srv/cache")"
  unit stowage-worker
  test -s "$(narinfo "$out")"
  same owners nobody:nogroup "$(find "$root/srv/cache" -printf '%u:%g\n' | sort -u)"
  unit stowage-gc
  same owners nobody:nogroup "$(find "$root/srv/cache" -printf '%u:%g\n' | sort -u)"
}

# An image, with the folder that it goes to: see the option's description.
image() {
  local out
  printf '{"name": "ci"}' > "$root/etc/stowage/ci.json"
  mkdir "$root/srv/images"
  out=$(make ci-environment "mkdir \$out; echo > \$out/file")
  unit stowage-worker
  same records 0 "$(left)"
  test -s "$root/srv/images/ci/index.json"
  stowage inspect "oci:$root/srv/images/ci" | tee "$work/inspected"
  test -s "$(narinfo "$out")"
}

strict() {
  local out
  out=$(make strict)
  same records 0 "$(left)"
  grep '^Sig: key:' "$(narinfo "$out")"
  mv "$root/run/key" "$root/run/no-key"
  fails make strict-without-key
  cat "$work/make.log"
  grep -q "stowage-hook' failed with exit code" "$work/make.log"
}

to_bucket() {
  local out
  out=$(make to-bucket)
  same 'record and root' 2 "$(left)"
  unit stowage-worker
  same 'record and root' 0 "$(left)"
  grep '^Sig: key:' "$work/data/cache/$(basename "$out" | cut -c 1-32).narinfo"
  unit stowage-gc
}

collecting='gc = { enable = true; maxSize = "1M"; };'
signing='secretKeyFiles = [ "/run/key" ];'
machine usual "enable = true; cache = \"/srv/cache\"; $signing listing = true; logs = true; $collecting"
check 'the hook records, and the worker exports and signs' works
check 'the worker reads the database while a build runs' beside_a_build
check 'the worker needs each folder that it may write to' each_folder
check 'the worker may do nothing else' confined stowage-worker 0000000000000000
check 'gc may do nothing else' confined stowage-gc 0000000000000000
check 'gc makes the cache smaller' collects

machine owned "enable = true; cache = \"/srv/cache\"; owner = \"nobody\"; group = \"nogroup\"; $collecting"
check 'the cache of another user is his' owned
check 'for that the worker has three capabilities' confined stowage-worker 000000000000000b

machine images 'enable = true; cache = "/srv/cache"; images = [ { match = "ci-*"; spec = "/etc/stowage/ci.json"; to = [ "oci:/srv/images/ci" ]; } ];' \
  'systemd.services.stowage-worker.serviceConfig.ReadWritePaths = [ "/srv" ];'
check 'the worker builds images' image

machine strict "enable = true; cache = \"/srv/cache\"; $signing strict = true;"
check 'strict: the hook exports, and a failure stops Nix' strict

need 's3s-fs is there' install_s3
mkdir -p "$work/data/cache"
start_buckets "$work/data"
machine bucket "enable = true; cache = \"$(bucket "$port")\"; $signing environmentFile = \"/run/env\"; gc = { enable = true; keepDays = 9; };"
printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" > "$root/run/env"
check 'the worker exports to a bucket' to_bucket
