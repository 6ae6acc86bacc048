//! A container's log file and the streams that are copied into it.
//!
//! The kubelet rotates: it renames the file, then has it reopened. From then on entries go to the new file, but for the
//! rest of a line whose first part is in the old one already: no line is in both. Only whole entries are written, each
//! lot by one write, so two streams don't mix within an entry either.
//!
//! A log that can't be written doesn't stop the container: the stream is read on, and what is lost is counted.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use corten_task_api::time::now_ns;
use corten_task_api::ttrpc::Status;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cri::{Splitter, memchr, rfc3339};
use super::open::append;
use crate::error;

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
    file: RefCell<Rc<File>>,
    dropped: Cell<u64>,
    /// The file ends in the middle of an entry, because the disk was full.
    torn: Cell<bool>,
}

impl Log {
    pub(crate) fn open(path: &Path, max_line: usize) -> Result<Rc<Self>, Status> {
        let file = append(path).map_err(|e| error::io(format!("open the log {}", path.display()), &e))?;
        Ok(Rc::new(Self {
            path: path.to_owned(),
            max_line,
            file: RefCell::new(Rc::new(file)),
            dropped: Cell::new(0),
            torn: Cell::new(false),
        }))
    }

    /// Opens the file anew. The old one is closed when no stream is within a line of it.
    pub(crate) fn reopen(&self) -> Result<(), Status> {
        let file = append(&self.path)
            .map_err(|e| error::io(format!("reopen the log {}", self.path.display()), &e))?;
        *self.file.borrow_mut() = Rc::new(file);
        self.torn.set(false);
        Ok(())
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    fn write(&self, mut file: &File, entries: &[u8]) {
        if self.torn.get() && file.write_all(b"\n").is_ok() {
            self.torn.set(false);
        }
        let mut rest = entries;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(n) if n > 0 => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        if !rest.is_empty() {
            if self.dropped.get() == 0 {
                tracing::warn!(path = %self.path.display(), "the log can't be written, output is lost");
            }
            self.dropped.set(self.dropped.get() + rest.len() as u64);
            let cut_inside = entries.len() > rest.len() && entries[entries.len() - rest.len() - 1] != b'\n';
            self.torn.set(self.torn.get() || cut_inside);
        }
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
    /// Where the current line goes.
    file: Rc<File>,
    /// Bytes written to `file` since it isn't the log's any more.
    late: usize,
    ended: bool,
}

impl Stream {
    pub(crate) fn new(source: OwnedFd, name: &'static str, log: Rc<Log>) -> io::Result<Rc<Self>> {
        set_nonblocking(&source)?;
        let file = Rc::clone(&log.file.borrow());
        let splitter = Splitter::new(name, log.max_line);
        let state = RefCell::new(State { splitter, file, late: 0, ended: false });
        Ok(Rc::new(Self { source: watch_fd(source, Interest::READABLE)?, log, state }))
    }

    /// Copies until the stream ends.
    pub(crate) async fn run(self: Rc<Self>) {
        while let Ok(mut ready) = self.source.readable().await {
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
                    self.emit(&mut state, &out);
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
        if !Rc::ptr_eq(&state.file, &self.log.file.borrow()) && state.splitter.in_line() && state.late < LATE
        {
            // The rest of a line which is in the old file stays there.
            let end = memchr(rest).map_or(rest.len(), |newline| newline + 1);
            let (tail, after) = rest.split_at(end);
            state.splitter.push(tail, &time, &mut out);
            state.late += tail.len();
            self.log.write(&state.file, &out);
            out.clear();
            rest = after;
        }
        if !rest.is_empty() {
            state.splitter.push(rest, &time, &mut out);
            if !out.is_empty() {
                state.file = Rc::clone(&self.log.file.borrow());
                state.late = 0;
            }
            self.emit(state, &out);
        }
    }

    fn emit(&self, state: &mut State, entries: &[u8]) {
        if !entries.is_empty() {
            self.log.write(&state.file, entries);
        }
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
