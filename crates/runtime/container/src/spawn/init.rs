//! Init's side: one flat list, [`create`], each step in an order that has a reason; and what it shares with the list of
//! a further process, [`super::join::exec`].

use std::{
    convert::Infallible,
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use corten_cgroups::Entrance;
use corten_sys::{
    exec as sys_exec, keyring, net,
    process::{self, Namespaces, exit},
    seccomp, signal,
};
use nix::{
    libc,
    sys::stat::{Mode, umask},
    unistd::setsid,
};
use oci_spec::runtime::Hook;

use super::{
    join::join_namespaces,
    sync::{Channel, FromInit, FromParent, encode_failure},
};
use crate::{
    Error, Result, State, Status,
    error::Doing,
    failpoint::Failpoint,
    hooks::{self, Output, Prepared, Surroundings},
    plan::{Plan, ProcessPlan},
    privilege::may_set_groups,
    steps::{console, dev, execve, filter, limits, lsm, mask, mount, rootfs, sysctl, user},
};

/// What the parent has opened for init before cloning it.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) channel: Channel,
    /// The way into the cgroup.
    pub(crate) entrance: Entrance,
    /// Whether clone3 has done the v2 part.
    pub(crate) born_there: bool,
    /// Whether an intermediate process has joined cgroups and namespaces already.
    pub(crate) joined: bool,
    /// Whether only the new user namespace gives us privileges.
    pub(crate) unprivileged: bool,
    /// The cgroup's path, for errors.
    pub(crate) place: PathBuf,
    /// Namespaces to join, in order.
    pub(crate) join: Vec<(Namespaces, OwnedFd)>,
    /// Connected to the console socket.
    pub(crate) console: Option<OwnedFd>,
    /// The exec fifo, for create.
    pub(crate) fifo: Option<OwnedFd>,
    /// Number of descriptors from 3 on that the program inherits.
    pub(crate) keep: u32,
    /// The compiled filter and its flags.
    pub(crate) seccomp: Option<(Vec<seccomp::Instruction>, u64)>,
}

/// What only `create` needs.
#[derive(Debug)]
pub(crate) struct Creation<'a> {
    pub(crate) plan: &'a Plan,
    /// None: init has to open them.
    pub(crate) sources: Option<Sources>,
    /// Name of the session keyring to join.
    pub(crate) keyring: Option<CString>,
    pub(crate) no_pivot: bool,
    /// For the hooks that init runs; the pid is filled in.
    pub(crate) state: State,
    /// Where the output of hooks goes.
    pub(crate) output: Output,
}

/// What is mounted from the host, opened.
#[derive(Debug)]
pub(crate) struct Sources {
    mounts: Vec<Option<mount::Source>>,
    devices: Vec<Option<OwnedFd>>,
}

impl Sources {
    /// Opens everything that the plan mounts from the host.
    pub(crate) fn open(plan: &Plan) -> Result<Self> {
        Ok(Self {
            mounts: mount::open_sources(plan, &|mount| crate::create::idmap_namespace(plan, mount))?,
            devices: dev::open_sources(plan)?,
        })
    }
}

/// Runs one of the lists to its end, which is execve, or a message and death.
pub(crate) fn live(wires: Wires, list: impl FnOnce(&Wires) -> Result<Infallible>) -> ! {
    let Err(error) = list(&wires);
    // Once started, nobody listens on the channel any more: `start` finds the error in the fifo.
    let told = wires.channel.tell(&FromInit::Failed(error));
    drop(told);
    exit(1)
}

