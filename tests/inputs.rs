//! What it takes to build derivations that Nix has made, in all of their forms, and what is told
//! of what is missing.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs, reason = "tests")]

mod scratch;

use std::process::{Command, Output};

use scratch::{Scratch, run};
use stowage::inputs::store::StoreRecipes;
use stowage::inputs::{Depth, Needs};
use stowage::store::StorePath;
use stowage::store::source::RegistrationSource;

/// How all of them are built.
const SH: &str = r#"
      sh = name: script: attributes: derivation ({
        inherit name; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
        args = [ "-ec" script ];
      } // attributes);
"#;

/// Derivations of several forms; `top` takes of all of them.
const GRAPH: &str = r#"
      several = sh "several" "mkdir $out $dev $doc" { outputs = [ "out" "dev" "doc" ]; };
      fixed = sh "fixed" "echo fixed > $out" {
        outputHashMode = "flat"; outputHashAlgo = "sha256";
        outputHash = builtins.hashString "sha256" "fixed\n";
      };
      structured = sh "structured" "mkdir \"\${NIX_ATTRS_SH_FILE:+.}/x\"; . ./.attrs.sh; : > \"$out\"" {
        __structuredAttrs = true; inherit fixed; list = [ 1 2 ];
      };
      top = sh "top" "echo $dev $fixed $source > $out" {
        dev = several.dev; inherit fixed; source = builtins.toFile "source" "text";
      };
"#;

/// An expression with the graph's derivations.
fn graph(result: &str) -> String {
    format!("let {SH} {GRAPH} in {result}")
}

fn build(scratch: &Scratch, attribute: &str) -> StorePath {
    scratch.build(&graph(attribute))
}

/// What it takes to build what `path` was built from.
fn needs(scratch: &Scratch, path: &StorePath, depth: Depth) -> anyhow::Result<Needs> {
    let location = scratch.location();
    let registrations = RegistrationSource::Database.open(&location).expect("a database");
    let files = scratch.files();
    let recipes = StoreRecipes::new(&files, &registrations);
    let derivation = recipes.derivation_of(path)?;
    recipes.needs(&derivation, depth)
}

fn names<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> Vec<String> {
    let mut names: Vec<String> = paths.into_iter().map(|path| path.name().to_owned()).collect();
    names.sort();
    names
}

fn deriver(scratch: &Scratch, path: &StorePath) -> StorePath {
    let output = run(scratch.command("nix-store").args(["--query", "--deriver"]).arg(scratch.real_path(path)));
    scratch.parse(&output.stdout)
}

#[test]
fn outputs_that_are_named_fixed_ones_and_sources_are_found() {
    let scratch = Scratch::new();
    let top = build(&scratch, "top");
    let found = needs(&scratch, &top, Depth::Direct).expect("all there");
    assert_eq!(names(&found.outputs), ["fixed", "several-dev"]);
    assert_eq!(names(&found.sources), ["source"]);
    assert_eq!(needs(&scratch, &deriver(&scratch, &top), Depth::All).expect("all there"), found);
    // An output that was never built is named by the derivation that declares it.
    let other = build(&scratch, "sh \"other\" \"echo $top > $out\" { inherit top; }");
    assert_eq!(names(&needs(&scratch, &other, Depth::Direct).expect("all there").outputs), ["top"]);
    assert_eq!(
        names(&needs(&scratch, &other, Depth::All).expect("all there").outputs),
        ["fixed", "several-dev", "top"]
    );
}

#[test]
fn structured_attributes_hide_no_input() {
    let scratch = Scratch::new();
    let output = run(scratch.command("nix-instantiate").args(["--expr", &graph("structured")]));
    let derivation = scratch.parse(&output.stdout);
    build(&scratch, "fixed");
    assert_eq!(names(&needs(&scratch, &derivation, Depth::Direct).expect("all there").outputs), ["fixed"]);
}

#[test]
fn what_is_missing_is_told_with_a_command_that_brings_it() {
    let scratch = Scratch::new();
    let top = build(&scratch, "top");
    let found = needs(&scratch, &top, Depth::Direct).expect("all there");
    let mut delete = scratch.command("nix-store");
    delete.arg("--delete").args(found.outputs.iter().map(|path| scratch.real_path(path)));
    // What was built from them refers to them.
    delete.arg(scratch.real_path(&top));
    run(&mut delete);
    let derivation = run(scratch.command("nix-instantiate").args(["--expr", &graph("top")]));
    let derivation = scratch.parse(&derivation.stdout);
    let error = needs(&scratch, &derivation, Depth::Direct).expect_err("two are gone").to_string();
    assert!(error.contains("2 paths are needed to build") && error.contains("-several-dev (output dev of"), "{error}");
    let command = error.rsplit_once("with: ").expect("a command").1;
    run(scratch.command("/bin/sh").args(["-c", command]));
    assert_eq!(needs(&scratch, &derivation, Depth::Direct).expect("back again"), found);
}

#[test]
fn a_derivation_that_was_collected_is_named() {
    let scratch = Scratch::new();
    let top = build(&scratch, "top");
    let derivation = deriver(&scratch, &top);
    let mut delete = scratch.command("nix-store");
    run(delete.args(["--delete", "--option", "keep-derivations", "false"]).arg(scratch.real_path(&derivation)));
    let error = needs(&scratch, &top, Depth::Direct).expect_err("gone").to_string();
    assert!(error.contains("-top.drv (a derivation)") && error.contains("nix-instantiate"), "{error}");
    // One that nobody built has none at all.
    let added = run(scratch.command("nix-store").arg("--add").arg("/bin/sh"));
    let error = needs(&scratch, &scratch.parse(&added.stdout), Depth::Direct).expect_err("none").to_string();
    assert!(error.contains("of no derivation that is registered"), "{error}");
}

#[test]
fn where_only_files_of_derivations_are_gone_the_database_tells() {
    let scratch = Scratch::new();
    let top = build(&scratch, "top");
    let expected = needs(&scratch, &top, Depth::Direct).expect("all there");
    let derivation = deriver(&scratch, &top);
    // Those of its inputs: nothing is lost.
    let several = deriver(&scratch, expected.outputs.iter().find(|path| path.name() == "several-dev").expect("there"));
    let remove = |path: &StorePath| {
        run(Command::new("chmod").arg("u+w").arg(scratch.path("store")));
        std::fs::remove_file(scratch.real_path(path)).expect("removed");
    };
    remove(&several);
    assert_eq!(needs(&scratch, &top, Depth::Direct).expect("registered"), expected);
    // Its own: which outputs it names, nobody knows any more.
    remove(&derivation);
    let guessed = needs(&scratch, &top, Depth::Direct).expect("registered");
    assert_eq!(names(&guessed.outputs), ["fixed", "several", "several-dev", "several-doc"]);
    assert_eq!(guessed.sources, expected.sources);
}

/// Runs stowage in the store of `scratch`.
fn stowage(scratch: &Scratch, arguments: &[&str]) -> Output {
    let mut command = scratch.command(env!("CARGO_BIN_EXE_stowage"));
    command.env("XDG_CACHE_HOME", scratch.path("cache")).args(arguments).output().expect("runs")
}

#[test]
fn an_image_tells_why_it_has_each_path_and_plans_what_changes_often_above() {
    let scratch = Scratch::new();
    let top = scratch.real_path(&build(&scratch, "top"));
    let top = top.to_str().expect("UTF-8");
    std::fs::create_dir_all(scratch.path("tree/.git")).expect("made");
    std::fs::write(scratch.path("tree/default.nix"), "1").expect("written");
    let (tree, image) = (scratch.path("tree"), scratch.path("image"));
    let tree = tree.to_str().expect("UTF-8");
    let to = format!("stowage:{}", image.display());
    let arguments = ["build", "--build-deps-of", top, "--nixpkgs", tree, "--to", &to];
    let built = stowage(&scratch, &arguments);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // What it was made of may change: the image has it.
    std::fs::write(scratch.path("tree/default.nix"), "2").expect("written");
    let why = stowage(&scratch, &["why", &to, "*", "--json"]);
    let why: serde_json::Value = serde_json::from_slice(&why.stdout).expect("JSON");
    let mut by: Vec<(String, String)> = Vec::new();
    for answer in why.as_array().expect("a list") {
        let name = answer["path"].as_str().expect("a path").rsplit_once('/').expect("a store path").1;
        by.push((name[33..].to_owned(), answer["by"].to_string()));
    }
    by.sort();
    let expected = [
        ("fixed", r#"["input"]"#),
        ("fixed.drv", r#"["derivation"]"#),
        ("several-dev", r#"["input"]"#),
        ("several.drv", r#"["derivation"]"#),
        ("source", r#"["config","tree"]"#),
        ("source", r#"["source"]"#),
        ("source", r#"["derivation"]"#),
        ("top.drv", r#"["derivation"]"#),
    ];
    let mut expected: Vec<(String, String)> =
        expected.iter().map(|(name, by)| ((*name).to_owned(), (*by).to_owned())).collect();
    expected.sort();
    assert_eq!(by, expected);
    let layout = format!("oci:{}", scratch.path("layout").display());
    let copied = stowage(&scratch, &["copy", &to, &layout]);
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));

    std::fs::write(scratch.path("tree/default.nix"), "1").expect("written");
    let plan = stowage(&scratch, &["plan", "--build-deps-of", top, "--nixpkgs", tree, "--json", "--max-layers", "9"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("JSON");
    let why: Vec<&str> =
        plan["layers"].as_array().expect("a list").iter().map(|layer| layer["why"].as_str().expect("a text")).collect();
    assert_eq!(why[why.len() - 2..], ["the source tree <nixpkgs>", "derivations and their sources"]);
    // What is to be built may be named as Nix names outputs of derivations.
    let derivation = scratch.location().print(&deriver(&scratch, &scratch.parse(top.as_bytes())));
    for name in [derivation.clone(), format!("{derivation}!out"), format!("{derivation}^*")] {
        let named = stowage(&scratch, &["plan", "--build-deps-of", &name, "--json"]);
        assert!(named.status.success(), "{}", String::from_utf8_lossy(&named.stderr));
    }
    // And without changes it is the same again, named by whom it may be.
    let again = stowage(&scratch, &arguments);
    assert_eq!(again.stdout, built.stdout);
}

#[test]
fn files_folders_and_parts_of_store_paths_are_trees() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path("tree/below")).expect("made");
    std::fs::write(scratch.path("tree/below/file"), "1").expect("written");
    let add = |name: &str| {
        let added = run(scratch.command("nix-store").arg("--add").arg(scratch.path(name)));
        String::from_utf8_lossy(&added.stdout).trim_end().to_owned()
    };
    let (folder, file) = (add("tree"), add("tree/below/file"));
    let paths = |arguments: &[&str]| -> Vec<String> {
        let plan = stowage(&scratch, &[&["plan", "--json"], arguments].concat());
        assert!(plan.status.success(), "{}", String::from_utf8_lossy(&plan.stderr));
        let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("JSON");
        let layers = plan["layers"].as_array().expect("a list").iter();
        layers
            .flat_map(|layer| layer["paths"].as_array().expect("a list"))
            .map(|path| path.as_str().expect("a text").to_owned())
            .collect()
    };
    // As they are, also where a pattern names nothing in them.
    assert_eq!(paths(&["--nixpkgs", &folder]), [&*folder]);
    assert_eq!(paths(&["--nixpkgs", &folder, "--exclude", "/none"]), [&*folder]);
    assert_eq!(paths(&["--nixpkgs", &file]), [&*file]);
    // A part is a path of its own, the same as that of a copy elsewhere.
    let part = paths(&["--nixpkgs", &format!("{folder}/below")]);
    assert_eq!(part, paths(&["--nixpkgs", scratch.path("tree/below").to_str().expect("UTF-8")]));
    assert!(part[0].ends_with("-source"), "{part:?}");
    let file_below = scratch.path("tree/below/file");
    let part = paths(&["--nixpkgs", &format!("{folder}/below/file")]);
    assert_eq!(part, paths(&["--nixpkgs", file_below.to_str().expect("UTF-8")]));
}

#[test]
fn what_is_missing_and_what_is_there_already_is_told() {
    let scratch = Scratch::new();
    let top = build(&scratch, "top");
    let printed = scratch.location().print(&build(&scratch, "several"));
    let layout = format!("oci:{}", scratch.path("layout").display());
    let built = stowage(&scratch, &["build", &printed, "--build-deps-of", &printed, "--to", &layout]);
    let warning = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success() && warning.contains("builds nothing"), "{warning}");
    let built = stowage(&scratch, &["build", "--build-deps-of", &printed, "--to", &layout]);
    assert!(!String::from_utf8_lossy(&built.stderr).contains("builds nothing"));
    // No image without all of it.
    let found = needs(&scratch, &top, Depth::Direct).expect("all there");
    let mut delete = scratch.command("nix-store");
    delete.arg("--delete").arg(scratch.real_path(&top)).args(found.outputs.iter().map(|path| scratch.real_path(path)));
    run(&mut delete);
    let derivation = run(scratch.command("nix-instantiate").args(["--expr", &graph("top")]));
    let derivation = String::from_utf8_lossy(&derivation.stdout).trim_end().to_owned();
    let other = format!("oci:{}", scratch.path("other").display());
    let refused = stowage(&scratch, &["build", "--build-deps-of", &derivation, "--to", &other]);
    assert_eq!(refused.status.code(), Some(5), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(!scratch.path("other").exists());
    // Of a list, no command brings what it lacks.
    std::fs::write(scratch.path("list"), format!("{derivation}\n{}\n100\n\n0\n", "0".repeat(64))).expect("written");
    let list = scratch.path("list");
    let list = ["plan", "--registration", list.to_str().expect("UTF-8"), "--build-deps-of", &derivation];
    let refused = stowage(&scratch, &list);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("not among the registrations") && !error.contains("--realise"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scratch = Scratch::new();
    let top = scratch.real_path(&build(&scratch, "top"));
    let top = top.to_str().expect("UTF-8");
    for (arguments, exit, message) in [
        (&["--depth", "all", top][..], 2, "are for --build-deps-of"),
        (&["--exclude", "x", top], 2, "--exclude is for source trees"),
        (&["--nixpkgs", "/none"], 5, "/none"),
        (&["--nixpkgs", "/dev/null"], 5, "neither a file, nor a folder"),
        (&["--nixpkgs", "/tmp", "--nixpkgs", "/usr"], 2, "two source trees are called nixpkgs"),
        (&["--nixpkgs", "/usr/bin", "--exclude", "[z-a]"], 2, "patterns are those of .gitignore"),
        (&["--build-deps-of", "/none"], 5, "/none"),
    ] {
        let output = stowage(&scratch, &[&["build"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {error}");
        assert!(error.contains(message), "{error}");
    }
}

/// Content-addressed derivations: the last one takes an output of the first and the second.
const ADDRESSED: &str = r#"
      addressed = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
      plain = sh "plain" "echo plain > $out" { };
      first = sh "first" "mkdir $out $dev; echo $plain > $out/x; echo 1 > $dev/y" (addressed // {
        outputs = [ "out" "dev" ]; inherit plain;
      });
      second = sh "second" "echo $first \"$text\" > $out" (addressed // {
        inherit first; text = "a \"quoted\" \\ text\nof two lines, (with) [brackets]";
      });
      last = sh "last" "cat $second $dev/y > $out" { inherit second; dev = first.dev; };
"#;

#[test]
fn what_content_addressed_derivations_have_made_is_found() {
    let scratch = Scratch::new();
    let settings = std::fs::read_to_string(scratch.path("conf/nix.conf")).expect("there");
    let settings = settings.replace("features = nix-command", "features = nix-command ca-derivations");
    std::fs::write(scratch.path("conf/nix.conf"), settings).expect("written");
    let expression = format!("let {SH} {ADDRESSED} in last");
    let output = run(scratch.command("nix-instantiate").args(["--expr", &expression]));
    let derivation = scratch.parse(&output.stdout);
    let error = needs(&scratch, &derivation, Depth::Direct).expect_err("not built").to_string();
    assert!(error.contains("a path that is known once it is built (output out of"), "{error}");
    let command = error.rsplit_once("with: ").expect("a command").1;
    run(scratch.command("/bin/sh").args(["-c", command]));
    let found = needs(&scratch, &derivation, Depth::Direct).expect("all there");
    assert_eq!(names(&found.outputs), ["first-dev", "second"]);
    assert_eq!(found.realisations.len(), 2);
    // Nix registers what it has built with a derivation of its own, in which these are sources.
    let last = scratch.build(&expression);
    assert_ne!(deriver(&scratch, &last), derivation);
    assert_eq!(needs(&scratch, &last, Depth::Direct).expect("all there"), found);
    assert_eq!(
        names(&needs(&scratch, &derivation, Depth::All).expect("all there").outputs),
        ["first", "first-dev", "plain", "second"]
    );
    // Other sources, the same results: what was registered last is what was evaluated last.
    for revision in 0..5 {
        let revised = expression.replace("echo 1 >", &format!(": {revision}; echo 1 >"));
        assert_eq!(scratch.build(&revised), last);
        let output = run(scratch.command("nix-instantiate").args(["--expr", &revised]));
        let derivation = scratch.parse(&output.stdout);
        let found = needs(&scratch, &last, Depth::Direct).expect("all there");
        assert_eq!(found, needs(&scratch, &derivation, Depth::Direct).expect("all there"), "{revision}");
    }
}
