//! Reads an image's `/etc/passwd` and `/etc/group` before a container exists.
//!
//! The root file system is mounted in a mount namespace that lives as long as a thread: nothing of it is seen
//! elsewhere, and nothing is left however the thread ends. Links in the image are followed within it.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use corten_image::Mount;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use crate::spec::user::Accounts;
use crate::{Error, Result};

/// Files longer than this aren't user databases but attacks (CVE-2026-47262).
const LIMIT: u64 = 4 << 20;

/// Reads the files of the root file system that `mounts` makes, using `point` as a mount point. Blocks.
pub(crate) fn read(mounts: &[Mount], point: &Path) -> Result<Accounts> {
    let failed = Error::io("look into the image's file system at", point);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("accounts".into());
        let thread = thread.spawn_scoped(scope, || look(mounts, point));
        match thread.map(|thread| thread.join()) {
            Ok(Ok(found)) => found.map_err(failed),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(failed(error)),
        }
    })
}

fn look(mounts: &[Mount], point: &Path) -> std::io::Result<Accounts> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    for each in mounts {
        let (flags, data) = options(&each.options);
        let data = (!data.is_empty()).then_some(data.as_str());
        mount(Some(&each.source), &point.join(&each.target), Some(each.fs_type.as_str()), flags, data)?;
    }
    let accounts = {
        let root = open(point, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Accounts { passwd: file(&root, "etc/passwd")?, group: file(&root, "etc/group")? }
    };
    // At once, not when the namespace is reaped: the container mounts the same directories for itself.
    for each in mounts.iter().rev() {
        umount2(&point.join(&each.target), MntFlags::empty())?;
    }
    Ok(accounts)
}

/// Flags and the rest, as mount(2) takes them.
fn options(all: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in all {
        match option.as_str() {
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// A file beneath the root, links resolved within; empty if there is none or it isn't a plain file.
fn file(root: &impl AsFd, path: &str) -> std::io::Result<Vec<u8>> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = match openat2(root, path, how) {
        Ok(fd) => File::from(fd),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP | nix::Error::ENXIO) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::new();
    if opened.metadata()?.is_file() {
        opened.take(LIMIT).read_to_end(&mut content)?;
    }
    Ok(content)
}
