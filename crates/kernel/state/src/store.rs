//! A directory of records, one JSON file each: `<dir>/<id>.json` = `{"version":N,"data":{...}}`.

use std::{
    fs, io,
    marker::PhantomData,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Durability, Error, Result,
    atomic::{TEMPORARY, sync_directory, write_atomic},
};

/// Records of one kind, by id.
///
/// There is no cache: the files are the truth, and what `put` returned from survives. Concurrent use by several
/// threads is fine; two writers of the *same* record need a [`crate::Lock`].
#[derive(Debug, Clone)]
pub struct Store<T> {
    dir: PathBuf,
    version: u32,
    durability: Durability,
    kind: PhantomData<fn() -> T>,
}

/// What [`Store::list`] found.
#[derive(Debug)]
pub struct Listing<T> {
    /// The records that could be read, by id.
    pub records: Vec<(String, T)>,
    /// Why others couldn't; each error names its file. They stay on disk for a human to look at.
    pub unreadable: Vec<Error>,
}

#[derive(Serialize)]
struct Out<'a, T> {
    version: u32,
    data: &'a T,
}

#[derive(Deserialize)]
struct In<T> {
    data: T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl<T: Serialize + DeserializeOwned> Store<T> {
    /// Opens the store in `dir`, made with mode 0700 if need be, whose records have format `version`.
    /// Writes survive a power failure; see [`Self::volatile`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(dir: impl Into<PathBuf>, version: u32) -> Result<Self> {
        let dir = dir.into();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(Error::io("create directory", &dir))?;
        let store = Self { dir, version, durability: Durability::Synced, kind: PhantomData };
        store.clear_temporary_files()?;
        Ok(store)
    }

    /// The same store, but writes needn't survive a power failure.
    #[must_use]
    pub fn volatile(self) -> Self {
        Self { durability: Durability::Volatile, ..self }
    }

    /// Writes a record, replacing an older one of this id.
    ///
    /// # Errors
    /// [`Error::InvalidId`], [`Error::Encode`], [`Error::Io`]; the older record is then untouched.
    pub fn put(&self, id: &str, value: &T) -> Result<()> {
        let path = self.path(id)?;
        let bytes = serde_json::to_vec(&Out { version: self.version, data: value })
            .map_err(|source| Error::Encode { path: path.clone(), source })?;
        write_atomic(path, bytes, self.durability)
    }

    /// Reads a record; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::InvalidId`], [`Error::Corrupt`], [`Error::Version`], [`Error::Io`].
    pub fn get(&self, id: &str) -> Result<Option<T>> {
        self.read(&self.path(id)?)
    }

    /// Removes a record; false if there was none.
    ///
    /// # Errors
    /// [`Error::InvalidId`], [`Error::Io`].
    pub fn remove(&self, id: &str) -> Result<bool> {
        let path = self.path(id)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("remove", path)(error)),
        }
        if self.durability == Durability::Synced {
            sync_directory(&self.dir)?;
        }
        Ok(true)
    }

    /// Reads all records, sorted by id. One that can't be read doesn't hide the others.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory can't be listed.
    pub fn list(&self) -> Result<Listing<T>> {
        let mut listing = Listing { records: Vec::new(), unreadable: Vec::new() };
        for name in self.names()? {
            let Some(id) = name.strip_suffix(".json").filter(|id| valid(id)) else { continue };
            match self.read(&self.dir.join(&name)) {
                Ok(Some(record)) => listing.records.push((id.to_owned(), record)),
                Ok(None) => {} // Removed since the directory was read.
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing.records.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(listing)
    }

    fn path(&self, id: &str) -> Result<PathBuf> {
        if valid(id) {
            Ok(self.dir.join(format!("{id}.json")))
        } else {
            Err(Error::InvalidId { id: id.to_owned() })
        }
    }

    fn read(&self, path: &Path) -> Result<Option<T>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let corrupt = |source| Error::Corrupt { path: path.to_owned(), source };
        // The version first: data of another version may not fit the type, and that isn't corruption.
        let found = serde_json::from_slice::<Version>(&bytes).map_err(corrupt)?.version;
        if found != self.version {
            return Err(Error::Version { path: path.to_owned(), found, expected: self.version });
        }
        Ok(Some(serde_json::from_slice::<In<T>>(&bytes).map_err(corrupt)?.data))
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir).map_err(Error::io("list directory", &self.dir))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list directory", &self.dir))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    /// Removes what a crash in the middle of a write left. Files younger than that may be another process's.
    fn clear_temporary_files(&self) -> Result<()> {
        for name in self.names()?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let pid = name[TEMPORARY.len()..].split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(pid).exists() {
                let path = self.dir.join(name);
                fs::remove_file(&path).map_err(Error::io("remove", path))?;
            }
        }
        Ok(())
    }
}

/// Whether the id is one plain file name (with room for `.json`).
fn valid(id: &str) -> bool {
    !id.is_empty() && id.len() <= 250 && !id.starts_with('.') && !id.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        name: String,
    }

    fn record(name: &str) -> Record {
        Record { name: name.to_owned() }
    }

    #[test]
    fn put_get_list_remove() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::<Record>::open(dir.path().join("a/b"), 1).expect("open");
        assert_eq!(store.get("x").expect("get"), None);
        store.put("y", &record("two")).expect("put");
        store.put("x", &record("zero")).expect("put");
        store.put("x", &record("one")).expect("replace");
        assert_eq!(store.get("x").expect("get"), Some(record("one")));
        let on_disk = fs::read_to_string(dir.path().join("a/b/x.json")).expect("read");
        assert_eq!(on_disk, r#"{"version":1,"data":{"name":"one"}}"#);
        let ids: Vec<_> = store.list().expect("list").records.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["x", "y"]);
        assert!(store.remove("x").expect("remove"));
        assert!(!store.remove("x").expect("remove again"));
    }

    #[test]
    fn what_cannot_be_read_is_reported_and_hides_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::<Record>::open(dir.path(), 2).expect("open").volatile();
        store.put("good", &record("g")).expect("put");
        for (name, content) in [
            ("cut.json", r#"{"version":2,"data":{"na"#),
            ("empty.json", ""),
            ("old.json", r#"{"version":1,"data":{"other":1}}"#),
            ("type.json", r#"{"version":2,"data":{"name":7}}"#),
            ("notes.txt", "not a record"),
        ] {
            fs::write(dir.path().join(name), content).expect("write");
        }
        let listing = store.list().expect("list");
        assert_eq!(listing.records, [("good".to_owned(), record("g"))]);
        let mut said: Vec<_> = listing.unreadable.iter().map(ToString::to_string).collect();
        said.sort();
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[2].ends_with("old.json has format version 1, expected 2"), "{said:?}");
        assert!(matches!(store.get("cut"), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn ids_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::<Record>::open(dir.path(), 1).expect("open");
        for id in ["", ".", "..", "../x", "a/b", ".hidden", "nul\0", &"x".repeat(251)] {
            assert!(matches!(store.put(id, &record("r")), Err(Error::InvalidId { .. })), "{id:?}");
        }
    }

    #[test]
    fn opening_clears_what_a_crash_left() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dead = dir.path().join(".tmp-999999999-0-0-x.json");
        let ours = dir.path().join(format!(".tmp-{}-0-0-x.json", std::process::id()));
        fs::write(&dead, "half").expect("write");
        fs::write(&ours, "half").expect("write");
        Store::<Record>::open(dir.path(), 1).expect("open");
        assert!(!dead.exists());
        assert!(ours.exists());
    }
}
