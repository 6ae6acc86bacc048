//! CVE-2026-41579: /dev of the image is a link, and what the runtime makes in /dev goes where it points to.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use integration_support::Kind;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (a_linked_dev_is_refused));

/// Seen to fail with the special case of /dev in `place_strictly` and `open_or_make_no_links` in `populate` taken out
/// (either alone refuses it): the run succeeded.
fn a_linked_dev_is_refused(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 follows the link") {
        return Ok(());
    }
    let bundle = t.sh("true").write()?;
    fs::remove_dir(bundle.rootfs().join("dev"))?;
    symlink("/etc", bundle.rootfs().join("dev"))?;
    t.refused_for(&bundle, "/dev")?;
    ensure!(!bundle.rootfs().join("etc/null").exists(), "the link was followed");
    Ok(())
}
