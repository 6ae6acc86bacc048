//! A container's cgroup: where it is, who is in it, what it uses, whether the kernel has killed in it.

use std::path::{Path, PathBuf};

use corten_task_api::proto::cgroups::{v1, v2};
use corten_task_api::services;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost_types::Any;

const MOUNT: &str = "/sys/fs/cgroup";

/// Where a container's processes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// The one hierarchy of version 2.
    Unified(PathBuf),
    /// The path within the hierarchies of version 1, which is the same in all of them.
    Legacy(String),
}

impl Cgroup {
    /// The cgroup of a process. None when it's the root's or our own: then the container has none of its own.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let theirs = Self::read(&pid.to_string())?;
        (Some(&theirs) != Self::read("self").as_ref()).then_some(theirs)
    }

    fn read(pid: &str) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Self::parse(&text, Path::new(MOUNT).join("cgroup.controllers").exists())
    }

    pub(crate) fn parse(text: &str, unified: bool) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        });
        let wanted = |controllers: &str| match unified {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|c| c == "memory"),
        };
        let (_, path) = lines.find(|(controllers, path)| wanted(controllers) && *path != "/")?;
        Some(match unified {
            true => Self::Unified(Path::new(MOUNT).join(path.trim_start_matches('/'))),
            false => Self::Legacy(path.to_owned()),
        })
    }

    fn dir(&self, controller: &str) -> PathBuf {
        match self {
            Self::Unified(dir) => dir.clone(),
            Self::Legacy(path) => Path::new(MOUNT).join(controller).join(path.trim_start_matches('/')),
        }
    }

    /// How often the kernel has killed a process here for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = match self {
            Self::Unified(dir) => dir.join("memory.events"),
            Self::Legacy(_) => self.dir("memory").join("memory.oom_control"),
        };
        keyed(&file, "oom_kill")
    }

    /// All processes, of cgroups below it too.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        collect(&self.dir("memory"), &mut pids);
        pids
    }

    /// Kills all that is left here.
    pub(crate) fn kill_all(&self) {
        kill_each(&self.pids());
    }

    /// Its directory in the version 2 hierarchy, be it without controllers; None if there is none.
    pub(crate) fn version_2(&self) -> Option<PathBuf> {
        let dir = match self {
            Self::Unified(dir) => dir.clone(),
            Self::Legacy(path) => Path::new(MOUNT).join("unified").join(path.trim_start_matches('/')),
        };
        dir.join("cgroup.procs").exists().then_some(dir)
    }

    /// Whether it stands still, whoever has frozen it.
    pub(crate) fn is_frozen(&self) -> bool {
        let (file, moving) = match self {
            Self::Unified(dir) => (dir.join("cgroup.freeze"), "0"),
            Self::Legacy(_) => (self.dir("freezer").join("freezer.state"), "THAWED"),
        };
        std::fs::read_to_string(file).is_ok_and(|state| state.trim() != moving)
    }

    /// What Task.Stats answers.
    pub(crate) fn metrics(&self) -> Any {
        match self {
            Self::Unified(dir) => services::any("io.containerd.cgroups.v2.Metrics", &metrics_v2(dir)),
            Self::Legacy(_) => services::any("io.containerd.cgroups.v1.Metrics", &self.metrics_v1()),
        }
    }

    fn metrics_v1(&self) -> v1::Metrics {
        let (memory, cpu, pids) = (self.dir("memory"), self.dir("cpuacct"), self.dir("pids"));
        let stat = Keyed::read(&memory.join("memory.stat"));
        let entry = |prefix: &str| v1::MemoryEntry {
            limit: number(&memory.join(format!("{prefix}.limit_in_bytes"))),
            usage: number(&memory.join(format!("{prefix}.usage_in_bytes"))),
            max: number(&memory.join(format!("{prefix}.max_usage_in_bytes"))),
            failcnt: number(&memory.join(format!("{prefix}.failcnt"))),
        };
        let throttling = Keyed::read(&self.dir("cpu").join("cpu.stat"));
        v1::Metrics {
            pids: Some(v1::PidsStat {
                current: number(&pids.join("pids.current")),
                limit: number(&pids.join("pids.max")),
            }),
            cpu: Some(v1::CpuStat {
                usage: Some(v1::CpuUsage {
                    total: number(&cpu.join("cpuacct.usage")),
                    kernel: number(&cpu.join("cpuacct.usage_sys")),
                    user: number(&cpu.join("cpuacct.usage_user")),
                    per_cpu: Vec::new(),
                }),
                throttling: Some(v1::Throttle {
                    periods: throttling.get("nr_periods"),
                    throttled_periods: throttling.get("nr_throttled"),
                    throttled_time: throttling.get("throttled_time"),
                }),
            }),
            memory: Some(v1::MemoryStat {
                cache: stat.get("cache"),
                rss: stat.get("rss"),
                mapped_file: stat.get("mapped_file"),
                pg_fault: stat.get("pgfault"),
                pg_maj_fault: stat.get("pgmajfault"),
                hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
                total_cache: stat.get("total_cache"),
                total_rss: stat.get("total_rss"),
                total_mapped_file: stat.get("total_mapped_file"),
                total_pg_fault: stat.get("total_pgfault"),
                total_pg_maj_fault: stat.get("total_pgmajfault"),
                total_inactive_anon: stat.get("total_inactive_anon"),
                total_active_anon: stat.get("total_active_anon"),
                total_inactive_file: stat.get("total_inactive_file"),
                total_active_file: stat.get("total_active_file"),
                total_unevictable: stat.get("total_unevictable"),
                usage: Some(entry("memory")),
                swap: memory.join("memory.memsw.usage_in_bytes").exists().then(|| entry("memory.memsw")),
                ..v1::MemoryStat::default()
            }),
            memory_oom_control: Some(v1::MemoryOomControl {
                oom_kill: self.oom_kills(),
                ..Default::default()
            }),
            ..v1::Metrics::default()
        }
    }
}

