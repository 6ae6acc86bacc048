//! Writes to files from another thread, so that a file system that stands still (a dead NFS server, a frozen disk) holds up
//! its container and nobody else.
//!
//! While it hangs bytes pile up, to a limit, and then whoever makes them is no longer read. Files are closed there, too: on NFS
//! it is close(2) that waits for the server.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::aside;

/// Bytes that may wait before their source does.
const QUEUE: usize = 256 << 10;
/// How long a file system may take for one write before its container's end is told without it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// And for all that waits, if it is slow and doesn't hang.
const LONGEST: Duration = Duration::from_secs(60);

/// An open file.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    file: File,
    /// It ends in the middle of an entry, because the disk was full.
    torn: AtomicBool,
}

impl Target {
    pub(super) fn new(path: &Path, file: File) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), file, torn: AtomicBool::new(false) })
    }

    /// Writes whole entries; how many bytes couldn't be written.
    fn write(&self, entries: &[u8]) -> usize {
        let mut file = &self.file;
        if self.torn.load(Ordering::Relaxed) && file.write_all(b"\n").is_ok() {
            self.torn.store(false, Ordering::Relaxed);
        }
        let mut rest = entries;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(n) if n > 0 => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let written = entries.len() - rest.len();
        if !rest.is_empty() && written > 0 && entries[written - 1] != b'\n' {
            self.torn.store(true, Ordering::Relaxed);
        }
        rest.len()
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// Nothing to write means: to be closed.
    lots: Vec<(Arc<Target>, Vec<u8>)>,
    /// Not yet written, those at work included.
    bytes: usize,
    /// Lots so far.
    pushed: u64,
    /// Those written, to see whether it goes on.
    done: u64,
    /// Bytes that couldn't be written.
    dropped: u64,
    /// A thread is at it.
    served: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Told when lots have been written.
    progress: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all there is.
    fn serve(&self) {
        loop {
            let mut queue = self.queue();
            if queue.lots.is_empty() {
                queue.served = false;
                return;
            }
            let lots = std::mem::take(&mut queue.lots);
            drop(queue);
            for (target, entries) in lots {
                let lost = target.write(&entries);
                let path = (lost > 0).then(|| target.path.clone());
                drop(target); // may close it
                let mut queue = self.queue();
                if let Some(path) = path.filter(|_| queue.dropped == 0) {
                    tracing::warn!(path = %path.display(), "the log can't be written, output is lost");
                }
                queue.bytes -= entries.len();
                queue.done += 1;
                queue.dropped += lost as u64;
                drop(queue);
                self.progress.notify_waiters();
            }
        }
    }
}

/// What is to be written, in order.
#[derive(Debug, Default)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// How much had been done when it was found to hang.
    given_up: Cell<Option<u64>>,
}

impl Writer {
    /// Has entries written; none close the file, if nobody else has it.
    pub(super) fn push(&self, target: Arc<Target>, entries: Vec<u8>) {
        let mut queue = self.shared.queue();
        queue.bytes += entries.len();
        queue.lots.push((target, entries));
        queue.pushed += 1;
        if std::mem::replace(&mut queue.served, true) {
            return;
        }
        drop(queue);
        let shared = Arc::clone(&self.shared);
        if aside::spawn(move || shared.serve()).is_err() {
            self.shared.serve(); // no more threads for us: better here than not at all
        }
    }

    /// Waits until more may be pushed.
    pub(super) async fn room(&self) {
        self.until(|queue| queue.bytes < QUEUE).await;
    }

    /// Waits until all that there is now is written, or has waited long enough: then it is said, once.
    pub(super) async fn settle(&self, path: &Path) {
        let (done, all) = {
            let queue = self.shared.queue();
            (queue.done, queue.pushed)
        };
        if self.given_up.get() == Some(done) {
            return;
        }
        if !matches!(tokio::time::timeout(LONGEST, self.written(done, all)).await, Ok(true)) {
            let queue = self.shared.queue();
            self.given_up.set(Some(queue.done));
            let path = path.display();
            tracing::warn!(%path, bytes = queue.bytes, "the log's file system hangs, or is too slow: not waited for");
        }
    }

    /// Waits until so many lots are written, of which some are, or nothing is left: true. Or until nothing moves any more.
    async fn written(&self, mut done: u64, all: u64) -> bool {
        loop {
            let moved = self.until(|queue| queue.bytes == 0 || queue.done != done);
            if tokio::time::timeout(PATIENCE, moved).await.is_err() {
                return false;
            }
            let queue = self.shared.queue();
            if queue.bytes == 0 || queue.done >= all {
                return true;
            }
            done = queue.done;
        }
    }

    /// Has a file closed where its file system holds up nobody: the last of what is written to it.
    pub(super) fn close(&self, target: Arc<Target>) {
        self.push(target, Vec::new());
    }

    async fn until(&self, wanted: impl Fn(&Queue) -> bool) {
        loop {
            // From before the look: what is written after it isn't missed.
            let progress = self.shared.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if wanted(&self.shared.queue()) {
                return;
            }
            progress.await;
        }
    }

    /// Bytes that couldn't be written.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.queue().dropped
    }
}
