//! Tests of the reader; `tests/nars.rs` compares its verdicts with those of Nix.

use super::*;

/// What `nix-store --dump` of Nix 2.8.0 printed.
const GOLDEN: &[u8] = include_bytes!("../../../tests/data/tree.nar");

/// All that is in a NAR, as text.
fn list(nar: &[u8], limit: u64) -> Result<(Vec<String>, Measured), ReadError> {
    let mut lines = Vec::new();
    let measured = read(nar, limit, |path, event| {
        let path = String::from_utf8_lossy(path);
        lines.push(match event {
            Event::Enter => format!("+ {path}"),
            Event::Leave => format!("- {path}"),
            Event::Symlink { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
            Event::Regular { executable, size, contents } => {
                let mut text = String::new();
                contents.read_to_string(&mut text)?;
                format!("{path} {executable} {size} {text:?}")
            }
        });
        Ok(())
    })?;
    Ok((lines, measured))
}

/// Tokens, padded.
fn tokens(tokens: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for token in tokens {
        bytes.extend((token.len() as u64).to_le_bytes());
        bytes.extend(*token);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// Folders in each other.
fn nested(depth: usize, name: &[u8]) -> Vec<u8> {
    let mut nar = tokens(&[b"nix-archive-1", b"(", b"type", b"directory"]);
    for _ in 1..depth {
        nar.extend(tokens(&[b"entry", b"(", b"name", name, b"node", b"(", b"type", b"directory"]));
    }
    for _ in 1..depth {
        nar.extend(tokens(&[b")", b")"]));
    }
    nar.extend(tokens(&[b")"]));
    nar
}

#[test]
fn what_nix_writes_is_read() {
    let (lines, measured) = list(GOLDEN, GOLDEN.len() as u64).expect("valid");
    assert_eq!(measured, Measured { hash: NarHash::new(Sha256::digest(GOLDEN).into()), size: GOLDEN.len() as u64 });
    let expected = [
        "+ ",
        "+ a",
        "a/8 true 8 \"12345678\"",
        "+ a/b",
        "a/b/7 false 7 \"1234567\"",
        "+ a/b/empty",
        "- a/b/empty",
        "- a/b",
        "- a",
        "a-b false 2 \"x\\n\"",
        "a.b false 0 \"\"",
        "link -> ../nowhere",
        "\u{fc} false 1 \"u\"",
        "- ",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn contents_need_not_be_read() {
    let measured = read(GOLDEN, u64::MAX, |_, _| Ok(())).expect("valid");
    assert_eq!(measured, list(GOLDEN, u64::MAX).expect("valid").1);
}

#[test]
fn a_nar_cut_anywhere_is_refused() {
    for length in 0..GOLDEN.len() {
        let error = list(&GOLDEN[..length], u64::MAX).expect_err("cut");
        assert!(matches!(error, ReadError::Refused(_)), "{error} at {length}");
    }
}

#[test]
fn nothing_is_read_beyond_the_limit() {
    for limit in 0..GOLDEN.len() as u64 {
        let error = list(GOLDEN, limit).expect_err("too long");
        assert!(matches!(error, ReadError::TooLong(found) if found == limit), "{error} at {limit}");
    }
    let more = [GOLDEN, b"x"].concat();
    assert!(matches!(list(&more, GOLDEN.len() as u64), Err(ReadError::TooLong(_))));
    assert!(matches!(list(&more, u64::MAX), Err(ReadError::Refused(_))));
    // A bomb: the source never ends.
    let start = tokens(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents"]);
    for size in [1 << 20, u64::MAX] {
        let start = [&start[..], &u64::to_le_bytes(size)].concat();
        let source = start.chain(io::repeat(0));
        let mut taken = 0;
        let error = read(Counting { source, taken: &mut taken }, 1000, |_, _| Ok(())).expect_err("a bomb");
        assert!(matches!(error, ReadError::TooLong(1000)), "{error}");
        assert!(taken <= BUFFER_SIZE as u64, "{taken}");
    }
}

struct Counting<'a, R> {
    source: R,
    taken: &'a mut u64,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(space)?;
        *self.taken += length as u64;
        Ok(length)
    }
}

#[test]
fn folders_are_nested_64_deep_at_most_and_paths_end() {
    assert_eq!(list(&nested(MAX_DEPTH, b"d"), u64::MAX).expect("valid").0.len(), 2 * MAX_DEPTH);
    let error = list(&nested(MAX_DEPTH + 1, b"d"), u64::MAX).expect_err("deep");
    assert!(matches!(error, ReadError::TooDeep), "{error}");
    // Sixteen names of 255 bytes, with `/` between them, are 4095 bytes.
    let name = [b'n'; MAX_NAME];
    list(&nested(17, &name), u64::MAX).expect("valid");
    let error = list(&nested(18, &name), u64::MAX).expect_err("long").to_string();
    assert!(error.contains("path"), "{error}");
    let error = list(&nested(2, &[b'n'; MAX_NAME + 1]), u64::MAX).expect_err("long").to_string();
    assert!(error.contains("255"), "{error}");
}

#[test]
fn links_point_somewhere() {
    let link = |target: &[u8]| {
        list(&tokens(&[b"nix-archive-1", b"(", b"type", b"symlink", b"target", target, b")"]), u64::MAX)
    };
    link(&[b'x'; MAX_TARGET]).expect("valid");
    for target in [&b""[..], b"a\0b", &[b'x'; MAX_TARGET + 1], &[b'x'; 2 << 20]] {
        assert!(matches!(link(target), Err(ReadError::Refused(_))), "{} bytes", target.len());
    }
}

#[test]
fn whose_fault_it_is_is_told() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let half = &GOLDEN[..GOLDEN.len() / 2];
    let read_all = |_: &[u8], event: Event<'_>| match event {
        Event::Regular { contents, .. } => io::copy(contents, &mut io::sink()).map(drop),
        _ => Ok(()),
    };
    let error = read(half.chain(Failing), u64::MAX, read_all).expect_err("failed");
    assert!(matches!(error, ReadError::Source(_)), "{error}");
    let error = read(GOLDEN, u64::MAX, |_, _| Err(io::ErrorKind::StorageFull.into())).expect_err("full");
    assert!(matches!(error, ReadError::Visit(_)), "{error}");
}
