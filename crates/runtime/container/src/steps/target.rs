//! Mount targets and other places inside the rootfs: found, or made, without ever leaving it.
//!
//! A path of config.json is looked up as it looks from inside the container, links and all, through one
//! descriptor of the root (CVE-2019-19921, CVE-2021-30465, CVE-2024-45310).

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use corten_sys::{
    path::{open_in_root, open_in_root_no_links},
    xattr,
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    libc,
    sys::stat::{Mode, SFlag, fstat, mkdirat},
    unistd::symlinkat,
};

use crate::procfs::is_procfs;

/// What to make if the target isn't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    Directory,
    File,
}

/// Opens (O_PATH) what `path` is inside `root`; makes it if it's missing, with all directories above.
pub(crate) fn open_or_make(root: BorrowedFd<'_>, path: &CStr, make: Make) -> io::Result<OwnedFd> {
    match open_in_root(root, path, libc::O_PATH, 0) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    // Most often only the last component is missing, in a directory that's there.
    if let Some((parent, name)) = split(path)
        && let Ok(directory) = open_in_root(root, &parent, libc::O_PATH | libc::O_DIRECTORY, 0)
        && let Some(made) = make_last(directory.as_fd(), &name, make)?
    {
        return Ok(made);
    }
    walk(root, path, make)
}

