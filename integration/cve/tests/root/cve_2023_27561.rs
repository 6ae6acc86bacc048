//! CVE-2023-27561: CVE-2019-19921 again, after a change had brought it back: /proc as a link, with a volume on what it
//! points to.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (a_proc_linked_to_a_plain_directory_is_refused));

/// Seen to fail with `kernel` in `steps/mount.rs` always false: the run succeeded.
fn a_proc_linked_to_a_plain_directory_is_refused(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("true").write()?;
    fs::remove_dir(bundle.rootfs().join("proc"))?;
    fs::create_dir(bundle.rootfs().join("other"))?;
    symlink("/other", bundle.rootfs().join("proc"))?;
    t.refused_for(&bundle, "proc").map(drop)
}
