//! Device nodes.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{T, has};

crate::each_runtime!(
    default_devices,
    default_links,
    extra_devices,
    extra_devices_replace_nothing_outside,
    another_file_in_the_place_of_a_device_is_an_error,
    a_matching_device_in_its_place_is_fine,
    fifos,
    what_is_not_made_is_told,
);

fn default_devices(t: &T<'_>) -> Result<()> {
    let paths = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let out = t.out(t.workload(&[&["stat"], &paths[..]].concat()))?;
    for line in ["null: char 0666 0:0 1:3", "zero: char 0666 0:0 1:5", "full: char 0666 0:0 1:7"] {
        has(&out, line)?;
    }
    for line in ["random: char 0666 0:0 1:8", "urandom: char 0666 0:0 1:9", "tty: char 0666 0:0 5:0"] {
        has(&out, line)?;
    }
    Ok(())
}

fn default_links(t: &T<'_>) -> Result<()> {
    let out =
        t.out(t.sh("for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null"))?;
    let expected = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    ensure!(out == expected || out == expected.replace("pts/ptmx", "/dev/pts/ptmx"), "{out}");
    Ok(())
}

fn extra_devices(t: &T<'_>) -> Result<()> {
    let device = json!([{"path": "/dev/deep/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 1000, "gid": 2000}]);
    let out = t.out(t.workload(&["stat", "/dev/deep/fuse"]).set("/linux/devices", device))?;
    has(&out, "char 0640 1000:2000 10:229")
}

fn place(kind: &str, path: &str) -> serde_json::Value {
    json!([{"path": path, "type": kind, "major": 1, "minor": 5, "fileMode": 0o600}])
}

fn another_file_in_the_place_of_a_device_is_an_error(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Runc, "runc 1.1 takes whatever is there") {
        return Ok(());
    }
    let bundle = t.workload(&["exit", "0"]).set("/linux/devices", place("c", "/srv/zero")).write()?;
    std::fs::create_dir(bundle.rootfs().join("srv"))?;
    std::fs::write(bundle.rootfs().join("srv/zero"), "no device")?;
    let finished = t.rt.run(&bundle)?;
    if t.differs(integration_support::Kind::Crun, "crun 1.8 takes whatever is there") {
        return Ok(());
    }
    has(&finished.err()?.stderr, "/srv/zero")
}

fn a_matching_device_in_its_place_is_fine(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["stat", "/srv/zero"]).set("/linux/devices", place("c", "/srv/zero")).write()?;
    std::fs::create_dir(bundle.rootfs().join("srv"))?;
    let path = bundle.rootfs().join("srv/zero");
    integration_support::run(std::process::Command::new("mknod").arg(&path).args(["c", "1", "5"]))?.ok()?;
    has(&t.rt.run(&bundle)?.ok()?.stdout, "1:5")
}

fn fifos(t: &T<'_>) -> Result<()> {
    let fifo = json!([{"path": "/srv/pipe", "type": "p", "fileMode": 0o620, "uid": 7, "gid": 8}]);
    let out = t.out(t.sh("stat -c '%F %a %u %g' /srv/pipe").set("/linux/devices", fifo))?;
    ensure!(out == "fifo 620 7 8\n", "{out}");
    Ok(())
}

/// A device that would have to be made in the host's /dev isn't, and somebody may wonder.
fn what_is_not_made_is_told(t: &T<'_>) -> Result<()> {
    if t.rt.kind() != integration_support::Kind::Corten {
        integration_support::skip("runc and crun leave it out without a word");
        return Ok(());
    }
    let dev = t.scope.make_dir("dev")?;
    let bundle = t.workload(&["exit", "0"]).set("/linux/devices", place("c", "/dev/extra"));
    let bundle = bundle.edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|mount| !mount["destination"].as_str().unwrap_or_default().starts_with("/dev"));
        }
    });
    let bundle = bundle.mount("bind", &dev.to_string_lossy(), "/dev", &["bind"]).write()?;
    let finished = t.rt.run(&bundle)?.ok()?;
    has(&finished.stderr, "/dev/extra is not made")?;
    ensure!(std::fs::read_dir(&dev)?.next().is_none(), "something was made in the host's directory");
    Ok(())
}

fn extra_devices_replace_nothing_outside(t: &T<'_>) -> Result<()> {
    // A link in the image instead of /dev, and no tmpfs over it: the node must not land where the link points.
    let outside = t.scope.make_dir("outside")?;
    let device = json!([{"path": "/place/zero", "type": "c", "major": 1, "minor": 5}]);
    let bundle = t.workload(&["exit", "0"]).set("/linux/devices", device).write()?;
    std::os::unix::fs::symlink(&outside, bundle.rootfs().join("place"))?;
    t.rt.run(&bundle)?;
    ensure!(std::fs::read_dir(&outside)?.next().is_none(), "a device was made outside of the rootfs");
    Ok(())
}