/// Container init, from the first breath to the program.
pub(crate) fn create(wires: &Wires, creation: &Creation<'_>) -> Result<Infallible> {
    let plan = creation.plan;
    let root = enter_namespaces(wires, creation)?;
    let setgroups = !plan.in_user_namespace || may_set_groups("self");
    let own = creation.sources.is_none().then(|| Sources::open(plan)).transpose()?;
    let sources = creation.sources.as_ref().or(own.as_ref());
    let (mounts, devices) = sources.map(|s| (&s.mounts[..], &s.devices[..])).unwrap_or_default();
    let late = mount::all(root.as_fd(), plan, mounts)?;
    Failpoint::InitMounts.pass()?;
    dev::populate(root.as_fd(), &plan.devices, devices)?;
    Failpoint::InitDevices.pass()?;
    drop(own);
    make_cwd(&root, &plan.process);
    hooks_before_pivot(wires, creation)?;
    Failpoint::InitHooks.pass()?;
    // From the container's own devpts; its slave becomes /dev/console, so before the root may become read-only.
    if plan.process.terminal {
        let socket = wires.console.as_ref().map(AsFd::as_fd);
        console::set_up(root.as_fd(), &plan.process, socket, &wires.channel, true)?;
    }
    // Sysctls before /proc/sys becomes read-only for everybody.
    sysctl::set(plan)?;
    mask::readonly(root.as_fd(), plan)?;
    mask::masked(root.as_fd(), plan)?;
    late.finish()?;
    rootfs::enter(root.as_fd(), &plan.rootfs, creation.no_pivot, plan.namespaces.own_mounts())?;
    rootfs::finish(root.as_fd(), &plan.rootfs)?;
    Failpoint::InitPivot.pass()?;
    drop(root);
    dev::own_null()?;
    if let Some(fifo) = &wires.fifo {
        // Until `start` others in the PID namespace may look at us: there's nothing of the host's to be had (cgroups, devices,
        // what our caller left open), but for the files that crun's annotations name for the output of startContainer hooks: they
        // can't be opened from inside.
        let mut needed = vec![wires.channel.as_fd(), fifo.as_fd()];
        needed.extend(corten_state::failpoint::trace());
        needed.extend(creation.output.files().filter(|_| has_hooks(plan.hooks.start_container())));
        sys_exec::close_but(3 + wires.keep, &needed)
            .doing(|| "close what init doesn't need any more".to_owned())?;
        end_when_told()?;
    }
    sysctl::names(plan)?;
    limits::domain(plan.personality, plan.memory_policy.as_ref())?;
    // They run under the filter, which may forbid what it takes to prepare them.
    let state = State { pid: pid_inside(), status: Status::Created, ..creation.state.clone() };
    let hooks = Prepared::alone("startContainer", plan.hooks.start_container().as_ref(), &state)?;
    let path = become_process(wires, &plan.process, setgroups)?;
    Failpoint::InitProcess.pass()?;
    if wires.fifo.is_some() {
        wires.channel.tell(&FromInit::Ready)?;
        Failpoint::InitReady.pass()?;
    }
    wires.channel.await_order(FromParent::Go)?;
    Failpoint::InitGo.pass()?;
    run_program(wires, creation, hooks, path)
}

/// Everything up to having a mount of the rootfs.
fn enter_namespaces(wires: &Wires, creation: &Creation<'_>) -> Result<OwnedFd> {
    let plan = creation.plan;
    Failpoint::InitBorn.pass()?;
    // Before the cgroup namespace, whose root is where we are when it is made.
    join_cgroups(wires)?;
    Failpoint::InitCgroup.pass()?;
    // After it, as the cpuset decides which CPUs there are.
    limits::all_cpus();
    if plan.namespaces.new.contains(Namespaces::USER) {
        wires.channel.await_order(FromParent::Mapped)?;
    }
    if plan.namespaces.new.contains(Namespaces::USER) || !wires.joined {
        hide(wires, &plan.process)?;
    }
    if plan.namespaces.user() {
        process::set_user(0, 0, None).doing(|| "become root of the user namespace".to_owned())?;
    }
    setsid().doing(|| "start a session".to_owned())?;
    join_namespaces(wires)?;
    if plan.namespaces.new.contains(Namespaces::CGROUP) {
        process::unshare(Namespaces::CGROUP).doing(|| "make a cgroup namespace".to_owned())?;
    }
    if let Some(name) = &creation.keyring {
        lsm::with_key_label(&plan.process, || session_keyring(wires, name))?;
    }
    if plan.namespaces.new.contains(Namespaces::NET) {
        net::loopback_up().doing(|| "set the loopback device up".to_owned())?;
    }
    // Modes are what they're said to be until the program's umask is set.
    umask(Mode::empty());
    Failpoint::InitNamespaces.pass()?;
    let own = plan.namespaces.own_mounts();
    let root = rootfs::prepare(&plan.rootfs, own)?;
    if !own {
        wires.channel.tell(&FromInit::Rooted)?;
    }
    Ok(root)
}

