//! Device nodes.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{T, has};

crate::each_runtime!(default_devices, default_links, extra_devices, extra_devices_replace_nothing_outside);

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
