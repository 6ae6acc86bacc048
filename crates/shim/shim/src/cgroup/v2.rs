//! Usage as cgroup v2 counts it: io.containerd.cgroups.v2.Metrics.

use std::path::Path;

use corten_task_api::proto::cgroups::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats,
    RdmaEntry, RdmaStat,
};

use super::{Keyed, number, page_sizes, text};

pub(super) fn metrics(dir: &Path) -> Metrics {
    let events = Keyed::read(&dir.join("memory.events"));
    Metrics {
        pids: Some(PidsStat {
            current: number(&dir.join("pids.current")),
            limit: number(&dir.join("pids.max")),
        }),
        cpu: Some(cpu(dir)),
        memory: Some(memory(dir)),
        rdma: rdma(dir),
        io: Some(IoStat { usage: io(&text(&dir.join("io.stat"))), psi: psi(&dir.join("io.pressure")) }),
        hugetlb: hugetlb(dir),
        memory_events: Some(MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            oom_group_kill: events.get("oom_group_kill"),
        }),
        network: Vec::new(),
    }
}

fn cpu(dir: &Path) -> CpuStat {
    let stat = Keyed::read(&dir.join("cpu.stat"));
    let get = |key| stat.get(key);
    CpuStat {
        usage_usec: get("usage_usec"),
        user_usec: get("user_usec"),
        system_usec: get("system_usec"),
        nr_periods: get("nr_periods"),
        nr_throttled: get("nr_throttled"),
        throttled_usec: get("throttled_usec"),
        psi: psi(&dir.join("cpu.pressure")),
        nr_bursts: get("nr_bursts"),
        burst_usec: get("burst_usec"),
    }
}

fn memory(dir: &Path) -> MemoryStat {
    let stat = Keyed::read(&dir.join("memory.stat"));
    let get = |key| stat.get(key);
    let number = |name: &str| number(&dir.join(name));
    MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        // Since kernel 5.9 counted apart, for anonymous memory and for files.
        workingset_refault: get("workingset_refault")
            + get("workingset_refault_anon")
            + get("workingset_refault_file"),
        workingset_activate: get("workingset_activate")
            + get("workingset_activate_anon")
            + get("workingset_activate_file"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        usage: number("memory.current"),
        usage_limit: number("memory.max"),
        swap_usage: number("memory.swap.current"),
        swap_limit: number("memory.swap.max"),
        max_usage: number("memory.peak"),
        swap_max_usage: number("memory.swap.peak"),
        psi: psi(&dir.join("memory.pressure")),
    }
}

/// None where the kernel has no pressure stall information, or doesn't count it here.
fn psi(file: &Path) -> Option<PsiStats> {
    let text = text(file);
    let data = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let average = |key: &str| value(key).and_then(|v| v.parse().ok()).unwrap_or(0.0);
        Some(PsiData {
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
            total: value("total").and_then(|v| v.parse().ok()).unwrap_or(0),
        })
    };
    let (some, full) = (data("some"), data("full"));
    (some.is_some() || full.is_some()).then_some(PsiStats { some, full })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn io(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut entry =
            IoEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(dir: &Path) -> Vec<HugeTlbStat> {
    let stat = |size: String| {
        let events = Keyed::read(&dir.join(format!("hugetlb.{size}.events")));
        HugeTlbStat {
            current: number(&dir.join(format!("hugetlb.{size}.current"))),
            max: number(&dir.join(format!("hugetlb.{size}.max"))),
            failcnt: events.get("max"),
            pagesize: size,
        }
    };
    page_sizes(dir, ".current").into_iter().map(stat).collect()
}

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
    fn a_cgroups_files_become_metrics() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write("cpu.stat", "usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_bursts 2\nburst_usec 9\n");
        write("cpu.pressure", "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\n");
        write("memory.stat", "anon 4096\nworkingset_refault_anon 1\nworkingset_refault_file 2\npgfault 7\n");
        write("memory.current", "8192\n");
        write("memory.max", "1000000\n");
        write("memory.peak", "9000\n");
        write("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n");
        write(
            "memory.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.50 total=7\n",
        );
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1 \n");
        write("hugetlb.2MB.current", "0\n");
        write("hugetlb.2MB.max", "2097152\n");
        write("hugetlb.2MB.events", "max 6\n");
        write("hugetlb.2MB.rsvd.current", "0\n");
        write("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n");
        write("rdma.max", "mlx4_0 hca_handle=max hca_object=5\n");
        let m = metrics(dir.path());
        let pids = m.pids.unwrap();
        assert_eq!((pids.current, pids.limit), (3, u64::MAX));
        let cpu = m.cpu.unwrap();
        assert_eq!((cpu.usage_usec, cpu.nr_bursts, cpu.burst_usec), (100, 2, 9));
        let psi = cpu.psi.unwrap();
        assert_eq!((psi.some.unwrap().avg10, psi.some.unwrap().total, psi.full), (1.5, 1234, None));
        let memory = m.memory.unwrap();
        assert_eq!((memory.anon, memory.workingset_refault, memory.pgfault), (4096, 3, 7));
        assert_eq!((memory.usage, memory.usage_limit, memory.max_usage), (8192, 1_000_000, 9000));
        assert_eq!(memory.psi.unwrap().full.unwrap().total, 7);
        let events = m.memory_events.unwrap();
        assert_eq!(
            (events.high, events.max, events.oom, events.oom_kill, events.oom_group_kill),
            (1, 2, 3, 4, 5)
        );
        let io = m.io.unwrap();
        assert_eq!((io.usage.len(), io.usage[0].wios, io.usage[1].major, io.psi), (2, 4, 253, None));
        assert_eq!(m.hugetlb.len(), 1);
        assert_eq!(
            (m.hugetlb[0].max, m.hugetlb[0].failcnt, m.hugetlb[0].pagesize.as_str()),
            (2 << 20, 6, "2MB")
        );
        let rdma = m.rdma.unwrap();
        assert_eq!((rdma.current[0].hca_objects, rdma.limit[0].hca_handles), (2000, u32::MAX));
    }
}
