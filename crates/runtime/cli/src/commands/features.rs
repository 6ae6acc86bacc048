//! `features`: what this runtime supports, on any kernel (runtime-spec, "Features").

use anyhow::Result;
use serde_json::{Value, json};

/// The newest runtime-spec version that is understood.
pub(crate) const OCI_VERSION_MAX: &str = "1.3.0";

const MOUNT_OPTIONS: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
    rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow \
    ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave \
    strictatime suid symfollow sync unbindable";

pub(crate) fn run() -> Result<()> {
    super::print(&serde_json::to_string_pretty(&document())?)
}

fn document() -> Value {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION_MAX,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": words(MOUNT_OPTIONS),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": words("SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD \
                    SCMP_ACT_LOG SCMP_ACT_TRACE SCMP_ACT_TRAP"),
                "operators": words("SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_LE SCMP_CMP_LT SCMP_CMP_MASKED_EQ SCMP_CMP_NE"),
                "archs": words("SCMP_ARCH_X86 SCMP_ARCH_X86_64 SCMP_ARCH_X32"),
                "knownFlags": words("SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_TSYNC"),
                "supportedFlags": words("SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_TSYNC"),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
            "netDevices": { "enabled": false },
        },
        "annotations": { "org.corten.version": env!("CARGO_PKG_VERSION") },
    })
}

fn capabilities() -> Vec<String> {
    corten_sys::capability::names()
}

#[cfg(test)]
mod tests {
    use super::document;

    #[test]
    fn what_containerd_looks_for_is_there() {
        let document = document();
        let options = document["mountOptions"].as_array().expect("a list");
        assert!(options.iter().any(|option| option == "rro"));
        assert!(options.iter().all(|option| option.as_str().is_some_and(|o| !o.is_empty())));
        let capabilities = document["linux"]["capabilities"].as_array().expect("a list");
        assert!(capabilities.iter().any(|name| name == "CAP_SYS_ADMIN"), "{capabilities:?}");
    }
}
