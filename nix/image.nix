# The one way from arguments to an image: a spec, a derivation that builds an image folder of it, and
# what can be done with that.
{ lib, stowage, bash, host, ... }@tools:

let
  inherit (lib) asList optionals;
  root = import ./root.nix tools;
  buildDepsOf = import ./inputs.nix tools;
  copies = import ./copies.nix tools;

  # Arguments that are keys of the spec, too.
  keys = [
    "architecture" "uid" "gid" "uname" "gname" "maxLayers" "includeNixDB" "includeStorePaths" "user"
    "nixConf" "strategy" "pathsPerLayer" "popularity" "perms" "compression" "hook" "cacheStore" "nixpkgs"
  ];

  # An image of ours, or the script of one, is the only one there; any archive may have several.
  parent = function: image: name: tag:
    if image == null then null
    else if image ? image then
      let
        wantedName = if name == null then image.imageName else lib.toLower name;
        wantedTag = if tag == null then image.imageTag else tag;
      in
      if wantedName == image.imageName && wantedTag == image.imageTag then "${image.image}"
      else throw "${function}: fromImage is ${image.imageName}:${image.imageTag}, and not ${wantedName}:${wantedTag}"
    else if name != null && tag != null then "docker-archive:${lib.archiveOf image}:${name}:${tag}"
    else "${lib.archiveOf image}";

  # What buildLayer gives, or a list of patterns and paths.
  group = layer: if builtins.isList layer then map (part: "${part}") layer else "${layer}";
in
{
  # Those that every function takes.
  arguments = keys ++ [
    "name" "tag" "fromImage" "fromImageName" "fromImageTag" "contents" "copyToRoot" "mutable" "config" "created" "mtime"
    "layers" "extraCommands" "fakeRootCommands" "enableFakechroot" "compressor" "buildDepsOf" "passthru" "meta"
  ];

  # The image that `args` describe, of `function`; `rootOwner` is whom commands' files belong to.
  make = { function, args, rootOwner ? null }:
    let
      get = name: default: if args.${name} or null == null then default else args.${name};
      name = lib.toLower (get "name" (throw "${function}: the image needs a `name`"));
      layers = lib.asList (get "layers" [ ]);
      given = map lib.plain (lib.contentsOf function args);
      copied = let value = get "mutable" [ ]; in
        if value == true then given else if value == false then [ ] else map lib.plain (asList value);
      # Contents are whole store paths.
      asWhole = text: if lib.isPart text then "${lib.part (builtins.elem text copied) text}" else text;
      contents = map asWhole given;
      mutable = map asWhole copied;
      commands = {
        inherit function name contents mutable;
        extraCommands = get "extraCommands" "";
        fakeRootCommands = get "fakeRootCommands" "";
        enableFakechroot = get "enableFakechroot" false;
        owner = rootOwner;
      };
      made = if root.isNeeded commands then root.make commands else null;
      deps = buildDepsOf (get "buildDepsOf" null);

      spec = lib.withoutNulls ({
        contents = if made == null then contents else [ ];
        mutable = if made == null && mutable != [ ] then mutable else null;
        root = if made == null then null else "${made}";
        fromImage = parent function (get "fromImage" null) (get "fromImageName" null) (get "fromImageTag" null);
        config = get "config" null;
        created = lib.date (get "created" "1970-01-01T00:00:01Z");
        mtime = if get "mtime" null == null then null else lib.date args.mtime;
        layers = if layers == [ ] then null else map group layers;
      } // builtins.listToAttrs (map (key: { name = key; value = get key null; }) keys) // {
        # Without store paths, no program tells.
        architecture = get "architecture" (if get "includeStorePaths" true then null else lib.architecture);
        # As a store path, it is none of the image's own bytes; a store that is elsewhere at first needs those.
        hook = if get "hook" false == true && get "cacheStore" null == null then "${host.stowage}" else get "hook" null;
      });

      # Outside of a build, `stowage build --spec` of this gives the same image.
      specFile = lib.writeText "${lib.storeName name}-spec.json"
        (builtins.toJSON (spec // (if deps == null then { } else { buildDepsOf = deps.spec; })));
      # In a build, derivations can't be in the graph of what is registered.
      buildSpec =
        if deps == null then specFile
        else lib.writeText "${lib.storeName name}-build-spec.json" (builtins.toJSON spec);
      graph = [ "${buildSpec}" ] ++ optionals (deps != null) deps.graph;
      described = [ "--spec" "${buildSpec}" "--closure" ".attrs.json" ] ++ optionals (deps != null) deps.arguments;

      tag = get "tag" (lib.hashOf [ specFile.outPath "${stowage}" ]);
      image = lib.run {
        name = "${lib.storeName name}-image";
        arguments = [ "build" "--name" "${name}:${tag}" "--to" "stowage:${placeholder "out"}" ] ++ described;
        inherit graph;
      };
    in
    copies { inherit image name tag; compressor = get "compressor" "gz"; } // {
      inherit image layers;
      imageName = name;
      imageTag = tag;
      spec = specFile;
      fromImage = get "fromImage" null;
      # Which store paths are in which layer, and why.
      plan = lib.run {
        name = "${lib.storeName name}-plan.json";
        inherit graph;
        attributes.builder = "${bash}/bin/bash";
        arguments = [ "-c" "exec ${stowage}/bin/stowage plan --json \"\$@\" > ${placeholder "out"}" "plan" ] ++ described;
      };
    } // get "passthru" { };
}
