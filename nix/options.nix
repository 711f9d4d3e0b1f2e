# The options of module.nix. Those that the hook's configuration has, too, have its names.
{ lib, pkgs }:
let
  inherit (lib) literalExpression mkEnableOption mkOption types;

  image = types.submodule {
    options = {
      match = mkOption {
        type = types.str;
        example = "ci-environment*";
        description = "A pattern of names of derivations: when one of them was built, so is the image.";
      };
      spec = mkOption {
        type = types.path;
        example = "/etc/stowage/ci.json";
        description = ''
          The image's spec, as `stowage build --spec` has it. What was built is among its contents.
          It is read as root: name a file that only root can write.
        '';
      };
      to = mkOption {
        type = types.nonEmptyListOf types.str;
        example = [ "docker://registry.example/team/ci:latest" ];
        description = ''
          Where the image goes, as `stowage build --to` has it. A folder or an archive has to be in
          one that the worker may write to: add it to
          `systemd.services.stowage-worker.serviceConfig.ReadWritePaths`.
        '';
      };
    };
  };
in
{
  enable = mkEnableOption "the export of all that Nix builds here to a binary cache, by stowage";

  package = mkOption {
    type = types.package;
    default = pkgs.stowage or (pkgs.pkgsStatic.callPackage ./package.nix { });
    defaultText = literalExpression "pkgs.stowage, or package.nix by pkgsStatic.callPackage";
    description = "The stowage that is the hook, and the worker.";
  };

  cache = mkOption {
    # Nix 2.8 finds no cache in a folder with other characters, and systemd's own files give
    # meaning to some of them.
    type = types.strMatching "(/[.]?[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+|s3://[A-Za-z0-9._~:/?&=%+-]+";
    example = "/srv/cache";
    description = ''
      The binary cache: a folder by its absolute path, of letters, digits and `/.-_~`; or a bucket,
      as in `s3://team-cache?endpoint=s3.example.org&region=eu-west-1`. The folder is made if it is
      not there, and belongs to {option}`nix.stowage.owner`.
    '';
  };

  owner = mkOption {
    type = types.str;
    default = "root";
    example = "nginx";
    description = ''
      The user who owns the cache's folder and all that is put there. For somebody else than root,
      the worker keeps the capabilities to write to that folder, and to give files away.
    '';
  };

  group = mkOption {
    type = types.str;
    default = "root";
    description = "The group of the cache's folder.";
  };

  export = mkOption {
    type = types.enum [ "closure" "outputs" "build" ];
    default = "closure";
    description = ''
      What of a build goes out: the outputs and all that they refer to (`closure`), the outputs
      alone (`outputs`), or the closure and all that it takes to build again (`build`).
    '';
  };

  skipSignedBy = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [ "cache.nixos.org-1" ];
    description = "Names of keys: what one of them has signed can be had elsewhere, and does not go out.";
  };

  exclude = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [ "*-source" ];
    description = "Patterns of names of store paths that do not go out.";
  };

  compression = mkOption {
    type = types.nullOr (types.strMatching "none|zstd(:[0-9]+)?|xz(:[0-9])?");
    default = null;
    example = "zstd:9";
    description = "How NARs are compressed; `null` is stowage's own choice, zstd:3.";
  };

  secretKeyFiles = mkOption {
    type = types.listOf (types.strMatching "/.+");
    default = [ ];
    example = [ "/run/secrets/cache-key" ];
    description = ''
      Files with the keys that sign what goes out, as `nix-store --generate-binary-cache-key` makes
      them. Write paths as texts: a Nix path (`./key`) would put the key into the store, where all
      may read it. systemd reads the files, as root, for the worker.
    '';
  };

  environmentFile = mkOption {
    type = types.nullOr (types.strMatching "/.+");
    default = null;
    example = "/run/secrets/stowage.env";
    description = ''
      A file with variables, one `NAME=value` in a line, for what works with the cache: credentials
      of a bucket (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`), or of registries that images go to
      (`REGISTRY_AUTH_FILE`, `DOCKER_AUTH_CONFIG`). A path as a text, for the same reason as keys.
    '';
  };

  listing = mkOption {
    type = types.bool;
    default = false;
    description = "Whether each path gets a listing of its files.";
  };

  logs = mkOption {
    type = types.bool;
    default = false;
    description = "Whether build logs go out, too; `nix log` finds them in the cache.";
  };

  strict = mkOption {
    type = types.bool;
    default = false;
    description = ''
      Whether Nix waits for each export, and stops when one fails. Then the Nix daemon's own hook
      exports, and the worker only does what was recorded before.
    '';
  };

  images = mkOption {
    type = types.listOf image;
    default = [ ];
    example = literalExpression ''
      [ { match = "ci-environment*"; spec = ./ci.json; to = [ "docker://registry.example/team/ci:latest" ]; } ]
    '';
    description = "Images that are built when something was built that belongs into them.";
  };

  gc = {
    enable = mkEnableOption "the deletion, from time to time, of what of the cache was used least recently";

    maxSize = mkOption {
      type = types.nullOr (types.strMatching "[0-9]+([.][0-9]+)?([KMGTkmgt]([iI]?[bB])?)?");
      default = null;
      example = "50G";
      description = "How large the cache may be.";
    };

    keepDays = mkOption {
      type = types.nullOr types.ints.unsigned;
      default = null;
      example = 30;
      description = "What was not used for so many days goes. Used is what an export has added, or found there.";
    };

    keep = mkOption {
      type = types.listOf (types.strMatching "/.+");
      default = [ ];
      example = [ "/run/current-system" ];
      description = "Store paths, or links to them, that stay in any case, with all that they refer to.";
    };

    dates = mkOption {
      type = types.str;
      default = "daily";
      example = "Sun 04:00";
      description = "When: a calendar event, as in {manpage}`systemd.time(7)`.";
    };
  };
}
