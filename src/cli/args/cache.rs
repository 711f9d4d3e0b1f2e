//! The arguments of `stowage cache` and `stowage env`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::super::export::ExportArguments;
use super::{JobsArguments, StoreArguments};
use crate::cache::setup::Format;

/// What can be done with a binary cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Export store paths, and all that they refer to, to the cache in DIR
    Add(AddArguments),
    /// Begin a job: make the cache in DIR ready, and note what the store has
    Init(InitArguments),
    /// Put what is damaged in the cache in DIR out of Nix's sight
    ///
    /// Moves narinfos and NARs that are cut off, empty, forged or misnamed to DIR/quarantine, so
    /// that no build fails over them, and makes again what is missing. Leaves a sound cache as it
    /// is, with all its times. Ends with 0 though something was damaged; see --strict.
    Check(CheckArguments),
    /// Delete from the cache in DIR what was used least recently
    ///
    /// Used is what an export has added, or found there while it added something else. What a
    /// path that stays refers to stays as well. From a bucket, where others may be at work, nothing
    /// goes that was used in the last day.
    Gc(GcArguments),
    /// Tell what is in the cache in DIR
    Info(InfoArguments),
    /// End a job: wait until all that was built is in the cache
    ///
    /// Exports what hooks have recorded and no worker has done yet, and what was built since
    /// `init` (or since the container began) without a hook's being called. Fails when
    /// something could not be exported; it stays recorded then.
    Wait(WaitArguments),
}

/// What a cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheKind {
    /// Narinfos and NARs, for any store
    BinaryCache,
    /// A store, for one job at a time
    Store,
}

/// Arguments of `cache init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// The cache: a folder, which is made when it is not there, or a bucket, s3://NAME?endpoint=…
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// What the cache is: a binary cache, from which Nix copies what it needs, or a store, in
    /// which it builds; by default what is there, else a binary cache
    ///
    /// What suits this machine is told when the cache is made. A binary cache suits folders that
    /// are archived, as GitLab's runner does, and all that several jobs or machines share; a store
    /// suits a folder that stays on one machine, and saves all copying there.
    ///
    /// A store needs a machine where Nix may make user namespaces, or an image in which /nix leads
    /// to DIR/nix (`cacheStore` in the image's spec). Whether that is so is tried.
    #[arg(long = "as", value_name = "KIND")]
    pub kind: Option<CacheKind>,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
}

/// Arguments of `cache wait`.
#[derive(Debug, Args)]
pub struct WaitArguments {
    /// The cache: a folder, or a bucket, s3://NAME?endpoint=…
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// How long to wait for another's worker, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cache add`.
#[derive(Debug, Args)]
pub struct AddArguments {
    /// The cache: a folder, which is made when it is not there, or a bucket, s3://NAME?endpoint=…
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Store paths, or links to them
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// How to export
    #[command(flatten)]
    pub export: ExportArguments,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// How much is done at once
    #[command(flatten)]
    pub jobs: JobsArguments,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `env`.
#[derive(Debug, Args)]
pub struct EnvArguments {
    /// The cache: a folder, or a bucket, s3://NAME?endpoint=…
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Believe what this key has signed (NAME:BASE64, or a file with it), and not the folder
    ///
    /// May be given several times; else those in $STOWAGE_PUBLIC_KEY, with white space between
    /// them. Without one, whatever is in the folder is believed.
    #[arg(long, value_name = "KEY")]
    pub public_key: Vec<String>,
    /// Of a cache that is a store: copy from it to the machine's own store, and do not build in it
    #[arg(long)]
    pub substituter: bool,
    /// Lower ones are asked first; cache.nixos.org has 40. Else the cache itself says
    #[arg(long, value_name = "NUMBER")]
    pub priority: Option<u32>,
    /// shell: for eval; dotenv: a line NAME=VALUE; nix.conf: a line for that file
    #[arg(long, default_value = "shell", value_name = "FORM")]
    pub format: Format,
}

/// Arguments of `cache check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The cache: a folder, or a bucket, s3://NAME?endpoint=…; that there is no such folder is no
    /// error, as in a first job
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Also unpack and hash each NAR
    #[arg(long)]
    pub deep: bool,
    /// End with exit code 8 if something was damaged, though it is in quarantine now
    #[arg(long)]
    pub strict: bool,
    /// How much is done at once
    #[command(flatten)]
    pub jobs: JobsArguments,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cache gc`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("limit").required(true).multiple(true).args(["max_size", "keep_days"])))]
pub struct GcArguments {
    /// The cache: a folder, or a bucket, s3://NAME?endpoint=…
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// How large the cache may be, as in 4G, 500M or 1.5TiB: K, M, G and T count in 1024, kB, MB,
    /// GB and TB in 1000
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// Delete what was not used for so many days
    #[arg(long, value_name = "N")]
    pub keep_days: Option<u32>,
    /// Keep this store path, or what a link leads to, with all that it refers to, whatever its
    /// age and size; can be repeated
    #[arg(long, value_name = "ROOT", value_hint = ValueHint::AnyPath)]
    pub keep: Vec<PathBuf>,
    /// Delete nothing, and tell what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Where the store is, whose paths --keep names
    #[command(flatten)]
    pub store: StoreArguments,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cache info`.
#[derive(Debug, Args)]
pub struct InfoArguments {
    /// The cache: a folder, or a bucket, s3://NAME?endpoint=…
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// A size in bytes, with units as coreutils have them.
fn parse_size(text: &str) -> Result<u64, String> {
    let error = || format!("{text:?} is no size; write one as in 500M, 4G or 4GiB");
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.chars().next() {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => return Err(error()),
    };
    let base: f64 = match unit.get(power.min(1)..).unwrap_or_default() {
        "" | "ib" => 1024.0,
        "b" => 1000.0,
        _ => return Err(error()),
    };
    Ok((number * base.powi(power as i32)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_coreutils() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("1K", 1024),
            ("1kB", 1000),
            ("2KiB", 2048),
            ("500M", 500 << 20),
            ("4G", 4 << 30),
            ("4 GB", 4_000_000_000),
            ("1.5TiB", 3 << 39),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1X", "1GG", "1Gb!", "1.2.3", "4iB", "1é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
