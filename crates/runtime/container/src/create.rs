//! `create` and the creation half of `run` (runtime-spec, "Lifecycle", steps 1 to 5).

use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::Path,
};

use corten_bundle::Bundle;
use corten_cgroups::Cgroup;
use corten_sys::process::Namespaces;
use nix::{
    fcntl::{OFlag, open},
    sys::stat,
    unistd::mkfifo,
};

use crate::{
    CreateOptions, Error, Result, Runtime, State, Status,
    alone::alone,
    cgroup::{self, CgroupDoing},
    descriptors::inherited_descriptors,
    error::Doing,
    failpoint::Failpoint,
    filter,
    hooks::{self, Output, Surroundings},
    load, net_devices, pid_file,
    plan::{Mount, Plan},
    privilege::is_unprivileged,
    rdt::{self, Groups},
    record::{CREATING, FIFO, Home, Identity, Record, now, owner},
    shared_mounts::SharedMounts,
    spawn::{
        init::{Creation, Sources, Wires, waits_for_hooks},
        parent::{Child, open_joins, spawn_create},
        sync::{self, FromInit, FromParent},
    },
    support,
    undo::Undo,
};

/// Whether init waits for `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It waits at the exec fifo.
    Create,
    /// It goes straight on to the program, and nobody stays with it.
    Detach,
    /// It goes straight on to the program, and we stay with it.
    Run,
}

/// A container with its init, as far as `create` goes.
pub(crate) struct Made {
    pub(crate) home: Home,
    pub(crate) record: Record,
    pub(crate) child: Child,
    /// The terminal's master, if we relay it.
    pub(crate) terminal: Option<OwnedFd>,
    /// Whether hooks have run.
    hooked: bool,
}

impl Runtime {
    /// Creates a container: everything is set up and init waits for [`Self::start`]. Returns the pid of init, which is a
    /// child of the calling process.
    ///
    /// # Errors
    /// The system is then as before; if it couldn't be brought there, [`Error::Undo`] says what is left.
    ///
    /// - of the call: [`Error::InvalidId`], [`Error::AlreadyExists`], [`Error::Threads`];
    /// - of the bundle: [`Error::Bundle`], [`Error::Config`], [`Error::Seccomp`], [`Error::Unsupported`];
    /// - of the machine: [`Error::Cgroup`], [`Error::CgroupBusy`], [`Error::Record`], [`Error::Os`];
    /// - of the container: [`Error::Hook`], [`Error::Program`], [`Error::Init`], [`Error::InitDied`],
    ///   [`Error::InitOom`].
    #[inline(never)]
    pub fn create(&self, id: &str, options: &CreateOptions) -> Result<i32> {
        let bundle = self.bundle(id, options)?;
        let made = self.make(id, bundle, options, Mode::Create)?;
        Ok(made.child.pid)
    }

    /// The bundle, which may come through a pipe: before anything is made, and before signals are caught.
    pub(crate) fn bundle(&self, id: &str, options: &CreateOptions) -> Result<Bundle> {
        alone("create a container")?;
        // A wrong id is told before anything is waited for, and descriptors are counted before anything is opened.
        Home::new(&self.root, id)?;
        inherited_descriptors(options.preserve_fds)?;
        load::read(options)
    }

    /// Makes the container, or nothing.
    pub(crate) fn make(&self, id: &str, bundle: Bundle, options: &CreateOptions, mode: Mode) -> Result<Made> {
        let mut undo = Undo::default();
        let mut hooked = None;
        match self.try_make(id, bundle, options, mode, &mut undo, &mut hooked) {
            Ok(made) => Ok(made),
            Err(error) => {
                let error = undo.roll_back(error);
                // runtime-spec, steps 3 to 5: on with step 12, which was that, and 13.
                if let Some(record) = hooked {
                    hooks::poststop(&record);
                }
                Err(error)
            }
        }
    }

