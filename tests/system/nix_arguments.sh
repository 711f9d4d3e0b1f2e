#!/bin/bash
# The arguments of the functions in nix/, as people have them for dockerTools: what is wrong is named, and
# what is right does what it says. Images come from a registry with TLS, too.
# What is between single quotes is Nix's.
# shellcheck disable=SC2016
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix/lib.sh
. "$repo/tests/nix/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../registry.sh
. "$repo/tests/registry.sh"
: "${STOWAGE:?the binary to test}"
start_docker
get bookworm ci images accounts

# --- What is wrong -----------------------------------------------------------

# told MESSAGE EXPRESSION
told() {
  # Nix has many codes for what fails.
  if nix_expression bookworm "$2" 2> "$work/said"; then return 1; fi
  cat "$work/said"
  grep -F -- "$1" "$work/said"
}

# As proot tells of the last process that ends, some of these may seem to have gone well.
commands_fail() {
  local is_chroot commands
  for is_chroot in true false; do
    for commands in 'false' 'exit 3' 'touch made; nothing-of-that-name' '(exit 7); touch made'; do
      for _ in 1 2 3; do
        told 'fakeRootCommands failed' "buildLayeredImage {
          name = \"fails\"; contents = [ debnix.bash ]; enableFakechroot = $is_chroot; fakeRootCommands = \"$commands\";
        }"
      done
    done
  done
  told 'extraCommands failed' 'buildImage { name = "fails"; copyToRoot = [ debnix.bash ]; extraCommands = "echo >> bin/bash"; }'
  grep -F 'what is named in `mutable` is copied' "$work/said"
}

# --- Files at / --------------------------------------------------------------

# files_of EXPRESSION: what is in an image's top layer.
files_of() { tar --list --file "$(system_layer "$(nix_expression bookworm "$1")")"; }

commands_have_what_they_expect() {
  files_of 'buildLayeredImage {
    name = "expects"; contents = [ debnix.bash debnix.coreutils ]; enableFakechroot = true;
    extraCommands = "echo \"$nobody_has_set\" > empty";
    fakeRootCommands = "file=$(mktemp); echo \"$nobody_has_set\" > $file; cp $file /made";
  }' > "$work/files"
  cat "$work/files"
  for name in empty made; do grep -x "$name" "$work/files"; done
  fails grep -E 'stowage|build|tmp\.' "$work/files"
}

# More than fits into one argument of a program.
commands_may_be_long() {
  files_of 'let many = builtins.concatStringsSep "\n" (builtins.genList (number: "echo ${toString number} >> numbers") 20000);
    in buildLayeredImage { name = "long"; contents = [ debnix.coreutils ]; fakeRootCommands = many; }' > "$work/files"
  grep -x numbers "$work/files"
}

# The owner that was given is that of what is there before the commands, and who builds is none.
owners() {
  local image_folder
  for owner in 'uid = 7; gid = 8;' 'uid = null; gid = null;'; do
    image_folder=$(nix_expression bookworm "buildImage {
      name = \"owners\"; copyToRoot = debnix.hello; $owner extraCommands = \"mkdir before\";
      fakeRootCommands = \"mkdir after; chown 5 after\";
    }")
    tar --list --verbose --numeric-owner --file "$(system_layer "$image_folder")" bin before after
    image_folder=$(nix_expression bookworm "buildImage { name = \"owners\"; copyToRoot = debnix.hello; $owner extraCommands = \"mkdir before\"; }")
    tar --list --verbose --numeric-owner --file "$(system_layer "$image_folder")" bin/hello before
  done | awk '{ print $2, $6 }' | sort > "$work/owners"
  diff "$work/owners" - <<'OWNERS'
0/0 before/
0/0 before/
0/0 bin/
0/0 bin/hello
0/0 bin/hello
5/0 after/
5/0 after/
7/8 before/
7/8 before/
7/8 bin/
7/8 bin/hello
7/8 bin/hello
OWNERS
}

