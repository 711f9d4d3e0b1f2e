{
  description = "Gets what Nix builds into container images and binary caches";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forSystems = nixpkgs.lib.genAttrs systems;
      overlay = import ./nix/overlay.nix;
      pkgsFor = forSystems (system: import nixpkgs { inherit system; overlays = [ overlay ]; });
    in
    {
      packages = forSystems (system: rec {
        inherit (pkgsFor.${system}) stowage;
        default = stowage;
      });

      # The functions that make images: of the flake's own nixpkgs, as in `lib.x86_64-linux.buildImage`,
      # or of somebody's, as in `(lib.withPkgs pkgs).buildImage`.
      lib = forSystems (system: pkgsFor.${system}.stowageTools) // {
        withPkgs = pkgs: (pkgs.extend overlay).stowageTools;
      };

      overlays.default = overlay;

      nixosModules.default = import ./nix/module.nix;

      checks = forSystems (system: {
        package = self.packages.${system}.default;
        module = import ./nix/check.nix {
          inherit nixpkgs;
          pkgs = pkgsFor.${system};
          module = self.nixosModules.default;
        };
      });
    };
}
