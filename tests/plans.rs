//! Plans on the command line: strategies, earlier plans and images, and what is
//! different between them.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use serde_json::{Value, json};
use stowage::cli::exit::Exit;
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, printed};

const MB: u64 = 1_000_000;

/// A closure as `--closure` takes it: names with sizes and references. The hash of
/// each path tells its place and `revisions[place]`.
fn closure(scratch: &Scratch, file: &str, paths: &[(&str, u64, &[usize])], revisions: &[usize]) -> Vec<String> {
    let printed: Vec<String> = paths
        .iter()
        .enumerate()
        .map(|(place, (name, ..))| format!("/nix/store/{place:016}{:016}-{name}", revisions[place]))
        .collect();
    let entries: Vec<Value> = paths
        .iter()
        .enumerate()
        .map(|(place, (_, size, references))| {
            let references: Vec<&String> = references.iter().map(|place| &printed[*place]).collect();
            json!({ "path": printed[place], "narHash": format!("sha256:{}", "0".repeat(64)), "narSize": size, "references": references })
        })
        .collect();
    scratch.write(file, &Value::from(entries).to_string());
    printed
}

const PATHS: [(&str, u64, &[usize]); 4] =
    [("base-1", 20 * MB, &[]), ("lib-1", 10 * MB, &[0]), ("tool-1", 30 * MB, &[1]), ("data-1", 40 * MB, &[])];

fn plan(scratch: &Scratch, arguments: &[&str]) -> Value {
    let output = scratch.stowage(&["plan", "--json"]).args(arguments).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("JSON")
}

fn says(scratch: &Scratch, arguments: &[&str]) -> String {
    String::from_utf8(scratch.stowage(arguments).assert().success().get_output().stdout.clone()).expect("UTF-8")
}

fn refuses(scratch: &Scratch, arguments: &[&str], exit: Exit, message: &str) {
    let output = scratch.stowage(arguments).assert().code(exit as i32).get_output().clone();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(message), "{arguments:?}: {said}");
}

#[test]
fn layers_stay_as_an_earlier_plan_has_them_and_history_goes_on() {
    let scratch = Scratch::new();
    closure(&scratch, "one.json", &PATHS, &[0; 4]);
    let two = closure(&scratch, "two.json", &PATHS, &[0, 0, 7, 0]);
    let first = plan(&scratch, &["--closure", "one.json", "--max-layers", "4"]);
    assert_eq!(first["strategy"], "stable");
    scratch.write("plan.json", &first.to_string());
    let second = plan(&scratch, &["--closure", "two.json", "--max-layers", "4", "--previous", "plan.json"]);
    let layers = second["layers"].as_array().expect("a list");
    let kept: Vec<&Value> = layers.iter().filter(|layer| layer["kept"] == true).collect();
    let sent: Vec<&Value> = layers.iter().filter(|layer| layer["kept"] == false).collect();
    assert_eq!((kept.len(), sent.len(), &second["bytesToSend"]), (2, 1, &json!(40 * MB)), "{second}");
    assert_eq!(sent[0]["paths"], json!([two[1], two[2]]));
    assert!(
        kept.iter().all(|layer| first["layers"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|old| old["paths"] == layer["paths"]))
    );
    let name = two[2].rsplit('/').next().expect("a name");
    assert_eq!(second["history"]["revisions"], 1);
    assert_eq!(second["history"]["tracks"][name], json!(["1", "1", 1]));
    scratch.write("plan2.json", &second.to_string());
    let table = says(&scratch, &["plan", "--closure", "two.json", "--max-layers", "4", "--previous", "plan.json"]);
    assert_eq!(
        table,
        "layer  paths        size  what, and why
    1      1     20.0 MB  base-1 (as it was before; changed in 0 of 1 revisions)
    2      1     40.0 MB  data-1 (as it was before; changed in 0 of 1 revisions)
    3*     2     40.0 MB  tool-1, lib-1 (likely to change together; changed in 1 of 1 revisions)
4 paths, 100.0 MB, in 3 layers, and the system layer on top
* would be sent: 1 layers, 40.0 MB, and the system layer
"
    );
    let text = says(&scratch, &["plan", "--closure", "two.json", "--max-layers", "4", "--previous", "plan2.json"]);
    assert!(text.contains("would be sent: 0 layers, 0 B"), "{text}");
    let why = says(&scratch, &["plan", "--closure", "two.json", "--previous", "plan2.json", "--why", &two[2]]);
    assert!(why.contains("as it was before") && why.contains("changed in 1 of 1 revisions"), "{why}");
    let diff = says(&scratch, &["diff", "plan.json", "plan2.json"]);
    assert!(diff.contains("~ tool-1 (built anew)\n") && diff.contains("2 of 3 layers are kept"), "{diff}");
}

