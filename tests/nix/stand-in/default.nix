# nixpkgs' packages, as far as they are needed; see README.md.
{ system ? builtins.currentSystem, overlays ? [ ] }:
let
  lib = import ./lib.nix;

  # A derivation whose builder is a script for the machine's own bash. The last command is bash's,
  # since cp and others close what Nix reads before they end, and Nix may kill them then.
  script = name: attributes: text:
    derivation ({
      inherit name system;
      builder = "/bin/bash";
      args = [ "-euc" "${text}\n:" ];
      PATH = "/usr/bin:/bin";
    } // attributes);

  onlyThere = name: script name { } "echo '${name} is a stand-in, and can not be built' >&2; exit 1";

  # With evaluation being pure there is no program, and the package can't be built.
  program = builtins.getEnv "STOWAGE";

  # Static packages are named so, that a test can tell. Arguments that are not known are errors, so that
  # a word in place of another is noticed.
  buildRustPackage = isStatic: { pname, version, src, cargoLock, doCheck ? true, postInstall ? "", meta ? { } }:
    let
      crate = (builtins.fromTOML (builtins.readFile (dirOf cargoLock.lockFile + "/Cargo.toml"))).package;
    in
    if crate.version != version then throw "${pname} ${version}, but the crate is ${crate.name} ${crate.version}"
    else script "${pname}${if isStatic then "-static" else ""}-${version}" { inherit src postInstall; } ''
      test -f $src/Cargo.toml
      install -D --mode 755 ${if program == "" then "/no-program" else builtins.path { path = program; name = "program"; }} $out/bin/${pname}
      eval "$postInstall"
    '' // { inherit pname version meta; };

  packages = isStatic: overlays: self:
    lib.genAttrs [ "bash" "bashInteractive" "cacert" "coreutils" "fakeroot" "gnutar" "gzip" "jq" "nix" "podman" "proot" "shadow" "xz" "zstd" ] onlyThere // {
      inherit lib;
      stdenv = rec { hostPlatform = { inherit system; }; buildPlatform = hostPlatform; };
      # What builds, which is another set when compiling for other machines.
      buildPackages = self // { isBuild = true; };
      # An alias that warns, in nixpkgs.
      system = throw "pkgs.system is another name of pkgs.stdenv.hostPlatform.system";
      callPackage = file: arguments:
        let function = if builtins.isFunction file then file else import file; in
        function (builtins.intersectAttrs (builtins.functionArgs function) self // arguments);
      pkgsStatic = make true overlays;
      extend = overlay: make isStatic (overlays ++ [ overlay ]);
      rustPlatform.buildRustPackage = buildRustPackage isStatic;
      runCommand = script;
      writeText = name: text: script name { inherit text; passAsFile = [ "text" ]; } ''cp "$textPath" $out'';
      writeShellScript = name: text:
        script name { text = "#!/bin/bash\n${text}"; passAsFile = [ "text" ]; } ''install --mode 755 "$textPath" $out'';
    };

  make = isStatic: overlays:
    let
      self = builtins.foldl' (previous: overlay: previous // overlay self previous) (packages isStatic overlays self) overlays;
    in
    self;
in
make false overlays
