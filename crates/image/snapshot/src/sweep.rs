//! Removes trees in the background.
//!
//! Removing a layer of some ten thousand files takes a second on an idle disk and minutes on a busy one that discards
//! freed blocks. Nobody needs to wait for that: a snapshot is gone when its record is.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Removes what it is given, one tree after another. It has a thread only while there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    queue: VecDeque<PathBuf>,
    /// What is in the queue or being removed.
    doomed: HashSet<PathBuf>,
    running: bool,
}

impl Sweeper {
    /// Removes a tree soon.
    pub(crate) fn doom(&self, tree: PathBuf) {
        let mut work = self.shared.work();
        if work.doomed.insert(tree.clone()) {
            work.queue.push_back(tree);
        }
        if work.running {
            return;
        }
        work.running = true;
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new().name("sweep".to_owned()).spawn(move || shared.run());
        if let Err(error) = spawned {
            // It stays on disk until the next start's cleanup.
            tracing::warn!(%error, "can't start a thread to remove files");
            *work = Work::default();
        }
    }

    /// Whether a tree is about to be removed here.
    pub(crate) fn is_doomed(&self, tree: &Path) -> bool {
        self.shared.work().doomed.contains(tree)
    }

    /// Waits until everything is removed.
    pub(crate) fn finish(&self) {
        let work = self.shared.work();
        let finished = self.shared.done.wait_while(work, |work| work.running);
        drop(finished.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Sweeper {
    /// Finishes the tree at hand, so that the directory can be handed over. What is left is swept at the next start.
    fn drop(&mut self) {
        self.shared.work().queue.clear();
        self.finish();
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let tree = {
                let mut work = self.work();
                let Some(tree) = work.queue.pop_front() else {
                    *work = Work::default();
                    self.done.notify_all();
                    return;
                };
                tree
            };
            if let Err(error) = remove_tree(&tree) {
                tracing::warn!(path = %tree.display(), %error, "can't remove a snapshot's files yet");
            }
            self.work().doomed.remove(&tree);
        }
    }
}

/// Removes a tree. Its absence is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_doomed_is_gone_when_finished() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let sweeper = Sweeper::default();
        for round in 0..3 {
            for number in 0..20 {
                let tree = directory.path().join(number.to_string());
                fs::create_dir_all(tree.join("a/b/c")).expect("mkdir");
                sweeper.doom(tree);
            }
            sweeper.finish();
            assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 0, "round {round}");
        }
        assert!(!sweeper.is_doomed(&directory.path().join("1")));
    }
}
