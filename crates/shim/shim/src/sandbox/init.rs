//! A process of ours in new namespaces: starts `pod-init` and hears whether it has set them up.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use corten_sys::exec::{Strings, cloexec_from, fexecve};
use corten_sys::executable;
use corten_sys::process::{Forked, Namespaces, clone, exit, pidfd_send_signal, set_user};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stdout, pipe2};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::holder::named;

/// What pod-init writes when all is set up; else it writes why not.
pub(crate) const READY: u8 = 0;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest reason that is told.
const LONGEST: u64 = 4096;

/// What it executes: ours, from a mount of its own which is read-only, or a sealed copy. Containers that share its PIDs and have CAP_SYS_PTRACE
/// get at it by /proc/1/exe, and must not get at the file that the next shim is started from (as in CVE-2019-5736).
fn executable() -> io::Result<OwnedFd> {
    // Where it can't be mounted, as its own mount has been taken away since we were started, there's the copy.
    executable::read_only().or_else(|mount| {
        executable::sealed_copy(c"pod-init").map_err(|copy| {
            named(&format!("make the pod's init unchangeable: mount it read-only: {mount}; copy it"), &copy)
        })
    })
}

/// A `pod-init`. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Init {
    pid: u32,
    pidfd: OwnedFd,
    /// What it says.
    pipe: Option<OwnedFd>,
}

impl Drop for Init {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL as i32); // it may have ended
    }
}

impl Init {
    /// Starts it in new namespaces; with `maps`, as root of them. Whoever calls holds exits of children, so that its
    /// own isn't missed. It may go away again until it is [`Self::ready`].
    pub(crate) fn start(
        new: Namespaces,
        arguments: &[String],
        maps: Option<&(String, String)>,
    ) -> io::Result<Self> {
        // Everything that allocates before the clone: other threads may be at it.
        let binary = executable()?;
        let name = std::env::args_os().next().unwrap_or_default().into_encoded_bytes();
        let mut strings = vec![CString::new(name)?];
        for argument in arguments {
            strings.push(CString::new(argument.as_str())?);
        }
        strings.push(c"pod-init".to_owned());
        let arguments = Strings::new(strings);
        let environment = Strings::new(Vec::new());
        let (wait, mapped) = pipe2(OFlag::O_CLOEXEC)?;
        let (says, said) = pipe2(OFlag::O_CLOEXEC)?;
        match clone(new, None, false).map_err(|e| named("start the pod's init", &e))? {
            Forked::Child => {
                drop(mapped);
                // Its parent writes a byte when the maps are there.
                let told = nix::unistd::read(&wait, &mut [0; 1]) == Ok(1);
                if told
                    && (maps.is_none() || set_user(0, 0, Some(&[])).is_ok())
                    && dup2_stdout(&said).is_ok()
                    && cloexec_from(3).is_ok()
                {
                    drop(fexecve(binary.as_fd(), &arguments, &environment));
                }
                exit(127)
            }
            Forked::Parent { pid, pidfd } => {
                let init = Self { pid: pid.cast_unsigned(), pidfd, pipe: Some(says) };
                let map = |kind: &str, lines: &str| {
                    let path = format!("/proc/{pid}/{kind}_map");
                    std::fs::write(&path, lines).map_err(|e| named(&format!("write {path}"), &e))
                };
                if let Some((uids, gids)) = maps {
                    map("uid", uids)?;
                    map("gid", gids)?;
                }
                nix::unistd::write(&mapped, &[0])?;
                Ok(init)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has set everything up.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        let Some(pipe) = self.pipe.take() else { return Ok(()) };
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let mut said = Vec::new();
        tokio::time::timeout(PATIENCE, pipe.take(LONGEST).read_to_end(&mut said)).await.map_err(|_| {
            let what = format!("the pod's init {} isn't ready after {} s", self.pid, PATIENCE.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, what)
        })??;
        match said.as_slice() {
            [READY] => Ok(()),
            [] => Err(io::Error::other("the pod's init has died before it was ready: see shim.log")),
            why => Err(io::Error::other(String::from_utf8_lossy(why).into_owned())),
        }
    }
}
