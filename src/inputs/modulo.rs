//! The names that Nix gives to what content-addressed derivations have made.
//!
//! Up to 2.34 a realisation is known by the hash of its derivation *modulo* what that is built
//! from: other derivations count by such hashes of theirs, fixed outputs by their contents, and its
//! own outputs' paths not at all. The crate that reads derivations computes these hashes only where
//! they lead to store paths, so here is the rest, on the text itself.
//!
//! Source: Nix 2.8, `hashDerivationModulo` and `Derivation::unparse` in `derivations.cc`.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;

/// The parts of a derivation's text, in their order.
const PARTS: usize = 7;
const OUTPUTS: usize = 0;
const INPUTS: usize = 1;
const ENVIRONMENT: usize = 6;

/// A derivation's text, taken apart.
pub struct Text<'a>([&'a [u8]; PARTS]);

impl<'a> Text<'a> {
    /// Takes a derivation apart; `None` where it is of a newer form than had such hashes.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let inner = text.strip_prefix(b"Derive(")?.strip_suffix(b")")?;
        let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0_usize);
        let (mut in_string, mut escaped) = (false, false);
        for (at, byte) in inner.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.checked_sub(1)?,
                b',' if depth == 0 => {
                    parts.push(&inner[from..at]);
                    from = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&inner[from..]);
        parts.try_into().ok().map(Self)
    }

    /// The hash that stands for the contents of a fixed output, if this has one.
    #[must_use]
    pub fn fixed(&self) -> Option<Digest> {
        match &strings(self.0[OUTPUTS])[..] {
            [name, path, algorithm, hash] if !hash.is_empty() => {
                Some(Digest::of(&[&b"fixed"[..], name, algorithm, hash, path].join(&b':')))
            }
            _ => None,
        }
    }

    /// The hash modulo `inputs`: the outputs that are taken, by the hashes of their derivations.
    /// `is_own`: of the derivation itself, for its realisations, rather than as an input of others.
    #[must_use]
    pub fn hash(&self, inputs: &BTreeMap<Digest, BTreeSet<String>>, is_own: bool) -> Digest {
        let input = |(hash, outputs): (&Digest, &BTreeSet<String>)| {
            let outputs: Vec<String> = outputs.iter().map(|output| format!("\"{output}\"")).collect();
            format!("(\"{}\",[{}])", hash.to_hex(), outputs.join(","))
        };
        let inputs = format!("[{}]", inputs.iter().map(input).collect::<Vec<_>>().join(",")).into_bytes();
        let mut parts: [Vec<u8>; PARTS] = self.0.map(<[u8]>::to_vec);
        parts[INPUTS] = inputs;
        if is_own {
            let outputs = strings(self.0[OUTPUTS]);
            let names: BTreeSet<&[u8]> = outputs.chunks(4).filter_map(|output| output.first().copied()).collect();
            parts[OUTPUTS] = list(outputs.chunks(4).map(|output| blank(output, 1)));
            let environment = strings(self.0[ENVIRONMENT]);
            let variables = environment.chunks(2);
            parts[ENVIRONMENT] = list(variables.map(|variable| match variable {
                [name, _] if names.contains(name) => blank(variable, 1),
                _ => blank(variable, variable.len()),
            }));
        }
        Digest::of(&[b"Derive(", &parts.join(&b',')[..], b")"].concat())
    }
}

/// The strings in a part, as they are written.
fn strings(part: &[u8]) -> Vec<&[u8]> {
    let (mut strings, mut from, mut escaped) = (Vec::new(), None, false);
    for (at, byte) in part.iter().enumerate() {
        match (byte, from) {
            _ if escaped => escaped = false,
            (b'\\', Some(_)) => escaped = true,
            (b'"', None) => from = Some(at + 1),
            (b'"', Some(begin)) => {
                strings.push(&part[begin..at]);
                from = None;
            }
            _ => {}
        }
    }
    strings
}

/// A tuple of these strings, with nothing in place of the one with that number.
fn blank(strings: &[&[u8]], number: usize) -> Vec<u8> {
    let string = |(at, string): (usize, &&[u8])| match at == number {
        true => b"\"\"".to_vec(),
        false => [b"\"", *string, b"\""].concat(),
    };
    [b"(", &strings.iter().enumerate().map(string).collect::<Vec<_>>().join(&b',')[..], b")"].concat()
}

fn list(tuples: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    [b"[", &tuples.collect::<Vec<_>>().join(&b',')[..], b"]"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_whatever_is_in_its_strings() {
        let text = br#"Derive([("out","","r:sha256","")],[],["/nix/store/s"],"x86_64-linux","/bin/sh",["a,)]","\"]"],[("out","/1rz"),("x","\\")])"#;
        let parsed = Text::parse(text).expect("a derivation");
        assert_eq!(parsed.0[5], br#"["a,)]","\"]"]"#);
        assert_eq!(strings(parsed.0[ENVIRONMENT]), [&b"out"[..], b"/1rz", b"x", b"\\\\"]);
        assert!(parsed.fixed().is_none());
        let hashed = br#"Derive([("out","","r:sha256","")],[("HASH",["dev","out"])],["/nix/store/s"],"x86_64-linux","/bin/sh",["a,)]","\"]"],[("out",""),("x","\\")])"#;
        let hash = Digest::of(b"input");
        let expected = String::from_utf8(hashed.to_vec()).expect("ASCII").replace("HASH", &hash.to_hex());
        let inputs = [(hash, ["out".to_owned(), "dev".to_owned()].into())].into();
        assert_eq!(parsed.hash(&inputs, true), Digest::of(expected.as_bytes()));
        assert_ne!(parsed.hash(&inputs, false), parsed.hash(&inputs, true));
        for wrong in [&b""[..], b"Derive()", b"DrvWithVersion(\"xp-dyn-drv\",[])", b"Derive(]])"] {
            assert!(Text::parse(wrong).is_none());
        }
    }

    #[test]
    fn a_fixed_output_counts_by_its_contents() {
        let text = br#"Derive([("out","/nix/store/x-fixed","sha256","1b3c")],[],[],"x86_64-linux","/bin/sh",[],[("out","/nix/store/x-fixed")])"#;
        let parsed = Text::parse(text).expect("a derivation").fixed();
        assert_eq!(parsed, Some(Digest::of(b"fixed:out:sha256:1b3c:/nix/store/x-fixed")));
    }
}
