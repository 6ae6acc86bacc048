//! `linux.netDevices`: devices of the runtime's network namespace that become the container's (runtime-spec,
//! config-linux "Network Devices").

use corten_sys::process::Namespaces;
use oci_spec::runtime::Linux;

use super::{NamespacePlan, Problems};

/// The kernel's IFNAMSIZ, without the NUL.
const LONGEST: usize = 15;

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetDevice {
    /// Its name here.
    pub(crate) host: String,
    /// Its name in the container; `%d` in it is the first free number.
    pub(crate) name: String,
}

/// All of them, by their names here.
pub(super) fn plan(linux: &Linux, ns: &NamespacePlan, problems: &mut Problems) -> Vec<NetDevice> {
    let mut devices: Vec<NetDevice> = Vec::new();
    for (host, device) in linux.net_devices().iter().flatten() {
        let at = format!("linux.netDevices[{host:?}]");
        let name = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
        if let Some(why) = wrong(host, false) {
            problems.add(&at, format_args!("is no name of a network device: {why}"));
        }
        if let Some(why) = wrong(&name, true) {
            problems.add(&at, format_args!("{name:?} is no name of a network device: {why}"));
        }
        if devices.iter().any(|other| other.name == name && !name.contains('%')) {
            problems.add(&at, format_args!("a second device would be called {name:?}"));
        }
        devices.push(NetDevice { host: host.clone(), name });
    }
    if !devices.is_empty() && !ns.has(Namespaces::NET) {
        problems.add("linux.netDevices", "needs a network namespace to move them to");
    }
    devices.sort_by(|a, b| a.host.cmp(&b.host));
    devices
}

/// What the kernel would have against a name.
fn wrong(name: &str, pattern: bool) -> Option<&'static str> {
    let bytes = name.as_bytes();
    if name.is_empty() || name.len() > LONGEST {
        Some("it must have 1 to 15 bytes")
    } else if name == "." || name == ".." {
        Some("it is the name of a directory")
    } else if bytes.iter().any(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b':' | 0)) {
        Some("there may be no space, slash, colon or NUL in it")
    } else if name.contains('%') && !(pattern && name.matches('%').count() == 1 && name.contains("%d")) {
        Some("a % may only be in the new name, once, as %d")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::wrong;

    #[test]
    fn names() {
        for good in ["eth0", "eth%d", "a-very-long-one"] {
            assert_eq!(wrong(good, true), None, "{good}");
        }
        for bad in ["", "sixteen-bytes-ab", ".", "..", "a b", "a/b", "a:b", "%s", "%d%d", "100%"] {
            assert!(wrong(bad, true).is_some(), "{bad}");
        }
        assert!(wrong("eth%d", false).is_some());
    }
}
