# A NixOS module: what Nix builds on this machine goes to a binary cache.
#
# Nix's daemon runs the hook, as root and unconfined; it only records what was built, so that
# Nix goes on. A unit with as few rights as it can do with exports that.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkDefault mkIf mkMerge;

  cfg = config.nix.stowage;
  stowage = "${cfg.package}/bin/stowage";
  startsWith = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  isBelow = folder: startsWith "${folder}/";

  isBucket = startsWith "s3://" cfg.cache;
  isForeign = cfg.owner != "root" && !isBucket;
  folders = if isBucket then [ ] else [ cfg.cache ];

  # What is recorded names the file, so its name must outlive changes of the configuration and
  # the garbage collector: it can't be one in the store.
  configFile = "/etc/stowage/config.toml";

  # The few values that the configuration has are written alike in JSON and TOML.
  toTOML = settings:
    let
      isSaid = name: settings.${name} != null && settings.${name} != [ ];
      line = name: "${name} = ${builtins.toJSON settings.${name}}\n";
    in
    builtins.concatStringsSep "" (map line (builtins.filter isSaid (builtins.attrNames settings)));

  textWithKeys = keys:
    toTOML {
      inherit (cfg) cache export skipSignedBy exclude compression listing logs strict;
      secretKeyFiles = keys;
      # systemd starts it.
      worker = false;
    } + builtins.concatStringsSep "" (map (image: "\n[[image]]\n" + toTOML { inherit (image) match spec to; }) cfg.images);

  # The hook names the keys' own files, which root can read, for when it can't record and has to
  # export itself, and for `stowage cache wait`. The worker can do with fewer rights: it sees
  # another file in place of that one, with the copies that systemd makes for it.
  credentials = builtins.genList
    (number: rec {
      name = "key-${toString number}";
      source = builtins.elemAt cfg.secretKeyFiles number;
      copy = "/run/credentials/stowage-worker.service/${name}";
    })
    (builtins.length cfg.secretKeyFiles);
  workerConfigFile = pkgs.writeText "stowage-worker.toml" (textWithKeys (map (key: key.copy) credentials));

  hook = pkgs.writeShellScript "stowage-hook" (''
    export STOWAGE_CONFIG=${configFile}
  '' + (if cfg.strict then ''
    export STOWAGE_STRICT=1
    exec ${stowage} hook
  '' else ''
    # A hook that fails stops Nix, whatever happens to stowage.
    ${stowage} hook || echo "stowage-hook: stowage failed; what was built is not in the cache" >&2
    exit 0
  ''));

  # What both units may do. The first two say what they have to see of the machine.
  confined = { needsNetwork, capabilities }: {
    Type = "oneshot";
    Nice = 19;
    IOSchedulingClass = "idle";
    CPUSchedulingPolicy = "idle";
    UMask = "0022";

    # Nix's database and store are read only, too. A folder in a home has to be seen.
    ProtectSystem = "strict";
    ProtectHome = mkDefault (!builtins.any (home: isBelow home cfg.cache) [ "/home" "/root" "/run/user" ]);
    ReadWritePaths = folders;
    PrivateTmp = true;
    PrivateDevices = true;
    ProtectProc = "invisible";
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;

    PrivateNetwork = !needsNetwork;
    RestrictAddressFamilies = if needsNetwork then [ "AF_UNIX" "AF_INET" "AF_INET6" ] else [ "none" ];

    # To root's own folders root needs no capability. To those of somebody else it does.
    CapabilityBoundingSet = if capabilities == [ ] then "" else capabilities;
    NoNewPrivileges = true;
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    RemoveIPC = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallFilter = [ "@system-service" "~@privileged" ] ++ (if capabilities == [ ] then [ ] else [ "@chown" ]);
    # Rather than be killed: there are ways without, e.g. for an older kernel.
    SystemCallErrorNumber = "EPERM";
  };

  ofOwner = if isForeign then [ "CAP_CHOWN" "CAP_DAC_OVERRIDE" "CAP_FOWNER" ] else [ ];
  environment = mkIf (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; };
  ofNetwork = needsNetwork: mkIf needsNetwork {
    wants = [ "network-online.target" ];
    after = [ "network-online.target" ];
  };
  workerNeedsNetwork = isBucket || cfg.images != [ ];
