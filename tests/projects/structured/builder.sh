# The attributes are in files, which Nix names, or has in the folder of the build.
cd "${NIX_BUILD_TOP:-.}"
. "${NIX_ATTRS_SH_FILE:-.attrs.sh}"
PATH=
for folder in "${tools[@]}"; do PATH=$PATH:$folder; done
out=${outputs[out]:-$out}
mkdir -p "$out"
echo "${numbers[@]} ${nested[answer]} ${nested[text]}" > "$out/attributes"
jq .numbers "${NIX_ATTRS_JSON_FILE:-.attrs.json}" >> "$out/attributes"
cat "$src/text" >> "$out/attributes"
