//! Usage as cgroup v2 counts it.

use std::path::Path;

use super::{Hugetlb, IoDevice, Memory, Stats, number, page_sizes, table};
use crate::{Result, file};

/// v2 counts in microseconds.
const MICROSECOND: u64 = 1000;

pub(super) fn read(dir: &Path, stats: &mut Stats) -> Result<()> {
    let stat = table(&dir.join("cpu.stat"))?;
    let value = |key| stat.get(key).copied().unwrap_or(0);
    stats.cpu.usage = value("usage_usec") * MICROSECOND;
    stats.cpu.user = value("user_usec") * MICROSECOND;
    stats.cpu.system = value("system_usec") * MICROSECOND;
    stats.cpu.periods = value("nr_periods");
    stats.cpu.throttled_periods = value("nr_throttled");
    stats.cpu.throttled_time = value("throttled_usec") * MICROSECOND;
    memory(dir, &mut stats.memory)?;
    stats.pids.current = number(&dir.join("pids.current"))?.unwrap_or(0);
    stats.pids.limit = number(&dir.join("pids.max"))?.unwrap_or(0);
    let io = file::read_if_there(&dir.join("io.stat"))?.unwrap_or_default();
    stats.io.devices = io.lines().filter_map(io_device).collect();
    Ok(())
}

fn memory(dir: &Path, memory: &mut Memory) -> Result<()> {
    let value = |name: &str| Ok::<_, crate::Error>(number(&dir.join(name))?.unwrap_or(0));
    let stat = table(&dir.join("memory.stat"))?;
    let counted = |key| stat.get(key).copied().unwrap_or(0);
    let events = table(&dir.join("memory.events"))?;
    memory.usage = value("memory.current")?;
    memory.max_usage = value("memory.peak")?;
    memory.limit = value("memory.max")?;
    memory.failures = events.get("max").copied().unwrap_or(0);
    memory.working_set = memory.usage.saturating_sub(counted("inactive_file"));
    memory.rss = counted("anon");
    memory.cache = counted("file");
    memory.swap_usage = value("memory.swap.current")?;
    memory.swap_limit = value("memory.swap.max")?;
    memory.page_faults = counted("pgfault");
    memory.major_page_faults = counted("pgmajfault");
    memory.kernel = counted("kernel");
    memory.oom_kills = events.get("oom_kill").copied().unwrap_or(0);
    memory.stat = stat;
    Ok(())
}

pub(super) fn hugetlb(dir: &Path, stats: &mut Stats) -> Result<()> {
    for size in page_sizes(dir, ".current")? {
        let value = |name: &str| {
            Ok::<_, crate::Error>(number(&dir.join(format!("hugetlb.{size}.{name}")))?.unwrap_or(0))
        };
        let failures = table(&dir.join(format!("hugetlb.{size}.events")))?.get("max").copied().unwrap_or(0);
        let usage = Hugetlb { usage: value("current")?, limit: value("max")?, failures };
        stats.hugetlb.insert(size.clone(), usage);
    }
    Ok(())
}

/// `8:0 rbytes=90112 wbytes=0 rios=5 wios=0 dbytes=0 dios=0`.
/// For integration/fuzz.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(text: &str) {
    let _: Vec<_> = text.lines().map(io_device).collect();
}

fn io_device(line: &str) -> Option<IoDevice> {
    let mut words = line.split(' ');
    let (major, minor) = words.next()?.split_once(':')?;
    let mut device =
        IoDevice { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoDevice::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let value = value.parse().unwrap_or(0);
        match key {
            "rbytes" => device.read_bytes = value,
            "wbytes" => device.write_bytes = value,
            "rios" => device.reads = value,
            "wios" => device.writes = value,
            _ => {}
        }
    }
    Some(device)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory() {
        let dir = tempfile::tempdir().expect("temp dir");
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
            ),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 300\nfile 400\ninactive_file 250\npgfault 12\n"),
            ("memory.events", "low 0\nmax 3\noom 1\noom_kill 2\n"),
            ("pids.current", "2\n"),
            ("pids.max", "100\n"),
            ("io.stat", "8:0 rbytes=90112 wbytes=1 rios=5 wios=2 dbytes=0 dios=0\n8:16 \n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
        ] {
            fs::write(dir.path().join(name), text).expect("write");
        }
        let mut stats = Stats::default();
        read(dir.path(), &mut stats).expect("stats");
        hugetlb(dir.path(), &mut stats).expect("stats");
        assert_eq!((stats.cpu.usage, stats.cpu.throttled_time), (5_000_000, 7000));
        assert_eq!(
            (stats.memory.limit, stats.memory.working_set, stats.memory.oom_kills),
            (u64::MAX, 750, 2)
        );
        assert_eq!((stats.pids.current, stats.pids.limit), (2, 100));
        assert_eq!((stats.io.devices[0].read_bytes, stats.io.devices[0].writes), (90112, 2));
        assert_eq!(stats.io.devices[1].minor, 16);
        assert_eq!(stats.hugetlb.keys().collect::<Vec<_>>(), ["2MB"]);
    }
}
