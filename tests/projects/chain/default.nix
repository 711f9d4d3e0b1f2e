# The second takes the first's path into its own result, the third does not.
{ debnix ? import <nixpkgs> { index = <index>; } }:

let
  link = name: before: src: derivation {
    inherit name before src;
    system = "x86_64-linux";
    builder = "${debnix.busybox}/bin/sh";
    args = [ "-euc" ''
      PATH=${debnix.busybox}/bin
      mkdir "$out"
      cp "$src" "$out/own"
      [ -z "$before" ] || cat "$before/own" > "$out/before"
      [ "$name" != second ] || echo "$before" > "$out/where"
    '' ];
  };
  first = link "first" "" ./src/first;
  second = link "second" first ./src/second;
in link "third" second ./src/third