/// Joins the cgroups that the parent has opened, as far as we weren't born there.
pub(crate) fn join_cgroups(wires: &Wires) -> Result<()> {
    if wires.joined {
        return Ok(());
    }
    wires.entrance.enter(wires.born_there).map_err(|e| Error::Cgroup {
        operation: "join",
        path: wires.place.clone(),
        source: e.into(),
    })
}

/// Nobody who shares a PID namespace with us may look into us (CVE-2019-5736, CVE-2016-9962). A privileged parent has
/// seen to it before it cloned us. Others can't, as they couldn't write our id maps then, nor our OOM score,
/// which we therefore set ourselves.
pub(crate) fn hide(wires: &Wires, process: &ProcessPlan) -> Result<()> {
    if wires.unprivileged {
        limits::oom_score(process.oom_score_adj, |text| warn(wires, text))?;
        process::not_dumpable().doing(|| "become undumpable".to_owned())?;
    }
    Ok(())
}

pub(super) fn warn(wires: &Wires, text: String) {
    wires.channel.tell(&FromInit::Warning(text)).ok(); // because the parent's death is noticed where it matters
}

/// Joins the container's session keyring, which its further processes find by its name.
pub(super) fn session_keyring(wires: &Wires, name: &CStr) {
    let joined = keyring::join_session(name).and_then(keyring::allow_user_search);
    if let Err(e) = joined {
        // Kernels without keyrings, and quotas, are no reason not to run: runc only warns too.
        warn(wires, format!("no session keyring of its own for the container: {e}"));
    }
}

/// The working directory is made if it's missing, as runc does; that it can't be is found out by changing into it.
fn make_cwd(root: &OwnedFd, process: &ProcessPlan) {
    use std::os::unix::ffi::OsStrExt;
    if process.cwd.as_os_str() == "/" {
        return;
    }
    if let Ok(path) = CString::new(process.cwd.as_os_str().as_bytes()) {
        use crate::steps::target::{Make, open_or_make};
        open_or_make(root.as_fd(), &path, Make::Directory).map(drop).ok(); // because chdir will tell
    }
}

/// prestart and createRuntime are the parent's, createContainer ours: in our namespaces, with the host's files.
fn hooks_before_pivot(wires: &Wires, creation: &Creation<'_>) -> Result<()> {
    let hooks = &creation.plan.hooks;
    if waits_for_hooks(creation.plan) {
        wires.channel.tell(&FromInit::Mounted)?;
        wires.channel.await_order(FromParent::Continue)?;
    }
    let state = State { pid: pid_inside(), ..creation.state.clone() };
    hooks::run(
        "createContainer",
        hooks.create_container().as_ref(),
        &state,
        // As runc does it, and hooks count on: they see to the root file system that is about to become the root.
        if creation.plan.hooks_start_in_bundle { &state.bundle } else { &creation.plan.rootfs.path },
        &Surroundings::Ours,
        &creation.output,
    )
}

/// Whether init stops before pivot_root until the parent has run its hooks.
pub(crate) fn waits_for_hooks(plan: &Plan) -> bool {
    has_hooks(plan.hooks.prestart()) || has_hooks(plan.hooks.create_runtime())
}

