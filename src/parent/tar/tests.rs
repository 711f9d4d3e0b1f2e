//! Tests of the reader of tars.

use super::*;

impl Input for &[u8] {}

fn read(bytes: &[u8]) -> Result<Vec<(TarEntry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.entry()? {
        let mut contents = Vec::new();
        reader.contents().read_to_end(&mut contents)?;
        entries.push((entry, contents));
    }
    Ok(entries)
}

/// A header as GNU tar writes it, with whatever is in it.
pub fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(BLOCK), 0);
    padded
}

#[test]
fn what_the_crate_tar_writes_is_read() {
    let mut builder = tar::Builder::new(Vec::new());
    let long = "d/".repeat(200) + "file";
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(0o77_777_777_777);
    header.set_size(5);
    builder.append_data(&mut header, &long, &b"12345"[..]).expect("memory");
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "./a//b/", &long).expect("memory");
    let entries = read(&builder.into_inner().expect("memory")).expect("valid");
    assert_eq!(
        entries[0],
        (
            TarEntry {
                path: long.clone().into_bytes(),
                kind: Kind::Regular,
                mode: 0o4755,
                uid: 1000,
                gid: u32::MAX,
                size: 5,
                capability: Vec::new(),
            },
            b"12345".to_vec()
        )
    );
    assert_eq!((&entries[1].0.path[..], &entries[1].0.kind), (&b"a/b"[..], &Kind::Symlink(long.into_bytes())));
}

#[test]
fn pax_headers_say_more_and_are_bounded() {
    let record = b"21 path=pax/the name\n12 size=513\n10 uid=77\n";
    let mut tar = [header(b"x", b'x', record.len() as u64, b""), padded(record)].concat();
    tar.extend(header(b"short", b'0', 1, b""));
    tar.extend(padded(&[b'c'; 513]));
    tar.extend([0; 2 * BLOCK]);
    let entries = read(&tar).expect("valid");
    assert_eq!((&entries[0].0.path[..], entries[0].0.uid, entries[0].1.len()), (&b"pax/the name"[..], 77, 513));
    let bomb = header(b"x", b'x', 1 << 40, b"");
    assert!(read(&bomb).expect_err("a bomb").to_string().contains("more than 1048576 bytes"));
    let many = [header(b"x", b'g', 512, b""), vec![b'x'; 512]].concat().repeat(1100);
    assert!(read(&many).expect_err("a bomb").to_string().contains("more than 1048576 bytes"));
    let wrong = [header(b"x", b'x', 9, b""), padded(b"99 path=x")].concat();
    assert!(read(&wrong).expect_err("damaged").to_string().contains("pax header is damaged"));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [&b"../x"[..], b"a/../../x", b"a/.."] {
        let error = read(&header(name, b'0', 0, b"")).expect_err("refused").to_string();
        assert!(error.contains("`..`"), "{error}");
    }
    let error = read(&header(b"x", b'1', 0, b"../etc/passwd")).expect_err("refused").to_string();
    assert!(error.contains("`..`"), "{error}");
    let absolute = read(&header(b"/x", b'1', 0, b"/etc/passwd")).expect("valid");
    assert_eq!(absolute[0].0.kind, Kind::HardLink(b"etc/passwd".to_vec()));
}

#[test]
fn kinds_without_contents_have_none_whatever_they_say() {
    let tar = [header(b"link", b'2', 512, b"x"), header(b"next", b'0', 0, b""), vec![0; 1024]].concat();
    let names: Vec<Vec<u8>> = read(&tar).expect("valid").into_iter().map(|(entry, _)| entry.path).collect();
    assert_eq!(names, [&b"link"[..], b"next"]);
}

#[test]
fn cut_and_damaged_tars_are_told() {
    let tar = [header(b"file", b'0', 600, b""), vec![b'x'; 1024], vec![0; 1024]].concat();
    assert_eq!(read(&tar).expect("valid").len(), 1);
    for length in [100, 512, 700, 1530] {
        let error = read(&tar[..length]).expect_err("cut");
        assert!(matches!(&error, TarError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof), "{error}");
    }
    let mut damaged = tar.clone();
    damaged[3] ^= 1;
    assert!(read(&damaged).expect_err("damaged").to_string().contains("checksum"));
    let twice = [tar[..1536].to_vec(), vec![0; 512], tar].concat();
    assert!(read(&twice).expect_err("hidden").to_string().contains("goes on after"));
}

#[test]
fn sparse_files_are_skipped() {
    let mut sparse = header(b"sparse", b'S', 512, b"");
    sparse[482] = 1;
    let sum: u32 = sparse[..148].iter().chain(&[b' '; 8]).chain(&sparse[156..]).map(|byte| u32::from(*byte)).sum();
    sparse[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let tar = [sparse, vec![0; 512], vec![b'x'; 512], header(b"next", b'0', 0, b""), vec![0; 1024]].concat();
    let entries = read(&tar).expect("valid");
    assert_eq!((&entries[0].0.kind, &entries[1].0.path[..]), (&Kind::Sparse, &b"next"[..]));
}
