//! The console socket of a test: receives the terminal that a runtime sends, and talks to it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::wait::DEADLINE;

/// A listening console socket; its path goes to a runtime's `--console-socket`.
#[derive(Debug)]
pub struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Listens at `path`, which must be short enough for a socket's name.
    ///
    /// # Errors
    /// When it can't.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let listener = UnixListener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
        Ok(Self { path, listener })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal's master side, which the runtime sends.
    ///
    /// # Errors
    /// When nobody connects or no descriptor comes.
    pub fn receive(&self) -> Result<Console> {
        wait_readable(self.listener.as_fd(), DEADLINE).context("wait for the runtime to connect")?;
        let (stream, _) = self.listener.accept().context("accept the runtime's connection")?;
        wait_readable(stream.as_fd(), DEADLINE).context("wait for the terminal")?;
        let (_, fds) =
            corten_sys::fds::receive(stream.as_fd(), &mut [0; 4096]).context("receive the terminal")?;
        let Some(master) = fds.into_iter().next() else {
            bail!("the runtime sent a message without a descriptor")
        };
        Ok(Console::new(File::from(master)))
    }
}

/// The master side of a container's terminal.
#[derive(Debug)]
pub struct Console {
    master: File,
    seen: String,
}

impl Console {
    /// The console whose master side is `master`.
    #[must_use]
    pub fn new(master: File) -> Self {
        Self { master, seen: String::new() }
    }

    /// Types `text`.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.master.write_all(text.as_bytes()).context("write to the terminal")
    }

    /// Reads until `needle` has been printed, and yields all that has been printed so far.
    ///
    /// # Errors
    /// When it isn't in time, or the terminal closes first.
    pub fn expect(&mut self, needle: &str) -> Result<&str> {
        let start = Instant::now();
        while !self.seen.contains(needle) {
            if start.elapsed() > DEADLINE {
                bail!("waited {DEADLINE:?} for {needle:?} on the terminal, which shows {:?}", self.seen);
            }
            if !self.read_some()? {
                bail!("the terminal closed without {needle:?}, after {:?}", self.seen);
            }
        }
        Ok(&self.seen)
    }

    /// Reads until the other side closes, and yields all that has been printed.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn read_to_end(&mut self) -> Result<&str> {
        while self.read_some()? {}
        Ok(&self.seen)
    }

    /// The descriptor, for resizing and the like.
    #[must_use]
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    fn read_some(&mut self) -> Result<bool> {
        wait_readable(self.master.as_fd(), DEADLINE)?;
        let mut chunk = [0; 4096];
        match self.master.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.seen.push_str(&String::from_utf8_lossy(chunk.get(..n).unwrap_or_default()));
                Ok(true)
            }
            // Linux says EIO when the last slave has been closed.
            Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Ok(false),
            Err(e) => Err(e).context("read from the terminal"),
        }
    }
}

fn wait_readable(fd: BorrowedFd<'_>, deadline: Duration) -> Result<()> {
    let timeout = PollTimeout::try_from(deadline).context("deadline too long")?;
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    if poll(&mut fds, timeout)? == 0 {
        bail!("nothing came within {deadline:?}");
    }
    Ok(())
}
