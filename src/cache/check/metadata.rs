//! Whether a narinfo is one, judged without its NAR.
//!
//! Nix 2.8 reads a narinfo when it is asked for any path that needs it, and ends
//! the whole build when it can't (tried with `nix-build`): where a line does not
//! end, a path, hash, size or content address does not parse, or a field is
//! missing. This is a little stricter, as a damaged file may still parse:
//!
//! - `References` must be there. Nix does without, so that a narinfo cut off
//!   before that line would give a path without what it needs.
//! - Fields appear once, and have no spaces around their values.
//! - A content address must be that of the store path; Nix compares it with the
//!   contents, and ends the build.
//! - A signature must be one. Nix ends the build when it knows the key.

use base64::Engine as _;
use nix_narinfo::{Compression, NarInfo};

use super::fault::Fault;
use crate::store::{NarHash, StoreDir, StorePath};

/// What must be there, and what Nix reads besides.
const FIELDS: [&str; 11] = [
    "StorePath",
    "URL",
    "NarHash",
    "NarSize",
    "References",
    "Compression",
    "FileHash",
    "FileSize",
    "Deriver",
    "System",
    "CA",
];

/// How many of [`FIELDS`] must be there.
const REQUIRED: usize = 5;

/// How long an ed25519 signature is, in bytes.
const SIGNATURE_LENGTH: usize = 64;

/// No file's name is longer.
const MAX_NAME: usize = 255;

/// A narinfo that Nix can read.
#[derive(Debug)]
pub struct Metadata {
    /// What it says.
    pub narinfo: NarInfo,
    /// The NAR's hash.
    pub nar_hash: NarHash,
    /// The name of the NAR's file in `nar/`.
    pub nar_file: String,
}

impl Metadata {
    /// What the path refers to, but for itself.
    pub fn references(&self) -> impl Iterator<Item = &StorePath> {
        let own = self.narinfo.store_path();
        self.narinfo.references().iter().filter(move |path| *path != own)
    }
}

/// The hash part of `path`: how its narinfo's name begins.
#[must_use]
pub fn hash_part(path: &StorePath) -> String {
    nix_derivation::nixbase32::encode(path.digest())
}

/// Judges the narinfo `file_name` for the store `store_dir`.
///
/// # Errors
/// When Nix can't read it, or should not.
pub fn judge(store_dir: &StoreDir, file_name: &str, contents: &[u8]) -> Result<Metadata, Fault> {
    if contents.is_empty() {
        return Err(Fault::Empty);
    }
    let text = std::str::from_utf8(contents).map_err(|_| Fault::malformed("it is no UTF-8"))?;
    check_lines(text)?;
    let narinfo = NarInfo::parse_in(store_dir, contents).map_err(|error| Fault::malformed(error.to_string()))?;
    let nar_hash = value(text, "NarHash").and_then(|text| NarHash::parse(text).ok());
    let nar_hash = nar_hash.ok_or_else(|| Fault::malformed("its NarHash is none of SHA-256"))?;
    let expected = super::super::narinfo::file_name(narinfo.store_path());
    if file_name != expected {
        return Err(Fault::Misnamed { expected });
    }
    if narinfo.content_address().is_some() && !narinfo.is_content_addressed(store_dir) {
        return Err(Fault::ContentAddress);
    }
    if let Compression::Other(name) = narinfo.compression()
        && !is_known_to_nix(name)
    {
        return Err(Fault::Compression(name.clone()));
    }
    let nar_file = nar_file(narinfo.url()).ok_or_else(|| Fault::Url(narinfo.url().to_owned()))?.to_owned();
    // Nix takes it to be bzip2 then, whatever the damaged line said.
    if value(text, "Compression").is_none() && !nar_file.ends_with(".bz2") {
        return Err(Fault::malformed("Compression is missing"));
    }
    Ok(Metadata { narinfo, nar_hash, nar_file })
}

/// What Nix finds in a narinfo line by line, before it looks at values.
fn check_lines(text: &str) -> Result<(), Fault> {
    let Some(lines) = text.strip_suffix('\n') else {
        return Err(Fault::malformed("its last line does not end"));
    };
    if text.contains(['\r', '\0']) {
        return Err(Fault::malformed("it has control characters"));
    }
    let mut seen = [0_u8; FIELDS.len()];
    for (number, line) in lines.split('\n').enumerate() {
        let fault = |what: &str| Fault::malformed(format!("line {}: {what}", number + 1));
        // Nix takes what is two characters behind the colon, whatever is between.
        let (name, value) = line
            .split_once(':')
            .and_then(|(name, rest)| Some((name, rest.strip_prefix(' ')?)))
            .ok_or_else(|| fault("no `NAME: VALUE`"))?;
        if let Some(index) = FIELDS.iter().position(|field| *field == name) {
            seen[index] += 1;
        }
        let is_trimmed = name == "References" || value.trim() == value;
        let sound = is_trimmed
            && match name {
                "StorePath" => value.starts_with('/'),
                "References" | "Deriver" => !value.contains('/'),
                "NarSize" | "FileSize" => value.bytes().all(|byte| byte.is_ascii_digit()),
                "Sig" => is_signature(value),
                _ => true,
            };
        if !sound {
            return Err(fault(&format!("{name} is not what it must be")));
        }
    }
    for (field, count) in FIELDS.iter().zip(seen) {
        if count > 1 {
            return Err(Fault::malformed(format!("{field} is there twice")));
        }
    }
    match FIELDS[..REQUIRED].iter().zip(seen).find(|(_, count)| *count == 0) {
        Some((field, _)) => Err(Fault::malformed(format!("{field} is missing"))),
        None => Ok(()),
    }
}

