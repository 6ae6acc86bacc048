//! What only somebody who looks closely wants to know: kept apart, as it costs many more files to be read.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{number, table};
use crate::{Cgroup, Controllers, Result, file};

/// Usage beyond [`crate::Stats`]. What the kernel doesn't have is left at its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// Nanoseconds of processor time on each CPU (v1 only).
    pub per_cpu: Vec<u64>,
    /// How often saved-up processor time was used.
    pub bursts: u64,
    /// Nanoseconds of it.
    pub burst_time: u64,
    /// Which CPUs ("0-3"), with v1's switches.
    pub cpuset: BTreeMap<String, String>,
    /// Memory of TCP buffers: usage, highest usage, limit, failures (v1 only).
    pub kernel_tcp: [u64; 4],
    /// RDMA devices and their resources.
    pub rdma: BTreeMap<String, BTreeMap<String, Share>>,
    /// Scalar resources such as encrypted virtual machines.
    pub misc: BTreeMap<String, Share>,
    /// What the I/O cost controller says of a device, by "major:minor".
    pub io_cost: BTreeMap<String, BTreeMap<String, String>>,
}

/// How much of a resource is in use, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// In use.
    pub usage: u64,
    /// The limit; `u64::MAX` is none.
    pub limit: u64,
}

impl Cgroup {
    /// What the cgroup uses, beyond [`Cgroup::stats`].
    ///
    /// # Errors
    /// [`crate::Error::Io`]. A file that isn't there is none.
    pub fn extended_stats(&self) -> Result<Extended> {
        let mut found = Extended::default();
        let place = |controller| self.v1(controller).or_else(|| self.v2());
        if let Some(dir) = place(Controllers::CPU) {
            let stat = table(&dir.join("cpu.stat"))?;
            let value = |key: &str| stat.get(key).copied().unwrap_or(0);
            found.bursts = value("nr_bursts");
            // v1 counts in nanoseconds, v2 in microseconds.
            found.burst_time = value("burst_time").max(value("burst_usec").saturating_mul(1000));
        }
        if let Some(dir) = self.v1(Controllers::CPUACCT) {
            let text = file::read_if_there(&dir.join("cpuacct.usage_percpu"))?.unwrap_or_default();
            found.per_cpu = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        }
        if let Some(dir) = place(Controllers::CPUSET) {
            found.cpuset = cpuset(dir)?;
        }
        if let Some(dir) = self.v1(Controllers::MEMORY) {
            let value = |name: &str| {
                Ok::<_, crate::Error>(number(&dir.join(format!("memory.kmem.tcp.{name}")))?.unwrap_or(0))
            };
            found.kernel_tcp = [
                value("usage_in_bytes")?,
                value("max_usage_in_bytes")?,
                value("limit_in_bytes")?,
                value("failcnt")?,
            ];
        }
        if let Some(dir) = place(Controllers::RDMA) {
            found.rdma = rdma(dir)?;
        }
        if let Some(dir) = place(Controllers::MISC) {
            found.misc = misc(dir)?;
        }
        if let Some(dir) = self.v2().filter(|_| self.is_unified()) {
            let text = file::read_if_there(&dir.join("io.stat"))?.unwrap_or_default();
            found.io_cost = text.lines().filter_map(io_cost).collect();
        }
        Ok(found)
    }
}

/// v1's switches are said one by one; v2 has the lists and what became of them.
fn cpuset(dir: &Path) -> Result<BTreeMap<String, String>> {
    const NAMES: [&str; 11] = [
        "cpus",
        "mems",
        "cpu_exclusive",
        "mem_exclusive",
        "mem_hardwall",
        "memory_migrate",
        "memory_pressure",
        "memory_spread_page",
        "memory_spread_slab",
        "sched_load_balance",
        "sched_relax_domain_level",
    ];
    let mut found = BTreeMap::new();
    for name in NAMES {
        // An empty list on v2 means the parent's.
        let given = file::read_if_there(&dir.join(format!("cpuset.{name}")))?;
        let effective = || file::read_if_there(&dir.join(format!("cpuset.{name}.effective")));
        let value = match given {
            Some(text) if text.trim().is_empty() => effective()?,
            other => other,
        };
        found.extend(value.map(|text| (name.to_owned(), text.trim().to_owned())));
    }
    Ok(found)
}

