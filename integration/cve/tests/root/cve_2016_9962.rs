//! CVE-2016-9962: before a runtime's process becomes the container's program it has the container's privileges and the
//! runtime's descriptors; who sees it in a shared PID namespace takes those.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use integration_support::Bundle;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (a_waiting_init_shows_nothing));

const LOOK: &str = "
    for p in /proc/[0-9]*; do
        [ $p != /proc/$$ ] || continue
        case \"$(tr '\\0' ' ' < $p/cmdline)\" in *' create '*|*' init '*)
            echo found; readlink $p/exe > /dev/null && echo executable
            for f in $p/fd/*; do readlink $f > /dev/null && echo descriptor; done;;
        esac
    done; true";

/// Seen to fail without `not_dumpable` in `spawn_create`: "found executable descriptor descriptor ...".
fn a_waiting_init_shows_nothing(t: &T<'_>) -> Result<()> {
    let attacker = t.start(Bundle::sh(t.scope, "attacker", "sleep 100000"))?;
    let namespace = PathBuf::from(format!("/proc/{}/ns/pid", attacker.pid()?));
    // Created, not started: it waits.
    let bundle = t.sh("true").namespace("pid", Some(&namespace)).write()?;
    let waiting = t.rt.create(&bundle, &[])?;
    let seen = attacker.exec(&[], &["/bin/sh", "-c", LOOK])?.ok()?.stdout;
    ensure!(seen == "found\n", "{}", seen.replace('\n', " "));
    waiting.delete(&["--force"])?;
    attacker.delete(&["--force"])
}