/// Nix passes over what has no key's name.
fn is_signature(value: &str) -> bool {
    value.split_once(':').is_none_or(|(_, encoded)| {
        base64::engine::general_purpose::STANDARD.decode(encoded).is_ok_and(|bytes| bytes.len() == SIGNATURE_LENGTH)
    })
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What libarchive reads for Nix, by the names that Nix gives it. Nix reads
/// others too, whatever they are, since it looks at the first bytes; but no Nix
/// writes them.
fn is_known_to_nix(name: &str) -> bool {
    matches!(name, "br" | "lzip" | "lz4" | "lzma" | "compress" | "grzip" | "lrzip" | "lzop" | "zst" | "gz" | "bz2")
}

/// The file in `nar/` that a URL names; nothing outside of it.
fn nar_file(url: &str) -> Option<&str> {
    let name = url.strip_prefix("nar/")?;
    let is_name = !name.starts_with('.') && (1..=MAX_NAME).contains(&name.len()) && !name.contains('/');
    is_name.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "8q68idp674v0v5vm0j53n3fk4rjlbwig.narinfo";

    /// What `nix copy --to file://…` of Nix 2.8.0 wrote, with a reference.
    const WHOLE: &str = "StorePath: /nix/store/8q68idp674v0v5vm0j53n3fk4rjlbwig-a\n\
        URL: nar/1vgmvfyvffw7k28zfqwvba7nsxkpwbggkgk8mq71fsgdv4147qc2.nar.xz\nCompression: xz\n\
        FileHash: sha256:1vgmvfyvffw7k28zfqwvba7nsxkpwbggkgk8mq71fsgdv4147qc2\nFileSize: 124\n\
        NarHash: sha256:0hkbia1003qqh0r7fn03drzx5yaw7yp99xs7j6c7qsddnp1w7dpc\nNarSize: 120\n\
        References: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-b\nDeriver: df909miz4r3jqyib75dzfhs97gmgmaqv-a.drv\n";

    fn judge(text: &str) -> Result<Metadata, Fault> {
        super::judge(&StoreDir::default(), NAME, text.as_bytes())
    }

    #[test]
    fn one_of_nix_is_sound_and_cut_anywhere_has_all_references_or_is_none() {
        assert!(judge(WHOLE).is_ok());
        for length in 0..WHOLE.len() {
            if let Ok(metadata) = judge(&WHOLE[..length]) {
                assert_eq!(metadata.references().count(), 1, "cut at {length}");
            }
        }
    }

    #[test]
    fn what_nix_can_not_read_or_should_not_is_none() {
        for (old, new) in [
            ("StorePath: /nix", "StorePath: /gnu"),
            ("StorePath: ", "StorePath:"),
            ("8q68idp6", "9q68idp6"),
            ("URL: nar/", "URL: ../nar/"),
            ("URL: nar/", "URL: nar/../"),
            ("URL: nar/", "URL: /nar/"),
            ("URL: nar/1", "URL: nar/x/1"),
            ("Compression: xz", "Compression: xy"),
            ("Compression: xz", "Compressiom: xz"),
            ("Compression: xz\n", ""),
            ("FileHash: sha256:1vg", "FileHash: sha256:evg"),
            ("FileSize: 124", "FileSize: +124"),
            ("FileSize: 124", "FileSize: 99999999999999999999"),
            (
                "NarHash: sha256:0hkbia1003qqh0r7fn03drzx5yaw7yp99xs7j6c7qsddnp1w7dpc",
                "NarHash: md5:d41d8cd98f00b204e9800998ecf8427e",
            ),
            ("NarSize: 120", "NarSize: 0"),
            ("NarSize: 120", "NarSize: 120 "),
            ("NarSize", "NarSite"),
            ("References: a", "References: /nix/store/a"),
            ("References: a", "References: e"),
            ("Deriver: d", "Deriver: "),
            ("Deriver: d", "Sig: key:AAAA\nDeriver: d"),
            ("Deriver: d", "CA: fixed\nDeriver: d"),
            ("Deriver: d", "CA: fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\nDeriver: d"),
            ("Deriver: d", "NarSize: 120\nDeriver: d"),
            ("Deriver: d", "\nDeriver: d"),
            ("FileSize: 124\n", "FileSize: 124\r\n"),
        ] {
            let changed = WHOLE.replacen(old, new, 1);
            assert_ne!(changed, WHOLE, "{old}");
            assert!(judge(&changed).is_err(), "{changed}");
        }
        let other = super::judge(&StoreDir::default(), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.narinfo", WHOLE.as_bytes());
        assert_eq!(other.expect_err("misnamed"), Fault::Misnamed { expected: NAME.to_owned() });
        let signature = base64::engine::general_purpose::STANDARD.encode([7; SIGNATURE_LENGTH]);
        assert!(judge(&format!("{WHOLE}Sig: key:{signature}\nFuture: x\n")).is_ok());
    }
}
