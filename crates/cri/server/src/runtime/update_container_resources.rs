//! UpdateContainerResources: new limits for a container that runs or is about to.

use std::path::Path;
use std::sync::Arc;

use corten_cri_api::v1::{
    LinuxContainerResources, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse,
};
use serde_json::Value;

use crate::records::ContainerPhase;
use crate::server::{Inner, shim_error};
use crate::{Error, Result, spec};

impl Inner {
    /// On failure the old limits hold, in the kernel and in the container's status.
    pub(super) async fn update_container_resources(
        self: Arc<Self>,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse> {
        let Some(update) = request.linux else {
            return Ok(UpdateContainerResourcesResponse {});
        };
        let container = self.container(&request.container_id)?;
        let _work = container.work.lock().await;
        let record = container.record();
        let after = spec::effective_resources(&record.resources, &update);
        match record.phase {
            ContainerPhase::Running { .. } => {
                let shim = self.sandbox_of(&container)?.shim()?;
                let resources = spec::resources_to_oci(&after).to_string().into_bytes();
                let updated = shim.update(&container.id, resources).await;
                updated.map_err(shim_error(format!("change the limits of container {}", container.id)))?;
            }
            ContainerPhase::Created => {
                let path = self.deps.dirs.bundle(&container.id).join("config.json");
                let after = after.clone();
                crate::blocking(move || rewrite(&path, &after)).await??;
            }
            _ => {
                let state = record.state().as_str_name();
                return Err(Error::Precondition(format!("container {} is in state {state}", container.id)));
            }
        }
        container.entry.update(|record| record.resources = after).await?;
        Ok(UpdateContainerResourcesResponse {})
    }
}

/// Puts the limits into the bundle of a container that hasn't started.
fn rewrite(path: &Path, resources: &LinuxContainerResources) -> Result<()> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let broken = |error| Error::io("read", path)(std::io::Error::other(error));
    let mut config: Value =
        serde_json::from_slice(&text).map_err(|error: serde_json::Error| broken(error))?;
    let mut new = spec::resources_to_oci(resources);
    new["devices"] = config["linux"]["resources"]["devices"].take();
    config["linux"]["resources"] = new;
    corten_state::write_atomic(path, config.to_string(), corten_state::Durability::Volatile)
        .map_err(Error::internal(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_bundle_keeps_its_device_rules() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.json");
        let before = serde_json::json!({"linux": {"resources": {"cpu": {"shares": 2}, "devices": [{"allow": false}]}}});
        std::fs::write(&path, before.to_string()).expect("writable");
        rewrite(&path, &LinuxContainerResources { memory_limit_in_bytes: 7, ..Default::default() })
            .expect("rewritten");
        let after: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
        let wanted = serde_json::json!({"memory": {"limit": 7}, "devices": [{"allow": false}]});
        assert_eq!(after["linux"]["resources"], wanted);
    }
}
