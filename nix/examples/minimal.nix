# One program, and nothing else:
#
#   $(nix-build nix/examples/minimal.nix -A stream) | docker load
{ pkgs ? import <nixpkgs> { overlays = [ (import ../overlay.nix) ]; } }:

pkgs.stowageTools.buildLayeredImage {
  name = "hello";
  tag = "latest";
  config.Cmd = [ "${pkgs.hello}/bin/hello" ];
}
