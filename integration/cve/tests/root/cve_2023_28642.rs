//! CVE-2023-28642: /proc or /sys as a link evades AppArmor profiles, which go by path names.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (a_linked_sys_is_refused));

/// Seen to fail with `kernel` in `steps/mount.rs` always false: the run succeeded.
fn a_linked_sys_is_refused(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("true").write()?;
    fs::remove_dir(bundle.rootfs().join("sys"))?;
    symlink("/home", bundle.rootfs().join("sys"))?;
    t.refused_for(&bundle, "sys").map(drop)
}
