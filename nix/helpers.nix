# Small things that images want, by the names that dockerTools gives them.
{ lib, host, cacert, shadow, ... }:

let
  inherit (lib) needed known;
  # In images.
  inherit (host) bash bashInteractive coreutils;
in
{
  # Users for programs that look for them. stowage writes /etc/passwd and /etc/group anyway, and adds
  # these lines to them.
  fakeNss =
    let
      make = args:
        let given = known "fakeNss" [ "extraPasswdLines" "extraGroupLines" ] args;
        in
        lib.overridable make args (lib.script {
          name = "fake-nss";
          text = ''
            mkdir -p "$out/etc" "$out/var/empty"
            cp "$passwdPath" "$out/etc/passwd"
            cp "$groupPath" "$out/etc/group"
            echo 'hosts: files dns' > "$out/etc/nsswitch.conf"
          '';
          attributes = {
            passAsFile = [ "text" "passwd" "group" ];
            passwd = builtins.concatStringsSep "\n" ([
              "root:x:0:0:root user:/var/empty:/bin/sh"
              "nobody:x:65534:65534:nobody:/var/empty:/bin/sh"
            ] ++ given.extraPasswdLines or [ ]) + "\n";
            group = builtins.concatStringsSep "\n" ([ "root:x:0:" "nobody:x:65534:" ] ++ given.extraGroupLines or [ ]) + "\n";
          };
        });
    in
    make { };

  # Commands, for fakeRootCommands with enableFakechroot, after which useradd and groupadd work.
  shadowSetup = ''
    export PATH=${needed "shadowSetup" "shadow" shadow}/bin:${shadow}/sbin:$PATH
    mkdir -p /etc/pam.d
    if [ ! -f /etc/passwd ]; then
      echo "root:x:0:0::/root:${bash}/bin/bash" > /etc/passwd
      echo "root:!x:::::::" > /etc/shadow
    fi
    if [ ! -f /etc/group ]; then
      echo "root:x:0:" > /etc/group
      echo "root:x::" > /etc/gshadow
    fi
    if [ ! -f /etc/pam.d/other ]; then
      printf '%s\n' 'account sufficient pam_unix.so' 'auth sufficient pam_rootok.so' \
        'password requisite pam_unix.so nullok yescrypt' 'session required pam_unix.so' > /etc/pam.d/other
    fi
    if [ ! -f /etc/login.defs ]; then touch /etc/login.defs; fi
  '';

  binSh = lib.script {
    name = "bin-sh";
    text = ''mkdir -p "$out/bin"; ln -s ${bashInteractive}/bin/bash "$out/bin/sh"'';
  };

  usrBinEnv = lib.script {
    name = "usr-bin-env";
    text = ''mkdir -p "$out/usr/bin"; ln -s ${coreutils}/bin/env "$out/usr/bin/env"'';
  };

  # Where the distributions' programs look for them.
  caCertificates = lib.script {
    name = "ca-certificates";
    text = ''
      mkdir -p "$out/etc/ssl/certs" "$out/etc/pki/tls/certs"
      for name in ssl/certs/ca-bundle.crt ssl/certs/ca-certificates.crt pki/tls/certs/ca-bundle.crt; do
        ln -s ${needed "caCertificates" "cacert" cacert}/etc/ssl/certs/ca-bundle.crt "$out/etc/$name"
      done
    '';
  };
}
