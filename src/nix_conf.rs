//! nix.conf, line by line.
//!
//! Source: Nix 2.8, `src/libutil/config.cc` (`applyConfig`).

/// A line that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Another file is read here; with `!`, if it is there.
    Include {
        /// Whether it may be missing.
        optional: bool,
        /// The file.
        file: &'a str,
    },
    /// `NAME = VALUE`, the value's words.
    Setting {
        /// The name.
        name: &'a str,
        /// The value, word by word.
        values: Vec<&'a str>,
    },
}

/// The lines of `text` that mean something.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        match words[..] {
            ["include", file] => Some(Line::Include { optional: false, file }),
            ["!include", file] => Some(Line::Include { optional: true, file }),
            [name, "=", ref values @ ..] => Some(Line::Setting { name, values: values.to_vec() }),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_nonsense_are_passed_over() {
        let text = "# a comment\na = b  c # and more\n\nempty =\nnonsense\ninclude x\n!include /y\n";
        let setting = |name, values: &[&'static str]| Line::Setting { name, values: values.to_vec() };
        let include = |optional, file| Line::Include { optional, file };
        let expected = [setting("a", &["b", "c"]), setting("empty", &[]), include(false, "x"), include(true, "/y")];
        assert_eq!(lines(text).collect::<Vec<_>>(), expected);
    }
}
