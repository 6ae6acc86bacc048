//! RemovePodSandbox: takes away all of a pod, running or not.

use std::sync::Arc;

use corten_cri_api::v1::{RemovePodSandboxRequest, RemovePodSandboxResponse};

use crate::Result;
use crate::server::Inner;

impl Inner {
    /// Succeeds for what isn't there. Fails while anything can't be taken away: then the pod is still listed.
    pub(super) async fn remove_pod_sandbox(
        self: Arc<Self>,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse> {
        if let Some(sandbox) = self.sandboxes.get(&request.pod_sandbox_id) {
            self.take_away_sandbox(&sandbox).await?;
        }
        Ok(RemovePodSandboxResponse {})
    }
}
