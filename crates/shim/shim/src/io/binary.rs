//! A logger: a program that is started for a container and reads what it writes.
//!
//! ```text
//! descriptor 3  the container's stdout     CONTAINER_ID, CONTAINER_NAMESPACE in its environment
//!            4  its stderr                 its arguments are the URI's query: key, value, key, value
//!            5  to be closed when it is ready (binary-v2: after it has written a byte to it)
//! ```
//!
//! The shim keeps reading ends, too: when the logger dies, the container gets neither SIGPIPE nor stuck on a full pipe;
//! what it writes from then on is read and lost, and that is logged.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::Duration;

use corten_runtime_client::Watch;
use corten_sys::exec::{Strings, execve};
use corten_sys::process::{Forked, Namespaces, clone, exit};
use corten_task_api::ttrpc::{Code, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::Surroundings;
use super::log::{set_nonblocking, watch_fd};
use super::open::pipe as pipe_of;
use super::uri::Program;
use crate::error;

/// The logger's first descriptor; ours are moved above its last, so that none is overwritten before it is used.
const FIRST: RawFd = 3;
const ABOVE: RawFd = 6;
/// How long a logger may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// How long it may take to end by itself when nobody writes any more, and after SIGTERM.
const END: Duration = Duration::from_secs(5);
const TERM: Duration = Duration::from_secs(10);

/// A logger that runs. Dropping it lets it end.
#[derive(Debug)]
pub(super) struct Logger {
    ends: Option<(OwnedFd, OwnedFd)>,
    stop: Rc<Notify>,
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Logger {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(program: &Program, around: &Surroundings<'_>) -> Result<Self, Status> {
        let name = program.path.display();
        let failed = |what: &str, e: std::io::Error| error::io(format!("logger {name}: {what}"), &e);
        program.path.metadata().map_err(|e| failed("find it", e))?;
        let (output, output_end) = pipe_of(around.owner)?;
        let (errors, errors_end) = pipe_of(around.owner)?;
        let (ready, ready_end) = pipe_of((0, 0))?;
        let ready = pipe::Receiver::from_owned_fd(ready).map_err(|e| failed("wait for it", e))?;
        let pid = spawn(program, around, [output.as_fd(), errors.as_fd(), ready_end.as_fd()])
            .map_err(|e| failed("start it", e))?;
        drop(ready_end);
        let stop = Rc::new(Notify::new());
        // From here on it is ended when this is dropped.
        let logger = Self { ends: Some((output_end, errors_end)), stop: Rc::clone(&stop) };
        let end = around.reaper.watch_new(pid);
        tokio::task::spawn_local(look_after(pid, end, [output, errors], stop, name.to_string()));
        let said = tokio::time::timeout(READY, wait_ready(&ready)).await.map_err(|_| {
            Status::new(Code::DeadlineExceeded, format!("logger {name}: it isn't ready after {READY:?}"))
        })?;
        if program.says_ready && !said.map_err(|e| failed("wait for it", e))? {
            let what = format!("logger {name}: it has not said that it is ready: it may have crashed");
            return Err(Status::new(Code::Unknown, what));
        }
        Ok(logger)
    }

    /// The ends that the container writes to; they can be had once.
    pub(super) fn take_ends(&mut self) -> Option<(OwnedFd, OwnedFd)> {
        self.ends.take()
    }
}

/// Whether it has said something before it has closed its end.
async fn wait_ready(ready: &pipe::Receiver) -> std::io::Result<bool> {
    loop {
        ready.readable().await?;
        match ready.try_read(&mut [0; 1]) {
            Ok(n) => return Ok(n > 0),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

fn spawn(
    program: &Program,
    around: &Surroundings<'_>,
    descriptors: [BorrowedFd<'_>; 3],
) -> std::io::Result<u32> {
    // Everything that allocates before the clone.
    let path = CString::new(program.path.as_os_str().as_bytes())?;
    let mut arguments = vec![path.clone()];
    for argument in &program.arguments {
        arguments.push(CString::new(argument.as_str())?);
    }
    let mut environment = vec![
        CString::new(format!("CONTAINER_ID={}", around.id))?,
        CString::new(format!("CONTAINER_NAMESPACE={}", around.namespace))?,
    ];
    if let Ok(path) = std::env::var("PATH") {
        environment.push(CString::new(format!("PATH={path}"))?);
    }
    let (arguments, environment) = (Strings::new(arguments), Strings::new(environment));
    let mut moved = Vec::with_capacity(descriptors.len());
    for fd in descriptors {
        moved.push(above(fd)?);
    }
    match clone(Namespaces::empty(), None, false)? {
        Forked::Child => {
            for (number, fd) in (FIRST..).zip(&moved) {
                if corten_sys::fds::duplicate_to(fd.as_fd(), number).is_err() {
                    exit(126);
                }
            }
            drop(execve(&path, &arguments, &environment));
            exit(127)
        }
        Forked::Parent { pid, .. } => Ok(pid.cast_unsigned()),
    }
}

/// The same with a number that isn't one of the logger's.
fn above(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let mut low = Vec::new();
    loop {
        let copy = fd.try_clone_to_owned()?;
        if copy.as_raw_fd() >= ABOVE {
            return Ok(copy);
        }
        low.push(copy);
    }
}

/// What becomes of it: it is ended when it is no longer needed, and replaced by nobody when it dies.
async fn look_after(pid: u32, mut end: Watch, streams: [OwnedFd; 2], stop: Rc<Notify>, name: String) {
    tokio::select! {
        biased;
        exited = &mut end => {
            let [output, errors] = streams;
            tokio::select! {
                (output, errors) = async { tokio::join!(discard(output), discard(errors)) } => {
                    let bytes = output + errors;
                    if bytes > 0 {
                        tracing::warn!(name, status = exited.status, bytes, "the logger has died: output is lost");
                    }
                }
                () = stop.notified() => {}
            }
            return;
        }
        () = stop.notified() => {}
    }
    drop(streams);
    let send = |signal| {
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal); // unreaped, so it is this one
    };
    if tokio::time::timeout(END, &mut end).await.is_ok() {
        return;
    }
    send(Signal::SIGTERM);
    if tokio::time::timeout(TERM, &mut end).await.is_err() {
        send(Signal::SIGKILL);
    }
}

/// Reads to the end; how much that was.
async fn discard(stream: OwnedFd) -> usize {
    let watched = set_nonblocking(&stream).and_then(|()| watch_fd(stream, Interest::READABLE));
    let Ok(stream) = watched else { return 0 };
    let mut buffer = [0; 1024];
    let mut lost = 0;
    loop {
        let read = |fd: &OwnedFd| nix::unistd::read(fd, &mut buffer).map_err(std::io::Error::from);
        match stream.async_io(Interest::READABLE, read).await {
            Ok(n @ 1..) => lost += n,
            _ => return lost,
        }
    }
}
