//! Finds references in bytes, as Nix does: by the hash parts of store paths.
//!
//! Source: Nix's `src/libstore/references.cc`.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use crate::store::StorePath;

/// How long a hash part is, in bytes.
const LENGTH: usize = 32;

/// The hash part of a store path.
type HashPart = [u8; LENGTH];

/// Store paths by their hash parts.
#[derive(Debug, Default)]
pub struct Candidates<'a>(HashMap<HashPart, Vec<&'a StorePath>>);

/// Looks for store paths in what is written to it.
#[derive(Debug)]
pub struct ReferenceScanner<'a> {
    candidates: &'a Candidates<'a>,
    found: BTreeSet<HashPart>,
    /// The last bytes that were written, in which a hash part may begin.
    tail: Vec<u8>,
}

impl<'a> Candidates<'a> {
    /// These paths.
    pub fn new(paths: impl IntoIterator<Item = &'a StorePath>) -> Self {
        let mut candidates = Self::default();
        for path in paths {
            if let Some(hash) = path.to_basename().as_bytes().first_chunk() {
                candidates.0.entry(*hash).or_default().push(path);
            }
        }
        candidates
    }
}

impl<'a> ReferenceScanner<'a> {
    /// A scanner for `candidates`.
    #[must_use]
    pub fn new(candidates: &'a Candidates<'a>) -> Self {
        Self { candidates, found: BTreeSet::new(), tail: Vec::with_capacity(2 * LENGTH) }
    }

    /// The paths that were found, in order.
    #[must_use]
    pub fn finish(self) -> Vec<StorePath> {
        let found = self.found.iter().filter_map(|hash| self.candidates.0.get(hash));
        let mut paths: Vec<StorePath> = found.flatten().map(|path| (*path).clone()).collect();
        paths.sort();
        paths
    }

    fn search(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(window) = bytes[at..].first_chunk::<LENGTH>() {
            // From its end: what is no digit excludes all windows with it.
            match window.iter().rposition(|byte| !is_digit(*byte)) {
                Some(other) => at += other + 1,
                None => {
                    if self.candidates.0.contains_key(window) {
                        self.found.insert(*window);
                    }
                    at += 1;
                }
            }
        }
    }
}

impl Write for ReferenceScanner<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What began before, and ends in these bytes.
        let mut seam = std::mem::take(&mut self.tail);
        seam.extend(&bytes[..bytes.len().min(LENGTH - 1)]);
        self.search(&seam);
        self.search(bytes);
        let last = if bytes.len() >= LENGTH - 1 { bytes } else { &seam };
        self.tail = last[last.len().saturating_sub(LENGTH - 1)..].to_vec();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `byte` is a digit of Nix's base 32.
fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z') && !matches!(byte, b'e' | b'o' | b't' | b'u')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::closure::tests::path;

    fn scan(chunks: &[&[u8]]) -> Vec<StorePath> {
        let paths = [path('a', "a"), path('b', "b"), path('b', "b-doc")];
        let candidates = Candidates::new(&paths);
        let mut scanner = ReferenceScanner::new(&candidates);
        for chunk in chunks {
            scanner.write_all(chunk).expect("memory");
        }
        scanner.finish()
    }

    #[test]
    fn references_are_found_by_their_hash_parts_alone() {
        let a = "a".repeat(32);
        assert_eq!(scan(&[format!("x{a}y").as_bytes()]), [path('a', "a")]);
        assert_eq!(scan(&[format!("/nix/store/{}", "b".repeat(32)).as_bytes()]), [path('b', "b"), path('b', "b-doc")]);
        assert_eq!(scan(&[&a.as_bytes()[1..]]), []);
        assert_eq!(scan(&[b"", b"e", a.as_bytes(), b""]), [path('a', "a")]);
        assert_eq!(scan(&["c".repeat(32).as_bytes()]), []);
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(
            before in "[ae0]{0,40}", after in "[ae0]{0,40}", cuts in prop::collection::vec(0_usize..112, 0..6)
        ) {
            let text = format!("{before}{}{after}", "a".repeat(32));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut last = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                chunks.push(&text.as_bytes()[last..cut]);
                last = cut;
            }
            prop_assert_eq!(scan(&chunks), vec![path('a', "a")]);
        }
    }
}
