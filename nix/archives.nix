# Images from elsewhere, and several images in one archive.
{ lib, stowage, bash, gzip, cacert, host, system, ... }@tools:

let
  inherit (lib) known escape;
  copies = import ./copies.nix tools;
  program = "${stowage}/bin/stowage";

  # What `stowage copy` calls an image of ours, or any archive.
  reference = image:
    if image ? image then "stowage:${image.image}" else "docker-archive:${lib.archiveOf image}";

  # One image is a list of one.
  checked = images:
    if builtins.isList images && images != [ ] then images
    else throw "mergeImages: it takes a list of images, and this ${if images == [ ] then "has none" else "is none"}";

  # stowage and certificates under names that no image has: Nix looks into what was pulled for the
  # names of all that the builder had, and a result by its hash may not refer to anything.
  puller = lib.script {
    name = "stowage-puller";
    text = ''
      mkdir -p "$out/bin"
      cp ${stowage}/bin/stowage "$out/bin/stowage"
      ${if cacert == null then "" else "cp ${cacert}/etc/ssl/certs/ca-bundle.crt \"$out/ca-bundle.crt\""}
      exit 0
    '';
  };
in
rec {
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
      registry = builtins.head (builtins.split "/" imageName);
      hash = given.hash or (given.sha256 or (given.outputHash or (throw
        "pullImage: the image's `hash` is missing; build with hash = \"\", and Nix says which it is")));
      image = derivation ({
        name = given.name or "docker-image-${lib.storeName finalName}-${finalTag}";
        inherit system;
        builder = "${puller}/bin/stowage";
        args = [
          "copy" "--quiet" "--name" "${finalName}:${finalTag}" "--platform" "${given.os or "linux"}/${given.arch or (architecture)}"
        ]
        # Without TLS, or with a certificate that nobody has signed: the latter has to be in cacert.
        ++ lib.optionals (!(given.tlsVerify or true)) [ "--plain-http" registry ]
        ++ [ "docker://${imageName}@${imageDigest}" "stowage:${placeholder "out"}" ];
        outputHashMode = "recursive";
        outputHashAlgo = given.outputHashAlgo or "sha256";
        outputHash = hash;
        # Nix sets them to nothing where it has them not itself, whatever a derivation says.
        impureEnvVars = [ "http_proxy" "https_proxy" "HTTP_PROXY" "HTTPS_PROXY" "NO_PROXY" "no_proxy" ]
          ++ lib.optional (cacert == null) "SSL_CERT_FILE";
        preferLocalBuild = true;
      } // (if cacert == null then { } else { SSL_CERT_FILE = "${puller}/ca-bundle.crt"; }));
      architecture =
        if lib.architecture != null then lib.architecture
        else throw "pullImage: Go's name of ${host.system} is not known; give it as `arch`";
    in
    lib.overridable pullImage args (image // copies { inherit image; name = finalName; tag = finalTag; } // {
      imageName = finalName;
      imageTag = finalTag;
      inherit image;
    });

  # Several images, for one archive: a program that writes it to standard output. A layer that several
  # have is there once.
  mergeImages = images:
    let
      sources = builtins.concatStringsSep " " (map (image: escape (reference image)) (checked images));
      stream = lib.writeScript "stream-merged-images" ''
        exec ${program} copy --quiet ${sources} docker-archive:-
      '';
    in
    stream // {
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
