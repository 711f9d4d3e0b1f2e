#!/bin/bash
# An image folder as the output of a derivation, made by stowage in a Nix build: it
# keeps its store paths alive, and can be copied; and what is gone is named, with the
# command that restores it. All of it in a container, whose store can be collected.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
: "${STOWAGE:?the binary to test}"
start_docker

in_container() {
  docker run --rm --network=none --volume "$work/project:/project" --workdir /project "$image" /bin/sh -euc "$1"
}

get bookworm ci
spec "$(debnix bookworm sets.ci)" '{"hook": true}' > "$work/spec.json"
mkdir "$work/project"
chown 1000:1000 "$work/project"
cat > "$work/project/image.nix" <<'NIX'
let
  run = attributes: derivation ({ system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin:/usr/bin"; } // attributes);
in rec {
  leaf = run { name = "leaf"; args = [ "-c" "mkdir -p $out/share; echo leaf > $out/share/leaf" ]; };
  top = run { name = "top"; inherit leaf; args = [ "-c" "mkdir -p $out/bin; ln -s $leaf/share/leaf $out/bin/top; head -c 3000000 /dev/zero > $out/zeros" ]; };
  image = run {
    name = "image";
    __structuredAttrs = true;
    exportReferencesGraph.closure = [ top ];
    inherit top;
    args = [ "-c" ''
      export PATH=/bin:/usr/bin
      jq .closure .attrs.json > closure.json
      stowage build --closure closure.json "$(jq --raw-output .top .attrs.json)" --name output \
        --to "stowage:$(jq --raw-output .outputs.out .attrs.json)"
    '' ];
  };
}
NIX

# One script, since each container has a store of its own.
# shellcheck disable=SC2016 # the container expands it
works() {
  in_container '
    export STOWAGE_CACHE=/tmp/cache
    nix-build image.nix -A image --out-link result 2> log || { cat log; exit 1; }
    top=$(nix-build image.nix -A top --no-out-link 2> log)
    leaf=$(nix-build image.nix -A leaf --no-out-link 2> log)
    # What is not exported yet, the hook holds.
    stowage cache wait "$STOWAGE_CACHE"
    echo "references: $(nix-store --query --references ./result)"
    nix-store --query --references ./result | grep -Fx "$top"
    nix-store --query --references ./result | grep -Fx "$leaf"
    test ! -e ./result/roots
    du -sb "$(readlink result)"
    test "$(du -sb "$(readlink result)" | cut -f 1)" -lt 200000
    nix-collect-garbage
    test -e "$top/bin/top"
    stowage copy stowage:./result oci:layout
    stowage copy stowage:./result docker-archive:archive.tar
    echo "kept alive, and copied"

    # Once the image is no output any more, they are collected.
    cp -rL result folder
    chmod -R u+w folder
    rm result
    nix-instantiate image.nix -A top --add-root top.drv --indirect
    nix-collect-garbage
    test ! -e "$top"
    test ! -e "$leaf"
    restored=0
    for place in oci:layout2 docker-archive:archive2.tar; do
      while ! stowage copy stowage:./folder "$place" 2> said; do
        cat said
        grep -F "is gone, and this store does not know it any more; restore it with" said
        command=$(sed -n "s/.*restore it with .\(nix-store --realise [^ ]*\.drv\).\$/\1/p" said)
        $command
        restored=$((restored + 1))
      done
    done
    stowage cache wait "$STOWAGE_CACHE"
    test "$restored" -gt 0
    echo "restored by the command that was named"
    stowage inspect oci:layout --json | jq .digest > one
    stowage inspect oci:layout2 --json | jq .digest > two
    cmp one two

    # Without the derivation, the path itself is all that can be asked for.
    rm top.drv
    nix-collect-garbage
    for command in "copy stowage:./folder oci:layout3" "build --from ./folder --to oci:layout3 $(readlink -f /bin/git | cut -d / -f 1-4)"; do
      status=0
      stowage $command 2> said || status=$?
      cat said
      test "$status" = 5
      grep -E "nix-store --realise /nix/store/[a-z0-9]{32}-(leaf|top).\$" said
    done
  '
}

new_image output
need 'an image with Nix and stowage loads' load "$work/spec.json"
check 'an image folder as an output keeps its paths alive, is copied, and tells what is gone' works
# For a look at it.
[ "$last" = ok ] && sed -n 's/^/      | /p' "$work/log" | tail -n 40
