# The images of dockerTools' test of nix-shell images, by their names there, with a stdenv of the tests.
{ debnix, packages, streamNixShellImage }:

let
  inherit (packages) mkShell hello;
  shell = args: streamNixShellImage ({ drv = mkShell { }; } // args);

  tellWhich = ''
    case "$-" in
      *i*) echo This shell is interactive ;;
      *) echo This shell is not interactive ;;
    esac
  '';

  homeIsKnown = ''
    if [ "$HOME" != "$(eval "echo ~$(whoami)")" ]; then
      echo "HOME is $HOME, and of $(whoami) it is $(eval "echo ~$(whoami)")"
      exit 1
    fi
  '';
in
{
  nix-shell-basic = shell { name = "nix-shell-basic"; drv = hello; };
  nix-shell-hook = shell {
    name = "nix-shell-hook";
    drv = mkShell {
      shellHook = ''
        echo "This is the shell hook!"
        exit
      '';
    };
  };
  nix-shell-inputs = shell {
    name = "nix-shell-inputs";
    drv = mkShell { nativeBuildInputs = [ debnix.hello ]; };
    command = "hello";
  };
  nix-shell-pass-as-file = shell {
    name = "nix-shell-pass-as-file";
    drv = mkShell { passAsFile = [ "str" ]; str = "this is a string"; };
    command = ''cat "$strPath"'';
  };
  nix-shell-run = shell { name = "nix-shell-run"; run = tellWhich; };
  nix-shell-command = shell { name = "nix-shell-command"; command = tellWhich; };
  nix-shell-writable-home = shell {
    name = "nix-shell-writable-home";
    run = homeIsKnown + ''
      touch "$HOME/test-file" || exit 1
      echo "home directory is writable"
    '';
  };
  nix-shell-nonexistent-home = shell {
    name = "nix-shell-nonexistent-home";
    homeDirectory = "/homeless-shelter";
    run = homeIsKnown + ''
      if [ -e "$HOME" ]; then
        echo "home directory exists"
        exit 1
      fi
      echo "home directory doesn't exist"
    '';
  };
  nix-shell-build-derivation = shell {
    name = "nix-shell-build-derivation";
    drv = hello;
    run = ''
      buildDerivation || exit 1
      $out/bin/hello
    '';
  };
}
