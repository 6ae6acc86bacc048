//! A process's standard streams.
//!
//! ```text
//! ""            /dev/null
//! /path         containerd's fifo: given to the process as it is; the shim keeps an end open, so that neither side
//!               sees the other come and go
//! file:///path  the file, appended to
//! binary:///path?arg=value, binary-v2://...
//!               a logger, which is started for the container and reads its stdout and stderr
//! cri:///path   a pipe, which the shim copies into a log in CRI's format
//! terminal      the shim holds the master and copies between it and any of these
//! ```

mod binary;
mod console;
pub(crate) mod cri;
mod log;
mod open;
mod uri;
mod writer;

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use corten_runtime_client::{Io, Reaper};
use corten_task_api::ttrpc::Status;
use tokio::task::{AbortHandle, JoinHandle};

use binary::Logger;
use console::{Console, ConsoleSocket};
pub(crate) use log::watch_fd;
use log::{Log, Stream};
use uri::Uri;

use crate::containers::Shim;
use crate::task::Task;

#[cfg(feature = "fuzz")]
pub(crate) use cri::Splitter;

/// For integration/fuzz.
#[cfg(feature = "fuzz")]
pub(crate) fn parse_stdio(text: &str) {
    let _ = Uri::parse(text); // most texts are none
}

/// How long what a terminal has shown may take to its client once the process has ended.
const LINGER: Duration = Duration::from_secs(5);

/// What streams are opened for, and with what.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// Where sockets go.
    pub(crate) socket_dir: &'a Path,
    /// Who owns pipes that are made.
    pub(crate) owner: (u32, u32),
    /// The container, or the exec.
    pub(crate) id: &'a str,
    /// containerd's namespace.
    pub(crate) namespace: &'a str,
    pub(crate) reaper: &'a Reaper,
}

impl<'a> Surroundings<'a> {
    pub(crate) fn of(shim: &'a Shim, task: &Task, id: &'a str) -> Self {
        Self {
            socket_dir: &shim.socket_dir,
            owner: task.options.io_owner,
            id,
            namespace: &shim.namespace,
            reaper: &shim.reaper,
        }
    }
}

/// What a client has asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// The shim's side of a process's streams. Dropping it closes all.
#[derive(Debug, Default)]
pub(crate) struct ProcessIo {
    /// Keeps stdin from ending while the client isn't there; gone after CloseIO.
    stdin: RefCell<Option<File>>,
    /// Keep writers from SIGPIPE while the client isn't there.
    readers: Vec<File>,
    streams: RefCell<Vec<Rc<Stream>>>,
    log: Option<Rc<Log>>,
    console: RefCell<Option<Rc<Console>>>,
    waiting: RefCell<Option<(ConsoleSocket, Uri, Uri)>>,
    copiers: RefCell<Vec<AbortHandle>>,
    /// From the terminal to the client.
    console_copier: RefCell<Option<JoinHandle<()>>>,
    logger: RefCell<Option<Logger>>,
    stdin_copier: RefCell<Option<AbortHandle>>,
}

impl Drop for ProcessIo {
    fn drop(&mut self) {
        let console = self.console_copier.take().map(|copier| copier.abort_handle());
        for copier in self.copiers.take().into_iter().chain(self.stdin_copier.take()).chain(console) {
            copier.abort();
        }
    }
}

impl ProcessIo {
    /// Opens what the client has asked for; the second is what the runtime needs.
    pub(crate) async fn open(stdio: &Stdio, around: &Surroundings<'_>) -> Result<(Self, Io), Status> {
        let (stdin, stdout, stderr) =
            (Uri::parse(&stdio.stdin)?, Uri::parse(&stdio.stdout)?, Uri::parse(&stdio.stderr)?);
        let mut io = Self::default();
        if let Uri::Cri { path, max_line } = &stdout {
            io.log = Some(Log::open(path, *max_line).await?);
        }
        if let Uri::Binary(program) = &stdout {
            io.logger = RefCell::new(Some(Logger::start(program, around).await?));
        }
        if stdio.terminal {
            let socket = ConsoleSocket::bind(around.socket_dir)?;
            let path = socket.path().to_owned();
            io.waiting = RefCell::new(Some((socket, stdin, stdout)));
            return Ok((io, Io::Console(path)));
        }
        let input = io.open_stdin(&stdin).await?;
        let (output, errors) = match io.logger.get_mut().as_mut().and_then(Logger::take_ends) {
            // A logger reads both, whatever is said of stderr.
            Some((output, errors)) => (output.into(), errors.into()),
            None => (
                io.open_output(&stdout, "stdout", around.owner).await?,
                io.open_output(&stderr, "stderr", around.owner).await?,
            ),
        };
        Ok((io, Io::Streams(input, output, errors)))
    }

    /// After the runtime has made the process: takes over its terminal.
    pub(crate) async fn started(&self) -> Result<(), Status> {
        let waiting = self.waiting.take();
        let Some((socket, stdin, stdout)) = waiting else { return Ok(()) };
        let console = Console::new(socket.receive().await?)?;
        self.connect(&Rc::new(console), &stdin, &stdout).await
    }

    /// Waits until the client has what the terminal has shown, and the log what was written, or doesn't take it.
    pub(crate) async fn finish(&self) {
        let copier = self.console_copier.take();
        if let Some(mut copier) = copier
            && tokio::time::timeout(LINGER, &mut copier).await.is_err()
        {
            copier.abort();
        }
        if let Some(log) = &self.log {
            log.settle().await;
        }
    }

    /// The client sends no more: stdin ends when it has closed its end, too.
    pub(crate) fn close_stdin(&self) {
        drop(self.stdin.take());
    }

    /// Sets the terminal's size; false when there is no terminal.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> std::io::Result<bool> {
        match &*self.console.borrow() {
            Some(console) => console.resize(rows, columns).map(|()| true),
            None => Ok(false),
        }
    }

    /// Logs what lies in the pipes already: what a process wrote before it ended is in the log before anyone learns
    /// that it has.
    pub(crate) async fn drain(&self) {
        for stream in &*self.streams.borrow() {
            stream.drain();
        }
        if let Some(log) = &self.log {
            log.settle().await;
        }
    }

    /// Opens the log anew; false when the shim doesn't write one.
    pub(crate) async fn reopen_log(&self) -> Result<bool, Status> {
        match &self.log {
            Some(log) => log.reopen().await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Bytes of log that couldn't be written.
    pub(crate) fn log_bytes_dropped(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.dropped())
    }
}
