# A NixOS with `modules`, by the stand-in: what it consists of (`value`), and the same as a
# file of JSON (`file`), which brings with it all that it names.
{ modules }:
let
  lib = import ./stand-in/lib.nix;
  system = lib.nixosSystem { system = builtins.currentSystem; inherit modules; };
  pkgs = import ./stand-in { };
in
rec {
  value = system.config.system.toplevel;
  file = pkgs.writeText "system.json" (builtins.toJSON value);
}
