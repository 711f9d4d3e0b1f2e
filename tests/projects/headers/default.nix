{ debnix ? import <nixpkgs> { index = <index>; } }:

let
  library = debnix.mkDerivation {
    name = "library-1.0";
    outputs = [ "out" "dev" "doc" ];
    buildCommand = ''
      mkdir -p "$out/lib" "$dev/include" "$doc"
      echo '#define ANSWER 42' > "$dev/include/answer.h"
      echo 'Nobody needs this.' | tee "$out/lib/answer" > "$doc/answer"
    '';
  };
in debnix.mkDerivation {
  name = "headers-1.0";
  src = ./src;
  buildInputs = [ debnix.pkgs.gcc library.dev ];
  buildCommand = ''
    mkdir -p "$out/bin"
    gcc -o "$out/bin/answer" answer.c
    test "$("$out/bin/answer")" = 42
  '';
}
