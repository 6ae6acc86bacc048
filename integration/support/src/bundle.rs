//! Bundles: config.json as Kubernetes and Docker write it, with knobs, and a rootfs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::rootfs::{busybox_rootfs, workload_rootfs};
use crate::scope::Scope;

/// The capabilities that a container has by default.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A bundle in the making. Nothing is on disk before [`Bundle::write`].
///
/// The defaults are those of a Kubernetes container: six new namespaces, the usual mounts, the default capabilities,
/// masks, device rules and seccomp profile, no_new_privs, modest limits. [`Bundle::edit`] changes anything.
#[derive(Debug, Clone)]
pub struct Bundle {
    id: String,
    dir: PathBuf,
    busybox: bool,
    config: Value,
}

impl Bundle {
    /// A bundle called `name` whose rootfs has only the workload, which runs with `args`.
    #[must_use]
    pub fn workload(scope: &Scope, name: &str, args: &[&str]) -> Self {
        let all: Vec<_> = std::iter::once("/bin/workload").chain(args.iter().copied()).collect();
        Self::new(scope, name, &all, false)
    }

    /// A bundle called `name` whose rootfs has busybox and the workload.
    #[must_use]
    pub fn busybox(scope: &Scope, name: &str, args: &[&str]) -> Self {
        Self::new(scope, name, args, true)
    }

    /// A bundle called `name` with busybox that runs a shell script.
    #[must_use]
    pub fn sh(scope: &Scope, name: &str, script: &str) -> Self {
        Self::busybox(scope, name, &["/bin/sh", "-c", script])
    }

    fn new(scope: &Scope, name: &str, args: &[&str], busybox: bool) -> Self {
        Self {
            id: scope.id(name),
            dir: scope.path(&format!("bundle-{name}")),
            busybox,
            config: kubernetes_config(args, &scope.cgroup(name)),
        }
    }

    /// The container id that goes with the bundle.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The bundle's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root filesystem's directory.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// `linux.cgroupsPath` as it is now.
    #[must_use]
    pub fn cgroups_path(&self) -> &str {
        self.config["linux"]["cgroupsPath"].as_str().unwrap_or_default()
    }

    /// Changes config.json in any way.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets the value at a JSON pointer (`/process/cwd`), making objects on the way.
    #[must_use]
    pub fn set(self, pointer: &str, value: Value) -> Self {
        self.edit(|config| {
            let mut at = config;
            for key in pointer.split('/').skip(1) {
                at = match key.parse::<usize>() {
                    Ok(index) if at.is_array() => &mut at[index],
                    _ => &mut at[key],
                };
            }
            *at = value;
        })
    }

    /// Takes the value at a JSON pointer out of its object.
    #[must_use]
    pub fn without(self, pointer: &str) -> Self {
        self.edit(|config| {
            let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
            if let Some(object) = config.pointer_mut(parent).and_then(Value::as_object_mut) {
                object.remove(key);
            }
        })
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.push("/process/env", json!(format!("{name}={value}")))
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(self, kind: &str, source: &str, destination: &str, options: &[&str]) -> Self {
        let mount = json!({"type": kind, "source": source, "destination": destination, "options": options});
        self.push("/mounts", mount)
    }

    /// Adds a value to the array at a JSON pointer; makes the array if there is none.
    #[must_use]
    pub fn push(self, pointer: &str, value: Value) -> Self {
        let mut array = self.config.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        array.push(value);
        self.set(pointer, Value::Array(array))
    }

    /// Gives the container a terminal.
    #[must_use]
    pub fn terminal(self) -> Self {
        self.set("/process/terminal", json!(true))
    }

    /// Joins the namespace at `path` instead of making a new one, or shares the host's when `path` is `None`.
    #[must_use]
    pub fn namespace(self, kind: &str, path: Option<&Path>) -> Self {
        self.edit(|config| {
            if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
                list.retain(|n| n["type"] != kind);
                list.extend(path.map(|p| json!({"type": kind, "path": p})));
            }
        })
    }

    /// The configuration as it is now.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Writes config.json, and the rootfs if it isn't there yet.
    ///
    /// # Errors
    /// When something can't be written.
    pub fn write(self) -> Result<Self> {
        if !self.rootfs().exists() {
            if self.busybox { busybox_rootfs(&self.rootfs()) } else { workload_rootfs(&self.rootfs()) }
                .context("make the rootfs")?;
        }
        self.write_config_only()
    }

    /// Writes config.json alone: for bundles that must fail for want of a rootfs.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_config_only(self) -> Result<Self> {
        fs::create_dir_all(&self.dir).context("make the bundle's directory")?;
        let text = serde_json::to_vec_pretty(&self.config)?;
        fs::write(self.dir.join("config.json"), text).context("write config.json")?;
        Ok(self)
    }
}

const NAMESPACES: [&str; 6] = ["pid", "ipc", "uts", "mount", "network", "cgroup"];

fn kubernetes_config(args: &[&str], cgroups_path: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": {
                "bounding": DEFAULT_CAPABILITIES,
                "effective": DEFAULT_CAPABILITIES,
                "permitted": DEFAULT_CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "lab",
        "mounts": mounts(),
        "linux": {
            "resources": {
                "devices": device_rules(),
                "memory": {"limit": 268_435_456, "swap": 268_435_456},
                "cpu": {"shares": 512, "quota": 100_000, "period": 100_000},
                "pids": {"limit": 1024},
            },
            "cgroupsPath": cgroups_path,
            "namespaces": NAMESPACES.map(|t| json!({"type": t})).as_slice(),
            "seccomp": crate::default_seccomp_profile(),
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    json!([
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ])
}

fn device_rules() -> Value {
    let allow = |major: i64, minor: Option<i64>| {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        rule
    };
    json!([
        {"allow": false, "access": "rwm"},
        allow(1, Some(3)),
        allow(1, Some(5)),
        allow(1, Some(7)),
        allow(1, Some(8)),
        allow(1, Some(9)),
        allow(5, Some(0)),
        allow(5, Some(1)),
        allow(5, Some(2)),
        allow(136, None),
    ])
}
