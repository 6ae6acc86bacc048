//! ContainerStatus.

use corten_cri_api::v1::{ContainerStatusRequest, ContainerStatusResponse};
use serde_json::json;

use crate::Result;
use crate::records::ContainerPhase;
use crate::server::Inner;

impl Inner {
    pub(super) async fn container_status(
        &self,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse> {
        let container = self.container(&request.container_id)?;
        let record = container.record();
        let mut info = Default::default();
        if request.verbose {
            let config = self.deps.dirs.bundle(&record.id).join("config.json");
            let spec = tokio::fs::read(&config).await.ok();
            let spec: Option<serde_json::Value> = spec.and_then(|text| serde_json::from_slice(&text).ok());
            let pid = match record.phase {
                ContainerPhase::Running { pid, .. } => Some(pid),
                _ => None,
            };
            info = Self::info(&json!({
                "sandboxID": record.sandbox_id, "pid": pid, "cgroup": record.cgroup,
                "bundle": self.deps.dirs.bundle(&record.id), "config": record.config, "runtimeSpec": spec,
            }));
        }
        Ok(ContainerStatusResponse { status: Some(record.status()), info })
    }
}
