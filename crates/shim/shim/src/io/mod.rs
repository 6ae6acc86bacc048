//! A process's standard streams.
//!
//! ```text
//! ""            /dev/null
//! /path         containerd's fifo: given to the process as it is; the shim keeps an end open, so that neither side
//!               sees the other come and go
//! file:///path  the file, appended to
//! cri:///path   a pipe, which the shim copies into a log in CRI's format
//! terminal      the shim holds the master and copies between it and any of these
//! ```

mod console;
pub(crate) mod cri;
mod log;
mod open;
mod uri;

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use corten_runtime_client::Io;
use corten_task_api::ttrpc::Status;
use tokio::task::AbortHandle;

use console::{Console, ConsoleSocket};
use log::{Log, Stream};
use uri::Uri;

#[cfg(feature = "fuzz")]
pub(crate) use cri::Splitter;

/// For integration/fuzz.
#[cfg(feature = "fuzz")]
pub(crate) fn parse_stdio(text: &str) {
    let _ = Uri::parse(text); // most texts are none
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
    stdin_copier: RefCell<Option<AbortHandle>>,
}

impl Drop for ProcessIo {
    fn drop(&mut self) {
        for copier in self.copiers.take().into_iter().chain(self.stdin_copier.take()) {
            copier.abort();
        }
    }
}

impl ProcessIo {
    /// Opens what the client has asked for; the second is what the runtime needs.
    pub(crate) fn open(stdio: &Stdio, socket_dir: &Path) -> Result<(Self, Io), Status> {
        let (stdin, stdout, stderr) =
            (Uri::parse(&stdio.stdin)?, Uri::parse(&stdio.stdout)?, Uri::parse(&stdio.stderr)?);
        let mut io = Self::default();
        if let Uri::Cri { path, max_line } = &stdout {
            io.log = Some(Log::open(path, *max_line)?);
        }
        if stdio.terminal {
            let socket = ConsoleSocket::bind(socket_dir)?;
            let path = socket.path().to_owned();
            io.waiting = RefCell::new(Some((socket, stdin, stdout)));
            return Ok((io, Io::Console(path)));
        }
        let input = io.open_stdin(&stdin)?;
        let output = io.open_output(&stdout, "stdout")?;
        let errors = io.open_output(&stderr, "stderr")?;
        Ok((io, Io::Streams(input, output, errors)))
    }

    /// After the runtime has made the process: takes over its terminal.
    pub(crate) async fn started(&self) -> Result<(), Status> {
        let waiting = self.waiting.take();
        let Some((socket, stdin, stdout)) = waiting else { return Ok(()) };
        let console = Console::new(socket.receive().await?)?;
        self.connect(&Rc::new(console), &stdin, &stdout)
    }

    /// The client sends no more: stdin ends when it has closed its end, too.
    pub(crate) fn close_stdin(&self) {
        drop(self.stdin.take());
        if let Some(copier) = self.stdin_copier.take() {
            copier.abort();
        }
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
    pub(crate) fn drain(&self) {
        for stream in &*self.streams.borrow() {
            stream.drain();
        }
    }

    /// Opens the log anew; false when the shim doesn't write one.
    pub(crate) fn reopen_log(&self) -> Result<bool, Status> {
        self.log.as_ref().map_or(Ok(false), |log| log.reopen().map(|()| true))
    }

    /// Bytes of log that couldn't be written.
    pub(crate) fn log_bytes_dropped(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.dropped())
    }
}
