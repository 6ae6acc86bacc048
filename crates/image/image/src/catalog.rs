//! Which images there are: a redb file, and the same in memory.
//!
//! The database is the truth, written in one durable transaction per change; it is read once, at the start. All questions are answered
//! from memory, because the kubelet asks them all day. Two tables of JSON: names to what they point to, and image ids to what belongs to the
//! image. A database that can't be read is set aside and a new one begun: blobs and snapshots are found again by their digests when
//! the images are pulled again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use corten_content::Digest;
use corten_distribution::Descriptor;
use oci_spec::image::ImageConfiguration;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::{Error, Image, Result};

const VERSION: u64 = 1;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const NAMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("names");
const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");

/// What is kept of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) manifest: Descriptor,
    pub(crate) size: u64,
    /// All content that belongs to it, of every manifest that names the same configuration.
    pub(crate) blobs: BTreeSet<Digest>,
    /// The names of its snapshots, the lowest first.
    pub(crate) chain: Vec<Digest>,
    /// The configuration, as it was received.
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) pinned: bool,
}

/// What a name points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    /// The image's id.
    pub(crate) image: Digest,
    /// The manifest or index that the registry has under this name.
    pub(crate) target: Digest,
}

#[derive(Debug, Default)]
struct Memory {
    names: BTreeMap<String, Name>,
    images: BTreeMap<Digest, (Record, ImageConfiguration)>,
}

#[derive(Debug)]
pub(crate) struct Catalog {
    path: PathBuf,
    database: Database,
    memory: RwLock<Memory>,
}

impl Catalog {
    pub(crate) fn open(path: &Path) -> Result<Catalog> {
        let wrap = |source| database_error(path, "open", source);
        let database = match Database::create(path) {
            Ok(database) => database,
            Err(DatabaseError::Storage(StorageError::Corrupted(reason))) => set_aside(path, &reason)?,
            Err(DatabaseError::Storage(StorageError::Io(e)))
                if e.kind() == std::io::ErrorKind::InvalidData =>
            {
                set_aside(path, &e.to_string())?
            }
            Err(other) => return Err(wrap(Box::new(other))),
        };
        let memory = load(&database).map_err(wrap)?;
        Ok(Catalog { path: path.to_owned(), database, memory: RwLock::new(memory) })
    }

