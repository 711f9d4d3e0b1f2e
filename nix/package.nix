# stowage, for nixpkgs' callPackage. With pkgsStatic it runs in any image.
{ lib, rustPlatform }:

rustPlatform.buildRustPackage {
  pname = "stowage";
  version = "0.1.0";

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../Cargo.toml ../Cargo.lock ../src ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  # The tests need Docker, and a Nix that may build.
  doCheck = false;

  postInstall = ''
    ln -s stowage $out/bin/stowage-hook
    $out/bin/stowage man --directory $out/share/man/man1
    for shell in bash:bash-completion/completions/stowage zsh:zsh/site-functions/_stowage \
      fish:fish/vendor_completions.d/stowage.fish; do
      file=$out/share/''${shell#*:}
      mkdir -p "$(dirname "$file")"
      $out/bin/stowage completions "''${shell%%:*}" > "$file"
    done
  '';

  meta = {
    description = "Gets what Nix builds into container images and binary caches";
    license = with lib.licenses; [ asl20 mit ];
    mainProgram = "stowage";
    platforms = lib.platforms.linux;
  };
}
