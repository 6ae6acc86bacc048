//! CVE-2019-16884: a volume over /proc, or over something in it, makes the runtime write labels and sysctls to plain
//! files, so that they aren't in force; and shows the container a /proc of its own making.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (a_volume_over_proc, a_volume_in_proc, a_volume_through_a_link));

fn fake(t: &T<'_>) -> Result<String> {
    let fake = t.scope.make_dir("fake/self/attr")?;
    fs::write(fake.join("exec"), "")?;
    Ok(t.scope.path("fake").to_string_lossy().into_owned())
}

/// Seen to fail with the check of the source in `steps/mount.rs` taken out: "succeeded, but must fail, stdout: self".
fn a_volume_over_proc(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Crun, "crun 1.8 mounts it") {
        return Ok(());
    }
    let bundle = t.sh("ls /proc").mount("bind", &fake(t)?, "/proc", &["rbind"]).write()?;
    t.refused_for(&bundle, "/proc").map(drop)
}

/// Seen to fail with `in_proc` of `plan/mounts.rs` answering `InProc::Imitated` for everything in /proc: the run
/// succeeded and listed "self".
fn a_volume_in_proc(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Crun, "crun 1.8 mounts it") {
        return Ok(());
    }
    let bundle = t.sh("ls /proc/1/attr").mount("bind", &fake(t)?, "/proc/1/attr", &["bind"]).write()?;
    t.refused_for(&bundle, "/proc").map(drop)
}

/// The image has the link, the config names it. Seen to fail without the look at what the target is on, at the end of
/// `place_strictly`: the run succeeded and listed "self".
fn a_volume_through_a_link(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Crun, "crun 1.8 mounts it") {
        return Ok(());
    }
    let bundle = t.sh("ls /proc/sys").mount("bind", &fake(t)?, "/data", &["bind"]).write()?;
    symlink("/proc/sys", bundle.rootfs().join("data"))?;
    t.refused_for(&bundle, "/proc").map(drop)
}
