//! What a narinfo says, and whether one that is there will do.

use std::collections::BTreeSet;

use nix_derivation::{CAHash, NixHash};
use nix_narinfo::{BuildError, MAX_NARINFO_SIZE, NarInfo, NarInfoSignature};

use super::Compression;
use crate::nar::Measured;
use crate::nar::read::MAX_NAME;
use crate::store::{NarHash, PathInfo, StoreDir, StorePath};

/// A narinfo of more bytes than that is none.
pub const SIZE_LIMIT: u64 = MAX_NARINFO_SIZE as u64;

/// The NAR that a narinfo names.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedNar {
    /// The name of its file in `nar/`.
    pub file_name: String,
    /// How long the file is, if the narinfo tells.
    pub file_size: Option<u64>,
    /// What it is uncompressed; `None` where its hash is none that a NAR has by now.
    pub nar: Option<Measured>,
}

/// The name of the narinfo about `path`.
#[must_use]
pub fn file_name(path: &StorePath) -> String {
    format!("{}.narinfo", nix_derivation::nixbase32::encode(path.digest()))
}

/// A NAR's file in `nar/`, which is named by the NAR's own hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NarFile {
    /// What it is, uncompressed.
    pub nar: Measured,
    /// How it is compressed.
    pub compression: Compression,
    /// How long the file is.
    pub bytes: u64,
}

/// The name, in `nar/`, of the NAR whose hash is `hash`.
#[must_use]
pub fn nar_file_name(hash: &NarHash, compression: Compression) -> String {
    format!("{}.nar{}", hash.to_nix32(), compression.extension())
}

/// The narinfo about the path of `info`, with its own signatures and `signatures`.
///
/// # Errors
/// When the registration has something that no narinfo can say.
pub fn render(
    store_dir: &StoreDir,
    info: &PathInfo,
    file: &NarFile,
    signatures: Vec<String>,
) -> Result<Vec<u8>, BuildError> {
    let NarFile { nar, compression, bytes } = file;
    let url = format!("nar/{}", nar_file_name(&nar.hash, *compression));
    // As Nix has them: a set.
    let signatures: BTreeSet<String> = info.signatures.iter().cloned().chain(signatures).collect();
    let narinfo = NarInfo::builder_in(store_dir.clone(), info.path.clone(), url, nar.hash.to_nix_hash(), nar.size)
        .compression(compression.in_narinfo())
        .file_size(Some(*bytes))
        .references(info.references.iter().cloned())
        .deriver(info.deriver.clone())
        .signatures(signatures.iter().filter_map(|text| signature(info, text)))
        .content_address(content_address(info))
        .build()?;
    Ok(narinfo.to_canonical_bytes())
}

/// The NAR that a narinfo names, if it is whole and about the path of `info`.
///
/// Another program may have written it, so the NAR's name and compression are
/// its own affair. Its hash may differ too, as builds differ; what it refers to
/// may not, or the cache would be no closure.
#[must_use]
pub fn check(store_dir: &StoreDir, info: &PathInfo, contents: &[u8]) -> Option<NamedNar> {
    // One cut off in its last line may still parse, but not for Nix.
    if !contents.ends_with(b"\n") {
        return None;
    }
    let narinfo = NarInfo::parse_in(store_dir, contents).ok()?;
    let same_path = *narinfo.store_path() == info.path && narinfo.references().iter().eq(&info.references);
    let same_address = info.ca.is_none() || narinfo.content_address() == content_address(info).as_ref();
    let file_name = narinfo.url().strip_prefix("nar/")?;
    // A longer name, or none, is an error to the system, and would end the export.
    let beneath = (1..=MAX_NAME).contains(&file_name.len()) && !file_name.starts_with('.');
    let beneath = beneath && !file_name.contains(['/', '\0']);
    let nar = match narinfo.nar_hash() {
        NixHash::Sha256(digest) => Some(Measured { hash: NarHash::new(*digest), size: narinfo.nar_size() }),
        _ => None,
    };
    (same_path && same_address && beneath).then(|| NamedNar {
        file_name: file_name.to_owned(),
        file_size: narinfo.file_size(),
        nar,
    })
}

