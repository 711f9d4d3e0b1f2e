# An image for GitLab's runner: it calls the image's shell, runs git in it, and puts the cache that
# was archived where the project is (hooks/gitlab-ci.yml is the pipeline).
{ pkgs ? import <nixpkgs> { overlays = [ (import ../overlay.nix) ]; } }:

pkgs.stowageTools.buildCIImage {
  name = "gitlab-nix";
  tag = "latest";
  contents = [ pkgs.bash pkgs.coreutils pkgs.git pkgs.gnugrep pkgs.cacert ];
  # The runner's own; it may have whatever is in the project's folder.
  user = { name = "gitlab-runner"; uid = 1000; home = "/builds"; };
  nixConf = {
    experimental-features = [ "nix-command" "flakes" ];
    substituters = "";
  };
  config = {
    # The runner gives its scripts to it.
    Cmd = [ "${pkgs.bash}/bin/bash" ];
    Env = [ "LANG=C.UTF-8" "GIT_SSL_CAINFO=/etc/ssl/certs/ca-certificates.crt" ];
  };
}
