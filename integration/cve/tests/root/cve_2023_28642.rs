//! CVE-2023-28642: /proc or /sys as a link evades AppArmor profiles, which go by path names.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use integration_support::Kind;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (a_linked_sys_is_refused));

/// Seen to fail with `kernel` in `steps/mount.rs` always false: the run succeeded.
fn a_linked_sys_is_refused(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 follows the link inside of the rootfs") {
        return Ok(());
    }
    let bundle = t.sh("true").write()?;
    fs::remove_dir(bundle.rootfs().join("sys"))?;
    symlink("/home", bundle.rootfs().join("sys"))?;
    t.refused(&bundle, "sys").map(drop)
}
