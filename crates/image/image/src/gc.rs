//! Garbage collection: what no image, container or pull in flight needs is removed.
//!
//! Roots are the images in the catalog, the snapshots of containers, and the leases of pulls. What none of them needs is condemned in one
//! step, so that nothing a pull has just found is swept, and then removed while other pulls go on.

use std::collections::BTreeSet;
use std::fs;
use std::sync::PoisonError;
use std::time::Duration;

use corten_content::Digest;
use corten_snapshot::{Error as SnapshotError, Info, Kind};

use crate::images::{Inner, UNPACK_PREFIX};
use crate::lease::Needs;
use crate::{Error, Result};

/// What is spared although nothing needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spare {
    /// Partial downloads younger than this.
    pub(crate) partials: Duration,
    /// Blobs younger than this.
    pub(crate) blobs: Duration,
}

/// Removes all garbage. Everything is tried; the first error is returned.
pub(crate) fn collect(inner: &Inner, spare: Spare) -> Result<()> {
    let _one_at_a_time = inner.collecting.lock().unwrap_or_else(PoisonError::into_inner);
    // What appears after these were listed is in use, or found the next time.
    let blobs = inner.content.list().map_err(garbage)?;
    let snapshots = inner.snapshotter.walk();
    let swept = {
        let sentence = inner.leases.condemn(|mut keep| {
            // Leases first: a pull puts its image into the catalog before it gives up its lease.
            let (blobs_of_images, chains) = inner.catalog.roots();
            keep.extend(Needs { blobs: blobs_of_images, snapshots: chains });
            Needs {
                blobs: blobs
                    .into_iter()
                    .map(|blob| blob.digest)
                    .filter(|d| !keep.blobs.contains(d))
                    .collect(),
                snapshots: unneeded(&snapshots, keep.snapshots),
            }
        });
        let first = sweep_snapshots(inner, &snapshots, &sentence.garbage.snapshots);
        first.and(sweep_blobs(inner, &sentence.garbage.blobs, spare.blobs))
    };
    let cleaned = inner.snapshotter.cleanup().map(drop).map_err(|source| Error::Snapshot {
        operation: "give back disk space",
        subject: "removed snapshots".to_owned(),
        source,
    });
    let partials = inner.content.cleanup(spare.partials).map(drop).map_err(garbage);
    swept.and(cleaned).and(partials)
}

/// At the start nothing is in flight, so what a killed process was unpacking is garbage. So are finished layers that no
/// image needs: they may not have reached the disk before a power failure. Blobs did, and are spared for the next pull.
pub(crate) fn remove_leftovers(inner: &Inner) -> Result<()> {
    for info in inner.snapshotter.walk() {
        if info.key.starts_with(UNPACK_PREFIX) {
            inner.snapshotter.remove(&info.key).map_err(|e| unremovable(&info.key, e))?;
        }
    }
    let age = inner.config.keep_partial_downloads;
    collect(inner, Spare { partials: age, blobs: age })
}

fn sweep_blobs(inner: &Inner, doomed: &BTreeSet<Digest>, spare: Duration) -> Result<()> {
    let is_young = |digest: &Digest| {
        let modified = fs::metadata(inner.content.blob_path(digest)).and_then(|m| m.modified());
        !spare.is_zero() && modified.is_ok_and(|m| m.elapsed().is_ok_and(|age| age < spare))
    };
    let mut result = Ok(());
    for digest in doomed.iter().filter(|digest| !is_young(digest)) {
        result = result.and(inner.content.delete(digest).map_err(garbage));
    }
    result
}

/// The committed snapshots that neither are to be kept nor have anything above them that is.
fn unneeded(all: &[Info], mut keep: BTreeSet<String>) -> BTreeSet<String> {
    let find =
        |name: &str| all.binary_search_by(|info| info.key.as_str().cmp(name)).ok().and_then(|i| all.get(i));
    for info in all.iter().filter(|info| info.kind != Kind::Committed) {
        keep.extend(info.parent.clone());
    }
    // Whatever is kept keeps what is below it.
    let mut below: Vec<String> = keep.iter().cloned().collect();
    while let Some(name) = below.pop() {
        if let Some(parent) = find(&name).and_then(|info| info.parent.clone())
            && keep.insert(parent.clone())
        {
            below.push(parent);
        }
    }
    let garbage = all.iter().filter(|info| info.kind == Kind::Committed && !keep.contains(&info.key));
    garbage.map(|info| info.key.clone()).collect()
}

fn sweep_snapshots(inner: &Inner, all: &[Info], doomed: &BTreeSet<String>) -> Result<()> {
    let mut garbage: Vec<&Info> = all.iter().filter(|info| doomed.contains(&info.key)).collect();
    let mut result = Ok(());
    // Children go before their parents; each round removes those that nobody builds on.
    while !garbage.is_empty() {
        let parents: BTreeSet<_> = garbage.iter().filter_map(|info| info.parent.as_deref()).collect();
        let (later, now): (Vec<&Info>, Vec<&Info>) =
            garbage.iter().partition(|info| parents.contains(info.key.as_str()));
        if now.is_empty() {
            break;
        }
        for info in now {
            match inner.snapshotter.remove(&info.key) {
                // A container was made over it since we looked.
                Ok(()) | Err(SnapshotError::HasChildren { .. }) => {}
                Err(error) => result = result.and(Err(unremovable(&info.key, error))),
            }
        }
        garbage = later;
    }
    result
}

fn unremovable(key: &str, source: SnapshotError) -> Error {
    Error::Snapshot { operation: "remove the snapshot", subject: key.to_owned(), source }
}

fn garbage(source: corten_content::Error) -> Error {
    Error::Garbage(source)
}
