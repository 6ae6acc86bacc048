//! CVE-2025-52881: what is to be written to procfs goes to a plain file instead, which the container has put there.

use std::fs;

use anyhow::{Result, ensure};
use integration_support::Kind;
use serde_json::json;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (sysctls_reach_the_kernel));

/// The container's /proc is the image's; the kernel's is elsewhere. Seen to fail with `sysctl::set` writing to
/// the rootfs' /proc instead of a private one: "the image's file was written".
fn sysctls_reach_the_kernel(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 writes to whatever is there") {
        return Ok(());
    }
    let bundle = t.sh("cat /kernel/sys/kernel/msgmax").set("/linux/sysctl", json!({"kernel.msgmax": "5555"}));
    let bundle = bundle.without("/linux/maskedPaths").without("/linux/readonlyPaths").edit(|config| {
        config["mounts"][0]["destination"] = json!("/kernel");
    });
    let bundle = bundle.write()?;
    let fake = bundle.rootfs().join("proc/sys/kernel");
    fs::create_dir_all(&fake)?;
    fs::write(fake.join("msgmax"), "untouched")?;
    let finished = t.rt.run(&bundle)?;
    ensure!(fs::read_to_string(fake.join("msgmax"))? == "untouched", "the image's file was written");
    ensure!(!finished.status.success() || finished.stdout == "5555\n", "{finished:?}");
    Ok(())
}
