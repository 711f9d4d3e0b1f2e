//! Platforms: the machines that images are for.
//!
//! Sources: OCI image-spec 1.1, `image-index.md` and `config.md`; containerd's
//! `platforms` for what is the same by another name.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An operating system and an architecture, as Go calls them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, e.g. `amd64`.
    pub architecture: String,
    /// The operating system: `linux`.
    pub os: String,
    /// Which of the architecture's, e.g. `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no platform; name one as in linux/amd64, linux/arm64 or linux/arm/v7")]
pub struct PlatformNameError(String);

impl Platform {
    /// Linux on `architecture`, as Go calls it.
    #[must_use]
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// The platform that `value` tells: a config, or the `platform` of an index's entry.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self { architecture: text("architecture")?, os: text("os")?, variant: text("variant") })
    }

    /// Whether an image for `other` is one for this platform. Without a variant, any will do.
    #[must_use]
    pub fn takes(&self, other: &Self) -> bool {
        let is_variant = self.variant.is_none() || self.own_variant() == other.own_variant();
        self.os == other.os && self.architecture == other.architecture && is_variant
    }

    /// Whether both are one platform.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.takes(other) && other.takes(self)
    }

    /// In this order indexes list images.
    #[must_use]
    pub fn order(&self) -> (&str, &str, Option<&str>) {
        (&self.os, &self.architecture, self.own_variant())
    }

    /// The variant, unless it is what the architecture means without one.
    fn own_variant(&self) -> Option<&str> {
        let usual = match self.architecture.as_str() {
            "arm64" => "v8",
            "amd64" => "v1",
            _ => "",
        };
        self.variant.as_deref().filter(|variant| *variant != usual)
    }
}

impl std::str::FromStr for Platform {
    type Err = PlatformNameError;

    fn from_str(text: &str) -> Result<Self, PlatformNameError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformNameError(text.to_owned())),
        };
        let is_name = |part: &&str| part.chars().all(|letter| letter.is_ascii_alphanumeric()) && !part.is_empty();
        if !parts.iter().all(is_name) {
            return Err(PlatformNameError(text.to_owned()));
        }
        // As the kernel calls them.
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self { variant: variant.map(str::to_owned), ..Self { os: os.to_owned(), ..Self::linux(architecture) } })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(formatter, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Platform;
    use serde_json::json;

    fn platform(text: &str) -> Platform {
        text.parse().expect(text)
    }

    #[test]
    fn platforms_come_back_as_they_were_written() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(platform(text).to_string(), text);
        }
        assert_eq!(platform("linux/aarch64").to_string(), "linux/arm64");
        for wrong in ["", "arm64", "linux/", "linux/arm/v7/x", "linux/a b", "linux//v7"] {
            let error = wrong.parse::<Platform>().expect_err(wrong).to_string();
            assert!(error.contains("linux/arm64"), "{error}");
        }
    }

    #[test]
    fn variants_are_compared_as_they_are_meant() {
        for (wanted, other, takes) in [
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm/v7", "linux/arm", false),
            ("linux/amd64/v3", "linux/amd64", false),
            ("linux/arm64", "linux/amd64", false),
            ("linux/amd64", "windows/amd64", false),
        ] {
            assert_eq!(platform(wanted).takes(&platform(other)), takes, "{wanted} {other}");
        }
        assert!(platform("linux/arm64").is_same(&platform("linux/arm64/v8")));
        assert!(!platform("linux/arm").is_same(&platform("linux/arm/v7")));
    }

    #[test]
    fn a_config_tells_its_platform() {
        let config = json!({ "os": "linux", "architecture": "arm", "variant": "v7" });
        assert_eq!(Platform::of(&config).expect("told").to_string(), "linux/arm/v7");
        assert_eq!(Platform::of(&json!({ "os": "linux", "architecture": "" })), None);
    }
}