# As in dockerTools, who runs as somebody else has that one's home, which the container finds.
users_have_their_own_home() {
  load_image "$(nix_expression bookworm 'buildLayeredImage {
    name = "users"; config.User = "bob"; fakeRootCommands = "mkdir -p data/bob; chown 5:5 data/bob";
    contents = [ debnix.bash debnix.coreutils (fakeNss.override {
      extraPasswdLines = [ "bob:x:5:5::/data/bob:/bin/bash" ]; extraGroupLines = [ "bob:x:5:" ];
    }) ];
  }')"
  docker run --rm --network=none "$image" /bin/bash -euc 'id -u; echo "$HOME ${USER-none}"; touch ~/file; pwd' | tee "$work/said"
  same said '5 /data/bob none /' "$(xargs < "$work/said")"
}

# The image's own files are behind links, of packages and of commands.
links_in_place_of_folders() {
  local package='(pkgs.runCommand "links" { } "mkdir -p $out/usr; ln -s ../bin $out/usr/bin; ln -s /var/tmp $out/tmp")'
  local commands='mkdir usr data; ln -s ../bin usr/bin; ln -s data home; ln -s var/tmp tmp; mkdir var'
  for given in "$package ]" "]; extraCommands = \"$commands\""; do
    load_image "$(nix_expression bookworm "buildLayeredImage {
      name = \"links\"; user.name = \"alice\"; contents = [ debnix.bash debnix.coreutils $given;
    }")"
    docker run --rm --network=none "$image" /usr/bin/bash -euc 'cd; pwd; echo > /tmp/x; ls /var/tmp; stat -c %a:%u /tmp/ ~; readlink /usr/bin' | tee "$work/said"
    same said '/home/alice x 1777:0 755:1000 ../bin' "$(xargs < "$work/said")"
  done
}

# As in nixpkgs' manual, for a service with a user of its own.
accounts_are_added() {
  load_image "$(nix_expression bookworm 'buildImage {
    name = "accounts"; copyToRoot = [ debnix.bash debnix.coreutils ]; enableFakechroot = true;
    fakeRootCommands = "
      ${shadowSetup}
      groupadd -r redis
      useradd -r -g redis -d /data -M redis
      mkdir /data
      chown redis:redis /data
    ";
  }')"
  docker run --rm --network=none "$image" /bin/bash -euc 'stat -c %U:%G /data; id -un redis; id -u' | tee "$work/said"
  same said 'redis:redis redis 0' "$(xargs < "$work/said")"
}

# Links to what is in a folder of a package, or copies, are at /, and nothing else.
folders_are_contents() {
  local mutable image_folder
  local folder='"${debnix.hello}/share"'
  for mutable in '[ ]' true; do
    image_folder=$(nix_expression bookworm "buildLayeredImage {
      name = \"folder\"; contents = [ $folder ]; mutable = $mutable; config.Cmd = [ \"\${debnix.bash}/bin/bash\" ];
    }")
    load_image "$image_folder"
    docker run --rm --network=none "$image" "$(debnix bookworm bash)/bin/bash" -c \
      'echo /*; test -e /doc/hello/copyright; if test -L /doc || test -L /doc/hello/copyright; then echo linked; fi' > "$work/said"
    cat "$work/said"
    grep -w /doc "$work/said"
    fails grep -wE '/bin|/share' "$work/said"
    if [ "$mutable" = true ]; then fails grep linked "$work/said"; else grep linked "$work/said"; fi
  done
}

# A link that is copied leads where it has led, though that is not in the folder.
copied_links() {
  local image_folder
  image_folder=$(nix_expression bookworm 'buildLayeredImage {
    name = "links"; mutable = true; config.Cmd = [ "${debnix.bash}/bin/bash" ];
    contents = [ "${pkgs.runCommand "linked" { } "mkdir -p $out/share $out/lib; echo real > $out/lib/real; ln -s ../lib/real $out/share/link"}/share/" ];
  }')
  load_image "$image_folder"
  docker run --rm --network=none "$image" "$(debnix bookworm bash)/bin/bash" -c 'read -r line < /link; echo "$line"' > "$work/said"
  same link real "$(cat "$work/said")"
}

