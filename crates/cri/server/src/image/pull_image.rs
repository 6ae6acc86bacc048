//! PullImage.

use corten_cri_api::v1::{AuthConfig, PullImageRequest, PullImageResponse};
use corten_image::{Auth, PullOptions};
use tonic::Code;

use super::name;
use crate::server::{Inner, image_error};
use crate::{Error, Result};

impl Inner {
    pub(super) async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse> {
        let name = name(request.image.as_ref())?;
        let auth = request.auth.as_ref().map(|auth| credentials(auth, name)).transpose()?.flatten();
        let image = self.pull(name, PullOptions { auth, progress: None }).await?;
        Ok(PullImageResponse { image_ref: image.id })
    }

    pub(super) async fn pull(&self, name: &str, options: PullOptions) -> Result<corten_image::Image> {
        let pulled = self.deps.images.pull(name, options).await;
        pulled.map_err(|error| {
            let error = image_error(format!("pull image {name}"))(error);
            if error.code() == Code::Unavailable {
                // The kubelet looks for this word to tell its user.
                tracing::debug!(image = name, "the registry can't be reached");
                return Error::Unavailable(format!("RegistryUnavailable: {}", error.chain()));
            }
            error
        })
    }
}

/// The credentials, if there are any and they are meant for the image's registry.
fn credentials(auth: &AuthConfig, image: &str) -> Result<Option<Auth>> {
    if !auth.server_address.is_empty() && !is_meant_for(&auth.server_address, image) {
        return Ok(None);
    }
    if !auth.username.is_empty() || !auth.password.is_empty() {
        return Ok(Some(Auth::basic(&auth.username, &auth.password)));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Auth::IdentityToken(auth.identity_token.clone())));
    }
    if !auth.registry_token.is_empty() {
        return Ok(Some(Auth::RegistryToken(auth.registry_token.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let decoded = Auth::from_base64(&auth.auth);
    decoded.map(Some).ok_or_else(|| Error::invalid("auth: not base64 of user:password"))
}

/// Whether the server is the image's registry. Servers are written as URLs or as hosts, Docker's in ways of its own.
fn is_meant_for(server: &str, image: &str) -> bool {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    let Ok(reference) = image.parse::<corten_image::Reference>() else { return false };
    let registry = reference.registry();
    let docker = ["docker.io", "index.docker.io", "registry-1.docker.io"];
    host == registry || (docker.contains(&host) && docker.contains(&registry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_registry_only() {
        let auth = |server: &str| AuthConfig {
            username: "ann".into(),
            password: "secret".into(),
            server_address: server.into(),
            ..Default::default()
        };
        let given = |server: &str, image: &str| credentials(&auth(server), image).expect("valid").is_some();
        assert!(given("", "registry.example/app"));
        assert!(given("https://registry.example/v2/", "registry.example/app"));
        assert!(given("https://index.docker.io/v1/", "busybox"));
        assert!(!given("other.example", "registry.example/app"));
        let broken = AuthConfig { auth: "%%%".into(), ..Default::default() };
        assert!(credentials(&broken, "busybox").is_err());
        assert!(credentials(&AuthConfig::default(), "busybox").expect("valid").is_none());
    }
}