/// The same where no symbolic link may be on the way, nor at its end: what lies there is made for everybody in the
/// container, and mustn't end up where the image's author points to. Links put there meanwhile don't matter either.
pub(crate) fn open_or_make_no_links(root: BorrowedFd<'_>, path: &CStr, make: Make) -> io::Result<OwnedFd> {
    // Someone who shares the directory may add and remove files under our hands: not for ever.
    for _ in 0..16 {
        match open_in_root_no_links(root, path, libc::O_PATH, 0) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            other => return other,
        }
        let (parent, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
        let directory = open_in_root_no_links(root, &parent, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        if let Some(made) = make_last(directory.as_fd(), &name, make)? {
            return Ok(made);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// [`open_or_make`], but if the last component is a symbolic link it is opened itself.
pub(crate) fn open_or_make_last_no_link(
    root: BorrowedFd<'_>,
    path: &CStr,
    make: Make,
) -> io::Result<OwnedFd> {
    let Some((parent, name)) = split(path) else { return open_or_make(root, path, make) };
    let parent = open_or_make(root, &parent, Make::Directory)?;
    let open = || {
        openat(&parent, name.as_c_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    };
    match open() {
        Err(Errno::ENOENT) => match make_last(parent.as_fd(), &name, make)? {
            Some(made) => Ok(made),
            None => Ok(open()?),
        },
        other => Ok(other?),
    }
}

/// Makes a symbolic link, with all directories above. That it's there already is fine.
pub(crate) fn make_link(root: BorrowedFd<'_>, path: &CStr, to: &OsStr) -> io::Result<()> {
    let (parent, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
    let parent = open_or_make(root, &parent, Make::Directory)?;
    if is_procfs(parent.as_fd())? {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it leads into /proc"));
    }
    match symlinkat(to, &parent, name.as_c_str()) {
        Err(Errno::EEXIST) if readlinkat(&parent, name.as_c_str()).is_ok_and(|there| there == to) => Ok(()),
        Err(Errno::EEXIST) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is there")),
        other => Ok(other?),
    }
}

fn split(path: &CStr) -> Option<(CString, CString)> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let name = CString::new(path.file_name()?.as_bytes()).ok()?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    Some((CString::new(parent.as_os_str().as_bytes()).ok()?, name))
}

/// None if something (a dangling link) is in the way.
fn make_last(directory: BorrowedFd<'_>, name: &CStr, make: Make) -> io::Result<Option<OwnedFd>> {
    let opened = match make {
        Make::Directory => mkdirat(directory, name, Mode::from_bits_truncate(0o755)).and_then(|()| {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(directory, name, flags, Mode::empty())
        }),
        Make::File => {
            let flags =
                OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
            openat(directory, name, flags, Mode::from_bits_truncate(0o644))
        }
    };
    match opened {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::EEXIST) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The slow way: component by component, following links (also dangling ones) by hand inside the root, making
/// what is missing. An image's /etc/resolv.conf is often a link to a file that only exists on a real machine.
fn walk(root: BorrowedFd<'_>, path: &CStr, make: Make) -> io::Result<OwnedFd> {
    let mut rest = components(Path::new(OsStr::from_bytes(path.to_bytes())));
    rest.reverse();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    let mut here = open_c(root, Path::new("/"))?;
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            here = open_c(root, &done)?;
            continue;
        }
        let c_name = CString::new(name.as_bytes())?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = match openat(here.as_fd(), c_name.as_c_str(), flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                let make = if rest.is_empty() { make } else { Make::Directory };
                match make_last(here.as_fd(), &c_name, make)? {
                    Some(next) => next,
                    None => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
                }
            }
            Err(e) => return Err(e.into()),
        };
        if is_link(next.as_fd())? {
            links += 1;
            if links > 40 {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let link = PathBuf::from(readlinkat(here.as_fd(), c_name.as_c_str())?);
            if link.is_absolute() {
                done = PathBuf::from("/");
                here = open_c(root, &done)?;
            }
            rest.extend(components(&link).into_iter().rev());
            continue;
        }
        done.push(&name);
        // Through the root again rather than keeping `next`: a mount may be on top of it.
        here = open_c(root, &done).or_else(|_| next.try_clone())?;
    }
    Ok(here)
}

fn components(path: &Path) -> Vec<OsString> {
    let name = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

fn open_c(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open_in_root(root, &CString::new(path.as_os_str().as_bytes())?, libc::O_PATH | libc::O_NOFOLLOW, 0)
}

/// Whether an open file is a directory.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Whether an open file (O_PATH) is a symbolic link.
pub(crate) fn is_link(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK)
}

/// Copies what is in directory `from` into directory `to` (tmpcopyup): everything but sockets, with mode and owner.
pub(crate) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from_dir = openat(from, c".", open, Mode::empty())?;
    let mut entries = nix::dir::Dir::from_fd(from_dir)?;
    let names: Vec<CString> =
        entries.iter().map(|entry| entry.map(|e| e.file_name().to_owned())).collect::<Result<_, _>>()?;
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        copy_one(from, to, name)?;
    }
    Ok(())
}

fn copy_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let stat = nix::sys::stat::fstatat(from, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let nofollow = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => {
            mkdirat(to, name, mode)?;
            let flags = nofollow | OFlag::O_DIRECTORY | OFlag::O_RDONLY;
            let inner = openat(from, name, flags, Mode::empty())?;
            let copy = openat(to, name, flags, Mode::empty())?;
            copy_up(inner.as_fd(), copy.as_fd())?;
            Some((inner, copy))
        }
        SFlag::S_IFREG => {
            let mut source =
                std::fs::File::from(openat(from, name, nofollow | OFlag::O_RDONLY, Mode::empty())?);
            let flags = nofollow | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
            let mut copy = std::fs::File::from(openat(to, name, flags, mode)?);
            io::copy(&mut source, &mut copy)?;
            Some((source.into(), copy.into()))
        }
        SFlag::S_IFLNK => {
            let link = readlinkat(from, name)?;
            nix::unistd::symlinkat(link.as_os_str(), to, name)?;
            None
        }
        kind @ (SFlag::S_IFIFO | SFlag::S_IFCHR | SFlag::S_IFBLK) => {
            nix::sys::stat::mknodat(to, name, kind, mode, stat.st_rdev)?;
            None
        }
        _ => return Ok(()),
    };
    let (uid, gid) = (nix::unistd::Uid::from_raw(stat.st_uid), nix::unistd::Gid::from_raw(stat.st_gid));
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    nix::unistd::fchownat(to, name, Some(uid), Some(gid), flags)?;
    // After the owner, whose change takes away file capabilities; after what is in it, which a default ACL would change.
    opened.map_or(Ok(()), |(from, to)| copy_attributes(&from, &to))
}

/// Extended attributes, and with them ACLs and file capabilities. What a tmpfs doesn't keep (attributes of users
/// before Linux 6.6), or what we may not set (trusted ones, in user namespaces), stays behind: so does cp(1).
fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    for name in xattr::flist(from)? {
        // SELinux has labelled the copy by the mount, and overlayfs's own aren't for others.
        if name == b"security.selinux" || name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let copied = match xattr::fget(from, &name) {
            Ok(Some(value)) => xattr::fset(to, &name, &value),
            other => other.map(drop),
        };
        // Ids that this user namespace doesn't know (EINVAL, EOVERFLOW) are in the way as well, and so is the lack of room.
        let fine = [libc::EOPNOTSUPP, libc::EPERM, libc::EINVAL, libc::EOVERFLOW, libc::ENOSPC];
        match copied {
            Err(e) if e.raw_os_error().is_some_and(|errno| fine.contains(&errno)) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn made(setup: impl FnOnce(&Path), path: &CStr, make: Make) -> (tempfile::TempDir, io::Result<OwnedFd>) {
        let root = tempfile::tempdir().expect("tempdir");
        setup(root.path());
        let fd = fs::File::open(root.path()).expect("open");
        let target = open_or_make(fd.as_fd(), path, make);
        (root, target)
    }

    #[test]
    fn missing_directories_are_made() {
        let (root, target) = made(|_| {}, c"/a/b/c", Make::Directory);
        target.expect("made");
        assert!(root.path().join("a/b/c").is_dir());
    }

    #[test]
    fn a_dangling_link_makes_what_it_points_to() {
        let setup = |root: &Path| {
            fs::create_dir(root.join("etc")).expect("mkdir");
            symlink("../run/systemd/resolv.conf", root.join("etc/resolv.conf")).expect("symlink");
        };
        let (root, target) = made(setup, c"/etc/resolv.conf", Make::File);
        target.expect("made");
        assert!(root.path().join("run/systemd/resolv.conf").is_file());
    }

    #[test]
    fn links_stay_inside() {
        let outside = tempfile::tempdir().expect("tempdir");
        let setup = |root: &Path| {
            symlink(outside.path(), root.join("absolute")).expect("symlink");
            symlink("../../../../../..", root.join("climbing")).expect("symlink");
        };
        let (root, target) = made(setup, c"/absolute/x", Make::File);
        target.expect("made");
        assert!(!outside.path().join("x").exists());
        assert!(root.path().join(outside.path().strip_prefix("/").expect("absolute")).join("x").exists());
        let fd = fs::File::open(root.path()).expect("open");
        open_or_make(fd.as_fd(), c"/climbing/y/z", Make::Directory).expect("made");
        assert!(root.path().join("y/z").is_dir());
    }

    #[test]
    fn where_links_are_not_wanted_there_are_none() {
        let root = tempfile::tempdir().expect("tempdir");
        fs::create_dir(root.path().join("dev")).expect("mkdir");
        fs::write(root.path().join("victim"), "").expect("write");
        symlink("/victim", root.path().join("dev/console")).expect("symlink");
        symlink("dev", root.path().join("link")).expect("symlink");
        let fd = fs::File::open(root.path()).expect("open");
        for path in [c"/dev/console", c"/link/null"] {
            let error = open_or_make_no_links(fd.as_fd(), path, Make::File).expect_err("a link");
            assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{path:?}");
        }
        open_or_make_no_links(fd.as_fd(), c"/dev/null", Make::File).expect("made");
        assert!(root.path().join("dev/null").is_file());
    }

    #[test]
    fn copies_have_the_attributes() {
        let (from, to) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
        fs::create_dir(from.path().join("dir")).expect("mkdir");
        fs::write(from.path().join("dir/file"), "text").expect("write");
        symlink("file", from.path().join("dir/link")).expect("symlink");
        for path in ["dir", "dir/file"] {
            if let Err(e) = xattr::lset(&from.path().join(path), b"user.colour", path.as_bytes()) {
                assert_eq!(e.raw_os_error(), Some(libc::EOPNOTSUPP));
                return;
            }
        }
        let open = |dir: &tempfile::TempDir| fs::File::open(dir.path()).expect("open");
        copy_up(open(&from).as_fd(), open(&to).as_fd()).expect("copied");
        for path in ["dir", "dir/file"] {
            let value = xattr::lget(&to.path().join(path), b"user.colour").expect("read");
            assert_eq!(value.as_deref(), Some(path.as_bytes()));
        }
        assert!(to.path().join("dir/link").is_symlink());
    }

    #[test]
    fn loops_end() {
        let setup = |root: &Path| {
            symlink("b", root.join("a")).expect("symlink");
            symlink("a", root.join("b")).expect("symlink");
        };
        let (_root, target) = made(setup, c"/a", Make::Directory);
        assert_eq!(target.expect_err("a loop").raw_os_error(), Some(libc::ELOOP));
    }
}
