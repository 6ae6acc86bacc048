//! The record of an attachment: `<cache_dir>/<pod id>-<interface>.json`.
//!
//! Written before the first plugin runs (then without a result) and again when the result is there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use corten_state::{Durability, write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Network, PodNetwork, Result, plugin::IFNAME};

/// What DEL and CHECK need to know of ADD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Format of this file.
    version: u32,
    pub(crate) network: Network,
    pub(crate) pod: PodNetwork,
    /// The last plugin's result; none while ADD runs, or if it failed.
    pub(crate) result: Option<Value>,
}

const VERSION: u32 = 1;

impl Record {
    pub(crate) fn new(network: Network, pod: PodNetwork) -> Self {
        Self { version: VERSION, network, pod, result: None }
    }

    /// Writes the record; it survives a crash of the machine, as address leases do.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let path = path(dir, &self.pod.id);
        let failed = |source: io::Error| Error::Record { operation: "save", path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let text = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        write_atomic(&path, &text, Durability::Synced).map_err(|e| failed(io::Error::other(e)))
    }

    /// Reads the record of a pod; none if there was no ADD, or DEL is done.
    pub(crate) fn read(dir: &Path, id: &str) -> Result<Option<Self>> {
        let path = path(dir, id);
        let failed = |source: io::Error| Error::Record { operation: "read", path: path.clone(), source };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let record: Self = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
        if record.version != VERSION {
            return Err(failed(io::Error::other(format!("its version is {}", record.version))));
        }
        Ok(Some(record))
    }

    pub(crate) fn remove(dir: &Path, id: &str) -> Result<()> {
        let path = path(dir, id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::Record { operation: "remove", path, source: e })
            }
            _ => Ok(()),
        }
    }

    /// Ids of the pods that have a record.
    pub(crate) fn ids(dir: &Path) -> Result<Vec<String>> {
        let failed = |source: io::Error| Error::Record { operation: "list", path: dir.to_owned(), source };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let suffix = format!("-{IFNAME}.json");
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(&suffix));
            // A leading dot is a record that a crash kept from its name.
            ids.extend(id.filter(|id| !id.starts_with('.')).map(str::to_owned));
        }
        Ok(ids)
    }
}

fn path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}-{IFNAME}.json"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_until_it_is_removed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path().join("cache");
        assert_eq!(Record::read(&dir, "p1").expect("read"), None);
        let network =
            Network::parse(br#"{"name":"n","type":"t","x":[1]}"#, Path::new("n.conf")).expect("parse");
        let pod = PodNetwork { id: "p1".into(), netns: "/run/ns".into(), ..PodNetwork::default() };
        let mut record = Record::new(network, pod);
        record.save(&dir).expect("save");
        record.result = Some(json!({"ips": []}));
        record.save(&dir).expect("save again");
        assert_eq!(Record::read(&dir, "p1").expect("read"), Some(record));
        assert_eq!(Record::ids(&dir).expect("list"), ["p1"]);
        Record::remove(&dir, "p1").expect("remove");
        Record::remove(&dir, "p1").expect("remove twice");
        assert_eq!(Record::read(&dir, "p1").expect("read"), None);
    }

    #[test]
    fn a_broken_record_is_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("p1-eth0.json"), "{").expect("write");
        let error = Record::read(dir.path(), "p1").expect_err("broken").to_string();
        assert!(error.contains("p1-eth0.json"), "{error}");
    }
}