    fn try_make(
        &self,
        id: &str,
        bundle: Bundle,
        options: &CreateOptions,
        mode: Mode,
        undo: &mut Undo<'static>,
        hooked: &mut Option<Record>,
    ) -> Result<Made> {
        let home = Home::new(&self.root, id)?;
        let keep = inherited_descriptors(options.preserve_fds)?;
        let (bundle, plan) = load::plan(bundle, options)?;
        support::container(&plan)?;
        let filter = filter::compile(&bundle.spec, &plan)?;
        let joins = open_joins(&plan.namespaces.join)?;
        support::joins(&plan, &joins)?;
        let relayed = mode == Mode::Run;
        let console = connect(options.console_socket.as_deref(), plan.process.terminal, relayed)?;
        Failpoint::CreatePlanned.pass()?;
        home.make()?;
        undo.push("remove the state directory", {
            let home = home.clone();
            move || home.remove()
        });
        Failpoint::CreateHome.pass()?;

        let place = cgroup::place(self, &bundle.spec, id)?;
        home.note_cgroup(place.path())?;
        Failpoint::CreateNoted.pass()?;
        let (cgroup, placeholder) = place.make(self, &bundle.spec)?;
        let place = cgroup.path().to_owned();
        undo.push("remove the cgroup", {
            let cgroup = cgroup.clone();
            move || cgroup::destroy(&cgroup)
        });
        Failpoint::CreateCgroup.pass()?;
        if let Some(uid) = cgroup::owner(&bundle.spec, &plan) {
            cgroup.delegate(uid).cgroup("give away", &place)?;
        }
        let entrance = cgroup.entrance().cgroup("open", &place)?;
        let groups = rdt::make(id, &plan, undo)?;

        let fifo = (mode == Mode::Create).then(|| make_fifo(&home)).transpose()?;
        Failpoint::CreateFifo.pass()?;
        let creation = creation(id, options, &bundle, &plan)?;
        Failpoint::CreateSources.pass()?;
        let (ours, theirs) = sync::pair()?;
        let wires = Wires {
            channel: theirs,
            entrance,
            born_there: false,
            joined: false,
            unprivileged: is_unprivileged(),
            place,
            join: joins,
            console: console.map(OwnedFd::from),
            fifo,
            keep,
            seccomp: filter.as_ref().map(|filter| (filter.instructions.clone(), filter.flags)),
        };
        let joined_net = net_devices::joined(&plan, &wires.join)?;
        let child = spawn_create(ours, wires, &creation)?;
        let killer = child.pidfd.try_clone().doing(|| "duplicate a pidfd".to_owned())?;
        let pid = child.pid;
        undo.push("kill init", move || crate::spawn::parent::kill(pid, &killer));
        placeholder.map_or(Ok(()), |placeholder| placeholder.hand_over(&cgroup, &child))?;
        Failpoint::CreateCloned.pass()?;
        drop(creation.sources);
        let shared_mounts = provide(&child, &plan, groups.as_ref(), joined_net, undo)?;
        Failpoint::CreateMapped.pass()?;
        let identity = Identity::new(child.pid, child.pidfd.as_fd()).doing(|| "identify init".to_owned())?;
        let mut record = record(&bundle, &plan, creation.state, (identity, cgroup, groups), filter.as_ref());
        (record.keyring, record.shared_mounts) = (creation.keyring.is_some(), shared_mounts);
        record.config.clone_from(&options.config);
        home.save(&record, &filter::to_bytes(filter.as_ref()))?;
        Failpoint::CreateSaved.pass()?;
        let mut made = Made { home, record, child, terminal: None, hooked: false };
        match made.attend(&plan, &creation.output, options, mode, undo) {
            Ok(()) => Ok(made),
            Err(error) => {
                let error = made.why_it_died(error);
                if made.hooked || matches!(error, Error::Hook { .. }) {
                    *hooked = Some(made.record);
                }
                Err(error)
            }
        }
    }
}