# --- What is said ------------------------------------------------------------

ci_images_have_contents() {
  nix_expression bookworm 'buildCIImage { name = "ci"; contents = [ debnix.hello ]; copyToRoot = null; }' > "$work/image"
  grep -- '-hello_' "$(cat "$work/image")/stowage.json" || grep -- '-hello-' "$(cat "$work/image")/stowage.json"
}

# spec_of EXPRESSION FILTER
spec_of() { jq --raw-output "$2" "$(nix_expression bookworm "($1).spec")"; }

architectures() {
  same architecture arm64 "$(spec_of 'buildImage { name = "x"; architecture = "arm64"; }' .architecture)"
  same architecture amd64 "$(spec_of 'buildImage { name = "x"; includeStorePaths = false; }' .architecture)"
  same architecture null "$(spec_of 'buildImage { name = "x"; }' .architecture)"
}

dates() {
  local date
  for date in 2024-01-02 20240102; do
    same created 2024-01-02T00:00:00Z "$(spec_of "buildImage { name = \"x\"; created = \"$date\"; }" .created)"
  done
  for date in 20240102030405 2024-01-02T03:04:05 2024-01-02T03:04:05Z; do
    same created 2024-01-02T03:04:05Z "$(spec_of "buildImage { name = \"x\"; created = \"$date\"; }" .created)"
  done
  date=$(spec_of 'buildImage { name = "x"; created = "now"; }' .created)
  test $(($(date +%s) - $(date --date "$date" +%s))) -lt 600
}

store_is_of_that_time() {
  local image_folder times
  image_folder=$(nix_expression bookworm 'buildLayeredImage {
    name = "dated"; mtime = "1980-01-01"; config.Cmd = [ "${debnix.hello}/bin/hello" ];
    layers = [ (buildLayer { deps = [ debnix.hello ]; mtime = "19800101"; }) ];
  }' 2> "$work/said")
  cat "$work/said"
  fails grep anew "$work/said"
  load_image "$image_folder"
  docker save "$image" > "$work/saved.tar"
  mkdir -p "$work/saved"
  tar --extract --file "$work/saved.tar" --directory "$work/saved"
  times=$(python3 - "$work/saved" <<'PYTHON'
import glob, os, sys, tarfile
times = set()
for path in glob.glob(os.path.join(sys.argv[1], "**"), recursive=True):
    if os.path.isfile(path) and tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            times |= {member.mtime for member in tar if member.name.count("/") > 1 and member.name.startswith("nix/store/")}
print(*sorted(times))
PYTHON
  )
  same times 315532800 "$times"
}

dockers_config() {
  local image_folder config
  image_folder=$(nix_expression bookworm 'buildLayeredImage {
    name = "config"; config = { Hostname = "box"; Tty = true; ArgsEscaped = null; Cmd = [ "${debnix.hello}/bin/hello" ]; };
  }')
  config=$(jq --raw-output .config "$image_folder/stowage.json")
  jq --compact-output '.config | [.Hostname, .Tty, has("ArgsEscaped")]' "$image_folder/blobs/sha256/${config#sha256:}" | grep -Fx '["box",true,false]'
  load_image "$image_folder"
  docker run --rm --network=none "$image" | grep 'Hello, world'
}

