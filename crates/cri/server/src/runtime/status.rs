//! Status: whether pods can be run here, and what they can ask for.

use corten_cri_api::v1::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest,
    StatusResponse,
};
use serde_json::json;

use crate::Result;
use crate::error::Error;
use crate::server::Inner;

/// The names under which a RuntimeClass can ask for us; the empty one is the default.
pub(super) const HANDLERS: [&str; 2] = ["", "corten"];

impl Inner {
    pub(super) async fn status(&self, request: StatusRequest) -> Result<StatusResponse> {
        let network = self.deps.cni.status().await.map_err(Error::internal("use the pod network"));
        let mut network_ready = condition("NetworkReady", true);
        if let Err(error) = &network {
            network_ready.status = false;
            network_ready.reason = "NetworkPluginNotReady".to_owned();
            network_ready.message = error.chain();
        }
        let handler = |name: &&str| RuntimeHandler {
            name: (*name).to_owned(),
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: true,
                user_namespaces: false,
            }),
        };
        let info = json!({
            "root": self.deps.dirs.root, "state": self.deps.dirs.state,
            "cgroupParent": self.deps.config.cgroup_parent,
            "sandboxes": self.sandboxes.all().len(), "containers": self.containers.all().len(),
        });
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![condition("RuntimeReady", true), network_ready] }),
            info: if request.verbose { Self::info(&info) } else { Default::default() },
            runtime_handlers: HANDLERS.iter().map(handler).collect(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
                mount_options: true,
            }),
        })
    }
}

fn condition(kind: &str, status: bool) -> RuntimeCondition {
    RuntimeCondition { r#type: kind.to_owned(), status, ..Default::default() }
}
