//! CVE-2025-31133: files are masked with the container's /dev/null, which is a link of the attacker's: the mask shows
//! what it points to, and lets it be written.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::T;

// runc 1.1 of Debian 12 shows the prey; crun 1.8 can't set up a /dev that is a volume.
crate::attack!([corten Corten] (masks_are_the_real_null));

/// Seen to fail with `masked` taking /dev/null of the container instead of `host_null`: "preyregular file 0:0".
fn masks_are_the_real_null(t: &T<'_>) -> Result<()> {
    // A volume as /dev: the runtime leaves alone what is in it.
    let dev = t.scope.make_dir("dev")?;
    symlink("/prey", dev.join("null"))?;
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name))?;
    }
    let bundle = t.sh("cat /masked /proc/cpuinfo; stat -c '%F %t:%T' /masked /proc/cpuinfo; echo ran");
    let bundle = bundle.set("/linux/maskedPaths", json!(["/masked", "/proc/cpuinfo"])).edit(|config| {
        config["mounts"][1] =
            json!({"type": "bind", "source": dev, "destination": "/dev", "options": ["rbind"]});
    });
    let bundle = bundle.write()?;
    fs::write(bundle.rootfs().join("prey"), "prey")?;
    fs::write(bundle.rootfs().join("masked"), "secret")?;
    let finished = t.rt.run(&bundle)?;
    // To refuse such a /dev is fine too.
    if finished.stdout.contains("ran") {
        ensure!(finished.stdout.matches("character special file 1:3").count() == 2, "{finished:?}");
    }
    Ok(())
}
