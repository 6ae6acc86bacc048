//! `events`: what a container uses, from time to time, and when it runs out of memory or into pressure.

use std::{
    fs,
    fs::File,
    ops::ControlFlow,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use corten_cgroups::OomWatch;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    Error, Rdt, Result, Runtime, Status, cgroup::CgroupDoing, error::Doing, query::Now, rdt::Groups,
};

/// Pressure is told when processes have waited for so long ...
const STALL: Duration = Duration::from_millis(200);
/// ... within this time. (Without CAP_SYS_RESOURCE the kernel takes only multiples of two seconds.)
const WINDOW: Duration = Duration::from_secs(2);

/// What happens to a container.
#[derive(Debug)]
pub enum Event {
    /// What it uses now.
    Stats(Box<Usage>),
    /// It has run out of memory.
    Oom,
    /// Its processes have to wait for "cpu", "memory" or "io".
    Pressure(&'static str),
}

/// What a container uses.
#[derive(Debug, Default)]
pub struct Usage {
    /// Of processors, memory, block devices.
    pub stats: corten_cgroups::Stats,
    /// Of what fewer are interested in.
    pub extended: corten_cgroups::stats::Extended,
    /// The network devices of its namespace.
    pub interfaces: Vec<Interface>,
    /// Of caches and memory bandwidth, for a container with `linux.intelRdt`.
    pub rdt: Option<Rdt>,
}

/// What went through a network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Bytes, packets, errors and dropped packets, received.
    pub received: [u64; 4],
    /// The same, sent.
    pub sent: [u64; 4],
}

impl Runtime {
    /// What the container uses now.
    ///
    /// # Errors
    /// [`Error::Status`] if it is stopped; [`Error::Cgroup`].
    pub fn usage(&self, id: &str) -> Result<Usage> {
        usage(&self.living(id)?)
    }

    /// Tells what happens to the container until it ends or `tell` has enough: its usage every `interval`, when it
    /// runs out of memory, and with `pressure` when its processes are held up.
    ///
    /// # Errors
    /// [`Error::Status`] if it is stopped; [`Error::Cgroup`].
    pub fn watch(
        &self,
        id: &str,
        interval: Duration,
        pressure: bool,
        tell: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<()> {
        let now = self.living(id)?;
        let Some(init) = &now.init else { return Ok(()) };
        let mut watches = Watches::new(&now, pressure)?;
        let mut next = Instant::now() + interval;
        loop {
            // Looked at first: what happened before its end is told before the end.
            let ended = watches.wait(init, next)?;
            if let Some(oom) = &mut watches.oom
                && oom.happened().cgroup("watch", now.record.cgroup.path())?
                && tell(Event::Oom).is_break()
            {
                return Ok(());
            }
            for resource in std::mem::take(&mut watches.pressed) {
                if tell(Event::Pressure(resource)).is_break() {
                    return Ok(());
                }
            }
            if ended {
                return Ok(());
            }
            if Instant::now() >= next {
                next += interval;
                if tell(Event::Stats(Box::new(usage(&now)?))).is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn living(&self, id: &str) -> Result<Now> {
        let now = self.now(id)?;
        match now.status {
            Status::Stopped => {
                Err(Error::Status { id: id.to_owned(), status: now.status, operation: "events" })
            }
            _ => Ok(now),
        }
    }
}

/// What is waited for.
struct Watches {
    /// None without the memory controller.
    oom: Option<OomWatch>,
    pressure: Vec<(&'static str, File)>,
    /// Those under pressure as of the last wait.
    pressed: Vec<&'static str>,
}

impl Watches {
    fn new(now: &Now, pressure: bool) -> Result<Self> {
        let cgroup = &now.record.cgroup;
        let oom = match cgroup.watch_oom() {
            Err(corten_cgroups::Error::NoController { .. }) => None,
            other => Some(other.cgroup("watch", cgroup.path())?),
        };
        let mut files = Vec::new();
        for resource in ["cpu", "memory", "io"].into_iter().filter(|_| pressure) {
            let file = cgroup.watch_pressure(resource, STALL, WINDOW).cgroup("watch", cgroup.path())?;
            files.extend(file.map(|file| (resource, file)));
        }
        if pressure && files.is_empty() {
            let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(source).doing(|| "watch the pressure: this kernel doesn't measure it".to_owned());
        }
        Ok(Self { oom, pressure: files, pressed: Vec::new() })
    }

    /// Waits for anything, at most until `deadline`; whether init has ended.
    fn wait(&mut self, init: &OwnedFd, deadline: Instant) -> Result<bool> {
        let mut fds = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.oom.iter().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
        let triggers = fds.len();
        fds.extend(self.pressure.iter().map(|(_, file)| PollFd::new(file.as_fd(), PollFlags::POLLPRI)));
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(e) => return Err(e).doing(|| "wait for events".to_owned()),
        }
        let happened: Vec<PollFlags> = fds.iter().filter_map(PollFd::revents).collect();
        drop(fds);
        let triggers = happened.get(triggers..).unwrap_or_default();
        let pressed =
            self.pressure.iter().zip(triggers).filter(|(_, flags)| flags.contains(PollFlags::POLLPRI));
        self.pressed = pressed.map(|((name, _), _)| *name).collect();
        // A trigger of a cgroup that is gone would be ready for ever.
        let gone: Vec<bool> = triggers.iter().map(|flags| flags.contains(PollFlags::POLLERR)).collect();
        let mut gone = gone.into_iter();
        self.pressure.retain(|_| !gone.next().unwrap_or(false));
        Ok(happened.first().is_some_and(|flags| !flags.is_empty()))
    }
}

fn usage(now: &Now) -> Result<Usage> {
    let cgroup = &now.record.cgroup;
    Ok(Usage {
        stats: cgroup.stats().cgroup("read", cgroup.path())?,
        extended: cgroup.extended_stats().cgroup("read", cgroup.path())?,
        // It may have ended just now.
        interfaces: interfaces(
            &fs::read_to_string(format!("/proc/{}/net/dev", now.record.init.pid)).unwrap_or_default(),
        ),
        rdt: now.record.rdt.as_ref().map(Groups::stats),
    })
}

/// Two lines of headings, then ` eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0`; the loopback device is left out.
fn interfaces(text: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        let four = |from: usize| counts.get(from..from + 4)?.try_into().ok();
        Some(Interface { name: name.trim().to_owned(), received: four(0)?, sent: four(8)? })
    };
    text.lines().skip(2).filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_devices() {
        let text = "Inter-|   Receive\n face |bytes packets errs drop\n    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n  \
            eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let eth0 = Interface { name: "eth0".to_owned(), received: [1, 2, 3, 4], sent: [5, 6, 7, 8] };
        assert_eq!(interfaces(text), [eth0]);
        assert_eq!(interfaces(""), []);
    }
}
