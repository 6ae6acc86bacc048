//! How failures are told: the phrases that runc's callers match, and exit codes. One table; docs/compat.md explains it.

use std::process::ExitCode;

use corten_container::{Error, Status};

use crate::args::{Command, Global};

/// Logs the failure, prints it, and says with which code to exit.
///
/// The log file gets the same text as standard error: shims read the last `error` line of the former.
pub(crate) fn failure(global: &Global, command: &Command, error: &anyhow::Error) -> ExitCode {
    let message = message(command.verb(), error);
    if global.log.is_some() {
        tracing::error!("{message}");
    }
    eprintln!("{message}");
    // runc's exec keeps 1 to 254 for the program's own codes.
    ExitCode::from(if matches!(command, Command::Exec(_)) { 255 } else { 1 })
}

fn message(verb: &str, error: &anyhow::Error) -> String {
    let Some(known) = error.downcast_ref::<Error>() else { return format!("{error:#}") };
    if let Some(phrase) = phrase(verb, known) {
        return phrase;
    }
    let chain = format!("{error:#}");
    match (verb, known) {
        // What failed while the program was being set up, as opposed to before.
        (
            "create" | "run" | "start",
            Error::Program { .. } | Error::Init { .. } | Error::InitDied { .. } | Error::Hook { .. },
        ) => {
            format!("corten {verb} failed: unable to start container process: {chain}")
        }
        ("exec", Error::Program { .. } | Error::Init { .. } | Error::InitDied { .. }) => {
            format!("exec failed: unable to start container process: {chain}")
        }
        ("create" | "run" | "start" | "exec", _) => format!("corten {verb} failed: {chain}"),
        _ => chain,
    }
}

/// runc's words for answers about a container's state. Callers match them as parts of a line.
fn phrase(verb: &str, error: &Error) -> Option<String> {
    Some(match error {
        Error::NotFound { id } => format!("container does not exist: {id}"),
        Error::AlreadyExists { id } => format!("container with given ID already exists: {id}"),
        Error::InvalidId { id, reason } => format!("invalid container ID format: {id:?}: {reason}"),
        Error::Finished { .. } if verb == "kill" => "container not running".to_owned(),
        Error::Finished { .. } => "process already finished".to_owned(),
        Error::Status { id, status, operation } => match (verb, status) {
            ("kill" | "pause" | "ps", Status::Stopped) => "container not running".to_owned(),
            ("pause", _) => format!("container not running: it is {status}"),
            ("resume", _) => format!("container not paused: it is {status}"),
            ("start", Status::Stopped) => "cannot start a container that has stopped".to_owned(),
            ("start", Status::Running | Status::Paused) => {
                "cannot start an already running container".to_owned()
            }
            ("exec", Status::Stopped) => "cannot exec in a stopped container".to_owned(),
            ("exec", Status::Paused) => {
                "cannot exec in a paused container (use --ignore-paused to override)".to_owned()
            }
            ("delete", _) => format!("cannot delete container {id} that is not stopped: {status}"),
            _ => format!("cannot {operation} container {id}: it is {status}"),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_find_their_phrases() {
        let id = || "one".to_owned();
        let status = |status, operation| Error::Status { id: id(), status, operation };
        let cases = [
            ("state", Error::NotFound { id: id() }, "container does not exist"),
            ("create", Error::AlreadyExists { id: id() }, "container with given ID already exists"),
            ("kill", status(Status::Stopped, "kill"), "container not running"),
            ("kill", Error::Finished { id: id() }, "container not running"),
            ("start", status(Status::Stopped, "start"), "cannot start a container that has stopped"),
            ("exec", status(Status::Paused, "exec"), "--ignore-paused"),
            (
                "delete",
                status(Status::Running, "delete"),
                "cannot delete container one that is not stopped: running",
            ),
        ];
        for (verb, error, phrase) in cases {
            let text = message(verb, &anyhow::Error::new(error));
            assert!(text.contains(phrase), "{verb}: {text}");
        }
    }

    #[test]
    fn a_missing_program_is_told_as_docker_expects() {
        let reason = "executable file not found in $PATH".to_owned();
        let error = Error::Program { program: "nope".to_owned(), reason };
        assert_eq!(
            message("create", &anyhow::Error::new(error)),
            "corten create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH"
        );
    }
}
