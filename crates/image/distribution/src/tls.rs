//! HTTP clients: TLS with the system's certificate authorities, proxies from the environment.

use std::sync::Arc;
use std::sync::OnceLock;

use reqwest::ClientBuilder;
use reqwest::redirect::Policy;

use crate::config::is_loopback;
use crate::{Error, RegistryConfig, Result};

/// The two clients that are needed, built when they are: reading the certificate authorities takes a while.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    proxied: OnceLock<reqwest::Client>,
    direct: OnceLock<reqwest::Client>,
}

impl Clients {
    /// The client for a host. Loopback is never behind a proxy.
    pub(crate) fn of(&self, host: &str, config: &RegistryConfig) -> Result<&reqwest::Client> {
        let (cell, direct) = if is_loopback(host) { (&self.direct, true) } else { (&self.proxied, false) };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = build(config, direct)?;
        Ok(cell.get_or_init(|| client))
    }
}

fn build(config: &RegistryConfig, direct: bool) -> Result<reqwest::Client> {
    let setup = |e: reqwest::Error| Error::Setup(Box::new(e));
    let mut builder: ClientBuilder = reqwest::Client::builder()
        .user_agent(concat!("corten/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        // On its way to another host, scheme or port, reqwest takes Authorization off.
        .redirect(Policy::limited(10))
        .referer(false)
        .tls_backend_preconfigured(tls()?);
    if direct {
        builder = builder.no_proxy();
    }
    builder.build().map_err(setup)
}

/// The provider is given explicitly: a process-wide default would be global state in somebody else's program.
fn tls() -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate authority of the system can't be read");
    }
    // A machine without any may still use plain HTTP; HTTPS then fails with an unknown issuer.
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Setup(Box::new(e)))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
