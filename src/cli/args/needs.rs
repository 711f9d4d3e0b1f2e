//! The arguments for what an image has so that something can be built in it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};

use crate::image::trees;
use crate::inputs::Depth;

const HEADING: &str = "What can be built in the image";

/// What goes into an image so that something can be built in it.
#[derive(Debug, Args)]
pub struct NeedsArguments {
    /// Put into the image what it takes to build this: a derivation, its output, or a link to
    /// either, such as ./result; can be repeated
    ///
    /// That is the outputs that it takes of other derivations with all that they need to run, its
    /// sources, and its derivation with those that it was built from. So `nix-build` in the image
    /// runs its builder, and no other, without a network. Its own outputs are not in the image.
    /// What an expression builds while it is evaluated (import from derivation) no derivation
    /// tells; name that as a PATH.
    #[arg(long, value_name = "PATH|DRV", value_hint = ValueHint::AnyPath, help_heading = HEADING)]
    pub build_deps_of: Vec<PathBuf>,
    /// Leave the derivations out: evaluating the expression makes them anew
    #[arg(long, help_heading = HEADING)]
    pub without_drvs: bool,
    /// How far back the image can build
    #[arg(long, value_enum, help_heading = HEADING)]
    pub depth: Option<Depth>,
    /// Put this source tree into the image, and have NIX_PATH and the flake registry lead to it:
    /// a folder, a file or a store path, found as <nixpkgs> or as <NAME>; can be repeated
    ///
    /// A folder goes there as it is now, whether Git knows its files or not, but without `.git`.
    #[arg(long, value_name = "[NAME=]PATH", value_hint = ValueHint::AnyPath, help_heading = HEADING)]
    pub nixpkgs: Vec<NixpkgsArgument>,
    /// Leave this out of all source trees: a pattern as in .gitignore, e.g. /doc or *.png; can be
    /// repeated
    #[arg(long, value_name = "PATTERN", help_heading = HEADING)]
    pub exclude: Vec<String>,
}

/// A source tree with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NixpkgsArgument {
    /// What expressions find it by.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl FromStr for NixpkgsArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.split_once('=') {
            Some((name, path)) if trees::name_problem(name).is_none() => {
                Self { name: name.to_owned(), path: path.into() }
            }
            _ => Self { name: "nixpkgs".to_owned(), path: text.into() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_can_be_one() {
        let parse =
            |text: &str| text.parse::<NixpkgsArgument>().map(|tree| (tree.name, tree.path)).expect("infallible");
        assert_eq!(parse("./nixpkgs"), ("nixpkgs".to_owned(), "./nixpkgs".into()));
        assert_eq!(parse("home-manager=../hm"), ("home-manager".to_owned(), "../hm".into()));
        assert_eq!(parse("./a=b"), ("nixpkgs".to_owned(), "./a=b".into()));
    }
}
