//! Being told when a cgroup runs out of memory, or when its processes are held up.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        eventfd::{EfdFlags, EventFd},
        inotify::{AddWatchFlags, InitFlags, Inotify},
    },
};

use crate::{Cgroup, Controllers, Error, Result, file};

/// Readable when the cgroup may have run out of memory; [`OomWatch::happened`] says whether it has.
#[derive(Debug)]
pub struct OomWatch(Kind);

#[derive(Debug)]
enum Kind {
    V1 {
        event: EventFd,
        directory: PathBuf,
        /// The kernel tells as long as this is open.
        _control: File,
    },
    V2 {
        inotify: Inotify,
        cgroup: Cgroup,
        /// How many processes had been killed.
        seen: u64,
    },
}

impl Cgroup {
    /// Watches for the memory limit being reached.
    ///
    /// # Errors
    /// [`Error::NoController`] without the memory controller; [`Error::Io`], [`Error::Write`].
    pub fn watch_oom(&self) -> Result<OomWatch> {
        match (self.v1(Controllers::MEMORY), self.v2()) {
            (Some(directory), _) => watch_v1(directory.to_owned()),
            (None, Some(directory)) if directory.join("memory.events").exists() => {
                let path = directory.join("memory.events");
                let watch = || {
                    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                    inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).map(|_| inotify)
                };
                let inotify = watch().map_err(|e| Error::io("watch", &path)(e.into()))?;
                Ok(OomWatch(Kind::V2 { inotify, cgroup: self.clone(), seen: self.oom_kills()? }))
            }
            _ => Err(Error::NoController {
                limit: "a watch for lack of memory".to_owned(),
                controller: "memory",
            }),
        }
    }

    /// A file that is exceptional (POLLPRI) when some process has waited for `resource` (cpu, memory or io) for `stall`
    /// within `window`; it's at most told once per window. POLLERR means that the cgroup is gone. None if the kernel
    /// has no pressure stall information.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Write`].
    pub fn watch_pressure(&self, resource: &str, stall: Duration, window: Duration) -> Result<Option<File>> {
        let Some(directory) = self.v2() else { return Ok(None) };
        let path = directory.join(format!("{resource}.pressure"));
        let value = format!("some {} {}\0", stall.as_micros(), window.as_micros());
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let mut opened = match opened {
            Err(error) if file::is_gone(&error) => return Ok(None),
            other => other.map_err(Error::io("open", &path))?,
        };
        match opened.write_all(value.as_bytes()) {
            Err(error) if file::is_gone(&error) => Ok(None),
            Err(source) => Err(Error::Write { path, value, source }),
            Ok(()) => Ok(Some(opened)),
        }
    }
}

fn watch_v1(directory: PathBuf) -> Result<OomWatch> {
    let path = directory.join("memory.oom_control");
    let control = File::open(&path).map_err(Error::io("open", &path))?;
    let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    let event = event.map_err(|e| Error::io("watch", &path)(e.into()))?;
    let value = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    file::write(&directory.join("cgroup.event_control"), &value)?;
    Ok(OomWatch(Kind::V1 { event, directory, _control: control }))
}

impl OomWatch {
    /// Whether it has run out of memory since the last call; doesn't wait.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn happened(&mut self) -> Result<bool> {
        match &mut self.0 {
            Kind::V1 { event, directory, .. } => match event.read() {
                // The end of the cgroup is told in the same way.
                Ok(_) => Ok(directory.exists()),
                Err(Errno::EAGAIN) => Ok(false),
                Err(e) => Err(Error::io("watch", directory.clone())(e.into())),
            },
            Kind::V2 { inotify, cgroup, seen } => {
                while inotify.read_events().is_ok() {}
                let before = std::mem::replace(seen, cgroup.oom_kills()?);
                Ok(*seen > before)
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::V1 { event, .. } => event.as_fd(),
            Kind::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}
