//! `exec`: a further process in a running container.

use std::os::fd::{AsFd, OwnedFd};

use corten_sys::process::{Forked, Namespaces, not_dumpable};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use oci_spec::runtime::Process;

use crate::{
    Error, ExecOptions, Outcome, Result, Runtime, Status,
    alone::alone,
    cgroup::CgroupDoing,
    create::{connect, keyring, send_pidfd},
    descriptors::{inherited_descriptors, listen_fds},
    error::{Doing, chain},
    failpoint::Failpoint,
    filter,
    foreground::Foreground,
    pid_file,
    plan::{
        self, Circumstances, ProcessPlan,
        annotations::{KEEP_GROUPS, keeps_groups},
    },
    privilege::{in_user_namespace, is_unprivileged, may_set_groups},
    query::Now,
    record::Record,
    spawn::{
        init::{self, Wires},
        join::{self, Entry},
        parent::{Child, born_in, clone_into, kill, through_helper},
        sync::{self, Channel, FromInit, FromParent},
    },
    support,
};

impl Runtime {
    /// Runs a further process, a child of the calling one, in the container, and unless detached waits for it, passing
    /// signals on.
    ///
    /// # Errors
    /// The process is then gone; the container isn't touched.
    ///
    /// - of the call: [`Error::Threads`]; [`Error::Process`] if `options.process` asks for what can't be;
    ///   [`Error::Unsupported`];
    /// - of the container: [`Error::NotFound`]; [`Error::Status`] if it is stopped or paused; [`Error::Record`];
    ///   [`Error::Cgroup`], [`Error::CgroupBusy`];
    /// - of the process: [`Error::Program`] if the program can't be executed; [`Error::Init`], [`Error::InitDied`],
    ///   [`Error::Os`].
    #[inline(never)]
    pub fn exec(&self, id: &str, options: &ExecOptions) -> Result<Outcome> {
        alone("run a process in a container")?;
        // Before anything is opened.
        let keep = inherited_descriptors(options.preserve_fds)?;
        let now = self.now(id)?;
        let wrong = || Error::Status { id: id.to_owned(), status: now.status, operation: "exec" };
        match now.status {
            Status::Running | Status::Created => {}
            Status::Paused if options.ignore_paused => {}
            _ => return Err(wrong()),
        }
        let Some(target) = &now.init else { return Err(wrong()) };
        Failpoint::ExecLoaded.pass()?;
        let circumstances = Circumstances { listen_fds: listen_fds(), ..Circumstances::default() };
        let mut plan = plan::exec(&with_affinity(&options.process, &now.record.process), circumstances)
            .map_err(|problems| Error::Process { problems })?;
        plan.keep_groups = keeps_groups(now.record.annotations.get(KEEP_GROUPS));
        support::process(&plan)?;
        let result = spawn(&now, target, &plan, options, keep).and_then(|(child, ours)| {
            let pid = child.pid;
            tracing::debug!("container {id}: process {pid} has been born for exec");
            attend(child, ours, &now.record, &plan, options).map_err(|(error, child)| {
                if let Err(left) = kill(pid, &child) {
                    return left;
                }
                match options.pid_file.as_deref().map_or(Ok(()), |path| pid_file::remove(path, pid)) {
                    Ok(()) => error,
                    Err(left) => Error::Undo { error: Box::new(error), left: vec![chain(&left)] },
                }
            })
        });
        // Whatever went wrong in a container that ended meanwhile, that is why: its namespaces are dying.
        result.map_err(|error| match has_ended(target, &error) {
            true => Error::Status { id: id.to_owned(), status: Status::Stopped, operation: "exec" },
            false => error,
        })
    }
}

/// Whether the container's init has ended. A process that is ending has lost its namespaces (ESRCH), and nobody can be
/// born in a PID namespace without init (ENOMEM), some time before its end can be seen: that is then waited for.
fn has_ended(process: &OwnedFd, error: &Error) -> bool {
    let ending = matches!(error.errno(), Some(libc::ESRCH | libc::ENOMEM));
    let timeout = if ending { PollTimeout::from(2000_u16) } else { PollTimeout::ZERO };
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, timeout).is_ok_and(|n| n > 0)
}

/// The CPUs for further processes are the container's affair: a process.json without any gets those of config.json.
fn with_affinity(process: &Process, container: &Process) -> Process {
    let mut process = process.clone();
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(container.exec_cpu_affinity().clone());
    }
    process
}

