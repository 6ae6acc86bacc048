//! Usage as cgroup v1 counts it.

use std::{collections::BTreeMap, path::Path};

use super::{Hugetlb, IoDevice, Memory, Stats, number, page_sizes, table};
use crate::{Cgroup, Controllers, Result, file};

/// v1 counts user and system time in ticks of 1/100 s, whatever the kernel's own tick (USER_HZ).
const TICK: u64 = 10_000_000;

/// What v1 writes for "no limit": the largest number of pages, in bytes.
const UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

pub(super) fn read(cgroup: &Cgroup, stats: &mut Stats) -> Result<()> {
    cpu(cgroup, stats)?;
    if let Some(dir) = cgroup.v1(Controllers::MEMORY) {
        memory(dir, &mut stats.memory)?;
    }
    if let Some(dir) = cgroup.v1(Controllers::PIDS) {
        stats.pids.current = number(&dir.join("pids.current"))?.unwrap_or(0);
        stats.pids.limit = number(&dir.join("pids.max"))?.unwrap_or(0);
    }
    if let Some(dir) = cgroup.v1(Controllers::IO) {
        stats.io.devices = io(dir)?;
    }
    if let Some(dir) = cgroup.v1(Controllers::HUGETLB) {
        for size in page_sizes(dir, ".usage_in_bytes")? {
            let value = |name: &str| Ok(number(&dir.join(format!("hugetlb.{size}.{name}")))?.unwrap_or(0));
            let (usage, limit) = (value("usage_in_bytes")?, unlimited(value("limit_in_bytes")?));
            let failures = value("failcnt")?;
            stats.hugetlb.insert(size.clone(), Hugetlb { usage, limit, failures });
        }
    }
    Ok(())
}

fn cpu(cgroup: &Cgroup, stats: &mut Stats) -> Result<()> {
    if let Some(dir) = cgroup.v1(Controllers::CPUACCT) {
        stats.cpu.usage = number(&dir.join("cpuacct.usage"))?.unwrap_or(0);
        let stat = table(&dir.join("cpuacct.stat"))?;
        let ticks = |key| stat.get(key).copied().unwrap_or(0).saturating_mul(TICK);
        (stats.cpu.user, stats.cpu.system) = (ticks("user"), ticks("system"));
    }
    if let Some(dir) = cgroup.v1(Controllers::CPU) {
        let stat = table(&dir.join("cpu.stat"))?;
        let value = |key| stat.get(key).copied().unwrap_or(0);
        stats.cpu.periods = value("nr_periods");
        stats.cpu.throttled_periods = value("nr_throttled");
        stats.cpu.throttled_time = value("throttled_time");
    }
    Ok(())
}

fn memory(dir: &Path, memory: &mut Memory) -> Result<()> {
    let value = |name: &str| Ok::<_, crate::Error>(number(&dir.join(name))?.unwrap_or(0));
    let stat = table(&dir.join("memory.stat"))?;
    let counted = |key| stat.get(key).copied().unwrap_or(0);
    memory.usage = value("memory.usage_in_bytes")?;
    memory.max_usage = value("memory.max_usage_in_bytes")?;
    memory.limit = unlimited(value("memory.limit_in_bytes")?);
    memory.failures = value("memory.failcnt")?;
    memory.working_set = memory.usage.saturating_sub(counted("total_inactive_file"));
    memory.rss = counted("total_rss");
    memory.cache = counted("total_cache");
    memory.swap_usage = value("memory.memsw.usage_in_bytes")?.saturating_sub(memory.usage);
    memory.swap_limit = unlimited(value("memory.memsw.limit_in_bytes")?);
    memory.page_faults = counted("total_pgfault");
    memory.major_page_faults = counted("total_pgmajfault");
    memory.kernel = value("memory.kmem.usage_in_bytes")?;
    let oom = file::read_if_there(&dir.join("memory.oom_control"))?;
    memory.oom_kills = oom.and_then(|text| file::keyed(&text, "oom_kill")).unwrap_or(0);
    memory.stat = stat;
    Ok(())
}

/// v1's largest limit is no limit.
fn unlimited(limit: u64) -> u64 {
    if limit >= UNLIMITED { u64::MAX } else { limit }
}

fn io(dir: &Path) -> Result<Vec<IoDevice>> {
    let mut devices = BTreeMap::new();
    // The recursive files count children too, but are there only for some schedulers.
    for (name, bytes) in [("io_service_bytes", true), ("io_serviced", false)] {
        let recursive = file::read_if_there(&dir.join(format!("blkio.throttle.{name}_recursive")))?;
        let text = match recursive {
            Some(text) => Some(text),
            None => file::read_if_there(&dir.join(format!("blkio.throttle.{name}")))?,
        };
        collect_io(&text.unwrap_or_default(), bytes, &mut devices);
    }
    Ok(devices.into_values().collect())
}

/// `8:0 Read 4096`; the last line is a total without a device.
/// For integration/fuzz.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(text: &str) {
    let mut devices = BTreeMap::new();
    for bytes in [false, true] {
        collect_io(text, bytes, &mut devices);
    }
}

fn collect_io(text: &str, bytes: bool, devices: &mut BTreeMap<(u64, u64), IoDevice>) {
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(operation), Some(count)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some((major, minor)) = device.split_once(':') else { continue };
        let (Ok(major), Ok(minor), Ok(count)) = (major.parse(), minor.parse(), count.parse()) else {
            continue;
        };
        let device =
            devices.entry((major, minor)).or_insert_with(|| IoDevice { major, minor, ..IoDevice::default() });
        match (operation, bytes) {
            ("Read", true) => device.read_bytes = count,
            ("Write", true) => device.write_bytes = count,
            ("Read", false) => device.reads = count,
            ("Write", false) => device.writes = count,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices() {
        let mut devices = BTreeMap::new();
        collect_io(
            "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 0\n8:0 Total 4608\nTotal 4608\n",
            true,
            &mut devices,
        );
        collect_io("8:0 Read 3\n8:0 Write 1\n8:16 Read 9\nTotal 13\n", false, &mut devices);
        let found: Vec<_> = devices
            .values()
            .map(|d| (d.major, d.minor, d.read_bytes, d.write_bytes, d.reads, d.writes))
            .collect();
        assert_eq!(found, [(8, 0, 4096, 512, 3, 1), (8, 16, 0, 0, 9, 0)]);
    }
}
