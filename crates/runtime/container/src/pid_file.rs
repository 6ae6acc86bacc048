//! The file that tells a caller the pid of what it has started.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use crate::{Result, error::Doing};

/// Writes the pid, so that a reader sees all of it or no file.
pub(crate) fn write(path: &Path, pid: i32) -> Result<()> {
    let mut temporary = OsString::from(path);
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    write_new(temporary, pid)
        .and_then(|()| {
            fs::rename(temporary, path).inspect_err(|_| {
                fs::remove_file(temporary).ok(); // because why it can't be renamed matters more
            })
        })
        .doing(|| format!("write the pid file {}", path.display()))
}

/// Into a file of our own: what others have put at this name, which can be guessed, is neither followed nor changed.
fn write_new(path: &Path, pid: i32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(pid.to_string().as_bytes()).inspect_err(|_| {
        fs::remove_file(path).ok(); // because why it can't be written matters more
    })
}

/// Removes the pid file of a process that came to nothing; not that of another, if it wasn't written yet.
pub(crate) fn remove(path: &Path, pid: i32) -> Result<()> {
    match fs::read(path) {
        Ok(found) if found == pid.to_string().as_bytes() => {
            fs::remove_file(path).doing(|| format!("remove the pid file {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (path, other) = (dir.path().join("pid"), dir.path().join("other"));
        fs::write(&other, "precious").expect("write");
        std::os::unix::fs::symlink(&other, dir.path().join("pid.tmp")).expect("link");
        write(&path, 7).expect("a stale file is no reason to fail");
        assert_eq!(fs::read_to_string(&path).expect("pid"), "7");
        assert_eq!(fs::read_to_string(&other).expect("other"), "precious");
    }

    #[test]
    fn nothing_is_left_of_a_failure() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("pid");
        fs::create_dir(&path).expect("mkdir");
        write(&path, 7).expect_err("there's a directory");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn only_ours_is_removed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("pid");
        remove(&path, 7).expect("there's none");
        write(&path, 8).expect("write");
        remove(&path, 7).expect("that of another");
        assert!(path.exists());
        remove(&path, 8).expect("remove");
        assert!(!path.exists());
    }
}
