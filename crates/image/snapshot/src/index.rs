//! Which snapshots there are: what the drivers have in common.
//!
//! ```text
//! <root>/lock              held by the process that has the snapshots open
//! <root>/records/<n>.json  one record per snapshot
//! <root>/<n>/              its tree, in the driver's form
//! ```
//!
//! A snapshot exists if its record does. The order of steps makes each operation
//! atomic: a tree is built before its record is written, a record is
//! removed before its tree, and a commit replaces one record. Trees without a
//! record are what killed operations leave behind.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_state::{Lock, Store};
use serde::{Deserialize, Serialize};

use crate::sweep::{Sweeper, remove_tree};
use crate::{Error, Info, Kind, Reclaimed, Result, Usage};

/// Format of the records.
const VERSION: u32 = 1;
/// Longest key.
const KEY_MAX: usize = 1024;

/// A snapshot as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) kind: Kind,
    pub(crate) parent: Option<String>,
    /// Nanoseconds since 1970.
    created: u64,
    /// Of a committed snapshot, once it was asked for.
    usage: Option<Usage>,
    /// Names the tree's directory. The record's file has the same name.
    #[serde(skip)]
    pub(crate) number: u64,
}

impl Record {
    fn info(&self) -> Info {
        Info {
            key: self.key.clone(),
            kind: self.kind,
            parent: self.parent.clone(),
            created: UNIX_EPOCH + Duration::from_nanos(self.created),
        }
    }
}

/// All snapshots of a root directory.
#[derive(Debug)]
pub(crate) struct Index {
    root: PathBuf,
    store: Store<Record>,
    state: Mutex<State>,
    /// Before the lock: it is done when the lock is let go.
    sweeper: Sweeper,
    _lock: Lock,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<String, Record>,
    /// Keys and parents of snapshots that are being created outside the lock.
    creating: HashMap<String, Option<String>>,
    /// Trees that are being built or swept outside the lock.
    busy: HashSet<u64>,
    next: u64,
}

