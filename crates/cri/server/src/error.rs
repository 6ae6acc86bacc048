//! What can go wrong, and how a gRPC client hears of it. The only place where errors become status codes.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonic::{Code, Status};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such sandbox, container or image.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// How the client called it.
        id: String,
    },
    /// The request can't be served as it is, whatever the state of the system.
    #[error("{0}")]
    Invalid(String),
    /// The request asks for something that isn't there yet.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The state of the thing forbids it.
    #[error("{0}")]
    Precondition(String),
    /// A name is taken by something else.
    #[error("{0}")]
    Exists(String),
    /// It took longer than the client allowed.
    #[error("{0}")]
    Deadline(String),
    /// It can't be done now; later, perhaps.
    #[error("{0}")]
    Unavailable(String),
    /// The file system said no.
    #[error("can't {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// Something below failed.
    #[error("can't {operation}")]
    Below {
        /// What was tried, and on what.
        operation: String,
        /// How it counts for the client.
        code: Code,
        /// Why not.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// A failed operation that couldn't be taken back wholly.
    #[error("{cause}; taking it back failed too: {leftovers}")]
    Leftovers {
        /// Why the operation failed.
        cause: Box<Self>,
        /// What is left behind and why.
        leftovers: String,
    },
}

impl Error {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn sandbox(id: &str) -> Self {
        Self::NotFound { kind: "sandbox", id: id.to_owned() }
    }

    pub(crate) fn container(id: &str) -> Self {
        Self::NotFound { kind: "container", id: id.to_owned() }
    }

    pub(crate) fn image(name: &str) -> Self {
        Self::NotFound { kind: "image", id: name.to_owned() }
    }

    /// For `map_err`: the operation on the path failed.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source: Arc::new(source) }
    }

    /// For `map_err`: an operation that another crate was asked for failed.
    pub(crate) fn below<E: StdError + Send + Sync + 'static>(
        operation: impl Into<String>,
        code: impl Fn(&E) -> Code,
    ) -> impl FnOnce(E) -> Self {
        let operation = operation.into();
        move |source| Self::Below { operation, code: code(&source), source: Arc::new(source) }
    }

    /// For `map_err`: as [`below`](Self::below), an internal error whatever it is.
    pub(crate) fn internal<E: StdError + Send + Sync + 'static>(
        operation: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        Self::below(operation, |_: &E| Code::Internal)
    }

    /// The message with those of all its causes.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }

    /// How a client should take it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Unsupported(_) => Code::Unimplemented,
            Self::Precondition(_) => Code::FailedPrecondition,
            Self::Exists(_) => Code::AlreadyExists,
            Self::Deadline(_) => Code::DeadlineExceeded,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Io { .. } => Code::Internal,
            Self::Below { code, .. } => *code,
            Self::Leftovers { cause, .. } => cause.code(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.chain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_whole_chain() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::internal("write the record of a1")(cause);
        let status = Status::from(error);
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "can't write the record of a1: disk on fire");
    }
}
