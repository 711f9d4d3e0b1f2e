//! Gathers the store paths of an image: contents, what config names, what can be built there,
//! source trees, and layers that were made ahead.

mod derivations;
mod made;
mod volatile;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::args::NeedsArguments;
use super::built_layers::BuiltLayers;
use super::exit::UsageError;
use super::paths::{self, Located, PathError};
use crate::image::extras::{Extras, Reason};
use crate::image::spec::SourceTree;
use crate::image::trees::{STORE_NAME, Tree};
use crate::image::{ImageSpec, config};
use crate::inputs::Depth;
use crate::inputs::store::StoreRecipes;
use crate::plan;
use crate::store::adopt::adopt;
use crate::store::db::realisations::Realisation;
use crate::store::source::{RegistrationSource, Registrations};
use crate::store::{Closure, PathInfo, StoreLocation, StorePath};
use crate::tree::elsewhere::Elsewhere;
use crate::tree::exclude::Exclude;
use crate::tree::{StoreFiles, TreeError};

/// What makes a folder a flake.
const FLAKE: &str = "flake.nix";

/// The store paths of an image.
pub struct Gathered {
    /// Those that are laid out at `/`, each once.
    pub contents: Vec<StorePath>,
    /// All of them.
    pub closure: Closure,
    /// What is there beside contents, and why.
    pub extras: Extras,
    /// The layers that were made ahead.
    pub built: BuiltLayers,
    /// All registrations that a list has.
    pub listed: Vec<PathInfo>,
    /// What is built there, or found there, first.
    name: Option<String>,
    /// Those whose files are elsewhere than in the store.
    elsewhere: Vec<(StorePath, Elsewhere)>,
    /// The folders of source trees that are not in the store, and what is left out of them.
    folders: Vec<(PathBuf, Exclude)>,
}

impl Gathered {
    /// Where the files of all of them are.
    ///
    /// # Errors
    /// When there is no store.
    pub fn files(&mut self, location: &StoreLocation) -> Result<StoreFiles, TreeError> {
        let mut files = StoreFiles::open(&location.real_dir)?;
        self.elsewhere.drain(..).for_each(|(path, tree)| files.put_elsewhere(&path, tree));
        Ok(files)
    }

    /// The source tree that would have what is put at `path`: it would be in the next image.
    #[must_use]
    pub fn tree_around(&self, path: &Path) -> Option<&Path> {
        let path = paths::future(path)?;
        let is_around = |(folder, exclude): &&(PathBuf, Exclude)| {
            path.strip_prefix(folder).is_ok_and(|rest| !exclude.leaves_out_within(rest))
        };
        self.folders.iter().find(is_around).map(|(folder, _)| &**folder)
    }

    /// What the image is called, if not otherwise.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.contents.first().map(StorePath::name).or(self.name.as_deref())
    }
}

/// Gathers all store paths of the image that `spec` describes, with `paths` as its first contents.
///
/// # Errors
/// When there is none, or one is not there.
pub fn gather(
    source: &RegistrationSource,
    location: &StoreLocation,
    paths: &[PathBuf],
    spec: &ImageSpec,
) -> anyhow::Result<Gathered> {
    let contents = contents(location, paths, spec)?;
    let built = BuiltLayers::read(&spec.built_layers, &location.store_dir)?;
    let mentions = paths::mentions(&location.store_dir, &texts(spec)?);
    let builds_nothing = spec.build_deps.of.is_empty();
    let is_empty = contents.is_empty()
        && mentions.is_empty()
        && builds_nothing
        && spec.trees.is_empty()
        && built.is_empty()
        && spec.root.is_none();
    if is_empty && *source == RegistrationSource::Database {
        // On a parent, a config alone is worth an image.
        if spec.from_image.is_some() {
            let closure = Closure::new(&location.store_dir, Vec::new(), None)?;
            return Ok(Gathered {
                contents,
                closure,
                extras: Extras::default(),
                built,
                listed: Vec::new(),
                name: None,
                elsewhere: Vec::new(),
                folders: Vec::new(),
            });
        }
        return Err(UsageError("nothing to put into the image: name a PATH, or a spec with contents".to_owned()).into());
    }
    let mut registrations = source.open(location)?;
    if !builds_nothing && !registrations.is_database() {
        let named = spec.build_deps.of.iter().map(|text| named(location, text)).collect::<Result<Vec<_>, _>>()?;
        let derivations = named.into_iter().filter(StorePath::is_derivation).collect();
        let files = StoreFiles::open(&location.real_dir)?;
        let unregistered = derivations::unregistered(&registrations, &files, derivations)?;
        registrations.add(unregistered);
    }
    let mut gathering = Gathering {
        registrations: &registrations,
        extras: Extras::default(),
        name: None,
        others: Vec::new(),
        elsewhere: Vec::new(),
        folders: Vec::new(),
        realisations: Vec::new(),
    };
    for (name, tree) in &spec.trees {
        gathering.add_tree(name, tree)?;
    }
    if !builds_nothing {
        gathering.add_build_deps(spec)?;
    }
    let linked = gathering.add_made(spec, &contents)?;
    if !built.is_empty() {
        gathering.add_roots(Reason::Layer, built.roots());
    }
    let Gathering { mut extras, name, others, elsewhere, folders, realisations, .. } = gathering;
    let mentioned = registrations.mentioned(&mentions)?;
    if let (Some(program), false) = (&spec.program, spec.has_program()) {
        extras.program = Some(paths::resolve(location, Path::new(program))?);
    }
    let stable: Vec<StorePath> = linked.iter().chain(&mentioned).chain(&extras.program).cloned().collect();
    let names_nothing =
        !spec.names_contents && contents.is_empty() && builds_nothing && built.is_empty() && spec.root.is_none();
    let takes_all = names_nothing && !registrations.is_database();
    let roots: Vec<StorePath> = stable.iter().cloned().chain(extras.paths()).collect();
    let mut closure = registrations.closure((!takes_all).then_some(&roots), others)?;
    for realisation in realisations {
        if let Some(id) = closure.find(&realisation.out_path) {
            closure.add_realisation(id, realisation.id, realisation.dependent.into_keys().collect());
        }
    }
    built.add_addresses(&mut closure);
    extras.fixed = built.fixed();
    extras.volatile = volatile::volatile(&closure, if takes_all { None } else { Some(&stable) }, &extras);
    if !extras.is_empty() {
        extras.roots.insert(Reason::Contents, linked.iter().cloned().collect());
    }
    made::check_mutable(&closure, &extras)?;
    for pattern in plan::unmatched(&closure, &spec.groups, &spec.hints) {
        tracing::warn!("{pattern:?} in the spec's `layers` or `popularity` names no store path of the image");
    }
    let listed = registrations.into_list();
    Ok(Gathered { contents, closure, extras, built, listed, name, elsewhere, folders })
}