#[test]
fn strategies_do_as_they_are_told() {
    let scratch = Scratch::new();
    closure(&scratch, "c.json", &PATHS, &[0; 4]);
    let layers = |spec: &str, arguments: &[&str]| -> Vec<String> {
        scratch.write("spec.json", spec);
        let plan = plan(&scratch, &[&["--closure", "c.json", "--spec", "spec.json"], arguments].concat());
        let name = |path: &Value| path.as_str().expect("text")[44..].to_owned();
        let layer =
            |layer: &Value| layer["paths"].as_array().expect("a list").iter().map(name).collect::<Vec<_>>().join(" ");
        plan["layers"].as_array().expect("a list").iter().map(layer).collect()
    };
    assert_eq!(layers("{}", &["--strategy", "popularity", "--max-layers", "3"]), ["base-1", "lib-1 tool-1 data-1"]);
    assert_eq!(layers(r#"{"popularity":{"data":9},"maxLayers":3}"#, &[]), ["data-1", "base-1 lib-1 tool-1"]);
    assert_eq!(layers(r#"{"pathsPerLayer":[2,1]}"#, &[]), ["base-1 lib-1", "data-1", "tool-1"]);
    assert_eq!(layers(r#"{"strategy":"size","maxLayers":3}"#, &[]), ["data-1", "base-1 lib-1 tool-1"]);
    assert_eq!(
        layers(r#"{"layers":[["data","base"]],"strategy":"popularity"}"#, &[]),
        ["base-1 data-1", "lib-1", "tool-1"]
    );
    scratch.write("groups.json", r#"{"layers":[["data"],["base"]]}"#);
    let groups = ["plan", "--closure", "c.json", "--spec", "groups.json", "--max-layers"];
    let message = "3 layers are too few: `layers` asks for 2, and the image needs 4 at the least";
    refuses(&scratch, &[&groups[..], &["3"]].concat(), Exit::Usage, message);
    scratch.stowage(&groups).arg("4").assert().success();
    assert_eq!(layers("{}", &["--max-layers", "2"]), ["base-1 lib-1 tool-1 data-1"]);
    scratch.write("spec.json", r#"{"layers":[["data","bsae"]]}"#);
    let said = scratch.stowage(&["plan", "--closure", "c.json", "--spec", "spec.json"]).assert().success();
    let said = String::from_utf8_lossy(&said.get_output().stderr).into_owned();
    assert!(said.contains("\"bsae\" in the spec's") && !said.contains("\"data\""), "{said}");
}

#[test]
fn absurd_numbers_end_no_plan() {
    let scratch = Scratch::new();
    const MOST: u64 = u64::MAX >> 1;
    let paths: [(&str, u64, &[usize]); 3] = [("a-1", MOST, &[0]), ("b-1", MOST, &[0]), ("c-1", MOST, &[1])];
    let printed = closure(&scratch, "c.json", &paths, &[0; 3]);
    let old = closure(&scratch, "old.json", &paths, &[1, 1, 0]);
    let track = json!(["ffffffffffffffff", "ffffffffffffffff", 4_294_967_295_u32]);
    let tracks: serde_json::Map<String, Value> =
        old.iter().map(|path| (path.rsplit('/').next().expect("a name").to_owned(), track.clone())).collect();
    let layer = |paths: &[&String]| json!({ "paths": paths, "size": u64::MAX });
    let previous = json!({
        // A path in several layers, and one that is none.
        "layers": [layer(&[&printed[2], &old[0]]), layer(&[&printed[2]]), layer(&[&printed[2]]), layer(&[&"x".to_owned()])],
        "history": { "revisions": 4_294_967_295_u32, "tracks": tracks, "gone": [[], ["x"], [old[1]]] },
    });
    scratch.write("previous.json", &previous.to_string());
    for strategy in ["stable", "popularity", "size"] {
        let arguments = ["--closure", "c.json", "--previous", "previous.json", "--strategy", strategy];
        assert_eq!(plan(&scratch, &arguments)["history"]["revisions"], 64);
        let text = says(&scratch, &[&["plan"], &arguments[..]].concat());
        assert!(text.contains("would be sent: 2 layers, 18446.7 PB"), "{text}");
    }
    scratch.write("new.json", &plan(&scratch, &["--closure", "c.json"]).to_string());
    says(&scratch, &["diff", "previous.json", "new.json"]);
    says(&scratch, &["diff", "new.json", "previous.json"]);
}

#[test]
fn images_tell_the_next_plan_as_much_as_plans_do() {
    for destination in ["oci:layout:old", "stowage:image", "docker-archive:archive.tar"] {
        let scratch = Scratch::new();
        let hello = printed(HELLO);
        scratch.built(&[&hello, "--to", destination]);
        let environment = printed(ENVIRONMENT);
        let arguments = [environment.as_str(), "--previous", destination];
        let first = scratch.built(&[&arguments[..], &["--to", "stowage:next"]].concat());
        let config = says(&scratch, &["inspect", "stowage:next", "--json"]);
        let config: Value = serde_json::from_str(&config).expect("JSON");
        let known = config["config"]["history"][0]["comment"].as_str().expect("text");
        assert!(
            known.starts_with("stowage plan: ") && config["config"]["history"][0]["empty_layer"] == true,
            "{known}"
        );
        // The same again is the same image, whatever it is told of.
        for previous in ["stowage:next", "next"] {
            let again = scratch.built(&[&environment, "--previous", previous, "--to", "stowage:again"]);
            assert_eq!(again["digest"], first["digest"], "{destination}");
        }
        // A path does as well as a reference.
        let path = destination.split(':').nth(1).expect("a path");
        let diff = says(&scratch, &["diff", path, "next"]);
        assert_eq!(diff, says(&scratch, &["diff", destination, "stowage:next"]));
        assert!(diff.contains("+ environment\n") && diff.contains("2 are the same\n"), "{diff}");
    }
}

#[test]
fn what_a_parent_has_is_not_planned_again() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(HELLO), "--to", "oci:layout:parent"]);
    let root = scratch.root();
    let store = ["--store", root.to_str().expect("UTF-8")];
    let environment = printed(ENVIRONMENT);
    let arguments = [environment.as_str(), "--from", "oci:layout"];
    let planned = plan(&scratch, &[&store[..], &arguments].concat());
    assert_eq!(planned["layers"][0]["paths"], json!([environment]));
    assert_eq!(planned["layers"].as_array().expect("a list").len(), 1);
    // The parent's layers stay out of what the next plan knows, however it learns it.
    let first = scratch.built(&[&arguments[..], &["--to", "stowage:child"]].concat());
    for previous in ["child", "child"] {
        let again = scratch.built(&[&arguments[..], &["--previous", previous, "--to", "stowage:child"]].concat());
        assert_eq!(again["digest"], first["digest"]);
    }
    refuses(
        &scratch,
        &[&["plan"], &store[..], &arguments, &["--max-layers", "3"]].concat(),
        Exit::Usage,
        "oci:layout has 2",
    );
}

#[test]
fn why_shows_a_chain_of_references() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(ENVIRONMENT), "--to", "oci:layout:a", "--to", "stowage:image"]);
    for image in ["oci:layout:a", "stowage:image", "image", "layout"] {
        let text = says(&scratch, &["why", image, "library"]);
        let expected = format!("{}\n-> {}\n   -> {}\n", printed(ENVIRONMENT), printed(HELLO), printed(LIBRARY));
        let without_uses: String =
            text.lines().map(|line| line.split(" (").next().unwrap().to_owned() + "\n").collect();
        assert_eq!(without_uses, expected);
        let json: Value =
            serde_json::from_str(&says(&scratch, &["why", image, &printed(HELLO), "--json"])).expect("JSON");
        assert_eq!(json[0]["chain"], json!([printed(ENVIRONMENT), printed(HELLO)]));
    }
    // What an image does not know itself, the store may.
    scratch.write("bare.json", r#"{"includeNixDB": false}"#);
    scratch.built(&[&printed(ENVIRONMENT), "--spec", "bare.json", "--to", "stowage:bare"]);
    let mut why = scratch.stowage(&["why", "bare", "library"]);
    let output = why.env("NIX_STATE_DIR", scratch.root().join("nix/var/nix")).assert().success();
    assert!(String::from_utf8_lossy(&output.get_output().stdout).contains(&format!("-> {}", printed(LIBRARY))));
    refuses(&scratch, &["why", "image", "bash"], Exit::Usage, "bash is not among the 3 store paths of stowage:image");
}

#[test]
fn what_is_no_plan_and_no_image_is_refused() {
    let scratch = Scratch::new();
    closure(&scratch, "c.json", &PATHS, &[0; 4]);
    scratch.write("list.json", "[]");
    scratch.write("text", "no archive");
    scratch.write("empty", "");
    scratch.write("history.json", r#"{"layers":[],"history":{"revisions":1,"tracks":{"x":["zz","0",1]}}}"#);
    for (previous, exit, message) in [
        ("none", Exit::Usage, "none is not there"),
        ("list.json", Exit::Usage, "is no plan"),
        ("history.json", Exit::Usage, "its history can't be read"),
        ("empty", Exit::Usage, "the plan empty: is no plan"),
        ("text", Exit::Destination, "text is no archive of an image"),
        ("root", Exit::Usage, "is a folder, but neither"),
        ("oci:none", Exit::Destination, "none"),
        ("tarball:x", Exit::Usage, "no kind \"tarball\""),
    ] {
        refuses(&scratch, &["plan", "--closure", "c.json", "--previous", previous], exit, message);
        refuses(&scratch, &["diff", previous, previous], exit, message);
    }
    refuses(
        &scratch,
        &["plan", "--closure", "c.json", "--strategy", "paths-per-layer"],
        Exit::Usage,
        "list of numbers",
    );
    refuses(&scratch, &["plan", "--closure", "c.json", "--why", &printed(HELLO)], Exit::Usage, "is not in the closure");
    refuses(&scratch, &["plan", "--closure", "c.json", "--max-layers", "1"], Exit::Usage, "too few");
}
