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
    /// Whether a config's `User` is this one, by name or number, perhaps with a group; nothing is root.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        let user = text.split_once(':').map_or(text, |(user, _)| user);
        let user = if user.is_empty() { "0" } else { user };
        user == self.name || user == self.uid.to_string()
    }

    /// Whom a parent's config names with `text`, a name or number, perhaps with that of
    /// a group; none where its `/etc/passwd` and `/etc/group` do not tell. Of a mere
    /// number, the variables `HOME` and `USER` may tell more.
    #[must_use]
    pub fn of_parent(text: &str, passwd: &str, group: &str, home: Option<&str>, name: Option<&str>) -> Option<Self> {
        let (user, own_group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        // As in Docker: names before numbers, and the first line counts.
        let line = |text: &str, wanted: &str, at: usize| {
            let fields = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
            fields.clone().find(|fields| fields.get(at).is_some_and(|field| field == wanted))
        };
        let known = line(passwd, user, 0).or_else(|| line(passwd, user, 2)).filter(|fields| fields.len() == 7);
        let uid = known.as_ref().map_or(user, |fields| &fields[2]).parse().ok()?;
        let gid = match own_group {
            Some(group_name) => {
                let fields = line(group, group_name, 0);
                fields.as_ref().and_then(|fields| fields.get(2)).map_or(group_name, String::as_str).parse().ok()?
            }
            None => known.as_ref().map_or(Some(0), |fields| fields[3].parse().ok())?,
        };
        let field = |at: usize| known.as_ref().map(|fields| fields[at].clone()).filter(|field| !field.is_empty());
        let is_free = |name: &&str| is_name(name) && line(passwd, name, 0).is_none();
        let name = field(0).or_else(|| name.filter(is_free).map(str::to_owned)).unwrap_or_else(|| {
            let name = if uid == 0 { "root" } else { "user" };
            if is_free(&name) { name.to_owned() } else { format!("user{uid}") }
        });
        let home = field(5).or_else(|| home.map(str::to_owned));
        let keys = Keys { name: Some(name), uid: Some(uid), gid: Some(gid), home, shell: field(6) };
        Some(keys.into())
    }

    /// The home folder of those whose own can't be used.
    #[must_use]
    pub fn usual_home(&self) -> String {
        format!("/home/{}", self.name)
    }

    /// What is wrong with the user, if anything is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
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

    /// A shell that lets the user in, which that of a system's user does not.
    #[must_use]
    pub fn login_shell(&self) -> &str {
        let name = self.shell.rsplit('/').next().unwrap_or_default();
        if matches!(name, "nologin" | "false") { "/bin/sh" } else { &self.shell }
    }

    /// `/etc/passwd` with root, this user and nobody, added to what `contents`
    /// bring, and to what the parent has.
    #[must_use]
    pub fn passwd(&self, contents: &str, parent: &str) -> String {
        let numbers = [self.uid, self.gid].map(|number| number.to_string());
        let wanted = [&self.name, &numbers[0], &numbers[1], &self.home, &self.shell];
        // The parent's line may have a full name, too.
        let same = |line: &&str| {
            let fields: Vec<&str> = line.split(':').collect();
            fields.len() == 7 && [0, 2, 3, 5, 6].map(|at| fields[at]) == wanted.map(String::as_str)
        };
        let own = parent.lines().find(same).map_or_else(
            || format!("{}:x:{}:{}::{}:{}", self.name, self.uid, self.gid, self.home, self.shell),
            str::to_owned,
        );
        let root = format!("root:x:0:0::/root:{}", self.login_shell());
        let entries = [own, root, "nobody:x:65534:65534::/var/empty:/bin/false".to_owned()];
        with_entries(&stacked(contents, parent), &entries)
    }

    /// `/etc/group`, likewise. A group of the parent's keeps its name.
    #[must_use]
    pub fn group(&self, contents: &str, parent: &str) -> String {
        let same = parent.lines().find(|line| key(line).1 == self.gid.to_string());
        let own = same.map_or_else(|| format!("{}:x:{}:", self.name, self.gid), str::to_owned);
        with_entries(&stacked(contents, parent), &[own, "root:x:0:".to_owned(), "nogroup:x:65534:".to_owned()])
    }
}

