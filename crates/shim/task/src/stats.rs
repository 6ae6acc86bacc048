//! Resource usage in one form, whatever version of cgroups it was read from.

use corten_task_api::proto::cgroups::{v1, v2};
use corten_task_api::ttrpc::{Code, Status};
use prost::Message;

/// What a container uses. Bytes unless the name says otherwise; 0 where the kernel has no figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since the start, in nanoseconds.
    pub cpu_usage_ns: u64,
    /// All memory that is charged.
    pub memory_usage: u64,
    /// What can't easily be reclaimed: usage without the inactive part of the page cache.
    pub memory_working_set: u64,
    /// Anonymous memory.
    pub memory_rss: u64,
    /// The limit; u64::MAX or near it means none.
    pub memory_limit: u64,
    /// Swap in use.
    pub swap_usage: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that went to the disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Stats {
    pub(crate) fn decode(any: &prost_types::Any) -> Result<Self, Status> {
        let bad = |e| Status::new(Code::Internal, format!("decode {}: {e}", any.type_url));
        if any.type_url.ends_with("io.containerd.cgroups.v2.Metrics") {
            return v2::Metrics::decode(any.value.as_slice()).map(|m| Self::from_v2(&m)).map_err(bad);
        }
        if any.type_url.ends_with("io.containerd.cgroups.v1.Metrics") {
            return v1::Metrics::decode(any.value.as_slice()).map(|m| Self::from_v1(&m)).map_err(bad);
        }
        Err(Status::new(Code::Internal, format!("unknown type of metrics {:?}", any.type_url)))
    }

    fn from_v1(metrics: &v1::Metrics) -> Self {
        let memory = metrics.memory.unwrap_or_default();
        let usage = memory.usage.unwrap_or_default();
        Self {
            cpu_usage_ns: metrics
                .cpu
                .as_ref()
                .and_then(|c| c.usage.as_ref())
                .map_or(0, |u| u.total),
            memory_usage: usage.usage,
            memory_working_set: usage.usage.saturating_sub(memory.total_inactive_file),
            memory_rss: memory.total_rss,
            memory_limit: usage.limit,
            swap_usage: memory.swap.map_or(0, |s| s.usage.saturating_sub(usage.usage)),
            page_faults: memory.total_pg_fault,
            major_page_faults: memory.total_pg_maj_fault,
            pids: metrics.pids.map_or(0, |p| p.current),
        }
    }

    fn from_v2(metrics: &v2::Metrics) -> Self {
        let memory = metrics.memory.unwrap_or_default();
        Self {
            cpu_usage_ns: metrics.cpu.map_or(0, |c| c.usage_usec.saturating_mul(1000)),
            memory_usage: memory.usage,
            memory_working_set: memory.usage.saturating_sub(memory.inactive_file),
            memory_rss: memory.anon,
            memory_limit: memory.usage_limit,
            swap_usage: memory.swap_usage,
            page_faults: memory.pgfault,
            major_page_faults: memory.pgmajfault,
            pids: metrics.pids.map_or(0, |p| p.current),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_set_leaves_out_inactive_files() {
        let metrics = v1::Metrics {
            memory: Some(v1::MemoryStat {
                usage: Some(v1::MemoryEntry { usage: 1000, ..Default::default() }),
                total_inactive_file: 300,
                ..Default::default()
            }),
            ..Default::default()
        };
        let any = corten_task_api::services::any("io.containerd.cgroups.v1.Metrics", &metrics);
        assert_eq!(Stats::decode(&any).unwrap().memory_working_set, 700);
    }

    #[test]
    fn unknown_metrics_are_refused() {
        assert_eq!(Stats::decode(&prost_types::Any::default()).unwrap_err().code, Code::Internal);
    }
}
