//! `WWW-Authenticate` (RFC 9110, section 11.6.1) and the token protocol behind its Bearer scheme.

use std::collections::BTreeMap;

/// What a registry wants to see before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from the server at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The strongest challenge that the headers hold: a token, then a password.
    pub(crate) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
        let mut basic = false;
        for header in headers {
            for (scheme, mut parameters) in challenges(header) {
                if scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameters.remove("realm")
                {
                    let (service, scope) = (parameters.remove("service"), parameters.remove("scope"));
                    return Some(Challenge::Bearer { realm, service, scope });
                }
                basic |= scheme.eq_ignore_ascii_case("basic");
            }
        }
        basic.then_some(Challenge::Basic)
    }
}

/// Splits a header into schemes and their parameters. A header may hold several challenges, and commas separate both
/// challenges and parameters; a scheme is a word that no `=` follows.
fn challenges(header: &str) -> Vec<(&str, BTreeMap<String, String>)> {
    let mut found: Vec<(&str, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            found.push((word, BTreeMap::new()));
            rest = after;
            continue;
        };
        let (value, after) = parameter(value.trim_start());
        if let Some((_, parameters)) = found.last_mut() {
            parameters.entry(word.to_ascii_lowercase()).or_insert(value);
        }
        rest = after;
    }
}

/// A token or quoted string, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn bearer_with_commas_in_its_scope() {
        let header =
            r#"Bearer realm="https://a.example/token",service="r.example",scope="repository:x/y:pull,push""#;
        let expected = bearer("https://a.example/token", Some("r.example"), Some("repository:x/y:pull,push"));
        assert_eq!(Challenge::parse([header]), expected);
    }

    #[test]
    fn case_spaces_tokens_and_escapes() {
        assert_eq!(
            Challenge::parse([r#"bEaReR  Realm = "https://a/\"t" , service=plain"#]),
            bearer("https://a/\"t", Some("plain"), None)
        );
        assert_eq!(Challenge::parse(["BASIC realm=x"]), Some(Challenge::Basic));
        assert_eq!(Challenge::parse(["Basic"]), Some(Challenge::Basic));
    }

    #[test]
    fn a_token_beats_a_password() {
        let one = r#"Basic realm="x", Bearer realm="https://t""#;
        assert_eq!(Challenge::parse([one]), bearer("https://t", None, None));
        assert_eq!(
            Challenge::parse(["Basic realm=x", "Bearer realm=\"https://t\""]),
            bearer("https://t", None, None)
        );
    }

    #[test]
    fn nonsense_is_none_and_ends() {
        for header in
            ["", ",,,", "Negotiate abc==", "Bearer", "Bearer service=\"x\"", "=", "Bearer realm=\"unclosed"]
        {
            let parsed = Challenge::parse([header]);
            assert!(parsed.is_none() || header.contains("unclosed"), "{header}: {parsed:?}");
        }
    }
}
