//! Values of a spec that can't be.

use super::values::is_date;
use super::{ImageSpec, MAX_LAYERS, SpecError};
use crate::image::{system, trees};
use crate::layer::elf;
use crate::plan::Strategy;

impl ImageSpec {
    /// Finds values that can't be.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), SpecError> {
        let nonsense = |key, problem| Err(SpecError::Nonsense { key, problem });
        if let Some(user) = &self.user {
            if let Some(problem) = user.problem() {
                return nonsense("user", problem);
            }
            if !system::may_be_home(&user.home) {
                return nonsense("user", format!("home {:?} is a folder of the system's", user.home));
            }
        }
        if let Some(architecture) = &self.architecture
            && !elf::ARCHITECTURES.contains(&architecture.as_str())
        {
            let known = elf::ARCHITECTURES.join(", ");
            return nonsense("architecture", format!("{architecture:?} is none of Go's names: {known}"));
        }
        if !is_date(&self.created) {
            let hint = "give a date of RFC 3339, e.g. of `date -u +%Y-%m-%dT%H:%M:%SZ`; `now` would make the image's bytes depend on the clock";
            return nonsense("created", format!("{:?}: {hint}", self.created));
        }
        if self.from_image.is_none() {
            self.check_layers(self.least_layers(), "")?;
        }
        let is_ordered = matches!(self.strategy, Strategy::Popularity | Strategy::PathsPerLayer);
        if !self.hints.is_empty() && !is_ordered {
            let problem = "hints are for the strategies \"popularity\" and \"pathsPerLayer\"; \"stable\" learns from --previous, and `layers` keeps paths together";
            return nonsense("popularity", problem.to_owned());
        }
        if self.paths_per_layer.is_empty() == (self.strategy == Strategy::PathsPerLayer) {
            let problem = "the strategy \"pathsPerLayer\", and no other, needs a list of numbers, e.g. [10, 1]";
            return nonsense("pathsPerLayer", problem.to_owned());
        }
        if self.hook && !self.include_nix_db {
            return nonsense("hook", "the hook needs a Nix database in the image (includeNixDB)".to_owned());
        }
        let builds = [("buildDepsOf", self.build_deps.of.is_empty()), ("nixpkgs", self.trees.is_empty())];
        if let Some((key, _)) = builds.iter().find(|(_, is_empty)| !is_empty && !self.include_nix_db) {
            return nonsense(key, "what is built in the image needs a Nix database there (includeNixDB)".to_owned());
        }
        let stored = [
            ("includeNixDB", !self.include_nix_db),
            ("layers", self.built_layers.is_empty() && self.groups.is_empty()),
            ("cacheStore", self.cache_store.is_none()),
        ];
        if let Some((key, _)) = stored.iter().find(|(_, is_empty)| !is_empty && !self.include_store_paths) {
            return nonsense(key, "the image is to have no store paths (includeStorePaths)".to_owned());
        }
        if let Some(problem) = self.trees.keys().find_map(|name| trees::name_problem(name)) {
            return nonsense("nixpkgs", problem);
        }
        if let Some(problem) = self.cache_store.as_deref().and_then(|dir| self.cache_store_problem(dir)) {
            return nonsense("cacheStore", problem);
        }
        Ok(())
    }

    fn cache_store_problem(&self, dir: &str) -> Option<String> {
        let is_plain = dir.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !dir.starts_with('/') || !is_plain || dir.contains('\0') {
            return Some(format!(
                "{dir:?} is no absolute path without `.`, `..` and empty parts, as of a project's cache in GitLab, /builds/GROUP/PROJECT/cache"
            ));
        }
        let around = dir.trim_start_matches('/').rsplit_once('/').map_or("", |(around, _)| around);
        let is_systems = ["", "builds", "home"].contains(&around) || system::OWN_FOLDERS.contains(&around);
        if is_systems || ["/nix/", "/stowage/", "/proc/", "/usr/"].iter().any(|top| dir.starts_with(top)) {
            return Some(format!(
                "{dir:?} is no place for a cache; name a folder in one that is mounted, e.g. /builds/GROUP/PROJECT/cache"
            ));
        }
        if !self.include_nix_db {
            return Some("Nix needs a database in the image (includeNixDB)".to_owned());
        }
        self.from_image
            .as_ref()
            .map(|parent| format!("the parent {parent} has its own /nix, or expects one; put all into one image"))
    }

    /// How many layers there may be where the least number is `least`; `parent` says
    /// where that comes from.
    ///
    /// # Errors
    /// When that are too few.
    pub fn check_layers(&self, least: u64, parent: &str) -> Result<(), SpecError> {
        let most = self.max_layers.unwrap_or(MAX_LAYERS).min(MAX_LAYERS);
        if most >= least {
            return Ok(());
        }
        let problem = format!("{most} layers are too few: {parent}the image needs {least} at the least");
        Err(SpecError::Nonsense { key: "maxLayers", problem })
    }
}
