//! RuntimeConfig and UpdateRuntimeConfig: what the kubelet must know of us, and what it tells us.

use corten_cri_api::v1::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigRequest, RuntimeConfigResponse,
    UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse,
};

use crate::Result;
use crate::server::Inner;

impl Inner {
    #[expect(clippy::unused_async, reason = "all RPCs are called alike")]
    pub(super) async fn runtime_config(&self, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    /// The pod CIDR is the network plugins' business: they are configured by whoever installs them.
    #[expect(clippy::unused_async, reason = "all RPCs are called alike")]
    pub(super) async fn update_runtime_config(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
            tracing::info!(pod_cidr = network.pod_cidr, "the kubelet knows the node's pod CIDR");
        }
        Ok(UpdateRuntimeConfigResponse {})
    }
}
