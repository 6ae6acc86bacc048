//! StopPodSandbox: ends all of a pod's processes and gives its network back; the record stays.

use std::sync::Arc;

use corten_cri_api::v1::{StopPodSandboxRequest, StopPodSandboxResponse};

use crate::Result;
use crate::records::SandboxPhase;
use crate::server::Inner;

impl Inner {
    /// Succeeds for what isn't there or has been stopped; what failed before is tried again.
    pub(super) async fn stop_pod_sandbox(
        self: Arc<Self>,
        request: StopPodSandboxRequest,
    ) -> Result<StopPodSandboxResponse> {
        let Ok(sandbox) = self.sandbox(&request.pod_sandbox_id) else {
            return Ok(StopPodSandboxResponse {});
        };
        let _work = sandbox.work.write().await;
        let record = sandbox.record();
        if record.stopped || !record.phase.is_visible() {
            return Ok(StopPodSandboxResponse {});
        }
        // Not ready from the first step on, not from the last: no container may join a pod that is coming down.
        sandbox.entry.update(|record| record.phase = SandboxPhase::NotReady).await?;
        self.quiesce(&sandbox).await?;
        sandbox.entry.update(|record| record.stopped = true).await?;
        Ok(StopPodSandboxResponse {})
    }
}
