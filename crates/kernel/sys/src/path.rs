//! Path resolution that can't leave a root: openat2(2).

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use crate::check;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn openat2(at: BorrowedFd<'_>, path: &CStr, how: &OpenHow) -> io::Result<OwnedFd> {
    // RESOLVE_IN_ROOT answers EAGAIN when anything was renamed meanwhile anywhere: it couldn't be sure about "..".
    let mut attempts = 0;
    loop {
        let (how, size) = (std::ptr::from_ref(how), std::mem::size_of::<OpenHow>());
        // SAFETY: path is a NUL-terminated string; how is valid and of the size told.
        match check(unsafe { libc::syscall(libc::SYS_openat2, at.as_raw_fd(), path.as_ptr(), how, size) }) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && attempts < 128 => attempts += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Opens `path` as it looks to a process whose root is `root`: absolute links and `..` stay inside; magic links
/// of procfs aren't followed. `flags` are open(2)'s; O_CLOEXEC is added.
///
/// # Errors
/// open(2)'s; ELOOP at a magic link.
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    openat2(
        root,
        path,
        &OpenHow {
            flags: (flags | libc::O_CLOEXEC) as u64,
            mode: mode.into(),
            resolve: libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
        },
    )
}

/// [`open_in_root`], but no symbolic link is followed anywhere: what the image's author made a link stays closed.
///
/// # Errors
/// open(2)'s; ELOOP at a link.
pub fn open_in_root_no_links(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
) -> io::Result<OwnedFd> {
    openat2(
        root,
        path,
        &OpenHow {
            flags: (flags | libc::O_CLOEXEC) as u64,
            mode: mode.into(),
            resolve: libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS,
        },
    )
}

/// Opens `path` below `at`, following no symbolic link and crossing into no other mount.
///
/// # Errors
/// open(2)'s; ELOOP at a link, EXDEV at a mount or if the path leaves `at`.
pub fn open_beneath(at: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    openat2(
        at,
        path,
        &OpenHow {
            flags: (flags | libc::O_CLOEXEC) as u64,
            mode: mode.into(),
            resolve: libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV,
        },
    )
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, fs, os::fd::AsFd, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_cannot_leave_the_root() {
        let root = tempfile::tempdir().expect("tempdir");
        fs::create_dir(root.path().join("etc")).expect("mkdir");
        fs::write(root.path().join("etc/passwd"), "inside").expect("write");
        symlink("/etc/passwd", root.path().join("absolute")).expect("symlink");
        symlink("../../../../etc/passwd", root.path().join("climbing")).expect("symlink");
        let dir = fs::File::open(root.path()).expect("open");
        for name in ["absolute", "climbing", "../../etc/passwd", "/etc/passwd"] {
            let name = CString::new(name).expect("no NUL");
            let fd = open_in_root(dir.as_fd(), &name, libc::O_RDONLY, 0).expect("open");
            assert_eq!(io::read_to_string(fs::File::from(fd)).expect("read"), "inside", "{name:?}");
        }
    }

    #[test]
    fn magic_links_are_refused() {
        let dir = fs::File::open("/").expect("open");
        let error = open_in_root(dir.as_fd(), c"/proc/self/exe", libc::O_PATH, 0).expect_err("a magic link");
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn beneath_follows_nothing() {
        let root = tempfile::tempdir().expect("tempdir");
        fs::write(root.path().join("file"), "x").expect("write");
        symlink("file", root.path().join("link")).expect("symlink");
        let dir = fs::File::open(root.path()).expect("open");
        assert!(open_beneath(dir.as_fd(), c"file", libc::O_RDONLY, 0).is_ok());
        assert!(open_beneath(dir.as_fd(), c"link", libc::O_RDONLY, 0).is_err());
        assert!(open_beneath(dir.as_fd(), c"..", libc::O_RDONLY, 0).is_err());
    }
}
