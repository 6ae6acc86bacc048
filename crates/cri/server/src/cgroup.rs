//! Reads what a container's cgroup has used, and removes the cgroups of pods that are ours.
//!
//! Cheap enough to ask for every container each ten seconds: a few small files, no process.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where each controller's hierarchy is mounted; the empty name is the unified one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hierarchies {
    by_controller: HashMap<String, PathBuf>,
    unified: Option<PathBuf>,
    all: Vec<PathBuf>,
}

/// What a cgroup has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_nanoseconds: u64,
    pub(crate) memory_bytes: u64,
    /// Memory that can't be given back without writing it somewhere.
    pub(crate) working_set_bytes: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    /// `None` without a limit.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) swap_bytes: u64,
}

/// A v1 limit at least this high is none.
const UNLIMITED: u64 = 1 << 62;

impl Hierarchies {
    /// As mounted now.
    pub(crate) fn discover() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or(""));
            let point = PathBuf::from(point);
            match kind {
                Some("cgroup2") => {
                    found.unified.get_or_insert(point.clone());
                }
                Some("cgroup") => {
                    for option in options.split(',') {
                        found.by_controller.entry(option.to_owned()).or_insert_with(|| point.clone());
                    }
                }
                _ => continue,
            }
            found.all.push(point);
        }
        found
    }

    /// What the cgroup at `path` has used; `None` if it doesn't exist.
    pub(crate) fn usage(&self, path: &str) -> Option<Usage> {
        let relative = path.trim_start_matches('/');
        let mut usage = Usage::default();
        let v1 = |name: &str| self.by_controller.get(name).map(|point| point.join(relative));
        let v2 = self.unified.as_ref().map(|point| point.join(relative));
        match (v1("cpuacct"), &v2) {
            (Some(dir), _) => usage.cpu_nanoseconds = number(&dir.join("cpuacct.usage"))?,
            (None, Some(dir)) => {
                usage.cpu_nanoseconds = *table(&dir.join("cpu.stat"))?.get("usage_usec")? * 1000
            }
            (None, None) => return None,
        }
        match (v1("memory"), &v2) {
            (Some(dir), _) => memory_v1(&dir, &mut usage)?,
            (None, Some(dir)) => memory_v2(dir, &mut usage)?,
            (None, None) => return None,
        }
        Some(usage)
    }

    /// Removes a cgroup of ours and its parent where nothing is in them, in every hierarchy. Blocks.
    pub(crate) fn remove_empty(&self, path: &str) -> std::io::Result<()> {
        let relative = path.trim_start_matches('/');
        if relative.is_empty() || relative.split('/').any(|part| part == "..") {
            return Ok(());
        }
        for point in &self.all {
            let dir = point.join(relative);
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // Other pods may well be in there: then it stays.
            if let Some(parent) = dir.parent().filter(|parent| *parent != point) {
                let _ = fs::remove_dir(parent);
            }
        }
        Ok(())
    }
}

fn memory_v1(dir: &Path, usage: &mut Usage) -> Option<()> {
    let stat = table(&dir.join("memory.stat"))?;
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    usage.memory_bytes = number(&dir.join("memory.usage_in_bytes"))?;
    usage.working_set_bytes = usage.memory_bytes.saturating_sub(of("total_inactive_file"));
    usage.rss_bytes = of("total_rss");
    usage.page_faults = of("total_pgfault");
    usage.major_page_faults = of("total_pgmajfault");
    usage.memory_limit = number(&dir.join("memory.limit_in_bytes")).filter(|limit| *limit < UNLIMITED);
    usage.swap_bytes = of("total_swap");
    Some(())
}

fn memory_v2(dir: &Path, usage: &mut Usage) -> Option<()> {
    let stat = table(&dir.join("memory.stat"))?;
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    usage.memory_bytes = number(&dir.join("memory.current"))?;
    usage.working_set_bytes = usage.memory_bytes.saturating_sub(of("inactive_file"));
    usage.rss_bytes = of("anon");
    usage.page_faults = of("pgfault");
    usage.major_page_faults = of("pgmajfault");
    usage.memory_limit = number(&dir.join("memory.max"));
    usage.swap_bytes = number(&dir.join("memory.swap.current")).unwrap_or(0);
    Some(())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn table(path: &Path) -> Option<HashMap<String, u64>> {
    let text = fs::read_to_string(path).ok()?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Some(pairs.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).expect("a directory");
        for (name, content) in files {
            fs::write(dir.join(name), content).expect("a file");
        }
    }

    #[test]
    fn version_1_and_2() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |path: &str| root.path().join(path).display().to_string();
        let v1 = Hierarchies::parse(&format!(
            "30 1 0:1 / {} rw - cgroup cgroup rw,cpu,cpuacct\n31 1 0:2 / {} rw shared:1 - cgroup cgroup rw,memory\n",
            at("cpu"),
            at("memory")
        ));
        write(&root.path().join("cpu/a/b"), &[("cpuacct.usage", "5000\n")]);
        write(
            &root.path().join("memory/a/b"),
            &[
                ("memory.usage_in_bytes", "100\n"),
                ("memory.stat", "total_inactive_file 30\ntotal_rss 40\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        );
        let usage = v1.usage("/a/b").expect("there");
        assert_eq!((usage.cpu_nanoseconds, usage.memory_bytes, usage.working_set_bytes), (5000, 100, 70));
        assert_eq!((usage.rss_bytes, usage.memory_limit), (40, None));
        assert_eq!(v1.usage("/a/c"), None);

        let v2 = Hierarchies::parse(&format!("30 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", at("unified")));
        write(
            &root.path().join("unified/a"),
            &[
                ("cpu.stat", "usage_usec 7\nuser_usec 3\n"),
                ("memory.current", "100\n"),
                ("memory.stat", "anon 60\ninactive_file 10\n"),
                ("memory.max", "max\n"),
            ],
        );
        let usage = v2.usage("/a").expect("there");
        assert_eq!((usage.cpu_nanoseconds, usage.working_set_bytes, usage.memory_limit), (7000, 90, None));
    }
}
