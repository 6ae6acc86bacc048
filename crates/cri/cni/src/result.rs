//! The result of ADD: what the pod got.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a pod got from its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniResult {
    /// The pod's addresses, as the plugins ordered them; the first is the pod's IP. Empty for a network without IPAM.
    pub ips: Vec<IpAddr>,
    /// All interfaces that the plugins made, on the host and in the pod.
    pub interfaces: Vec<Interface>,
    /// The last plugin's result as it came.
    pub raw: Value,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address; may be empty.
    #[serde(default)]
    pub mac: String,
    /// Path of the network namespace it is in; empty on the host.
    #[serde(default)]
    pub sandbox: String,
}

/// The parts of a result that we read, in all versions of the spec.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<WireIp>,
    // Before 0.3.0.
    ip4: Option<OldIp>,
    ip6: Option<OldIp>,
}

#[derive(Deserialize)]
struct WireIp {
    address: String,
    interface: Option<usize>,
}

#[derive(Deserialize)]
struct OldIp {
    ip: String,
}

/// Why a result isn't one.
#[derive(Debug)]
pub(crate) enum Invalid {
    Json(serde_json::Error),
    Address(String),
}

impl CniResult {
    /// Reads what the last plugin of a network printed.
    pub(crate) fn parse(raw: Value) -> Result<Self, Invalid> {
        let wire = Wire::deserialize(&raw).map_err(Invalid::Json)?;
        let on_host = |ip: &WireIp| {
            let interface = ip.interface.and_then(|index| wire.interfaces.get(index));
            interface.is_some_and(|interface| interface.sandbox.is_empty())
        };
        // An address of the bridge, say, isn't the pod's.
        let new = wire.ips.iter().filter(|ip| !on_host(ip)).map(|ip| ip.address.as_str());
        let old = wire.ip4.iter().chain(&wire.ip6).map(|ip| ip.ip.as_str());
        let ips = new.chain(old).map(address).collect::<Result<_, _>>()?;
        Ok(Self { ips, interfaces: wire.interfaces, raw })
    }
}

/// An address with or without its prefix length.
fn address(text: &str) -> Result<IpAddr, Invalid> {
    let (ip, _) = text.split_once('/').unwrap_or((text, ""));
    ip.parse().map_err(|_| Invalid::Address(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_the_pod_in_order() {
        let result = CniResult::parse(json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br0"}, {"name": "eth0", "mac": "0a:00", "sandbox": "/run/ns"}],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "fd00::5/64", "interface": 1},
                {"address": "10.0.0.5/24", "gateway": "10.0.0.1"},
            ],
        }))
        .expect("parse");
        assert_eq!(result.ips, ["fd00::5".parse::<IpAddr>().unwrap(), "10.0.0.5".parse().unwrap()]);
        assert_eq!(result.interfaces.len(), 2);
    }

    #[test]
    fn results_of_the_first_versions() {
        let result = CniResult::parse(json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.5/24"}}));
        assert_eq!(result.expect("parse").ips, ["10.0.0.5".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn no_address_is_fine_but_a_wrong_one_is_not() {
        assert!(CniResult::parse(json!({})).expect("parse").ips.is_empty());
        let wrong = CniResult::parse(json!({"ips": [{"address": "10.0.0.300/24"}]}));
        assert!(matches!(wrong, Err(Invalid::Address(a)) if a == "10.0.0.300/24"));
        assert!(matches!(CniResult::parse(json!({"ips": 3})), Err(Invalid::Json(_))));
    }
}