impl Made {
    /// The parent's script, once the state is saved, until init may live.
    fn attend(
        &mut self,
        plan: &Plan,
        output: &Output,
        options: &CreateOptions,
        mode: Mode,
        undo: &mut Undo<'static>,
    ) -> Result<()> {
        let (id, cgroup) = (&self.record.id, self.record.cgroup.path());
        tracing::debug!("container {id}: init is {}, in cgroup {}", self.child.pid, cgroup.display());
        if let Some(path) = options.pidfd_socket.as_ref().or(plan.trusted.pidfd_receiver.as_ref()) {
            send_pidfd(path, &self.child.pidfd)?;
        }
        if waits_for_hooks(plan) {
            self.wait_for("mounting", |message| matches!(message, FromInit::Mounted))?;
            self.hooked = true;
            self.run_hooks(plan, output)?;
            Failpoint::CreateHooks.pass()?;
            self.child.channel.order(FromParent::Continue)?;
        }
        if let Some(agent) = &self.record.agent.clone() {
            let loading = "loading the seccomp filter";
            let message = self.wait_for(loading, |message| matches!(message, FromInit::Listener(_)))?;
            let FromInit::Listener(number) = message else { return Err(self.child.died(loading)) };
            agent.hand_over(&self.child, number, &self.record.state(Status::Creating))?;
        }
        if mode == Mode::Create {
            self.wait_for("setting up", |message| matches!(message, FromInit::Ready))?;
            Failpoint::CreateReady.pass()?;
            // From here on it is created, and can be started.
            fs::rename(self.home.file(CREATING), self.home.file(FIFO))
                .doing(|| "make the exec fifo available".to_owned())?;
            Failpoint::CreateAvailable.pass()?;
        }
        if let Some(path) = &options.pid_file {
            let (path, pid) = (path.clone(), self.child.pid);
            pid_file::write(&path, pid)?;
            undo.push("remove the pid file", move || pid_file::remove(&path, pid));
            Failpoint::CreatePidFile.pass()?;
        }
        // The state is saved: whatever becomes of us, the container can be found and deleted.
        tracing::debug!("container {}: init is set up and may go on", self.record.id);
        match self.child.channel.order(FromParent::Go) {
            Ok(()) => Failpoint::CreateGo.pass(),
            // Init has failed before it read this: its last words say why.
            Err(error) => match self.child.hear_or_end() {
                Ok(Some(_)) => Err(error),
                Ok(None) => Err(self.child.died("setting up")),
                Err(failure) => Err(failure),
            },
        }
    }

    /// Answers init until the message comes that `done` recognizes, and returns it.
    pub(crate) fn wait_for(
        &mut self,
        during: &'static str,
        done: impl Fn(&FromInit) -> bool,
    ) -> Result<FromInit> {
        loop {
            match self.child.hear(during)? {
                FromInit::Terminal(master) => self.terminal = Some(master),
                message if done(&message) => return Ok(message),
                _ => {}
            }
        }
    }

    /// An init that was killed while its cgroup had no memory left, was killed for that.
    fn why_it_died(&self, error: Error) -> Error {
        let starved = || self.record.cgroup.oom_kills().is_ok_and(|kills| kills > 0);
        if matches!(error, Error::InitDied { .. }) && starved() { Error::InitOom } else { error }
    }

    fn run_hooks(&self, plan: &Plan, output: &Output) -> Result<()> {
        let state = self.record.state(Status::Creating);
        let run =
            |kind, hooks| hooks::run(kind, hooks, &state, &self.record.bundle, &Surroundings::Ours, output);
        run("prestart", plan.hooks.prestart().as_ref())?;
        run("createRuntime", plan.hooks.create_runtime().as_ref())
    }
}

/// What init is given from outside. Returns the mounts that aren't its own.
fn provide(
    child: &Child,
    plan: &Plan,
    groups: Option<&Groups>,
    joined_net: Option<OwnedFd>,
    undo: &mut Undo<'static>,
) -> Result<Option<SharedMounts>> {
    child.map_ids(&plan.namespaces)?;
    let mounts = SharedMounts::made(plan, child, undo)?;
    child.oom_score(plan.process.oom_score_adj)?;
    groups.map_or(Ok(()), |groups| groups.enter(child.pid))?;
    net_devices::give(&plan.net_devices, joined_net, child.pid, undo)?;
    Ok(mounts)
}

