//! What a cgroup uses: the same numbers, whichever version the kernel counts in.

mod extended;
mod v1;
mod v2;

use std::{collections::BTreeMap, path::Path};

pub use extended::{Extended, Share};
use serde::{Deserialize, Serialize};

use crate::{Cgroup, Controllers, Result, file};

/// What a cgroup uses. Times are nanoseconds, sizes bytes; no limit is `u64::MAX`. A part whose controller isn't
/// there is left at its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub io: Io,
    /// Huge pages, by page size ("2MB").
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// In all.
    pub usage: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Enforcement intervals that have passed.
    pub periods: u64,
    /// Intervals in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent throttled.
    pub throttled_time: u64,
    /// Pressure stall information, if the kernel has it.
    pub psi: Option<Psi>,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In all, with page cache.
    pub usage: u64,
    /// The highest usage so far; 0 if the kernel doesn't say.
    pub max_usage: u64,
    /// The limit.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// Usage without the page cache that is easily given back: what eviction looks at.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Swap.
    pub swap_usage: u64,
    /// The limit on swap (v1: on memory and swap together).
    pub swap_limit: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that needed I/O.
    pub major_page_faults: u64,
    /// Memory of the kernel.
    pub kernel: u64,
    /// Processes killed because the limit was reached.
    pub oom_kills: u64,
    /// memory.stat as the kernel writes it.
    pub stat: BTreeMap<String, u64>,
    /// Pressure stall information, if the kernel has it.
    pub psi: Option<Psi>,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// The limit.
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// One entry per device.
    pub devices: Vec<IoDevice>,
    /// Pressure stall information, if the kernel has it.
    pub psi: Option<Psi>,
}

/// What went to and from one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoDevice {
    /// Driver.
    pub major: u64,
    /// Instance.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hugetlb {
    /// In use.
    pub usage: u64,
    /// The limit.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Pressure stall information (kernel documentation, accounting/psi).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Psi {
    /// Time in which some tasks waited.
    pub some: Pressure,
    /// Time in which all tasks waited.
    pub full: Pressure,
}

impl Eq for Psi {}

/// One line of PSI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Percent over 10 s.
    pub avg10: f64,
    /// Percent over 60 s.
    pub avg60: f64,
    /// Percent over 300 s.
    pub avg300: f64,
    /// Nanoseconds in all.
    pub total: u64,
}

impl Cgroup {
    /// What the cgroup, with all below it, uses now.
    ///
    /// # Errors
    /// [`crate::Error::Io`]. A file that isn't there is none.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(dir) = self.v2() {
            if self.is_unified() {
                v2::read(dir, &mut stats)?;
            }
            stats.cpu.psi = psi(&dir.join("cpu.pressure"))?;
            stats.memory.psi = psi(&dir.join("memory.pressure"))?;
            stats.io.psi = psi(&dir.join("io.pressure"))?;
            if self.v1(Controllers::HUGETLB).is_none() {
                v2::hugetlb(dir, &mut stats)?;
            }
        }
        if !self.is_unified() {
            v1::read(self, &mut stats)?;
        }
        Ok(stats)
    }

    /// How many processes have been killed because the memory limit was reached. 0 if the cgroup is gone.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn oom_kills(&self) -> Result<u64> {
        let path = match (self.v1(Controllers::MEMORY), self.v2()) {
            (Some(dir), _) => dir.join("memory.oom_control"),
            (None, Some(dir)) => dir.join("memory.events"),
            (None, None) => return Ok(0),
        };
        Ok(file::read_if_there(&path)?.and_then(|text| file::keyed(&text, "oom_kill")).unwrap_or(0))
    }
}

/// A file with one number; `None` if it isn't there.
fn number(path: &Path) -> Result<Option<u64>> {
    Ok(file::read_if_there(path)?.as_deref().and_then(file::number))
}

/// A flat keyed file; empty if it isn't there.
fn table(path: &Path) -> Result<BTreeMap<String, u64>> {
    let text = file::read_if_there(path)?.unwrap_or_default();
    let entry = |line: &str| {
        line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), file::number(value)?)))
    };
    Ok(text.lines().filter_map(entry).collect())
}

fn psi(path: &Path) -> Result<Option<Psi>> {
    Ok(file::read_if_there(path)?.map(|text| parse_psi(&text)))
}

/// For integration/fuzz.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(text: &str) {
    parse_psi(text);
    v1::fuzz(text);
    v2::fuzz(text);
}

fn parse_psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let pressure = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => pressure.avg10 = value.parse().unwrap_or_default(),
                "avg60" => pressure.avg60 = value.parse().unwrap_or_default(),
                "avg300" => pressure.avg300 = value.parse().unwrap_or_default(),
                "total" => pressure.total = value.parse::<u64>().unwrap_or_default().saturating_mul(1000),
                _ => {}
            }
        }
    }
    psi
}

/// The sizes for which a directory has files `hugetlb.<size>.<suffix>`.
fn page_sizes(dir: &Path, suffix: &str) -> Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter_map(size).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure() {
        let psi = parse_psi(
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=7\n",
        );
        assert_eq!(psi.some, Pressure { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 1_234_000 });
        assert_eq!(psi.full.total, 7000);
    }
}