overridden() {
  nix_instantiate 'map (image: image.imageName) [
    ((buildImage { name = "a"; }).override { name = "b"; })
    ((buildLayeredImage { name = "a"; }).override (old: { name = old.name + "c"; }))
    ((streamLayeredImage { name = "a"; }).override { name = "d"; })
    ((buildNixShellImage { drv = debnix.hello; name = "a"; }).override { name = "e"; })
    (((buildCIImage { name = "a"; }).override { name = "f"; }).override { tag = "1"; })
    ((pullImage { imageName = "a"; imageDigest = "sha256:0"; hash = ""; }).override (old: { finalImageName = "g"; }))
  ]' | jq --compact-output . | grep -Fx '["b","ac","d","e","f","g"]'
  nix_expression bookworm 'fakeNss.override (old: { extraPasswdLines = [ "one:x:1:1::/:" ]; })' > "$work/nss"
  grep one "$(cat "$work/nss")/etc/passwd"
  test "$(nix_instantiate '((buildLayer { deps = [ debnix.hello ]; }).override { uid = 3; }).drvPath')" \
    != "$(nix_instantiate '(buildLayer { deps = [ debnix.hello ]; }).drvPath')"
}

nix_instantiate() {
  nix-instantiate --eval --strict --json --expr "
    let all = import $repo/tests/nix { index = $(index_of bookworm); stowage = $program; };
    in with all; with tools; $1"
}

# Where no tag is given, it changes with whatever the image is made of, or by.
tags_tell_images_apart() {
  local one other
  one='(buildImage { name = "x"; }).imageTag'
  cp "$program" "$work/another"
  echo >> "$work/another"
  other=$(program=$work/another nix_instantiate "$one")
  test "$(nix_instantiate "$one")" = "$(nix_instantiate "$one")"
  test "$(nix_instantiate "$one")" != "$other"
  test "$(nix_instantiate "$one")" != "$(nix_instantiate '(buildImage { name = "x"; created = "20240101"; }).imageTag')"
}

# --- Parents -----------------------------------------------------------------

parents() {
  local hello parent
  hello='(buildLayeredImage { name = "parent"; tag = "1"; config.Cmd = [ "${debnix.hello}/bin/hello" ]; })'
  for parent in \
    "fromImage = $hello; fromImageName = \"parent\"; fromImageTag = \"1\";" \
    "fromImage = $hello.stream;" \
    "fromImage = mergeImages [ (buildImage { name = \"other\"; tag = \"1\"; }) $hello ]; fromImageName = \"parent\"; fromImageTag = \"1\";"; do
    load_image "$(nix_expression bookworm "buildLayeredImage { name = \"child\"; $parent contents = [ debnix.bash ]; }")"
    docker run --rm --network=none "$image" | grep 'Hello, world'
  done
  told 'fromImage is parent:1, and not parent:2' "buildImage { name = \"x\"; fromImage = $hello; fromImageName = \"parent\"; fromImageTag = \"2\"; }"
}

# As somebody else's Nix runs, which knows no certificates; the authority is in cacert. The image has
# stowage itself, by its store path.
pulled() {
  local push digest expression hash path
  push=$(nix_expression bookworm "(buildCIImage { name = \"$host/ci-image\"; tag = \"1\"; contents = [ debnix.bash debnix.coreutils ]; }).copyToRegistry")
  SSL_CERT_FILE=$work/authority/authority.pem "$push/bin/copy-to-registry" --json > "$work/pushed.json"
  digest=$(jq --raw-output .digest "$work/pushed.json")
  expression="let all = import $repo/tests/nix {
      index = $(index_of bookworm); stowage = $program; authority = $work/authority/authority.pem;
    };
    pulled = all.tools.pullImage { name = \"pulled-$$\"; imageName = \"$host/ci-image\"; imageDigest = \"$digest\"; hash = \"HASH\"; };"
  if pull "$expression in pulled" 2> "$work/mismatch"; then return 1; fi
  cat "$work/mismatch"
  hash=$(sed -n 's/.*got: *\(sha256-[^ ]*\).*/\1/p' "$work/mismatch")
  expression=${expression/HASH/$hash}
  path=$(pull "$expression in pulled")
  grep -r "$(basename "$(nix_of bookworm stowage)")" "$path/blobs" > "$work/named"
  nix-store --check-validity "$path"
  test -z "$(nix-store --query --references "$path")"
  load_image "$(pull "$expression in all.tools.buildLayeredImage { name = \"on-pulled\"; fromImage = pulled; contents = [ all.debnix.hello ]; }")"
  docker run --rm --network=none "$image" bash -euc 'hello; nix-store --verify --check-contents' | grep 'Hello, world'
}

