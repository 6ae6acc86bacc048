//! Opening streams for a process without a terminal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use corten_task_api::ttrpc::{Code, Status};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::ProcessIo;
use super::log::Stream;
use super::uri::Uri;
use super::writer::PATIENCE;
use crate::aside::aside;
use crate::error;

/// How long a file system may take to open what a process is to have. Longer than for what is tried again: a container whose
/// creation has failed may never be created anew.
pub(super) const OPEN: Duration = Duration::from_secs(60);
/// The same for a log that is to be reopened: who wants that asks again.
pub(super) const REOPEN: Duration = PATIENCE;

impl ProcessIo {
    pub(super) async fn open_stdin(&mut self, uri: &Uri) -> Result<Stdio, Status> {
        let path = match uri {
            Uri::Null => return Ok(Stdio::null()),
            Uri::Fifo(path) | Uri::File(path) => path,
            Uri::Cri { .. } | Uri::Binary(_) => return Err(error::invalid("stdin can't be a log")),
        };
        // While we have a fifo open for writing, a reader that comes before the client doesn't see the end.
        let open = |path: &Path| {
            let writer = is_fifo(path).then(|| both_ends(path)).transpose()?;
            Ok((File::open(path)?, writer))
        };
        let (stdin, writer) = match uri {
            // Of containerd, in /run: not worth a thread.
            Uri::Fifo(_) => {
                open(path).map_err(|e| error::io(format!("open stdin {}", path.display()), &e))?
            }
            _ => open_aside("open stdin", path, OPEN, open).await?,
        };
        *self.stdin.get_mut() = writer;
        Ok(stdin.into())
    }

    pub(super) async fn open_output(
        &mut self,
        uri: &Uri,
        name: &'static str,
        owner: (u32, u32),
    ) -> Result<Stdio, Status> {
        match uri {
            Uri::Null => Ok(Stdio::null()),
            Uri::Cri { .. } => {
                let (ours, theirs) = pipe(owner)?;
                self.log_from(ours, name)?;
                Ok(theirs.into())
            }
            Uri::Binary(_) => Err(error::invalid("only stderr has a logger, stdout has none")),
            // Of containerd, in /run: not worth a thread. Any other path may be anywhere, and even to look at it may hang.
            Uri::Fifo(path) if is_fifo(path) => {
                let failed = |e| error::io(format!("open {name} {}", path.display()), &e);
                let (fifo, reader) = held_fifo(path).map_err(failed)?;
                self.readers.push(reader);
                Ok(fifo.into())
            }
            Uri::Fifo(path) | Uri::File(path) => {
                let with_dir = matches!(uri, Uri::File(_));
                let open = move |path: &Path| {
                    if is_fifo(path) {
                        return held_fifo(path).map(|(fifo, reader)| (fifo, Some(reader)));
                    }
                    if let Some(dir) = path.parent().filter(|_| with_dir) {
                        std::fs::create_dir_all(dir)?;
                    }
                    append(path).map(|file| (file, None))
                };
                let (output, reader) = open_aside(&format!("open {name}"), path, OPEN, open).await?;
                self.readers.extend(reader);
                Ok(output.into())
            }
        }
    }

    /// Copies what can be read from `source` into the log.
    pub(super) fn log_from(&mut self, source: OwnedFd, name: &'static str) -> Result<(), Status> {
        let log = self.log.as_ref().ok_or_else(|| error::invalid("only stderr is a log, stdout isn't"))?;
        let stream = Stream::new(source, name, Rc::clone(log)).map_err(|e| error::io("watch a pipe", &e))?;
        self.streams.borrow_mut().push(Rc::clone(&stream));
        self.copiers.borrow_mut().push(tokio::task::spawn_local(stream.run()).abort_handle());
        Ok(())
    }
}

/// A pipe that belongs to `owner`, who may open it anew, as /dev/stdout.
pub(super) fn pipe((uid, gid): (u32, u32)) -> Result<(OwnedFd, OwnedFd), Status> {
    let failed = |e: nix::errno::Errno| error::io("make a pipe", &e.into());
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    if (uid, gid) != (0, 0) {
        // Both ends are one file.
        nix::unistd::fchown(&theirs, Some(uid.into()), Some(gid.into())).map_err(failed)?;
    }
    Ok((ours, theirs))
}

/// Opens a file on a thread: its file system may hang.
pub(super) async fn open_aside<T: Send + 'static>(
    what: &str,
    path: &Path,
    patience: Duration,
    open: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let what = format!("{what} {}", path.display());
    let path = path.to_owned();
    match tokio::time::timeout(patience, aside("open", move || open(&path))).await {
        Ok(opened) => opened?.map_err(|e| error::io(what, &e)),
        Err(_) => {
            let what = format!("{what}: its file system hasn't answered for {} s", patience.as_secs());
            Err(Status::new(Code::DeadlineExceeded, what))
        }
    }
}

pub(super) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Opens a fifo so that it neither blocks nor ends, whoever else has it open.
pub(super) fn both_ends(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

/// A fifo for a writer, and the end that keeps it from SIGPIPE.
fn held_fifo(path: &Path) -> io::Result<(File, File)> {
    let reader = reading_end(path)?;
    Ok((OpenOptions::new().write(true).open(path)?, reader))
}

pub(super) fn reading_end(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

pub(super) fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.file_type().is_fifo())
}