fn metrics_v2(dir: &Path) -> v2::Metrics {
    let stat = Keyed::read(&dir.join("memory.stat"));
    let cpu = Keyed::read(&dir.join("cpu.stat"));
    let events = Keyed::read(&dir.join("memory.events"));
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: number(&dir.join("pids.current")),
            limit: number(&dir.join("pids.max")),
        }),
        cpu: Some(v2::CpuStat {
            usage_usec: cpu.get("usage_usec"),
            user_usec: cpu.get("user_usec"),
            system_usec: cpu.get("system_usec"),
            nr_periods: cpu.get("nr_periods"),
            nr_throttled: cpu.get("nr_throttled"),
            throttled_usec: cpu.get("throttled_usec"),
            ..v2::CpuStat::default()
        }),
        memory: Some(v2::MemoryStat {
            anon: stat.get("anon"),
            file: stat.get("file"),
            kernel_stack: stat.get("kernel_stack"),
            slab: stat.get("slab"),
            sock: stat.get("sock"),
            shmem: stat.get("shmem"),
            file_mapped: stat.get("file_mapped"),
            inactive_anon: stat.get("inactive_anon"),
            active_anon: stat.get("active_anon"),
            inactive_file: stat.get("inactive_file"),
            active_file: stat.get("active_file"),
            pgfault: stat.get("pgfault"),
            pgmajfault: stat.get("pgmajfault"),
            usage: number(&dir.join("memory.current")),
            usage_limit: number(&dir.join("memory.max")),
            swap_usage: number(&dir.join("memory.swap.current")),
            swap_limit: number(&dir.join("memory.swap.max")),
            max_usage: number(&dir.join("memory.peak")),
            ..v2::MemoryStat::default()
        }),
        memory_events: Some(v2::MemoryEvents {
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            ..v2::MemoryEvents::default()
        }),
        ..v2::Metrics::default()
    }
}

/// A file of lines "key value".
struct Keyed(String);

impl Keyed {
    /// Empty when there is none: the controller may be off.
    fn read(file: &Path) -> Self {
        Self(std::fs::read_to_string(file).unwrap_or_default())
    }

    fn get(&self, key: &str) -> u64 {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
    }
}

fn keyed(file: &Path, key: &str) -> u64 {
    Keyed::read(file).get(key)
}

/// 0 when there is none, u64::MAX for "max".
fn number(file: &Path) -> u64 {
    match std::fs::read_to_string(file).unwrap_or_default().trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Kills all in this directory of a hierarchy and below.
pub(crate) fn kill_below(dir: &Path) {
    let mut pids = Vec::new();
    collect(dir, &mut pids);
    kill_each(&pids);
}

fn kill_each(pids: &[u32]) {
    for pid in pids {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL); // it may have ended meanwhile
    }
}

fn collect(dir: &Path, pids: &mut Vec<u32>) {
    let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        collect(&entry.path(), pids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_all_layouts() {
        let hybrid = "12:memory:/pod/x\n11:cpu,cpuacct:/pod/x\n0::/init\n";
        assert_eq!(Cgroup::parse(hybrid, false), Some(Cgroup::Legacy("/pod/x".into())));
        assert_eq!(Cgroup::parse("0::/a/b\n", true), Some(Cgroup::Unified("/sys/fs/cgroup/a/b".into())));
        assert_eq!(Cgroup::parse("0::/\n", true), None);
        assert_eq!(Cgroup::parse("4:memory:/\n", false), None);
    }

    #[test]
    fn keys_are_not_prefixes() {
        let stat = Keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n".into());
        assert_eq!(stat.get("oom_kill"), 3);
    }
}
