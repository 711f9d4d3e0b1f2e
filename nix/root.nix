# What commands make of an image's `/`: a tar, with owners, modes and file capabilities.
{ lib, stowage, coreutils, bash, gnutar, commandTools, fakeroot, proot, ... }:

let
  inherit (lib) needed;

  # Deterministic, and with no times but one; file capabilities are kept.
  tar = "tar --create --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"
    + " --sort=name --mtime=@1 --numeric-owner --xattrs --xattrs-include=security.capability";
in
{
  isNeeded = { extraCommands, fakeRootCommands, owner, ... }:
    extraCommands != "" || fakeRootCommands != "" || owner != null;

  make = { function, name, contents, mutable, extraCommands, fakeRootCommands, enableFakechroot, owner }:
    let
      isFake = fakeRootCommands != "" || enableFakechroot;
      fakerootTool = needed "fakeRootCommands" "fakeroot" fakeroot;
      prootTool = needed "enableFakechroot" "proot" proot;
      owned = if owner == null then "--owner=0 --group=0" else "--owner=${toString owner.uid} --group=${toString owner.gid}";
      # In a chroot, what is bound there is none of the image's.
      excluded = if enableFakechroot then "--exclude=./dev --exclude=./proc --exclude=./sys --exclude=\".$NIX_STORE\"" else "";
      enter =
        if enableFakechroot
        then "touch \"$out\"; exec proot -r \"$PWD\" -b /dev -b /proc -b \"$NIX_STORE\" -b \"$out\" --pwd=/ fakeroot"
        else "exec fakeroot";
    in
    lib.script {
      name = "${lib.storeName name}-root.tar";
      tools = [ (needed "${function}, with commands," "gnutar" gnutar) ]
        ++ lib.optionals isFake [ fakerootTool ] ++ lib.optionals enableFakechroot [ prootTool ]
        ++ commandTools;
      text = ''
        umask 022
        mkdir root
        cd root
        ${stowage}/bin/stowage lay-out --quiet --to . ${builtins.concatStringsSep " " (map (path: "--mutable ${path}") mutable)} \
          -- ${builtins.concatStringsSep " " (map (path: "${path}") contents)}
        # As in dockerTools, commands may do with it what they want.
        chmod -R u+w .
        (source "$extraCommandsPath")
      '' + (if isFake then ''
        fake=$(cat "$fakeRootCommandsPath")
        export fake
        ${enter} bash -euo pipefail -c '
          # Not by `.`, which in a chroot has folders of the machine.
          for name in .[!.]* *; do
            case $name in
              ${if enableFakechroot then "dev | proc | nix" else "\"\""}) ;;
              *) if [ -e "$name" ] || [ -L "$name" ]; then chown -h -R 0:0 -- "$name"; fi ;;
            esac
          done
          (eval "$fake")
          ${tar} ${excluded} --file "$out" .
        '
      '' else ''
        ${tar} ${owned} --file "$out" .
      '');
      attributes = {
        passAsFile = [ "text" "extraCommands" "fakeRootCommands" ];
        inherit extraCommands fakeRootCommands;
      };
    };
}
