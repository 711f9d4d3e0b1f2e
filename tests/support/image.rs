//! Image folders, and what is in them.

use serde_json::Value;
use stowage::cli::exit::Exit;

use super::Scratch;

/// The paths of the layers of the image folder `name`.
pub fn layers(scratch: &Scratch, name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read(scratch.path(name).join("stowage.json")).expect("an image folder");
    let index: Value = serde_json::from_slice(&text).expect("JSON");
    let layers = index["layers"].as_array().expect("a list").iter();
    let names = |layer: &Value| {
        let paths = layer["paths"].as_array().into_iter().flatten();
        paths.map(|path| path.as_str().expect("a path").trim_start_matches("/nix/store/").to_owned()).collect()
    };
    layers.map(names).collect()
}

/// The entries of a layer of the layout `NAME-layout` of the image folder `name`, and when they were
/// modified.
pub fn times(scratch: &Scratch, name: &str, number: usize) -> Vec<(String, u64)> {
    let text = std::fs::read(scratch.path(name).join("stowage.json")).expect("an image folder");
    let index: Value = serde_json::from_slice(&text).expect("JSON");
    let hex = index["layers"][number]["diffId"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let blob = std::fs::File::open(scratch.path(&format!("{name}-layout/blobs/sha256")).join(hex)).expect("a blob");
    let mut archive = tar::Archive::new(blob);
    let entries = archive.entries().expect("a tar").map(|entry| {
        let entry = entry.expect("valid");
        let path = entry.path().expect("a path").to_string_lossy().trim_end_matches('/').to_owned();
        (path, entry.header().mtime().expect("a time"))
    });
    entries.collect()
}

/// The entries of the system layer of the image folder `name`, with their headers.
pub fn system(scratch: &Scratch, name: &str) -> Vec<(String, tar::Header, Vec<u8>)> {
    let text = std::fs::read(scratch.path(name).join("stowage.json")).expect("an image folder");
    let index: Value = serde_json::from_slice(&text).expect("JSON");
    let digest = index["layers"].as_array().and_then(|layers| layers.last()).expect("a layer")["diffId"].clone();
    let hex = digest.as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let bytes = std::fs::read(scratch.path(name).join("blobs/sha256").join(hex)).expect("a blob");
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("valid");
        let mut contents = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut contents).expect("readable");
        let path = entry.path().expect("a path").to_string_lossy().trim_end_matches('/').to_owned();
        (path, entry.header().clone(), contents)
    });
    entries.collect()
}

pub fn find<'a>(
    entries: &'a [(String, tar::Header, Vec<u8>)],
    path: &str,
) -> Option<&'a (String, tar::Header, Vec<u8>)> {
    entries.iter().find(|(name, ..)| name == path)
}

/// `stowage layer` of `path`, into `file`.
pub fn layer(scratch: &Scratch, path: &str, file: &str, more: &[&str]) -> Value {
    let root = scratch.root();
    let store = root.to_str().expect("ASCII");
    let arguments = [&["layer", "--store", store, path, "--to", file, "--json"], more].concat();
    let output = scratch.stowage(&arguments).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("JSON")
}

/// Builds the image folder `name` of `spec`; what was said of it.
pub fn image(scratch: &Scratch, name: &str, spec: &Value) -> String {
    scratch.write("spec.json", &spec.to_string());
    let to = format!("stowage:{name}");
    let output = scratch.build(&["--spec", "spec.json", "--to", &to]).assert().success();
    String::from_utf8(output.get_output().stderr.clone()).expect("UTF-8")
}

/// What is said of a spec that can't be built.
pub fn refused(scratch: &Scratch, spec: &Value, exit: Exit) -> String {
    scratch.write("spec.json", &spec.to_string());
    let output = scratch.build(&["--spec", "spec.json", "--to", "stowage:refused"]).assert().code(exit as i32);
    assert!(!scratch.path("refused/stowage.json").exists());
    String::from_utf8(output.get_output().stderr.clone()).expect("UTF-8")
}

pub fn copy(scratch: &Scratch, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = scratch.stowage(&["copy", "--store"]);
    command.arg(scratch.root()).args(arguments).assert()
}
