//! An ingest: bytes on their way into the store.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::{Algorithm, Digest, Error, Hasher, Info, Result, Store};

/// What a blob must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Writes one blob. Dropping it keeps what was written, for a later writer under the same reference to continue;
/// only [`commit`](Self::commit) makes a blob of it.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    reference: String,
    path: PathBuf,
    file: Flock<File>,
    hasher: Hasher,
    written: u64,
    expected: Option<Expected>,
}

impl Writer {
    /// Opens or continues the ingest file at `path`.
    pub(crate) fn open(
        store: &Store,
        reference: &str,
        path: PathBuf,
        expected: Option<Expected>,
    ) -> Result<Writer> {
        let file = lock(reference, &path)?;
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, |e| e.digest.algorithm());
        let mut writer = Writer {
            store: store.clone(),
            reference: reference.to_owned(),
            path,
            file,
            hasher: Hasher::new(algorithm),
            written: 0,
            expected,
        };
        writer.resume()?;
        Ok(writer)
    }

    /// Hashes what an earlier writer left, because a hash's state isn't kept on disk.
    fn resume(&mut self) -> Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = match self.file.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(Error::io("read the partial blob", &self.path))?,
            };
            let Some(bytes) = buffer.get(..read).filter(|b| !b.is_empty()) else { break };
            self.hasher.update(bytes);
            self.written += read as u64;
        }
        if self.expected.as_ref().is_some_and(|e| self.written > e.size) {
            return self.restart(); // it's longer than the blob can be: whatever it is, it isn't a beginning of it
        }
        Ok(())
    }

    /// Bytes that the ingest holds: where the next ones belong.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.written
    }

    /// A reader over the bytes so far, for somebody who needs the whole stream when it is continued.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn written(&self) -> Result<impl Read + use<>> {
        let file = File::open(&self.path).map_err(Error::io("open the partial blob", &self.path))?;
        Ok(file.take(self.written))
    }

    /// Throws away what was written and begins again, as when a server can't continue.
    ///
    /// # Errors
    /// When the file can't be truncated.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io("truncate", &self.path))?;
        io::Seek::rewind(&mut *self.file).map_err(Error::io("rewind", &self.path))?;
        let algorithm = self.expected.as_ref().map_or(Algorithm::Sha256, |e| e.digest.algorithm());
        self.hasher = Hasher::new(algorithm);
        self.written = 0;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] when there are more than expected: the ingest is then gone, and so it is when the
    /// disk is full, to make room for others. The writer is of no use afterwards.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if let Some(expected) = self.expected.as_ref().map(|e| e.size).filter(|size| after > *size) {
            discard(&self.path);
            return Err(Error::SizeMismatch { reference: self.reference.clone(), expected, actual: after });
        }
        if let Err(source) = self.file.write_all(bytes) {
            let error = Error::Io { operation: "write", path: self.path.clone(), source };
            if error.is_disk_full() {
                self.file.set_len(0).ok(); // frees the space even while the file is open
                discard(&self.path);
            }
            return Err(error);
        }
        self.hasher.update(bytes);
        self.written = after;
        Ok(())
    }

    /// Verifies size and digest, makes the bytes durable and gives them their name.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] when bytes are missing (they stay, to be continued), [`Error::DigestMismatch`] when they're wrong (the
    /// ingest is gone), or what the file system says.
    pub fn commit(self) -> Result<Info> {
        if let Some(expected) = self.expected.as_ref().map(|e| e.size).filter(|size| self.written != *size) {
            return Err(Error::SizeMismatch { reference: self.reference, expected, actual: self.written });
        }
        let digest = self.hasher.finish();
        if let Some(expected) = self.expected.map(|e| e.digest).filter(|wanted| *wanted != digest) {
            discard(&self.path);
            return Err(Error::DigestMismatch { reference: self.reference, expected, actual: digest });
        }
        let size = self.written;
        if let Err(error) = publish(&self.file, &self.path, &self.store.blob_path(&digest)) {
            if error.is_disk_full() {
                discard(&self.path);
            }
            return Err(error);
        }
        Ok(Info { digest, size })
    }

    /// Removes the ingest.
    pub fn abandon(self) {
        discard(&self.path);
    }
}

/// Appending through [`io::Write`]; a mismatch arrives as [`io::ErrorKind::InvalidData`] with the [`Error`] inside.
impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(|error| match error {
            Error::Io { source, .. } => source,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the file and locks it against other writers, also of other processes.
fn lock(reference: &str, path: &Path) -> Result<Flock<File>> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("create", path))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(Error::Busy { reference: reference.to_owned() });
            }
            Err((_, errno)) => return Err(Error::io("lock", path)(errno.into())),
        };
        // The file we locked may have been renamed or removed by its former owner in between.
        if same_file(&file, path) {
            return Ok(file);
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// From a full file to a durable name. The order matters: data, then name, then the directory that holds the name.
fn publish(file: &File, from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().unwrap_or(to);
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(Error::io("make read-only", from))?;
    file.sync_all().map_err(Error::io("make durable", from))?;
    fs::rename(from, to).map_err(Error::io("rename the blob to", to))?;
    File::open(directory).and_then(|d| d.sync_all()).map_err(Error::io("make durable", directory))
}

/// Removes an ingest file. If that fails, [`Store::cleanup`] does it later.
fn discard(path: &Path) {
    fs::remove_file(path).ok();
}
