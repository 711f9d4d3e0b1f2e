# The images of dockerTools' own tests, on debnix and by our functions. They have the names that they
# have in nixpkgs (pkgs/build-support/docker/examples.nix, nixos/tests/docker-tools.nix); what is
# tried with them is in tests/system/docker_tools.sh, and CASES.md has a table.
{ index, stowage, debs ? null, nixDir ? ../../nix
, # What of nixFromDockerHub depends on where that is.
  pulled ? { }
}:

let
  inherit (import ./. { inherit index stowage debs nixDir; }) debnix tools;
  packages = import ./packages.nix { inherit debnix; };
  inherit (debnix) bash coreutils hello busybox;
  inherit (packages) buildEnv writeText writeScriptBin;
  inherit (import ./ingredients.nix { inherit debnix packages; })
    nonRootShadowSetup repeated crossHello storeSymlink linkedHello nginxConf;

  # Docker may have images of others, too.
  prefix = "stowage-test/";
  named = function: args: function ({ tag = "latest"; } // args // { name = prefix + args.name; });
  buildImage = named tools.buildImage;
  buildImageWithNixDb = named tools.buildImageWithNixDb;
  buildLayeredImage = named tools.buildLayeredImage;
  buildLayeredImageWithNixDb = named tools.buildLayeredImageWithNixDb;
  streamLayeredImage = named tools.streamLayeredImage;

  root = paths: buildEnv { name = "image-root"; inherit paths; };
  dummy = ./test-dummy;

  onTop = {
    fromImage = images.layered-image;
    extraCommands = "mkdir -m 777 example-output";
    config = {
      Env = [ "PATH=${coreutils}/bin/" ];
      WorkingDir = "/example-output";
      Cmd = [ "${bash}/bin/bash" "-c" "echo hello > foo; cat foo" ];
    };
  };

  child = {
    fromImage = images.environmentVariablesParent;
    config.Env = [ "FROM_CHILD=true" "LAST_LAYER=child" ];
  };

  images = rec {
    # --- Store paths, or none ---

    helloOnRoot = streamLayeredImage {
      name = "hello";
      contents = [ (buildEnv { name = "hello-root"; paths = [ hello ]; }) ];
      config.Cmd = [ "hello" ];
    };
    helloOnRootNoStore = streamLayeredImage {
      name = "hello-no-store";
      contents = [ (buildEnv { name = "hello-root"; paths = [ hello ]; }) ];
      config.Cmd = [ "hello" ];
      includeStorePaths = false;
    };
    helloOnRootNoStoreFakechroot = streamLayeredImage {
      name = "hello-no-store-fakechroot";
      contents = [ (buildEnv { name = "hello-root"; paths = [ hello ]; }) ];
      config.Cmd = [ "hello" ];
      includeStorePaths = false;
      enableFakechroot = true;
    };
    no-store-paths = buildLayeredImage {
      name = "no-store-paths";
      extraCommands = ''
        cp -r ${busybox}/. .
        # Only needed here, so it is not in the image.
        ${hello}/bin/hello
      '';
    };

    # --- Names, dates and compressors ---

    bash = buildImage {
      name = "bash";
      copyToRoot = root [ debnix.bash ];
    };
    bashNoTag = buildImage {
      name = "bash-no-tag";
      tag = null;
      copyToRoot = debnix.bash;
    };
    bashNoTagLayered = buildLayeredImage {
      name = "bash-no-tag-layered";
      tag = null;
      contents = debnix.bash;
    };
    bashNoTagStreamLayered = streamLayeredImage {
      name = "bash-no-tag-stream-layered";
      tag = null;
      contents = debnix.bash;
    };
    unstableDate = buildImage {
      name = "unstable-date";
      copyToRoot = root [ coreutils ];
      created = "now";
    };
    unstableDateLayered = buildLayeredImage {
      name = "unstable-date-layered";
      contents = [ coreutils ];
      created = "now";
    };
    bashUncompressed = buildImage {
      name = "bash-uncompressed";
      compressor = "none";
      copyToRoot = debnix.bash;
    };
    bashZstdCompressed = buildImage {
      name = "bash-zstd";
      compressor = "zstd";
      copyToRoot = debnix.bash;
    };
    bashLayeredUncompressed = buildLayeredImage {
      name = "bash-layered-uncompressed";
      compressor = "none";
      contents = debnix.bash;
    };
    bashLayeredZstdCompressed = buildLayeredImage {
      name = "bash-layered-zstd";
      compressor = "zstd";
      contents = debnix.bash;
    };
    prefixedImage = tools.buildImage {
      name = "registry-1.docker.io/stowage-test/image";
      tag = "latest";
      config.Cmd = [ "${hello}/bin/hello" ];
    };
    prefixedLayeredImage = tools.buildLayeredImage {
      name = "registry-1.docker.io/stowage-test/layered-image";
      tag = "latest";
      config.Cmd = [ "${hello}/bin/hello" ];
    };

    # --- Nix's database ---

    nix = buildImageWithNixDb {
      name = "nix";
      copyToRoot = root [ coreutils debnix.nix-bin debnix.bash ];
      config.Env = [ "NIX_PAGER=cat" "USER=nobody" ];
    };
    nixLayered = buildLayeredImageWithNixDb {
      name = "nix-layered-with-db";
      contents = [ coreutils debnix.nix-bin debnix.bash ];
      config.Env = [ "NIX_PAGER=cat" "USER=nobody" ];
    };
    nix-layered = streamLayeredImage {
      name = "nix-layered";
      contents = [ debnix.nix-bin debnix.bash ];
      config.Env = [ "NIX_PAGER=cat" ];
      includeNixDB = true;
    };
    filesInStore = buildLayeredImageWithNixDb {
      name = "file-in-store";
      contents = [
        coreutils
        debnix.nix-bin
        (writeScriptBin "myscript" "#!${debnix.bash}/bin/bash\ncat ${writeText "somefile" "some data\n"}\n")
      ];
      config = { Cmd = [ "myscript" ]; Env = [ "USER=root" ]; };
    };

    # --- Images of others, and services ---

    nixFromDockerHub = tools.pullImage ({
      finalImageName = prefix + "pulled-nix";
      finalImageTag = "2.2.1";
    } // pulled);
    onTopOfPulledImage = buildImage {
      name = "onTopOfPulledImage";
      fromImage = nixFromDockerHub;
      copyToRoot = root [ hello ];
    };
    nginx = buildLayeredImage {
      name = "nginx-container";
      contents = [ debnix.nginx ] ++ nonRootShadowSetup "nginx" "999";
      # Debian's has its folders elsewhere than nixpkgs' has.
      extraCommands = "mkdir -p tmp/nginx var/log/nginx";
      config = {
        Cmd = [ "nginx" "-c" nginxConf ];
        ExposedPorts."80/tcp" = { };
      };
    };
    redis = buildImage {
      name = "redis";
      fromImage = bash;
      copyToRoot = root [ debnix.redis-server debnix.redis-tools ];
      enableFakechroot = true;
      # Of nixpkgs, this is runAsRoot.
      fakeRootCommands = ''
        mkdir -p /data
        cat > /bin/healthcheck <<-'EOT'
        #!/bin/sh
        test "$(/bin/redis-cli ping)" = PONG
        EOT
        chmod +x /bin/healthcheck
      '';
      config = {
        Cmd = [ "/bin/redis-server" ];
        WorkingDir = "/data";
        Volumes."/data" = { };
        Healthcheck = { Test = [ "CMD-SHELL" "/bin/healthcheck" ]; Interval = 1000000000; Timeout = 10000000000; Retries = 3; };
      };
    };

    # --- Layers ---

    layered-image = buildLayeredImage {
      name = "layered-image";
      contents = [ hello debnix.bash coreutils ];
      extraCommands = ''echo "(extraCommand)" > extraCommands'';
      config.Cmd = [ "${hello}/bin/hello" ];
    };
    another-layered-image = buildLayeredImage {
      name = "another-layered-image";
      config.Cmd = [ "${hello}/bin/hello" ];
    };
    layered-on-top = buildImage (onTop // { name = "layered-on-top"; });
    layered-on-top-layered = buildLayeredImage (onTop // { name = "layered-on-top-layered"; });
    l1 = buildImage {
      name = "l1";
      extraCommands = "mkdir -p tmp; echo layer1 | tee tmp/layer1 tmp/layer2 tmp/layer3";
    };
    l2 = buildImage {
      name = "l2";
      fromImage = l1;
      extraCommands = "mkdir -p tmp; echo layer2 | tee tmp/layer2 tmp/layer3";
    };
    layersOrder = buildImage {
      name = "l3";
      fromImage = l2;
      copyToRoot = root [ coreutils ];
      extraCommands = "mkdir -p tmp; echo layer3 > tmp/layer3";
    };
    repeatedLayerTestImage = buildImage {
      name = "repeated-layer-test";
      fromImage = repeated "ID.tar ID.tar";
      copyToRoot = debnix.bash;
    };
    # As the manifest of older Dockers has it.
    repeatedLayerLinks = buildImage {
      name = "repeated-layer-links";
      fromImage = repeated "first/layer.tar second/layer.tar";
      copyToRoot = debnix.bash;
    };
    two-layered-image = buildLayeredImage {
      name = "two-layered-image";
      contents = [ debnix.bash hello ];
      config.Cmd = [ "${hello}/bin/hello" ];
      maxLayers = 2;
    };
    bulk-layer = buildLayeredImage {
      name = "bulk-layer";
      contents = [ coreutils hello ];
      maxLayers = 2;
    };
    layered-bulk-layer = buildLayeredImage {
      name = "layered-bulk-layer";
      fromImage = two-layered-image;
      contents = [ coreutils hello ];
      maxLayers = 4;
    };
    layeredStoreSymlink = buildLayeredImage {
      name = "layeredstoresymlink";
      contents = [ debnix.bash storeSymlink ];
      passthru.symlink = storeSymlink;
    };

    # --- Configuration ---

    environmentVariablesParent = buildImage {
      name = "parent";
      config.Env = [ "FROM_PARENT=true" "LAST_LAYER=parent" ];
    };
    environmentVariables = buildImage (child // { name = "child"; copyToRoot = root [ coreutils ]; });
    environmentVariablesLayered = buildLayeredImage (child // { name = "child-layered"; contents = [ coreutils ]; });
    cross = buildImage {
      name = "hello-cross";
      copyToRoot = root [ crossHello ];
    };
    build-image-with-architecture = buildImage {
      name = "build-image-with-architecture";
      architecture = "arm64";
      copyToRoot = [ debnix.bash dummy ];
    };
    layered-image-with-architecture = streamLayeredImage {
      name = "layered-image-with-architecture";
      architecture = "arm64";
      contents = [ debnix.bash dummy ];
    };

    # --- Files, owners and commands ---

    bashLayeredWithUser = buildLayeredImage {
      name = "bash-layered-with-user";
      contents = [ debnix.bash coreutils ] ++ nonRootShadowSetup "somebody" "999";
    };
    build-image-with-path = buildImage {
      name = "build-image-with-path";
      copyToRoot = [ debnix.bash dummy ];
    };
    layered-image-with-path = streamLayeredImage {
      name = "layered-image-with-path";
      contents = [ debnix.bash dummy ];
    };
    runAsRootExtraCommands = buildImage {
      name = "runAsRootExtraCommands";
      copyToRoot = root [ coreutils ];
      extraCommands = ''echo "(extraCommand)" > extraCommands'';
      # Of nixpkgs, this is runAsRoot.
      fakeRootCommands = ''echo "(runAsRoot)" > runAsRoot'';
    };
    # Is refused.
    layersUnpackOrder = buildImage {
      name = "layers-unpack-order-b";
      fromImage = bash;
      copyToRoot = root [ coreutils ];
      runAsRoot = "echo -n b >> /layer-order";
    };
    layeredImageWithFakeRootCommands = buildLayeredImage {
      name = "layered-image-with-fake-root-commands";
      contents = [ busybox ];
      fakeRootCommands = ''
        mkdir -p ./home/alice
        chown 1000 ./home/alice
        ln -s ${linkedHello} ./hello
      '';
    };
    imageViaFakeChroot = streamLayeredImage {
      name = "image-via-fake-chroot";
      config.Cmd = [ "hello" ];
      enableFakechroot = true;
      fakeRootCommands = "mkdir /bin; ln -s ${hello}/bin/hello /bin/hello";
    };
    chownTestImage = streamLayeredImage {
      name = "chown-test";
      enableFakechroot = true;
      fakeRootCommands = "touch /testfile; chown 12345:12345 /testfile";
      config.Cmd = [ "${coreutils}/bin/stat" "-c" "%u:%g" "/testfile" ];
    };
    nonRootTestImage = streamLayeredImage {
      name = "non-root-test";
      uid = 1000;
      gid = 1000;
      uname = "user";
      gname = "user";
      # Without this nobody is called so, neither here nor there.
      user.name = "user";
      config = { User = "user"; Cmd = [ "${coreutils}/bin/stat" "-c" "%u:%g" "${coreutils}/bin/stat" ]; };
    };
    image-with-certs = buildImage {
      name = "image-with-certs";
      copyToRoot = buildEnv { name = "image-with-certs-root"; paths = [ coreutils tools.caCertificates ]; };
      config = { };
    };
  };

  merged = {
    mergedBashAndRedis = tools.mergeImages [ images.bash images.redis ];
    mergedBashNoTagAndRedis = tools.mergeImages [ images.bashNoTag images.redis ];
    mergedBashFakeRoot = tools.mergeImages [ images.bash images.layeredImageWithFakeRootCommands ];
    mergeVaryingCompressor = tools.mergeImages [ images.redis images.bashUncompressed images.bashZstdCompressed ];
  };

  shells = import ./shells.nix {
    inherit debnix packages;
    streamNixShellImage = named tools.streamNixShellImage;
  };
in
{
  images = images // shells;
  inherit merged debnix tools packages;
  # What they are called.
  names = builtins.mapAttrs (_: image: "${image.imageName}:${image.imageTag}")
    # Of these, no more is known without a registry, or at all.
    (removeAttrs (images // shells) [ "nixFromDockerHub" "onTopOfPulledImage" "layersUnpackOrder" ])
  // {
    nixFromDockerHub = "${prefix}pulled-nix:2.2.1";
    onTopOfPulledImage = "${prefix}ontopofpulledimage:latest";
  };
}
