//! How registries are reached.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::Auth;

/// Configuration of all registries. `default()` speaks HTTPS to every host but loopback.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Settings by registry, as references name it: `docker.io`, `registry.example:5000`.
    pub registries: BTreeMap<String, Registry>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a registry may stay silent in the middle of an answer.
    pub read_timeout: Duration,
    /// How often a request is tried before a transient failure is final.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// The longest wait before the next attempt, also when `Retry-After` asks for more.
    pub max_backoff: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(60),
            attempts: 5,
            backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(30),
        }
    }
}

/// Settings of one registry.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// Where it is reached, if not at its own name: `host[:port]`, tried in order. The registry itself isn't tried unless listed.
    pub endpoints: Vec<String>,
    /// Plain HTTP instead of HTTPS. Loopback addresses need no such permission.
    pub plain_http: bool,
    /// Credentials for those who bring none themselves.
    pub auth: Option<Auth>,
}

impl RegistryConfig {
    /// Allows plain HTTP to `host[:port]`.
    #[must_use]
    pub fn plain_http(mut self, host: &str) -> Self {
        self.registries.entry(host.to_owned()).or_default().plain_http = true;
        self
    }

    /// The endpoints of a registry, in the order to try them.
    pub(crate) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let settings = self.registries.get(registry);
        let plain = settings.is_some_and(|r| r.plain_http);
        let listed = settings.map(|r| r.endpoints.as_slice()).unwrap_or_default();
        let endpoint = |host: &str| Endpoint {
            host: host.to_owned(),
            // An entry under the endpoint's own name counts too: a mirror may be plain while its registry isn't.
            plain_http: plain || is_loopback(host) || self.registries.get(host).is_some_and(|r| r.plain_http),
        };
        if listed.is_empty() {
            return vec![endpoint(api_host(registry))];
        }
        listed.iter().map(|host| endpoint(host)).collect()
    }

    /// Whose credentials are presented at an endpoint. Those for a registry go to the registry only: a mirror gets those
    /// configured under its own name.
    pub(crate) fn auth<'a>(
        &'a self,
        registry: &str,
        endpoint: &Endpoint,
        callers: Option<&'a Auth>,
    ) -> Option<&'a Auth> {
        let configured = |host: &str| self.registries.get(host).and_then(|r| r.auth.as_ref());
        if endpoint.host == registry || endpoint.host == api_host(registry) {
            callers.or_else(|| configured(registry))
        } else {
            configured(&endpoint.host)
        }
    }
}

/// Docker Hub's API has another name than the Hub.
fn api_host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// One place where a registry is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) plain_http: bool,
}

impl Endpoint {
    pub(crate) fn base(&self) -> String {
        format!("{}://{}", if self.plain_http { "http" } else { "https" }, self.host)
    }
}

/// Whether `host[:port]` is this machine, where plain HTTP reveals nothing.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_plain_and_others_are_not() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.3.2.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "example:5000", "10.0.0.1:5000", "128.0.0.1", "[fe80::1]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_mirror_never_gets_the_registrys_credentials() {
        let mut config = RegistryConfig::default();
        let mirror = Endpoint { host: "mirror:1".into(), plain_http: true };
        let own = Endpoint { host: "r.example".into(), plain_http: false };
        let (mine, theirs) = (Auth::basic("me", "x"), Auth::basic("mirror", "y"));
        assert_eq!(config.auth("r.example", &mirror, Some(&mine)), None);
        assert_eq!(config.auth("r.example", &own, Some(&mine)), Some(&mine));
        config.registries.entry("mirror:1".into()).or_default().auth = Some(theirs.clone());
        assert_eq!(config.auth("r.example", &mirror, Some(&mine)), Some(&theirs));
    }

    #[test]
    fn endpoints_default_to_the_registry() {
        let config = RegistryConfig::default().plain_http("plain:1");
        assert_eq!(config.endpoints("plain:1")[0].base(), "http://plain:1");
        assert_eq!(config.endpoints("docker.io")[0].base(), "https://registry-1.docker.io");
        let mirrored =
            Registry { endpoints: vec!["127.0.0.1:5".into(), "plain:1".into()], ..Registry::default() };
        let config =
            RegistryConfig { registries: BTreeMap::from([("x.example".to_owned(), mirrored)]), ..config };
        let bases: Vec<_> = config.endpoints("x.example").iter().map(Endpoint::base).collect();
        assert_eq!(bases, ["http://127.0.0.1:5", "https://plain:1"]);
    }
}
