{ debnix ? import <nixpkgs> { index = <index>; } }:

derivation {
  name = "structured-1.0";
  system = "x86_64-linux";
  __structuredAttrs = true;
  builder = "${debnix.bash}/bin/bash";
  args = [ "-eu" ./builder.sh ];
  tools = map (package: "${package}/bin") [ debnix.coreutils debnix.jq ];
  src = ./src;
  numbers = [ 1 2 3 ];
  nested = { answer = 42; text = "a b"; };
}
