//! What each failure is in ttrpc's terms: the only place that decides it.

use corten_runtime_client::{Error as RuntimeError, Kind};
use corten_task_api::ttrpc::{Code, Status};

/// A failure of the runtime.
pub(crate) fn runtime(error: &RuntimeError) -> Status {
    let code = match error.kind() {
        Kind::NotFound | Kind::NotRunning => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::WrongState => Code::FailedPrecondition,
        Kind::TookTooLong => Code::DeadlineExceeded,
        Kind::Other => Code::Unknown,
    };
    Status::from_error(code, error)
}

/// A system call's failure, with what it was for.
pub(crate) fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Status {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => Code::NotFound,
        std::io::ErrorKind::AlreadyExists => Code::AlreadyExists,
        std::io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        std::io::ErrorKind::StorageFull => Code::ResourceExhausted,
        std::io::ErrorKind::InvalidInput => Code::InvalidArgument,
        _ => Code::Internal,
    };
    Status::new(code, format!("{what}: {error}"))
}

pub(crate) fn not_found(what: impl Into<String>) -> Status {
    Status::new(Code::NotFound, what)
}

pub(crate) fn precondition(what: impl Into<String>) -> Status {
    Status::new(Code::FailedPrecondition, what)
}

pub(crate) fn invalid(what: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, what)
}
