//! The parent's side: clones init and answers its messages.

use std::{
    convert::Infallible,
    ffi::CString,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use corten_sys::process::{self, Forked, Namespaces, namespace_kind, setns};
use nix::{
    fcntl::{OFlag, open},
    libc,
    sys::stat::Mode,
};

use super::{
    idmap,
    init::{self, Creation, Wires},
    join,
    sync::{self, Channel, FromInit, FromParent},
};
use crate::{
    Error, Result,
    error::Doing,
    failpoint::Failpoint,
    plan::{Join, NamespacePlan},
    privilege::is_unprivileged,
    procfs::Proc,
};

/// Init as the parent knows it.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: Channel,
    /// Whether it was born in its v2 cgroup, and there is no other to join.
    pub(crate) born_there: bool,
}

/// Opens the namespaces to join, and makes sure that they're of their kind.
pub(crate) fn open_joins(joins: &[Join]) -> Result<Vec<(Namespaces, OwnedFd)>> {
    joins.iter().map(|join| Ok((join.kind, open_namespace(&join.path, join.kind)?))).collect()
}

fn open_namespace(path: &Path, kind: Namespaces) -> Result<OwnedFd> {
    let doing = || format!("join the namespace {}", path.display());
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from).doing(doing)?;
    let file = open(c_path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).doing(doing)?;
    match namespace_kind(file.as_fd()) {
        Ok(found) if found == kind => Ok(file),
        Ok(found) => Err(other_kind(&format!("it is a namespace of type {found}, not {kind}"))).doing(doing),
        Err(_) => Err(other_kind("it isn't a namespace")).doing(doing),
    }
}

fn other_kind(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.to_owned())
}

/// clone3 into the v2 part of the cgroup, where there is one and the kernel can; says in `wires` which it was.
/// (Containers on a kernel that can't, or in a threaded or invalid domain, walk in like on v1.)
pub(crate) fn clone_into(wires: &mut Wires, new: Namespaces) -> io::Result<Forked> {
    if let Some(directory) = wires.entrance.birthplace() {
        wires.born_there = true;
        match process::clone(new, Some(directory), false) {
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    // EAGAIN: pids.max is reached, at 0 from the beginning; to walk in is allowed all the same.
                    Some(libc::EOPNOTSUPP | libc::EINVAL | libc::E2BIG | libc::EBUSY | libc::EAGAIN)
                ) => {}
            // Who may write there may still not move anything from where we are: as in a login by SSH, which isn't
            // below the user's systemd.
            Err(e) if wires.unprivileged && e.raw_os_error() == Some(libc::EACCES) => {
                let why = format!(
                    "this user may not bring processes from the cgroup we are in to {}: start it below the user's own \
                     service manager, as with systemd-run --user --scope",
                    wires.place.display()
                );
                return Err(io::Error::new(e.kind(), why));
            }
            other => return other,
        }
    }
    wires.born_there = false;
    process::clone(new, None, false)
}

/// Clones init for `create`.
pub(crate) fn spawn_create(ours: Channel, mut wires: Wires, creation: &Creation<'_>) -> Result<Child> {
    let plan = &creation.plan.namespaces;
    // The cgroup namespace comes later, when init is in its cgroup; the time namespace only by unshare.
    let new = plan.new.difference(Namespaces::CGROUP | Namespaces::TIME);
    if !wires.unprivileged {
        // Before there's a process of ours beside others of a PID namespace: they mustn't look into it (CVE-2016-9962).
        process::not_dumpable().doing(|| "become undumpable".to_owned())?;
    }
    if needs_intermediate(plan) {
        let join = |wires: &Wires| join::join_first(wires, creation.plan);
        return through_helper(ours, wires, new, join, |wires| init::create(wires, creation));
    }
    // A joined PID namespace is entered by being born in it: only we can arrange that, for our children.
    let pid =
        wires.join.iter().position(|(kind, _)| *kind == Namespaces::PID).map(|i| wires.join.remove(i).1);
    let forked = born_in(pid.as_ref(), "clone container init", || clone_into(&mut wires, new))?;
    match forked {
        Forked::Parent { pid, pidfd } => {
            let born_there = wires.born_there && wires.entrance.only_by_birth();
            Ok(Child { pid, pidfd, channel: ours, born_there })
        }
        Forked::Child => {
            // Ours is the parent's end: with it open we'd never notice the parent's death.
            drop(ours);
            init::live(wires, |wires| init::create(wires, creation))
        }
    }
}

/// Runs `clone`, which is called `operation`, so that the child is born in the given PID namespace (an open one, or a
/// pidfd of one of its members), and comes back to our own: our later children are to be born there.
pub(crate) fn born_in(
    namespace: Option<&OwnedFd>,
    operation: &str,
    clone: impl FnOnce() -> io::Result<Forked>,
) -> Result<Forked> {
    let doing = || operation.to_owned();
    let Some(namespace) = namespace else { return clone().doing(doing) };
    let own = open_namespace(Path::new("/proc/self/ns/pid"), Namespaces::PID)?;
    setns(namespace.as_fd(), Namespaces::PID).doing(|| "join the PID namespace".to_owned())?;
    let forked = clone().doing(doing);
    if !matches!(forked, Ok(Forked::Child)) {
        // Hooks are to run in ours, and whatever else the caller starts.
        setns(own.as_fd(), Namespaces::PID).doing(|| "return to our PID namespace".to_owned())?;
    }
    forked
}

