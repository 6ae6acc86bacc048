//! Writing a file so that others see the old content or the new, never half of it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Error, Result};

/// What a write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process. For what is lost at a reboot anyway (/run), where fsync would be wasted time.
    Volatile,
    /// A power failure: the data and the directory entry are on the disk before the call returns.
    Synced,
}

/// Begins the name of a file that is being written; a crash leaves it behind, [`crate::Store::open`] clears it away.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Replaces the file at `path` with `bytes`, mode 0600. The directory must exist.
///
/// # Errors
/// [`Error::Io`]; the old file, if there was one, is then untouched and nothing is left beside it.
pub fn write_atomic(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>, durability: Durability) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary_beside(path);
    let result = write_new(&temporary, bytes.as_ref(), durability)
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("replace", path)));
    if let Err(error) = result {
        fs::remove_file(&temporary).ok(); // The first error is the one to report.
        return Err(error);
    }
    match durability {
        Durability::Volatile => Ok(()),
        Durability::Synced => sync_directory(path.parent().unwrap_or(Path::new("."))),
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("sync directory", path))
}

fn write_new(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("create", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    match durability {
        Durability::Volatile => Ok(()),
        Durability::Synced => file.sync_all().map_err(Error::io("sync", path)),
    }
}

/// A name in the same directory (rename doesn't cross filesystems) that no one else uses now.
fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The time keeps a name apart from one that a crashed process with our pid left.
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_nanos());
    let name: String = name.chars().take(100).collect();
    path.with_file_name(format!("{TEMPORARY}{}-{number}-{time:x}-{name}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        for (bytes, durability) in [("first, longer", Durability::Synced), ("second", Durability::Volatile)] {
            write_atomic(&path, bytes, durability).expect("write");
            assert_eq!(fs::read_to_string(&path).expect("read"), bytes);
        }
        assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn failure_keeps_the_old_file_and_names_the_path() {
        let dir = tempfile::tempdir().expect("temp dir");
        let missing = dir.path().join("missing/f");
        let error = write_atomic(&missing, "x", Durability::Volatile).expect_err("no directory");
        assert!(error.is_not_found(), "{error:?}");
        assert!(error.to_string().contains("missing"), "{error}");

        // A directory in the way can't be replaced: the temporary file must be gone again.
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).expect("mkdir");
        write_atomic(&taken, "x", Durability::Volatile).expect_err("is a directory");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
