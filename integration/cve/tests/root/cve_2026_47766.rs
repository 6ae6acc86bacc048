//! CVE-2026-47766: the same without a mount on /dev: nodes and links are made right in the image's directory, which is
//! a link.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use integration_support::Kind;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (nodes_do_not_go_through_a_linked_dev));

/// Seen to fail with `populate` opening /dev by `open_or_make`: the run succeeded.
fn nodes_do_not_go_through_a_linked_dev(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 follows the link") {
        return Ok(());
    }
    let bundle = t.sh("true").edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
        }
    });
    let bundle = bundle.write()?;
    fs::remove_dir(bundle.rootfs().join("dev"))?;
    symlink("/etc", bundle.rootfs().join("dev"))?;
    t.refused_for(&bundle, "/dev")?;
    ensure!(!bundle.rootfs().join("etc/null").exists(), "the link was followed");
    Ok(())
}
