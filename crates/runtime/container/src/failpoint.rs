//! Where tests kill, stop or fail us: between any two steps of create, start, exec and delete, on both sides.

use crate::{Result, error::Doing};

corten_state::failpoints! {
    /// A place between two steps; see [`corten_state::failpoint`].
    pub enum Failpoint {
        /// Parent: the bundle is loaded, nothing is done.
        CreatePlanned = "create.planned",
        /// Parent: the id is taken.
        CreateHome = "create.home",
        /// Parent: it's noted where the cgroup is going to be.
        CreateNoted = "create.noted",
        /// Parent: the cgroup is there.
        CreateCgroup = "create.cgroup",
        /// Parent: the exec fifo is there.
        CreateFifo = "create.fifo",
        /// Parent: the helper that holds a user namespace for an id-mapped mount has been cloned.
        CreateIdmap = "create.idmap",
        /// Parent: sources of mounts and devices are open.
        CreateSources = "create.sources",
        /// Parent: init has been cloned.
        CreateCloned = "create.cloned",
        /// Parent: the user namespace has its mappings.
        CreateMapped = "create.mapped",
        /// Parent: the record is written.
        CreateSaved = "create.saved",
        /// Parent: the hooks in the runtime's namespaces have run.
        CreateHooks = "create.hooks",
        /// Parent: init has nothing left to do.
        CreateReady = "create.ready",
        /// Parent: the exec fifo has its name.
        CreateAvailable = "create.available",
        /// Parent: the pid file is written.
        CreatePidFile = "create.pid-file",
        /// Parent: init has been told to live.
        CreateGo = "create.go",

        /// Intermediate process: it has joined what is to be joined.
        HelperJoined = "helper.joined",
        /// Intermediate process: init is cloned, the parent doesn't know yet.
        HelperCloned = "helper.cloned",

        /// Init: its first breath.
        InitBorn = "init.born",
        /// Init: in its cgroup.
        InitCgroup = "init.cgroup",
        /// Init: in its namespaces.
        InitNamespaces = "init.namespaces",
        /// Init: everything is mounted.
        InitMounts = "init.mounts",
        /// Init: the devices are there.
        InitDevices = "init.devices",
        /// Init: createContainer hooks have run.
        InitHooks = "init.hooks",
        /// Init: the root file system is its own.
        InitPivot = "init.pivot",
        /// Init: user, capabilities, limits are the program's.
        InitProcess = "init.process",
        /// Init: it has said that it's ready.
        InitReady = "init.ready",
        /// Init: told to live.
        InitGo = "init.go",
        /// Init: `start` has let it go.
        InitStarted = "init.started",
        /// Init: nothing but execve is left.
        InitExec = "init.exec",

        /// `start`: the record is read.
        StartLoaded = "start.loaded",
        /// `start`: the exec fifo is open.
        StartOpened = "start.opened",
        /// `start`: init has been let go.
        StartReleased = "start.released",
        /// `start`: the exec fifo is removed.
        StartRemoved = "start.removed",
        /// `start`: the program runs.
        StartRuns = "start.runs",
        /// `start`: poststart hooks have run.
        StartHooks = "start.hooks",

        /// `exec`'s parent: the record is read.
        ExecLoaded = "exec.loaded",
        /// `exec`'s parent: the process is cloned.
        ExecCloned = "exec.cloned",
        /// `exec`'s parent: the pid file is written.
        ExecPidFile = "exec.pid-file",
        /// `exec`'s parent: the process has been told to live.
        ExecGo = "exec.go",
        /// `exec`'s parent: the program runs.
        ExecRuns = "exec.runs",

        /// `exec`'s child: its first breath.
        JoinBorn = "join.born",
        /// `exec`'s child: in the container's cgroup.
        JoinCgroup = "join.cgroup",
        /// `exec`'s child: in the container's namespaces.
        JoinNamespaces = "join.namespaces",
        /// `exec`'s child: user, capabilities, limits are the program's.
        JoinProcess = "join.process",
        /// `exec`'s child: told to live.
        JoinGo = "join.go",

        /// `delete`: the record is read.
        DeleteLoaded = "delete.loaded",
        /// `delete`: nothing of it runs any more.
        DeleteStopped = "delete.stopped",
        /// `delete`: the cgroup is gone.
        DeleteCgroup = "delete.cgroup",
        /// `delete`: all but the directory itself is gone from the state.
        DeleteRecord = "delete.record",
        /// `delete`: the id is free.
        DeleteHome = "delete.home",
        /// `delete`: poststop hooks have run.
        DeleteHooks = "delete.hooks",
    }
}

impl Failpoint {
    /// [`Self::hit`] with an error that says where it was. Nothing in what is shipped.
    #[inline]
    pub(crate) fn pass(self) -> Result<()> {
        self.hit().doing(|| format!("go on after {}", self.name()))
    }
}