/// What init is told, with everything open that it needs of the host.
fn creation<'a>(id: &str, options: &CreateOptions, bundle: &Bundle, plan: &'a Plan) -> Result<Creation<'a>> {
    Ok(Creation {
        // Without privileges nothing can be mounted before there is a user namespace: then init does it.
        sources: (!is_unprivileged()).then(|| Sources::open(plan)).transpose()?,
        keyring: (!options.no_new_keyring).then(|| keyring(id)).flatten(),
        no_pivot: options.no_pivot,
        state: initial_state(id, bundle, plan),
        output: Output::open(&plan.trusted)?,
        plan,
    })
}

pub(crate) fn initial_state(id: &str, bundle: &Bundle, plan: &Plan) -> State {
    let annotations = bundle.spec.annotations().iter().flatten();
    State {
        oci_version: bundle.spec.version().clone(),
        id: id.to_owned(),
        pid: 0,
        status: Status::Creating,
        bundle: bundle.path.clone(),
        rootfs: plan.rootfs.path.clone(),
        created: now(),
        annotations: annotations.map(|(k, v)| (k.clone(), v.clone())).collect(),
        owner: owner(),
    }
}

pub(crate) fn record(
    bundle: &Bundle,
    plan: &Plan,
    state: State,
    (init, cgroup, groups): (Identity, Cgroup, Option<Groups>),
    filter: Option<&filter::Filter>,
) -> Record {
    let joined = plan.namespaces.join.iter().fold(Namespaces::empty(), |all, join| all | join.kind);
    let kinds = plan.namespaces.new | joined;
    let mut record = Record::new(state, &bundle.spec, (init, cgroup), kinds, filter, groups);
    record.personality = plan.personality;
    record.memory_policy = plan.memory_policy.clone();
    record.trusted = plan.trusted.clone();
    record
}

fn make_fifo(home: &Home) -> Result<OwnedFd> {
    let path = home.file(CREATING);
    let doing = || format!("make the exec fifo {}", path.display());
    mkfifo(&path, stat::Mode::S_IRUSR | stat::Mode::S_IWUSR).doing(doing)?;
    // For writing too: then it's open at once, never at its end, and can carry an error back.
    open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, stat::Mode::empty()).doing(doing)
}

/// Connects to the console socket; refuses a terminal that nobody would hold (`relayed`: we do).
pub(crate) fn connect(socket: Option<&Path>, terminal: bool, relayed: bool) -> Result<Option<UnixStream>> {
    let refuse = || Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    match socket {
        Some(path) if terminal => {
            let stream = UnixStream::connect(path);
            stream.map(Some).doing(|| format!("connect to the console socket {}", path.display()))
        }
        Some(path) => {
            refuse().doing(|| format!("use the console socket {}: process.terminal is false", path.display()))
        }
        None if terminal && !relayed => {
            refuse().doing(|| "allocate a terminal without a console socket: nobody would hold it".to_owned())
        }
        None => Ok(None),
    }
}

/// The name of a container's session keyring.
pub(crate) fn keyring(id: &str) -> Option<CString> {
    CString::new(format!("_ses.{id}")).ok()
}

/// Sends a pidfd to whoever listens.
pub(crate) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let doing = || format!("send the pidfd to {}", path.display());
    let socket = UnixStream::connect(path).doing(doing)?;
    corten_sys::fds::send(socket.as_fd(), b"pidfd", &[pidfd.as_fd()]).map(drop).doing(doing)
}

/// A user namespace with the mappings that an id-mapped mount asks for.
pub(crate) fn idmap_namespace(plan: &Plan, mount: &Mount) -> Result<OwnedFd> {
    let own = (plan.namespaces.uid_map.clone(), plan.namespaces.gid_map.clone());
    let maps = mount.idmap.as_ref().and_then(|idmap| idmap.maps.clone()).unwrap_or(own);
    if maps.0.is_empty() {
        let joined = plan.namespaces.joins(Namespaces::USER).map(|join| join.path.as_path());
        let path = CString::new(joined.unwrap_or(Path::new("/")).as_os_str().as_bytes()).unwrap_or_default();
        return open(path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, stat::Mode::empty())
            .doing(|| "open the user namespace for an id-mapped mount".to_owned());
    }
    crate::spawn::parent::user_namespace(&maps.0, &maps.1)
}
