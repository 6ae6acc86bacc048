//! The store itself: a directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};

use crate::{Algorithm, Digest, Error, Expected, Result, Writer};

/// Blobs in a directory. Clones share it; several processes may too.
#[derive(Debug, Clone)]
pub struct Store {
    dir: Arc<Path>,
}

/// A blob that the store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// An ingest that nobody has finished yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Bytes it holds.
    pub size: u64,
    /// When it was last written to.
    pub modified: SystemTime,
}

impl Store {
    /// Opens the store in `dir`, creating what is missing.
    ///
    /// # Errors
    /// When a directory can't be created.
    pub fn open(dir: impl AsRef<Path>) -> Result<Store> {
        let store = Store { dir: dir.as_ref().into() };
        for directory in [store.algorithm_dir(Algorithm::Sha256), store.ingest_dir()] {
            fs::create_dir_all(&directory).map_err(Error::io("create", directory))?;
        }
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins or continues an ingest. `reference` is the caller's name for it: the same name finds the same partial bytes.
    ///
    /// # Errors
    /// [`Error::Busy`] while another writer has it open, or what the file system says.
    pub fn ingest(&self, reference: &str, expected: Option<Expected>) -> Result<Writer> {
        Writer::open(self, reference, self.ingest_path(reference), expected)
    }

    /// Stores bytes that are at hand.
    ///
    /// # Errors
    /// As of [`Writer::append`] and [`Writer::commit`].
    pub fn put(&self, bytes: &[u8], expected: Option<Expected>) -> Result<Info> {
        let digest = expected.as_ref().map_or_else(|| Digest::sha256(bytes), |e| e.digest.clone());
        if let Some(info) = self.info(&digest)? {
            return Ok(info);
        }
        let mut writer = self.ingest(&format!("put {digest}"), expected)?;
        writer.restart()?;
        writer.append(bytes)?;
        writer.commit()
    }

    /// The blob's size, or `None` if the store doesn't hold it.
    ///
    /// # Errors
    /// When the file system can't say.
    pub fn info(&self, digest: &Digest) -> Result<Option<Info>> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(Info { digest: digest.clone(), size: metadata.len() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { operation: "look at", path, source }),
        }
    }

    /// Opens a blob for reading. It stays readable when it's deleted meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what the file system says.
    pub fn reader(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound(digest.clone()),
            _ => Error::Io { operation: "open", path, source },
        })
    }

    /// Reads a small blob whole, and verifies it again, since a disk may have changed it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::SizeMismatch`] beyond `limit` bytes, [`Error::DigestMismatch`] for a damaged blob.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        use io::Read as _;
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        let file = self.reader(digest)?;
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        if bytes.len() as u64 > limit {
            let actual = bytes.len() as u64;
            return Err(Error::SizeMismatch { reference: digest.to_string(), expected: limit, actual });
        }
        let mut hasher = crate::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != *digest {
            let reference = "a stored blob".to_owned();
            return Err(Error::DigestMismatch { reference, expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// All blobs, in no particular order.
    ///
    /// # Errors
    /// When a directory can't be read.
    pub fn list(&self) -> Result<Vec<Info>> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = self.algorithm_dir(algorithm);
            for (name, metadata) in entries(&directory)? {
                if let Ok(digest) = format!("{}:{name}", algorithm.name()).parse() {
                    blobs.push(Info { digest, size: metadata.len() });
                }
            }
        }
        Ok(blobs)
    }

    /// Deletes a blob; one that isn't there is as good as deleted.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn delete(&self, digest: &Digest) -> Result<()> {
        remove(&self.blob_path(digest))
    }

    /// The ingests that hold bytes.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn partials(&self) -> Result<Vec<Partial>> {
        let entries = entries(&self.ingest_dir())?.into_iter();
        Ok(entries
            .filter_map(|(_, m)| Some(Partial { size: m.len(), modified: m.modified().ok()? }))
            .collect())
    }

    /// Removes ingests that nobody writes to and nobody wrote to for `older_than`. Returns the bytes given back.
    ///
    /// # Errors
    /// When the directory can't be read or a file can't be removed.
    pub fn cleanup(&self, older_than: Duration) -> Result<u64> {
        let mut bytes = 0;
        for (name, metadata) in entries(&self.ingest_dir())? {
            let age = metadata.modified().ok().and_then(|m| m.elapsed().ok()).unwrap_or_default();
            if age < older_than {
                continue;
            }
            let path = self.ingest_dir().join(name);
            let Ok(file) = File::open(&path) else { continue };
            // Who holds the lock is still at work.
            let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            remove(&path)?;
            bytes += metadata.len();
        }
        Ok(bytes)
    }

    /// Where a blob is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.algorithm_dir(digest.algorithm()).join(digest.hex())
    }

    fn algorithm_dir(&self, algorithm: Algorithm) -> PathBuf {
        self.dir.join("blobs").join(algorithm.name())
    }

    fn ingest_dir(&self) -> PathBuf {
        self.dir.join("ingest")
    }

    /// References are free text, so their digest serves as file name.
    fn ingest_path(&self, reference: &str) -> PathBuf {
        self.ingest_dir().join(Digest::sha256(reference.as_bytes()).hex())
    }
}

/// The files of a directory; none if there is no directory.
fn entries(directory: &Path) -> Result<Vec<(String, fs::Metadata)>> {
    let reader = match fs::read_dir(directory) {
        Ok(reader) => reader,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { operation: "list", path: directory.to_owned(), source }),
    };
    let mut found = Vec::new();
    for entry in reader {
        let entry = entry.map_err(Error::io("list", directory))?;
        // It may have been committed or deleted since the listing.
        let Ok(metadata) = entry.metadata() else { continue };
        if let (Ok(name), true) = (entry.file_name().into_string(), metadata.is_file()) {
            found.push((name, metadata));
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}
