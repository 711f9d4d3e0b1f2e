# The module system. As in nixpkgs, an option that nobody declares is an error even below a
# condition that does not hold, a definition must fit its option's type, and those of the
# strongest priority are merged.
{ lib }:
let
  inherit (builtins) attrNames concatMap concatStringsSep elem filter foldl' hasAttr isAttrs isFunction mapAttrs toString;
  inherit (lib) showOption;

  mkOption = attributes: attributes // { _type = "option"; };
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  isOf = kind: value: isAttrs value && value._type or "" == kind;

  ordinary = 100;
  ofDefaults = 1500;

  # All modules that `modules` import, each as `{ file; options; config; }`.
  collect = arguments: modules: concatMap (collectOne arguments) modules;
  collectOne = arguments: module:
    let
      isFile = builtins.isPath module || builtins.isString module;
      loaded = if isFile then import module else module;
      called = if isFunction loaded then loaded arguments else loaded;
      file = called._file or (if isFile then toString module else "<unknown-file>");
      isLong = called ? options || called ? config || called ? imports;
      unknown = filter (name: !elem name [ "_file" "imports" "options" "config" "freeformType" ]) (attrNames called);
      short = removeAttrs called [ "_file" ];
    in
    if isOf "if" called || isOf "merge" called || isOf "override" called then [ { inherit file; options = { }; config = called; freeformType = null; } ]
    else if isLong && unknown != [ ] then throw "Module `${file}' has an unsupported attribute `${builtins.head unknown}'."
    else
      map (imported: if imported.file == "<unknown-file>" then imported // { inherit file; } else imported)
        (collect arguments (called.imports or [ ])) ++ [
        {
          inherit file;
          options = if isLong then called.options or { } else { };
          config = if isLong then called.config or { } else removeAttrs short [ "freeformType" ];
          freeformType = called.freeformType or null;
        }
      ];

  # One tree of all options.
  mergeOptions = loc: trees:
    let
      names = concatMap attrNames trees;
      at = name:
        let of = map (tree: tree.${name}) (filter (hasAttr name) trees); in
        if !builtins.any (isOf "option") of then mergeOptions (loc ++ [ name ]) of
        else if builtins.length of == 1 then builtins.head of
        else throw "The option `${showOption (loc ++ [ name ])}' is already declared.";
    in
    lib.genAttrs names at;

  # Conditions and priorities of a set, put to each of its attributes.
  pushDown = value:
    if isOf "merge" value then concatMap pushDown value.contents
    else if isOf "if" value then map (mapAttrs (_: mkIf value.condition)) (pushDown value.content)
    else if isOf "override" value then map (mapAttrs (_: mkOverride value.priority)) (pushDown value.content)
    else [ value ];

  # What a definition comes to: `[ { file; priority; value; } ]`.
  discharge = file: priority: value:
    if isOf "merge" value then concatMap (discharge file priority) value.contents
    else if isOf "if" value then (if value.condition then discharge file priority value.content else [ ])
    else if isOf "override" value then discharge file value.priority value.content
    else [ { inherit file priority value; } ];

  show = value: if isFunction value then "<function>" else if builtins.isPath value then toString value else if isAttrs value then "{ ... }" else builtins.toJSON value;

  mergeDefinitions = loc: type: definitions:
    let
      all = concatMap (definition: discharge definition.file ordinary definition.value) definitions;
      strongest = foldl' (least: definition: if definition.priority < least then definition.priority else least) 9999 all;
      chosen = filter (definition: definition.priority == strongest) all;
      wrong = filter (definition: !type.check definition.value) chosen;
      first = builtins.head wrong;
    in
    {
      isDefined = all != [ ];
      value =
        if wrong != [ ]
        then throw "A definition for option `${showOption loc}' is not of type `${type.description}'. Definition values:\n- In `${first.file}': ${show first.value}"
        else type.merge loc (map (definition: removeAttrs definition [ "priority" ]) chosen);
    };

  # The value of each option of a tree, of what `definitions` say.
  evaluate = loc: freeform: tree: definitions:
    let
      pushed = concatMap (definition: map (value: { inherit (definition) file; inherit value; }) (pushDown definition.value)) definitions;
      notSet = filter (definition: !isAttrs definition.value) pushed;
      of = name: map (definition: { inherit (definition) file; value = definition.value.${name}; })
        (filter (definition: definition.value ? ${name}) pushed);
      stray = filter (name: !tree ? ${name}) (concatMap (definition: attrNames definition.value) pushed);
      at = name: option:
        let here = loc ++ [ name ]; in
        if isOf "option" option then valueOf here option (of name) else evaluate here null option (of name);
      known = mapAttrs at tree;
    in
    if notSet != [ ] then throw "A definition for `${showOption loc}' in `${(builtins.head notSet).file}' is no set."
    else if stray == [ ] then known
    else if freeform != null then (mergeDefinitions loc freeform (map (definition: definition // { value = removeAttrs definition.value (attrNames tree); }) pushed)).value // known
    else throw "The option `${showOption (loc ++ [ (builtins.head stray) ])}' does not exist. Definition values:\n- In `${(builtins.head (of (builtins.head stray))).file}'";

  valueOf = loc: option: definitions:
    let
      type = option.type or lib.types.anything;
      default = if option ? default then [ { file = "its declaration"; value = mkOverride ofDefaults option.default; } ] else [ ];
      merged = mergeDefinitions loc type (definitions ++ default);
      apply = option.apply or (value: value);
    in
    if merged.isDefined then apply merged.value
    else throw "The option `${showOption loc}' is used but not defined.";
in
{
  inherit mergeDefinitions mkIf mkMerge mkOption mkOverride;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  literalExpression = text: { _type = "literalExpression"; inherit text; };
  mkEnableOption = name: mkOption {
    type = lib.types.bool;
    default = false;
    example = true;
    description = "Whether to enable ${name}.";
  };

  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }:
    let
      found = collect (specialArgs // { inherit config lib options; }) modules;
      options = mergeOptions prefix (map (module: module.options) found);
      freeforms = filter (type: type != null) (map (module: module.freeformType) found);
      freeform = if freeforms == [ ] then null else builtins.head freeforms;
      config = evaluate prefix freeform options (map (module: { inherit (module) file; value = module.config; }) found);
    in
    { inherit config options; };
}
