//! The image's user, as `/etc/passwd` and `/etc/group` tell.

use serde::Deserialize;

/// Who runs in the image, and owns its Nix database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Keys")]
pub struct User {
    /// The login name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The home folder.
    pub home: String,
    /// The login shell.
    pub shell: String,
}

/// What a spec says of the user; the rest follows from it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    name: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    home: Option<String>,
    shell: Option<String>,
}

impl From<Keys> for User {
    fn from(keys: Keys) -> Self {
        let name = keys.name.unwrap_or_else(|| "user".to_owned());
        let uid = keys.uid.unwrap_or(if name == "root" { 0 } else { 1000 });
        Self {
            uid,
            gid: keys.gid.unwrap_or(uid),
            home: keys.home.unwrap_or_else(|| if uid == 0 { "/root".to_owned() } else { format!("/home/{name}") }),
            shell: keys.shell.unwrap_or_else(|| "/bin/sh".to_owned()),
            name,
        }
    }
}

impl Default for User {
    fn default() -> Self {
        Keys::default().into()
    }
}

impl User {
    /// What is wrong with the user, if anything is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let is_name = |name: &str| {
            let is_right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            !name.is_empty() && name.len() <= 32 && !name.starts_with('-') && name.bytes().all(is_right)
        };
        if !is_name(&self.name) {
            return Some(format!("{:?} is no user name", self.name));
        }
        for (what, path) in [("home", &self.home), ("shell", &self.shell)] {
            let components_are_right = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
            if !path.starts_with('/') || path == "/" || !components_are_right || path.contains([':', '\n', '\0']) {
                return Some(format!("{what} {path:?} is no absolute path without `.`, `..`, `:` and empty parts"));
            }
        }
        None
    }

    /// `/etc/passwd` with root, this user and nobody, added to what `contents`
    /// bring.
    #[must_use]
    pub fn passwd(&self, contents: &str) -> String {
        let own = format!("{}:x:{}:{}::{}:{}", self.name, self.uid, self.gid, self.home, self.shell);
        let root = format!("root:x:0:0::/root:{}", self.shell);
        with_entries(contents, &[own, root, "nobody:x:65534:65534::/var/empty:/bin/false".to_owned()])
    }

    /// `/etc/group`, likewise.
    #[must_use]
    pub fn group(&self, contents: &str) -> String {
        let own = format!("{}:x:{}:", self.name, self.gid);
        with_entries(contents, &[own, "root:x:0:".to_owned(), "nogroup:x:65534:".to_owned()])
    }
}

/// The lines of `text`, and those of `entries` (the first of which wins) whose
/// name and number no line has, in the order of their numbers.
fn with_entries(text: &str, entries: &[String]) -> String {
    fn key(line: &str) -> (&str, &str) {
        let mut fields = line.split(':');
        (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default())
    }
    let own = entries.first().map(|own| key(own)).unwrap_or_default();
    let kept = |line: &&str| !line.is_empty() && key(line).0 != own.0 && key(line).1 != own.1;
    let mut lines: Vec<&str> = text.lines().filter(kept).collect();
    for entry in entries {
        let (name, number) = key(entry);
        if !lines.iter().any(|line| key(line).0 == name || key(line).1 == number) {
            lines.push(entry);
        }
    }
    lines.sort_by_key(|line| key(line).1.parse::<u64>().unwrap_or(u64::MAX));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::User;

    #[test]
    fn an_ordinary_user_is_listed_between_root_and_nobody() {
        let user = User::default();
        let passwd = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nnobody:x:65534:65534::/var/empty:/bin/false\n";
        assert_eq!(user.passwd(""), passwd);
        assert_eq!(user.group(""), "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n");
    }

    #[test]
    fn users_that_contents_bring_stay_but_for_the_images_own() {
        let user = User::default();
        let passwd = user
            .passwd("root:x:0:0:System:/root:/bin/zsh\nother:x:1000:1::/:/bin/sh\nbuild:x:30001:30000::/:/bin/sh\n");
        assert!(passwd.contains("root:x:0:0:System:"), "{passwd}");
        assert!(passwd.contains("build:x:30001") && !passwd.contains("other"), "{passwd}");
    }

    #[test]
    fn root_may_be_the_user() {
        let user: User = serde_json::from_str(r#"{"name":"root"}"#).expect("valid");
        assert_eq!((user.uid, user.gid, user.home.as_str()), (0, 0, "/root"));
        assert_eq!(user.passwd("").matches("root:x:0:0").count(), 1);
    }

    #[test]
    fn users_that_would_break_the_files_are_refused() {
        assert_eq!(User::default().problem(), None);
        for (name, home) in
            [("", "/h"), ("a:b", "/h"), ("a", "h"), ("a", "/h/../etc"), ("a", "/h:0"), ("a\nb", "/h"), ("a", "/")]
        {
            let user = User { name: name.to_owned(), home: home.to_owned(), ..User::default() };
            assert!(user.problem().is_some(), "{name:?} {home:?}");
        }
    }
}
