//! Tar headers, byte for byte the same everywhere.
//!
//! **Layer tar v1.** The folders that lead to the store (`nix/`, `nix/store/`;
//! 0755, owned by root), then the store paths in order, each depth first, names
//! sorted by their bytes; no leading `/` or `./`. Owner as the plan says, 0:0 with
//! empty names by default; modification time 1; mode 0555 for folders and
//! programs, 0444 for other files, 0777 for links. Hard links are files. A header
//! is ustar's (POSIX.1-1988); a pax header (POSIX.1-2001) stands before it only
//! where ustar can't say it. Contents are padded to 512 bytes; two blocks of
//! zeros end it.
//!
//! Sources: POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Header Block".

use super::Owner;

/// The unit of everything in a tar.
pub const BLOCK: usize = 512;

/// How the names begin by which a layer hides what is below it (OCI image-spec 1.1, `layer.md`,
/// "Whiteouts"); nothing else in a layer may be called so.
pub const HIDING: &[u8] = b".wh.";

/// The keyword of a file's capabilities in pax headers.
pub const CAPABILITY: &str = "SCHILY.xattr.security.capability";

/// What ends a tar.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The largest number that an octal field of eight bytes holds.
const MAX_ID: u64 = 0o7_777_777;

/// The largest number that an octal field of twelve bytes holds.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// The latest time that a header tells, in seconds since 1970.
pub const LATEST: u64 = MAX_SIZE;

/// One entry's header, before it is bytes.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Its path, without a `/` at either end.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Its permission bits.
    pub mode: u32,
    /// Whom it belongs to.
    pub owner: &'a Owner,
    /// When it was modified, in seconds since 1970.
    pub mtime: u64,
    /// The file's capabilities, as the extended attribute `security.capability` has them; store
    /// paths have none.
    pub capability: &'a [u8],
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder.
    Directory,
    /// A file of that many bytes.
    Regular(u64),
    /// A symbolic link to there.
    Symlink(&'a [u8]),
}

impl Header<'_> {
    /// Appends the blocks of this header to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut path = self.path.to_vec();
        if self.kind == Kind::Directory {
            path.push(b'/');
        }
        let target = match self.kind {
            Kind::Symlink(target) => target,
            _ => b"",
        };
        let size = match self.kind {
            Kind::Regular(size) => size,
            _ => 0,
        };
        let split = split_path(&path);
        let records = self.pax_records(&path, split.is_none(), target, size);
        if !records.is_empty() {
            out.extend(pax_header(records.len() as u64, self.mtime));
            out.extend(&records);
            pad(out);
        }
        let (prefix, name) = split.unwrap_or((b"", &path[..path.len().min(100)]));
        let mut block = [0; BLOCK];
        put(&mut block, 0, name);
        put(&mut block, 345, prefix);
        put(&mut block, 157, &target[..target.len().min(100)]);
        put_number(&mut block, 100, 8, u64::from(self.mode));
        put_number(&mut block, 108, 8, u64::from(self.owner.uid).min(MAX_ID));
        put_number(&mut block, 116, 8, u64::from(self.owner.gid).min(MAX_ID));
        put_number(&mut block, 124, 12, size.min(MAX_SIZE));
        put_number(&mut block, 136, 12, self.mtime.min(MAX_SIZE));
        block[156] = match self.kind {
            Kind::Directory => b'5',
            Kind::Regular(_) => b'0',
            Kind::Symlink(_) => b'2',
        };
        put(&mut block, 265, &self.owner.uname.as_bytes()[..self.owner.uname.len().min(31)]);
        put(&mut block, 297, &self.owner.gname.as_bytes()[..self.owner.gname.len().min(31)]);
        finish(&mut block);
        out.extend(block);
    }

    /// What ustar's fields are too small for, in the order of the keywords.
    fn pax_records(&self, path: &[u8], path_too_long: bool, target: &[u8], size: u64) -> Vec<u8> {
        let mut records = Vec::new();
        add_capability(&mut records, self.capability);
        let mut add = |needed: bool, keyword: &str, value: &[u8]| {
            if needed {
                add_record(&mut records, keyword, value);
            }
        };
        let (uid, gid) = (u64::from(self.owner.uid), u64::from(self.owner.gid));
        add(gid > MAX_ID, "gid", gid.to_string().as_bytes());
        add(self.owner.gname.len() > 31, "gname", self.owner.gname.as_bytes());
        add(target.len() > 100, "linkpath", target);
        add(path_too_long, "path", path);
        add(size > MAX_SIZE, "size", size.to_string().as_bytes());
        add(uid > MAX_ID, "uid", uid.to_string().as_bytes());
        add(self.owner.uname.len() > 31, "uname", self.owner.uname.as_bytes());
        records
    }
}

