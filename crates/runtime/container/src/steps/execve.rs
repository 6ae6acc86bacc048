//! The last step: finding the program and becoming it.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use corten_sys::exec::{self, Strings};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    sys::stat::{SFlag, stat},
    unistd::{AccessFlags, faccessat},
};

use super::user::no_program;
use crate::{Error, Result, plan::ProcessPlan};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds `args[0]` as execvp(3) would with the container's PATH, as the user that we have become. Callers match
/// runc's words for what can go wrong.
pub(crate) fn find(plan: &ProcessPlan) -> Result<CString> {
    let Some(name) = plan.args.first() else { return Err(no_program("", "no program given")) };
    let shown = name.to_string_lossy().into_owned();
    if name.is_empty() {
        return Err(no_program(&shown, "executable file not found in $PATH"));
    }
    if name.to_bytes().contains(&b'/') {
        return match usable(Path::new(OsStr::from_bytes(name.to_bytes()))) {
            Ok(()) => Ok(name.clone()),
            Err(e) => Err(refused(&shown, e)),
        };
    }
    let mut denied = false;
    for directory in plan.path.as_deref().unwrap_or(DEFAULT_PATH).split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let path: PathBuf = Path::new(directory).join(OsStr::from_bytes(name.to_bytes()));
        match usable(&path) {
            Ok(()) => {
                return CString::new(path.as_os_str().as_bytes())
                    .map_err(|_| no_program(&shown, "contains NUL"));
            }
            Err(Errno::EACCES | Errno::EISDIR) => denied = true,
            Err(_) => {}
        }
    }
    let reason = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(no_program(&shown, reason))
}

fn usable(path: &Path) -> nix::Result<()> {
    let kind = SFlag::from_bits_truncate(stat(path)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    if kind != SFlag::S_IFREG {
        return Err(Errno::EACCES);
    }
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // The kernel has no such answer to this question: it's a seccomp profile from before faccessat2. execve will tell.
        Err(Errno::EPERM) => Ok(()),
        other => other,
    }
}

fn refused(shown: &str, errno: Errno) -> Error {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => no_program(shown, format!("stat {shown}: {}", words(errno))),
        other => no_program(shown, words(other)),
    }
}

/// The C library's words for it, in Go's small letters: "Exec format error" becomes "exec format error".
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Becomes the program; returns only if that fails.
pub(crate) fn execve(path: &CString, args: Vec<CString>, env: Vec<CString>) -> Error {
    let error = exec::execve(path, &Strings::new(args), &Strings::new(env));
    let reason = error.raw_os_error().map_or_else(|| error.to_string(), |n| words(Errno::from_raw(n)));
    Error::Execve { program: path.to_string_lossy().into_owned(), reason }
}
