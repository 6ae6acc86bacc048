//! ListContainers: from memory, asked each second.

use corten_cri_api::v1::{Container, ListContainersRequest, ListContainersResponse};

use super::filter;
use crate::Result;
use crate::server::Inner;

impl Inner {
    #[expect(clippy::unused_async, reason = "all RPCs are called alike")]
    pub(super) async fn list_containers(
        &self,
        request: ListContainersRequest,
    ) -> Result<ListContainersResponse> {
        let wanted = request.filter.unwrap_or_default();
        let mut containers = Vec::new();
        for container in self.containers.all() {
            let record = container.record();
            let fits = record.phase.is_visible()
                && filter::id(&wanted.id, &record.id)
                && filter::id(&wanted.pod_sandbox_id, &record.sandbox_id)
                && wanted.state.is_none_or(|state| state.state() == record.state())
                && filter::labels(&wanted.label_selector, &record.config.labels);
            if fits {
                containers.push(Container {
                    id: record.id.clone(),
                    pod_sandbox_id: record.sandbox_id.clone(),
                    metadata: Some(record.metadata()),
                    image: Some(record.image_spec()),
                    image_ref: record.image_id.clone(),
                    state: record.state().into(),
                    created_at: record.created_at,
                    labels: record.config.labels.clone(),
                    annotations: record.config.annotations.clone(),
                    image_id: record.image_id.clone(),
                });
            }
        }
        Ok(ListContainersResponse { containers })
    }
}
