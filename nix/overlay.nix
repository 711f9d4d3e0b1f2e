# An overlay for nixpkgs: `stowage`, and `stowageTools`, the functions that make images.
final: prev:
let
  tools = import ./default.nix;
in
{
  # Static, so that it runs in any image, whatever else is in it.
  stowage = final.pkgsStatic.callPackage ./package.nix { };

  # The functions say by their arguments' names which packages they need. Not by callPackage,
  # which would add `override` to what are functions only.
  stowageTools =
    let
      # What runs while images are built is of the machine that builds them.
      names = removeAttrs (builtins.functionArgs tools) [ "system" "host" "commandTools" "cacert" "nix" ];
    in
    tools (builtins.intersectAttrs names final.buildPackages // {
      inherit (final) cacert nix;
      host = {
        inherit (final) stowage bash bashInteractive coreutils;
        inherit (final.stdenv.hostPlatform) system;
      };
      # What dockerTools' commands find in PATH.
      commandTools = final.stdenv.initialPath or [ ];
      inherit (final.stdenv.buildPlatform) system;
    });
}
