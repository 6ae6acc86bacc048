//! Where tests kill, stop or fail the shim: between any two steps of what it is called for.

use corten_task_api::ttrpc::Status;

use crate::error;

corten_state::failpoints! {
    /// A place between two steps; see [`corten_state::failpoint`].
    pub enum Failpoint {
        /// Create: the id is taken.
        CreateTaken = "shim.create.taken",
        /// Create: runtime.json says by which runtime there may be something to delete.
        CreateNoted = "shim.create.noted",
        /// Create: the root file system is mounted.
        CreateMounted = "shim.create.mounted",
        /// Create: the streams are open.
        CreateOpened = "shim.create.opened",
        /// Create: the runtime has created the container.
        CreateCreated = "shim.create.created",
        /// Create: its end is watched for.
        CreateWatched = "shim.create.watched",

        /// Start: nothing is done yet.
        StartStarting = "shim.start.starting",
        /// Start: the runtime has started the container.
        StartStarted = "shim.start.started",

        /// Exec: it is remembered.
        ExecAdded = "shim.exec.added",
        /// Start of an exec: the streams are open.
        ExecOpened = "shim.exec.opened",
        /// Start of an exec: the runtime is at work.
        ExecLaunched = "shim.exec.launched",
        /// Start of an exec: the runtime has started it.
        ExecStarted = "shim.exec.started",
        /// Start of an exec: its end is watched for.
        ExecWatched = "shim.exec.watched",

        /// ExecSync: the pipes are open.
        ProbeOpened = "shim.exec-sync.opened",
        /// ExecSync: the runtime is at work.
        ProbeLaunched = "shim.exec-sync.launched",
        /// ExecSync: the process runs.
        ProbeStarted = "shim.exec-sync.started",

        /// Kill: the process is known.
        KillFound = "shim.kill.found",
        /// Kill: the signal is sent.
        KillSent = "shim.kill.sent",

        /// A container has ended: nothing is done yet. There's nobody to fail to: `error` has no effect here.
        ExitSeen = "shim.exit.seen",
        /// A container has ended: its output is in the log.
        ExitDrained = "shim.exit.drained",
        /// A container has ended: its exit code is on the disk.
        ExitRecorded = "shim.exit.recorded",
        /// A container has ended: everybody knows.
        ExitTold = "shim.exit.told",

        /// Delete: it's this call that deletes.
        DeleteBegun = "shim.delete.begun",
        /// Delete: the runtime has deleted it.
        DeleteDeleted = "shim.delete.deleted",
        /// Delete: the root file system is unmounted.
        DeleteUnmounted = "shim.delete.unmounted",
        /// Delete: it's forgotten.
        DeleteForgotten = "shim.delete.forgotten",
    }
}

impl Failpoint {
    /// [`Self::hit`] as a call's failure. Nothing in what is shipped.
    #[inline]
    pub(crate) fn pass(self) -> Result<(), Status> {
        self.hit().map_err(|e| error::io("go on", &e))
    }

    /// [`Self::hit`] where nothing can fail.
    #[inline]
    pub(crate) fn see(self) {
        let _ = self.hit(); // as it says
    }
}
