//! What a registry asks for before it answers.
//!
//! Sources: RFC 9110, section 11 (`WWW-Authenticate`); distribution's
//! `docs/spec/auth/token.md`.

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// With user and password each time.
    Basic,
    /// With a token that somebody else gives.
    Bearer {
        /// The URL of who gives it.
        realm: String,
        /// What that is told that the token is for.
        service: Option<String>,
    },
}

impl Challenge {
    /// The first challenge in the values of `WWW-Authenticate` that can be answered;
    /// a token before a password.
    #[must_use]
    pub fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let all: Vec<(String, Vec<(String, String)>)> = headers.flat_map(challenges).collect();
        let bearer =
            all.iter().filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).find_map(|(_, parameters)| {
                let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                Some(Self::Bearer { realm: get("realm")?, service: get("service") })
            });
        let has_basic = all.iter().any(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        bearer.or(has_basic.then_some(Self::Basic))
    }
}

/// The challenges of one header: each a scheme and its parameters.
fn challenges(header: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in split(header) {
        // Either `Scheme name=value`, `name=value`, or a scheme alone.
        let (before, value) = part.split_once('=').map_or((part.as_str(), None), |(name, value)| (name, Some(value)));
        let mut words: Vec<&str> = before.split_whitespace().collect();
        let name = value.and_then(|_| words.pop());
        if let Some(scheme) = words.first() {
            found.push(((*scheme).to_owned(), Vec::new()));
        }
        if let (Some(name), Some(value), Some((_, parameters))) = (name, value, found.last_mut()) {
            parameters.push((name.to_ascii_lowercase(), unquoted(value)));
        }
    }
    found
}

/// What commas outside of quotes separate.
fn split(header: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for letter in header.chars() {
        match letter {
            ',' if !quoted => parts.push(String::new()),
            _ => {
                quoted ^= letter == '"' && !escaped;
                if let Some(part) = parts.last_mut() {
                    part.push(letter);
                }
            }
        }
        escaped = letter == '\\' && !escaped;
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(headers: &[&str]) -> Option<Challenge> {
        Challenge::parse(headers.iter().copied())
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn a_token_is_asked_for_where_the_registry_says() {
        // From token.md.
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        assert_eq!(parse(&[header]), bearer("https://auth.example/token", Some("registry.example")));
        assert_eq!(parse(&["bearer REALM=https://a/?x=y"]), bearer("https://a/?x=y", None));
        assert_eq!(parse(&[r#"Bearer realm="a,b\"c", error="x""#]), bearer("a,b\"c", None));
    }

    #[test]
    fn a_token_comes_before_a_password() {
        assert_eq!(parse(&[r#"Basic realm="Registry Realm""#]), Some(Challenge::Basic));
        assert_eq!(parse(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(parse(&["Basic realm=a", "Bearer realm=b"]), bearer("b", None));
        assert_eq!(parse(&[r#"Basic realm="a", Bearer realm="b",service="c""#]), bearer("b", Some("c")));
    }

    #[test]
    fn what_nobody_can_answer_is_no_challenge() {
        for header in ["", "Negotiate", "Bearer service=x", ",,,", "=", "Digest realm=\"x"] {
            assert_eq!(parse(&[header]), None, "{header}");
        }
    }
}