/// `mlx4_0 hca_handle=2 hca_object=2000`, the limits in a file of the same form.
fn rdma(dir: &Path) -> Result<BTreeMap<String, BTreeMap<String, Share>>> {
    let mut found: BTreeMap<String, BTreeMap<String, Share>> = BTreeMap::new();
    for (name, limit) in [("rdma.current", false), ("rdma.max", true)] {
        let text = file::read_if_there(&dir.join(name))?.unwrap_or_default();
        for line in text.lines() {
            let Some((device, rest)) = line.split_once(' ') else { continue };
            for (key, value) in rest.split(' ').filter_map(|word| word.split_once('=')) {
                let entry = found.entry(device.to_owned()).or_default().entry(key.to_owned()).or_default();
                *(if limit { &mut entry.limit } else { &mut entry.usage }) = file::number(value).unwrap_or(0);
            }
        }
    }
    Ok(found)
}

fn misc(dir: &Path) -> Result<BTreeMap<String, Share>> {
    let limits = table(&dir.join("misc.max"))?;
    let used = table(&dir.join("misc.current"))?;
    let limit = |key: &str| limits.get(key).copied().unwrap_or(u64::MAX);
    Ok(used
        .into_iter()
        .map(|(key, value)| (key.clone(), Share { usage: value, limit: limit(&key) }))
        .collect())
}

/// `8:0 rbytes=1 ... cost.vrate=100.00 cost.usage=5`.
fn io_cost(line: &str) -> Option<(String, BTreeMap<String, String>)> {
    let (device, rest) = line.split_once(' ')?;
    let pairs = rest.split(' ').filter_map(|word| word.strip_prefix("cost.")?.split_once('='));
    let costs: BTreeMap<_, _> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    (!costs.is_empty()).then(|| (device.to_owned(), costs))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory() {
        let dir = tempfile::tempdir().expect("temp dir");
        for (name, text) in [
            ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
            ("rdma.max", "mlx4_0 hca_handle=max hca_object=3000\n"),
            ("misc.current", "sev 3\nsev_es 0\n"),
            ("misc.max", "sev 50\nsev_es max\n"),
            ("cpuset.cpus", "\n"),
            ("cpuset.cpus.effective", "0-1\n"),
            ("cpuset.mems", "0\n"),
        ] {
            fs::write(dir.path().join(name), text).expect("write");
        }
        let rdma = rdma(dir.path()).expect("rdma");
        let share = |usage, limit| Share { usage, limit };
        assert_eq!(rdma["mlx4_0"]["hca_handle"], share(2, u64::MAX));
        assert_eq!(rdma["mlx4_0"]["hca_object"], share(2000, 3000));
        let misc = misc(dir.path()).expect("misc");
        assert_eq!((misc["sev"], misc["sev_es"]), (share(3, 50), share(0, u64::MAX)));
        let cpuset = cpuset(dir.path()).expect("cpuset");
        assert_eq!((cpuset["cpus"].as_str(), cpuset["mems"].as_str(), cpuset.len()), ("0-1", "0", 2));
        assert_eq!(io_cost("8:0 rbytes=1 wios=0"), None);
        let (device, costs) = io_cost("8:16 rbytes=1 cost.vrate=100.00 cost.usage=5").expect("costs");
        assert_eq!(
            (device.as_str(), costs["vrate"].as_str(), costs["usage"].as_str()),
            ("8:16", "100.00", "5")
        );
    }
}
