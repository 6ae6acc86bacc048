//! ImageService: one file per RPC; and the pull with progress that our own client asks for.

mod image_fs_info;
mod image_status;
mod list_images;
mod pull_image;
mod pull_progress;
mod remove_image;

use corten_cri_api::v1;
use corten_cri_api::v1::image_service_server::ImageService;
use corten_image::{ErrorKind, Image};
use tonic::{Code, Request, Response, Status};

use crate::server::Server;
use crate::{Error, Result};

#[tonic::async_trait]
impl ImageService for Server {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        answer(self.0.list_images(request.into_inner()).await)
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        answer(self.0.image_status(request.into_inner()).await)
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        // Not a task of its own: a client that goes away ends the pull. What has come is kept for the next one.
        answer(self.0.pull_image(request.into_inner()).await)
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        answer(self.0.remove_image(request.into_inner()).await)
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        answer(self.0.image_fs_info().await)
    }
}

fn answer<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Status::from)
}

/// The name in an image spec.
fn name(spec: Option<&v1::ImageSpec>) -> Result<&str> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(&spec.image),
        _ => Err(Error::invalid("the request names no image")),
    }
}

/// The image as CRI describes it.
fn describe(image: &Image) -> v1::Image {
    let config = image.config.config().as_ref();
    let user = config.and_then(|config| config.user().clone()).unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default();
    let uid = match user {
        "" => Some(0),
        user => user.parse::<u32>().ok(),
    };
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: uid.map(|uid| v1::Int64Value { value: uid.into() }),
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: Some(v1::ImageSpec { image: image.id.clone(), ..Default::default() }),
        pinned: image.pinned,
    }
}

/// How an image error counts for the client.
pub(crate) fn code(error: &corten_image::Error) -> Code {
    match error.kind() {
        ErrorKind::InvalidName => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Unauthorized => Code::Unauthenticated,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DiskFull => Code::ResourceExhausted,
        ErrorKind::BadImage => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}
