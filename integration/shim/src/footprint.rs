//! What a process has of the machine, to compare before and after.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Children, zombies among them.
    pub children: usize,
}

impl Footprint {
    /// Of a process.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> Result<Self> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(Self {
            descriptors: descriptors(pid)?.len(),
            threads: fs::read_dir(format!("/proc/{pid}/task"))?.count(),
            children: children.split_whitespace().count(),
        })
    }
}

/// What a process has open, sorted. Numbers aside: `socket:[4711]`, `/dev/null`.
///
/// # Errors
/// When there is no such process.
pub fn descriptors(pid: u32) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    // One that is closed meanwhile is none.
    let mut open: Vec<_> = entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    open.sort();
    Ok(open)
}

/// A figure of /proc/PID/status, in KiB: `VmRSS`.
///
/// # Errors
/// When there is no such process, or line.
pub fn status_kib(pid: u32, name: &str) -> Result<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status"))?, name)
}

/// A figure of /proc/PID/smaps_rollup, in KiB: `Pss`.
///
/// # Errors
/// When there is no such process, or line.
pub fn rollup_kib(pid: u32, name: &str) -> Result<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?, name)
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let word = line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no {name}"))?;
    word.parse().with_context(|| format!("{name} is {word:?}"))
}

/// What is in these directories, sorted; one that isn't there is empty.
#[must_use]
pub fn files(dirs: &[&Path]) -> Vec<PathBuf> {
    let list = |dir: &&Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = dirs.iter().flat_map(list).collect();
    files.sort();
    files
}

/// Milliseconds of CPU time that a process and the children that it has waited for have used.
///
/// # Errors
/// When there is no such process.
pub fn cpu_ms(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("no name in stat")?;
    // utime, stime, cutime, cstime: the 14th to the 17th of all, the first of ours is the 3rd.
    let ticks = fields.split(' ').skip(11).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>();
    let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock")?;
    Ok(ticks.context("stat")? as f64 * 1e3 / hertz as f64)
}
