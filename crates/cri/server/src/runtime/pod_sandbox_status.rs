//! PodSandboxStatus.

use corten_cri_api::v1::{
    LinuxPodSandboxStatus, Namespace, PodIp, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use serde_json::json;

use crate::Result;
use crate::records::{SandboxPhase, SandboxRecord};
use crate::sandbox;
use crate::server::Inner;

impl Inner {
    pub(super) async fn pod_sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let record = sandbox.record();
        let mut info = Default::default();
        if request.verbose {
            let shim = match sandbox.shim_if_any() {
                Some(shim) => shim.pid().await.ok(),
                None => None,
            };
            let pins = record.pins(&self.deps.dirs)?;
            info = Self::info(&json!({
                "shimPid": shim, "runtimeHandler": record.handler, "cgroupParent": record.cgroup_parent,
                "netns": pins.net, "directory": self.deps.dirs.pod(&sandbox.id), "config": record.config,
            }));
        }
        let mut containers: Vec<_> = self.containers_of(&sandbox.id).iter().map(|c| c.record()).collect();
        containers.retain(|container| container.phase.is_visible());
        Ok(PodSandboxStatusResponse {
            status: Some(record.status()),
            info,
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
            timestamp: crate::time::now(),
        })
    }
}

impl SandboxRecord {
    pub(super) fn state(&self) -> PodSandboxState {
        match self.phase {
            SandboxPhase::Ready => PodSandboxState::SandboxReady,
            _ => PodSandboxState::SandboxNotready,
        }
    }

    fn status(&self) -> PodSandboxStatus {
        let mut ips = self.ips.iter().map(ToString::to_string);
        let network = PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIp { ip }).collect(),
        };
        let options = sandbox::namespace_options(&self.config);
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created_at,
            network: Some(network),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }
}