in
{
  options.nix.stowage = import ./options.nix { inherit lib pkgs; };

  config = mkIf cfg.enable {
    assertions =
      let
        inStore = file: isBelow builtins.storeDir file;
        limits = cfg.gc.maxSize != null || cfg.gc.keepDays != null;
      in
      [
        {
          assertion = config.nix.enable;
          message = "nix.stowage.enable: there is no Nix on this machine whose builds could be exported (nix.enable is false)";
        }
        {
          assertion = !builtins.any (folder: isBelow folder cfg.cache) [ "/tmp" "/var/tmp" "/proc" "/sys" "/dev" ];
          message = "nix.stowage.cache: ${cfg.cache} is in a folder that the worker has one of its own of, or that is none on a disk; name another one";
        }
        {
          assertion = !inStore cfg.cache;
          message = "nix.stowage.cache: ${cfg.cache} is in the Nix store, which nobody but Nix may write to";
        }
        {
          assertion = !isBucket || cfg.owner == "root" && cfg.group == "root";
          message = "nix.stowage.owner and nix.stowage.group are of a folder, and nix.stowage.cache is the bucket ${cfg.cache}";
        }
        {
          assertion = !builtins.any inStore cfg.secretKeyFiles;
          message = "nix.stowage.secretKeyFiles: a key in the Nix store can be read by everybody; write the path of a file elsewhere, as a text";
        }
        {
          assertion = cfg.environmentFile == null || !inStore cfg.environmentFile;
          message = "nix.stowage.environmentFile: credentials in the Nix store can be read by everybody; write the path of a file elsewhere, as a text";
        }
        {
          assertion = !cfg.gc.enable || limits;
          message = "nix.stowage.gc.enable: say what goes, by nix.stowage.gc.maxSize or nix.stowage.gc.keepDays";
        }
        {
          assertion = cfg.gc.enable || !limits;
          message = "nix.stowage.gc.maxSize and nix.stowage.gc.keepDays do nothing unless nix.stowage.gc.enable is true";
        }
      ];

    nix.settings.post-build-hook = "${hook}";
    environment.etc."stowage/config.toml".text = textWithKeys cfg.secretKeyFiles;
    environment.systemPackages = [ cfg.package ];

    # What units may write to has to be there before they start.
    systemd.tmpfiles.rules = [
      "d /nix/var/nix/stowage 0755 root root -"
      "d /nix/var/nix/stowage/queue 0755 root root -"
      "d /nix/var/nix/gcroots/stowage-queue 0755 root root -"
    ] ++ map (folder: "d ${folder} 0755 ${cfg.owner} ${cfg.group} -") folders;

    systemd.services.stowage-worker = mkMerge [
      (ofNetwork workerNeedsNetwork)
      {
        description = "Export of what Nix has built";
        unitConfig.ConditionPathExists = "/nix/var/nix/db";
        serviceConfig = mkMerge [
          (confined { needsNetwork = workerNeedsNetwork; capabilities = ofOwner; })
          environment
          {
            ExecStart = "${stowage} worker";
            ReadWritePaths = [ "/nix/var/nix/stowage" "/nix/var/nix/gcroots/stowage-queue" ];
            # The layer index.
            CacheDirectory = "stowage";
          }
          (mkIf (credentials != [ ]) {
            LoadCredential = map (key: "${key.name}:${key.source}") credentials;
            BindReadOnlyPaths = [ "${workerConfigFile}:${configFile}" ];
          })
        ];
      }
    ];

    # A folder that is not empty would start it without end where something can't be exported.
    systemd.paths.stowage-worker = {
      description = "What Nix has built and stowage has not exported";
      wantedBy = [ "multi-user.target" ];
      pathConfig = {
        PathChanged = "/nix/var/nix/stowage/queue";
        MakeDirectory = true;
      };
    };

    systemd.timers.stowage-worker = {
      description = "What stowage could not export yet";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnBootSec = "1min";
        OnUnitInactiveSec = "10min";
      };
    };

    # There the daemon's hook works with the bucket.
    systemd.services.nix-daemon.serviceConfig = mkIf cfg.strict environment;

    systemd.services.stowage-gc = mkIf cfg.gc.enable (mkMerge [
      (ofNetwork isBucket)
      {
        description = "Deletion of what of stowage's cache was used least recently";
        serviceConfig = mkMerge [
          (confined { needsNetwork = isBucket; capabilities = ofOwner; })
          environment
          {
            # systemd gives a meaning of its own to these two.
            ExecStart = builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (lib.escapeShellArgs (
              [ stowage "cache" "gc" cfg.cache ]
              ++ (if cfg.gc.maxSize == null then [ ] else [ "--max-size" cfg.gc.maxSize ])
              ++ (if cfg.gc.keepDays == null then [ ] else [ "--keep-days" (toString cfg.gc.keepDays) ])
              ++ builtins.concatMap (path: [ "--keep" path ]) cfg.gc.keep
            ));
          }
        ];
      }
    ]);

    systemd.timers.stowage-gc = mkIf cfg.gc.enable {
      description = "Deletion of what of stowage's cache was used least recently";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.gc.dates;
        Persistent = true;
        RandomizedDelaySec = "15min";
      };
    };
  };
}