pull() {
  env --unset=SSL_CERT_FILE --unset=NIX_SSL_CERT_FILE nix-build --no-out-link \
    --option hashed-mirrors '' --expr "${1/HASH/sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}"
}

new_image nix-arguments
check 'an argument that nobody knows is named' told 'it takes no argument contnts' 'buildImage { name = "x"; contnts = [ ]; }'
check 'so is one of runAsRoot, with what to use' told 'use fakeRootCommands, with enableFakechroot' 'buildImage { name = "x"; runAsRoot = "x"; }'
check 'and of layers, with theirs' told '`strategy`, `popularity` and `layers`' 'buildLayeredImage { name = "x"; layeringPipeline = [ ]; }'
check 'two names for one thing' told 'is the older name of' 'buildImage { name = "x"; contents = [ ]; copyToRoot = [ ]; }'
check 'for an image for CI, too' told 'is the older name of' 'buildCIImage { name = "x"; contents = [ ]; copyToRoot = [ ]; }'
check 'no name' told 'buildImage: the image needs a `name`' 'buildImage { copyToRoot = [ ]; }'
check 'a user that is no number' told 'buildImage: uid is a number from 0, and not -1' 'buildImage { name = "x"; uid = -1; }'
check 'a compressor that is none' told 'there is no compressor "xz"' 'buildLayeredImage { name = "x"; compressor = "xz"; }'
check 'an image in place of several' told 'mergeImages: it takes a list of images' 'mergeImages (buildImage { name = "x"; })'
check 'a result in place of a derivation' told 'buildDepsOf: it takes derivations' 'buildImage { name = "x"; buildDepsOf = "${debnix.hello}"; }'
check 'contents that are none' told 'none is a null' 'buildImage { name = "x"; copyToRoot = [ null ]; }'
check 'a file that is to be laid out' told 'is no folder' 'buildImage { name = "x"; copyToRoot = [ "${debnix.bash}/bin/bash" ]; }'
check 'a layer of nothing' told 'names nothing' 'buildLayer { deps = [ ]; }'
check 'a tool that was not given' told 'needs gnutar' \
  '(import '"$repo"'/nix { inherit stowage; inherit (debnix) bash coreutils; }).buildImage { name = "x"; extraCommands = "true"; }'
check 'commands that fail make no image' commands_fail
check 'commands have temporary files, and variables that are not set' commands_have_what_they_expect
check 'they may be long' commands_may_be_long
check 'files are of the owner that was given, until commands give them away' owners
check 'who runs as somebody else has that home' users_have_their_own_home
check 'links may be where the image has folders' links_in_place_of_folders
check 'accounts are added by shadowSetup' accounts_are_added
check 'a folder of a package is contents, linked and copied' folders_are_contents
check 'copied links of a folder lead where they led' copied_links
check 'an image for CI has contents by either name' ci_images_have_contents
check 'dates come in several forms' dates
check 'the architecture is that of the machine where no program tells' architectures
check 'files of the store are of the time that is asked for' store_is_of_that_time
check "keys of Docker's own are handed on" dockers_config
check 'results can be overridden' overridden
check 'tags tell images apart' tags_tell_images_apart
check 'parents are images of ours, programs and archives of several' parents
certificate "$work/authority"
start_registry tls "  tls: {certificate: $work/authority/cert.pem, key: $work/authority/key.pem}"
check 'an image with stowage in it is pulled from a registry with TLS' pulled
