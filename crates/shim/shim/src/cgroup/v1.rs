//! Usage as cgroup v1 counts it: io.containerd.cgroups.v1.Metrics.

use std::path::Path;

use corten_task_api::proto::cgroups::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};

use super::{Keyed, number, page_sizes, text};

/// `dir` finds a controller's directory.
pub(super) fn metrics(dir: impl Fn(&str) -> std::path::PathBuf) -> Metrics {
    let (pids, memory) = (dir("pids"), dir("memory"));
    let oom = Keyed::read(&memory.join("memory.oom_control"));
    Metrics {
        hugetlb: hugetlb(&dir("hugetlb")),
        pids: Some(PidsStat {
            current: number(&pids.join("pids.current")),
            limit: number(&pids.join("pids.max")),
        }),
        cpu: Some(cpu(&dir("cpuacct"), &dir("cpu"))),
        memory: Some(memory_stat(&memory)),
        blkio: Some(blkio(&dir("blkio"))),
        rdma: rdma(&dir("rdma")),
        memory_oom_control: Some(MemoryOomControl {
            oom_kill_disable: oom.get("oom_kill_disable"),
            under_oom: oom.get("under_oom"),
            oom_kill: oom.get("oom_kill"),
        }),
        ..Metrics::default()
    }
}

fn cpu(cpuacct: &Path, cpu: &Path) -> CpuStat {
    let throttling = Keyed::read(&cpu.join("cpu.stat"));
    let per_cpu = text(&cpuacct.join("cpuacct.usage_percpu"));
    CpuStat {
        usage: Some(CpuUsage {
            total: number(&cpuacct.join("cpuacct.usage")),
            kernel: number(&cpuacct.join("cpuacct.usage_sys")),
            user: number(&cpuacct.join("cpuacct.usage_user")),
            per_cpu: per_cpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
        }),
        throttling: Some(Throttle {
            periods: throttling.get("nr_periods"),
            throttled_periods: throttling.get("nr_throttled"),
            throttled_time: throttling.get("throttled_time"),
        }),
    }
}

fn memory_stat(dir: &Path) -> MemoryStat {
    let stat = Keyed::read(&dir.join("memory.stat"));
    let entry = |prefix: &str| {
        let value = |name: &str| number(&dir.join(format!("{prefix}.{name}")));
        let entry = || MemoryEntry {
            limit: value("limit_in_bytes"),
            usage: value("usage_in_bytes"),
            max: value("max_usage_in_bytes"),
            failcnt: value("failcnt"),
        };
        dir.join(format!("{prefix}.usage_in_bytes")).exists().then(entry)
    };
    let get = |key| stat.get(key);
    MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: Some(entry("memory").unwrap_or_default()),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
    }
}

fn hugetlb(dir: &Path) -> Vec<HugetlbStat> {
    let value = |size: &str, name: &str| number(&dir.join(format!("hugetlb.{size}.{name}")));
    let stat = |size: String| HugetlbStat {
        usage: value(&size, "usage_in_bytes"),
        max: value(&size, "max_usage_in_bytes"),
        failcnt: value(&size, "failcnt"),
        pagesize: size,
    };
    page_sizes(dir, ".usage_in_bytes").into_iter().map(stat).collect()
}

fn blkio(dir: &Path) -> BlkIoStat {
    let read = |names: [&str; 2]| {
        let found = names.into_iter().map(|name| text(&dir.join(format!("blkio.{name}"))));
        entries(&found.into_iter().find(|text| !text.is_empty()).unwrap_or_default())
    };
    BlkIoStat {
        io_service_bytes_recursive: read([
            "throttle.io_service_bytes_recursive",
            "throttle.io_service_bytes",
        ]),
        io_serviced_recursive: read(["throttle.io_serviced_recursive", "throttle.io_serviced"]),
        io_queued_recursive: read(["bfq.io_queued_recursive", "io_queued_recursive"]),
        io_service_time_recursive: read(["bfq.io_service_time_recursive", "io_service_time_recursive"]),
        io_wait_time_recursive: read(["bfq.io_wait_time_recursive", "io_wait_time_recursive"]),
        io_merged_recursive: read(["bfq.io_merged_recursive", "io_merged_recursive"]),
        io_time_recursive: read(["bfq.time_recursive", "time_recursive"]),
        sectors_recursive: read(["bfq.sectors_recursive", "sectors_recursive"]),
    }
}

/// `8:0 Read 4096`; `8:0 17` where nothing tells reads from writes; the last line is a total without a device.
fn entries(text: &str) -> Vec<BlkIoEntry> {
    let entry = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (device, op, value) = match words.as_slice() {
            [device, op, value] => (device, *op, value),
            [device, value] => (device, "", value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        let (major, minor, value) = (major.parse().ok()?, minor.parse().ok()?, value.parse().ok()?);
        Some(BlkIoEntry { op: op.to_owned(), device: String::new(), major, minor, value })
    };
    text.lines().filter_map(entry).collect()
}

/// None where the controller isn't there.
fn rdma(dir: &Path) -> Option<RdmaStat> {
    let read = |name: &str| {
        let entry = |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
        super::rdma(&text(&dir.join(name))).into_iter().map(entry).collect()
    };
    dir.join("rdma.current")
        .exists()
        .then(|| RdmaStat { current: read("rdma.current"), limit: read("rdma.max") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices() {
        let found = entries("8:0 Read 4096\n8:0 Write 1\nTotal 4097\n8:16 7\n");
        let found: Vec<_> = found.iter().map(|e| (e.op.as_str(), e.major, e.minor, e.value)).collect();
        assert_eq!(found, [("Read", 8, 0, 4096), ("Write", 8, 0, 1), ("", 8, 16, 7)]);
    }
}
