//! CVE-2025-52565: the terminal is mounted on /dev/console before paths are masked. A link there, or one swapped in
//! for the terminal's own name, mounts something else, somewhere else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use integration_cve::Swap;
use integration_support::{Bundle, ConsoleSocket, Finished, Kind, run};
use serde_json::json;

use crate::T;

crate::attack!([corten Corten, runc Runc] (a_linked_console_is_refused));
crate::attack!([only_corten Corten] (a_swapped_console_covers_nothing_else));

/// A bundle with a terminal, whose /dev is a volume, and the volume.
fn bundle(t: &T<'_>) -> Result<(Bundle, PathBuf)> {
    let dev = t.scope.make_dir("dev")?;
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name))?;
    }
    let bundle = t.sh("sleep 100000").terminal().edit(|config| {
        config["mounts"][1] =
            json!({"type": "bind", "source": dev, "destination": "/dev", "options": ["rbind"]});
    });
    let bundle = bundle.write()?;
    fs::write(bundle.rootfs().join("victim"), "victim")?;
    Ok((bundle, dev))
}

fn create(t: &T<'_>, bundle: &Bundle, socket: &ConsoleSocket) -> Result<Finished> {
    let mut command = t.rt.command();
    command.args(["create", "--bundle"]).arg(bundle.dir());
    run(command.arg("--console-socket").arg(socket.path()).arg(bundle.id()))
}

/// Seen to fail with `mount_console` using `open_or_make`: "create ... succeeded, but must fail".
fn a_linked_console_is_refused(t: &T<'_>) -> Result<()> {
    let (bundle, dev) = bundle(t)?;
    symlink("/victim", dev.join("console"))?;
    let socket = ConsoleSocket::bind(t.scope.path("tty"))?;
    let created = create(t, &bundle, &socket)?;
    run(t.rt.command().args(["delete", "--force", bundle.id()]))?;
    let refused = created.err()?;
    // runc dies without a word about it.
    ensure!(t.rt.kind() == Kind::Runc || refused.stderr.contains("console"), "{refused:?}");
    Ok(())
}

/// Seen to fail the same way: "the terminal covers /victim".
fn a_swapped_console_covers_nothing_else(t: &T<'_>) -> Result<()> {
    let (bundle, dev) = bundle(t)?;
    symlink("/victim", dev.join("link"))?;
    fs::write(dev.join("console"), "")?;
    let socket = ConsoleSocket::bind(t.scope.path("tty"))?;
    let _swap = Swap::begin(&dev.join("console"), &dev.join("link"))?;
    for _ in 0..15 {
        let created = create(t, &bundle, &socket)?;
        let covered = if created.status.success() {
            let state = run(t.rt.command().args(["state", bundle.id()]))?.ok()?;
            let state: serde_json::Value = serde_json::from_str(&state.stdout)?;
            let table = fs::read_to_string(format!("/proc/{}/mountinfo", state["pid"]))?;
            table.lines().any(|line| line.contains(" /victim "))
        } else {
            false
        };
        run(t.rt.command().args(["delete", "--force", bundle.id()]))?;
        ensure!(!covered, "the terminal covers /victim");
    }
    Ok(())
}