fn is_name(name: &str) -> bool {
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= 32 && !name.starts_with('-') && name.bytes().all(is_right)
}

/// The name and the number in a line of `/etc/passwd` or `/etc/group`.
fn key(line: &str) -> (&str, &str) {
    let mut fields = line.split(':');
    (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default())
}

/// The lines of `upper`, and those of `lower` whose name and number none of them has.
fn stacked(upper: &str, lower: &str) -> String {
    let hidden = |line: &&str| upper.lines().any(|other| key(other).0 == key(line).0 || key(other).1 == key(line).1);
    let lower = lower.lines().filter(|line| !hidden(line));
    upper.lines().chain(lower).map(|line| format!("{line}\n")).collect()
}

/// The lines of `text`, and those of `entries` (the first of which wins) whose
/// name and number no line has, in the order of their numbers.
fn with_entries(text: &str, entries: &[String]) -> String {
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
        assert_eq!(user.passwd("", ""), passwd);
        assert_eq!(user.group("", ""), "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n");
    }

    #[test]
    fn users_that_contents_bring_stay_but_for_the_images_own() {
        let user = User::default();
        let contents = "root:x:0:0:System:/root:/bin/zsh\nother:x:1000:1::/:/bin/sh\nbuild:x:30001:30000::/:/bin/sh\n";
        let passwd = user.passwd(contents, "");
        assert!(passwd.contains("root:x:0:0:System:"), "{passwd}");
        assert!(passwd.contains("build:x:30001") && !passwd.contains("other"), "{passwd}");
    }

    #[test]
    fn the_parents_lines_stay_below_those_of_contents_and_of_the_user() {
        let user = User::default();
        let parent = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/bin/false\nuser:x:1000:1000:A User:/home/user:/bin/sh\nme:x:5:5::/:/\n";
        let passwd = user.passwd("you:x:5:5::/:/\n", parent);
        assert_eq!(
            passwd.lines().map(|line| super::key(line).0).collect::<Vec<_>>(),
            ["root", "daemon", "you", "user", "nobody"]
        );
        assert!(passwd.contains("/bin/bash") && passwd.contains(":A User:"), "{passwd}");
        let other = User { uid: 1001, ..User::default() };
        assert!(other.passwd("", parent).contains("user:x:1001:1000::"), "{}", other.passwd("", parent));
        let group = User { gid: 100, ..User::default() }.group("", "root:x:0:\nusers:x:100:me\n");
        assert_eq!(group, "root:x:0:\nusers:x:100:me\nnogroup:x:65534:\n");
    }

    #[test]
    fn the_parents_user_is_found_in_its_files() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\napp:x:5:6::/srv/app:/usr/sbin/nologin\nuser:x:9:9::/:\n";
        let of = |text: &str| User::of_parent(text, passwd, "app:x:6:\nweb:x:7:\n", Some("/h"), Some("app"));
        let app = of("app").expect("known");
        assert_eq!((app.uid, app.gid, app.home.as_str(), app.shell.as_str()), (5, 6, "/srv/app", "/usr/sbin/nologin"));
        assert_eq!(app.login_shell(), "/bin/sh");
        assert_eq!(of("5"), Some(app.clone()));
        assert_eq!(of("app:web").map(|user| user.gid), Some(7));
        assert_eq!(of("app:8").map(|user| user.gid), Some(8));
        assert_eq!(of("0").map(|user| user.home), Some("/root".to_owned()));
        // The variable USER names somebody else, and so would `user`.
        let number = of("1234").expect("a number");
        assert_eq!((number.name.as_str(), number.uid, number.gid, number.home.as_str()), ("user1234", 1234, 0, "/h"));
        for text in ["nobody", "app:none", "", "5x"] {
            assert_eq!(of(text), None, "{text}");
        }
        let alone = User::of_parent("1000:1000", "", "", None, None);
        assert_eq!(alone, Some(User::default()));
    }

    #[test]
    fn root_may_be_the_user() {
        let user: User = serde_json::from_str(r#"{"name":"root"}"#).expect("valid");
        assert_eq!((user.uid, user.gid, user.home.as_str()), (0, 0, "/root"));
        assert_eq!(user.passwd("", "").matches("root:x:0:0").count(), 1);
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
