//! What configs say that means something else by the letter of runtime-spec 1.3.
//!
//! - Before runtime-spec 1.3 `pids.limit` 0 was what a writer in Go leaves when there's to be no limit; now it is a limit.
//! - Callers of runc may write where on the host a mount goes: the path of the root file system is then taken away
//!   from the destination's beginning, as runc does.

use std::path::{Component, Path, PathBuf};

use corten_bundle::Bundle;

/// Puts what was meant into the bundle's config, and returns what somebody should know of that.
pub(crate) fn translate(bundle: &mut Bundle) -> Vec<String> {
    unlimited_pids(bundle);
    destinations(bundle)
}

/// The minor version of `1.minor.patch`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

fn unlimited_pids(bundle: &mut Bundle) {
    if minor(bundle.spec.version()).is_none_or(|minor| minor >= 3) {
        return;
    }
    let Some(resources) = bundle.spec.linux_mut().as_mut().and_then(|l| l.resources_mut().as_mut()) else {
        return;
    };
    if let Some(pids) = resources.pids_mut()
        && pids.limit() == 0
    {
        pids.set_limit(-1);
    }
}

fn destinations(bundle: &mut Bundle) -> Vec<String> {
    let rootfs = clean(&bundle.rootfs());
    if rootfs == Path::new("/") {
        return Vec::new();
    }
    let mut remarks = Vec::new();
    for (i, mount) in bundle.spec.mounts_mut().iter_mut().flatten().enumerate() {
        let Some(inside) = inside(&rootfs, mount.destination()) else { continue };
        remarks.push(format!(
            "mounts[{i}]: destination {} begins with the path of the root file system on the host: it is taken as {}",
            mount.destination().display(),
            inside.display()
        ));
        mount.set_destination(inside);
    }
    remarks
}

/// The destination without the rootfs, if it begins with it.
fn inside(rootfs: &Path, destination: &Path) -> Option<PathBuf> {
    let destination = clean(destination);
    let below = destination.strip_prefix(rootfs).ok()?;
    Some(Path::new("/").join(below))
}

/// The path from the root, without `.` and `..`, whatever links there are: both are compared as runc does it.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn translated(config: Value) -> (Value, Vec<String>) {
        let spec = serde_json::from_value(config).expect("a spec");
        let mut bundle = Bundle { path: "/bundle".into(), spec };
        let remarks = translate(&mut bundle);
        (serde_json::to_value(bundle.spec).expect("JSON"), remarks)
    }

    #[test]
    fn no_limit_of_pids() {
        for (version, limit, means) in [
            ("1.0.2-dev", 0, -1),
            ("1.2.1", 0, -1),
            ("1.3.0", 0, 0),
            ("1.4.0+dev", 0, 0),
            ("1.0.0", 5, 5),
            ("nonsense", 0, 0),
        ] {
            let config = json!({"ociVersion": version, "linux": {"resources": {"pids": {"limit": limit}}}});
            let (config, remarks) = translated(config);
            assert_eq!(config["linux"]["resources"]["pids"]["limit"], means, "{version}");
            assert!(remarks.is_empty());
        }
    }

    #[test]
    fn destinations_on_the_host() {
        for (root, destination, means) in [
            ("rootfs", "/bundle/rootfs/data/x", "/data/x"),
            ("rootfs", "/bundle/rootfs//data/", "/data"),
            ("rootfs", "/bundle/rootfs", "/"),
            ("rootfs", "/bundle/rootfs2/data", "/bundle/rootfs2/data"),
            ("rootfs", "/bundle/rootfs/../data", "/bundle/rootfs/../data"),
            ("rootfs", "/bundle/rootfs/./a/../data", "/data"),
            ("../bundle/rootfs", "/bundle/rootfs/data", "/data"),
            ("./rootfs/.", "/../bundle//./rootfs/data", "/data"),
            ("/srv/../srv/fs/", "/srv/fs/data", "/data"),
            ("..", "/data", "/data"),
            ("rootfs", "/data", "/data"),
            ("/srv/fs", "/srv/fs/data", "/data"),
            ("/", "/data", "/data"),
        ] {
            let config = json!({"ociVersion": "1.3.0", "root": {"path": root},
                "mounts": [{"destination": destination, "type": "tmpfs"}]});
            let (config, remarks) = translated(config);
            assert_eq!(config["mounts"][0]["destination"], means, "{root} {destination}");
            assert_eq!(remarks.len(), usize::from(destination != means), "{root} {destination}");
        }
    }
}