    /// Adds an image and its names in one transaction; does nothing if all of it is there.
    pub(crate) fn put(
        &self,
        id: &Digest,
        mut record: Record,
        config: ImageConfiguration,
        names: &[(String, Name)],
    ) -> Result<()> {
        {
            let memory = self.read();
            let old = memory.images.get(id).map(|(record, _)| record);
            if let Some(old) = old {
                record.blobs.extend(old.blobs.iter().cloned());
                record.pinned |= old.pinned;
            }
            if old == Some(&record) && names.iter().all(|(n, target)| memory.names.get(n) == Some(target)) {
                return Ok(());
            }
        }
        let put = || {
            let transaction = self.database.begin_write()?;
            transaction.open_table(IMAGES)?.insert(id.as_str(), serde_json::to_vec(&record)?.as_slice())?;
            let mut table = transaction.open_table(NAMES)?;
            for (name, target) in names {
                table.insert(name.as_str(), serde_json::to_vec(target)?.as_slice())?;
            }
            drop(table);
            transaction.commit()?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        put().map_err(|source| database_error(&self.path, "record an image", source))?;
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        memory.images.insert(id.clone(), (record, config));
        memory.names.extend(names.iter().cloned());
        Ok(())
    }

    /// Removes an image and all names that point to it; returns these.
    pub(crate) fn remove(&self, id: &Digest) -> Result<Vec<String>> {
        let names: Vec<String> = {
            let memory = self.read();
            let ours = memory.names.iter().filter(|(_, name)| name.image == *id);
            ours.map(|(name, _)| name.clone()).collect()
        };
        let remove = || {
            let transaction = self.database.begin_write()?;
            transaction.open_table(IMAGES)?.remove(id.as_str())?;
            let mut table = transaction.open_table(NAMES)?;
            for name in &names {
                table.remove(name.as_str())?;
            }
            drop(table);
            transaction.commit()?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        remove().map_err(|source| database_error(&self.path, "remove an image", source))?;
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        memory.images.remove(id);
        memory.names.retain(|_, name| name.image != *id);
        Ok(names)
    }

    /// The image's id behind a name.
    pub(crate) fn name(&self, name: &str) -> Option<Name> {
        self.read().names.get(name).cloned()
    }

    /// The one image whose id begins with these hex digits.
    pub(crate) fn prefix(&self, hex: &str) -> Option<Digest> {
        let memory = self.read();
        let mut found = memory.images.keys().filter(|id| id.hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(id), None) => Some(id.clone()),
            _ => None,
        }
    }

    pub(crate) fn image(&self, id: &Digest) -> Option<Image> {
        let memory = self.read();
        memory.images.get(id).map(|(record, config)| describe(&memory, id, record, config))
    }

    pub(crate) fn list(&self) -> Vec<Image> {
        let memory = self.read();
        memory.images.iter().map(|(id, (record, config))| describe(&memory, id, record, config)).collect()
    }

    /// Everything that images need: blobs, and snapshots by name.
    pub(crate) fn roots(&self) -> (BTreeSet<Digest>, BTreeSet<String>) {
        let memory = self.read();
        let records = || memory.images.values().map(|(record, _)| record);
        let blobs = records().flat_map(|r| r.blobs.iter().cloned()).collect();
        let chains = records().flat_map(|r| r.chain.iter().map(Digest::to_string)).collect();
        (blobs, chains)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(memory: &Memory, id: &Digest, record: &Record, config: &ImageConfiguration) -> Image {
    let names = memory.names.iter().filter(|(_, name)| name.image == *id).map(|(name, _)| name.clone());
    let (repo_digests, repo_tags) = names.partition(|name| name.contains('@'));
    Image {
        id: id.to_string(),
        repo_tags,
        repo_digests,
        manifest: record.manifest.digest.clone(),
        size: record.size,
        config: config.clone(),
        chain_id: record.chain.last().map(Digest::to_string),
        pinned: record.pinned,
    }
}

fn load(database: &Database) -> Result<Memory, Box<dyn std::error::Error + Send + Sync>> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let version = meta.get("version")?.map(|v| v.value());
        match version {
            None => drop(meta.insert("version", VERSION)?),
            Some(VERSION) => {}
            Some(other) => return Err(format!("it has version {other}, this program knows {VERSION}").into()),
        }
        transaction.open_table(NAMES)?;
        transaction.open_table(IMAGES)?;
    }
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut memory = Memory::default();
    for entry in transaction.open_table(IMAGES)?.iter()? {
        let (id, record) = entry?;
        let record: Record = serde_json::from_slice(record.value())?;
        let config = serde_json::from_str(&record.config)?;
        memory.images.insert(id.value().parse()?, (record, config));
    }
    for entry in transaction.open_table(NAMES)?.iter()? {
        let (name, target) = entry?;
        memory.names.insert(name.value().to_owned(), serde_json::from_slice(target.value())?);
    }
    Ok(memory)
}

/// Keeps a damaged database for whoever wants to look, and begins anew: a node that starts without images is better than one that
/// doesn't start.
fn set_aside(path: &Path, reason: &str) -> Result<Database> {
    let aside = path.with_extension("redb.damaged");
    tracing::warn!(path = %path.display(), aside = %aside.display(), reason, "the image database is damaged: beginning a new one");
    fs::rename(path, &aside).map_err(|source| Error::Io {
        operation: "set aside",
        path: path.to_owned(),
        source,
    })?;
    Database::create(path).map_err(|e| database_error(path, "create", Box::new(e)))
}

fn database_error(
    path: &Path,
    operation: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> Error {
    Error::Database { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_distribution::media_type;

    const CONFIG: &str = r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;

    fn record(blob: &[u8]) -> Record {
        let digest = Digest::sha256(blob);
        Record {
            manifest: Descriptor {
                media_type: media_type::OCI_MANIFEST.into(),
                digest: digest.clone(),
                size: 1,
            },
            size: 10,
            blobs: BTreeSet::from([digest.clone()]),
            chain: vec![digest],
            config: CONFIG.to_owned(),
            pinned: false,
        }
    }

    fn put(catalog: &Catalog, id: &Digest, blob: &[u8], names: &[&str]) {
        let target = Name { image: id.clone(), target: Digest::sha256(blob) };
        let names: Vec<_> = names.iter().map(|name| ((*name).to_owned(), target.clone())).collect();
        catalog.put(id, record(blob), serde_json::from_str(CONFIG).unwrap(), &names).unwrap();
    }

    #[test]
    fn what_is_put_survives_reopening_and_moves_with_its_tag() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        let (one, two) = (Digest::sha256(b"one"), Digest::sha256(b"two"));
        {
            let catalog = Catalog::open(&path).unwrap();
            put(&catalog, &one, b"m1", &["r/x:latest", "r/x@sha256:1"]);
            put(&catalog, &two, b"m2", &["r/x:latest", "r/x@sha256:2"]);
            put(&catalog, &two, b"m3", &["r/x@sha256:3"]);
        }
        let catalog = Catalog::open(&path).unwrap();
        let image = catalog.image(&two).unwrap();
        assert_eq!(image.repo_tags, ["r/x:latest"]);
        assert_eq!(image.repo_digests, ["r/x@sha256:2", "r/x@sha256:3"]);
        assert!(catalog.image(&one).unwrap().repo_tags.is_empty());
        assert_eq!(catalog.name("r/x:latest").unwrap().image, two);
        assert_eq!(catalog.roots().0.len(), 3, "content of both of an image's manifests counts");
        assert_eq!(catalog.prefix(&two.hex()[..12]), Some(two.clone()));
        assert_eq!(catalog.prefix(""), None);
        assert_eq!(catalog.remove(&two).unwrap().len(), 3);
        assert_eq!((catalog.list().len(), catalog.name("r/x:latest")), (1, None));
        drop(catalog);
        assert_eq!(Catalog::open(&path).unwrap().list().len(), 1);
    }

    #[test]
    fn a_damaged_database_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        fs::write(&path, vec![0x5a; 8192]).unwrap();
        assert!(Catalog::open(&path).unwrap().list().is_empty());
        assert!(path.with_extension("redb.damaged").exists());
    }

    #[test]
    fn two_owners_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        let _first = Catalog::open(&path).unwrap();
        assert!(Catalog::open(&path).is_err());
    }
}