impl Index {
    /// Opens or creates a root directory.
    pub(crate) fn open(root: PathBuf) -> Result<Index> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o711)
            .create(&root)
            .map_err(Error::io("create the directory", &root))?;
        let lock = Lock::try_exclusive(root.join("lock"))
            .map_err(|source| record_error("lock", "*", source))?
            .ok_or_else(|| Error::Locked(root.clone()))?;
        // Not synced: a record that outlives a power failure is worth nothing if its files don't, and these aren't synced either.
        let store = Store::open(root.join("records"), VERSION)
            .map_err(|source| record_error("open", "*", source))?
            .volatile();
        let index = Index { root, store, state: Mutex::default(), sweeper: Sweeper::default(), _lock: lock };
        index.load()?;
        Ok(index)
    }

    fn load(&self) -> Result<()> {
        let listing = self.store.list().map_err(|source| record_error("list", "*", source))?;
        for error in listing.unreadable {
            tracing::warn!(error = &error as &dyn std::error::Error, "a snapshot is lost");
        }
        let mut state = self.state();
        for (id, mut record) in listing.records {
            let Ok(number) = id.parse() else { continue };
            record.number = number;
            state.next = state.next.max(number + 1);
            state.records.insert(record.key.clone(), record);
        }
        for number in self.trees()? {
            state.next = state.next.max(number + 1);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is one insertion or removal: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of a snapshot's tree.
    pub(crate) fn tree(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    /// The snapshot of that key or name.
    pub(crate) fn get(&self, key: &str) -> Result<Record> {
        self.state().records.get(key).cloned().ok_or_else(|| Error::NotFound(key.to_owned()))
    }

    pub(crate) fn stat(&self, key: &str) -> Option<Info> {
        self.state().records.get(key).map(Record::info)
    }

    pub(crate) fn walk(&self) -> Vec<Info> {
        self.state().records.values().map(Record::info).collect()
    }

    /// A committed snapshot and its ancestors, the topmost first.
    pub(crate) fn chain(&self, name: Option<&str>) -> Result<Vec<Record>> {
        let state = self.state();
        let mut chain: Vec<Record> = Vec::new();
        let mut next = name;
        while let Some(name) = next {
            let record = state.committed(name)?;
            // Parents exist before their children, so that a chain can't be longer than this unless records were tampered with.
            if chain.len() > state.records.len() {
                return Err(Error::BadKey(name.to_owned(), "it is its own ancestor"));
            }
            chain.push(record.clone());
            next = record.parent.as_deref();
        }
        Ok(chain)
    }

    /// Creates a snapshot. `build` fills the new, empty directory of its tree, without any lock held.
    pub(crate) fn create(
        &self,
        key: &str,
        kind: Kind,
        parent: Option<&str>,
        build: impl FnOnce(&Path, &[Record]) -> Result<()>,
    ) -> Result<Record> {
        check_key(key)?;
        let chain = self.chain(parent)?;
        let number = {
            let mut state = self.state();
            state.free(key)?;
            // Looked up again: it may have been removed since.
            parent.map(|parent| state.committed(parent)).transpose()?;
            let number = state.next;
            state.next += 1;
            state.creating.insert(key.to_owned(), parent.map(str::to_owned));
            state.busy.insert(number);
            number
        };
        let record = Record {
            key: key.to_owned(),
            kind,
            parent: parent.map(str::to_owned),
            created: now(),
            usage: None,
            number,
        };
        let tree = self.tree(number);
        let result = make_directory(&tree, 0o711)
            .and_then(|()| build(&tree, &chain))
            .and_then(|()| self.write("write", &record));
        if result.is_err() {
            // What can't be removed now is swept later.
            let _ = fs::remove_dir_all(&tree);
        }
        let mut state = self.state();
        state.creating.remove(key);
        state.busy.remove(&number);
        result?;
        state.records.insert(key.to_owned(), record.clone());
        Ok(record)
    }

    /// Turns an active snapshot into a committed one.
    pub(crate) fn commit(&self, name: &str, key: &str, parent: Option<&str>) -> Result<()> {
        check_key(name)?;
        let mut state = self.state();
        let record = state.records.get(key).ok_or_else(|| Error::NotFound(key.to_owned()))?;
        if record.kind != Kind::Active {
            return Err(Error::WrongKind { operation: "commit", key: key.to_owned(), kind: record.kind });
        }
        if name != key {
            state.free(name)?;
        }
        parent.map(|parent| state.committed(parent)).transpose()?;
        let committed = Record {
            key: name.to_owned(),
            kind: Kind::Committed,
            parent: parent.map(str::to_owned),
            ..record.clone()
        };
        self.write("commit", &committed)?;
        state.records.remove(key);
        state.records.insert(name.to_owned(), committed);
        Ok(())
    }

    /// Removes a snapshot, and its tree in the background.
    pub(crate) fn remove(&self, key: &str) -> Result<()> {
        let number = {
            let mut state = self.state();
            let Some(record) = state.records.get(key) else { return Ok(()) };
            if let Some(child) = state.child(key) {
                return Err(Error::HasChildren { key: key.to_owned(), child: child.to_owned() });
            }
            let number = record.number;
            self.store.remove(&number.to_string()).map_err(|source| record_error("remove", key, source))?;
            state.records.remove(key);
            number
        };
        self.sweeper.doom(self.tree(number));
        Ok(())
    }

    /// Measures a snapshot's tree, once if it can't change any more.
    pub(crate) fn usage(&self, key: &str, tree: impl Fn(u64) -> PathBuf) -> Result<Usage> {
        let record = self.get(key)?;
        if let Some(usage) = record.usage {
            return Ok(usage);
        }
        let path = tree(record.number);
        let usage = Usage::measure(&path).map_err(Error::io("measure", path))?;
        let mut state = self.state();
        if let Some(now) = state.records.get_mut(key)
            && now.number == record.number
            && now.kind == Kind::Committed
        {
            now.usage = Some(usage);
            let now = now.clone();
            self.write("update", &now)?;
        }
        Ok(usage)
    }

    /// Removes trees that belong to no snapshot.
    pub(crate) fn cleanup(&self) -> Result<Reclaimed> {
        self.sweeper.finish();
        let mut reclaimed = Reclaimed::default();
        let mut failed = None;
        for number in self.trees()? {
            let tree = self.tree(number);
            {
                let mut state = self.state();
                let known = state.records.values().any(|record| record.number == number);
                if known || self.sweeper.is_doomed(&tree) || !state.busy.insert(number) {
                    continue;
                }
            }
            match remove_tree(&tree) {
                Ok(()) => reclaimed.trees += 1,
                Err(source) => failed = Some(Error::io("remove", tree)(source)),
            }
            self.state().busy.remove(&number);
        }
        failed.map_or(Ok(reclaimed), Err)
    }

    /// The numbers of all trees on disk.
    fn trees(&self) -> Result<Vec<u64>> {
        let failed = || Error::io("list", &self.root);
        let mut numbers = Vec::new();
        for item in fs::read_dir(&self.root).map_err(failed())? {
            if let Some(number) =
                item.map_err(failed())?.file_name().to_str().and_then(|name| name.parse().ok())
            {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    fn write(&self, operation: &'static str, record: &Record) -> Result<()> {
        self.store
            .put(&record.number.to_string(), record)
            .map_err(|source| record_error(operation, &record.key, source))
    }
}

impl State {
    fn free(&self, key: &str) -> Result<()> {
        if self.records.contains_key(key) || self.creating.contains_key(key) {
            return Err(Error::Exists(key.to_owned()));
        }
        Ok(())
    }

    fn committed(&self, name: &str) -> Result<&Record> {
        let record = self.records.get(name).ok_or_else(|| Error::NotFound(name.to_owned()))?;
        if record.kind == Kind::Committed {
            return Ok(record);
        }
        Err(Error::ParentNotCommitted { parent: name.to_owned(), kind: record.kind })
    }

    /// A snapshot that builds on `key`, even if it's only being created.
    fn child(&self, key: &str) -> Option<&str> {
        let complete = self.records.values().map(|record| (&record.key, &record.parent));
        complete
            .chain(&self.creating)
            .find(|(_, parent)| parent.as_deref() == Some(key))
            .map(|(child, _)| child.as_str())
    }
}

fn check_key(key: &str) -> Result<()> {
    let reason = match key.len() {
        0 => "it is empty",
        1..=KEY_MAX => return Ok(()),
        _ => "it is longer than 1024 bytes",
    };
    Err(Error::BadKey(key.chars().take(80).collect(), reason))
}

fn record_error(operation: &'static str, key: &str, source: corten_state::Error) -> Error {
    Error::Record { operation, key: key.to_owned(), source: Box::new(source) }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Creates a directory with exactly this mode, whatever the umask.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(Error::io("create the directory", path))
}
