//! What the process's exit code says.

use std::process::ExitCode;

use crate::build::base::BaseError;
use crate::build::index::IndexError;
use crate::build::merge::SameName;
use crate::cache::CacheError;
use crate::cache::setup::SetupError;
use crate::daemon::DaemonError;
use crate::destination::{DestinationError, ReferenceError, UnreadableLayers};
use crate::hook::HookError;
use crate::image::contents::ContentsError;
use crate::image::inherit::PlatformError;
use crate::image::made::MadeError;
use crate::image::name::NameError;
use crate::image::spec::SpecError;
use crate::inputs::missing::{MissingError, NoDerivation};
use crate::layer::blob::BlobError;
use crate::layer::built::BuiltLayerError;
use crate::layer::chunks::PackError;
use crate::layer::deliver::SpoolError;
use crate::local_store::LocalStoreError;
use crate::parent::ParentError;
use crate::parent::merge::MergeError;
use crate::registry::RegistryError;
use crate::s3::S3Error;
use crate::store::ClosureError;
use crate::store::db::DatabaseError;
use crate::store::source::RegistrationError;
use crate::tree::TreeError;

use super::cache_check::Damaged;
use super::cache_store::NoPlaceToBuild;
use super::paths::PathError;
use super::wait::WaitError;

/// The exit codes; `--help` lists them, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that is none of the below.
    Failure = 1,
    /// The command line or the spec is wrong. Also clap's own code.
    Usage = 2,
    /// Registrations from a file can't be read, or are no closure.
    Registrations = 3,
    /// The Nix database can't be read.
    Database = 4,
    /// A store path is not valid, gone from disk, or changed.
    StorePath = 5,
    /// The destination or the cache can't be written, or an image, a parent among
    /// them, not be read.
    Destination = 6,
    /// Two of the contents have different files of one name.
    Contents = 7,
    /// A cache was damaged, and `cache check --strict` was asked. Without that,
    /// damage that is in quarantine is no failure: a job's start must not break.
    Damaged = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of the command line that clap can't find.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl Exit {
    /// The code for `error`: that of the first cause which has one.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::Failure)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if cause.is::<UsageError>()
            || cause.is::<SpecError>()
            || cause.is::<NameError>()
            || cause.is::<ReferenceError>()
            || cause.is::<UnreadableLayers>()
            || cause.is::<SetupError>()
            || cause.is::<PlatformError>()
            || cause.is::<IndexError>()
            || cause.is::<MadeError>()
            || cause.is::<SameName>()
        {
            return Some(Self::Usage);
        }
        if let Some(error) = cause.downcast_ref::<RegistrationError>() {
            return Some(match error {
                RegistrationError::Database(error) => Self::of_database(error),
                _ => Self::Registrations,
            });
        }
        if let Some(error) = cause.downcast_ref::<DatabaseError>() {
            return Some(Self::of_database(error));
        }
        if cause.is::<Damaged>() {
            return Some(Self::Damaged);
        }
        if cause.is::<ClosureError>() {
            return Some(Self::Registrations);
        }
        if let Some(error) = cause.downcast_ref() {
            return Some(match error {
                BaseError::Platform(_) | BaseError::User(_) => Self::Usage,
                BaseError::Merge(MergeError::Differs { .. }) => Self::StorePath,
                BaseError::Merge(MergeError::Open { .. }) | BaseError::Store { .. } => Self::Destination,
            });
        }
        if let Some(error) = cause.downcast_ref() {
            return Some(Self::of_bucket(error));
        }
        if cause.is::<ParentError>()
            || cause.is::<RegistryError>()
            || cause.is::<DaemonError>()
            || cause.is::<BlobError>()
            || cause.is::<BuiltLayerError>()
            || cause.is::<SpoolError>()
            || cause.is::<WaitError>()
            || cause.is::<NoPlaceToBuild>()
        {
            return Some(Self::Destination);
        }
        if cause.is::<DestinationError>() {
            return Some(match cause.downcast_ref() {
                Some(DestinationError::Changed { .. }) => Self::StorePath,
                _ => Self::Destination,
            });
        }
        if let Some(error) = cause.downcast_ref() {
            return Some(match error {
                LocalStoreError::BinaryCache(_) => Self::Usage,
                LocalStoreError::Database { .. } => Self::Database,
                _ => Self::Destination,
            });
        }
        if let Some(error) = cause.downcast_ref() {
            return Some(Self::of_cache(error));
        }
        if let Some(error) = cause.downcast_ref() {
            return Some(match error {
                HookError::NoBuild(_) | HookError::NoDestination | HookError::NoCurrentFolder { .. } => Self::Usage,
                HookError::NoOutput(_) | HookError::Tree(_) => Self::StorePath,
                HookError::Database(error) => Self::of_database(error),
                HookError::Closure(_) => Self::Registrations,
                HookError::Cache(error) => Self::of_cache(error),
            });
        }
        match cause.downcast_ref() {
            Some(PackError::Tree(_)) => return Some(Self::StorePath),
            Some(PackError::Write(_)) => return Some(Self::Destination),
            None => {}
        }
        match cause.downcast_ref() {
            Some(ContentsError::Tree(_)) => return Some(Self::StorePath),
            Some(_) => return Some(Self::Contents),
            None => {}
        }
        let is_path = cause.is::<TreeError>() || cause.is::<PathError>();
        let is_input = cause.is::<MissingError>() || cause.is::<NoDerivation>();
        (is_path || is_input).then_some(Self::StorePath)
    }

    fn of_cache(error: &CacheError) -> Self {
        match error {
            CacheError::Refused { .. } | CacheError::Cycle(_) => Self::StorePath,
            CacheError::Address(error) => Self::of_bucket(error),
            _ => Self::Destination,
        }
    }

    fn of_bucket(error: &S3Error) -> Self {
        match error {
            S3Error::Address { .. } => Self::Usage,
            _ => Self::Destination,
        }
    }

    fn of_database(error: &DatabaseError) -> Self {
        match error {
            DatabaseError::NotValid(_) => Self::StorePath,
            _ => Self::Database,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hook_fails_for_says_the_same_as_elsewhere() {
        let of = |error: HookError| Exit::of(&anyhow::Error::from(error).context("exporting what no hook told of"));
        assert_eq!(of(HookError::Cache(CacheError::Missing("/c".into()))), Exit::Destination);
        assert_eq!(of(HookError::Cache(CacheError::Cycle("a".to_owned()))), Exit::StorePath);
        assert_eq!(of(HookError::NoOutput("a".to_owned())), Exit::StorePath);
        assert_eq!(of(HookError::NoDestination), Exit::Usage);
    }
}
