//! Who asks a bucket, found in the places where programs for AWS look.
//!
//! 1. The profile that the bucket's address names, if it does.
//! 2. `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
//! 3. A web identity: the token in `AWS_WEB_IDENTITY_TOKEN_FILE`, for `AWS_ROLE_ARN`.
//! 4. The profile `AWS_PROFILE`, else `default`, in `~/.aws/credentials` and `~/.aws/config`.
//! 5. A container's service: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `…_FULL_URI`.
//! 6. The metadata of an EC2 machine, unless `AWS_EC2_METADATA_DISABLED` is true.
//!
//! The first that says something counts, right or wrong: who has set a variable wants to hear
//! that it is wrong. What is good for a time only is asked for again before that ends.
//!
//! Source: botocore's "Credentials"; AWS SDKs and Tools Reference Guide, "Standardized
//! credential providers".

pub mod profiles;
mod remote;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use profiles::{Profile, Profiles};
use rusty_s3::Credentials;

use super::address::{REGION_RULE, is_region};
use super::{Access, Address, S3Error};

/// How long before they end credentials are replaced.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// The variables that count.
// They have secrets in them, so they are not for logs.
#[derive(Clone, Default)]
pub struct Sources(BTreeMap<String, String>);

/// Who asks.
pub struct Found {
    /// The keys.
    pub credentials: Credentials,
    /// Until when they are good.
    pub until: Option<SystemTime>,
    /// Where they are from, for messages.
    pub source_of: String,
}

/// Finds who asks a bucket, and remembers it.
pub struct Finder {
    access: Access,
    bucket: String,
    profile: Option<String>,
    /// The bucket's, if that is one of AWS.
    region: Option<String>,
    found: Mutex<Option<Arc<Found>>>,
}

impl Sources {
    /// Those of an environment.
    #[must_use]
    pub fn from_variables(variables: &BTreeMap<OsString, OsString>) -> Self {
        let text = |(name, value): (&OsString, &OsString)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            let counts = (name.starts_with("AWS_") || name == "HOME") && !value.is_empty();
            counts.then(|| (name.to_owned(), value.to_owned()))
        };
        Self(variables.iter().filter_map(text).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The region of a bucket whose address names none: by the environment, or by the profile.
    ///
    /// # Errors
    /// When none can be called so.
    pub fn region(&self, profile: Option<&str>) -> Result<Option<String>, S3Error> {
        if let Some(named) = self.named_region()? {
            return Ok(Some(named));
        }
        let name = profile.or_else(|| self.get("AWS_PROFILE")).unwrap_or(profiles::DEFAULT);
        // What is wrong with the files is for who needs credentials of theirs.
        let region = self.profiles(false).ok().and_then(|profiles| profiles.get(name)?.region);
        region.map(|region| checked_region(&format!("the region of the profile {name}"), &region)).transpose()
    }

    /// The region that a variable names.
    fn named_region(&self) -> Result<Option<String>, S3Error> {
        let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| Some((name, self.get(name)?)));
        named.map(|(name, region)| checked_region(name, region)).transpose()
    }

    /// What the files say. Where nobody asks for a profile (`is_named`), those that can't be read
    /// because HOME is somebody else's say as little as those that are not there.
    fn profiles(&self, is_named: bool) -> Result<Profiles, S3Error> {
        let home = || Some(PathBuf::from(self.get("HOME")?).join(".aws"));
        let file =
            |variable: &str, name: &str| self.get(variable).map(PathBuf::from).or_else(|| Some(home()?.join(name)));
        let mut profiles = Profiles::default();
        for (variable, name, kind) in [
            ("AWS_CONFIG_FILE", "config", profiles::Kind::Config),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profiles::Kind::Credentials),
        ] {
            let Some(path) = file(variable, name) else { continue };
            match std::fs::read_to_string(&path) {
                Ok(text) => profiles.add(&text, kind),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_of_another(&error) && !is_named && self.get(variable).is_none() => {
                    tracing::debug!("{}: {error}", path.display());
                }
                Err(error) => {
                    return Err(S3Error::Settings { what: path.display().to_string(), problem: error.to_string() });
                }
            }
        }
        Ok(profiles)
    }
}

