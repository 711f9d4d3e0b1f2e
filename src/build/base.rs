//! What an image is built on: its parent, or nothing.

use std::collections::BTreeSet;

use crate::image::ground::{Below, Ground};
use crate::image::inherit::{Inherited, PlatformError};
use crate::image::spec::SpecError;
use crate::image::user::User;
use crate::image::{ImageSpec, system};
use crate::local_store::seed::SHIPPED;
use crate::parent::merge::MergeError;
use crate::parent::{LayerBytes, Parent};
use crate::store::{Closure, StoreDir, StorePath, content_address};

/// What an image has from its parent, and where the two meet.
pub struct Base<'a> {
    /// The parent.
    pub parent: Option<&'a Parent>,
    /// What its config hands on.
    pub inherited: Inherited,
    /// All store paths of the image: its own, and the parent's.
    pub all: Closure,
    /// Those that the parent has not.
    pub new: Closure,
    /// Who runs in the image.
    pub user: User,
    /// Where its store paths are in it, before a container begins.
    image_dir: StoreDir,
}

/// Why an image can't be built on its parent.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// They are for different machines.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// They have different things under one name.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// Nobody knows whom Nix's folders should belong to.
    #[error(transparent)]
    User(SpecError),
    /// Nix would refuse to work.
    #[error(
        "the parent {parent} has a link on the way to {store_dir}, which Nix refuses; make that a folder in the parent"
    )]
    Store {
        /// The parent.
        parent: String,
        /// The store dir.
        store_dir: String,
    },
}

impl<'a> Base<'a> {
    /// What an image as `spec` says, with the store paths `closure`, has from `parent`.
    ///
    /// # Errors
    /// When it can't be built on that.
    pub fn new(parent: Option<&'a Parent>, spec: &ImageSpec, closure: &Closure) -> Result<Self, BaseError> {
        let nothing = BTreeSet::new();
        let Some(parent) = parent else {
            let user = spec.user.clone().unwrap_or_default();
            let new = if spec.include_store_paths { closure.without(&nothing) } else { none_of(closure) };
            let all = closure.without(&nothing);
            let image_dir = image_dir(spec, closure.store_dir())?;
            let inherited = Inherited { others: spec.dockers.clone(), ..Inherited::default() };
            return Ok(Self { parent, inherited, all, new, user, image_dir });
        };
        let mut inherited = Inherited::of(parent)?;
        inherited.others.extend(spec.dockers.clone());
        inherited.architecture(spec.architecture.clone(), &parent.name)?;
        let mut all = parent.merged_with(closure)?;
        // What dockerTools has put into its database.
        content_address::restore_recursive(&mut all);
        let ground = Ground::new(&parent.root, closure.store_dir());
        let store = closure.store_dir().as_str().trim_start_matches('/').as_bytes();
        if ground.place_of_folder(store).path != store || ground.below(store) == Below::Other {
            return Err(BaseError::Store { parent: parent.name.clone(), store_dir: closure.store_dir().to_string() });
        }
        let user = user(spec, parent, &inherited, ground).map_err(BaseError::User)?;
        let image_dir = closure.store_dir().clone();
        let new = if spec.include_store_paths { closure.without(&parent.paths()) } else { none_of(closure) };
        Ok(Self { parent: Some(parent), new, inherited, all, user, image_dir })
    }

    /// The parent's file system.
    #[must_use]
    pub fn ground(&self) -> Ground<'_> {
        self.parent.map_or_else(Ground::default, |parent| Ground::new(&parent.root, self.all.store_dir()))
    }

    /// The store paths whose files must be on this machine: those that are new, and those
    /// of layers that the parent only names.
    #[must_use]
    pub fn wanted(&self) -> BTreeSet<&StorePath> {
        let layers = self.parent.into_iter().flat_map(|parent| &parent.layers);
        let named = layers.filter(|layer| matches!(layer.bytes, LayerBytes::Store { .. }));
        named.flat_map(|layer| &layer.paths).chain(self.new.infos().iter().map(|info| &info.path)).collect()
    }

    /// Those of [`Self::wanted`] that hold all the others.
    #[must_use]
    pub fn held(&self) -> Vec<StorePath> {
        let wanted = self.wanted();
        let others = self.all.infos().iter().map(|info| &info.path).filter(|path| !wanted.contains(path)).collect();
        let wanted = self.all.without(&others);
        wanted.unreferenced().into_iter().map(|id| wanted.info(id).path.clone()).collect()
    }

    /// The folder in which layers have the image's store paths.
    #[must_use]
    pub fn image_dir(&self) -> &StoreDir {
        &self.image_dir
    }
}

/// For an image without store paths.
fn none_of(closure: &Closure) -> Closure {
    closure.without(&closure.infos().iter().map(|info| &info.path).collect())
}

