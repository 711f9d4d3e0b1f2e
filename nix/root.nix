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
      # What is there before fakeRootCommands, which say the rest; where there are none, all.
      uid = if owner == null then "0" else toString owner.uid;
      gid = if owner == null then "0" else toString owner.gid;
      owned = "--owner=${uid} --group=${gid}";
      first = "${uid}:${gid}";
      words = paths: builtins.concatStringsSep " " (map lib.escape paths);
      # Temporary files, and what is made, as the commands see it: their own /tmp is the image's.
      scratch = if enableFakechroot then "/.stowage" else "$scratch";
      # In a chroot, what is bound there is none of the image's.
      excluded = if enableFakechroot then "--exclude=./dev --exclude=./proc --exclude=./sys --exclude=./.stowage --exclude=\".$NIX_STORE\"" else "";
      enter =
        if enableFakechroot
        then "proot -r \"$PWD\" -b /dev -b /proc -b \"$NIX_STORE\" -b \"$scratch:/.stowage\" --pwd=/ fakeroot"
        else "fakeroot";
    in
    lib.script {
      name = "${lib.storeName name}-root.tar";
      tools = [ (needed "${function}, with commands," "gnutar" gnutar) ]
        ++ lib.optionals isFake [ fakerootTool ] ++ lib.optionals enableFakechroot [ prootTool ]
        ++ commandTools;
      text = ''
        umask 022
        scratch=$(mktemp -d)
        mkdir root
        cd root
        ${stowage}/bin/stowage lay-out --quiet --to . ${builtins.concatStringsSep " " (map (path: "--mutable ${lib.escape path}") mutable)} \
          -- ${words contents}
        # As in dockerTools, commands may do with it what they want.
        chmod -R u+w .
        failed() {
          [ "$?" = 0 ] || [ -z "$running" ] || echo "$running failed, see above. Contents are links into the store, where nothing can be changed; what is named in \`mutable\` is copied to /" >&2
        }
        trap failed EXIT
        running=extraCommands
        (set +u; source "$extraCommandsPath")
      '' + (if isFake then ''
        running=fakeRootCommands
        cp "$fakeRootCommandsPath" "$scratch/commands"
        export scratch
        # Whether all went well, a file tells: by its status, proot says how the last of all processes
        # ended, which may be one that fakeroot has ended.
        ${enter} bash -euo pipefail -c '
          scratch="${scratch}"
          export TMPDIR="$scratch" TMP="$scratch" TEMP="$scratch" TEMPDIR="$scratch"
          # stowage_own [OPTION] OWNER: has fakeroot know the owner of all that is there. Not by `.`, which in a
          # chroot has folders of the machine.
          stowage_own() (
            shopt -s nullglob
            cd "${if enableFakechroot then "/" else "$NIX_BUILD_TOP/root"}"
            for name in .[!.]* *; do
              case $name in
                ${if enableFakechroot then "dev | proc | nix | .stowage" else "\"\""}) ;;
                *) chown -h -R "$@" -- "$name" ;;
              esac
            done
          )
          stowage_own ${first}
          # Of a file that fakeroot does not know, setcap tells it the owner that the file really has, who is
          # whoever builds.
          set -T
          trap "case \$BASH_COMMAND in *cap* | *attr*) stowage_own --from=0:0 0:0 || true ;; esac" DEBUG
          (set +u; eval "$(< "$scratch/commands")")
          trap - DEBUG
          ${tar} ${excluded} --file "$scratch/part.tar" .
          mv "$scratch/part.tar" "$scratch/root.tar"
        ' || true
        [ -e "$scratch/root.tar" ] || (exit 1)
        mv "$scratch/root.tar" "$out"
      '' else ''
        running=
        ${tar} ${owned} --file "$out" .
      '') + "running=\n";
      attributes = {
        passAsFile = [ "text" "extraCommands" "fakeRootCommands" ];
        inherit extraCommands fakeRootCommands;
      };
    };
}