impl Finder {
    /// Finds who asks the bucket at `address` in `region`.
    #[must_use]
    pub fn new(access: Access, address: &Address, region: &str) -> Self {
        Self {
            access,
            bucket: address.bucket.clone(),
            profile: address.profile.clone(),
            // Others call themselves as they like.
            region: is_of_aws(address).then(|| region.to_owned()),
            found: Mutex::default(),
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// When nobody says, or what is said can't be used.
    pub fn get(&self) -> Result<Arc<Found>, S3Error> {
        // One asks, and the others wait for what it gets.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let is_good = |one: &&Arc<Found>| one.until.is_none_or(|until| now + AHEAD < until);
        if let Some(found) = found.as_ref().filter(is_good) {
            return Ok(Arc::clone(found));
        }
        match self.find() {
            Ok(new) => Ok(Arc::clone(found.insert(Arc::new(new)))),
            // Those that are there may be good for a little longer.
            Err(error) => match found.as_ref().filter(|one| one.until.is_some_and(|until| now < until)) {
                Some(old) => {
                    tracing::warn!("{error}; going on with what there is");
                    Ok(Arc::clone(old))
                }
                None => Err(error),
            },
        }
    }

    /// Forgets credentials that the server calls too old; `false` where no others can be had.
    #[must_use]
    pub fn forget(&self, stale: &Arc<Found>) -> bool {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.as_ref().is_some_and(|found| Arc::ptr_eq(found, stale)) {
            *found = None;
        }
        stale.until.is_some()
    }

    fn find(&self) -> Result<Found, S3Error> {
        let sources = &self.access.sources;
        if let Some(name) = &self.profile {
            return self.of_profile(name, &sources.profiles(true)?);
        }
        if let Some(key) = sources.get("AWS_ACCESS_KEY_ID") {
            let secret = sources.get("AWS_SECRET_ACCESS_KEY").ok_or_else(|| S3Error::Settings {
                what: "AWS_ACCESS_KEY_ID".to_owned(),
                problem: "it is set, and AWS_SECRET_ACCESS_KEY is not".to_owned(),
            })?;
            return Ok(fixed(key, secret, sources.get("AWS_SESSION_TOKEN"), "from AWS_ACCESS_KEY_ID".to_owned()));
        }
        if let Some(file) = sources.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let role = sources.get("AWS_ROLE_ARN").ok_or_else(|| S3Error::Settings {
                what: "AWS_WEB_IDENTITY_TOKEN_FILE".to_owned(),
                problem: "it is set, and AWS_ROLE_ARN is not".to_owned(),
            })?;
            return self.of_web_identity(file, role);
        }
        if let Some(name) = sources.get("AWS_PROFILE") {
            return self.of_profile(name, &sources.profiles(true)?);
        }
        let profiles = sources.profiles(false)?;
        if profiles.get(profiles::DEFAULT).is_some_and(|profile| profile.names_somebody()) {
            return self.of_profile(profiles::DEFAULT, &profiles);
        }
        if let Some(found) = remote::of_container(&self.access)? {
            return Ok(found);
        }
        remote::of_machine(&self.access).map_err(|problem| S3Error::NoCredentials {
            bucket: self.bucket.clone(),
            problem: format!("neither variables nor ~/.aws name any, and {problem}"),
        })
    }

    fn of_web_identity(&self, file: &str, role: &str) -> Result<Found, S3Error> {
        let region = self.access.sources.named_region()?.or_else(|| self.region.clone());
        remote::of_web_identity(&self.access, region.as_deref(), file, role)
    }

    fn of_profile(&self, name: &str, profiles: &Profiles) -> Result<Found, S3Error> {
        let error = |problem: String| S3Error::Settings { what: format!("the profile {name}"), problem };
        let profile = profiles.get(name);
        let profile = profile.ok_or_else(|| error("neither ~/.aws/credentials nor ~/.aws/config has it".to_owned()))?;
        match profile {
            Profile { key: Some(key), secret: Some(secret), token, .. } => {
                Ok(fixed(&key, &secret, token.as_deref(), format!("of the profile {name}")))
            }
            Profile { web_identity_file: Some(file), role: Some(role), .. } => self.of_web_identity(&file, &role),
            Profile { unknown: Some(key), .. } => Err(error(format!(
                "it has its credentials by {key}, which stowage does not know; `aws configure export-credentials --profile {name} --format env` prints variables that it knows"
            ))),
            _ => Err(error("it has no aws_access_key_id with an aws_secret_access_key".to_owned())),
        }
    }
}

/// Whether a file below HOME can't be read because that is another user's, or no folder.
fn is_of_another(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory)
}

/// Whether AWS has the bucket: its services have regions of the same name.
fn is_of_aws(address: &Address) -> bool {
    let host = address.endpoint.as_deref().map(|endpoint| endpoint.split(':').next().unwrap_or_default());
    host.is_none_or(|host| host.ends_with(".amazonaws.com"))
}

/// `region`, which is from `what`, if any can be called so.
fn checked_region(what: &str, region: &str) -> Result<String, S3Error> {
    match is_region(region) {
        true => Ok(region.to_owned()),
        false => {
            Err(S3Error::Settings { what: what.to_owned(), problem: format!("{region:?} is no region: {REGION_RULE}") })
        }
    }
}

