//! Whether a `nix-cache-info` is one.
//!
//! Nix 2.8 ends each build where `Priority` is no number, and takes no notice of
//! the cache where `StoreDir` is another.

use super::fault::Fault;

/// The store dir that a `nix-cache-info` names.
///
/// # Errors
/// When Nix can't read it, or it is cut off.
pub fn judge(contents: &[u8]) -> Result<&str, Fault> {
    if contents.is_empty() {
        return Err(Fault::Empty);
    }
    let text = std::str::from_utf8(contents).map_err(|_| Fault::malformed("it is no UTF-8"))?;
    let lines = text.strip_suffix('\n').ok_or_else(|| Fault::malformed("its last line does not end"))?;
    let mut store_dir = None;
    for line in lines.split('\n') {
        let (name, value) = line.split_once(':').ok_or_else(|| Fault::malformed(format!("{line:?} is no field")))?;
        let value = value.trim();
        let sound = match name {
            "StoreDir" => value.starts_with('/') && store_dir.replace(value).is_none(),
            "Priority" => value.parse::<i32>().is_ok(),
            "WantMassQuery" => matches!(value, "0" | "1"),
            _ => !value.contains(char::is_control),
        };
        if !sound {
            return Err(Fault::malformed(format!("{name:?} is not what it must be")));
        }
    }
    store_dir.ok_or_else(|| Fault::malformed("StoreDir is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nix_can_not_read_is_none() {
        for good in ["StoreDir: /nix/store\n", "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n"] {
            assert_eq!(judge(good.as_bytes()), Ok("/nix/store"));
        }
        for bad in [
            "",
            "StoreDir: /nix/store",
            "StoreDir: /nix/store\nPriority: \n",
            "StoreDir: /nix/store\nPriority: 99999999999\n",
            "StoreDir: /nix/store\nWant\n",
            "Priority: 30\n",
            "\u{0}\n",
        ] {
            assert!(judge(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
