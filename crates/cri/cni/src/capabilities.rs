//! What a pod wants of its network, and how plugins are told: `CNI_ARGS` and `runtimeConfig`.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A pod's attachment to the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// The pod sandbox's id: CNI's container id.
    pub id: String,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// Kubernetes namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Ports of the host that lead into the pod; those with host port 0 are not mapped.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Traffic limits.
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    /// Resolver configuration, for plugins that program it.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// Where addresses shall come from; the outer list has one entry for each address.
    #[serde(default)]
    pub ip_ranges: Vec<Vec<IpRange>>,
    /// The pod's cgroup, for plugins that classify by it.
    #[serde(default)]
    pub cgroup_path: Option<String>,
}

/// A port of the host that leads into a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port on the host.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address on the host; all if none.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// Traffic limits in bits a second, bursts in bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Into the pod.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ingress_rate: u64,
    /// Into the pod, at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ingress_burst: u64,
    /// Out of the pod.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub egress_rate: u64,
    /// Out of the pod, at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub egress_burst: u64,
}

impl Bandwidth {
    /// The largest burst that the bandwidth plugin takes: a shaper that only limits the average.
    const BURST: u64 = i32::MAX as u64;

    /// Limits the average rates (bits a second), not the bursts; `None` is unlimited.
    #[must_use]
    pub fn average(ingress: Option<u64>, egress: Option<u64>) -> Self {
        Self {
            ingress_rate: ingress.unwrap_or(0),
            ingress_burst: ingress.map_or(0, |_| Self::BURST),
            egress_rate: egress.unwrap_or(0),
            egress_burst: egress.map_or(0, |_| Self::BURST),
        }
    }
}

/// What stands in a resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers.
    #[serde(default)]
    pub servers: Vec<String>,
    /// Search domains.
    #[serde(default)]
    pub searches: Vec<String>,
    /// Resolver options.
    #[serde(default)]
    pub options: Vec<String>,
}

/// Where an address comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpRange {
    /// In CIDR notation.
    pub subnet: String,
    /// First address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// Last address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl PodNetwork {
    /// The `CNI_ARGS` variable: who the pod is.
    pub(crate) fn args(&self) -> String {
        let mut args = String::from("IgnoreUnknown=1");
        let pairs = [
            ("K8S_POD_NAMESPACE", &self.namespace),
            ("K8S_POD_NAME", &self.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &self.id),
            ("K8S_POD_UID", &self.uid),
        ];
        for (key, value) in pairs {
            // The format has no way to quote its separators.
            if !value.contains([';', '=']) {
                args.push_str(&format!(";{key}={value}"));
            }
        }
        args
    }

    /// `runtimeConfig` for a plugin: only the capabilities that the plugin declares, and only what the pod wants.
    /// None if that leaves nothing.
    pub(crate) fn runtime_config(&self, declared: &Map<String, Value>) -> Option<Value> {
        let mapped: Vec<&PortMapping> = self.port_mappings.iter().filter(|m| m.host_port != 0).collect();
        let wanted = [
            ("portMappings", (!mapped.is_empty()).then(|| json!(mapped))),
            ("bandwidth", self.bandwidth.map(|b| json!(b))),
            ("dns", self.dns.as_ref().map(|d| json!(d))),
            ("ipRanges", (!self.ip_ranges.is_empty()).then(|| json!(self.ip_ranges))),
            ("cgroupPath", self.cgroup_path.as_ref().map(|p| json!(p))),
        ];
        let config: Map<String, Value> = wanted
            .into_iter()
            .filter(|(name, _)| declared.get(*name).and_then(Value::as_bool) == Some(true))
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        (!config.is_empty()).then_some(Value::Object(config))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodNetwork {
        PodNetwork {
            id: "p1".into(),
            namespace: "default".into(),
            name: "web".into(),
            uid: "u1".into(),
            port_mappings: vec![
                PortMapping { host_port: 8080, container_port: 80, protocol: "tcp".into(), host_ip: None },
                PortMapping { host_port: 0, container_port: 81, protocol: "tcp".into(), host_ip: None },
            ],
            bandwidth: Some(Bandwidth::average(Some(1_000_000), None)),
            ..PodNetwork::default()
        }
    }

    fn declared(json: Value) -> Map<String, Value> {
        json.as_object().expect("object").clone()
    }

    #[test]
    fn only_declared_capabilities_are_filled_in() {
        let config = pod().runtime_config(&declared(json!({"portMappings": true, "dns": true})));
        let expected = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        assert_eq!(config, Some(expected));
        assert_eq!(pod().runtime_config(&declared(json!({"portMappings": false}))), None);
        assert_eq!(pod().runtime_config(&Map::new()), None);
    }

    #[test]
    fn unlimited_directions_are_left_out() {
        let config = pod().runtime_config(&declared(json!({"bandwidth": true})));
        let expected = json!({"bandwidth": {"ingressRate": 1_000_000, "ingressBurst": i32::MAX}});
        assert_eq!(config, Some(expected));
    }

    #[test]
    fn args_name_the_pod() {
        let expected = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;\
                        K8S_POD_INFRA_CONTAINER_ID=p1;K8S_POD_UID=u1";
        assert_eq!(pod().args(), expected);
        let odd = PodNetwork { name: "a;b".into(), ..pod() };
        assert!(!odd.args().contains("K8S_POD_NAME="), "{}", odd.args());
    }
}
