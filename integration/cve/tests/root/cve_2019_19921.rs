//! CVE-2019-19921: /proc of the image is a link into a volume, so that procfs is mounted elsewhere, and masks and
//! labels go wherever whoever shares the volume likes.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (a_linked_proc_is_refused));

/// Seen to fail with `kernel` in `steps/mount.rs` always false: the run succeeded.
fn a_linked_proc_is_refused(t: &T<'_>) -> Result<()> {
    let volume = t.scope.make_dir("volume/proc")?;
    let volume = volume.with_file_name("");
    let mut bundle = t.sh("ls /volume/proc");
    // The volume is there before procfs is mounted.
    let mount =
        serde_json::json!({"type": "bind", "source": volume, "destination": "/volume", "options": ["bind"]});
    bundle = bundle.edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.insert(0, mount);
        }
    });
    let bundle = bundle.write()?;
    fs::remove_dir(bundle.rootfs().join("proc"))?;
    symlink("volume/proc", bundle.rootfs().join("proc"))?;
    t.refused_for(&bundle, "proc").map(drop)
}
