//! ImageStatus: that there is no such image is an answer, not an error.

use corten_cri_api::v1::{ImageStatusRequest, ImageStatusResponse};
use serde_json::json;

use super::{describe, name};
use crate::Result;
use crate::server::{Inner, image_error};

impl Inner {
    pub(super) async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
        let name = name(request.image.as_ref())?;
        let found = self.deps.images.get(name).await;
        let Some(image) = found.map_err(image_error(format!("look up image {name}")))? else {
            return Ok(ImageStatusResponse::default());
        };
        let mut info = std::collections::HashMap::new();
        if request.verbose {
            let all = json!({"chainID": image.chain_id, "imageSpec": image.config});
            info.insert("info".to_owned(), all.to_string());
        }
        Ok(ImageStatusResponse { image: Some(describe(&image)), info })
    }
}
