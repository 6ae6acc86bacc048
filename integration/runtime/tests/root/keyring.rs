//! The session keyring: the container's own, for all of its processes, and not the caller's.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind, run};

use crate::T;

crate::each_runtime!(exec_joins_the_keyring);

/// Whether there is keyctl(1); else it's a skip.
pub(crate) fn keyctl() -> bool {
    let found = ["/bin/keyctl", "/usr/bin/keyctl"].iter().any(|path| Path::new(path).exists());
    if !found {
        integration_support::skip("needs keyctl (package keyutils)");
    }
    found
}

/// A container that sleeps, and sees keyctl(1) of the host.
pub(crate) fn bundle(t: &T<'_>) -> Bundle {
    t.sh("sleep 1000").without("/linux/seccomp").mount("bind", "/", "/host", &["bind", "ro"])
}

/// What a further process of a container says of its session keyring; the last line is its number.
pub(crate) fn session(t: &T<'_>, id: &str) -> Result<String> {
    let mut exec = t.rt.command();
    exec.args(["exec", id, "/bin/sh", "-c", "chroot /host keyctl describe @s; chroot /host keyctl id @s"]);
    Ok(run(&mut exec)?.ok()?.stdout)
}

fn exec_joins_the_keyring(t: &T<'_>) -> Result<()> {
    if !keyctl() || t.differs(Kind::Crun, "crun 1.8 leaves it the caller's") {
        return Ok(());
    }
    let container = t.start(bundle(t))?;
    let said = session(t, container.id())?;
    ensure!(said.contains(&format!("_ses.{}", container.id())), "{said}");
    // The same each time, which is the container's; and it isn't ours.
    ensure!(said == session(t, container.id())?, "{said}");
    let ours = run(Command::new("keyctl").args(["id", "@s"]))?.stdout;
    ensure!(said.lines().last() != Some(ours.trim()), "{said}");
    container.delete(&["--force"])
}
