# An ordinary user, whose home has files that can be changed: they are copies, and not links into the
# store. Neither root nor fakeroot is needed for it.
{ pkgs ? import <nixpkgs> { overlays = [ (import ../overlay.nix) ]; } }:

let
  home = pkgs.runCommand "home" { } ''
    mkdir -p "$out/home/alice/.config" "$out/home/alice/bin"
    echo 'greeting=hello' > "$out/home/alice/.config/settings"
    # What is in the store may be linked from there.
    ln -s ${pkgs.hello}/bin/hello "$out/home/alice/bin/hello"
  '';
in
pkgs.stowageTools.buildLayeredImage {
  name = "alice";
  tag = "latest";
  contents = [ pkgs.bash pkgs.coreutils home ];
  mutable = [ home ];
  user = { name = "alice"; uid = 1001; home = "/home/alice"; };
  perms = [ { path = "/home/alice/.config/settings"; mode = "0600"; } ];
  config.Cmd = [ "${pkgs.bash}/bin/bash" ];
}
