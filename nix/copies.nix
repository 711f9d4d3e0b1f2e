# What can be done with an image folder: programs that copy it to where it is wanted, and archives.
{ lib, stowage, gzip, zstd, podman, ... }:

# `image` is the folder; `name` and `tag` are what it is called.
{ image, name, tag, compressor ? "gz" }:

let
  inherit (lib) escape needed;
  source = escape "stowage:${image}";
  program = "${stowage}/bin/stowage";

  # How dockerTools compresses whole archives.
  forms = {
    none = { suffix = ""; command = "cat"; tools = [ ]; };
    gz = { suffix = ".gz"; command = "gzip -n"; tools = [ (needed "compressor = \"gz\"" "gzip" gzip) ]; };
    zstd = {
      suffix = ".zst";
      command = "zstd -q -T\"$NIX_BUILD_CORES\"";
      tools = [ (needed "compressor = \"zstd\"" "zstd" zstd) ];
    };
  };
  form = forms.${compressor} or (throw
    "there is no compressor ${builtins.toJSON compressor}, but ${builtins.concatStringsSep ", " (builtins.attrNames forms)}");
in
builtins.seq form {
  # To any place that `stowage copy` knows, e.g. oci:layout.
  copyTo = lib.writeProgram "copy-to" ''
    exec ${program} copy ${source} "$@"
  '';
  copyToDockerDaemon = lib.writeProgram "copy-to-docker-daemon" ''
    exec ${program} copy ${source} ${escape "docker-daemon:${name}:${tag}"} "$@"
  '';
  copyToRegistry = lib.writeProgram "copy-to-registry" ''
    exec ${program} copy ${source} ${escape "docker://${name}:${tag}"} "$@"
  '';
  copyToPodman = lib.writeProgram "copy-to-podman" ''
    set -o pipefail
    ${program} copy --quiet ${source} docker-archive:- | ${if podman == null then "" else "${podman}/bin/"}podman load "$@"
  '';

  # dockerTools' script, which writes an archive to standard output, and what that takes.
  stream = lib.writeScript "stream-${lib.storeName name}" ''
    set -euo pipefail
    name=
    while [ $# -gt 0 ]; do
      case $1 in
        --repo_tag | -t) name=:''${2:?NAME:TAG}; shift 2 ;;
        --repo_tag=?*) name=:''${1#*=}; shift ;;
        *) echo "usage: $0 [--repo_tag NAME:TAG] > ARCHIVE" >&2; exit 2 ;;
      esac
    done
    exec ${program} copy --quiet ${source} "docker-archive:-$name"
  '' // { isExe = true; };

  # An archive in the store, for whoever needs one there.
  tarball = lib.script {
    name = "docker-image-${lib.storeName name}.tar${form.suffix}";
    inherit (form) tools;
    text = "${program} copy --quiet ${source} docker-archive:- | ${form.command} > \"$out\"";
  };
}
