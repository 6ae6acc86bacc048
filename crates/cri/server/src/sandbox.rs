//! A sandbox in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use corten_cni::{Bandwidth, Dns, PodNetwork, PortMapping};
use corten_cri_api::v1::{NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, Protocol};
use corten_task::Shim;

use crate::config::Dirs;
use crate::entry::Entry;
use crate::records::SandboxRecord;
use crate::spec::{PodPins, mode};
use crate::{Error, Result};

/// A sandbox: its record, its shim, and who works on it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) entry: Entry<SandboxRecord>,
    shim: Mutex<Option<Shim>>,
    /// Held for reading by what works in the sandbox, for writing by what takes it away.
    pub(crate) work: tokio::sync::RwLock<()>,
}

/// What names a sandbox for clients: the same four mean the same sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SandboxKey {
    namespace: String,
    name: String,
    uid: String,
    attempt: u32,
}

impl SandboxKey {
    pub(crate) fn of(metadata: &PodSandboxMetadata) -> Self {
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            attempt: metadata.attempt,
        }
    }
}

impl Sandbox {
    pub(crate) fn new(id: &str, entry: Entry<SandboxRecord>) -> Self {
        Self { id: id.to_owned(), entry, shim: Mutex::default(), work: tokio::sync::RwLock::default() }
    }

    pub(crate) fn record(&self) -> Arc<SandboxRecord> {
        self.entry.get()
    }

    pub(crate) fn set_shim(&self, shim: Shim) {
        *self.shim.lock().unwrap_or_else(PoisonError::into_inner) = Some(shim);
    }

    /// Gives up the shim: from now on its end is expected.
    pub(crate) fn take_shim(&self) -> Option<Shim> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn shim_if_any(&self) -> Option<Shim> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The shim, for what can't be done without.
    pub(crate) fn shim(&self) -> Result<Shim> {
        self.shim_if_any()
            .ok_or_else(|| Error::Unavailable(format!("the shim of sandbox {} can't be reached", self.id)))
    }

    pub(crate) fn key(&self) -> SandboxKey {
        SandboxKey::of(&metadata(&self.record().config))
    }
}

pub(crate) fn metadata(config: &PodSandboxConfig) -> PodSandboxMetadata {
    config.metadata.clone().unwrap_or_default()
}

/// The pod's namespace options; all of them POD where the client says nothing, as the protocol's defaults are.
pub(crate) fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    let linux = config.linux.as_ref();
    let security = linux.and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

/// Which namespaces the pod has for itself.
pub(crate) fn kinds(config: &PodSandboxConfig) -> Result<corten_cni::Kinds> {
    let options = namespace_options(config);
    let own = |number, of| Ok::<_, Error>(mode(number, of)? != NamespaceMode::Node);
    let net = own(options.network, "network")?;
    // The host name belongs to the network: a pod on the host's network is the host to others.
    Ok(corten_cni::Kinds { net, ipc: own(options.ipc, "IPC")?, uts: net })
}

/// What the pod's host name is inside.
pub(crate) fn hostname(config: &PodSandboxConfig) -> String {
    if kinds(config).is_ok_and(|kinds| kinds.uts) && !config.hostname.is_empty() {
        return config.hostname.clone();
    }
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl SandboxRecord {
    /// Where the namespaces are pinned, for containers to join.
    pub(crate) fn pins(&self, dirs: &Dirs) -> Result<PodPins> {
        let kinds = kinds(&self.config)?;
        let dir = namespace_dir(dirs, &self.id);
        let pin = |has: bool, name: &str| has.then(|| dir.join(name));
        Ok(PodPins {
            net: pin(kinds.net, "net"),
            ipc: pin(kinds.ipc, "ipc"),
            uts: pin(kinds.uts, "uts"),
            pid: self.pid_namespace.clone(),
        })
    }

    /// What CNI is asked for.
    pub(crate) fn network(&self, dirs: &Dirs) -> Result<PodNetwork> {
        let config = &self.config;
        let metadata = metadata(config);
        let mappings: Result<Vec<PortMapping>> = config.port_mappings.iter().map(port_mapping).collect();
        Ok(PodNetwork {
            id: self.id.clone(),
            netns: namespace_dir(dirs, &self.id).join("net"),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            port_mappings: mappings?.into_iter().filter(|mapping| mapping.host_port != 0).collect(),
            bandwidth: bandwidth(config)?,
            dns: config.dns_config.as_ref().map(|dns| Dns {
                servers: dns.servers.clone(),
                searches: dns.searches.clone(),
                options: dns.options.clone(),
            }),
            ip_ranges: Vec::new(),
            cgroup_path: Some(self.cgroup_parent.clone()),
        })
    }
}

pub(crate) fn namespace_dir(dirs: &Dirs, id: &str) -> PathBuf {
    dirs.pod(id).join("ns")
}

fn port_mapping(mapping: &corten_cri_api::v1::PortMapping) -> Result<PortMapping> {
    let port = |number: i32| {
        u16::try_from(number).map_err(|_| Error::invalid(format!("port_mappings: {number} is no port")))
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        ip => Some(ip.parse().map_err(|_| Error::invalid(format!("port_mappings: {ip:?} is no address")))?),
    };
    let protocol = match mapping.protocol() {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    Ok(PortMapping {
        host_port: port(mapping.host_port)?,
        container_port: port(mapping.container_port)?,
        protocol: protocol.to_owned(),
        host_ip,
    })
}

/// The traffic limits that Kubernetes writes in annotations, in bits a second.
fn bandwidth(config: &PodSandboxConfig) -> Result<Option<Bandwidth>> {
    let rate = |direction: &str| {
        let key = format!("kubernetes.io/{direction}-bandwidth");
        let Some(text) = config.annotations.get(&key) else { return Ok(None) };
        quantity(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("annotation {key}: {text:?} is no quantity")))
    };
    let (ingress, egress) = (rate("ingress")?, rate("egress")?);
    Ok((ingress.is_some() || egress.is_some()).then(|| Bandwidth::average(ingress, egress)))
}

/// Kubernetes' notation for quantities, whole numbers with a suffix: `10M`, `1Gi`, `500k`.
fn quantity(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 9] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1000),
        ("K", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let suffix = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix));
    let (digits, factor) = suffix.map_or((text, 1), |(s, factor)| (&text[..text.len() - s.len()], *factor));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(quantity("10M"), Some(10_000_000));
        assert_eq!(quantity("1Gi"), Some(1 << 30));
        assert_eq!(quantity("42"), Some(42));
        assert_eq!(quantity("fast"), None);
        assert_eq!(quantity("99999999999T"), None);
    }

    #[test]
    fn a_pod_on_the_hosts_network_has_its_host_name() {
        let mut config = PodSandboxConfig { hostname: "mine".into(), ..Default::default() };
        assert_eq!(hostname(&config), "mine");
        let security = &mut config.linux.get_or_insert_default().security_context;
        let options = NamespaceOption { network: NamespaceMode::Node.into(), ..Default::default() };
        security.get_or_insert_default().namespace_options = Some(options);
        assert_ne!(hostname(&config), "mine");
        let kinds = kinds(&config).expect("valid");
        assert!(!kinds.net && !kinds.uts && kinds.ipc);
    }
}
