//! RemoveImage: with all its names. Containers made from it go on.

use corten_cri_api::v1::{RemoveImageRequest, RemoveImageResponse};

use super::name;
use crate::Result;
use crate::server::{Inner, image_error};

impl Inner {
    /// Succeeds for what isn't there.
    pub(super) async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
        let name = name(request.image.as_ref())?;
        let removed = self.deps.images.remove(name).await;
        removed.map_err(image_error(format!("remove image {name}")))?;
        Ok(RemoveImageResponse {})
    }
}
