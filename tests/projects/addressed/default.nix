# The first two are addressed by their contents, which is known once they are built.
{ debnix ? import <nixpkgs> { index = <index>; } }:

let
  build = name: script: attributes: derivation ({
    inherit name;
    system = "x86_64-linux";
    builder = "${debnix.busybox}/bin/sh";
    args = [ "-euc" "PATH=${debnix.busybox}/bin; ${script}" ];
  } // attributes);
  addressed = {
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  };
  first = build "first" ''mkdir "$out" "$dev"; echo first > "$dev/text"'' (addressed // {
    outputs = [ "out" "dev" ];
  });
  second = build "second" ''{ cat "$dev/text"; echo "second $dev"; } > "$out"'' (addressed // {
    inherit (first) dev;
  });
in build "addressed" ''cat "$second" "$src/text" > "$out"'' {
  inherit second;
  src = ./src;
}
