//! Opening streams for a process without a terminal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;

use corten_task_api::ttrpc::{Code, Status};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::ProcessIo;
use super::log::Stream;
use super::uri::Uri;
use super::writer::PATIENCE;
use crate::aside::aside;
use crate::error;

impl ProcessIo {
    pub(super) fn open_stdin(&mut self, uri: &Uri) -> Result<Stdio, Status> {
        let path = match uri {
            Uri::Null => return Ok(Stdio::null()),
            Uri::Fifo(path) | Uri::File(path) => path,
            Uri::Cri { .. } | Uri::Binary(_) => return Err(error::invalid("stdin can't be a log")),
        };
        let failed = |e| error::io(format!("open stdin {}", path.display()), &e);
        if is_fifo(path) {
            // While we have it open for writing, a reader that comes before the client doesn't see the end.
            *self.stdin.get_mut() = Some(both_ends(path).map_err(failed)?);
        }
        File::open(path).map(Stdio::from).map_err(failed)
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
            Uri::Fifo(path) | Uri::File(path) => {
                let failed = |e| error::io(format!("open {name} {}", path.display()), &e);
                if is_fifo(path) {
                    self.readers.push(reading_end(path).map_err(failed)?);
                    return OpenOptions::new().write(true).open(path).map(Stdio::from).map_err(failed);
                }
                let with_dir = matches!(uri, Uri::File(_));
                let open = move |path: &Path| match path.parent().filter(|_| with_dir) {
                    Some(dir) => std::fs::create_dir_all(dir).and_then(|()| append(path)),
                    None => append(path),
                };
                open_aside(&format!("open {name}"), path, open).await.map(Stdio::from)
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

/// Opens a file that output goes to, on a thread: its file system may hang.
pub(super) async fn open_aside(
    what: &str,
    path: &Path,
    open: impl FnOnce(&Path) -> io::Result<File> + Send + 'static,
) -> Result<File, Status> {
    let what = format!("{what} {}", path.display());
    let path = path.to_owned();
    match tokio::time::timeout(PATIENCE, aside("open", move || open(&path))).await {
        Ok(opened) => opened?.map_err(|e| error::io(what, &e)),
        Err(_) => {
            let what = format!("{what}: its file system hasn't answered for {} s", PATIENCE.as_secs());
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

pub(super) fn reading_end(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

pub(super) fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.file_type().is_fifo())
}