/// A narinfo with `signatures` beside those that it has; `None` where it has them already.
/// All else in it stays as it is.
#[must_use]
pub fn add_signatures(contents: &[u8], signatures: &[String]) -> Option<Vec<u8>> {
    let lines = || contents.split_inclusive(|byte| *byte == b'\n');
    let missing: Vec<String> = signatures
        .iter()
        .map(|signature| format!("Sig: {signature}\n"))
        .filter(|line| !lines().any(|other| other == line.as_bytes()))
        .collect();
    if missing.is_empty() {
        return None;
    }
    // Nix writes them before the content address, which is last.
    let before: usize = lines().take_while(|line| !line.starts_with(b"CA:")).map(<[u8]>::len).sum();
    let (before, after) = contents.split_at(before);
    Some([before, missing.concat().as_bytes(), after].concat())
}

fn signature(info: &PathInfo, text: &str) -> Option<NarInfoSignature> {
    let Some((key_name, encoded)) = text.split_once(':') else {
        tracing::warn!("{} has a signature that is none: {text:?}", info.path.to_basename());
        return None;
    };
    Some(NarInfoSignature { key_name: key_name.to_owned(), encoded: encoded.to_owned() })
}

/// The content address, unless it is in a form that is not known: the path
/// serves without it, too, as one that must be trusted.
fn content_address(info: &PathInfo) -> Option<CAHash> {
    let text = info.ca.as_deref()?;
    let address = CAHash::parse(text);
    if let Err(error) = &address {
        tracing::warn!("{} has a content address that can't be kept, {text:?}: {error}", info.path.to_basename());
    }
    address.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;

    fn info() -> PathInfo {
        let (a, b) = (path('a', "a"), path('b', "b"));
        PathInfo {
            deriver: Some(path('d', "a.drv")),
            ca: Some("fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73".to_owned()),
            signatures: vec!["key-1:AAAA".to_owned(), "none".to_owned()],
            ..PathInfo::new(a.clone(), NarHash::new([7; 32]), 96, vec![b, a])
        }
    }

    fn nar() -> NarFile {
        let nar = Measured { hash: NarHash::new([7; 32]), size: 96 };
        NarFile { nar, compression: Compression::default(), bytes: 50 }
    }

    #[test]
    fn a_narinfo_is_what_nix_writes_without_the_hash_of_the_file() {
        let store_dir = StoreDir::new("/other/store").expect("valid");
        let text = String::from_utf8(render(&store_dir, &info(), &nar(), Vec::new()).expect("renders")).expect("UTF-8");
        let expected = "StorePath: /other/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a\n\
            URL: nar/01q70w3hf1q70w3hf1q70w3hf1q70w3hf1q70w3hf1q70w3hf1q7.nar.zst\n\
            Compression: zstd\nFileSize: 50\n\
            NarHash: sha256:01q70w3hf1q70w3hf1q70w3hf1q70w3hf1q70w3hf1q70w3hf1q7\nNarSize: 96\n\
            References: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b\n\
            Deriver: dddddddddddddddddddddddddddddddd-a.drv\nSig: key-1:AAAA\n\
            CA: fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_narinfo_cut_anywhere_does_not_do() {
        let store_dir = StoreDir::default();
        let whole = render(&store_dir, &info(), &nar(), Vec::new()).expect("renders");
        let named = NamedNar {
            file_name: nar_file_name(&nar().nar.hash, Compression::Zstd(3)),
            file_size: Some(50),
            nar: Some(nar().nar),
        };
        assert_eq!(check(&store_dir, &info(), &whole), Some(named));
        for length in 0..whole.len() {
            assert_eq!(check(&store_dir, &info(), &whole[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn a_narinfo_about_something_else_does_not_do() {
        let store_dir = StoreDir::default();
        let whole =
            String::from_utf8(render(&store_dir, &info(), &nar(), Vec::new()).expect("renders")).expect("UTF-8");
        for (old, new) in [
            ("store/aaa", "store/ccc"),
            (" bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b", ""),
            ("URL: nar/", "URL: nar/../"),
            ("URL: nar/", "URL: nar/."),
            ("URL: nar/", "URL: /etc/"),
            ("URL: nar/", "URL: nar//etc/"),
            ("URL: nar/", "URL: "),
            ("URL: nar/", "URL: file:///etc/"),
            ("URL: nar/01q7", &format!("URL: nar/{}", "n".repeat(MAX_NAME))),
            (".nar.zst", ".nar.zst/../../x"),
            ("CA: fixed:r:", "CA: fixed:"),
        ] {
            let changed = whole.replacen(old, new, 1);
            assert_ne!(changed, whole);
            assert_eq!(check(&store_dir, &info(), changed.as_bytes()), None, "{changed}");
        }
    }

    #[test]
    fn a_narinfo_of_another_program_does() {
        // What `nix copy --to file://…` of Nix 2.8.0 wrote.
        let text = "StorePath: /nix/store/8q68idp674v0v5vm0j53n3fk4rjlbwig-a\n\
            URL: nar/1vgmvfyvffw7k28zfqwvba7nsxkpwbggkgk8mq71fsgdv4147qc2.nar.xz\nCompression: xz\n\
            FileHash: sha256:1vgmvfyvffw7k28zfqwvba7nsxkpwbggkgk8mq71fsgdv4147qc2\nFileSize: 124\n\
            NarHash: sha256:0hkbia1003qqh0r7fn03drzx5yaw7yp99xs7j6c7qsddnp1w7dpc\nNarSize: 120\n\
            References: \nDeriver: df909miz4r3jqyib75dzfhs97gmgmaqv-a.drv\n";
        let path = StorePath::from_basename(b"8q68idp674v0v5vm0j53n3fk4rjlbwig-a").expect("valid");
        let info = PathInfo::new(path, NarHash::new([7; 32]), 96, Vec::new());
        let file_name = "1vgmvfyvffw7k28zfqwvba7nsxkpwbggkgk8mq71fsgdv4147qc2.nar.xz".to_owned();
        let named = NamedNar {
            file_name,
            file_size: Some(124),
            nar: Some(Measured {
                hash: NarHash::parse("0hkbia1003qqh0r7fn03drzx5yaw7yp99xs7j6c7qsddnp1w7dpc").expect("valid"),
                size: 120,
            }),
        };
        assert_eq!(check(&StoreDir::default(), &info, text.as_bytes()), Some(named));
    }

    #[test]
    fn signatures_are_added_and_nothing_else_changes() {
        let rest = "StorePath: /nix/store/a\nSig: other-1:AAAA\n";
        let ours = ["key-1:BBBB".to_owned(), "key-2:CCCC".to_owned()];
        let added = format!("{rest}Sig: key-1:BBBB\nSig: key-2:CCCC\n");
        for last in ["", "CA: text:sha256:0\n"] {
            let before = format!("{rest}{last}");
            let after = format!("{added}{last}");
            assert_eq!(add_signatures(before.as_bytes(), &ours).expect("new"), after.as_bytes());
            assert_eq!(add_signatures(after.as_bytes(), &ours), None);
            assert_eq!(add_signatures(before.as_bytes(), &[]), None);
        }
        let one = format!("{rest}Sig: key-2:CCCC\n");
        assert_eq!(add_signatures(one.as_bytes(), &ours).expect("new"), format!("{one}Sig: key-1:BBBB\n").as_bytes());
        // A signature that is only like ours.
        let forged = format!("{rest}Sig: key-1:BBBBB\nSig: key-2:CCCC\n");
        assert!(add_signatures(forged.as_bytes(), &ours).is_some());
    }
}
