//! Codecs with levels, as people write them: `zstd`, `zstd:9`.

use std::ops::RangeInclusive;

/// A codec's name, and its level if one was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec<'a> {
    /// What comes before the colon.
    pub name: &'a str,
    level: Option<&'a str>,
}

impl<'a> Codec<'a> {
    /// Takes `text` apart.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        Self { name, level }
    }

    /// The level, or the `usual` one.
    ///
    /// # Errors
    /// When it is none of `levels`; says so.
    pub fn level_in(self, levels: &RangeInclusive<u8>, usual: u8) -> Result<u8, &'static str> {
        match self.level.map(str::parse) {
            None => Ok(usual),
            Some(Ok(number)) if levels.contains(&number) => Ok(number),
            Some(_) => Err("its level is none of the codec's"),
        }
    }

    /// Makes sure that there is no level.
    ///
    /// # Errors
    /// When there is one; says so.
    pub fn without_level(self) -> Result<(), &'static str> {
        if self.level.is_some() { Err("it has no levels") } else { Ok(()) }
    }
}

/// What to say of a name that is none.
pub const UNKNOWN: &str = "the codec is not known";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_in_their_range_or_the_usual_ones() {
        let level = |text| Codec::new(text).level_in(&(1..=9), 3);
        assert_eq!((Codec::new("x:9").name, level("x:9"), level("x")), ("x", Ok(9), Ok(3)));
        for bad in ["x:", "x:0", "x:10", "x:-1", "x:1:2", "x:300"] {
            assert!(level(bad).is_err(), "{bad}");
        }
        assert!(Codec::new("none").without_level().is_ok() && Codec::new("none:1").without_level().is_err());
    }
}
