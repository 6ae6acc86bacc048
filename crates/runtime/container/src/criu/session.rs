//! One `criu swrk` process: a request, its notifications, and the answer, over a socket pair.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::{Child, Command},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use prost::Message;

use super::{
    log,
    rpc::{Features, Kind, Options, Request, Response},
};
use crate::{Error, Result, error::Doing};

/// The oldest criu that is used: from 3.15 on it freezes cgroup v2 and says by notification when pages can be served.
const MINIMUM: (i32, i32) = (3, 15);

/// criu's answers fit into this by far.
const MAX: usize = 64 << 10;

/// A running criu that has been asked nothing yet.
pub(crate) struct Session {
    child: Child,
    socket: OwnedFd,
}

/// What criu stops at and waits for us.
pub(crate) struct Event {
    /// "post-dump", "setup-namespaces", "post-restore", ...
    pub(crate) script: String,
    /// The restored init, where it is about that.
    pub(crate) pid: i32,
    /// Comes with "orphan-pts-master".
    pub(crate) fds: Vec<OwnedFd>,
}

impl Session {
    /// Starts criu. `inherited` are the descriptors that it keeps, under their own numbers.
    pub(crate) fn start(inherited: &[OwnedFd]) -> Result<Self> {
        let doing = || "start criu".to_owned();
        let kind = SockType::SeqPacket;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).doing(doing)?;
        for fd in inherited.iter().chain([&theirs]) {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).doing(doing)?;
        }
        let spawned = Command::new("criu").arg("swrk").arg(theirs.as_raw_fd().to_string()).spawn();
        // Hooks, which may be run while it works, are not to have them.
        for fd in inherited {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).doing(doing)?;
        }
        match spawned {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Criu {
                operation: "start criu".to_owned(),
                reason: "there is no criu in $PATH: install it to checkpoint and restore".to_owned(),
            }),
            // `theirs` is closed with this: only criu has it now, so that its death is the end of the stream.
            other => Ok(Self { child: other.doing(doing)?, socket: ours }),
        }
    }

    /// criu's pid.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Asks, and answers what criu wants to know with `attend`, until it is done.
    pub(crate) fn ask(
        mut self,
        request: Request,
        operation: &str,
        attend: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<Response> {
        let asked = self.converse(&request, operation, attend);
        // A failed one must not go on behind our back; one that is done ends by itself once nobody is connected.
        if asked.is_err() {
            nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok(); // because it may be gone
        }
        drop(self.socket);
        let status = self.child.wait().doing(|| "wait for criu".to_owned())?;
        let response = asked?;
        // After a single pre-dump it waits for the next one, and takes it for a failure that there's none.
        let final_word = [Kind::Dump as i32, Kind::Restore as i32].contains(&request.kind);
        if !status.success() && final_word {
            let reason = format!("it said that it was done, and ended with {status}");
            return Err(Error::Criu { operation: operation.to_owned(), reason });
        }
        Ok(response)
    }

    fn converse(
        &self,
        request: &Request,
        operation: &str,
        attend: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<Response> {
        self.send(request)?;
        loop {
            let (response, fds) = self.receive(operation)?;
            if !response.success {
                return Err(Error::Criu { operation: operation.to_owned(), reason: refusal(&response) });
            }
            if response.kind != Kind::Notify as i32 {
                return Ok(response);
            }
            let notify = response.notify.unwrap_or_default();
            attend(Event {
                script: notify.script.unwrap_or_default(),
                pid: notify.pid.unwrap_or_default(),
                fds,
            })?;
            self.send(&Request {
                kind: Kind::Notify as i32,
                notify_success: Some(true),
                ..Request::default()
            })?;
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        corten_sys::fds::send(self.socket.as_fd(), &bytes, &[]).map(drop).doing(|| "ask criu".to_owned())
    }

    fn receive(&self, operation: &str) -> Result<(Response, Vec<OwnedFd>)> {
        let mut buffer = vec![0; MAX];
        let (n, fds) = corten_sys::fds::receive(self.socket.as_fd(), &mut buffer)
            .doing(|| "hear from criu".to_owned())?;
        let wrong = |reason: &str| Error::Criu { operation: operation.to_owned(), reason: reason.to_owned() };
        if n == 0 {
            return Err(wrong("it ended without an answer"));
        }
        let response = Response::decode(buffer.get(..n).unwrap_or_default());
        Ok((response.map_err(|e| wrong(&format!("it sent what can't be understood: {e}")))?, fds))
    }
}

/// Why criu says that it failed.
pub(crate) fn refusal(response: &Response) -> String {
    match (&response.message, response.errno.filter(|errno| *errno != 0)) {
        (Some(message), _) if !message.trim().is_empty() => message.trim().to_owned(),
        (_, Some(errno)) => io::Error::from_raw_os_error(errno).to_string(),
        _ => "criu failed".to_owned(),
    }
}

/// Makes sure that there's a criu, and that it isn't too old.
pub(crate) fn check_version() -> Result<()> {
    let operation = "ask criu for its version";
    let request = Request { kind: Kind::Version as i32, ..Request::default() };
    let version = Session::start(&[])?.ask(request, operation, &mut |_| Ok(()))?.version.unwrap_or_default();
    if (version.major, version.minor) < MINIMUM {
        let reason = format!(
            "it is {}.{}, and {}.{} or newer is needed",
            version.major, version.minor, MINIMUM.0, MINIMUM.1
        );
        return Err(Error::Criu { operation: "use criu".to_owned(), reason });
    }
    Ok(())
}

/// Makes sure that criu and the kernel can do what an option needs.
pub(crate) fn check_feature(wanted: Features, name: &str) -> Result<()> {
    let operation = format!("ask criu whether it can do {name}");
    let request =
        Request { kind: Kind::FeatureCheck as i32, features: Some(wanted.clone()), ..Request::default() };
    let found = Session::start(&[])?.ask(request, &operation, &mut |_| Ok(()))?.features.unwrap_or_default();
    let lacks = |wanted: Option<bool>, found: Option<bool>| wanted == Some(true) && found != Some(true);
    if lacks(wanted.mem_track, found.mem_track) || lacks(wanted.lazy_pages, found.lazy_pages) {
        let reason = "criu says that this kernel can't do it".to_owned();
        return Err(Error::Criu { operation: format!("use {name}"), reason });
    }
    Ok(())
}

/// Runs a dump or a restore; a failure is told with what criu has logged about it.
pub(crate) fn run(
    session: Session,
    kind: Kind,
    options: Options,
    log: &Path,
    operation: &str,
    attend: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<()> {
    let request = Request { kind: kind as i32, options: Some(options), ..Request::default() };
    match session.ask(request, operation, attend) {
        Ok(_) => Ok(()),
        Err(Error::Criu { operation, reason }) => {
            let said = log::errors(log);
            let reason = if said.is_empty() { reason } else { format!("{reason}: {said}") };
            Err(Error::Criu { operation, reason: format!("{reason} (its log: {})", log.display()) })
        }
        Err(other) => Err(other),
    }
}
