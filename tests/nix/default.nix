# The functions in nix/, with debnix in nixpkgs' place.
#
#   nix-build tests/nix --arg index /var/cache/debnix/packages.json --arg stowage ./stowage -A examples.minimal
{ index, stowage, debs ? null, nixDir ? ../../nix }:

let
  debnix = import ../debnix { inherit index debs; };
  program = derivation {
    name = "stowage";
    system = "x86_64-linux";
    builder = "${debnix.busybox}/bin/sh";
    PATH = "${debnix.busybox}/bin";
    args = [ "-euc" "mkdir -p $out/bin; cp $src $out/bin/stowage; chmod 755 $out/bin/stowage; ln -s stowage $out/bin/stowage-hook" ];
    src = builtins.path { path = stowage; name = "stowage-program"; };
  };
  tools = import nixDir {
    stowage = program;
    inherit (debnix) bash coreutils gzip zstd fakeroot proot;
    gnutar = debnix.tar;
    commandTools = [ debnix.sets.images ];
    nix = debnix.nix-bin;
  };
in
{
  inherit debnix tools;
  stowage = program;
}
