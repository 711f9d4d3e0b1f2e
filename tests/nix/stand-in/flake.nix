{
  description = "A stand-in for nixpkgs";

  outputs = { self }: { lib = import ./lib.nix; };
}
