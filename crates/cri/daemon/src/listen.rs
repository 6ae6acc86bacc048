//! The daemon's socket, and that only one daemon serves a state directory.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;

/// Held as long as the daemon lives: a second one on the same directory is refused.
#[derive(Debug)]
pub(crate) struct InstanceLock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// Locks `dir` for this process.
pub(crate) fn lock(dir: &Path) -> Result<InstanceLock> {
    let path = dir.join("cortend.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("can't open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(InstanceLock(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => bail!("another cortend already serves {}", dir.display()),
        Err((_, error)) => Err(error).with_context(|| format!("can't lock {}", path.display())),
    }
}

/// Makes a directory (and those above it) that others may pass through but not list.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o711).create(dir).with_context(|| format!("can't create {}", dir.display()))
}

/// Listens on `path` for root and its group. The caller holds the instance lock, so a socket that is there is stale.
pub(crate) fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't remove the stale socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("can't listen on {}", path.display()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660))
        .with_context(|| format!("can't set the mode of {}", path.display()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::lock;

    #[test]
    fn a_state_directory_has_one_daemon() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = lock(dir.path()).expect("free");
        let error = lock(dir.path()).expect_err("taken").to_string();
        assert!(error.contains("another cortend"), "{error}");
        drop(first);
        lock(dir.path()).expect("free again");
    }
}
