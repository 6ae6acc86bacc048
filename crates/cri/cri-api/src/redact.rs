//! `Debug` for messages with secrets: says which are set, never what they are.

use std::fmt;

use crate::{corten, v1};

/// Stands in for a secret: empty or not is all that may be told.
fn hidden(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { "[redacted]" }
}

impl fmt::Debug for v1::AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("auth", &hidden(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &hidden(&self.identity_token))
            .field("registry_token", &hidden(&self.registry_token))
            .finish()
    }
}

impl fmt::Debug for corten::PullRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullRequest")
            .field("reference", &self.reference)
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_neither_printed_nor_stored() {
        let auth = v1::AuthConfig {
            username: "ann".into(),
            password: "pa55".into(),
            auth: "YXV0aA==".into(),
            server_address: "registry.example".into(),
            identity_token: "ident1ty".into(),
            registry_token: "t0ken".into(),
        };
        let request = v1::PullImageRequest { auth: Some(auth), ..Default::default() };
        let stored = serde_json::to_string(&request).expect("serialise");
        for text in [format!("{request:?}"), stored] {
            assert!(text.contains("ann"), "{text}");
            for secret in ["pa55", "YXV0aA==", "ident1ty", "t0ken"] {
                assert!(!text.contains(secret), "{secret} leaks into {text}");
            }
        }
        let pull = corten::PullRequest { password: "pa55".into(), ..Default::default() };
        assert!(!format!("{pull:?}").contains("pa55"));
    }
}
