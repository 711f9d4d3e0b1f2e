# What the functions share.
{ stowage, bash, coreutils, system, ... }:

let
  # The words of a message.
  list = names: builtins.concatStringsSep ", " names;

  # Store names have fewer letters than image names.
  storeName = text: builtins.concatStringsSep "-"
    (builtins.filter (part: builtins.isString part && part != "") (builtins.split "[^-+._?=0-9a-zA-Z]+" text));

  digits = "0123456789";
  pad = width: number:
    let text = toString number; missing = width - builtins.stringLength text;
    in builtins.substring 0 (if missing > 0 then missing else 0) "0000" + text;
in
rec {
  inherit storeName;

  # Each function takes its own arguments, and says which of them nobody knows.
  known = function: names: args:
    let unknown = builtins.attrNames (removeAttrs args names);
    in
    if unknown == [ ] then args
    else throw "${function}: it takes no argument ${list unknown}; those that it takes are ${list names}";

  # What was asked for and is not there.
  needed = what: tool: value:
    if value != null then value
    else throw "${what} needs ${tool}; give it to the functions of stowage, as in `import ./nix { inherit ${tool}; … }`";

  asList = value: if value == null then [ ] else if builtins.isList value then value else [ value ];

  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];

  withoutNulls = attrs:
    removeAttrs attrs (builtins.filter (name: attrs.${name} == null) (builtins.attrNames attrs));

  # Image names have no capitals; dockerTools takes them all the same.
  toLower =
    let characters = text: builtins.genList (at: builtins.substring at 1 text) (builtins.stringLength text);
    in builtins.replaceStrings (characters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (characters "abcdefghijklmnopqrstuvwxyz");

  # A word for the shell.
  escape = text: "'" + builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString text) + "'";

  # What a build writes with stowage itself as its builder: no shell comes between.  `graph` are the
  # paths whose registrations it gets, with all that these refer to.
  run = { name, arguments, graph ? [ ], attributes ? { } }: derivation ({
    inherit name system;
    builder = "${stowage}/bin/stowage";
    args = arguments;
    __structuredAttrs = true;
    exportReferencesGraph.closure = graph;
    preferLocalBuild = true;
  } // attributes);

  # What a script in bash writes to $out; PATH has coreutils and `tools`.
  script = { name, text, tools ? [ ], attributes ? { } }: derivation ({
    inherit name system;
    builder = "${bash}/bin/bash";
    args = [ "-euc" "set -o pipefail; source \"$textPath\"" ];
    PATH = builtins.concatStringsSep ":" (map (tool: "${tool}/bin:${tool}/sbin") (tools ++ [ bash coreutils ]));
    passAsFile = [ "text" ];
    inherit text;
    preferLocalBuild = true;
  } // attributes);

  # What a script makes of `content`, which it finds at $contentPath; it is made anew sooner than fetched.
  write = name: content: text: script {
    inherit name text;
    attributes = { passAsFile = [ "text" "content" ]; inherit content; allowSubstitutes = false; };
  };

  # A file with that text.
  writeText = name: content: write name content "cp \"$contentPath\" \"$out\"";

  # A program in bash, as a file.
  writeScript = name: content: write name content ''
    { echo '#!${bash}/bin/bash'; cat "$contentPath"; } > "$out"
    chmod 755 "$out"
  '';

  # Such a program in a package that is called like it.
  writeProgram = name: content: write name "" ''
    mkdir -p "$out/bin"
    ln -s ${writeScript name content} "$out/bin/${name}"
  '' // { meta.mainProgram = name; };

  # The hash of a derivation's output, as dockerTools has it for a tag.
  hashOf = drv: builtins.substring 0 32 (baseNameOf (builtins.unsafeDiscardStringContext drv.outPath));

  # A derivation's file alone, without what it builds.
  drvFile = drv: builtins.unsafeDiscardOutputDependency drv.drvPath;

  # The moment of a number of seconds since 1970, by RFC 3339 (Howard Hinnant's `civil_from_days`).
  date = seconds:
    let
      days = seconds / 86400;
      rest = seconds - days * 86400;
      z = days + 719468;
      era = z / 146097;
      doe = z - era * 146097;
      yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
      doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
      mp = (5 * doy + 2) / 153;
      day = doy - (153 * mp + 2) / 5 + 1;
      month = if mp < 10 then mp + 3 else mp - 9;
      year = yoe + era * 400 + (if month <= 2 then 1 else 0);
    in
    "${pad 4 year}-${pad 2 month}-${pad 2 day}T${pad 2 (rest / 3600)}:${pad 2 (rest / 60 - rest / 3600 * 60)}:${pad 2 (rest - rest / 60 * 60)}Z";

  # dockerTools takes "now", which only impure evaluation knows.
  created = value:
    if value != "now" then value
    else if builtins ? currentTime then date builtins.currentTime
    else throw "created = \"now\" needs impure evaluation (--impure); give a date in its place";
}
