//! Learning that the kernel has run out of memory in a cgroup.
//!
//! Both versions wake who polls a descriptor, so nothing runs while nothing happens: v1 an eventfd that is registered
//! in cgroup.event_control, v2 memory.events itself, by POLLPRI (an inotify instance for each container would use up
//! what one user may have). Neither tells what happened: v1 wakes before it kills, v2 for every count in the file. Who
//! was killed is in `oom_kill` alone, which counts processes of this cgroup and those below it, whichever limit was
//! reached, this one's or one above; `oom` would count limits that were reached, whether or not someone died.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Cgroup, Keyed, number};
use crate::io::watch_fd;

/// Watches one cgroup.
#[derive(Debug)]
pub(crate) struct OomWatch {
    wakes: AsyncFd<OwnedFd>,
    /// v2: what has to be read anew for the next wake. v1: must stay open.
    file: File,
    unified: bool,
}

impl Cgroup {
    /// Begins to watch; what has happened before isn't told.
    pub(crate) fn watch_oom(&self) -> io::Result<OomWatch> {
        match self {
            Self::Unified(dir) => OomWatch::of_file(&dir.join("memory.events")),
            Self::Legacy(_) => {
                let dir = self.dir("memory");
                let file = File::open(dir.join("memory.oom_control"))?;
                let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
                let event = OwnedFd::from(event);
                let order = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
                std::fs::write(dir.join("cgroup.event_control"), order)?;
                Ok(OomWatch { wakes: watch_fd(event, Interest::READABLE)?, file, unified: false })
            }
        }
    }

    /// Whether this cgroup's own limit was reached; if not, it was one above it.
    pub(crate) fn reached_own_limit(&self) -> bool {
        match self {
            Self::Unified(dir) => Keyed::read(&dir.join("memory.events.local")).get("oom") > 0,
            Self::Legacy(_) => number(&self.dir("memory").join("memory.failcnt")) > 0,
        }
    }
}

impl OomWatch {
    /// Watches a file of cgroup v2 that wakes who polls it.
    fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        // What was last read is what a change is a change of.
        io::copy(&mut file, &mut io::sink())?;
        let wakes = watch_fd(file.try_clone()?.into(), Interest::PRIORITY)?;
        Ok(Self { wakes, file, unified: true })
    }

    /// Waits until something has happened. An error means that the cgroup is gone.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let interest = if self.unified { Interest::PRIORITY } else { Interest::READABLE };
        self.wakes.ready(interest).await?.clear_ready();
        if self.unified {
            self.file.seek(SeekFrom::Start(0))?;
            return io::copy(&mut self.file, &mut io::sink()).map(drop);
        }
        let mut count = [0; 8];
        match nix::unistd::read(self.wakes.get_ref(), &mut count) {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
