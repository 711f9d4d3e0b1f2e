# Layers of one's own: each is a derivation, which Nix builds beside the others, keeps, and shares
# between images. Around them the rest is planned, here by popularity, with hints.
{ pkgs ? import <nixpkgs> { overlays = [ (import ../overlay.nix) ]; } }:

let
  inherit (pkgs.stowageTools) buildLayer buildLayeredImage;
  shell = buildLayer { name = "shell"; deps = [ pkgs.bash pkgs.coreutils ]; };
  # It goes above the other one, and has nothing of it again.
  git = buildLayer { name = "git"; deps = [ pkgs.git ]; layers = [ shell ]; };
  image = name: contents: buildLayeredImage {
    inherit name contents;
    tag = "latest";
    layers = [
      shell
      git
      # What is called so goes together, too.
      [ "hello*" ]
    ];
    maxLayers = 10;
    strategy = "popularity";
    popularity = { "jq" = 0.1; };
  };
in
{
  inherit shell git;
  small = image "small" [ pkgs.bash pkgs.coreutils pkgs.git ];
  large = image "large" [ pkgs.bash pkgs.coreutils pkgs.git pkgs.hello pkgs.jq ];
}
