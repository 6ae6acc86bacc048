//! The words and exit codes that callers of runc match: containerd's shim, podman, CRI-O and Docker look for
//! them in the log to tell "it is gone" from "it failed". This is the one table of them.

use corten_container::{Error, Status};

use crate::args::Command;

/// What matters of a command for its error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Create,
    Run,
    Exec,
    Other,
}

impl Name {
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::Create(_) => Self::Create,
            Command::Run(_) => Self::Run,
            Command::Exec(_) => Self::Exec,
            _ => Self::Other,
        }
    }
}

/// runc's exit code for a failed command. (A process that ran gives its own.)
pub(crate) fn exit_code(name: Name) -> u8 {
    if name == Name::Exec { 255 } else { crate::FAILURE }
}

/// The whole error in one line, beginning as runc's would.
pub(crate) fn message(name: Name, error: &anyhow::Error) -> String {
    let text = match error.downcast_ref::<Error>() {
        Some(error) => of_container(name, error),
        None => format!("{error:#}"),
    };
    match name {
        Name::Create => format!("corten create failed: {text}"),
        Name::Run => format!("corten run failed: {text}"),
        Name::Exec => format!("exec failed: {text}"),
        Name::Other => text,
    }
}

fn of_container(name: Name, error: &Error) -> String {
    match error {
        Error::NotFound { .. } => "container does not exist".to_owned(),
        Error::AlreadyExists { .. } => "container with given ID already exists".to_owned(),
        Error::InvalidId { id, reason } => format!("invalid container ID format: {id:?}: {reason}"),
        Error::Finished { .. } => "os: process already finished".to_owned(),
        Error::Status { id, status, operation } => of_status(id, *status, operation),
        Error::CgroupBusy { path, why } => format!("container's cgroup {why}: {}", path.display()),
        Error::Program { .. }
        | Error::Execve { .. }
        | Error::Init { .. }
        | Error::InitDied { .. }
        | Error::InitOom
            if name != Name::Other =>
        {
            format!("unable to start container process: {}", chain(error))
        }
        other => chain(other),
    }
}

/// The operation needs another status.
fn of_status(id: &str, status: Status, operation: &str) -> String {
    match (operation, status) {
        ("start", Status::Stopped) => "cannot start a container that has stopped".to_owned(),
        ("start", Status::Running) => "cannot start an already running container".to_owned(),
        ("exec", Status::Stopped) => "cannot exec in a stopped container".to_owned(),
        ("exec", Status::Paused) => {
            "cannot exec in a paused container (use --ignore-paused to override)".to_owned()
        }
        ("delete", _) => format!("cannot delete container {id} that is not stopped: {status}"),
        ("resume", Status::Created | Status::Running) => "container not paused".to_owned(),
        ("checkpoint", _) => format!("Container cannot be checkpointed in {status} state"),
        ("kill" | "pause" | "resume" | "update" | "ps" | "events", Status::Stopped | Status::Paused) => {
            "container not running".to_owned()
        }
        _ => format!("cannot {operation} a container in the {status} state"),
    }
}

/// An error and all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: Name, error: Error) -> String {
        message(name, &anyhow::Error::from(error))
    }

    fn status(status: Status, operation: &'static str) -> Error {
        Error::Status { id: "x".to_owned(), status, operation }
    }

    #[test]
    fn table() {
        let id = || "x".to_owned();
        for (name, error, expected) in [
            (Name::Other, Error::NotFound { id: id() }, "container does not exist"),
            (Name::Exec, Error::NotFound { id: id() }, "exec failed: container does not exist"),
            (
                Name::Create,
                Error::AlreadyExists { id: id() },
                "corten create failed: container with given ID already exists",
            ),
            (Name::Other, Error::Finished { id: id() }, "os: process already finished"),
            (Name::Other, status(Status::Stopped, "kill"), "container not running"),
            (
                Name::Other,
                status(Status::Running, "delete"),
                "cannot delete container x that is not stopped: running",
            ),
            (Name::Other, status(Status::Stopped, "start"), "cannot start a container that has stopped"),
            (Name::Other, status(Status::Running, "start"), "cannot start an already running container"),
            (Name::Other, status(Status::Paused, "start"), "cannot start a container in the paused state"),
            (Name::Exec, status(Status::Stopped, "exec"), "exec failed: cannot exec in a stopped container"),
            (Name::Other, status(Status::Running, "resume"), "container not paused"),
            (
                Name::Other,
                status(Status::Creating, "pause"),
                "cannot pause a container in the creating state",
            ),
        ] {
            assert_eq!(said(name, error), expected);
        }
    }

    #[test]
    fn the_cause_is_told() {
        let source = std::io::Error::from_raw_os_error(nix::libc::ENOENT);
        let error = Error::Os { operation: "open /x".to_owned(), source };
        let text = said(Name::Run, error);
        assert_eq!(text, "corten run failed: cannot open /x: No such file or directory (os error 2)");
    }
}
