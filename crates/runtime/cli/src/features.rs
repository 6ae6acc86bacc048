//! The `features` document (runtime-spec, "Features Structure"): what this runtime really does, whatever the host.
//!
//! Callers decide by it: containerd offers recursive read-only mounts if it finds "rro", user namespaces if it
//! finds "user" and idmap. So nothing may be listed here that the container crate refuses.

use serde_json::{Value, json};

use crate::commands::SPEC;

/// Mount options that mean something to us; others go to the filesystem.
const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// Architectures that a profile may name. Of those that this machine can't run, no program gets as far as a system call.
const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// The whole document.
#[inline(never)]
pub(crate) fn document() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": corten_sys::capability::NAMES.as_slice(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": seccomp(),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true}
        },
        "annotations": {"dev.corten.version": env!("CARGO_PKG_VERSION")},
        // A trailing dot: all that begin so.
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property.", "run.oci."]
    })
}

fn seccomp() -> Value {
    let flags = [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE"
        ],
        "archs": ARCHITECTURES,
        "knownFlags": flags,
        "supportedFlags": flags
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_look_at() {
        let document: oci_spec::runtime::Features =
            serde_json::from_value(document()).expect("a features document");
        let options = document.mount_options().as_ref().expect("options");
        assert!(options.iter().any(|option| option == "rro"));
        assert!(options.is_sorted());
        let linux = document.linux().as_ref().expect("linux");
        assert!(linux.namespaces().as_ref().is_some_and(|all| all.len() == 8));
        // Callers that don't trust a config's author take these out of it.
        let unsafe_ones = document.potentially_unsafe_config_annotations().as_ref().expect("annotations");
        assert_eq!(unsafe_ones, &["org.criu.config", "org.systemd.property.", "run.oci."]);
    }

    #[test]
    fn what_is_listed_can_be_said_in_a_config() {
        use oci_spec::runtime::{Arch, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};
        for name in ARCHITECTURES {
            serde_json::from_value::<Arch>(json!(name)).expect(name);
        }
        let seccomp = seccomp();
        let list = |name: &str| seccomp[name].clone();
        serde_json::from_value::<Vec<LinuxSeccompAction>>(list("actions")).expect("actions");
        serde_json::from_value::<Vec<LinuxSeccompOperator>>(list("operators")).expect("operators");
        serde_json::from_value::<Vec<LinuxSeccompFilterFlag>>(list("supportedFlags")).expect("flags");
    }

    /// Keys of runtime-spec's features structure; null would mean that we don't know.
    #[test]
    fn nothing_is_left_out() {
        let document = document();
        for pointer in [
            "/ociVersionMin",
            "/ociVersionMax",
            "/hooks",
            "/mountOptions",
            "/annotations",
            "/potentiallyUnsafeConfigAnnotations",
            "/linux/namespaces",
            "/linux/capabilities",
            "/linux/cgroup/v1",
            "/linux/cgroup/v2",
            "/linux/cgroup/systemd",
            "/linux/cgroup/systemdUser",
            "/linux/cgroup/rdma",
            "/linux/seccomp/enabled",
            "/linux/seccomp/actions",
            "/linux/seccomp/operators",
            "/linux/seccomp/archs",
            "/linux/seccomp/knownFlags",
            "/linux/seccomp/supportedFlags",
            "/linux/apparmor/enabled",
            "/linux/selinux/enabled",
            "/linux/intelRdt/enabled",
            "/linux/intelRdt/schemata",
            "/linux/intelRdt/monitoring",
            "/linux/memoryPolicy/modes",
            "/linux/memoryPolicy/flags",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/netDevices/enabled",
        ] {
            assert!(document.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}");
        }
    }
}
