//! Version.

use corten_cri_api::v1::{VersionRequest, VersionResponse};

use crate::Result;
use crate::server::Inner;

impl Inner {
    #[expect(clippy::unused_async, reason = "all RPCs are called alike")]
    pub(super) async fn version(&self, _: VersionRequest) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "corten".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }
}
