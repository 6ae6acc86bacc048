//! Credentials for a registry.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a caller proves itself with. Never shown by `Debug`, never logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Auth {
    /// A user and a password, for Basic authentication or to get a token with.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token, for which the token server gives access tokens.
    IdentityToken(String),
    /// A token to present to the registry as it is.
    RegistryToken(String),
}

impl Auth {
    /// User and password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Auth {
        Auth::Basic { username: username.into(), password: password.into() }
    }

    /// From `base64(user:password)`, as Docker's config.json and the CRI's `auth` field have it. `None` if it's something else.
    #[must_use]
    pub fn from_base64(encoded: &str) -> Option<Auth> {
        let bytes = STANDARD.decode(encoded.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        // Docker's own files are sometimes padded with NULs.
        Some(Auth::basic(username, password.trim_end_matches('\0')))
    }

    /// The value of an `Authorization` header, where these credentials can be presented directly.
    pub(crate) fn header(&self) -> Option<String> {
        match self {
            Auth::Basic { username, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            Auth::RegistryToken(token) => Some(format!("Bearer {token}")),
            Auth::IdentityToken(_) => None,
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth::Basic { .. } => "Basic(..)",
            Auth::IdentityToken(_) => "IdentityToken(..)",
            Auth::RegistryToken(_) => "RegistryToken(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_credentials() {
        assert_eq!(Auth::from_base64("dXNlcjpwYTpzcw=="), Some(Auth::basic("user", "pa:ss")));
        assert_eq!(Auth::from_base64("nonsense"), None);
        assert_eq!(Auth::basic("user", "pass").header().unwrap(), "Basic dXNlcjpwYXNz");
    }

    #[test]
    fn debug_tells_no_secret() {
        let shown = format!("{:?} {:?}", Auth::basic("me", "hunter2"), Auth::RegistryToken("s3cr3t".into()));
        assert!(!shown.contains("hunter2") && !shown.contains("s3cr3t") && !shown.contains("me"), "{shown}");
    }
}
