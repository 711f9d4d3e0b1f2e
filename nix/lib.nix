# What the functions share.
{ stowage, bash, coreutils, system, host, ... }:

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

  # An argument of two names, of which `contents` is the older one.
  contentsOf = function: args:
    let
      given = asList (
        if args.contents or null == null then args.copyToRoot or null
        else if args.copyToRoot or null == null then args.contents
        else throw "${function}: `contents` is the older name of `copyToRoot`; give one of them"
      );
      isPackage = value: builtins.isString value || builtins.isPath value || value ? outPath;
      wrong = builtins.filter (value: !isPackage value) given;
    in
    if wrong == [ ] then given
    else throw "${function}: its contents are packages and paths, and none is a ${builtins.typeOf (builtins.head wrong)}";

  # The result of `function`, which `override` calls again with some arguments anew.
  overridable = function: args: result: result // {
    override = more: function (args // (if builtins.isFunction more then more args else more));
  };

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

  # Go's name of the architecture that images are for; null where it is not known.
  architecture = { x86_64-linux = "amd64"; aarch64-linux = "arm64"; }.${host.system} or null;

  # A hash of texts, as long as those that dockerTools has for tags.
  hashOf = texts: builtins.substring 0 32
    (builtins.hashString "sha256" (builtins.unsafeDiscardStringContext (builtins.concatStringsSep " " texts)));

  # The path without a slash at its end, with its context.
  plain = path:
    let text = "${path}"; length = builtins.stringLength text;
    in if length > 1 && builtins.substring (length - 1) 1 text == "/" then plain (builtins.substring 0 (length - 1) text) else text;

  # What of a path is the store path that it is in, and what is below that.
  below = text: builtins.substring (builtins.stringLength (whole text)) (-1) text;
  whole = text:
    let
      start = builtins.stringLength builtins.storeDir + 1;
      name = builtins.head (builtins.split "/" (builtins.substring start (-1) text));
    in
    builtins.substring 0 (start + builtins.stringLength name) text;
  isPart = text: builtins.match "/*" (below text) == null;

  # A folder of a package as a package: with links to what is in it, or with that itself.
  part = isCopied: text: script {
    name = storeName (baseNameOf (builtins.unsafeDiscardStringContext text));
    text = ''
      if [ ! -d ${escape text} ]; then
        echo ${escape text} "is no folder, so it can't be laid out at /" >&2
        exit 1
      fi
      shopt -s dotglob nullglob
      mkdir "$out"
      for file in ${escape text}/*; do
        ${if isCopied then "cp -r" else "ln -s"} "$file" "$out/"
      done
      shopt -s globstar
      for link in "$out"/**; do
        # A copied link that has led out of the folder leads there still.
        from=${escape text}''${link#"$out"}
        if [ -L "$link" ] && [ ! -e "$link" ] && [ -e "$from" ]; then
          ln -s -f -n "$(readlink -f "$from")" "$link"
        fi
      done
    '';
  };

  # An archive of what is none of our images, for programs that write one, too, as dockerTools has them.
  archiveOf = image:
    if image.isExe or false
    then script { name = "${image.name or "image"}.tar"; text = "${image} > \"$out\""; }
    else image;

  # A derivation's file alone, without what it builds.
  drvFile = drv: builtins.unsafeDiscardOutputDependency drv.drvPath;

  # The moment of a number of seconds since 1970, by RFC 3339 (Howard Hinnant's `civil_from_days`).
  moment = seconds:
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

  # A date by RFC 3339, of one as Python takes it for dockerTools, of a flake's lastModifiedDate, or of
  # "now", which only impure evaluation knows.
  date = value:
    let
      parts = builtins.match "([0-9]{4})-?([0-9]{2})-?([0-9]{2})([T ]?([0-9]{2}):?([0-9]{2})(:?([0-9]{2}))?)?(Z|[+-]00:?00)?" value;
      part = builtins.elemAt parts;
      seconds = if part 6 == null then "00" else part 7;
      time = if part 3 == null then "00:00:00" else "${part 4}:${part 5}:${seconds}";
    in
    if parts != null then "${part 0}-${part 1}-${part 2}T${time}Z"
    else if value != "now" then value
    else if builtins ? currentTime then moment builtins.currentTime
    else throw "the date \"now\" needs impure evaluation (--impure); give a date in its place";
}
