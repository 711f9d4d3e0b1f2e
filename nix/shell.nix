# Images of the environments that derivations are built in, as nix-shell has them.
{ lib, image, host, ... }:

let
  # In the image.
  inherit (host) bash bashInteractive coreutils;

  # What a builder sees of an attribute, as Nix's `derivation` says it.
  value = attribute:
    if builtins.isList attribute then builtins.concatStringsSep " " (map value attribute)
    else if attribute == null || attribute == false then ""
    else if attribute == true then "1"
    else if builtins.isPath attribute then "${attribute}"
    else toString attribute;

  variables = drv:
    let
      attrs = removeAttrs drv.drvAttrs [ "args" "passAsFile" "builder" "system" "outputs" "__ignoreNulls" ]
        // { inherit (drv.drvAttrs) builder system; outputs = drv.outputs or [ "out" ]; };
      files = lib.asList (drv.drvAttrs.passAsFile or [ ]);
      isFile = name: builtins.elem name files;
      one = name:
        if isFile name
        then { name = "${name}Path"; value = "${lib.writeText "pass-as-file-${lib.storeName name}" (value attrs.${name})}"; }
        else { inherit name; value = value attrs.${name}; };
    in
    if drv.drvAttrs.__structuredAttrs or false
    then throw "buildNixShellImage: ${drv.name} has structured attributes, which no environment has"
    else builtins.listToAttrs (map one (builtins.attrNames attrs));

  # Where its outputs would be. They are not in the image, so its config can't name them.
  outputs = drv: builtins.concatStringsSep "" (map
    (name: "export ${name}=${builtins.unsafeDiscardStringContext (toString drv.${name})}\n")
    (drv.outputs or [ "out" ]));

  # Builds the derivation, which may have a PATH of its own.
  buildDerivation = drv: lib.writeProgram "buildDerivation" ''
    ${if drv.drvAttrs ? PATH then "export PATH=${lib.escape (value drv.drvAttrs.PATH)}" else ""}
    exec ${builtins.concatStringsSep " " (map (word: lib.escape "${word}") ([ drv.drvAttrs.builder ] ++ drv.drvAttrs.args or [ ]))}
  '';

  describe = function: args:
    let
      given = lib.known function
        [ "drv" "name" "tag" "uid" "gid" "homeDirectory" "shell" "command" "run" "compressor" ] args;
      inherit (given) drv;
      uid = given.uid or 1000;
      gid = given.gid or 1000;
      home = given.homeDirectory or "/build";
      shell = given.shell or "${bashInteractive}/bin/bash";
      command = given.command or null;
      run = given.run or null;
      script = if run != null then run else command;
      path = "${dirOf shell}:${buildDerivation drv}/bin";
      # For the shell of `docker run IMAGE bash -c …`, too, which does not start with what follows.
      outputsFile = lib.writeText "nix-shell-outputs" (outputs drv + "unset BASH_ENV\n");
      # As nix-shell starts its shell.
      rc = lib.writeText "nix-shell-rc" (''
        source ${outputsFile}
        unset PATH
        dontAddDisableDepTrack=1
        [ -z "''${stdenv-}" ] || [ ! -e "$stdenv/setup" ] || source "$stdenv/setup"
        PATH=${path}:${bash}/bin:${coreutils}/bin''${PATH:+:$PATH}
        export PATH
        SHELL=${shell}
        set +e
        [ -z "''${PS1-}" ] || [ -n "''${NIX_SHELL_PRESERVE_PROMPT-}" ] || PS1='\n[nix-shell:\w]\$ '
        if [ "$(type -t runHook)" = function ]; then runHook shellHook; else eval "''${shellHook-}"; fi
        unset NIX_ENFORCE_PURITY
        shopt -u nullglob
        shopt -s execfail
      '' + (if script == null then "" else "${script}\nexit\n"));
      env = {
        HOME = home;
        NIX_BUILD_TOP = "/build";
        TMPDIR = "/build";
        TEMPDIR = "/build";
        TMP = "/build";
        TEMP = "/build";
        TERM = "xterm-256color";
        NIX_STORE = builtins.storeDir;
        NIX_BUILD_CORES = "0";
        IN_NIX_SHELL = "pure";
      } // variables drv // {
        PATH = path;
        BASH_ENV = "${outputsFile}";
      };
    in
    if command != null && run != null then throw "${function}: give one of `command` and `run`"
    else image.make {
      inherit function;
      args = {
        name = given.name or "${drv.name}-env";
        tag = given.tag or null;
        compressor = given.compressor or null;
        includeNixDB = true;
        user = { name = "nixbld"; inherit uid gid home; };
        config = {
          # A command is for a terminal, and `run` is not.
          Cmd = if run == null then [ shell "--rcfile" "${rc}" ] else [ shell "${rc}" ];
          WorkingDir = "/build";
          Env = map (name: "${name}=${env.${name}}") (builtins.attrNames env);
        };
        extraCommands = "mkdir -p build usr/bin bin; ln -s ${coreutils}/bin/env usr/bin/env; ln -s ${bash}/bin/bash bin/sh";
        perms = [ { path = "/build"; mode = "0755"; inherit uid gid; } ];
      };
    };
in
rec {
  # An image whose containers are as `nix-shell drv`: a folder, or a program that writes an archive.
  buildNixShellImage = args:
    let made = describe "buildNixShellImage" args; in lib.overridable buildNixShellImage args (made.image // made);
  streamNixShellImage = args:
    let made = describe "streamNixShellImage" args;
    in lib.overridable streamNixShellImage args (made.stream // made // { isExe = true; });
}
