//! What keeps a pod's namespaces: a thread of the shim that is in them and sleeps.
//!
//! `/proc/<tid>/ns/{net,ipc,uts}` is where containers join them, so the thread is what a pause process is elsewhere,
//! for the price of a stack. Where containers shall share PIDs, someone must be PID 1; where they shall share users, a
//! process must be in that namespace, which a thread can't: there the thread starts an init, in the same namespaces.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc;

use corten_sys::net::loopback_up;
use corten_sys::process::{Namespaces, setns, unshare};
use nix::fcntl::OFlag;
use nix::unistd::{gettid, sethostname};
use tokio::sync::oneshot;

use super::{Init, Net, Plan};

/// It does next to nothing.
const STACK: usize = 128 << 10;

/// Keeps the namespaces until it is dropped.
#[derive(Debug)]
pub(crate) struct Holder {
    thread: u32,
    /// PID 1 of the pod.
    init: Option<Init>,
    /// While there is a sender the thread waits.
    _keep: mpsc::Sender<()>,
}

impl Holder {
    /// Makes the namespaces. Whoever calls holds exits of children, so that an init's isn't missed.
    pub(crate) async fn start(plan: Plan) -> io::Result<Self> {
        let (keep, kept) = mpsc::channel::<()>();
        let (done, result) = oneshot::channel();
        std::thread::Builder::new().name("pod".to_owned()).stack_size(STACK).spawn(move || {
            let result = enter(&plan);
            let go_on = result.is_ok();
            if done.send(result).is_ok() && go_on {
                let _ = kept.recv(); // ends when the sender is dropped
            }
        })?;
        let gone = |_| io::Error::other("the pod's thread has died");
        let (thread, init) = result.await.map_err(gone)??;
        let mut holder = Self { thread, init, _keep: keep };
        if let Some(init) = &mut holder.init {
            init.ready().await?;
        }
        Ok(holder)
    }

    /// Whose namespaces are the pod's.
    pub(crate) fn pid(&self) -> u32 {
        self.init().unwrap_or(self.thread)
    }

    /// PID 1 of the pod, if it has one.
    pub(crate) fn init(&self) -> Option<u32> {
        self.init.as_ref().map(Init::pid)
    }
}

/// On the pod's thread. The thread, and the init if there is one.
fn enter(plan: &Plan) -> io::Result<(u32, Option<Init>)> {
    let thread = gettid().as_raw().cast_unsigned();
    if let Net::Given(path) = &plan.net {
        // Should it be a fifo, nobody has to come.
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let file = file.map_err(|e| named(&format!("open {}", path.display()), &e))?;
        setns(file.as_fd(), Namespaces::NET).map_err(|e| named(&format!("join {}", path.display()), &e))?;
    }
    let mut new = Namespaces::UTS;
    if plan.net == Net::Host {
        new = Namespaces::empty();
    }
    new.set(Namespaces::NET, plan.net == Net::New);
    new.set(Namespaces::IPC, plan.ipc);
    if let Some(maps) = &plan.user {
        // All belong to the new users, so all are made with them, and set up from inside.
        new |= Namespaces::USER;
        new.set(Namespaces::PID, plan.pid);
        let init = Init::start(new, &arguments(plan), Some(maps))?;
        return Ok((thread, Some(init)));
    }
    unshare(new).map_err(|e| named("make the pod's namespaces", &e))?;
    set_up(plan.net == Net::New, &plan.hostname, &plan.sysctls)?;
    let init = plan.pid.then(|| Init::start(Namespaces::PID, &[], None)).transpose()?;
    Ok((thread, init))
}

/// Inside of the namespaces.
pub(crate) fn set_up(loopback: bool, hostname: &str, sysctls: &[(String, String)]) -> io::Result<()> {
    if loopback {
        loopback_up().map_err(|e| named("set loopback up", &e))?;
    }
    if !hostname.is_empty() {
        sethostname(hostname).map_err(|e| named("set the pod's hostname", &e.into()))?;
    }
    for (key, value) in sysctls {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !key.chars().all(allowed) || key.contains("..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no sysctl {key:?}")));
        }
        // /proc/sys shows the namespaces of whoever looks.
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        std::fs::write(&path, value).map_err(|e| named(&format!("set the sysctl {key}"), &e))?;
    }
    Ok(())
}

/// What pod-init is to do inside.
fn arguments(plan: &Plan) -> Vec<String> {
    let mut arguments = Vec::new();
    if plan.net == Net::New {
        arguments.push("-loopback".to_owned());
    }
    if !plan.hostname.is_empty() {
        arguments.extend(["-hostname".to_owned(), plan.hostname.clone()]);
    }
    for (key, value) in &plan.sysctls {
        arguments.extend(["-sysctl".to_owned(), format!("{key}={value}")]);
    }
    arguments
}

/// The error with what it was about.
pub(super) fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
