# What nixpkgs has for the images of the cases, on debnix: files as packages, a small stdenv, mkShell.
{ debnix, system ? "x86_64-linux" }:

rec {
  # A derivation by a script for busybox's shell.
  runCommand = name: attrs: text: derivation ({
    inherit name system;
    builder = "${debnix.busybox}/bin/sh";
    PATH = "${debnix.busybox}/bin";
    args = [ "-euc" text ];
  } // attrs);

  # One folder with links to what is in `paths`.
  buildEnv = { name, paths }: debnix.environment name paths;

  writeTextDir = file: text: runCommand (baseNameOf file) { inherit file text; passAsFile = [ "text" ]; } ''
    mkdir -p "$(dirname "$out/$file")"
    cp "$textPath" "$out/$file"
  '';

  writeText = name: text: runCommand name { inherit text; passAsFile = [ "text" ]; } ''cp "$textPath" "$out"'';

  writeScriptBin = program: text: runCommand program { inherit text program; passAsFile = [ "text" ]; } ''
    mkdir -p "$out/bin"
    cp "$textPath" "$out/bin/$program"
    chmod 755 "$out/bin/$program"
  '';

  # What every derivation of it sources: programs, what inputs bring, and phases.
  stdenv = runCommand "stdenv" { inherit setup; passAsFile = [ "setup" ]; } ''
    mkdir "$out"
    cp "$setupPath" "$out/setup"
  '';

  setup = ''
    export PATH=${debnix.bash}/bin:${debnix.coreutils}/bin
    for input in ''${nativeBuildInputs-} ''${buildInputs-}; do
      PATH=$PATH:$input/bin
    done
    runHook() {
      eval "''${!1-}"
    }
    genericBuild() {
      local phase
      for phase in buildPhase installPhase; do
        runHook "$phase"
      done
    }
  '';

  mkDerivation = attrs: derivation ({
    inherit system stdenv;
    builder = "${debnix.bash}/bin/bash";
    args = [ "-euc" "source $stdenv/setup; genericBuild" ];
  } // attrs);

  mkShell = attrs: mkDerivation ({ name = "nix-shell"; installPhase = "mkdir $out"; } // attrs);

  # Built by the stdenv, from a source of its own.
  hello = mkDerivation {
    name = "hello";
    src = writeText "hello.sh" ''
      #!${debnix.bash}/bin/bash
      echo 'Hello, world!'
    '';
    buildPhase = "cp $src hello; chmod 755 hello";
    installPhase = "mkdir -p $out/bin; cp hello $out/bin";
  };
}