/// Extended attributes as star writes them, and all who unpack layers read; capitals come first.
fn add_capability(records: &mut Vec<u8>, capability: &[u8]) {
    if !capability.is_empty() {
        add_record(records, CAPABILITY, capability);
    }
}

/// Appends zeros up to the next block.
pub fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// How many zeros follow contents of `size` bytes.
#[must_use]
pub fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// The path as ustar's prefix and name, the prefix as long as it can be; `None`
/// where it does not fit.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let slashes = (0..path.len().min(156)).rev().filter(|at| path[*at] == b'/');
    let mut splits = slashes.map(|at| (&path[..at], &path[at + 1..]));
    splits.find(|(prefix, name)| !prefix.is_empty() && !name.is_empty() && name.len() <= 100)
}

/// The header of the records that follow it.
fn pax_header(size: u64, mtime: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, b"PaxHeader");
    put_number(&mut block, 100, 8, 0o644);
    put_number(&mut block, 108, 8, 0);
    put_number(&mut block, 116, 8, 0);
    put_number(&mut block, 124, 12, size);
    put_number(&mut block, 136, 12, mtime.min(MAX_SIZE));
    block[156] = b'x';
    finish(&mut block);
    block
}

/// Appends `LENGTH KEYWORD=VALUE\n`, in which LENGTH counts its own digits too.
fn add_record(records: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} {keyword}=").as_bytes());
    records.extend(value);
    records.push(b'\n');
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes octal digits that fill all but the field's last byte.
fn put_number(block: &mut [u8; BLOCK], at: usize, width: usize, mut number: u64) {
    for digit in block[at..at + width - 1].iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

/// Adds what each header has, and the checksum over it.
fn finish(block: &mut [u8; BLOCK]) {
    put(block, 257, b"ustar\x0000");
    put_number(block, 329, 8, 0);
    put_number(block, 337, 8, 0);
    put(block, 148, b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put_number(block, 148, 7, sum);
    block[154] = 0;
    block[155] = b' ';
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the crate `tar` reads in a header for `path`.
    fn read_back(header: &Header<'_>) -> (Vec<u8>, Option<Vec<u8>>, u64, u64) {
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        assert_eq!(bytes.len() % BLOCK, 0);
        bytes.extend(END);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entries = archive.entries().expect("readable");
        let entry = entries.next().expect("one entry").expect("valid");
        let target = entry.link_name_bytes().map(|target| target.into_owned());
        let uid = entry.header().uid().expect("a number");
        (entry.path_bytes().into_owned(), target, entry.header().mtime().expect("a number"), uid)
    }

    #[test]
    fn paths_of_any_length_come_back() {
        let owner = Owner::default();
        for length in [1, 99, 100, 101, 155, 156, 200, 255, 256, 257, 300, 4000] {
            for separator in [b'/', b'x'] {
                let path: Vec<u8> =
                    (0..length).map(|at| if at % 50 == 49 && at + 1 < length { separator } else { b'a' }).collect();
                for (kind, expected) in
                    [(Kind::Regular(0), path.clone()), (Kind::Directory, [&path[..], b"/"].concat())]
                {
                    let header = Header { path: &path, kind, mode: 0o444, owner: &owner, mtime: 1, capability: b"" };
                    assert_eq!(read_back(&header).0, expected, "{length}");
                }
            }
        }
    }

    #[test]
    fn link_targets_of_any_length_come_back() {
        let owner = Owner::default();
        for length in [1, 99, 100, 101, 300] {
            let target = vec![b't'; length];
            let header = Header {
                path: b"link",
                kind: Kind::Symlink(&target),
                mode: 0o777,
                owner: &owner,
                mtime: 1,
                capability: b"",
            };
            assert_eq!(read_back(&header).1, Some(target));
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_come_back() {
        let owner = Owner::default();
        let path = [&b"\xff\xfe/"[..], &[b'\xe4'; 200]].concat();
        let header =
            Header { path: &path, kind: Kind::Regular(0), mode: 0o444, owner: &owner, mtime: 1, capability: b"" };
        assert_eq!(read_back(&header).0, path);
    }

    #[test]
    fn capabilities_come_back_and_stand_before_other_records() {
        let (owner, capability) = (Owner::default(), [1_u8, 0, 0, 2, 0, 4, 0, 0, 0, 7, b'=']);
        let path = [b'a'; 200];
        let mut bytes = Vec::new();
        let (kind, mode) = (Kind::Regular(0), 0o755);
        Header { path: &path, kind, mode, owner: &owner, mtime: 1, capability: &capability }.write(&mut bytes);
        bytes.extend(END);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entry = archive.entries().expect("readable").next().expect("one entry").expect("valid");
        let records = entry.pax_extensions().expect("readable").expect("some");
        let records: Vec<(Vec<u8>, Vec<u8>)> = records
            .map(|record| record.expect("valid"))
            .map(|record| (record.key_bytes().to_vec(), record.value_bytes().to_vec()))
            .collect();
        let expected = [(CAPABILITY.as_bytes().to_vec(), capability.to_vec()), (b"path".to_vec(), path.to_vec())];
        assert_eq!(records, expected);
    }

    #[test]
    fn a_pax_record_counts_its_own_digits() {
        // POSIX: the length includes itself, the space and the line feed.
        for (value, expected) in [(1, "9 path=v\n"), (90, "99 path="), (91, "101 path=")] {
            let mut records = Vec::new();
            add_record(&mut records, "path", &vec![b'v'; value]);
            let text = String::from_utf8(records).expect("ASCII");
            assert!(text.starts_with(expected), "{text}");
            assert_eq!(text.split_once(' ').expect("a space").0, text.len().to_string());
        }
    }

    #[test]
    fn the_bytes_of_a_header_are_those_that_python_writes() {
        let owner = Owner::default();
        let mut bytes = Vec::new();
        Header { path: b"nix/store", kind: Kind::Directory, mode: 0o755, owner: &owner, mtime: 1, capability: b"" }
            .write(&mut bytes);
        let mut expected = b"nix/store/".to_vec();
        expected.resize(100, 0);
        expected.extend(b"0000755\x000000000\x000000000\x0000000000000\x0000000000001\x00");
        expected.extend(b"011140\x00 5");
        expected.resize(257, 0);
        expected.extend(b"ustar\x0000");
        expected.resize(329, 0);
        expected.extend(b"0000000\x000000000\x00");
        expected.resize(BLOCK, 0);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn owners_of_any_number_and_name_come_back() {
        // The last that fits and the first that does not, of numbers and of names.
        for id in [0, 1000, 0o7_777_777, 0o10_000_000, 3_000_000, 0o77_777_777, 0o100_000_000, u32::MAX] {
            for length in [0, 31, 32, 40] {
                let (uname, gname) = ("u".repeat(length), "g".repeat(length));
                let owner = Owner { uid: id, gid: id - id.min(1), uname, gname };
                let mut bytes = Vec::new();
                let header = Header {
                    path: b"file",
                    kind: Kind::Regular(0),
                    mode: 0o444,
                    owner: &owner,
                    mtime: 1,
                    capability: b"",
                };
                header.write(&mut bytes);
                bytes.extend(END);
                let mut archive = tar::Archive::new(&bytes[..]);
                let mut entry = archive.entries().expect("readable").next().expect("one entry").expect("valid");
                let mut found = Owner {
                    uid: u32::try_from(entry.header().uid().expect("a number")).expect("32 bits"),
                    gid: u32::try_from(entry.header().gid().expect("a number")).expect("32 bits"),
                    uname: entry.header().username().expect("ASCII").expect("ustar").to_owned(),
                    gname: entry.header().groupname().expect("ASCII").expect("ustar").to_owned(),
                };
                for record in entry.pax_extensions().expect("readable").into_iter().flatten() {
                    let record = record.expect("valid");
                    let value = record.value().expect("ASCII");
                    match record.key().expect("ASCII") {
                        "uid" => found.uid = value.parse().expect("a number"),
                        "gid" => found.gid = value.parse().expect("a number"),
                        "uname" => value.clone_into(&mut found.uname),
                        "gname" => value.clone_into(&mut found.gname),
                        other => panic!("a needless record {other}"),
                    }
                }
                assert_eq!(found, owner);
            }
        }
    }
}
