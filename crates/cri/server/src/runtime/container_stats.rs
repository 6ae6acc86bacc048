//! ContainerStats and ListContainerStats: read from the cgroups directly, no process and no shim involved.

use std::sync::{Arc, PoisonError};

use corten_cri_api::v1::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ContainerStatsResponse,
    CpuUsage, FilesystemIdentifier, FilesystemUsage, ListContainerStatsRequest, ListContainerStatsResponse,
    MemoryUsage, SwapUsage, UInt64Value,
};
use futures_util::future::join_all;

use super::filter;
use crate::Result;
use crate::cgroup::Usage;
use crate::container::Container;
use crate::records::{ContainerPhase, ContainerRecord};
use crate::server::Inner;
use crate::time::now;

/// Measuring a writable layer means walking it: what is younger than this is good enough.
const LAYER_AGE: i64 = 30_000_000_000;

impl Inner {
    pub(super) async fn container_stats(
        self: Arc<Self>,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse> {
        let container = self.container(&request.container_id)?;
        Ok(ContainerStatsResponse { stats: Some(self.stats(&container).await) })
    }

    /// Of running containers, as the kubelet wants it.
    pub(super) async fn list_container_stats(
        self: Arc<Self>,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse> {
        let wanted = request.filter.unwrap_or_default();
        let mut containers = self.containers.all();
        containers.retain(|container| fits(&wanted, &container.record()));
        let stats = join_all(containers.iter().map(|container| self.stats(container))).await;
        Ok(ListContainerStatsResponse { stats })
    }

    async fn stats(&self, container: &Container) -> ContainerStats {
        let record = container.record();
        let running = matches!(record.phase, ContainerPhase::Running { .. });
        let usage = if running { self.hierarchies.usage(&record.cgroup) } else { None };
        let at = now();
        let mut stats = ContainerStats {
            attributes: Some(ContainerAttributes {
                id: record.id.clone(),
                metadata: Some(record.metadata()),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            writable_layer: self.layer(container, at).await,
            ..Default::default()
        };
        if let Some(usage) = usage {
            let value = |value| Some(UInt64Value { value });
            stats.cpu = Some(CpuUsage {
                timestamp: at,
                usage_core_nano_seconds: value(usage.cpu_nanoseconds),
                usage_nano_cores: nano_cores(container, at, usage).and_then(value),
                psi: None,
            });
            let limit = usage.memory_limit;
            stats.memory = Some(MemoryUsage {
                timestamp: at,
                working_set_bytes: value(usage.working_set_bytes),
                available_bytes: limit.and_then(|limit| value(limit.saturating_sub(usage.working_set_bytes))),
                usage_bytes: value(usage.memory_bytes),
                rss_bytes: value(usage.rss_bytes),
                page_faults: value(usage.page_faults),
                major_page_faults: value(usage.major_page_faults),
                psi: None,
            });
            let swap_usage_bytes = value(usage.swap_bytes);
            stats.swap = Some(SwapUsage { timestamp: at, swap_available_bytes: None, swap_usage_bytes });
        }
        stats
    }

    /// What the container has written, measured now or a little while ago.
    async fn layer(&self, container: &Container, at: i64) -> Option<FilesystemUsage> {
        let known = container.sample.lock().unwrap_or_else(PoisonError::into_inner).layer;
        let (timestamp, bytes, inodes) = match known.filter(|(then, ..)| at - then < LAYER_AGE) {
            Some(known) => known,
            None => {
                let usage = self.deps.images.usage(&container.id).await.ok()?;
                let fresh = (at, usage.bytes, usage.inodes);
                container.sample.lock().unwrap_or_else(PoisonError::into_inner).layer = Some(fresh);
                fresh
            }
        };
        let mountpoint = self.deps.dirs.root.display().to_string();
        Some(FilesystemUsage {
            timestamp,
            fs_id: Some(FilesystemIdentifier { mountpoint }),
            used_bytes: Some(UInt64Value { value: bytes }),
            inodes_used: Some(UInt64Value { value: inodes }),
        })
    }
}

fn fits(wanted: &ContainerStatsFilter, record: &ContainerRecord) -> bool {
    matches!(record.phase, ContainerPhase::Running { .. })
        && filter::id(&wanted.id, &record.id)
        && filter::id(&wanted.pod_sandbox_id, &record.sandbox_id)
        && filter::labels(&wanted.label_selector, &record.config.labels)
}

/// CPU time a second since the sample before; none for the first one.
fn nano_cores(container: &Container, at: i64, usage: Usage) -> Option<u64> {
    let mut sample = container.sample.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((then, before)) = sample.cpu {
        let elapsed = u128::try_from(at - then).ok().filter(|elapsed| *elapsed > 0)?;
        let used = u128::from(usage.cpu_nanoseconds.saturating_sub(before));
        sample.nano_cores = u64::try_from(used * 1_000_000_000 / elapsed).ok();
    }
    sample.cpu = Some((at, usage.cpu_nanoseconds));
    sample.nano_cores
}
