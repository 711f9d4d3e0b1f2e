# The functions in nix/, with debnix in nixpkgs' place, and the examples.
#
#   nix-build tests/nix --arg index /var/cache/debnix/packages.json --arg stowage ./stowage -A examples.minimal
{ index, stowage, debs ? null, nixDir ? ../../nix, authority ? null }:

let
  debnix = import ../debnix { inherit index debs; };
  program = derivation {
    name = "stowage";
    system = "x86_64-linux";
    builder = "${debnix.busybox}/bin/sh";
    PATH = "${debnix.busybox}/bin";
    args = [ "-euc" "mkdir -p $out/bin; cp $src $out/bin/stowage; chmod 755 $out/bin/stowage; ln -s stowage $out/bin/stowage-hook" ];
    src = builtins.path { path = stowage; name = "stowage-program"; };
  };
  # In nixpkgs the file has another name, and refers to nothing.
  cacert = derivation {
    name = "cacert";
    system = "x86_64-linux";
    builder = "${debnix.busybox}/bin/sh";
    PATH = "${debnix.busybox}/bin";
    args = [ "-euc" "mkdir -p $out/etc/ssl/certs; cat $certificates/etc/ssl/certs/ca-certificates.crt $authority > $out/etc/ssl/certs/ca-bundle.crt" ];
    # One more, of a registry on this machine.
    authority = if authority == null then "" else builtins.path { path = authority; name = "authority"; };
    certificates = debnix.ca-certificates;
  };
  tools = import nixDir {
    stowage = program;
    inherit cacert;
    inherit (debnix) bash coreutils gzip zstd fakeroot proot;
    gnutar = debnix.tar;
    shadow = debnix.passwd or null;
    commandTools = [ debnix.sets.images ];
    nix = debnix.nix-bin;
  };

  # As much of nixpkgs as the examples name.
  pkgs = debnix // {
    stowageTools = tools;
    gnugrep = debnix.grep;
    cacert = debnix.ca-certificates;
    path = ../debnix;
    runCommand = name: attributes: text: derivation ({
      inherit name;
      system = "x86_64-linux";
      builder = "${debnix.bash}/bin/bash";
      PATH = "${debnix.coreutils}/bin";
      # Bash would become its last command; those of coreutils close their output before they end, and
      # Nix kills a builder that has.
      args = [ "-euc" "${text}\nexit 0" ];
    } // attributes);
  };
  example = file: import (nixDir + "/examples/${file}") { inherit pkgs; };
in
{
  inherit debnix tools pkgs;
  stowage = program;
  project = import ../debnix/example { inherit index debs; };
  examples = {
    minimal = example "minimal.nix";
    ci-image = import (nixDir + "/examples/ci-image.nix") {
      inherit pkgs;
      project = import ../debnix/example { inherit index debs; };
      nixpkgs = ../debnix;
    };
    gitlab-runner = example "gitlab-runner.nix";
    chain = example "chain.nix";
    layers = example "layers.nix";
    mutable-home = example "mutable-home.nix";
  };
}
