//! Commands that try one system call and say how it went: `mkdir: ok`, or `mkdir: EPERM`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev};

use crate::{Outcome, number, word};

/// Prints the outcome; the exit code is the errno, so that scripts can tell as well.
fn report<T>(name: &str, result: nix::Result<T>) -> Outcome {
    match result {
        Ok(_) => {
            println!("{name}: ok");
            Ok(0)
        }
        Err(errno) => {
            println!("{name}: {errno:?}");
            Ok(u8::try_from(errno as i32)?)
        }
    }
}

pub(crate) fn mkdir(arguments: &[String]) -> Outcome {
    let mode = u32::from_str_radix(arguments.get(1).map_or("777", String::as_str), 8)?;
    report("mkdir", nix::unistd::mkdir(word(arguments, 0)?, Mode::from_bits_truncate(mode)))
}

pub(crate) fn mknod(arguments: &[String]) -> Outcome {
    let kind = if word(arguments, 1)? == "b" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let device = makedev(number(arguments, 2, 1)?, number(arguments, 3, 3)?);
    report("mknod", nix::sys::stat::mknod(word(arguments, 0)?, kind, Mode::from_bits_truncate(0o666), device))
}

pub(crate) fn open(arguments: &[String]) -> Outcome {
    let write = arguments.get(1).is_some_and(|a| a == "rw");
    let opened = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(word(arguments, 0)?);
    report("open", opened.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0))))
}

pub(crate) fn unshare(arguments: &[String]) -> Outcome {
    let mut flags = CloneFlags::empty();
    for kind in arguments {
        flags |= match kind.as_str() {
            "user" => CloneFlags::CLONE_NEWUSER,
            "mount" => CloneFlags::CLONE_NEWNS,
            "net" => CloneFlags::CLONE_NEWNET,
            "pid" => CloneFlags::CLONE_NEWPID,
            "uts" => CloneFlags::CLONE_NEWUTS,
            "ipc" => CloneFlags::CLONE_NEWIPC,
            "cgroup" => CloneFlags::CLONE_NEWCGROUP,
            other => return Err(format!("unknown namespace {other}").into()),
        };
    }
    report("unshare", nix::sched::unshare(flags))
}

pub(crate) fn mount(arguments: &[String]) -> Outcome {
    let (source, target, kind) = (word(arguments, 0)?, word(arguments, 1)?, word(arguments, 2)?);
    let flags = if kind == "bind" { MsFlags::MS_BIND } else { MsFlags::empty() };
    report("mount", nix::mount::mount(Some(source), target, Some(kind), flags, None::<&str>))
}

pub(crate) fn umount(arguments: &[String]) -> Outcome {
    report("umount", nix::mount::umount(word(arguments, 0)?))
}

pub(crate) fn sethostname(arguments: &[String]) -> Outcome {
    report("sethostname", nix::unistd::sethostname(word(arguments, 0)?))
}

pub(crate) fn chown(arguments: &[String]) -> Outcome {
    let (uid, gid): (u32, u32) = (number(arguments, 1, 0)?, number(arguments, 2, 0)?);
    report("chown", nix::unistd::chown(word(arguments, 0)?, Some(uid.into()), Some(gid.into())))
}

pub(crate) fn raw_socket(_: &[String]) -> Outcome {
    report("raw-socket", socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp))
}

pub(crate) fn chroot(arguments: &[String]) -> Outcome {
    report("chroot", nix::unistd::chroot(word(arguments, 0)?))
}
