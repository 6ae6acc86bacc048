//! Advisory locks between processes: flock(2).

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use crate::{Error, Result};

/// A lock that is held until the value is dropped or the process ends.
///
/// The file stays behind on purpose: removing it while another process waits for it would let two of them in.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its Drop")] Flock<File>);

impl Lock {
    /// Waits until nobody else holds the lock. Creates the file (0600) if need be, not its directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn exclusive(path: impl AsRef<Path>) -> Result<Self> {
        Self::wait(path.as_ref(), FlockArg::LockExclusive)
    }

    /// Waits until nobody holds the lock exclusively.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn shared(path: impl AsRef<Path>) -> Result<Self> {
        Self::wait(path.as_ref(), FlockArg::LockShared)
    }

    /// Takes the lock if it is free; `None` if another holds it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn try_exclusive(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = path.as_ref();
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(Error::io("lock", path)(errno.into())),
        }
    }

    fn wait(path: &Path, how: FlockArg) -> Result<Self> {
        let mut file = open(path)?;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Self(lock)),
                Err((again, nix::errno::Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(Error::io("lock", path)(errno.into())),
            }
        }
    }
}

fn open(path: &Path) -> Result<File> {
    // Not truncated: a lock may be taken on a file that holds something.
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open lock", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_excludes_and_shared_shares() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("lock");
        let first = Lock::try_exclusive(&path).expect("lock").expect("free");
        assert!(Lock::try_exclusive(&path).expect("try").is_none());
        drop(first);
        let one = Lock::shared(&path).expect("lock");
        let two = Lock::shared(&path).expect("lock");
        assert!(Lock::try_exclusive(&path).expect("try").is_none());
        drop((one, two));
        Lock::exclusive(&path).expect("lock");
    }

    #[test]
    fn waiting_ends_when_the_holder_lets_go() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("lock");
        let held = Lock::exclusive(&path).expect("lock");
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || Lock::exclusive(path).map(drop)
        });
        drop(held);
        waiter.join().expect("thread").expect("lock");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Lock::exclusive("/nonexistent/lock").expect_err("no directory");
        assert!(error.to_string().contains("/nonexistent/lock"), "{error}");
    }
}