/// The store dir, or where an image has its store whose `/nix` leads elsewhere.
fn image_dir(spec: &ImageSpec, store_dir: &StoreDir) -> Result<StoreDir, BaseError> {
    match &spec.cache_store {
        None => Ok(store_dir.clone()),
        Some(dir) => StoreDir::new(format!("{SHIPPED}{store_dir}")).map_err(|error| {
            BaseError::User(SpecError::Nonsense { key: "cacheStore", problem: format!("{dir}: {error}") })
        }),
    }
}

/// The spec's user, or the parent's, or the usual one.
fn user(spec: &ImageSpec, parent: &Parent, inherited: &Inherited, ground: Ground<'_>) -> Result<User, SpecError> {
    if let Some(user) = &spec.user {
        return Ok(user.clone());
    }
    let Some(text) = &inherited.container.user else {
        return Ok(User::default());
    };
    let files = ["etc/passwd", "etc/group"].map(|path| ground.text(path));
    let user = User::of_parent(text, files[0], files[1], inherited.variable("HOME"), inherited.variable("USER"));
    let mut user = user.ok_or_else(|| SpecError::Nonsense {
        key: "user",
        problem: format!(
            "{} runs as {text:?}, whom its /etc/passwd does not know; say who is to run in the image",
            parent.name
        ),
    })?;
    // A folder of somebody else's would become the user's.
    let path = user.home.trim_start_matches('/').as_bytes();
    let is_own = match ground.below(path) {
        Below::Nothing => true,
        Below::Directory => {
            let place = ground.place_of_folder(path).path;
            path.starts_with(b"home/") || ground.entry(&place).is_some_and(|entry| entry.uid == user.uid)
        }
        Below::Other | Below::InStore(_) => false,
    };
    if user.problem().is_some() || !system::may_be_home(&user.home) || !is_own {
        user.home = user.usual_home();
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ground::tests::root;
    use crate::parent::Root;
    use crate::store::closure::tests::{info, path};
    use serde_json::json;

    fn parent(user: &str, root: Root) -> Parent {
        let config = json!({ "config": { "User": user, "Env": ["HOME=/srv"] } });
        Parent { name: "oci:base".to_owned(), config, layers: Vec::new(), root, registrations: Vec::new() }
    }

    fn closure() -> Closure {
        let (a, b) = (path('a', "a"), path('b', "b"));
        Closure::new(&StoreDir::default(), vec![info(&a, &[&b]), info(&b, &[])], None).expect("closed")
    }

    fn home(user: &str, root: Root) -> String {
        let parent = parent(user, root);
        Base::new(Some(&parent), &ImageSpec::default(), &closure()).map(|base| base.user.home).expect("a user")
    }

    #[test]
    fn what_the_parent_has_is_not_new() {
        let mut parent = parent("", Root::default());
        parent.registrations = vec![info(&path('b', "b"), &[]), info(&path('c', "c"), &[])];
        let closure = closure();
        let base = Base::new(Some(&parent), &ImageSpec::default(), &closure).expect("they fit");
        assert_eq!((base.all.len(), base.new.len(), base.user.clone()), (3, 1, User::default()));
        assert_eq!(base.held(), [path('a', "a")]);
        let alone = Base::new(None, &ImageSpec::default(), &closure).expect("nothing to fit");
        assert_eq!((alone.all.len(), alone.new.len(), alone.held()), (2, 2, vec![path('a', "a")]));
    }

    #[test]
    fn the_parents_user_stays_unless_the_spec_names_one() {
        let mut root = root(&["srv/", "home/", "home/app/", "var/", "var/own/"]);
        root.entries.get_mut(&b"var/own"[..]).expect("there").uid = 7;
        let passwd = "app:x:5:5::/home/app:/bin/sh\nown:x:7:7::/var/own:/bin/sh\nman:x:6:6::/srv:/bin/sh\nbin:x:8:8::/usr/bin:/bin/sh\nnobody:x:9:9::/nonexistent:/bin/sh\nall:x:10:10::/:/bin/sh\n";
        root.texts.insert("etc/passwd", passwd.to_owned());
        for (user, expected) in [
            ("app", "/home/app"),
            ("own", "/var/own"),
            ("man", "/home/man"),
            ("bin", "/home/bin"),
            ("nobody", "/nonexistent"),
            ("all", "/home/all"),
            ("1234", "/home/user"),
            ("", "/home/user"),
        ] {
            assert_eq!(home(user, root.clone()), expected, "{user}");
        }
        let parent = parent("none", root);
        let error = Base::new(Some(&parent), &ImageSpec::default(), &closure()).err().expect("nobody").to_string();
        assert!(error.contains("oci:base runs as \"none\""), "{error}");
        let spec = ImageSpec { user: Some(User::default()), ..ImageSpec::default() };
        assert_eq!(Base::new(Some(&parent), &spec, &closure()).expect("named").user, User::default());
    }

    #[test]
    fn a_store_behind_a_link_is_refused() {
        let parent = parent("", root(&["nix>data/nix", "data/"]));
        let error = Base::new(Some(&parent), &ImageSpec::default(), &closure()).err().expect("a link").to_string();
        assert!(error.contains("a link on the way to /nix/store"), "{error}");
    }
}