/// The spec with what the command line says beside it.
///
/// # Errors
/// When that makes no sense.
pub fn add_arguments(spec: &mut ImageSpec, arguments: NeedsArguments) -> anyhow::Result<()> {
    let NeedsArguments { build_deps_of, without_drvs, depth, nixpkgs, exclude } = arguments;
    let text = |path: PathBuf| {
        let text = path.into_os_string().into_string();
        text.map_err(|path| UsageError(format!("{} is no text in UTF-8", path.to_string_lossy())))
    };
    for path in build_deps_of {
        spec.build_deps.of.push(text(path)?);
    }
    if spec.build_deps.of.is_empty() && (without_drvs || depth.is_some()) {
        let problem =
            "--without-drvs and --depth are for --build-deps-of, or the spec's buildDepsOf; name what is to be built";
        return Err(UsageError(problem.to_owned()).into());
    }
    spec.build_deps.drvs &= !without_drvs;
    spec.build_deps.depth = depth.unwrap_or(spec.build_deps.depth);
    let mut own = BTreeMap::new();
    for tree in nixpkgs {
        let path = text(tree.path)?;
        if own.insert(tree.name.clone(), SourceTree { path, exclude: Vec::new() }).is_some() {
            return Err(
                UsageError(format!("two source trees are called {}; name one of them: NAME=PATH", tree.name)).into()
            );
        }
    }
    spec.trees.extend(own);
    if spec.trees.is_empty() && !exclude.is_empty() {
        return Err(UsageError("--exclude is for source trees; name one with --nixpkgs".to_owned()).into());
    }
    spec.trees.values_mut().for_each(|tree| tree.exclude.extend(exclude.iter().cloned()));
    Ok(spec.check()?)
}

/// The store paths that are laid out at `/`, each once.
fn contents(location: &StoreLocation, paths: &[PathBuf], spec: &ImageSpec) -> anyhow::Result<Vec<StorePath>> {
    let mut contents = Vec::new();
    // As with Nix's own commands, a program that is named there stands for its package.
    let typed = paths.iter().map(|path| paths::resolve(location, path));
    let listed = spec.contents.iter().map(|path| paths::resolve_whole(location, Path::new(path)));
    for path in typed.chain(listed) {
        let path = path?;
        if !contents.contains(&path) {
            contents.push(path);
        }
    }
    Ok(contents)
}

/// All texts of the image that may name store paths, which must be in it then.
fn texts(spec: &ImageSpec) -> anyhow::Result<String> {
    let user = spec.user.clone().unwrap_or_default();
    let config = config::with_defaults(spec.config.clone(), &user);
    let settings: Vec<&String> = spec.nix_conf.values().collect();
    Ok(serde_json::to_string(&(config, &spec.dockers, &user.home, &user.shell, settings))?)
}

/// The store path that one of `buildDepsOf` names, perhaps as Nix names outputs of derivations.
fn named(location: &StoreLocation, text: &str) -> Result<StorePath, PathError> {
    let path = text.split_once(".drv!").or_else(|| text.split_once(".drv^"));
    let path = path.map_or_else(|| text.to_owned(), |(path, _)| format!("{path}.drv"));
    paths::resolve(location, Path::new(&path))
}

