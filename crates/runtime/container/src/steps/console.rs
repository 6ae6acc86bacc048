//! The container's terminal: a pty of its own devpts, whose master goes to whoever is to hold it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use corten_sys::{fds, mount, path::open_in_root, pty};
use nix::{
    libc,
    sys::{
        stat::{SFlag, fstat, makedev},
        termios::{OutputFlags, SetArg, tcgetattr, tcsetattr},
    },
    unistd::{Uid, fchown},
};

use super::target::{Make, open_or_make_no_links};
use crate::{
    Result,
    error::Doing,
    plan::ProcessPlan,
    spawn::sync::{Channel, FromInit},
};

/// Makes the pty, hands out the master, and makes the slave our stdio and controlling terminal. For init it also
/// becomes /dev/console.
pub(crate) fn set_up(
    root: BorrowedFd<'_>,
    process: &ProcessPlan,
    socket: Option<BorrowedFd<'_>>,
    channel: &Channel,
    console: bool,
) -> Result<()> {
    let doing = || "open a pty in the container's /dev/pts".to_owned();
    let master = open_in_root(root, c"/dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0).doing(doing)?;
    is_ptmx(master.as_fd()).doing(doing)?;
    pty::unlock(master.as_fd()).doing(doing)?;
    let slave = pty::open_peer(master.as_fd()).doing(doing)?;
    if let Some((rows, columns)) = process.console_size {
        pty::set_size(slave.as_fd(), rows, columns).doing(|| "set the terminal's size".to_owned())?;
    }
    if process.uid != 0 {
        fchown(&slave, Some(Uid::from_raw(process.uid)), None).doing(|| "chown the terminal".to_owned())?;
    }
    if console {
        mount_console(root, &slave).doing(|| "bind mount the terminal on /dev/console".to_owned())?;
    }
    match socket {
        Some(socket) => fds::send(socket, b"/dev/ptmx", &[master.as_fd()])
            .map(drop)
            .doing(|| "send the terminal to the console socket".to_owned())?,
        None => {
            plain(slave.as_fd()).doing(|| "set the terminal's mode".to_owned())?;
            channel.tell(&FromInit::Terminal(master))?;
        }
    }
    pty::make_controlling(slave.as_fd()).doing(|| "take control of the terminal".to_owned())?;
    for number in 0..3 {
        fds::duplicate_to(slave.as_fd(), number).doing(|| "make the terminal stdio".to_owned())?;
    }
    Ok(())
}

/// Lets a terminal that we relay pass lines on as they were written: where our output is no terminal but a file or a
/// pipe, nobody wants a carriage return in it, and where it is one, it adds its own.
fn plain(slave: BorrowedFd<'_>) -> nix::Result<()> {
    let mut settings = tcgetattr(slave)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(slave, SetArg::TCSANOW, &settings)
}

/// Nothing but the kernel's own multiplexer will do.
fn is_ptmx(fd: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(fd)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
        && stat.st_rdev == makedev(5, 2)
    {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "is not the pty multiplexer"))
}

fn mount_console(root: BorrowedFd<'_>, slave: &OwnedFd) -> io::Result<()> {
    // This comes before masks and read-only paths: what a link points to would escape them. And the terminal is taken
    // from its descriptor, not by its name, which could be another's by now (CVE-2025-52565).
    let target = open_or_make_no_links(root, c"/dev/console", Make::File)?;
    let tree = mount::clone_tree(slave.as_fd(), c"", false)?;
    mount::move_mount(tree.as_fd(), target.as_fd())
}
