//! Why a registry couldn't be made to do something.

use crate::{Descriptor, Digest, InvalidReference};

/// A failed conversation with a registry. Names the registry's host or the image; never holds credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name isn't an image name.
    #[error(transparent)]
    InvalidReference(#[from] InvalidReference),
    /// The registry can't be reached at all.
    #[error("connect to registry {host}")]
    Unreachable {
        /// The registry's host.
        host: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke, or the registry fell silent.
    #[error("{operation}: the connection to registry {host} broke")]
    Broken {
        /// What was asked for.
        operation: String,
        /// The registry's host.
        host: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry doesn't have it.
    #[error("{what} not found at registry {host}{}", detail(.message))]
    NotFound {
        /// What was asked for.
        what: String,
        /// The registry's host.
        host: String,
        /// What the registry said, if anything.
        message: String,
    },
    /// Credentials are missing, wrong, or don't suffice.
    #[error("{operation}: registry {host} refuses: {}{}", if *.anonymous { "it wants credentials" } else { "the credentials are not accepted" }, detail(.message))]
    Unauthorized {
        /// What was asked for.
        operation: String,
        /// The registry's host.
        host: String,
        /// Whether none were given.
        anonymous: bool,
        /// What the registry said, if anything.
        message: String,
    },
    /// An answer that isn't one of success.
    #[error("{operation}: registry {host} answers {status}{}", detail(.message))]
    Status {
        /// What was asked for.
        operation: String,
        /// The registry's host.
        host: String,
        /// The HTTP status code.
        status: u16,
        /// What the registry said, if anything.
        message: String,
    },
    /// An answer that breaks the protocol.
    #[error("{operation}: registry {host} answers nonsense: {reason}")]
    Protocol {
        /// What was asked for.
        operation: String,
        /// The registry's host.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest that doesn't have the digest it was asked for by.
    #[error("{what} from registry {host} has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was fetched.
        what: String,
        /// The registry's host.
        host: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More bytes than the content can have.
    #[error("{what} from registry {host} has {actual} bytes or more, expected {expected}")]
    SizeMismatch {
        /// What was fetched.
        what: String,
        /// The registry's host.
        host: String,
        /// The size it should have, or the limit, in bytes.
        expected: u64,
        /// What came, in bytes.
        actual: u64,
    },
    /// A manifest that is too large to be one.
    #[error("{what} is larger than {limit} bytes: that is no manifest")]
    TooLarge {
        /// What was fetched.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Docker's schema 1.
    #[error(
        "{0} has a Docker schema 1 manifest, a format withdrawn years ago: push the image again with a current tool"
    )]
    Schema1(String),
    /// The HTTP client can't be built: no usable TLS configuration.
    #[error("set up the registry client")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the same request may well succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Broken { .. } => true,
            Error::Status { status, .. } => is_transient_status(*status),
            _ => false,
        }
    }
}

/// Answers that say "not now" instead of "no".
pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// How errors name content.
pub(crate) fn blob_name(repository: &str, blob: &Descriptor) -> String {
    format!("blob {} of {repository}", blob.digest)
}
