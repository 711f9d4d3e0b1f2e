# An image for CI jobs: Nix works in it, for an ordinary user, and it has all that it takes to build
# the project, so that a job fetches nothing and runs one builder. What it builds, the hook exports
# to ./cache.
{ pkgs ? import <nixpkgs> { overlays = [ (import ../overlay.nix) ]; }
, project ? pkgs.hello
, nixpkgs ? pkgs.path
}:

pkgs.stowageTools.buildCIImage {
  name = "registry.example.org/team/ci";
  contents = [ pkgs.bash pkgs.coreutils ];
  user = { name = "ci"; uid = 1000; };
  nixConf.substituters = "";
  buildDepsOf = project;
  inherit nixpkgs;
  config.Cmd = [ "${pkgs.bash}/bin/bash" ];
}
