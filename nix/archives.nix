# Images from elsewhere, and several images in one archive.
{ lib, stowage, bash, gzip, cacert, system, ... }@tools:

let
  inherit (lib) known escape;
  copies = import ./copies.nix tools;
  program = "${stowage}/bin/stowage";

  # What `stowage copy` calls an image of ours, the script of one, or any archive.
  reference = image:
    if image ? image then "stowage:${image.image}"
    else if image ? pulled then "stowage:${image}"
    else "docker-archive:${image}";
in
{
  # An image of a registry, by its digest, as an image folder. The hash is that of the folder, as
  # `nix-hash --type sha256 --base32` gives it, or Nix itself, when it is wrong.
  pullImage = args:
    let
      given = known "pullImage" [
        "imageName" "imageDigest" "hash" "sha256" "outputHash" "outputHashAlgo" "os" "arch" "finalImageName"
        "finalImageTag" "tlsVerify" "name"
      ] args;
      inherit (given) imageName imageDigest;
      finalName = given.finalImageName or imageName;
      finalTag = given.finalImageTag or "latest";
      host = builtins.head (builtins.split "/" imageName);
      hash = given.hash or (given.sha256 or (given.outputHash or (throw
        "pullImage: the image's `hash` is missing; build with hash = \"\", and Nix says which it is")));
      image = derivation ({
        name = given.name or "docker-image-${lib.storeName finalName}-${finalTag}";
        inherit system;
        builder = program;
        args = [
          "copy" "--quiet" "--name" "${finalName}:${finalTag}" "--platform" "${given.os or "linux"}/${given.arch or (architecture)}"
        ]
        # Without TLS, or with a certificate that nobody has signed: the latter has to be in cacert.
        ++ lib.optionals (!(given.tlsVerify or true)) [ "--plain-http" host ]
        ++ [ "docker://${imageName}@${imageDigest}" "stowage:${placeholder "out"}" ];
        outputHashMode = "recursive";
        outputHashAlgo = given.outputHashAlgo or "sha256";
        outputHash = hash;
        impureEnvVars = [ "http_proxy" "https_proxy" "HTTP_PROXY" "HTTPS_PROXY" "NO_PROXY" "no_proxy" "SSL_CERT_FILE" ];
        preferLocalBuild = true;
      } // (if cacert == null then { } else { SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt"; }));
      architecture = { x86_64-linux = "amd64"; aarch64-linux = "arm64"; }.${system} or (throw
        "pullImage: Go's name of ${system} is not known; give it as `arch`");
    in
    image // copies { inherit image; name = finalName; tag = finalTag; } // {
      pulled = true;
      imageName = finalName;
      imageTag = finalTag;
      inherit image;
    };

  # Several images, for one archive: a program that writes it to standard output. A layer that several
  # have is there once.
  mergeImages = images:
    let
      sources = builtins.concatStringsSep " " (map (image: escape (reference image)) images);
      stream = lib.writeScript "stream-merged-images" ''
        exec ${program} copy --quiet ${sources} docker-archive:-
      '';
    in
    if images == [ ] then throw "mergeImages: there are no images to merge"
    else stream // {
      inherit images stream;
      isExe = true;
      tarball = lib.script {
        name = "merged-docker-images.tar.gz";
        tools = [ (lib.needed "an archive of images" "gzip" gzip) ];
        text = "${stream} | gzip -n > \"$out\"";
      };
      copyToDockerDaemon = lib.writeProgram "copy-to-docker-daemon" ''
        set -o pipefail
        ${stream} | docker load
      '';
    };
}
