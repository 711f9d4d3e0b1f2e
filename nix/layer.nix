# Layers as values.
{ lib, ... }:

let
  inherit (lib) known asList;
in
rec {
  # A layer of its own, with all that `deps` need and `layers`, which go below it, have not. Its
  # output is a small file, with key and digest; images name it in their `layers`.
  buildLayer = args:
    let
      given = known "buildLayer" [ "name" "deps" "layers" "uid" "gid" "uname" "gname" "mtime" "meta" ] args;
      deps = map (dep: lib.whole "${dep}") (asList given.deps);
      first = builtins.head (asList given.deps);
      name = given.name or (first.name or "layer");
      layers = given.layers or [ ];
      value = argument: lib.optionals (args ? ${argument}) [ "--${argument}" (toString args.${argument}) ];
      file = lib.run {
        name = "${lib.storeName name}.layer.json";
        arguments = [ "layer" "--closure" ".attrs.json" "--to" (placeholder "out") ]
          ++ builtins.concatMap (layer: [ "--except" "${layer}" ]) layers
          ++ lib.optionals (args ? mtime) [ "--mtime" (lib.date args.mtime) ]
          ++ builtins.concatMap value [ "uid" "gid" "uname" "gname" ]
          ++ [ "--" ] ++ deps;
        graph = deps;
      };
    in
    if deps == [ ] then throw "buildLayer: `deps` names nothing to put into the layer"
    else lib.overridable buildLayer args (file // { deps = asList given.deps; inherit layers; meta = args.meta or { }; });
}
