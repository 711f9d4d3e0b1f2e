# buildDepsOf: what an image needs so that something can be built in it.
{ lib, ... }:

# A derivation, a list of them, or { of, drvs, depth }.
value:

let
  isSet = builtins.isAttrs value && value ? of && !(value ? drvPath);
  derivations = map checked (lib.asList (if isSet then value.of else value));
  checked = drv:
    if drv ? drvPath then drv
    else throw "buildDepsOf: it takes derivations, and none is a ${builtins.typeOf drv}; name the derivation itself";
  given = if isSet then lib.known "buildDepsOf" [ "of" "drvs" "depth" ] value else { };
  drvs = given.drvs or true;
  depth = given.depth or "direct";

  # A text that names what a derivation takes of others, and its sources: Nix finds its references.
  inputs = drv: lib.writeText "${drv.name}-inputs" (builtins.toJSON drv.drvAttrs);
in
if value == null then null
else {
  spec = { of = map lib.drvFile derivations; inherit drvs depth; };

  # The derivation's own file can't be in the graph: all that it builds would have to be there, too.
  # With all that it was built from, it can.
  graph = map (drv: if depth == "all" then drv.drvPath else "${inputs drv}") derivations;

  arguments = builtins.concatMap (drv: [ "--build-deps-of" (lib.drvFile drv) ]) derivations
    ++ lib.optional (!drvs) "--without-drvs"
    ++ [ "--depth" depth ];
}
