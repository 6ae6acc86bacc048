//! ListPodSandbox: from memory, asked each second.

use corten_cri_api::v1::{ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox};

use super::filter;
use crate::Result;
use crate::server::Inner;

impl Inner {
    #[expect(clippy::unused_async, reason = "all RPCs are called alike")]
    pub(super) async fn list_pod_sandbox(
        &self,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse> {
        let wanted = request.filter.unwrap_or_default();
        let mut items = Vec::new();
        for sandbox in self.sandboxes.all() {
            let record = sandbox.record();
            let fits = record.phase.is_visible()
                && filter::id(&wanted.id, &record.id)
                && wanted.state.is_none_or(|state| state.state() == record.state())
                && filter::labels(&wanted.label_selector, &record.config.labels);
            if fits {
                items.push(PodSandbox {
                    id: record.id.clone(),
                    metadata: record.config.metadata.clone(),
                    state: record.state().into(),
                    created_at: record.created_at,
                    labels: record.config.labels.clone(),
                    annotations: record.config.annotations.clone(),
                    runtime_handler: record.handler.clone(),
                });
            }
        }
        Ok(ListPodSandboxResponse { items })
    }
}
