#!/bin/bash
# nix/'s package, overlay, flake and NixOS module, evaluated by real Nix with a stand-in for
# nixpkgs.  A machine that is made of the module is in nix_machine.sh.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
# shellcheck source-path=SCRIPTDIR source=../nix.sh
. "$repo/tests/nix.sh"
: "${STOWAGE:?the binary to test}"
# For the stand-in's package.
STOWAGE=$(readlink -f "$STOWAGE")
export STOWAGE

# From the machine's own store.
get trixie ci
new=$(debnix trixie sets.ci)/bin/nix
new_store "$work/nix" 'experimental-features = nix-command flakes' 'flake-registry ='
unset CI_PROJECT_DIR STOWAGE_CONFIG STOWAGE_CACHE STOWAGE_STRICT STOWAGE_SPEC
export HOME=$work/home
mkdir -p "$HOME"

usual='enable = true; cache = "/srv/cache";'

# value SETTINGS [MODULE]: what it consists of, as JSON.
value() { nix-instantiate --eval --strict --json --expr "($(nixos "$@")).value"; }

# ask FILTER SETTINGS [MODULE]: of that.
ask() {
  local filter=$1
  shift
  value "$@" | jq --raw-output --exit-status "$filter"
}

# --- Evaluation --------------------------------------------------------------

parses() {
  local file
  for file in "$repo/flake.nix" "$repo"/nix/*.nix "$repo"/tests/nix/*.nix "$repo"/tests/nix/stand-in/*.nix; do
    nix-instantiate --parse "$file" > /dev/null
  done
}

overlay() {
  local with="with import $repo/tests/nix/stand-in { overlays = [ (import $repo/nix/overlay.nix) ]; };"
  nix-instantiate --eval --strict --json --expr "$with { inherit (stowage) name; inherit (stowage.meta) mainProgram; }" |
    jq --exit-status '.mainProgram == "stowage" and (.name | startswith("stowage-static-"))'
  [ ! -e "$repo/nix/default.nix" ] ||
    nix-instantiate --eval --strict --json --expr "$with { image = builtins.isFunction stowageTools.buildImage; streams = stowageTools ? override; }" |
    jq --exit-status '.image and (.streams | not)'
}

package() {
  local out
  out=$(nix-build --no-out-link --expr "(import $repo/tests/nix/stand-in { }).pkgsStatic.callPackage $repo/nix/package.nix { }")
  "$out/bin/stowage" --version
  same 'link' stowage "$(readlink "$out/bin/stowage-hook")"
  grep -q 'compdef' "$out/share/zsh/site-functions/_stowage"
  test -s "$out/share/bash-completion/completions/stowage"
  test -s "$out/share/fish/vendor_completions.d/stowage.fish"
  test -s "$out/share/man/man1/stowage.1"
}

# Without the module, and with it and nothing said, or all of it said but `enable`.
disabled() {
  local none
  none=$(nix-instantiate --eval --strict --json --expr "(import $repo/tests/nix/system.nix { modules = [ ]; }).value")
  same 'a system' "$none" "$(value '')"
  same 'a system' "$none" "$(value 'cache = "/tmp/x"; strict = true; gc.maxSize = "1G";')"
}

sets_nix() {
  ask '.settings["post-build-hook"] | test("^/nix/store/|/store/[a-z0-9]{32}-stowage-hook$")' "$usual"
  same 'workers' true "$(ask '.etc["stowage/config.toml"] | contains("worker = false\n")' "$usual")"
}

all_settings="$usual
  owner = \"nobody\"; group = \"nogroup\"; export = \"build\"; skipSignedBy = [ \"cache.nixos.org-1\" ];
  exclude = [ \"*-source\" \"with \\\"quotes\\\"\" ]; compression = \"zstd:9\";
  secretKeyFiles = [ \"/run/secrets/a\" \"/run/secrets/b\" ]; environmentFile = \"/run/secrets/env\";
  listing = true; logs = true; strict = true;
  images = [ { match = \"ci*\"; spec = \"/etc/stowage/ci.json\"; to = [ \"docker://registry.example/ci:latest\" ]; } ];
  gc = { enable = true; maxSize = \"50G\"; keepDays = 30; keep = [ \"/run/current-system\" ]; dates = \"Sun 04:00\"; };"

# Each key of the configuration is set, and stowage reads it.
all_keys() {
  ask '.etc["stowage/config.toml"]' "$all_settings" > "$work/all.toml"
  cat "$work/all.toml"
  stowage hook --install --dir "$work/etc" --config "$work/all.toml"
  tomlq . "$work/all.toml" > "$work/all.json"
  jq --exit-status '. == {
    cache: "/srv/cache", export: "build", skipSignedBy: ["cache.nixos.org-1"], exclude: ["*-source", "with \"quotes\""],
    compression: "zstd:9", secretKeyFiles: ["/run/secrets/a", "/run/secrets/b"], listing: true, logs: true, strict: true,
    worker: false, image: [{match: "ci*", spec: "/etc/stowage/ci.json", to: ["docker://registry.example/ci:latest"]}]
  }' "$work/all.json"
  # Those that there are, by the example in the documentation.
  same 'keys' "$(sed -n '/^    cache = /,/^$/p' "$repo/hooks/README.md" | sed -n 's/^    \([a-zA-Z]*\) = .*/\1/p' | sort | xargs)" \
    "$(jq --raw-output 'del(.image) | keys[]' "$work/all.json" | sort | xargs)"
}

