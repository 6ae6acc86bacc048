//! Which capabilities a container holds: the defaults, with what the request adds and drops.

use std::collections::BTreeSet;

use corten_cri_api::v1::LinuxContainerSecurityContext;
use corten_sys::capability::NAMES;
use serde_json::{Value, json};

use crate::{Error, Result};

/// What a container holds unless told otherwise.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What the container holds, and which of it survives becoming another user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) bounding: Vec<String>,
    ambient: Vec<String>,
}

impl Capabilities {
    /// As the request asks. `held` is what the daemon itself holds: "all" can't be more.
    pub(super) fn of(security: &LinuxContainerSecurityContext, held: &[String]) -> Result<Self> {
        if security.privileged {
            return Ok(Self { bounding: held.to_vec(), ambient: Vec::new() });
        }
        let asked = security.capabilities.clone().unwrap_or_default();
        let mut set: BTreeSet<String> = DEFAULT.map(str::to_owned).into();
        if asked.add_capabilities.iter().any(|name| is_all(name)) {
            set.extend(held.iter().cloned());
        }
        if asked.drop_capabilities.iter().any(|name| is_all(name)) {
            // "Drop all, add some" leaves those; "add all, drop all" leaves none.
            set.clear();
        }
        for name in asked.add_capabilities.iter().filter(|name| !is_all(name)) {
            set.insert(known(name)?);
        }
        for name in asked.drop_capabilities.iter().filter(|name| !is_all(name)) {
            set.remove(&known(name)?);
        }
        let mut ambient = BTreeSet::new();
        for name in &asked.add_ambient_capabilities {
            if is_all(name) {
                ambient.extend(held.iter().cloned());
            } else {
                ambient.insert(known(name)?);
            }
        }
        set.extend(ambient.iter().cloned());
        Ok(Self { bounding: set.into_iter().collect(), ambient: ambient.into_iter().collect() })
    }

    /// The process' sets. Inheritable stays empty but for what is ambient: a set-capability file in the image must
    /// not give a plain user what the container holds (CVE-2022-24769).
    pub(super) fn to_json(&self) -> Value {
        json!({
            "bounding": self.bounding, "effective": self.bounding, "permitted": self.bounding,
            "inheritable": self.ambient, "ambient": self.ambient,
        })
    }
}

/// What this process itself holds, by name.
pub(crate) fn held() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    NAMES.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, n)| (*n).to_owned()).collect()
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

fn known(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if NAMES.contains(&full.as_str()) {
        Ok(full)
    } else {
        Err(Error::invalid(format!("unknown capability {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use corten_cri_api::v1::Capability;

    use super::*;

    fn of(add: &[&str], drop: &[&str], ambient: &[&str]) -> Result<Capabilities> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = LinuxContainerSecurityContext {
            capabilities: Some(Capability {
                add_capabilities: own(add),
                drop_capabilities: own(drop),
                add_ambient_capabilities: own(ambient),
            }),
            ..Default::default()
        };
        Capabilities::of(&security, &["CAP_NET_ADMIN".to_owned(), "CAP_SYS_ADMIN".to_owned()])
    }

    #[test]
    fn defaults_with_and_without() {
        assert_eq!(of(&[], &[], &[]).expect("valid").bounding, DEFAULT);
        let caps = of(&["SYS_ADMIN"], &["cap_mknod"], &[]).expect("valid").bounding;
        assert!(caps.contains(&"CAP_SYS_ADMIN".into()) && !caps.contains(&"CAP_MKNOD".into()));
    }

    #[test]
    fn drop_all_leaves_what_is_added() {
        assert_eq!(
            of(&["NET_BIND_SERVICE"], &["ALL"], &[]).expect("valid").bounding,
            ["CAP_NET_BIND_SERVICE"]
        );
        assert!(of(&["all"], &["ALL"], &[]).expect("valid").bounding.is_empty());
    }

    #[test]
    fn all_is_what_the_daemon_holds() {
        let caps = of(&["ALL"], &[], &[]).expect("valid").bounding;
        assert!(caps.contains(&"CAP_SYS_ADMIN".into()) && !caps.contains(&"CAP_SYS_RESOURCE".into()));
    }

    #[test]
    fn ambient_ones_are_held_and_inherited() {
        let caps = of(&[], &["ALL"], &["net_raw"]).expect("valid").to_json();
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            assert_eq!(caps[set], json!(["CAP_NET_RAW"]), "{set}");
        }
        assert_eq!(of(&[], &[], &[]).expect("valid").to_json()["inheritable"], json!([]));
    }

    #[test]
    fn unknown_ones_are_named() {
        assert!(of(&["FLY"], &[], &[]).expect_err("unknown").to_string().contains("FLY"));
    }
}
