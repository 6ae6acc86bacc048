//! ReopenContainerLog: the kubelet has renamed the log, the shim shall go on with a new one.

use std::sync::Arc;

use corten_cri_api::v1::{ReopenContainerLogRequest, ReopenContainerLogResponse};

use crate::records::ContainerPhase;
use crate::server::{Inner, shim_error};
use crate::{Error, Result};

impl Inner {
    /// After an error the old file is still in use, and the kubelet renames it back.
    pub(super) async fn reopen_container_log(
        self: Arc<Self>,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse> {
        let container = self.container(&request.container_id)?;
        if !matches!(container.record().phase, ContainerPhase::Running { .. }) {
            return Err(Error::Precondition(format!("container {} doesn't run", container.id)));
        }
        let shim = self.sandbox_of(&container)?.shim()?;
        let reopened = shim.reopen_log(&container.id).await;
        reopened.map_err(shim_error(format!("reopen the log of container {}", container.id)))?;
        Ok(ReopenContainerLogResponse {})
    }
}
