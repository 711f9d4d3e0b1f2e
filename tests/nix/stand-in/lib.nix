# nixpkgs' `lib`, as far as it is needed.
let
  lib = rec {
    optionals = condition: list: if condition then list else [ ];
    genAttrs = names: value: builtins.listToAttrs (map (name: { inherit name; value = value name; }) names);
    showOption = builtins.concatStringsSep ".";

    escapeShellArg = argument:
      let text = toString argument; in
      if builtins.match "[A-Za-z0-9_%+,./:=@-]+" text != null then text
      else "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
    escapeShellArgs = arguments: builtins.concatStringsSep " " (map escapeShellArg arguments);

    # Checks that what is named is there, and below the root, and takes just that.
    fileset = {
      unions = files: files;
      toSource = { root, fileset }:
        let
          prefix = "${toString root}/";
          isBelow = file: builtins.substring 0 (builtins.stringLength prefix) (toString file) == prefix;
          check = file:
            if !builtins.pathExists file then throw "fileset: ${toString file} is not there"
            else if !isBelow file then throw "fileset: ${toString file} is not in ${toString root}"
            else file;
          files = map toString (map check fileset);
          isWanted = path: builtins.any (file: path == file || builtins.substring 0 (builtins.stringLength file + 1) path == "${file}/") files;
        in
        builtins.path { path = root; name = "source"; filter = path: _: isWanted path; };
    };

    licenses = { asl20 = { spdxId = "Apache-2.0"; }; mit = { spdxId = "MIT"; }; };
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];

    types = import ./types.nix { inherit lib; };
    inherit (import ./modules.nix { inherit lib; })
      evalModules mergeDefinitions mkDefault mkEnableOption mkForce mkIf mkMerge mkOption mkOverride literalExpression;

    nixosSystem = { system, modules }:
      evalModules {
        modules = [ ./nixos.nix ] ++ modules;
        specialArgs = { inherit lib; pkgs = import ./default.nix { inherit system; }; };
      };
  };
in
lib
