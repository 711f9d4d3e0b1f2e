# Layers as values.
{ lib, ... }:

let
  inherit (lib) known asList;
in
{
  # A layer of its own, with all that `deps` need and `layers`, which go below it, have not. Its
  # output is a small file, with key and digest; images name it in their `layers`.
  buildLayer = args:
    let
      given = known "buildLayer" [ "name" "deps" "layers" "uid" "gid" "uname" "gname" "meta" ] args;
      deps = asList given.deps;
      first = builtins.head deps;
      name = given.name or (first.name or "layer");
      layers = given.layers or [ ];
      value = argument: lib.optionals (args ? ${argument}) [ "--${argument}" (toString args.${argument}) ];
      file = lib.run {
        name = "${lib.storeName name}.layer.json";
        arguments = [ "layer" "--closure" ".attrs.json" "--to" (placeholder "out") ]
          ++ builtins.concatMap (layer: [ "--except" "${layer}" ]) layers
          ++ builtins.concatMap value [ "uid" "gid" "uname" "gname" ]
          ++ [ "--" ] ++ map (dep: "${dep}") deps;
        graph = map (dep: "${dep}") deps;
      };
    in
    if deps == [ ] then throw "buildLayer: `deps` names nothing to put into the layer"
    else file // { inherit deps layers; meta = args.meta or { }; };
}
