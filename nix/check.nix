# That stowage understands the configuration that the module writes.
{ nixpkgs, pkgs, module }:
let
  system = nixpkgs.lib.nixosSystem {
    inherit (pkgs.stdenv.hostPlatform) system;
    modules = [
      module
      {
        nix.stowage = {
          enable = true;
          package = pkgs.stowage;
          cache = "/srv/cache";
          export = "build";
          skipSignedBy = [ "cache.nixos.org-1" ];
          exclude = [ "*-source" ];
          compression = "zstd:9";
          secretKeyFiles = [ "/run/secrets/cache-key" ];
          images = [ { match = "ci*"; spec = "/etc/stowage/ci.json"; to = [ "docker://registry.example/ci" ]; } ];
          gc = { enable = true; maxSize = "50G"; };
        };
      }
    ];
  };
  configFile = pkgs.writeText "config.toml" system.config.environment.etc."stowage/config.toml".text;
in
pkgs.runCommand "stowage-module" { } ''
  ${pkgs.stowage}/bin/stowage hook --install --dir $out --config ${configFile}
''
