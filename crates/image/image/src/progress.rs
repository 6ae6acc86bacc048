//! What a pull tells while it runs.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use corten_distribution::Digest;

/// The state of a pull. Each message is complete: whoever misses some misses nothing that the last doesn't say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The image's name, complete.
    pub reference: String,
    /// The layers, the lowest first; empty until the manifest is there.
    pub layers: Vec<LayerProgress>,
}

/// The state of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// The digest of the compressed layer.
    pub digest: Digest,
    /// Where it stands.
    pub phase: Phase,
    /// Compressed bytes in all.
    pub total: u64,
    /// Compressed bytes received.
    pub downloaded: u64,
    /// Compressed bytes unpacked.
    pub extracted: u64,
}

/// Where a layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It hasn't begun.
    Waiting,
    /// It is being received, and unpacked on the way.
    Downloading,
    /// It has been received, and is still being unpacked.
    Extracting,
    /// It is there.
    Done,
    /// It was there before.
    AlreadyExists,
}

const PHASES: [Phase; 5] =
    [Phase::Waiting, Phase::Downloading, Phase::Extracting, Phase::Done, Phase::AlreadyExists];

/// Counts a layer's bytes. Counting must cost nothing; who wants to know looks now and then.
#[derive(Debug)]
pub(crate) struct Meter {
    digest: Digest,
    total: u64,
    phase: AtomicU8,
    downloaded: AtomicU64,
    extracted: AtomicU64,
}

impl Meter {
    pub(crate) fn new(digest: Digest, total: u64) -> Meter {
        Meter {
            digest,
            total,
            phase: AtomicU8::new(0),
            downloaded: AtomicU64::new(0),
            extracted: AtomicU64::new(0),
        }
    }

    pub(crate) fn phase(&self, phase: Phase) {
        let index = PHASES.iter().position(|p| *p == phase).unwrap_or_default();
        self.phase.store(u8::try_from(index).unwrap_or_default(), Ordering::Relaxed);
    }

    /// How many bytes have been received so far; a continued download begins above 0.
    pub(crate) fn downloaded(&self, bytes: u64) {
        self.downloaded.store(bytes, Ordering::Relaxed);
        if bytes >= self.total {
            self.phase(Phase::Extracting);
        }
    }

    pub(crate) fn extract(&self, bytes: usize) {
        self.extracted.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> LayerProgress {
        let phase = PHASES.get(usize::from(self.phase.load(Ordering::Relaxed)));
        let phase = phase.copied().unwrap_or(Phase::Waiting);
        let there = matches!(phase, Phase::Done | Phase::AlreadyExists);
        let count = |counter: &AtomicU64| if there { self.total } else { counter.load(Ordering::Relaxed) };
        LayerProgress {
            digest: self.digest.clone(),
            phase,
            total: self.total,
            downloaded: count(&self.downloaded),
            extracted: count(&self.extracted),
        }
    }
}

/// The meters of one pull, known once the manifest is.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    reference: Arc<str>,
    meters: Arc<OnceLock<Vec<Arc<Meter>>>>,
}

impl Gauge {
    pub(crate) fn new(reference: &str) -> Gauge {
        Gauge { reference: reference.into(), meters: Arc::default() }
    }

    pub(crate) fn set(&self, meters: Vec<Arc<Meter>>) {
        self.meters.set(meters).ok();
    }

    pub(crate) fn read(&self) -> Progress {
        let layers = self.meters.get().into_iter().flatten().map(|meter| meter.read()).collect();
        Progress { reference: self.reference.to_string(), layers }
    }
}
