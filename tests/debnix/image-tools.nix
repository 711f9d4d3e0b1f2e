# Shows that the set "images" can make the files of an image in a Nix build:
# owners, modes and capabilities that the builder may not give, with fakeroot,
# and a folder that is / to the commands that change it, with proot.
#
#   nix-build image-tools.nix --arg index /var/cache/debnix/packages.json
{ index, debs ? null } @ arguments:

let
  debnix = import ./. arguments;
in derivation {
  name = "image-tools";
  system = "x86_64-linux";
  builder = "${debnix.bash}/bin/bash";
  PATH = "${debnix.sets.images}/bin:${debnix.sets.images}/sbin";
  inherit (debnix) hello;

  # What runs as root, in whichever folder is /.  A file that gets a capability
  # has to be given an owner first: fakeroot takes the real one otherwise.
  commands = ''
    mkdir x opt
    cp bin/server opt
    chown 0:0 opt/server
    chown 12345:12345 x
    chmod 4755 opt/server
    setcap cap_net_bind_service=+ep opt/server
    mknod null c 1 3
    test "$(stat -c %u:%a opt/server)" = 0:4755
    tar --create --file "$layer" --sort=name --mtime=@1 --numeric-owner --format=posix \
      --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
      --xattrs --xattrs-include=security.capability ''${excluded-} .
  '';

  inRoot = ''
    test "$PWD $(echo /bin/*)" = "/ /bin/hello /bin/server"
    test "$(/bin/hello)" = "Hello, world!"
    test ! -e /nix/var
    excluded="--exclude=./dev --exclude=./nix --exclude=./proc"
  '';

  expected = ''
    drwxr-xr-x 0/0 ./
    drwxr-xr-x 0/0 ./bin/
    lrwxrwxrwx 0/0 ./bin/hello
    -rwxr-xr-x 0/0 ./bin/server
    crw-r--r-- 0/0 ./null
    drwxr-xr-x 0/0 ./opt/
    -rwsr-xr-x 0/0 ./opt/server
    drwxr-xr-x 12345/12345 ./x/
  '';

  args = [ "-euo" "pipefail" "-c" ''
    # root NAME: makes a folder of that name.
    root() {
      mkdir -p "$1/bin"
      echo served > "$1/bin/server"
      chmod 755 "$1/bin/server"
      ln -s "$hello/bin/hello" "$1/bin/hello"
    }
    hex() { od -A n -t x1 "$@" | tr -d ' \n'; }
    mkdir "$out"

    root outside
    export layer=$out/fakeroot.tar
    (cd outside && fakeroot sh -euc "$commands")

    root inside
    layer=$out/proot.tar
    touch "$layer"
    proot -r "$PWD/inside" -b /dev -b /proc -b "$NIX_STORE" -b "$layer" --pwd=/ fakeroot bash -euc "$inRoot$commands"

    key=$(printf SCHILY.xattr.security.capability= | hex)
    for layer in "$out"/*.tar; do
      tar --list --verbose --numeric-owner --file "$layer" | while read -r mode owner _ _ _ name _; do
        echo "$mode $owner $name"
      done | tee list
      test "$(cat list)" = "''${expected%?}"
      hex "$layer" | grep -o "''${key}0100000200040000000000000000000000000000"
    done

    # As an entrypoint's, their libraries are there.
    nginx -v
    redis-server --version
    jq --version
    echo zstd | zstd | zstd -d
  '' ];
}
