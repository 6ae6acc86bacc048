//! Extended attributes, which neither std nor nix offers.
//!
//! Names and values are bytes. Paths are never followed if they end in a symlink; to reach a file beneath a directory
//! descriptor, use `/proc/self/fd/<n>/<name>`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an attribute of an open file, creating or replacing it. The descriptor can't be an `O_PATH` one.
///
/// # Errors
///
/// As of fsetxattr(2); `EINVAL` for a name with a NUL.
pub fn fset(fd: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: name is NUL-terminated and value is readable for the length given, both for the whole call.
    check(unsafe {
        libc::fsetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

/// Sets an attribute of the file that `path` names, of the link itself if it is a symlink.
///
/// # Errors
///
/// As of lsetxattr(2); `EINVAL` for a name or path with a NUL.
pub fn lset(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name)?);
    // SAFETY: path and name are NUL-terminated and value is readable for the length given, all for the whole call.
    check(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

/// The value of an attribute of the file that `path` names, or `None` if it doesn't have it.
///
/// # Errors
///
/// As of lgetxattr(2), without `ENODATA`; a file system without attributes has none.
pub fn lget(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name)?);
    match sized(|buffer| lget_into(&path, &name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of all attributes of the file that `path` names, sorted.
///
/// # Errors
///
/// As of llistxattr(2); a file system without attributes gives an empty list.
pub fn llist(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let path = c_string(path.as_os_str().as_bytes())?;
    names(sized(|buffer| llist_into(&path, buffer)))
}

/// The value of an attribute of an open file, or `None` if it doesn't have it. The descriptor can't be an `O_PATH` one.
///
/// # Errors
///
/// As of fgetxattr(2), without `ENODATA`; a file system without attributes has none.
pub fn fget(fd: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let name = c_string(name)?;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: name is NUL-terminated and buffer is writable for the length given, both for the whole call.
    let get = |buffer: &mut [u8]| unsafe {
        libc::fgetxattr(fd, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    match sized(get) {
        Ok(value) => Ok(Some(value)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of all attributes of an open file, sorted. The descriptor can't be an `O_PATH` one.
///
/// # Errors
///
/// As of flistxattr(2); a file system without attributes gives an empty list.
pub fn flist(fd: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: buffer is writable for the length given, for the whole call.
    names(sized(|buffer: &mut [u8]| unsafe {
        libc::flistxattr(fd, buffer.as_mut_ptr().cast(), buffer.len())
    }))
}

/// A list of names, each with a NUL at its end.
fn names(list: io::Result<Vec<u8>>) -> io::Result<Vec<Vec<u8>>> {
    let list = match list {
        Ok(list) => list,
        Err(error) if absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<_> =
        list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

fn absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP))
}

fn lget_into(path: &CStr, name: &CStr, buffer: &mut [u8]) -> isize {
    // SAFETY: path and name are NUL-terminated and buffer is writable for the length given, all for the whole call.
    unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
}

fn llist_into(path: &CStr, buffer: &mut [u8]) -> isize {
    // SAFETY: path is NUL-terminated and buffer is writable for the length given, both for the whole call.
    unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
}

/// Calls with growing buffers until the answer fits: another process may change the attribute between two calls.
fn sized(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match usize::try_from(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                // The kernel's own limit for values and lists is 64 KiB.
                if error.raw_os_error() != Some(libc::ERANGE) || buffer.len() > 64 * 1024 {
                    return Err(error);
                }
                buffer.resize(buffer.len() * 4, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_comes_back_as_it_was_set() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let long = vec![b'x'; 1000];
        if let Err(error) = fset(file.as_file(), b"user.long", &long) {
            assert!(absent(&error), "{error}");
            return;
        }
        lset(file.path(), b"user.empty", b"").expect("set");
        assert_eq!(lget(file.path(), b"user.long").expect("get"), Some(long));
        assert_eq!(lget(file.path(), b"user.empty").expect("get"), Some(Vec::new()));
        assert_eq!(lget(file.path(), b"user.none").expect("get"), None);
        assert_eq!(fget(file.as_file(), b"user.long").expect("get"), Some(vec![b'x'; 1000]));
        assert_eq!(fget(file.as_file(), b"user.none").expect("get"), None);
        assert_eq!(flist(file.as_file()).expect("list"), llist(file.path()).expect("list"));
        let names = llist(file.path()).expect("list");
        assert!(
            names.contains(&b"user.empty".to_vec()) && names.contains(&b"user.long".to_vec()),
            "{names:?}"
        );
    }
}
