//! Device nodes and what the container may do with them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use corten_cri_api::v1::ContainerConfig;
use serde_json::{Value, json};

use crate::{Error, Result};

/// The `linux.devices` and `linux.resources.devices` sections.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) nodes: Value,
    pub(super) rules: Value,
}

struct Node {
    path: PathBuf,
    kind: &'static str,
    major: u64,
    minor: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What the request names; all of the host's for a privileged container.
pub(super) fn of(config: &ContainerConfig, privileged: bool) -> Result<Devices> {
    let mut nodes = Vec::new();
    let mut rules = vec![json!({"allow": privileged, "access": "rwm"})];
    if privileged {
        let mut host = Vec::new();
        walk(Path::new("/dev"), Path::new("/dev"), &mut host, &mut |path| !OWN.contains(&path))?;
        nodes.extend(host.iter().map(Node::to_json));
    }
    for device in &config.devices {
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        if !access.chars().all(|letter| "rwm".contains(letter)) {
            return Err(Error::invalid(format!("device {}: permissions {access:?}", device.host_path)));
        }
        let host = Path::new(&device.host_path);
        let inside =
            if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        let host = host.canonicalize().map_err(Error::io("find the device", host))?;
        let mut found = Vec::new();
        walk(&host, Path::new(inside), &mut found, &mut |_| true)?;
        if found.is_empty() {
            return Err(Error::invalid(format!("{} is no device and holds none", host.display())));
        }
        for node in found {
            rules.push(json!({
                "allow": true, "type": node.kind, "major": node.major, "minor": node.minor, "access": access,
            }));
            nodes.retain(|other: &Value| other["path"] != json!(node.path));
            nodes.push(node.to_json());
        }
    }
    Ok(Devices { nodes: json!(nodes), rules: json!(rules) })
}

/// What a container has of its own in /dev.
const OWN: [&str; 13] = [
    "/dev/console",
    "/dev/core",
    "/dev/fd",
    "/dev/full",
    "/dev/mqueue",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

impl Node {
    fn to_json(&self) -> Value {
        json!({
            "path": self.path, "type": self.kind, "major": self.major, "minor": self.minor,
            "fileMode": self.mode, "uid": self.uid, "gid": self.gid,
        })
    }
}

/// The device at `host`, or all below it if it is a directory; links aren't followed.
fn walk(
    host: &Path,
    inside: &Path,
    found: &mut Vec<Node>,
    wanted: &mut dyn FnMut(&str) -> bool,
) -> Result<()> {
    if !wanted(&host.to_string_lossy()) {
        return Ok(());
    }
    let metadata = match host.symlink_metadata() {
        Ok(metadata) => metadata,
        // Devices come and go.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at the device", host)(error)),
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        for entry in std::fs::read_dir(host).map_err(Error::io("list the devices in", host))? {
            let entry = entry.map_err(Error::io("list the devices in", host))?;
            walk(&entry.path(), &inside.join(entry.file_name()), found, wanted)?;
        }
    } else if kind.is_char_device() || kind.is_block_device() {
        let device = metadata.rdev();
        found.push(Node {
            path: inside.to_owned(),
            kind: if kind.is_char_device() { "c" } else { "b" },
            major: nix::sys::stat::major(device),
            minor: nix::sys::stat::minor(device),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use corten_cri_api::v1::Device;

    use super::*;

    fn config(host: &str, inside: &str, permissions: &str) -> ContainerConfig {
        let device =
            Device { host_path: host.into(), container_path: inside.into(), permissions: permissions.into() };
        ContainerConfig { devices: vec![device], ..Default::default() }
    }

    #[test]
    fn a_device_under_another_name() {
        let devices = of(&config("/dev/null", "/dev/nothing", "r"), false).expect("valid");
        assert_eq!(devices.nodes[0]["path"], "/dev/nothing");
        assert_eq!((&devices.nodes[0]["major"], &devices.nodes[0]["minor"]), (&json!(1), &json!(3)));
        let rules = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"},
        ]);
        assert_eq!(devices.rules, rules);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = of(&config("/dev/flux-capacitor", "", ""), false).expect_err("missing").chain();
        assert!(error.contains("/dev/flux-capacitor"), "{error}");
        assert!(of(&config("/dev/null", "", "rx"), false).is_err());
        assert!(of(&config("/etc/hostname", "", ""), false).is_err());
    }
}
