# The functions that build images. Arguments have dockerTools' names and meaning where it has them.
{ lib, image, nix, ... }:

let
  # What dockerTools' images are like without being asked: root's, and without a database.
  dockerTools = { user.name = "root"; includeNixDB = false; };

  # They start in /, unless they or their parent say otherwise.
  inRoot = args:
    if args.fromImage or null != null then args
    else args // { config = { WorkingDir = "/"; } // (if args.config or null == null then { } else args.config); };

  # The function's result, with what people expect to find in it.
  result = function: drv: args: passthru: lib.overridable function args
    (drv // passthru // { inherit passthru; meta = args.meta or { }; });

  checked = name: others: args:
    if args.layeringPipeline or null == null
    then removeAttrs (lib.known name (image.arguments ++ [ "layeringPipeline" ] ++ others) args) [ "layeringPipeline" ]
    else throw "${name}: it has no layeringPipeline; `strategy`, `popularity` and `layers` say how layers are made";

  # Has no virtual machine, so nobody is root.
  refuseRoot = name: args:
    if args.runAsRoot or null == null then removeAttrs args [ "runAsRoot" "diskSize" "buildVMMemorySize" "keepContentsDirlinks" "debug" ]
    else throw "${name}: runAsRoot needs a virtual machine; use fakeRootCommands, with enableFakechroot = true where the commands expect the image's files at /";
in
rec {
  # One image; of uid and gid are the files that are made for it, not its store paths.
  buildImage = args:
    let
      given = refuseRoot "buildImage" (checked "buildImage" [ "runAsRoot" "diskSize" "buildVMMemorySize" "keepContentsDirlinks" ] args);
      number = name:
        let value = given.${name} or null;
        in if value == null then 0 else if builtins.isInt value && value >= 0 then value
        else throw "buildImage: ${name} is a number from 0, and not ${builtins.toJSON value}";
      owner = { uid = number "uid"; gid = number "gid"; };
      made = image.make {
        function = "buildImage";
        args = dockerTools // inRoot (removeAttrs given [ "uid" "gid" ]);
        rootOwner = if owner.uid == 0 && owner.gid == 0 then null else owner;
      };
    in
    result buildImage made.image args (made // { buildArgs = args; });

  # One image; of uid, gid, uname and gname are its store paths.
  buildLayeredImage = args:
    let made = layered "buildLayeredImage" args;
    in result buildLayeredImage made.image args made;

  # Likewise, as a program that writes the archive to standard output.
  streamLayeredImage = args:
    let made = layered "streamLayeredImage" args;
    in result streamLayeredImage made.stream args (made // { isExe = true; streamScript = made.stream; });

  layered = name: args: image.make {
    function = name;
    args = dockerTools // { maxLayers = 100; } // inRoot (refuseRoot name (checked name [ "debug" ] args));
  };

  buildImageWithNixDb = args: buildImage ({ includeNixDB = true; } // args);
  buildLayeredImageWithNixDb = args: buildLayeredImage ({ includeNixDB = true; } // args);

  # An image in which Nix works, for an ordinary user, with the hook that keeps what is built.
  buildCIImage = args:
    let
      given = checked "buildCIImage" [ "nix" ] args;
      program = given.nix or (lib.needed "buildCIImage" "nix" nix);
      made = image.make {
        function = "buildCIImage";
        args = { hook = true; } // removeAttrs given [ "nix" "copyToRoot" ] // {
          contents = [ program ] ++ lib.contentsOf "buildCIImage" given;
        };
      };
    in
    result buildCIImage made.image args made;
}
