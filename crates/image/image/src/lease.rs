//! What pulls in flight hold on to, so that garbage collection spares it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use corten_content::Digest;

/// All leases, and the gate between taking one and sweeping.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Held while garbage is swept, and for a moment while a lease grows: whoever has a lease and then finds something
    /// there can rely on it to stay.
    pub(crate) gate: tokio::sync::Mutex<()>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    leases: HashMap<u64, Needs>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Needs {
    pub(crate) blobs: BTreeSet<Digest>,
    pub(crate) snapshots: BTreeSet<String>,
}

/// One pull's needs; given up when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Arc<Leases>,
    id: u64,
}

impl Lease {
    pub(crate) fn new(leases: &Arc<Leases>) -> Lease {
        let mut held = leases.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.next += 1;
        let id = held.next;
        held.leases.insert(id, Needs::default());
        drop(held);
        Lease { leases: leases.clone(), id }
    }

    /// Adds needs. Only what is looked for afterwards is safe.
    pub(crate) async fn add(
        &self,
        blobs: impl IntoIterator<Item = Digest>,
        snapshots: impl IntoIterator<Item = String>,
    ) {
        let _gate = self.leases.gate.lock().await;
        let mut held = self.leases.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(needs) = held.leases.get_mut(&self.id) {
            needs.blobs.extend(blobs);
            needs.snapshots.extend(snapshots);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.held.lock().unwrap_or_else(PoisonError::into_inner).leases.remove(&self.id);
    }
}

impl Leases {
    /// What all leases need together.
    pub(crate) fn needs(&self) -> Needs {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Needs::default();
        for needs in held.leases.values().cloned() {
            all.blobs.extend(needs.blobs);
            all.snapshots.extend(needs.snapshots);
        }
        all
    }
}
