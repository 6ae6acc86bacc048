//! ListImages.

use corten_cri_api::v1::{ListImagesRequest, ListImagesResponse};

use super::describe;
use crate::Result;
use crate::server::{Inner, image_error};

impl Inner {
    pub(super) async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse> {
        let wanted = request.filter.and_then(|filter| filter.image).map(|image| image.image);
        let images = match wanted.filter(|name| !name.is_empty()) {
            Some(name) => self.deps.images.get(&name).await.map(|image| image.into_iter().collect()),
            None => self.deps.images.list().await,
        };
        let images: Vec<_> = images.map_err(image_error("list the images"))?;
        Ok(ListImagesResponse { images: images.iter().map(describe).collect() })
    }
}
