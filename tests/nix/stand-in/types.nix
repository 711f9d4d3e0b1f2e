# Types of options. A type has a `description`, a `check` of one definition, and `merge`, which
# takes the option's place and all its definitions, `[ { file; value; } ]`.
{ lib }:
let
  inherit (builtins) all attrNames concatMap concatStringsSep elem filter head isAttrs isBool isInt isList isString length tail toJSON;

  one = loc: definitions:
    if length definitions == 1 then (head definitions).value
    else throw "The option `${lib.showOption loc}' is defined multiple times, in ${concatStringsSep " and in " (map (definition: definition.file) definitions)}.";

  equal = loc: definitions:
    let first = (head definitions).value; in
    if all (definition: definition.value == first) (tail definitions) then first
    else throw "The option `${lib.showOption loc}' has conflicting definition values, in ${concatStringsSep " and in " (map (definition: definition.file) definitions)}.";

  simple = description: check: { inherit description check; merge = equal; };

  isStringLike = value: isString value || isAttrs value && (value ? outPath || value ? __toString);
  isPathLike = value: builtins.isPath value || isStringLike value && builtins.substring 0 1 (toString value) == "/";

  quote = values: concatStringsSep ", " (map toJSON values);
in
rec {
  mkOptionType = { description, check ? (_: true), merge ? equal }: { inherit description check merge; };

  anything = simple "anything" (_: true);
  raw = simple "raw value" (_: true) // { merge = one; };
  bool = simple "boolean" isBool;
  int = simple "signed integer" isInt;
  ints = {
    unsigned = simple "unsigned integer, meaning >=0" (value: isInt value && value >= 0);
    positive = simple "positive integer, meaning >0" (value: isInt value && value > 0);
  };
  float = simple "floating point number" builtins.isFloat;
  str = simple "string" isString;
  strMatching = pattern:
    simple "string matching the pattern ${pattern}" (value: isString value && builtins.match pattern value != null);
  lines = simple "strings concatenated with \"\\n\"" isString // {
    merge = _: definitions: concatStringsSep "\n" (map (definition: definition.value) definitions);
  };
  path = simple "absolute path" isPathLike;
  package = simple "package" (value: isAttrs value && value.type or "" == "derivation" || isPathLike value);
  enum = values: simple "one of ${quote values}" (value: elem value values);

  nullOr = type: {
    description = "null or ${type.description}";
    check = value: value == null || type.check value;
    merge = loc: definitions:
      if all (definition: definition.value == null) definitions then null
      else if all (definition: definition.value != null) definitions then type.merge loc definitions
      else throw "The option `${lib.showOption loc}' is defined both null and not null.";
  };

  either = a: b: {
    description = "${a.description} or ${b.description}";
    check = value: a.check value || b.check value;
    merge = loc: definitions:
      if all (definition: a.check definition.value) definitions then a.merge loc definitions
      else if all (definition: b.check definition.value) definitions then b.merge loc definitions
      else equal loc definitions;
  };
  oneOf = types: builtins.foldl' either (head types) (tail types);

  listOf = type: {
    description = "list of ${type.description}";
    check = isList;
    merge = loc: definitions:
      let
        element = definition: number:
          lib.mergeDefinitions
            (loc ++ [ "[entry ${toString (number + 1)}]" ])
            type
            [ { inherit (definition) file; value = builtins.elemAt definition.value number; } ];
        elements = definition: builtins.genList (element definition) (length definition.value);
      in
      map (merged: merged.value) (filter (merged: merged.isDefined) (concatMap elements definitions));
  };

  nonEmptyListOf = type:
    let list = listOf type; in
    list // { description = "non-empty ${list.description}"; check = value: isList value && value != [ ]; };

  attrsOf = type: {
    description = "attribute set of ${type.description}";
    check = isAttrs;
    merge = loc: definitions:
      let
        names = concatMap (definition: attrNames definition.value) definitions;
        of = name: filter (definition: definition.value ? ${name}) definitions;
        value = name:
          lib.mergeDefinitions (loc ++ [ name ]) type (map (definition: { inherit (definition) file; value = definition.value.${name}; }) (of name));
        merged = lib.genAttrs names value;
        defined = filter (name: merged.${name}.isDefined) names;
      in
      lib.genAttrs defined (name: merged.${name}.value);
  };
  attrs = attrsOf anything;

  submodule = module: {
    description = "submodule";
    check = value: isAttrs value || builtins.isFunction value || builtins.isPath value;
    merge = loc: definitions:
      (lib.evalModules {
        prefix = loc;
        modules = [ module ] ++ map (definition: { _file = definition.file; imports = [ definition.value ]; }) definitions;
        specialArgs = { inherit lib; name = builtins.elemAt loc (length loc - 1); };
      }).config;
  };
}