/// What was gathered till now, beside contents.
struct Gathering<'a> {
    registrations: &'a Registrations<'a>,
    extras: Extras,
    name: Option<String>,
    /// Registrations of what is not in the store.
    others: Vec<PathInfo>,
    elsewhere: Vec<(StorePath, Elsewhere)>,
    folders: Vec<(PathBuf, Exclude)>,
    realisations: Vec<Realisation>,
}

impl Gathering<'_> {
    fn location(&self) -> &StoreLocation {
        self.registrations.location()
    }

    /// A tree is taken from the store as it is, or as what it would be called there.
    fn add_tree(&mut self, name: &str, tree: &SourceTree) -> anyhow::Result<()> {
        let path = Path::new(&tree.path);
        let exclude = Exclude::new(&tree.exclude).map_err(|error| UsageError(error.to_string()))?;
        let located = paths::locate(self.location(), path);
        let (in_store, real) = match located.map_err(|source| PathError::NoTree { path: path.to_owned(), source })? {
            Located::Outside(real) => (None, real),
            Located::InStore(found, rest) => {
                let mut real = self.location().real_dir.join(found.to_basename());
                // Nothing more would end in a `/`, and a file is no folder.
                if !rest.as_os_str().is_empty() {
                    real.push(&rest);
                }
                (Some((self.registration(&found)?, rest)), real)
            }
        };
        let mut opened = Elsewhere::open(&real, exclude.clone())?;
        let is_flake = opened.has(FLAKE);
        match in_store {
            Some((info, rest)) if rest.as_os_str().is_empty() && !opened.is_partial() => {
                self.take(name, Tree { path: info.path, nar_hash: info.nar_hash, is_flake });
                return Ok(());
            }
            Some((info, _)) if !info.references.is_empty() => {
                return Err(PathError::Part(self.location().print(&info.path)).into());
            }
            Some(_) => {}
            None => self.folders.push((opened.path().to_owned(), exclude)),
        }
        let info = adopt(&mut opened, STORE_NAME, &self.location().store_dir)?;
        tracing::info!("the source tree {} is {}", tree.path, self.location().print(&info.path));
        self.take(name, Tree { path: info.path.clone(), nar_hash: info.nar_hash, is_flake });
        // What never changes is better; and image folders name it.
        let is_there = self.location().real_dir.join(info.path.to_basename()).symlink_metadata().is_ok();
        if !is_there || self.registrations.valid(std::slice::from_ref(&info.path))?.is_empty() {
            self.elsewhere.push((info.path.clone(), opened));
            self.others.push(info);
        }
        Ok(())
    }

    fn take(&mut self, name: &str, tree: Tree) {
        if tree.is_flake && name.contains('.') {
            tracing::warn!("the flake {name} is found as <{name}> only: no name of a flake has a dot");
        }
        self.name.get_or_insert_with(|| name.to_owned());
        self.extras.trees.insert(name.to_owned(), tree);
    }

    /// What is registered of `path`.
    fn registration(&self, path: &StorePath) -> anyhow::Result<PathInfo> {
        let closure = self.registrations.closure(Some(std::slice::from_ref(path)), Vec::new())?;
        let id = closure.find(path).context("a root that is not in its closure; this is a defect of stowage")?;
        Ok(closure.info(id).clone())
    }

    fn add_roots(&mut self, reason: Reason, paths: impl IntoIterator<Item = StorePath>) {
        self.extras.roots.entry(reason).or_default().extend(paths);
    }

    fn add_build_deps(&mut self, spec: &ImageSpec) -> anyhow::Result<()> {
        let files = StoreFiles::open(&self.location().real_dir)?;
        let recipes = StoreRecipes::new(&files, self.registrations);
        let mut realisations = BTreeSet::new();
        let mut first = None;
        for text in &spec.build_deps.of {
            let path = named(self.location(), text)?;
            let derivation = recipes.derivation_of(&path)?;
            let name = derivation.to_basename();
            first.get_or_insert_with(|| derivation.name().trim_end_matches(".drv").to_owned());
            let direct = recipes.needs(&derivation, Depth::Direct)?;
            if spec.build_deps.depth == Depth::All {
                let all = recipes.needs(&derivation, Depth::All)?;
                let before = all.outputs.into_iter().chain(all.sources);
                let before = before.filter(|path| !direct.outputs.contains(path) && !direct.sources.contains(path));
                self.add_roots(Reason::BeforeInput(name.clone()), before);
                realisations.extend(all.realisations);
            }
            self.add_roots(Reason::InputOf(name.clone()), direct.outputs);
            self.add_roots(Reason::SourceOf(name), direct.sources);
            realisations.extend(direct.realisations);
            if spec.build_deps.drvs {
                self.add_roots(Reason::Derivation, [derivation]);
            }
        }
        self.name = first.or(self.name.take());
        self.realisations = self.registrations.realisations(&realisations)?;
        Ok(())
    }
}
