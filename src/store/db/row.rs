//! What the rows of a Nix database say.

use crate::store::{NarHash, PathInfo, StoreDir, StorePath};

/// Why a row is no registration.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// SQLite can't read it.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// What it says means nothing.
    #[error("{0}")]
    Meaning(String),
}

/// The columns that [`info`] reads.
pub const COLUMNS: &str = "v.id, v.path, v.hash, v.narSize, v.deriver, v.sigs, v.ca";

/// The registration in a row of `ValidPaths` with [`COLUMNS`], without its
/// references.
///
/// # Errors
/// When the row can't be read or understood.
pub fn info(store_dir: &StoreDir, row: &rusqlite::Row<'_>) -> Result<PathInfo, RowError> {
    let text = |column| row.get::<_, Option<String>>(column);
    let required = |column, name| text(column)?.ok_or_else(|| RowError::Meaning(format!("no {name}")));
    let path = required(1, "path")?;
    let hash = required(2, "hash")?;
    let nar_hash = NarHash::parse(&hash).map_err(|error| RowError::Meaning(format!("{path}: {error}")))?;
    let nar_size: Option<i64> = row.get(3)?;
    let nar_size =
        u64::try_from(nar_size.unwrap_or(0)).map_err(|_| RowError::Meaning(format!("{path}: a negative size")))?;
    Ok(PathInfo {
        deriver: text(4)?.and_then(|deriver| parse(store_dir, &deriver).ok()),
        signatures: text(5)?.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        ca: text(6)?.filter(|ca| !ca.is_empty()),
        ..PathInfo::new(parse(store_dir, &path).map_err(RowError::Meaning)?, nar_hash, nar_size, Vec::new())
    })
}

/// The store path that `path` is printed as; or what is wrong with it.
pub(super) fn parse(store_dir: &StoreDir, path: &str) -> Result<StorePath, String> {
    store_dir.parse_path(path.as_bytes()).map_err(|error| {
        format!("{path}: {error} (the store dir is taken to be {store_dir}; NIX_STORE_DIR names another)")
    })
}
