//! Why an operation on a container failed.

use std::{io, path::PathBuf};

use crate::Status;

/// The result of an operation on a container.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a container failed.
///
/// The first group are answers about the container's state that callers match on; runc's wording for them is the
/// command line's business. The rest say what couldn't be done, with the cause as source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No container of this id under the root.
    #[error("container {id} does not exist")]
    NotFound {
        /// The id asked for.
        id: String,
    },
    /// The id is taken.
    #[error("container {id} already exists")]
    AlreadyExists {
        /// The id asked for.
        id: String,
    },
    /// The id is empty, too long, or has characters that may not be in one.
    #[error("invalid container id {id:?}: {reason}")]
    InvalidId {
        /// The id asked for.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operation needs another status.
    #[error("container {id} is {status}: cannot {operation}")]
    Status {
        /// The container.
        id: String,
        /// Its status.
        status: Status,
        /// What was asked for: start, delete, exec, pause, ...
        operation: &'static str,
    },
    /// The container's cgroup is frozen, or not empty, and so can't be used for a new process.
    #[error("cgroup {path} {why}")]
    CgroupBusy {
        /// The cgroup.
        path: PathBuf,
        /// "unexpectedly frozen" or "is not empty".
        why: &'static str,
    },
    /// The signal can't be delivered because the process is gone.
    #[error("container {id}: process already finished")]
    Finished {
        /// The container.
        id: String,
    },
    /// It was killed, and its processes are still there: the kernel can't end them.
    #[error("container {id} hasn't ended {seconds} s after it was killed{why}")]
    Undying {
        /// The container.
        id: String,
        /// How long it was waited for.
        seconds: u64,
        /// A clause for each process that can't be killed, with what it waits in.
        why: String,
    },
    /// config.json asks for something that can't be, or that isn't supported; all that is wrong is listed.
    #[error("config.json of {bundle}: {}", problems.join("; "))]
    Config {
        /// The bundle.
        bundle: PathBuf,
        /// JSON path and problem.
        problems: Vec<String>,
    },
    /// The process that `exec` is asked for can't be, or isn't supported; all that is wrong is listed.
    #[error("{}", problems.join("; "))]
    Process {
        /// JSON path and problem.
        problems: Vec<String>,
    },
    /// config.json asks for what this kernel or machine doesn't have.
    #[error("{field}: {why}")]
    Unsupported {
        /// The field, like `process.apparmorProfile`.
        field: &'static str,
        /// What is missing, and perhaps what to do about it.
        why: String,
    },
    /// The process has more than one thread, and so can't be cloned into a container: a lock that another thread holds
    /// would be held for ever in the clone.
    #[error(
        "cannot {operation}: this process has more than one thread; do it in a process of its own, which has one"
    )]
    Threads {
        /// What was asked for: "create a container", ...
        operation: &'static str,
    },
    /// The bundle can't be loaded.
    #[error("cannot load bundle {path}")]
    Bundle {
        /// The bundle's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<corten_bundle::Error>,
    },
    /// The seccomp section can't be compiled.
    #[error("cannot compile linux.seccomp")]
    Seccomp(#[source] Box<corten_seccomp::Error>),
    /// The cgroup can't be made, changed, read or removed.
    #[error("cannot {operation} cgroup {path}")]
    Cgroup {
        /// What was to be done.
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// Why: a [`corten_cgroups::Error`], or an error that has one as its source and says what to do about it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The program can't be executed: not found or not executable. Words as runc has them.
    #[error("exec: {program:?}: {reason}")]
    Program {
        /// `process.args[0]`.
        program: String,
        /// Why.
        reason: String,
    },
    /// The program was found, and the kernel doesn't execute it: another machine's, or its interpreter is missing. Words as
    /// runc has them.
    #[error("exec {program}: {reason}")]
    Execve {
        /// The file that was found.
        program: String,
        /// Why.
        reason: String,
    },
    /// Init failed at a step; the whole chain has crossed the process boundary.
    #[error("container init: {message}")]
    Init {
        /// The chain of messages, outermost first, joined by ": ".
        message: String,
        /// The errno at the end of the chain; 0 if there is none.
        errno: i32,
    },
    /// Init died before it was done, without a word.
    #[error("container init died while {during} ({status})")]
    InitDied {
        /// What was waited for.
        during: &'static str,
        /// How it ended.
        status: String,
    },
    /// Init was killed before it was done, for want of memory. Words as runc has them.
    #[error("container init was OOM-killed (memory limit too low?)")]
    InitOom,
    /// A hook failed.
    #[error("error running {kind} hook #{index}: {path} {reason}")]
    Hook {
        /// prestart, createRuntime, ...
        kind: &'static str,
        /// Its place in the list.
        index: usize,
        /// The executable.
        path: PathBuf,
        /// How it failed: exit status, timeout, or why it couldn't be run; with what it wrote to stderr.
        reason: String,
    },
    /// criu failed, or can't be used.
    #[error("cannot {operation}: {reason}")]
    Criu {
        /// What was to be done to what.
        operation: String,
        /// Why it can't be: what criu says, and the errors in its log.
        reason: String,
    },
    /// The state record is unreadable.
    #[error("cannot {operation} the state of container {id}")]
    Record {
        /// "read" or "write".
        operation: &'static str,
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A system call failed.
    #[error("cannot {operation}")]
    Os {
        /// What was to be done to what, with its path.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something failed, and afterwards not everything could be taken back.
    #[error("{error}; then cleaning up failed: {}", left.join("; "))]
    Undo {
        /// The first failure.
        #[source]
        error: Box<Error>,
        /// What is left behind, and why.
        left: Vec<String>,
    },
}

impl Error {
    /// The OS error at the end of the chain, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        if let Self::Init { errno, .. } = self {
            return (*errno != 0).then_some(*errno);
        }
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return io.raw_os_error();
            }
            next = error.source();
        }
        None
    }
}

/// Says what was being done when the kernel refused.
pub(crate) trait Doing<T> {
    /// `cannot <operation>`, with the cause as source.
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Os { operation: operation(), source: source.into() })
    }
}

/// An error and all its causes in one line, as it crosses a process boundary or ends in a log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
