//! The client and its view of one repository.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header;

use crate::config::Endpoint;
use crate::descriptor::media_type;
use crate::manifest::{ACCEPT, MAX_MANIFEST_BYTES, Manifest};
use crate::retry::{Attempts, Failure};
use crate::tls::Clients;
use crate::transport::{Call, Session};
use crate::{Auth, Blob, Descriptor, Digest, Error, Reference, RegistryConfig, Result};

/// Connections to registries, and how they are reached. Clones share both.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: RegistryConfig,
    pub(crate) clients: Clients,
}

impl Client {
    /// A client. Nothing is connected until it's needed.
    #[must_use]
    pub fn new(config: RegistryConfig) -> Client {
        Client { inner: Arc::new(Inner { config, clients: Clients::default() }) }
    }

    /// The repository that a reference names. Without `auth` the configured credentials count, or none.
    #[must_use]
    pub fn repository(&self, reference: &Reference, auth: Option<Auth>) -> Repository {
        let registry = reference.registry();
        let config = &self.inner.config;
        let session = |endpoint: Endpoint| {
            let auth = config.auth(registry, &endpoint, auth.as_ref()).cloned();
            Session::new(self.inner.clone(), endpoint, reference.repository(), auth)
        };
        let sessions: Vec<_> = config.endpoints(registry).into_iter().map(session).collect();
        Repository { name: reference.name(), sessions: sessions.into() }
    }
}

/// One repository, as one caller may see it. Clones share what was learnt about authentication.
#[derive(Debug, Clone)]
pub struct Repository {
    name: String,
    /// One for each endpoint, in the order to try them; never empty.
    sessions: Arc<[Session]>,
}

impl Repository {
    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks what a tag or digest stands for.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown repository, tag or digest; [`Error::Schema1`]; whatever else goes wrong with the registry.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        let target = reference.target();
        let mut last = None;
        for session in self.sessions.iter() {
            match self.resolve_at(session, &target, reference.digest()).await {
                Ok(descriptor) if media_type::is_schema1(&descriptor.media_type) => {
                    return Err(Error::Schema1(reference.to_string()));
                }
                Ok(descriptor) => return Ok(descriptor),
                Err(error) => self.note_failover(session, last.insert(error)),
            }
        }
        Err(last.unwrap_or_else(|| self.no_endpoint()))
    }

    /// By HEAD, which is cheap and isn't counted against pull limits; by GET where a registry doesn't answer it in full.
    async fn resolve_at(
        &self,
        session: &Session,
        target: &str,
        expected: Option<&Digest>,
    ) -> Result<Descriptor> {
        let call = self.manifest_call(Method::HEAD, target);
        let headers = match session.exchange(&call).await {
            Ok(response) => response.headers().clone(),
            Err(Error::Status { status: 400 | 405 | 501, .. }) => header::HeaderMap::new(),
            Err(error) => return Err(error),
        };
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let digest = text("docker-content-digest").and_then(|d| d.parse::<Digest>().ok());
        let size = text("content-length").and_then(|l| l.parse::<u64>().ok()).filter(|size| *size > 0);
        let kind = text("content-type").map(|kind| kind.split(';').next().unwrap_or(kind).trim());
        let known = kind
            .filter(|k| media_type::is_index(k) || media_type::is_manifest(k) || media_type::is_schema1(k));
        if let (Some(digest), Some(size), Some(kind)) = (digest, size, known) {
            if let Some(expected) = expected.filter(|expected| **expected != digest) {
                return Err(session.digest_mismatch(&call.what, expected, digest));
            }
            return Ok(Descriptor { media_type: kind.to_owned(), digest, size });
        }
        let manifest = self.manifest_at(session, target, expected).await?;
        Ok(manifest.descriptor)
    }

    /// Fetches a manifest or an index, and verifies its digest and size.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] or [`Error::SizeMismatch`] if the registry serves something else, [`Error::TooLarge`], and all others.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let mut last = None;
        for session in self.sessions.iter() {
            let target = descriptor.digest.to_string();
            match self.manifest_at(session, &target, Some(&descriptor.digest)).await {
                Ok(manifest) if manifest.descriptor.size != descriptor.size => {
                    return Err(Error::SizeMismatch {
                        what: format!("manifest {target} of {}", self.name),
                        host: session.host().to_owned(),
                        expected: descriptor.size,
                        actual: manifest.descriptor.size,
                    });
                }
                Ok(manifest) => return Ok(manifest),
                Err(error) => self.note_failover(session, last.insert(error)),
            }
        }
        Err(last.unwrap_or_else(|| self.no_endpoint()))
    }

    async fn manifest_at(
        &self,
        session: &Session,
        target: &str,
        expected: Option<&Digest>,
    ) -> Result<Manifest> {
        let call = self.manifest_call(Method::GET, target);
        let mut attempts = Attempts::new(session.config());
        let (kind, bytes) = loop {
            let attempt = async {
                let response = session.attempt(&call).await?;
                let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
                let kind = kind.unwrap_or_default().to_owned();
                let bytes = session.body(&call, response, MAX_MANIFEST_BYTES).await?;
                Ok::<_, Failure>((kind, bytes))
            };
            match attempt.await {
                Ok(received) => break received,
                Err(failure) => attempts.after(failure).await?,
            }
        };
        let manifest = Manifest::new(&kind, bytes, expected.map(Digest::algorithm));
        match expected.filter(|expected| **expected != manifest.descriptor.digest) {
            Some(expected) => {
                Err(session.digest_mismatch(&call.what, expected, manifest.descriptor.digest.clone()))
            }
            None => Ok(manifest),
        }
    }

    /// Opens a blob for reading from `offset`. The bytes aren't verified; interruptions are mended on the way.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::SizeMismatch`] if the registry announces another size, and all others.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob> {
        let mut last = None;
        for session in self.sessions.iter() {
            match Blob::open(session.clone(), &self.name, descriptor, offset).await {
                Ok(blob) => return Ok(blob),
                Err(error) => self.note_failover(session, last.insert(error)),
            }
        }
        Err(last.unwrap_or_else(|| self.no_endpoint()))
    }

    /// Pushes go to the last endpoint: mirrors come before it.
    pub(crate) fn origin(&self) -> Result<&Session> {
        self.sessions.last().ok_or_else(|| self.no_endpoint())
    }

    fn manifest_call(&self, method: Method, target: &str) -> Call {
        let separator = if target.contains(':') { '@' } else { ':' };
        let what = format!("manifest {}{separator}{target}", self.name);
        Call::new(method, format!("manifests/{target}"), what).header(header::ACCEPT, ACCEPT)
    }

    fn note_failover(&self, session: &Session, error: &Error) {
        if self.sessions.len() > 1 {
            let error = error as &dyn std::error::Error;
            tracing::warn!(host = session.host(), repository = self.name, error, "an endpoint failed");
        }
    }

    fn no_endpoint(&self) -> Error {
        Error::Setup(format!("no endpoint is configured for {}", self.name).into())
    }
}
