//! Tasks, their processes, and the states these go through.
//!
//! ```text
//! New ─create─▶ Creating ─▶ Created ─start─▶ Starting ─▶ Running ─▶ Stopped
//!                   │           ╰───────── killed ─────────────────────▲
//!                   ╰─ failed: the task (or exec) is forgotten
//! ```
//!
//! An exec begins as New and is created by start: New ─start─▶ Starting.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use corten_runtime_client::{Restore, Runtime};
use corten_task_api::proto::containerd::v1::types::Status as WireStatus;
use corten_task_api::ttrpc::Status;
use nix::errno::Errno;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::bundle::ExitRecord;
use crate::cgroup::Cgroup;
use crate::error;
use crate::io::{ProcessIo, Stdio};

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing has been started.
    New,
    /// The runtime creates it.
    Creating,
    /// A container's init that waits for start.
    Created { pid: u32 },
    /// The runtime starts it. An exec has no PID yet.
    Starting { pid: u32 },
    /// Its program runs.
    Running { pid: u32, started_at_ns: i64 },
    /// It has ended.
    Stopped { pid: u32, started_at_ns: i64, exit: ExitRecord },
}

impl Phase {
    pub(crate) fn pid(self) -> u32 {
        match self {
            Self::New | Self::Creating => 0,
            Self::Created { pid }
            | Self::Starting { pid }
            | Self::Running { pid, .. }
            | Self::Stopped { pid, .. } => pid,
        }
    }

    pub(crate) fn exit(self) -> Option<ExitRecord> {
        match self {
            Self::Stopped { exit, .. } => Some(exit),
            _ => None,
        }
    }

    pub(crate) fn started_at_ns(self) -> i64 {
        match self {
            Self::Running { started_at_ns, .. } | Self::Stopped { started_at_ns, .. } => started_at_ns,
            _ => 0,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Creating => "being created",
            Self::Created { .. } => "created",
            Self::Starting { .. } => "being started",
            Self::Running { .. } => "running",
            Self::Stopped { .. } => "stopped",
        }
    }
}

/// A container's init or an exec.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) stdio: Stdio,
    /// The process to run, when it is an exec.
    pub(crate) spec: Vec<u8>,
    pub(crate) io: RefCell<Option<Rc<ProcessIo>>>,
    /// Means this process even when its PID has come round again.
    pub(crate) pidfd: RefCell<Option<OwnedFd>>,
    /// That it was started has been published.
    pub(crate) announced: Cell<bool>,
    /// Deleted, or never created: nobody can do anything with it any more.
    forgotten: Cell<bool>,
    phase: Cell<Phase>,
    changed: Notify,
}

impl Process {
    pub(crate) fn new(stdio: Stdio, spec: Vec<u8>) -> Rc<Self> {
        Rc::new(Self {
            stdio,
            spec,
            io: RefCell::new(None),
            pidfd: RefCell::new(None),
            announced: Cell::new(false),
            forgotten: Cell::new(false),
            phase: Cell::new(Phase::New),
            changed: Notify::new(),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    /// Lets go who still waits for the end of what will never run.
    pub(crate) fn forget(&self) {
        self.forgotten.set(true);
        self.changed.notify_waiters();
    }

    /// Waits for its end; None if it's forgotten before it has ended.
    pub(crate) async fn end(&self) -> Option<ExitRecord> {
        let over = |phase: Phase| phase.exit().map(Some).or_else(|| self.forgotten.get().then_some(None));
        self.until(over).await
    }

    /// Waits until `wanted` finds something in the phase.
    pub(crate) async fn until<T>(&self, wanted: impl Fn(Phase) -> Option<T>) -> T {
        loop {
            // Nothing can change between the look and the first poll of this: there's one thread.
            if let Some(found) = wanted(self.phase()) {
                return found;
            }
            self.changed.notified().await;
        }
    }

    pub(crate) fn io(&self) -> Option<Rc<ProcessIo>> {
        self.io.borrow().clone()
    }

    /// Sends it a signal, whatever its number. ESRCH when it has ended.
    pub(crate) fn signal(&self, signal: u32) -> Result<(), Errno> {
        let number = i32::try_from(signal).map_err(|_| Errno::EINVAL)?;
        let pidfd = self.pidfd.borrow();
        let pidfd = pidfd.as_ref().ok_or(Errno::ESRCH)?;
        let sent = corten_sys::process::pidfd_send_signal(pidfd.as_fd(), number);
        sent.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    }

    /// How containerd calls where it stands.
    pub(crate) fn wire_status(&self, paused: bool) -> WireStatus {
        match self.phase() {
            Phase::Running { .. } if paused => WireStatus::Paused,
            Phase::Running { .. } => WireStatus::Running,
            Phase::Stopped { .. } => WireStatus::Stopped,
            Phase::New | Phase::Creating | Phase::Created { .. } | Phase::Starting { .. } => {
                WireStatus::Created
            }
        }
    }
}

/// A container.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) runtime: Runtime,
    pub(crate) own_pid_namespace: bool,
    pub(crate) init: Rc<Process>,
    pub(crate) execs: RefCell<HashMap<String, Rc<Process>>>,
    pub(crate) cgroup: RefCell<Option<Cgroup>>,
    pub(crate) paused: Cell<bool>,
    pub(crate) deleting: Cell<bool>,
    /// Its init has ended, which not everybody has been told yet: nothing is started in it any more.
    pub(crate) init_ended: Cell<bool>,
    /// Processes killed for want of memory that have been reported.
    pub(crate) oom_kills: Cell<u64>,
    pub(crate) oom_watch: RefCell<Option<AbortHandle>>,
    /// What is restored by start, and the streams for it.
    pub(crate) restore: RefCell<Option<(Restore, ProcessIo, corten_runtime_client::Io)>>,
    pub(crate) options: TaskOptions,
}

/// What Create's options say that matters later.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskOptions {
    /// Who owns pipes that the shim makes.
    pub(crate) io_owner: (u32, u32),
    /// Where images of checkpoints go when Checkpoint doesn't say.
    pub(crate) criu_image_path: String,
    /// Where criu works when Checkpoint doesn't say.
    pub(crate) criu_work_path: String,
}

impl Task {
    /// The init, or the exec of that name.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Rc<Process>, Status> {
        if exec_id.is_empty() {
            return Ok(Rc::clone(&self.init));
        }
        let execs = self.execs.borrow();
        let missing = || error::not_found(format!("no exec {exec_id} in container {}", self.id));
        execs.get(exec_id).cloned().ok_or_else(missing)
    }

    /// It isn't known any more, and its processes with it.
    pub(crate) fn forget(&self) {
        self.init.forget();
        self.execs.borrow().values().for_each(|exec| exec.forget());
    }

    /// # Errors
    /// FailedPrecondition when the init doesn't run.
    pub(crate) fn require_running(&self, what: &str) -> Result<(), Status> {
        match self.init.phase() {
            Phase::Running { .. } if self.init_ended.get() => {
                Err(error::precondition(format!("{what} in container {}: its init has ended", self.id)))
            }
            Phase::Running { .. } => Ok(()),
            phase => {
                Err(error::precondition(format!("{what} in container {}: it is {}", self.id, phase.name())))
            }
        }
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }
}
