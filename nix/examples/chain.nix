# A chain of three: what changes rarely is at the bottom. Store paths that a parent has are not in its
# children again, and Nix's database in the last one knows all of them.
{ pkgs ? import <nixpkgs> { overlays = [ (import ../overlay.nix) ]; } }:

let
  inherit (pkgs.stowageTools) buildLayeredImageWithNixDb;
in
rec {
  base = buildLayeredImageWithNixDb {
    name = "base";
    contents = [ pkgs.bash pkgs.coreutils ];
    config.Env = [ "LANG=C.UTF-8" ];
  };
  tools = buildLayeredImageWithNixDb {
    name = "tools";
    fromImage = base;
    contents = [ pkgs.git ];
  };
  project = buildLayeredImageWithNixDb {
    name = "project";
    tag = "latest";
    fromImage = tools;
    config.Cmd = [ "${pkgs.hello}/bin/hello" ];
  };
}
