//! Reads registrations as text: `nix-store --dump-db`, and the file
//! `registration` that nixpkgs' `closureInfo` makes.
//!
//! Source: Nix's `decodeValidPathInfo`, `src/libstore/store-api.cc`. For each
//! path, a line each: the path, its NAR hash, its NAR size, its deriver (may be
//! empty), the number of references, and so many references.

use super::{NarHash, PathInfo, StoreDir, StorePath};

/// A text that is no list of registrations.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct DumpError {
    /// The line, from 1.
    line: usize,
    problem: String,
}

/// The registrations in `text`. Such a text has no content addresses and no
/// signatures.
///
/// # Errors
/// When the text is cut off or is none of this kind; the line is named.
pub fn parse(text: &str, store_dir: &StoreDir) -> Result<Vec<PathInfo>, DumpError> {
    let mut lines = Lines { rest: text, number: 0 };
    let mut infos = Vec::new();
    while !lines.rest.is_empty() {
        infos.push(parse_one(&mut lines, store_dir)?);
    }
    Ok(infos)
}

fn parse_one(lines: &mut Lines<'_>, store_dir: &StoreDir) -> Result<PathInfo, DumpError> {
    let path = lines.path("a store path", store_dir)?;
    let nar_hash = lines.next("a NAR hash")?;
    let nar_hash = NarHash::parse(nar_hash).map_err(|error| lines.error(error.to_string()))?;
    let nar_size = lines.number("a NAR size")?;
    let deriver = match lines.next("a deriver or an empty line")? {
        "" => None,
        text => Some(lines.parse_path(text, store_dir)?),
    };
    let count = lines.number("the number of references")?;
    let references = (0..count).map(|_| lines.path("a reference", store_dir)).collect::<Result<Vec<_>, _>>()?;
    Ok(PathInfo { deriver, ..PathInfo::new(path, nar_hash, nar_size, references) })
}

/// The lines not read yet.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line; one without its line feed counts as cut off.
    fn next(&mut self, expected: &str) -> Result<&'a str, DumpError> {
        self.number += 1;
        let Some((line, rest)) = self.rest.split_once('\n') else {
            return Err(self.error(format!("the registrations are cut off here, where {expected} is expected")));
        };
        self.rest = rest;
        Ok(line)
    }

    fn number(&mut self, expected: &str) -> Result<u64, DumpError> {
        let line = self.next(expected)?;
        line.parse().map_err(|_| self.error(format!("{line:?} is not {expected}")))
    }

    fn path(&mut self, expected: &str, store_dir: &StoreDir) -> Result<StorePath, DumpError> {
        let line = self.next(expected)?;
        self.parse_path(line, store_dir)
    }

    fn parse_path(&self, line: &str, store_dir: &StoreDir) -> Result<StorePath, DumpError> {
        store_dir
            .parse_path(line.as_bytes())
            .map_err(|error| self.error(format!("{line:?} is not a path in the store {store_dir}: {error}")))
    }

    fn error(&self, problem: String) -> DumpError {
        DumpError { line: self.number, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Nix 2.8 prints for two paths, one with a deriver.
    const DUMP: &str = "/nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-b\n\
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n120\n\n0\n\
        /nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a\n\
        sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n96\n\
        /nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-a.drv\n2\n\
        /nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-b\n\
        /nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a\n";

    #[test]
    fn a_dump_is_read() {
        let infos = parse(DUMP, &StoreDir::default()).expect("a valid dump");
        assert_eq!(infos.len(), 2);
        assert_eq!(infos[1].nar_size, 96);
        assert_eq!(infos[1].nar_hash, infos[0].nar_hash);
        assert_eq!(infos[1].references.len(), 2);
        assert!(infos[1].deriver.is_some() && infos[0].deriver.is_none());
    }

    #[test]
    fn a_dump_cut_anywhere_is_refused_or_is_a_shorter_dump() {
        for length in 0..DUMP.len() {
            let whole_records = DUMP[..length].is_empty() || length == DUMP.find("/nix/store/2c").expect("there");
            let result = parse(&DUMP[..length], &StoreDir::default());
            assert_eq!(result.is_ok(), whole_records, "cut at {length}");
        }
    }

    #[test]
    fn paths_of_another_store_are_refused_with_their_line() {
        let other = StoreDir::new("/gnu/store").expect("valid");
        let error = parse(DUMP, &other).expect_err("another store");
        assert!(error.to_string().starts_with("line 1: "), "{error}");
    }
}
