//! The root file system: mounted before create, unmounted after delete.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use corten_sys::mount::{Attributes, Filesystem, move_mount};
use corten_task_api::proto::containerd::types::Mount;
use corten_task_api::ttrpc::{Code, Status};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::aside::aside;
use crate::error;

/// mount(2) takes a page of options, with the NUL.
const PAGE: usize = 4096;
/// Mounts on one directory before we take it for a loop.
const STACKED: usize = 64;

/// [`mount_all`], while others are served.
pub(crate) async fn mount_aside(mounts: Vec<Mount>, rootfs: PathBuf) -> Result<(), Status> {
    match mounts.as_slice() {
        [] => Ok(()),
        _ => aside("mounts", move || mount_all(&mounts, &rootfs)).await?,
    }
}

/// [`unmount_all`], while others are served.
pub(crate) async fn unmount_aside(rootfs: PathBuf) -> Result<(), Status> {
    aside("mounts", move || unmount_all(&rootfs)).await?
}

/// Mounts all, or nothing.
pub(crate) fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), Status> {
    if mounts.is_empty() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(rootfs)
        .map_err(|e| error::io(format!("create {}", rootfs.display()), &e))?;
    for one in mounts {
        let done = target(rootfs, &one.target).and_then(|target| {
            mount_one(one, &target).map_err(|e| {
                let what = format!("mount {} from {:?} at {}", one.r#type, one.source, target.display());
                error::io(what, &e)
            })
        });
        if let Err(error) = done {
            return Err(match unmount_all(rootfs) {
                Ok(()) => error,
                Err(undo) => Status::new(error.code, format!("{error}; and {undo}")),
            });
        }
    }
    Ok(())
}

/// Unmounts whatever is mounted on `rootfs`; nothing is fine. Lazily: who still looks at it doesn't hold us up.
pub(crate) fn unmount_all(rootfs: &Path) -> Result<(), Status> {
    for _ in 0..STACKED {
        match umount2(rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(error::io(format!("unmount {}", rootfs.display()), &errno.into())),
        }
    }
    Err(Status::new(Code::Internal, format!("unmount {}: more than {STACKED} mounts", rootfs.display())))
}

/// A target below the root without a way out.
fn target(rootfs: &Path, target: &str) -> Result<PathBuf, Status> {
    let relative = Path::new(target.trim_start_matches('/'));
    if relative.components().any(|c| c == Component::ParentDir) {
        return Err(error::invalid(format!("mount target {target:?} leads out of the root file system")));
    }
    Ok(rootfs.join(relative))
}

fn mount_one(one: &Mount, target: &Path) -> io::Result<()> {
    let (flags, data) = parse_options(&one.options);
    if data.len() >= PAGE {
        return mount_long(one, flags, target);
    }
    let data = (!data.is_empty()).then_some(data.as_str());
    let bind = flags.contains(MsFlags::MS_BIND);
    let propagation = MsFlags::MS_SHARED | MsFlags::MS_PRIVATE | MsFlags::MS_SLAVE | MsFlags::MS_UNBINDABLE;
    let first = if bind { flags & (MsFlags::MS_BIND | MsFlags::MS_REC) } else { flags - propagation };
    mount(Some(one.source.as_str()), target, Some(one.r#type.as_str()), first, data)?;
    let attributes = flags - propagation - MsFlags::MS_REC - MsFlags::MS_BIND;
    if bind && !attributes.is_empty() {
        // A bind mount takes its flags only when it is there.
        let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | attributes;
        mount(None::<&str>, target, None::<&str>, again, None::<&str>)?;
    }
    if flags.intersects(propagation) {
        mount(None::<&str>, target, None::<&str>, flags & (propagation | MsFlags::MS_REC), None::<&str>)?;
    }
    Ok(())
}

/// More options than mount(2) takes: one by one through fsopen(2); overlay's layers each on their own (kernel 6.8).
fn mount_long(one: &Mount, flags: MsFlags, target: &Path) -> io::Result<()> {
    let c = |text: &str| CString::new(text).map_err(io::Error::from);
    let fs = Filesystem::open(&c(&one.r#type)?)?;
    fs.string(c"source", &c(&one.source)?)?;
    for option in one.options.iter().filter(|o| flag(o).is_none()) {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    fs.string(c"lowerdir+", &c(layer)?)?;
                }
            }
            Some((key, value)) => fs.string(&c(key)?, &c(value)?)?,
            None => fs.flag(&c(option)?)?,
        }
    }
    if flags.contains(MsFlags::MS_RDONLY) {
        fs.flag(c"ro")?;
    }
    let mounted = fs.mount(Attributes::empty())?;
    let at = std::fs::File::open(target)?;
    move_mount(mounted.as_fd(), at.as_fd())
}

/// Flags, and what is left for the file system.
fn parse_options(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match flag(option) {
            Some((true, flag)) => flags |= flag,
            Some((false, flag)) => flags -= flag,
            None => data.push(option.as_str()),
        }
    }
    (flags, data.join(","))
}

/// Whether an option sets or clears a flag, and which.
fn flag(option: &str) -> Option<(bool, MsFlags)> {
    Some(match option {
        "defaults" => (true, MsFlags::empty()),
        "ro" => (true, MsFlags::MS_RDONLY),
        "rw" => (false, MsFlags::MS_RDONLY),
        "bind" => (true, MsFlags::MS_BIND),
        "rbind" => (true, MsFlags::MS_BIND | MsFlags::MS_REC),
        "nosuid" => (true, MsFlags::MS_NOSUID),
        "suid" => (false, MsFlags::MS_NOSUID),
        "nodev" => (true, MsFlags::MS_NODEV),
        "dev" => (false, MsFlags::MS_NODEV),
        "noexec" => (true, MsFlags::MS_NOEXEC),
        "exec" => (false, MsFlags::MS_NOEXEC),
        "sync" => (true, MsFlags::MS_SYNCHRONOUS),
        "async" => (false, MsFlags::MS_SYNCHRONOUS),
        "dirsync" => (true, MsFlags::MS_DIRSYNC),
        "noatime" => (true, MsFlags::MS_NOATIME),
        "atime" => (false, MsFlags::MS_NOATIME),
        "nodiratime" => (true, MsFlags::MS_NODIRATIME),
        "diratime" => (false, MsFlags::MS_NODIRATIME),
        "relatime" => (true, MsFlags::MS_RELATIME),
        "norelatime" => (false, MsFlags::MS_RELATIME),
        "strictatime" => (true, MsFlags::MS_STRICTATIME),
        "shared" => (true, MsFlags::MS_SHARED),
        "rshared" => (true, MsFlags::MS_SHARED | MsFlags::MS_REC),
        "private" => (true, MsFlags::MS_PRIVATE),
        "rprivate" => (true, MsFlags::MS_PRIVATE | MsFlags::MS_REC),
        "slave" => (true, MsFlags::MS_SLAVE),
        "rslave" => (true, MsFlags::MS_SLAVE | MsFlags::MS_REC),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_data() {
        let options = ["ro", "nodev", "lowerdir=/a:/b", "volatile", "rw"].map(str::to_owned);
        assert_eq!(parse_options(&options), (MsFlags::MS_NODEV, "lowerdir=/a:/b,volatile".to_owned()));
    }

    #[test]
    fn targets_stay_below_the_root() {
        assert_eq!(target(Path::new("/r"), "/etc").unwrap(), Path::new("/r/etc"));
        assert_eq!(target(Path::new("/r"), "").unwrap(), Path::new("/r/"));
        assert!(target(Path::new("/r"), "a/../../x").is_err());
    }
}
