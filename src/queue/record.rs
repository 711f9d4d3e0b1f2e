//! What is known of a build that has not gone out yet: JSON.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::store::StorePath;

/// How long to wait after the first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of these waits.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The version of a record's form.
const VERSION: u32 = 1;

/// One build that has to go out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// The base name of the derivation that was built, if Nix named one.
    pub derivation: Option<String>,
    /// The base names of what it made, as far as it was known.
    pub outputs: Vec<String>,
    /// The folder of the cache that the outputs go to; empty where the configuration, which
    /// made no sense then, has to say it.
    pub cache: PathBuf,
    /// The hook's configuration, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<PathBuf>,
    /// The spec whose `precompute` is to be obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<PathBuf>,
    /// The layer index besides this machine's that is to know of its layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_index: Option<String>,
    /// The names of the keys in the hook's environment, which whoever exports it must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// How often it could not go out.
    #[serde(default)]
    pub failures: u32,
    /// Not before that time is it tried again, in seconds since 1970.
    #[serde(default)]
    pub not_before: u64,
    /// Why it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Record {
    /// A build that has not been tried yet.
    #[must_use]
    pub fn new(derivation: Option<&StorePath>, outputs: &[StorePath], cache: PathBuf) -> Self {
        Self {
            version: VERSION,
            derivation: derivation.map(StorePath::to_basename),
            outputs: outputs.iter().map(StorePath::to_basename).collect(),
            cache,
            configuration: None,
            spec: None,
            layer_index: None,
            signers: Vec::new(),
            failures: 0,
            not_before: 0,
            problem: None,
        }
    }

    /// The derivation.
    #[must_use]
    pub fn derivation(&self) -> Option<StorePath> {
        StorePath::from_basename(self.derivation.as_ref()?.as_bytes()).ok()
    }

    /// The outputs.
    #[must_use]
    pub fn outputs(&self) -> Vec<StorePath> {
        self.outputs.iter().filter_map(|name| StorePath::from_basename(name.as_bytes()).ok()).collect()
    }

    /// Whether it is to be tried now, and if not, how long to wait.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let wait = Duration::from_secs(self.not_before).saturating_sub(now());
        // Nobody waits longer, so the clock was wrong then.
        if wait > LONGEST_PAUSE { Duration::ZERO } else { wait }
    }

    /// Notes that it could not go out, for `problem`: it will be tried again, later each time.
    pub fn put_off(&mut self, problem: &str) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = (now() + pause).as_secs();
        self.problem = Some(problem.to_owned());
    }
}

/// Reads a record; there is none for us in that of a newer stowage.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Record>, serde_json::Error> {
    #[derive(Deserialize)]
    struct AnyVersion {
        version: u32,
    }
    let AnyVersion { version } = serde_json::from_slice(bytes)?;
    if version > VERSION { Ok(None) } else { serde_json::from_slice(bytes).map(Some) }
}

/// The time since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_wrong_holds_nothing_up() {
        let mut waiting = Record::new(None, &[], "/cache".into());
        waiting.not_before = (now() + LONGEST_PAUSE / 2).as_secs();
        assert!(waiting.wait() > LONGEST_PAUSE / 4);
        waiting.not_before = (now() + LONGEST_PAUSE * 100).as_secs();
        assert_eq!(waiting.wait(), Duration::ZERO);
    }
}
