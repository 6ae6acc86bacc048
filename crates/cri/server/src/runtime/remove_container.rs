//! RemoveContainer: takes away all of a container, running or not. Its logs stay.

use std::sync::Arc;

use corten_cri_api::v1::{RemoveContainerRequest, RemoveContainerResponse};

use crate::Result;
use crate::server::Inner;

impl Inner {
    /// Succeeds for what isn't there.
    pub(super) async fn remove_container(
        self: Arc<Self>,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse> {
        if let Some(container) = self.containers.get(&request.container_id) {
            let sandbox = self.sandbox_of(&container)?;
            let _pod = sandbox.work.read().await;
            if self.containers.get(&container.id).is_some() {
                self.take_away_container(&container).await?;
            }
        }
        Ok(RemoveContainerResponse {})
    }
}
