//! `spec`: a config.json to begin with.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt};

use anyhow::{Context as _, Result, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde_json::{Value, json};

use super::SPEC;
use crate::args::Spec;

#[inline(never)]
pub(crate) fn spec(args: &Spec) -> Result<()> {
    let path = args.bundle.join("config.json");
    let mut document = document();
    // As runc's: on v1 the program sees where it is, and what is mounted there fits.
    let unified = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if unified && let Some(namespaces) = document["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "cgroup"}));
    }
    if args.unprivileged {
        without_root(&mut document, nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
    match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", path.display())
        }
        other => {
            let text = serde_json::to_string_pretty(&document)? + "\n";
            let written = other.and_then(|mut file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))
        }
    }
}

/// A shell in a container with few privileges.
fn document() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": SPEC,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "corten",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
                "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let plain = ["nosuid", "noexec", "nodev"];
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", "shm", &[&plain[..], &["mode=1777", "size=65536k"]].concat()),
        mount("/dev/mqueue", "mqueue", "mqueue", &plain),
        mount("/sys", "sysfs", "sysfs", &[&plain[..], &["ro"]].concat()),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[&plain[..], &["relatime", "ro"]].concat()),
    ])
}

/// A user namespace of the caller's, and nothing that only root can do.
fn without_root(document: &mut Value, uid: u32, gid: u32) {
    let linux = &mut document["linux"];
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(mounts) = document["mounts"].as_array_mut() {
        // They come with /sys.
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    }
    for mount in document["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // Recursively: below are cgroups that may be the user's own (CVE-2023-25809).
            let options = ["rbind", "nosuid", "noexec", "nodev", "rro"];
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_valid() {
        for unprivileged in [false, true] {
            let mut document = document();
            if unprivileged {
                without_root(&mut document, 1000, 1000);
            }
            let spec: oci_spec::runtime::Spec = serde_json::from_value(document).expect("a Spec");
            assert_eq!(corten_bundle::validate(&spec), []);
        }
    }

    #[test]
    fn never_overwrites() {
        let dir = tempfile::tempdir().expect("temp dir");
        let args = Spec { bundle: dir.path().to_owned(), unprivileged: false };
        spec(&args).expect("writes");
        let error = spec(&args).expect_err("is there").to_string();
        assert!(error.ends_with("config.json exists. Remove it first"), "{error}");
    }
}
