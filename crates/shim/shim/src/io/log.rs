//! A container's log file and the streams that are copied into it.
//!
//! The kubelet rotates: it renames the file, then has it reopened. From then on entries go to the new file, but for the
//! rest of a line whose first part is in the old one already: no line is in both. Only whole entries are written, each
//! lot by one write, so two streams don't mix within an entry either.
//!
//! A log that can't be written doesn't stop the container: the stream is read on, and what is lost is counted. One whose
//! file system hangs does, once a little has piled up, but not the shim: see [`Writer`].

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use corten_task_api::time::now_ns;
use corten_task_api::ttrpc::Status;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cri::{Splitter, memchr, rfc3339};
use super::open::{OPEN, REOPEN, append, open_aside};
use super::writer::{Target, Writer};

/// Bytes read at once.
const CHUNK: usize = 8 << 10;
/// Chunks read before other streams get their turn.
const TURN: usize = 16;
/// What is read at most when a process has ended: what a pipe can hold, unless someone has enlarged it.
const DRAIN: usize = 1 << 20;
/// How much of an endless line still goes to the old file after a rotation.
const LATE: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    max_line: usize,
    /// There is one until this is dropped.
    target: RefCell<Option<Arc<Target>>>,
    writer: Writer,
}

impl Drop for Log {
    fn drop(&mut self) {
        // To be closed there, so none may be left here.
        if let Some(target) = self.target.take() {
            self.writer.close(target);
        }
    }
}

impl Log {
    pub(crate) async fn open(path: &Path, max_line: usize) -> Result<Rc<Self>, Status> {
        let file = open_aside("open the log", path, OPEN, append).await?;
        let target = RefCell::new(Some(Target::new(path, file)));
        Ok(Rc::new(Self { path: path.to_owned(), max_line, target, writer: Writer::default() }))
    }

    /// Opens the file anew. The old one is closed when no stream is within a line of it.
    pub(crate) async fn reopen(&self) -> Result<(), Status> {
        let file = open_aside("reopen the log", &self.path, REOPEN, append).await?;
        if let Some(old) = self.target.replace(Some(Target::new(&self.path, file))) {
            self.writer.close(old);
        }
        Ok(())
    }

    fn target(&self) -> Option<Arc<Target>> {
        self.target.borrow().clone()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.writer.dropped()
    }

    /// Waits until all is written; not for long, should the file system hang.
    pub(crate) async fn settle(&self) {
        self.writer.settle(&self.path).await;
    }
}

/// What a turn of reading has come to.
enum Turn {
    /// Nothing to read at the moment.
    Dry,
    /// There may be more.
    More,
    /// The stream has ended.
    End,
}

/// A pipe or terminal that is copied into a log.
#[derive(Debug)]
pub(crate) struct Stream {
    source: AsyncFd<OwnedFd>,
    log: Rc<Log>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    splitter: Splitter,
    /// Where the current line goes, when a part of it has been written.
    target: Option<Arc<Target>>,
    /// Bytes written to it since it isn't the log's any more.
    late: usize,
    ended: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A file that was rotated away within a line: it may be the last that has it.
        if let Some(target) = self.state.get_mut().target.take() {
            self.log.writer.close(target);
        }
    }
}

impl Stream {
    pub(crate) fn new(source: OwnedFd, name: &'static str, log: Rc<Log>) -> io::Result<Rc<Self>> {
        set_nonblocking(&source)?;
        let splitter = Splitter::new(name, log.max_line);
        let state = RefCell::new(State { splitter, target: None, late: 0, ended: false });
        Ok(Rc::new(Self { source: watch_fd(source, Interest::READABLE)?, log, state }))
    }

    /// Copies until the stream ends.
    pub(crate) async fn run(self: Rc<Self>) {
        while let Ok(mut ready) = self.source.readable().await {
            self.log.writer.room().await;
            match self.turn(TURN) {
                Turn::Dry => ready.clear_ready(),
                Turn::More => tokio::task::yield_now().await,
                Turn::End => return,
            }
        }
    }

    /// Copies what is there.
    pub(crate) fn drain(&self) {
        self.turn(DRAIN / CHUNK);
    }

    fn turn(&self, chunks: usize) -> Turn {
        let mut state = self.state.borrow_mut();
        let mut buffer = [0; CHUNK];
        for _ in 0..chunks {
            if state.ended {
                return Turn::End;
            }
            match nix::unistd::read(self.source.get_ref(), &mut buffer) {
                Err(Errno::EAGAIN) => return Turn::Dry,
                Err(Errno::EINTR) => {}
                // A terminal says EIO when its last user has gone.
                Ok(0) | Err(_) => {
                    state.ended = true;
                    let mut out = Vec::new();
                    state.splitter.finish(&rfc3339(now_ns()), &mut out);
                    if let Some(target) = state.target.take().or_else(|| self.log.target()) {
                        self.log.writer.push(target, out);
                    }
                }
                Ok(n) => self.take(&mut state, &buffer[..n]),
            }
        }
        Turn::More
    }

    fn take(&self, state: &mut State, bytes: &[u8]) {
        let time = rfc3339(now_ns());
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 64);
        let mut rest = bytes;
        let now = self.log.target();
        let old = state.target.take_if(|old| !now.as_ref().is_some_and(|now| Arc::ptr_eq(old, now)));
        if let Some(old) = old {
            // The rest of a line which is in the old file stays there.
            let end = memchr(rest).map_or(rest.len(), |newline| newline + 1);
            let (tail, after) = rest.split_at(end);
            state.splitter.push(tail, &time, &mut out);
            state.late += tail.len();
            if state.splitter.in_line() && state.late < LATE {
                state.target = Some(Arc::clone(&old));
            }
            self.log.writer.push(old, std::mem::take(&mut out));
            rest = after;
        }
        if !rest.is_empty() {
            state.splitter.push(rest, &time, &mut out);
            self.emit(state, out);
        }
    }

    /// To the file that is the log's now.
    fn emit(&self, state: &mut State, entries: Vec<u8>) {
        let Some(target) = self.log.target() else { return };
        if !entries.is_empty() {
            self.log.writer.push(Arc::clone(&target), entries);
        }
        state.late = 0;
        // Who isn't within a line has nothing to do with a file that isn't the log's any more.
        state.target = state.splitter.in_line().then_some(target);
    }
}

pub(super) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Has tokio watch a descriptor.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for descriptors that may be closed meanwhile: ours is owned"
)]
pub(crate) fn watch_fd(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
