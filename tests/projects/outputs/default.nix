{ debnix ? import <nixpkgs> { index = <index>; } }:

debnix.mkDerivation {
  name = "outputs-1.0";
  src = ./src;
  outputs = [ "out" "dev" "doc" ];
  buildCommand = ''
    mkdir -p "$out/bin" "$dev/include" "$doc/share/doc"
    cp main.sh "$out/bin/main"
    cp main.h "$dev/include"
    cp main.txt "$doc/share/doc"
    echo "$out" > "$dev/include/where"
  '';
}