/// Credentials that do not end, as far as anybody says.
fn fixed(key: &str, secret: &str, token: Option<&str>, source_of: String) -> Found {
    let credentials = match token {
        Some(token) => Credentials::new_with_token(key, secret, token),
        None => Credentials::new(key, secret),
    };
    Found { credentials, until: None, source_of }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(address: &str, variables: &[(&str, &str)]) -> Finder {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let access = Access { sources: Sources::from_variables(&variables), ..Access::default() };
        Finder::new(access, &address.parse().expect("an address"), "us-east-1")
    }

    fn key(finder: &Finder) -> Result<String, String> {
        finder.get().map(|found| found.credentials.key().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_source_that_says_something_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("UTF-8");
        std::fs::create_dir(folder.path().join(".aws")).expect("made");
        let file =
            |name: &str, text: &str| std::fs::write(folder.path().join(".aws").join(name), text).expect("written");
        file(
            "credentials",
            "[default]\naws_access_key_id=D\naws_secret_access_key=s\n[ci]\naws_access_key_id=C\naws_secret_access_key=s\n",
        );
        file(
            "config",
            "[default]\nregion = r1\n[profile ci]\nregion = r2\n[profile odd]\nregion = a/b\n[profile sso]\nsso_session = x\n",
        );
        let home = ("HOME", home);
        let set = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert_eq!(key(&finder("s3://cache", &[home, set[0], set[1]])).as_deref(), Ok("E"));
        assert_eq!(key(&finder("s3://cache?profile=ci", &[home, set[0], set[1]])).as_deref(), Ok("C"));
        assert_eq!(key(&finder("s3://cache", &[home, ("AWS_PROFILE", "ci")])).as_deref(), Ok("C"));
        assert_eq!(key(&finder("s3://cache", &[home])).as_deref(), Ok("D"));
        let error = |variables: &[(&str, &str)]| key(&finder("s3://cache", variables)).expect_err("none");
        assert!(error(&[home, set[0]]).contains("AWS_SECRET_ACCESS_KEY is not"));
        assert!(error(&[home, ("AWS_PROFILE", "none")]).contains("the profile none"));
        assert!(error(&[home, ("AWS_PROFILE", "sso")]).contains("export-credentials --profile sso"));
        assert!(error(&[("AWS_EC2_METADATA_DISABLED", "true")]).contains("AWS_EC2_METADATA_DISABLED"));
        let region = |profile, variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            Sources::from_variables(&variables).region(profile).map_err(|error| error.to_string())
        };
        let named = |region: &str| Ok(Some(region.to_owned()));
        assert_eq!(region(None, &[home]), named("r1"));
        assert_eq!(region(Some("ci"), &[home]), named("r2"));
        assert_eq!(region(Some("ci"), &[home, ("AWS_REGION", "r3")]), named("r3"));
        // As OpenStack calls them.
        assert_eq!(region(None, &[("AWS_REGION", "RegionOne")]), named("RegionOne"));
        for (profile, variable, what) in [
            (None, ("AWS_REGION", "a.b"), "AWS_REGION: \"a.b\" is no region"),
            (None, ("AWS_DEFAULT_REGION", "R S"), "AWS_DEFAULT_REGION: \"R S\" is no region"),
            (Some("odd"), ("x", "y"), "the region of the profile odd: \"a/b\" is no region"),
        ] {
            let error = region(profile, &[home, variable]).expect_err(what);
            assert!(error.starts_with(what), "{error}");
        }
    }

    #[test]
    fn files_of_somebody_else_do_not_end_the_search() {
        // No folder, which root can't read either.
        let home = ("HOME", "/dev/null");
        let machine = ("AWS_EC2_METADATA_DISABLED", "true");
        let error = |variables: &[(&str, &str)]| key(&finder("s3://cache", variables)).expect_err("none");
        assert!(error(&[home, machine]).contains("AWS_EC2_METADATA_DISABLED"), "{}", error(&[home, machine]));
        for named in [("AWS_PROFILE", "ci"), ("AWS_CONFIG_FILE", "/dev/null/x")] {
            assert!(error(&[home, machine, named]).starts_with("/dev/null/"), "{}", error(&[home, machine, named]));
        }
        assert!(is_of_another(&io::ErrorKind::PermissionDenied.into()));
        assert!(!is_of_another(&io::ErrorKind::InvalidData.into()));
    }

    #[test]
    fn a_web_identity_goes_to_a_region_of_aws_and_no_other() {
        let asked = |address: &str, variables: &[(&str, &str)]| {
            // A proxy that can't be used keeps it from being asked.
            let token = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/dev/null"), ("AWS_ROLE_ARN", "arn:x")];
            let mut finder = finder(address, &[&token[..], variables].concat());
            finder.access.proxies.all = Some("socks5://h".to_owned());
            finder.get().err().expect("no proxy").to_string()
        };
        let own = "s3://cache?endpoint=h&region=garage";
        assert!(asked(own, &[]).contains("https://sts.amazonaws.com"), "{}", asked(own, &[]));
        assert!(asked(own, &[("AWS_DEFAULT_REGION", "r3")]).contains("https://sts.r3.amazonaws.com"));
        assert!(asked("s3://cache", &[]).contains("https://sts.us-east-1.amazonaws.com"));
        assert!(asked("s3://cache", &[("AWS_REGION", "r3")]).contains("https://sts.r3.amazonaws.com"));
        assert!(asked("s3://cache", &[("AWS_REGION", "x.y/")]).contains("no region"));
    }
}
