//! The reader of NARs against the Nix of this machine: whatever Nix refuses to
//! unpack is refused.
#![expect(clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use stowage::nar::read::{Event, read};

/// What `nix-store --dump` of Nix 2.8.0 printed.
const GOLDEN: &[u8] = include_bytes!("data/tree.nar");

/// Whether `nix-store --restore` unpacks it.
fn nix_takes(nar: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    // Nix makes room for what a NAR claims to hold before it reads that.
    let mut child = Command::new("prlimit")
        .args(["--as=1073741824", "--cpu=10", "nix-store", "--restore"])
        .arg(folder.path().join("tree"))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test needs Nix");
    // It may go before it has read all.
    let _ = child.stdin.take().expect("a pipe").write_all(nar);
    let taken = child.wait().expect("ends").success();
    make_removable(folder.path());
    taken
}

/// Long paths and odd names go by themselves; folders that can't be written do
/// not, for an ordinary user.
fn make_removable(folder: &Path) {
    let _ = Command::new("chmod").args(["-R", "u+rwx"]).arg(folder).stderr(Stdio::null()).status();
}

fn stowage_takes(nar: &[u8]) -> bool {
    let result = read(nar, u64::MAX, |_, event| match event {
        Event::Regular { contents, .. } => std::io::copy(contents, &mut std::io::sink()).map(drop),
        _ => Ok(()),
    });
    result.is_ok()
}

/// A NAR of tokens; those that begin with `#` are raw bytes.
fn nar(tokens: &[&[u8]]) -> Vec<u8> {
    let mut bytes = token(b"nix-archive-1");
    for word in tokens {
        match word.strip_prefix(b"#") {
            Some(raw) => bytes.extend(raw),
            None => bytes.extend(token(word)),
        }
    }
    bytes
}

