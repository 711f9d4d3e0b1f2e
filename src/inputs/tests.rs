//! Tests of what it takes.

use super::*;
use crate::store::closure::tests::path;

/// Derivations in memory.
#[derive(Default)]
struct Known {
    recipes: BTreeMap<StorePath, Recipe>,
    built: BTreeMap<(StorePath, String), StorePath>,
    gone: BTreeSet<StorePath>,
}

impl Recipes for Known {
    type Error = std::convert::Infallible;

    fn recipe(&self, derivation: &StorePath) -> Result<Option<Recipe>, Self::Error> {
        Ok(self.recipes.get(derivation).cloned())
    }

    fn built(&self, derivation: &StorePath, output: &str) -> Result<Option<Built>, Self::Error> {
        let path = self.built.get(&(derivation.clone(), output.to_owned())).cloned();
        Ok(path.map(|path| Built { path, id: format!("sha256:{}!{output}", derivation.name()) }))
    }

    fn valid(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, Self::Error> {
        Ok(paths.iter().filter(|path| !self.gone.contains(path)).cloned().collect())
    }
}

impl Known {
    /// Adds a derivation whose outputs are `letter-NAME`; a `?` before a name means that its path
    /// is not known before it is built.
    fn add(&mut self, letter: char, outputs: &[&str], inputs: &[(char, InputDerivation)], sources: &[char]) {
        let output = |name: &&str| match name.strip_prefix('?') {
            Some(name) => (name.to_owned(), None),
            None => ((*name).to_owned(), Some(path(letter, name))),
        };
        let recipe = Recipe {
            inputs: inputs.iter().map(|(letter, wanted)| (drv(*letter), wanted.clone())).collect(),
            sources: sources.iter().map(|letter| path(*letter, "source")).collect(),
            outputs: outputs.iter().map(output).collect(),
        };
        self.recipes.insert(drv(letter), recipe);
    }

    fn needs(&self, letter: char, depth: Depth) -> Needs {
        needs(self, &drv(letter), depth).unwrap_or_else(|error| match error {})
    }
}

fn drv(letter: char) -> StorePath {
    path(letter, &format!("{letter}.drv"))
}

fn of(outputs: &[&str]) -> InputDerivation {
    InputDerivation::new(outputs.iter().copied())
}

/// `c` needs the dev output of `b`, which needs `a`.
fn chain() -> Known {
    let mut known = Known::default();
    known.add('a', &["out"], &[], &['x']);
    known.add('b', &["out", "dev", "doc"], &[('a', of(&["out"]))], &['y']);
    known.add('c', &["out"], &[('b', of(&["dev"]))], &['z']);
    known
}

#[test]
fn the_outputs_that_are_named_and_the_sources_are_needed() {
    let needs = chain().needs('c', Depth::Direct);
    assert_eq!(needs.outputs, [path('b', "dev")].into());
    assert_eq!(needs.sources, [path('z', "source")].into());
    assert!(needs.missing.is_empty());
}

#[test]
fn all_the_way_down_every_derivations_are() {
    let needs = chain().needs('c', Depth::All);
    assert_eq!(needs.outputs, [path('a', "out"), path('b', "dev")].into());
    assert_eq!(needs.sources, ['x', 'y', 'z'].map(|letter| path(letter, "source")).into());
}

#[test]
fn what_is_missing_is_told_all_at_once() {
    let mut known = chain();
    known.gone = [path('b', "dev"), path('z', "source")].into();
    known.add('d', &["out"], &[('c', of(&["out"])), ('f', of(&["out"])), ('b', of(&["dev", "none"]))], &['z']);
    let needs = known.needs('d', Depth::Direct);
    assert_eq!(needs.outputs, [path('c', "out")].into());
    assert!(needs.sources.is_empty());
    let output = |letter, name: &str| What::Output { derivation: drv(letter), name: name.to_owned() };
    let missing = [
        Missing { path: None, what: output('b', "none") },
        Missing { path: Some(path('b', "dev")), what: output('b', "dev") },
        Missing { path: Some(path('z', "source")), what: What::Source },
        Missing { path: Some(drv('f')), what: What::Derivation },
    ];
    assert_eq!(needs.missing, missing.into());
    let text = missing::MissingError {
        of: "d".to_owned(),
        store_dir: crate::store::StoreDir::default(),
        place: missing::Place::Store(Some("/mnt".into())),
        missing: needs.missing.into_iter().collect(),
    }
    .to_string();
    assert!(text.starts_with("4 paths are needed to build d, and not valid in this store:\n"), "{text}");
    for part in
        ["b.drv!dev'", "-f.drv (a derivation)", "-dev (output dev of", "nix-store --store /mnt --realise '/nix/store/"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn content_addressed_outputs_are_where_the_store_says() {
    let mut known = Known::default();
    known.add('a', &["?out"], &[], &[]);
    known.add('b', &["out"], &[('a', of(&["out"]))], &[]);
    assert_eq!(known.needs('b', Depth::Direct).missing.len(), 1);
    known.built.insert((drv('a'), "out".to_owned()), path('q', "a"));
    let needs = known.needs('b', Depth::Direct);
    assert_eq!((needs.outputs, needs.missing), ([path('q', "a")].into(), BTreeSet::new()));
    assert_eq!(needs.realisations, ["sha256:a.drv!out".to_owned()].into());
}

#[test]
fn outputs_of_a_derivation_that_another_makes_are_needed_and_that_one_too() {
    let mut known = Known::default();
    known.add('m', &["?out"], &[('a', of(&["out"]))], &[]);
    known.add('a', &["out"], &[], &[]);
    known.add('i', &["out", "doc"], &[('a', of(&["out"]))], &['s']);
    known.built.insert((drv('m'), "out".to_owned()), drv('i'));
    let dynamic = InputDerivation::default().with_dynamic_output("out", of(&["out"])).expect("not deep");
    known.add('w', &["out"], &[('m', dynamic)], &[]);
    let needs = known.needs('w', Depth::Direct);
    assert_eq!(needs.outputs, [drv('i'), path('i', "out")].into());
    let needs = known.needs('w', Depth::All);
    assert_eq!(needs.outputs, [drv('i'), path('i', "out"), path('a', "out")].into());
    assert_eq!(needs.sources, [path('s', "source")].into());
}
