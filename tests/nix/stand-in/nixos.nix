# The options of NixOS that stowage's module reads and sets, and what becomes of units.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;

  # As NixOS has it: lists of several definitions are joined.
  unitOption = types.mkOptionType {
    description = "systemd option";
    check = value: builtins.any (is: is value) [ builtins.isBool builtins.isInt builtins.isString builtins.isList ];
    merge = loc: definitions:
      let values = map (definition: definition.value) definitions; in
      if builtins.any builtins.isList values
      then builtins.concatMap (value: if builtins.isList value then value else [ value ]) values
      else types.anything.merge loc definitions;
  };
  section = mkOption { type = types.attrsOf unitOption; default = { }; };
  names = mkOption { type = types.listOf types.str; default = [ ]; };

  unit = sections: types.attrsOf (types.submodule {
    options = {
      description = mkOption { type = types.str; default = ""; };
      after = names;
      wants = names;
      wantedBy = names;
      unitConfig = section;
    } // lib.genAttrs sections (_: section);
  });

  word = value: if builtins.isBool value then (if value then "true" else "false") else toString value;
  line = name: value:
    builtins.concatStringsSep "" (map (one: "${name}=${word one}\n") (if builtins.isList value then value else [ value ]));
  lines = settings: builtins.concatStringsSep "" (builtins.attrValues (builtins.mapAttrs line settings));
  text = kind: unit: ''
    [Unit]
    ${lines (unit.unitConfig // { Description = unit.description; } // relations unit)}
    [${kind}]
    ${lines unit."${builtins.replaceStrings [ "S" "P" "T" ] [ "s" "p" "t" ] kind}Config"}
    [Install]
    ${lines { WantedBy = unit.wantedBy; }}'';
  relations = unit: { After = unit.after; Wants = unit.wants; };
  texts = kind: suffix: units:
    map (name: { name = "${name}.${suffix}"; value = text kind units.${name}; }) (builtins.attrNames units);

  confAtom = types.nullOr (types.oneOf [ types.bool types.int types.float types.str types.path types.package ]);
in
{
  options = {
    assertions = mkOption { type = types.listOf types.raw; default = [ ]; };
    environment.etc = mkOption {
      default = { };
      type = types.attrsOf (types.submodule { options.text = mkOption { type = types.lines; }; });
    };
    environment.systemPackages = mkOption { type = types.listOf types.package; default = [ ]; };
    nix.enable = mkOption { type = types.bool; default = true; };
    nix.settings = mkOption {
      default = { };
      type = types.submodule { freeformType = types.attrsOf (types.either confAtom (types.listOf confAtom)); };
    };
    systemd.services = mkOption { type = unit [ "serviceConfig" ]; default = { }; };
    systemd.paths = mkOption { type = unit [ "pathConfig" ]; default = { }; };
    systemd.timers = mkOption { type = unit [ "timerConfig" ]; default = { }; };
    systemd.tmpfiles.rules = names;
    # The text of each unit.
    systemd.units = mkOption { type = types.attrsOf types.str; };
    # All that a machine would be made of, once its assertions hold.
    system.toplevel = mkOption { type = types.raw; };
  };

  config = {
    systemd.units = builtins.listToAttrs (
      texts "Service" "service" config.systemd.services
      ++ texts "Path" "path" config.systemd.paths
      ++ texts "Timer" "timer" config.systemd.timers
    );
    system.toplevel =
      let failed = builtins.filter (assertion: !assertion.assertion) config.assertions; in
      if failed != [ ]
      then throw "Failed assertions:\n- ${builtins.concatStringsSep "\n- " (map (assertion: assertion.message) failed)}"
      else {
        inherit (config.nix) settings;
        etc = builtins.mapAttrs (_: file: file.text) config.environment.etc;
        packages = map toString config.environment.systemPackages;
        tmpfiles = config.systemd.tmpfiles.rules;
        inherit (config.systemd) units;
        services = builtins.mapAttrs (_: service: service.serviceConfig) config.systemd.services;
      };
  };
}