/// Whether something has to be joined before the new namespaces are made: these belong to the user namespace that
/// we're in at that time, and joining what the host owns is no longer possible from a new one.
fn needs_intermediate(plan: &NamespacePlan) -> bool {
    plan.joins(Namespaces::USER).is_some()
        || plan.new.contains(Namespaces::USER) && !plan.join.is_empty()
        || plan.new.contains(Namespaces::TIME)
}

/// Clones a process that does what `prepare` says, and then clones init, as our child, with the `new` namespaces.
pub(crate) fn through_helper(
    ours: Channel,
    mut wires: Wires,
    new: Namespaces,
    prepare: impl FnOnce(&Wires) -> Result<()>,
    live: impl FnOnce(&Wires) -> Result<Infallible>,
) -> Result<Child> {
    // A channel of its own: it ends with the intermediate process, whatever init does.
    let (report, reporter) = sync::pair()?;
    let forked = clone_into(&mut wires, Namespaces::empty());
    let forked = forked.doing(|| "clone an intermediate process".to_owned())?;
    let Forked::Parent { pid: helper, .. } = forked else {
        drop((ours, report));
        match join::help(&wires, &reporter, new, prepare) {
            Ok(true) => process::exit(0),
            Ok(false) => {
                drop(reporter);
                // All that is joined, is.
                wires.join.clear();
                wires.joined = true;
                init::live(wires, live)
            }
            Err(error) => {
                reporter.tell(&FromInit::Failed(error)).ok(); // because the parent sees that we've failed
                process::exit(1)
            }
        }
    };
    let born_there = wires.born_there && wires.entrance.only_by_birth();
    drop((wires, reporter));
    let heard = report.hear();
    let status = process::wait(helper).doing(|| "wait for the intermediate process".to_owned())?;
    match heard? {
        Some(FromInit::Born { pid, pidfd }) => Ok(Child { pid, pidfd, channel: ours, born_there }),
        Some(FromInit::Failed(error)) => Err(error),
        _ => Err(Error::InitDied {
            during: "joining namespaces",
            status: format!("the intermediate process exited with {status}"),
        }),
    }
}

impl Child {
    /// Writes the mappings of a new user namespace, for which init waits.
    pub(crate) fn map_ids(&self, plan: &NamespacePlan) -> Result<()> {
        if !plan.new.contains(Namespaces::USER) {
            return Ok(());
        }
        idmap::write(self.pid, plan)?;
        self.channel.order(FromParent::Mapped)
    }

    /// Sets how likely the OOM killer is to take it. What we may not set (lower than ours, without
    /// CAP_SYS_RESOURCE) stays, with a warning.
    pub(crate) fn oom_score(&self, score: Option<i32>) -> Result<()> {
        // Without privileges it's init's own affair: see `init::hide`.
        let Some(score) = score.filter(|_| !is_unprivileged()) else { return Ok(()) };
        match Proc::mounted().and_then(|proc| proc.write_of(self.pid, "oom_score_adj", &score.to_string())) {
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
                tracing::warn!(
                    score,
                    "may not lower oom_score_adj: it stays as it is (CAP_SYS_RESOURCE is missing)"
                );
                Ok(())
            }
            // It has died: that is noticed, with its last words, when it's listened to.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(()),
            other => other.doing(|| format!("set oom_score_adj of init to {score}")),
        }
    }

    /// Init's next message that isn't a warning (those go to the log); an error if it failed or died.
    pub(crate) fn hear(&self, during: &'static str) -> Result<FromInit> {
        match self.hear_or_end()? {
            Some(message) => Ok(message),
            None => Err(self.died(during)),
        }
    }

    /// As [`Self::hear`], but None if init has closed its end.
    pub(crate) fn hear_or_end(&self) -> Result<Option<FromInit>> {
        loop {
            match self.channel.hear()? {
                Some(FromInit::Warning(text)) => tracing::warn!("{text}"),
                Some(FromInit::Failed(error)) => return Err(error),
                other => return Ok(other),
            }
        }
    }

    /// Init's end without a word, with how it ended.
    pub(crate) fn died(&self, during: &'static str) -> Error {
        let status = process::wait(self.pid).map_or_else(
            |e| e.to_string(),
            |code| match code {
                129.. => format!("killed by signal {}", code - 128),
                code => format!("exit status {code}"),
            },
        );
        Error::InitDied { during, status }
    }
}

/// Kills a child and waits until it is gone.
pub(crate) fn kill(pid: i32, pidfd: &OwnedFd) -> Result<()> {
    process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok(); // because it may be gone already
    process::wait(pid).map(drop).or_else(|e| match e.raw_os_error() {
        // Reaped already.
        Some(libc::ECHILD) => Ok(()),
        _ => Err(e).doing(|| format!("wait for process {pid}")),
    })
}

/// A user namespace with these mappings, of which nobody is a member any more: for id-mapped mounts.
pub(crate) fn user_namespace(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    let doing = || "make a user namespace for an id-mapped mount".to_owned();
    let us = nix::unistd::getpid();
    let (pid, pidfd) = match process::clone(Namespaces::USER, None, false).doing(doing)? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => loop {
            // Whoever holds it must not outlive us.
            let tied = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
            if tied.is_err() || nix::unistd::getppid() != us {
                process::exit(1);
            }
            nix::unistd::pause();
        },
    };
    let made = Failpoint::CreateIdmap
        .hit()
        .and_then(|()| Proc::mounted())
        .and_then(|proc| {
            proc.write_of(pid, "uid_map", uid_map).and_then(|()| proc.write_of(pid, "gid_map", gid_map))
        })
        .and_then(|()| fs::File::open(format!("/proc/{pid}/ns/user")));
    kill(pid, &pidfd)?;
    made.map(OwnedFd::from).doing(doing)
}