fn token(word: &[u8]) -> Vec<u8> {
    let mut bytes = (word.len() as u64).to_le_bytes().to_vec();
    bytes.extend(word);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A folder with entries of these names, each an empty file.
fn folder(names: &[&[u8]]) -> Vec<u8> {
    let mut words: Vec<&[u8]> = vec![b"(", b"type", b"directory"];
    for name in names {
        words.extend([
            &b"entry"[..],
            b"(",
            b"name",
            name,
            b"node",
            b"(",
            b"type",
            b"regular",
            b"contents",
            b"",
            b")",
            b")",
        ]);
    }
    words.push(b")");
    nar(&words)
}

/// A link at the root.
fn link(target: &[u8]) -> Vec<u8> {
    nar(&[b"(", b"type", b"symlink", b"target", target, b")"])
}

/// `depth` folders in each other.
fn nested(depth: usize, name: &[u8]) -> Vec<u8> {
    let mut words: Vec<&[u8]> = vec![b"(", b"type", b"directory"];
    for _ in 1..depth {
        words.extend([&b"entry"[..], b"(", b"name", name, b"node", b"(", b"type", b"directory"]);
    }
    words.resize(words.len() + 2 * (depth - 1) + 1, b")");
    nar(&words)
}

/// Bad NARs by name, and whether Nix 2.8 takes them all the same.
fn bad() -> Vec<(&'static str, Vec<u8>, bool)> {
    let regular = |words: &[&[u8]]| nar(&[&[&b"("[..], b"type", b"regular"], words].concat());
    let raw = |bytes: &[u8]| [b"#", bytes].concat();
    let size = |size: u64| [&b"#"[..], &size.to_le_bytes()].concat();
    vec![
        ("nothing", Vec::new(), false),
        ("another magic", token(b"nix-archive-2"), false),
        ("the magic alone", token(b"nix-archive-1"), false),
        ("a magic that ends in no zeros", [&13_u64.to_le_bytes()[..], b"nix-archive-1\0\0x"].concat(), false),
        ("no node", nar(&[b")"]), false),
        ("an unknown type", nar(&[b"(", b"type", b"device", b")"]), false),
        ("two types", regular(&[b"type", b"directory", b")"]), false),
        ("no type", nar(&[b"(", b")"]), true),
        ("a file without contents", regular(&[b")"]), true),
        ("a file with two contents", regular(&[b"contents", b"a", b"contents", b"b", b")"]), true),
        ("executable with a value", regular(&[b"executable", b"x", b"contents", b"", b")"]), false),
        ("executable after the contents", regular(&[b"contents", b"", b"executable", b"", b")"]), true),
        ("contents without an end", regular(&[b"contents", b"1234"]), false),
        ("contents of 2^64 - 1 bytes", regular(&[b"contents", &size(u64::MAX)]), false),
        ("contents of 2^63 bytes", regular(&[b"contents", &size(1 << 63), &raw(b"12345678"), b")"]), false),
        ("contents of 2^40 bytes", regular(&[b"contents", &size(1 << 40), &raw(b"12345678"), b")"]), false),
        ("padding that is not zeros", regular(&[b"contents", &size(1), &raw(b"a\0\0\0\0\0\0x"), b")"]), false),
        ("an entry in a file", regular(&[b"entry", b"(", b")", b")"]), false),
        ("a target in a file", regular(&[b"target", b"x", b")"]), false),
        ("a link without a target", nar(&[b"(", b"type", b"symlink", b")"]), true),
        ("a link to nowhere", link(b""), false),
        ("a link with a zero", link(b"a\0b"), true),
        ("a link of 4096 bytes", link(&[b'x'; 4096]), false),
        ("a link of 2^62 bytes", nar(&[b"(", b"type", b"symlink", b"target", &size(1 << 62)]), false),
        ("an empty name", folder(&[b""]), false),
        ("the name .", folder(&[b"."]), false),
        ("the name ..", folder(&[b".."]), false),
        ("a name with /", folder(&[b"a/b"]), false),
        ("a name that is a path to elsewhere", folder(&[b"../../etc"]), false),
        ("an absolute name", folder(&[b"/etc"]), false),
        ("a name with a zero", folder(&[b"a\0b"]), false),
        ("a name of 256 bytes", folder(&[&[b'n'; 256]]), false),
        ("a name of 2^62 bytes", nar(&[b"(", b"type", b"directory", b"entry", b"(", b"name", &size(1 << 62)]), false),
        ("names that are not sorted", folder(&[b"b", b"a"]), true),
        ("a name twice", folder(&[b"a", b"a"]), false),
        ("a name twice, far apart", folder(&[b"a", b"b", b"a"]), false),
        ("an entry without a name", nar(&[b"(", b"type", b"directory", b"entry", b"(", b"node"]), false),
        (
            "an entry without a node",
            nar(&[b"(", b"type", b"directory", b"entry", b"(", b"name", b"a", b")", b")"]),
            true,
        ),
        ("a folder without an end", nar(&[b"(", b"type", b"directory"]), false),
        ("65 folders in each other", nested(65, b"d"), true),
        ("a path of more than 4095 bytes", nested(18, &[b'n'; 255]), false),
        ("a keyword of 2^62 bytes", nar(&[&size(1 << 62)]), false),
        ("something after the end", [GOLDEN, b"x"].concat(), true),
        ("the same twice", [GOLDEN, GOLDEN].concat(), true),
    ]
}

#[test]
fn hand_made_bad_nars_are_refused_and_nix_refuses_no_others() {
    assert!(nix_takes(GOLDEN) && stowage_takes(GOLDEN));
    for (name, nar, lenient) in bad() {
        assert!(!stowage_takes(&nar), "{name}");
        assert_eq!(nix_takes(&nar), lenient, "{name}");
    }
}

#[test]
fn the_largest_that_is_allowed_is_taken() {
    for nar in [
        folder(&[&[b'n'; 255]]),
        folder(&[b"\n", b"A", b"a", b"\xff\xfe"]),
        link(&[b'x'; 4095]),
        nested(64, b"d"),
        folder(&[]),
        nar(&[b"(", b"type", b"regular", b"executable", b"", b"contents", b"x", b")"]),
    ] {
        assert!(nix_takes(&nar) && stowage_takes(&nar), "{}", nar.escape_ascii());
    }
}

/// Numbers that are the same in each run: Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn a_nar_with_some_bytes_changed_is_refused_where_nix_refuses_it() {
    let mut random = Random(7);
    let mut refused = 0;
    for _ in 0..400 {
        let mut nar = GOLDEN.to_vec();
        match random.below(4) {
            0 => nar.truncate(random.below(GOLDEN.len())),
            1 => {
                // A token out of its place.
                let (from, to) = (random.below(nar.len() / 8) * 8, random.below(nar.len() / 8) * 8);
                let token: Vec<u8> = nar.drain(from..(from + 16).min(GOLDEN.len())).collect();
                let to = to.min(nar.len());
                nar.splice(to..to, token);
            }
            _ => {
                let place = random.below(nar.len());
                nar[place] = [0, b'/', b'.', 1, 0xff, b'a'][random.below(6)];
            }
        }
        if !nix_takes(&nar) {
            refused += 1;
            assert!(!stowage_takes(&nar), "{}", nar.escape_ascii());
        }
    }
    assert!(refused > 200, "{refused}");
}