fn spawn(
    now: &Now,
    target: &OwnedFd,
    plan: &ProcessPlan,
    options: &ExecOptions,
    keep: u32,
) -> Result<(Child, OwnedFd)> {
    let (ours, theirs) = sync::pair()?;
    let mut wires = wires(now, theirs, plan, options, keep)?;
    let join = Namespaces::from_bits_retain(now.record.namespaces);
    let root = own_root(now)?;
    let keyring = now.record.keyring.then(|| keyring(&now.home.id)).flatten();
    let entry = Entry {
        join,
        target,
        root: root.as_ref(),
        personality: now.record.personality,
        keyring: keyring.as_deref(),
        memory_policy: now.record.memory_policy.as_ref(),
    };
    // The container's own /proc could say anything; and what holds for its user namespace, holds for all below it.
    let setgroups = !(join.contains(Namespaces::USER) || in_user_namespace())
        || may_set_groups(&now.record.init.pid.to_string());
    let child = if wires.unprivileged && join.contains(Namespaces::USER) {
        // The other namespaces belong to the user namespace: it has to be entered first, and not by us.
        let first = join & (Namespaces::USER | Namespaces::PID);
        let enter = |wires: &Wires| join::enter_first(wires, plan, first, target);
        let entry = Entry { join: join.difference(Namespaces::USER), ..entry };
        through_helper(ours, wires, Namespaces::empty(), enter, |wires| {
            join::exec(wires, plan, entry, setgroups)
        })?
    } else {
        // Before there's a process of ours in the container: nobody there must look into it (CVE-2016-9962).
        not_dumpable().doing(|| "become undumpable".to_owned())?;
        let inside = join.contains(Namespaces::PID).then_some(target);
        let operation = format!("enter container {}", now.home.id);
        match born_in(inside, &operation, || clone_into(&mut wires, Namespaces::empty()))? {
            Forked::Parent { pid, pidfd } => {
                Child { pid, pidfd, channel: ours, born_there: wires.born_there }
            }
            Forked::Child => {
                drop(ours);
                init::live(wires, |wires| join::exec(wires, plan, entry, setgroups))
            }
        }
    };
    let copy = child.pidfd.try_clone().doing(|| "duplicate a pidfd".to_owned())?;
    Ok((child, copy))
}

/// The container's root directory, if joining its mount namespace doesn't lead there.
fn own_root(now: &Now) -> Result<Option<OwnedFd>> {
    if now.record.shared_mounts.is_none() {
        return Ok(None);
    }
    let path = format!("/proc/{}/root", now.record.init.pid);
    std::fs::File::open(&path).map(|root| Some(root.into())).doing(|| format!("open {path}"))
}

fn wires(now: &Now, channel: Channel, plan: &ProcessPlan, options: &ExecOptions, keep: u32) -> Result<Wires> {
    let record = &now.record;
    let damaged = || Error::Record {
        operation: "read",
        id: record.id.clone(),
        source: "its seccomp filter is damaged".into(),
    };
    let load = |flags| Ok((filter::from_bytes(&now.filter).ok_or_else(damaged)?, flags));
    let seccomp = record.seccomp.map(load).transpose()?;
    let cgroup = &record.cgroup;
    let entrance = match parse_cgroups(&options.cgroups) {
        Below::Same => cgroup.entrance_beside(record.init.pid),
        Below::All(path) => cgroup.entrance_below(path),
        Below::Some(list) => cgroup.entrance_by_controller(&list),
    };
    Ok(Wires {
        channel,
        entrance: entrance.cgroup("open", cgroup.path())?,
        born_there: false,
        joined: false,
        unprivileged: is_unprivileged(),
        place: cgroup.path().to_owned(),
        join: Vec::new(),
        console: connect(options.console_socket.as_deref(), plan.terminal, !options.detach)?
            .map(OwnedFd::from),
        fifo: None,
        keep,
        seccomp,
    })
}

enum Below {
    Same,
    All(String),
    Some(Vec<(String, std::path::PathBuf)>),
}

/// `path` for all hierarchies, or `controller[,controller]:path` for some.
fn parse_cgroups(options: &[String]) -> Below {
    let mut some = Vec::new();
    for option in options {
        match option.split_once(':') {
            None => return Below::All(option.clone()),
            Some((names, path)) => some.extend(names.split(',').map(|name| (name.to_owned(), path.into()))),
        }
    }
    if some.is_empty() { Below::Same } else { Below::Some(some) }
}

/// The parent's script, from the child's birth until it runs, and unless detached until it ends.
fn attend(
    child: Child,
    pidfd: OwnedFd,
    record: &Record,
    plan: &ProcessPlan,
    options: &ExecOptions,
) -> Result<Outcome, (Error, OwnedFd)> {
    let relay = plan.terminal && options.console_socket.is_none() && !options.detach;
    let begin = || -> Result<Option<OwnedFd>> {
        Failpoint::ExecCloned.pass()?;
        child.oom_score(plan.oom_score_adj)?;
        if let Some(path) = &options.pidfd_socket {
            send_pidfd(path, &child.pidfd)?;
        }
        if let Some(path) = &options.pid_file {
            pid_file::write(path, child.pid)?;
            Failpoint::ExecPidFile.pass()?;
        }
        if let Some(groups) = &record.rdt {
            groups.enter(child.pid)?;
        }
        let mut terminal = None;
        if let Some(agent) = &record.agent {
            let number = loop {
                match child.hear("loading the seccomp filter")? {
                    FromInit::Terminal(master) => terminal = Some(master),
                    FromInit::Listener(number) => break number,
                    _ => {}
                }
            };
            agent.hand_over(&child, number, &record.state(Status::Running))?;
        }
        child.channel.order(FromParent::Go).ok(); // because a child that has died says why below
        Failpoint::ExecGo.pass()?;
        while let Some(message) = child.hear_or_end()? {
            if let FromInit::Terminal(master) = message {
                terminal = Some(master);
            }
        }
        Failpoint::ExecRuns.pass()?;
        Ok(terminal)
    };
    let foreground = if options.detach { None } else { Some(Foreground::begin(false)) };
    match (begin(), foreground) {
        (Ok(_), None) => Ok(Outcome::Detached(child.pid)),
        (Ok(terminal), Some(foreground)) => {
            let code = foreground.and_then(|f| f.wait(child.pid, &child.pidfd, terminal.filter(|_| relay)));
            code.map(Outcome::Exited).map_err(|e| (e, pidfd))
        }
        (Err(e), _) => Err((e, pidfd)),
    }
}