units() {
  local name
  value "$all_settings" > "$work/all"
  mkdir -p "$work/units"
  for name in $(jq --raw-output '.units | keys[]' "$work/all"); do
    jq --raw-output --arg name "$name" '.units[$name]' "$work/all" | sed "s|^ExecStart=[^ ]*|ExecStart=/bin/true|" > "$work/units/$name"
    [ "$name" != nix-daemon.service ] || printf 'ExecStart=/bin/true\n' | sed -i '/^\[Service\]/r /dev/stdin' "$work/units/$name"
  done
  same units 'nix-daemon.service stowage-gc.service stowage-gc.timer stowage-worker.path stowage-worker.service stowage-worker.timer' \
    "$(cd "$work/units" && echo *)"
  systemd-analyze verify "$work"/units/* 2>&1 | tee "$work/verified"
  test ! -s "$work/verified"
  jq --raw-output '.services["stowage-gc"].ExecStart' "$work/all" |
    grep ' cache gc /srv/cache --max-size 50G --keep-days 30 --keep /run/current-system$'
  # What of the machine is exposed, of 10: a unit without any setting has 9.6.
  for name in stowage-worker stowage-gc; do
    systemd-analyze security --offline=true --threshold=30 "$work/units/$name.service" | tail -n 1
  done
}

# says MESSAGE SETTINGS [MODULE]: that is an error, which says so.
says() {
  local message=$1
  shift
  fails value "$@" > "$work/out" 2>&1
  cat "$work/out"
  grep -qF -- "$message" "$work/out"
}

types() {
  says "The option \`nix.stowage.cache' is used but not defined" 'enable = true;'
  says "option \`nix.stowage.enable' is not of type \`boolean'" 'enable = "yes";'
  says "option \`nix.stowage.cache' is not of type" 'enable = true; cache = "cache";'
  says "option \`nix.stowage.cache' is not of type" 'enable = true; cache = "/srv/../etc";'
  says "option \`nix.stowage.export' is not of type \`one of " "$usual export = \"all\";"
  says "option \`nix.stowage.compression' is not of type" "$usual compression = \"rar\";"
  says "option \`nix.stowage.exclude' is not of type" "$usual exclude = \"*-source\";"
  says "option \`nix.stowage.secretKeyFiles.[entry 1]' is not of type" "$usual secretKeyFiles = [ ./key ];"
  says "option \`nix.stowage.gc.keepDays' is not of type" "$usual gc = { enable = true; keepDays = -1; };"
  says "option \`nix.stowage.images.[entry 1].to' is not of type" "$usual images = [ { match = \"a\"; spec = \"/s\"; to = [ ]; } ];"
  says "option \`nix.stowage.images.[entry 1].spec' is used but not defined" "$usual images = [ { match = \"a\"; to = [ \"x\" ]; } ];"
  says "The option \`nix.stowage.cash' does not exist" "$usual cash = 1;"
}

senseless() {
  says 'nix.stowage.enable: there is no Nix' "$usual" 'nix.enable = false;'
  says 'nix.stowage.cache: /tmp/cache is in a folder' 'enable = true; cache = "/tmp/cache";'
  says 'nix.stowage.cache: ' "enable = true; cache = builtins.storeDir + \"/cache\";"
  says 'nix.stowage.owner and nix.stowage.group are of a folder' 'enable = true; cache = "s3://cache"; owner = "nobody";'
  says 'nix.stowage.secretKeyFiles: a key in the Nix store' "$usual secretKeyFiles = [ \"\${builtins.toFile \"key\" \"x\"}\" ];"
  says 'nix.stowage.environmentFile: credentials in the Nix store' "$usual environmentFile = \"\${builtins.toFile \"key\" \"x\"}\";"
  says 'nix.stowage.gc.enable: say what goes' "$usual gc.enable = true;"
  says 'do nothing unless nix.stowage.gc.enable is true' "$usual gc.maxSize = \"1G\";"
  # Another hook: Nix has one.
  says "\`nix.settings.post-build-hook' has conflicting definition values" "$usual" 'nix.settings.post-build-hook = "/other";'
}

rights() {
  local with
  # Into a bucket goes what needs a network, and no folder.
  with='enable = true; cache = "s3://cache?endpoint=s3.example.org&region=r"; environmentFile = "/run/secrets/env"; gc = { enable = true; keepDays = 9; };'
  ask '.services["stowage-worker"] | (.PrivateNetwork | not) and .EnvironmentFile == "/run/secrets/env"
    and .ReadWritePaths == ["/nix/var/nix/stowage", "/nix/var/nix/gcroots/stowage-queue"]
    and (.RestrictAddressFamilies | contains(["AF_INET", "AF_INET6"]))' "$with"
  ask '.services["stowage-gc"].ReadWritePaths == [] and (.tmpfiles | length == 3)' "$with"
  ask '.services["stowage-worker"].ProtectHome == false' 'enable = true; cache = "/home/ci/cache";'
  ask '.services["stowage-worker"].ProtectHome == "tmpfs"' "$usual" 'systemd.services.stowage-worker.serviceConfig.ProtectHome = "tmpfs";'
  ask '.services["stowage-worker"].ReadWritePaths | contains(["/srv/images", "/srv/cache"])' "$usual" \
    'systemd.services.stowage-worker.serviceConfig.ReadWritePaths = [ "/srv/images" ];'
  ask '.services["nix-daemon"] == {EnvironmentFile: "/run/secrets/env"}' "$with strict = true;"
}

# --- The flake ---------------------------------------------------------------

# A copy of what is the flake's, so that neither git nor what a build has left matters.
mkdir "$work/flake"
cp -r "$repo"/{flake.nix,nix,Cargo.toml,Cargo.lock,src} "$work/flake"

# flake COMMAND [ARGUMENT]...: with the stand-in in nixpkgs' place.
flake() {
  nix "$@" --override-input nixpkgs "path:$repo/tests/nix/stand-in" --no-write-lock-file
}
of_flake() { flake eval --json "path:$work/flake#$1" "${@:2}"; }

flake_outputs() {
  flake flake show --json "path:$work/flake" | tee "$work/flake.json"
  jq --exit-status '
    (.packages | map_values(keys)) as $packages
    | $packages == {"aarch64-linux": ["default", "stowage"], "x86_64-linux": ["default", "stowage"]}
      and (.packages[].default.name | startswith("stowage-static-"))
      and (.checks | map_values(keys)) == {"aarch64-linux": ["module", "package"], "x86_64-linux": ["module", "package"]}
      and .overlays.default.type == "nixpkgs-overlay" and .nixosModules.default.type == "nixos-module"' "$work/flake.json"
  flake flake check --no-build "path:$work/flake"
}

# The other arguments of default.nix are in its own tests.
flake_functions() {
  local pkgs="(import $repo/tests/nix/stand-in { system = \"x86_64-linux\"; })"
  same functions true "$(of_flake lib.x86_64-linux --apply 'lib: builtins.isFunction lib.buildImage')"
  same functions true "$(of_flake lib.aarch64-linux --apply 'lib: builtins.isFunction lib.buildImage')"
  same functions true "$(of_flake lib.withPkgs --impure --apply "withPkgs: builtins.isFunction (withPkgs $pkgs).buildImage")"
}

flake_module() {
  local out system
  of_flake nixosModules.default --impure --apply "module: (import $repo/tests/nix/system.nix {
    modules = [ module { nix.stowage = { $usual }; } ]; }).value" > "$work/by-flake"
  same 'a system' "$(value "$usual" | jq --sort-keys '.settings, .etc')" "$(jq --sort-keys '.settings, .etc' "$work/by-flake")"
  system=$(nix eval --impure --raw --expr builtins.currentSystem)
  out=$work/flake-check
  flake build --impure --out-link "$out" "path:$work/flake#checks.$system.module"
  cat "$out/stowage-hook"
}

# --- The documentation -------------------------------------------------------

# example NAME: the one that begins with that comment.
example() {
  local text
  text=$(awk -v name="# $1" '/^```/ { inside = 0 } inside { print } $0 == name { inside = 1 }' "$repo/nix/README.md")
  test -n "$text"
  echo "$text"
}

examples() {
  local name command
  export NIX_PATH=nixpkgs=$repo/tests/nix/stand-in
  cd "$repo"
  command=$(sed -n '/^    \(nix-build -E .*\)/{s//\1/p;q}' nix/README.md)
  test -x "$(bash -euc "$command --no-out-link")/bin/stowage"
  same name stowage "$(nix-instantiate --eval --json --expr "($(example overlay)).stowage.meta.mainProgram" | jq --raw-output .)"
  for name in module images; do
    nix-instantiate --eval --strict --json --expr "(import ./tests/nix/system.nix { modules = [ ./nix/module.nix ($(example "$name")) ]; }).value" > "$work/$name"
    jq --raw-output '.etc["stowage/config.toml"]' "$work/$name" > "$work/$name.toml"
    stowage hook --install --dir "$work/etc" --config "$work/$name.toml"
  done
  jq --exit-status '.services["stowage-worker"].ReadWritePaths | contains(["/srv/images"])' "$work/images"
}

# The machine of the example, with the module's own example for its configuration.
example_of_flake() {
  mkdir "$work/user"
  example flake > "$work/user/flake.nix"
  example module > "$work/user/configuration.nix"
  nix eval --json --no-write-lock-file --override-input nixpkgs "path:$repo/tests/nix/stand-in" \
    --override-input stowage "path:$work/flake" "path:$work/user#nixosConfigurations.builder.config.nix.settings" |
    jq --exit-status '.["post-build-hook"]'
}

check 'all files of Nix can be parsed' parses
check 'the package has what it should' package
check 'the overlay has a static stowage' overlay
check 'a module that is not enabled changes nothing' disabled
check 'nix.settings has the hook, and systemd starts the worker' sets_nix
check 'all keys of the configuration can be set, and stowage takes them' all_keys
check 'systemd takes the units' units
check 'what is of a wrong type is an error that names the option' types
check 'what makes no sense is an error that names the option' senseless
check 'units may do what their cache needs' rights
outputs_in() { jq --raw-output 'del(.lib) | paths | select(.[-1] != "description") | join(".")' "$1" | sort; }

# The same by a Nix of this time, which checks more of a flake, and knows pure evaluation better.
newer_nix() {
  local all=(--extra-experimental-features 'nix-command flakes' --option flake-registry '' --override-input nixpkgs "path:$repo/tests/nix/stand-in" --no-write-lock-file)
  "$new" --version
  "$new" flake show --json --all-systems "${all[@]}" "path:$work/flake" > "$work/newer.json"
  # It describes more of them.
  same outputs "$(outputs_in "$work/flake.json")" "$(outputs_in "$work/newer.json")"
  "$new" flake check --no-build --all-systems "${all[@]}" "path:$work/flake"
  "$new" eval --json --impure --extra-experimental-features nix-command --expr "($(nixos "$usual")).value" |
    jq --exit-status '.settings["post-build-hook"]'
}

check 'the flake has packages, checks, an overlay and a module' flake_outputs
[ ! -e "$repo/nix/default.nix" ] || check 'the flake has the functions that make images' flake_functions
check 'the flake'"'"'s module is the module, and its check can be built' flake_module
check 'a newer Nix evaluates flake and module, too' newer_nix
check 'the examples are right' examples
check 'the example of a flake is right' example_of_flake
