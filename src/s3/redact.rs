//! Takes signatures out of texts.
//!
//! Requests are signed in their URLs, and whoever has one can do the same for some minutes. What
//! proxies and servers say of a request may have its URL in it, and goes to terminals and logs.

/// Parameters of a URL that are for nobody else.
const SECRETS: [&str; 3] = ["x-amz-signature", "x-amz-security-token", "x-amz-credential"];

/// `text` without the queries of URLs, and without parameters of a signature.
#[must_use]
pub fn without_queries(text: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '<' | '>' | '`');
    let word = |word: &str| {
        let end = word.trim_end_matches(ends);
        match query(end) {
            Some(at) => format!("{}…{}", &end[..at], &word[end.len()..]),
            None => word.to_owned(),
        }
    };
    text.split_inclusive(ends).map(word).collect()
}

/// Whether a text still has the name of a secret, in whatever way that is written.
#[must_use]
pub fn names_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    SECRETS.iter().any(|name| text.contains(name))
}

/// Where in a word a query begins, or a parameter of a signature: its name and a `=`, which may
/// be written as `%3D`, in a URL that is a parameter itself.
fn query(word: &str) -> Option<usize> {
    let mark = word.find('?').map(|at| at + 1).filter(|at| *at < word.len());
    // ASCII only, so that positions stay.
    let small = word.to_ascii_lowercase();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_set = |at: &usize| {
        let after = small[*at..].trim_start_matches(|letter| u8::try_from(letter).is_ok_and(is_name));
        after.starts_with(['=', '%'])
    };
    let parameter = small.match_indices("x-amz-").map(|(at, _)| at).find(is_set);
    mark.into_iter().chain(parameter).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_signature_stays() {
        for (text, expected) in [
            ("GET http://h/cache/x?a=b&X-Amz-Signature=SECRET was refused", "GET http://h/cache/x?… was refused"),
            ("<a href=\"http://h/x?X-Amz-Signature=SECRET\">x</a>", "<a href=\"http://h/x?…\">x</a>"),
            ("/cache/x (X-Amz-Security-Token=SECRET&amp;x=SECRET)", "/cache/x (…"),
            ("x-amz-date=1&x-amz-signature=SECRET, so", "… so"),
            ("/login/to/http%3A%2F%2Fh%3FX-Amz-Signature%3DSECRET%26x", "/login/to/http%3A%2F%2Fh%3F…"),
            ("/x?X-Amz-Signature=SECRET\nÄ?ÖX-Amz-Signature=SECRET\n", "/x?…\nÄ?…\n"),
        ] {
            assert_eq!(without_queries(text), expected);
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in ["Why? It has no x-amz-date, or <b>what?</b>", "a = b%20c, or https://h/x", "", "x-amz-"] {
            assert_eq!(without_queries(text), text);
        }
    }
}
