# Nothing is at this address where the project is built: the source is in the image.
{ debnix ? import <nixpkgs> { index = <index>; } }:

let
  index = builtins.fromJSON (builtins.readFile <index>);
  package = index.packages.jq;
in debnix.mkDerivation {
  name = "fixed-1.0";
  src = ./src;
  fetched = import <nix/fetchurl.nix> {
    system = "x86_64-linux";
    url = "file://${index.debs}/${package.file}";
    name = "fetched.deb";
    inherit (package) sha256;
  };
  buildCommand = ''
    mkdir -p "$out"
    cat greeting > "$out/sums"
    sha256sum < "$fetched" >> "$out/sums"
  '';
}