fn has_hooks(hooks: &Option<Vec<Hook>>) -> bool {
    hooks.as_ref().is_some_and(|hooks| !hooks.is_empty())
}

fn pid_inside() -> i32 {
    std::process::id().cast_signed()
}

/// Limits, labels, identity: what is the same for init and exec. Returns the program's path.
pub(super) fn become_process(wires: &Wires, plan: &ProcessPlan, setgroups: bool) -> Result<CString> {
    lsm::apply(plan)?;
    limits::priorities(plan)?;
    limits::rlimits(&plan.rlimits, |text| warn(wires, text))?;
    let entered = user::enter_directory(plan)?;
    if plan.no_new_privileges {
        process::no_new_privs().doing(|| "set no_new_privs".to_owned())?;
    } else {
        // Without no_new_privs loading a filter needs CAP_SYS_ADMIN, which is about to go.
        filter::load(wires)?;
    }
    user::become_user(plan, entered, setgroups, &mut |text| warn(wires, text))?;
    let path = execve::find(plan)?;
    if plan.no_new_privileges && !filter::loads_late(wires, plan) {
        filter::load(wires)?;
    }
    Ok(path)
}

/// Whoever stops a container before it is started shall not have to wait until he loses patience: as PID 1 we'd get none of these
/// without a handler, and any of us may have inherited them blocked or ignored. Which they are is runc's choice.
/// [`become_program`] undoes it.
fn end_when_told() -> Result<()> {
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM]
        .into_iter()
        .try_for_each(signal::exit_on)
        .doing(|| "end by signals before the program runs".to_owned())
}

/// After Go: waits for `start` if this is create, then hooks, filter and program.
fn run_program(
    wires: &Wires,
    creation: &Creation<'_>,
    hooks: Option<Prepared<'_>>,
    path: CString,
) -> Result<Infallible> {
    let Some(fifo) = &wires.fifo else {
        return finish(wires, creation, hooks, path);
    };
    let mut byte = [0];
    loop {
        match nix::unistd::read(fifo, &mut byte) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.map(drop).doing(|| "wait for start".to_owned())?,
        }
    }
    let Err(error) = Failpoint::InitStarted.pass().and_then(|()| finish(wires, creation, hooks, path));
    // `start` reads this once nobody holds the fifo open for reading, that is when we're gone.
    let bytes = encode_failure(&error);
    nix::unistd::write(fifo, bytes.get(..4096).unwrap_or(&bytes)).ok(); // because there's nobody else to tell
    exit(1)
}

fn finish(
    wires: &Wires,
    creation: &Creation<'_>,
    hooks: Option<Prepared<'_>>,
    path: CString,
) -> Result<Infallible> {
    let plan = creation.plan;
    let env = environment(&plan.process)?;
    if filter::loads_late(wires, &plan.process) {
        // As late as can be: fewer system calls of ours that a profile would have to allow. But before the hooks, which run
        // in the container like the program: as in runc.
        filter::load(wires)?;
    }
    if let Some(hooks) = hooks {
        hooks.run(std::path::Path::new("/"), &Surroundings::Of(&env), &creation.output)?;
    }
    become_program(wires, &plan.process, path, env)
}

/// The program's environment.
pub(super) fn environment(plan: &ProcessPlan) -> Result<Vec<CString>> {
    let mut env = plan.env.clone();
    if plan.needs_home {
        env.push(user::home(plan.uid)?);
    }
    Ok(env)
}

pub(super) fn become_program(
    wires: &Wires,
    plan: &ProcessPlan,
    path: CString,
    env: Vec<CString>,
) -> Result<Infallible> {
    signal::reset().doing(|| "reset signals".to_owned())?;
    for number in 3..3 + wires.keep {
        sys_exec::keep_on_exec(number.cast_signed())
            .doing(|| format!("pass on descriptor {number}: is it open?"))?;
    }
    Failpoint::InitExec.pass()?;
    Err(execve::execve(&path, plan.args.clone(), env))
}
