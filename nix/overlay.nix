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
  stowageTools = tools (builtins.intersectAttrs (builtins.functionArgs tools) final // {
    # What dockerTools' commands find in PATH.
    commandTools = final.stdenv.initialPath or [ ];
  });
}
