//! What a runtime's failures mean.

use std::io;
use std::time::Duration;

/// Why a runtime couldn't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary couldn't be run.
    #[error("run {binary} {verb}")]
    Spawn {
        /// The binary.
        binary: String,
        /// Its command.
        verb: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The runtime has refused or failed.
    #[error("{binary} {verb} {id}: {message}")]
    Failed {
        /// The binary.
        binary: String,
        /// Its command.
        verb: &'static str,
        /// The container.
        id: String,
        /// What it means.
        kind: Kind,
        /// What it has logged, or how it ended when it hasn't.
        message: String,
    },
    /// The runtime hadn't ended when [`crate::Patience`] was over, and was killed.
    #[error(
        "{binary} {verb} {id}: killed, for it had not ended after {} s: a hook, a file system or the kernel holds it up",
        patience.as_secs()
    )]
    TookTooLong {
        /// The binary.
        binary: String,
        /// Its command.
        verb: &'static str,
        /// The container.
        id: String,
        /// How long it was given.
        patience: Duration,
    },
    /// The runtime says that it has succeeded, but what it was to leave isn't there or isn't readable.
    #[error("{verb} {id}: read {what} that the runtime has left")]
    Result {
        /// Its command.
        verb: &'static str,
        /// The container.
        id: String,
        /// Which result.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that the call needs couldn't be set up.
    #[error("{verb} {id}: {what}")]
    Prepare {
        /// The command.
        verb: &'static str,
        /// The container.
        id: String,
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What it means.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Failed { kind, .. } => *kind,
            Self::TookTooLong { .. } => Kind::TookTooLong,
            Self::Spawn { .. } | Self::Result { .. } | Self::Prepare { .. } => Kind::Other,
        }
    }
}

/// What a runtime's failure means to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such container.
    NotFound,
    /// There is such a container.
    Exists,
    /// The process or the container has ended.
    NotRunning,
    /// The container is in a state in which this can't be done.
    WrongState,
    /// It had to be killed.
    TookTooLong,
    /// None of these.
    Other,
}

/// What runc, crun and corten say, and what it means: the only place where a message is searched.
const PHRASES: &[(&str, Kind)] = &[
    ("container with given ID already exists", Kind::Exists),
    ("container with id exists", Kind::Exists),
    ("already exists", Kind::Exists),
    ("container does not exist", Kind::NotFound),
    ("/status`: No such file or directory", Kind::NotFound),
    ("process already finished", Kind::NotRunning),
    ("container not running", Kind::NotRunning),
    ("container is not running", Kind::NotRunning),
    ("is not running", Kind::NotRunning),
    ("no such process", Kind::NotRunning),
    ("No such process", Kind::NotRunning),
    ("that has stopped", Kind::NotRunning),
    ("in a stopped container", Kind::NotRunning),
    ("container is paused", Kind::WrongState),
    ("a paused container", Kind::WrongState),
    ("container not paused", Kind::WrongState),
    ("not in the `created` state", Kind::WrongState),
    ("already running container", Kind::WrongState),
    ("container is not stopped", Kind::WrongState),
    ("that is not stopped", Kind::WrongState),
];

pub(crate) fn classify(message: &str) -> Kind {
    PHRASES.iter().find(|(phrase, _)| message.contains(phrase)).map_or(Kind::Other, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_phrases_are_understood() {
        for (message, kind) in [
            ("container does not exist", Kind::NotFound),
            ("error opening file `/run/crun/x/status`: No such file or directory", Kind::NotFound),
            ("container with id exists: x", Kind::Exists),
            ("container with given ID already exists", Kind::Exists),
            ("os: process already finished", Kind::NotRunning),
            ("cannot exec in a stopped container", Kind::NotRunning),
            ("cannot exec in a paused container (use --ignore-paused to override)", Kind::WrongState),
            ("exec: \"nope\": executable file not found in $PATH", Kind::Other),
        ] {
            assert_eq!(classify(message), kind, "{message}");
        }
    }
}
