//! Two names that change places all the time: what an attacker does in a directory that it shares with the runtime.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Swaps two files until it is dropped.
#[derive(Debug)]
pub struct Swap {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swap {
    /// Begins; both names must exist, and each is there for a moment, so that whoever looks twice sees both.
    ///
    /// # Errors
    /// When they can't be swapped.
    pub fn begin(one: &Path, other: &Path) -> Result<Self> {
        Self::every(Duration::from_micros(20), one, other)
    }

    /// The same as quickly as it goes, for windows of a microsecond.
    ///
    /// # Errors
    /// When they can't be swapped.
    pub fn busily(one: &Path, other: &Path) -> Result<Self> {
        Self::every(Duration::ZERO, one, other)
    }

    fn every(pause: Duration, one: &Path, other: &Path) -> Result<Self> {
        let (one, other) = (one.to_owned(), other.to_owned());
        let swap = move || renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE);
        swap().context("swap two names")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                swap().ok(); // because what is mounted on in our namespace can't be renamed for the moment
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok(); // because it can't panic
        }
    }
}
