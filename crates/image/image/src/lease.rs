//! What pulls in flight hold on to, so that garbage collection spares it.
//!
//! Removing a large layer takes a while, and pulls shouldn't wait for that. So garbage is *condemned* in one step, by name, and removed
//! at leisure; only a pull that needs just that waits until it's gone, and then fetches it again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_content::Digest;
use tokio::sync::Notify;

/// All leases, and what is condemned.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<Held>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    leases: HashMap<u64, Needs>,
    condemned: Needs,
}

/// Blobs by digest, snapshots by name.
#[derive(Debug, Default, Clone)]
pub(crate) struct Needs {
    pub(crate) blobs: BTreeSet<Digest>,
    pub(crate) snapshots: BTreeSet<String>,
}

impl Needs {
    fn meet(&self, other: &Needs) -> bool {
        !self.blobs.is_disjoint(&other.blobs) || !self.snapshots.is_disjoint(&other.snapshots)
    }

    pub(crate) fn extend(&mut self, other: Needs) {
        self.blobs.extend(other.blobs);
        self.snapshots.extend(other.snapshots);
    }
}

/// One pull's needs; given up when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Arc<Leases>,
    id: u64,
}

impl Lease {
    pub(crate) fn new(leases: &Arc<Leases>) -> Lease {
        let mut held = leases.held();
        held.next += 1;
        let id = held.next;
        held.leases.insert(id, Needs::default());
        drop(held);
        Lease { leases: leases.clone(), id }
    }

    /// Adds needs. What is found afterwards stays; what was found before may be condemned.
    pub(crate) async fn add(&self, needs: Needs) {
        loop {
            let released = self.leases.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            {
                let mut held = self.leases.held();
                if !needs.meet(&held.condemned) {
                    held.leases.entry(self.id).or_default().extend(needs);
                    return;
                }
            }
            released.await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.held().leases.remove(&self.id);
    }
}

impl Leases {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `choose` name the garbage, given what all leases need together, and keeps leases off it until the sentence is dropped.
    pub(crate) fn condemn(&self, choose: impl FnOnce(Needs) -> Needs) -> Sentence<'_> {
        let mut held = self.held();
        let mut all = Needs::default();
        held.leases.values().for_each(|needs| all.extend(needs.clone()));
        let garbage = choose(all);
        held.condemned = garbage.clone();
        Sentence { leases: self, garbage }
    }
}

/// Garbage that nobody can take a lease on.
#[derive(Debug)]
pub(crate) struct Sentence<'a> {
    leases: &'a Leases,
    pub(crate) garbage: Needs,
}

impl Drop for Sentence<'_> {
    fn drop(&mut self) {
        self.leases.held().condemned = Needs::default();
        self.leases.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn snapshot(name: &str) -> Needs {
        Needs { snapshots: BTreeSet::from([name.to_owned()]), ..Needs::default() }
    }

    #[tokio::test]
    async fn leases_are_spared_and_the_condemned_awaited() {
        let leases = Arc::<Leases>::default();
        let lease = Lease::new(&leases);
        lease.add(snapshot("mine")).await;
        let sentence = leases.condemn(|needs| {
            assert!(needs.snapshots.contains("mine"));
            snapshot("garbage")
        });
        let late = Lease::new(&leases);
        assert!(late.add(snapshot("other")).now_or_never().is_some(), "others needn't wait");
        let mut waiting = Box::pin(late.add(snapshot("garbage")));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(sentence);
        waiting.await;
        drop(lease);
        leases.condemn(|needs| {
            assert!(!needs.snapshots.contains("mine") && needs.snapshots.contains("garbage"));
            Needs::default()
        });
    }
}
