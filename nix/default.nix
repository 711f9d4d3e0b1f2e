# The functions that take the place of nixpkgs' dockerTools: images as derivations, whose outputs
# are image folders, without any bytes of the store.
#
# All that they use is given here, so that they need no nixpkgs. `bash` and `coreutils` run what
# people write; what else is null is only asked for by the functions that need it.
{ stowage
, bash
, coreutils
, # For extraCommands and fakeRootCommands.
  gnutar ? null
, # What commands find in PATH, beside bash and coreutils; of nixpkgs, `stdenv.initialPath`.
  commandTools ? [ ]
, # For fakeRootCommands: a fakeroot whose `fakeroot` works in builds.
  fakeroot ? null
, # For enableFakechroot.
  proot ? null
, # For whole archives, by `compressor`.
  gzip ? null
, zstd ? null
, # For caCertificates, and to pull images.
  cacert ? null
, # For shadowSetup.
  shadow ? null
, # For copyToPodman; the one in PATH does, too.
  podman ? null
, # For buildCIImage.
  nix ? null
, # What goes into images itself: of the machine that they are for, where that is another one than this.
  host ? { }
, system ? stowage.system or builtins.currentSystem
}:

let
  tools = {
    inherit stowage bash coreutils gnutar commandTools fakeroot proot gzip zstd cacert shadow podman nix system;
    host = { inherit stowage bash coreutils system; bashInteractive = host.bash or bash; } // host;
  };
  lib = import ./lib.nix tools;
  image = import ./image.nix (tools // { inherit lib; });
  layer = import ./layer.nix (tools // { inherit lib; });
  archives = import ./archives.nix (tools // { inherit lib; });
  functions = import ./functions.nix (tools // { inherit lib image; });
  helpers = import ./helpers.nix (tools // { inherit lib; });
  shell = import ./shell.nix (tools // { inherit lib image; });
in
{
  inherit (functions)
    buildImage buildLayeredImage streamLayeredImage
    buildImageWithNixDb buildLayeredImageWithNixDb buildCIImage;
  inherit (layer) buildLayer;
  inherit (archives) pullImage mergeImages;
  inherit (helpers) fakeNss shadowSetup binSh usrBinEnv caCertificates;
  inherit (shell) buildNixShellImage streamNixShellImage;
}
