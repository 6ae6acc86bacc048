//! CVE-2019-5736: a container makes the runtime execute itself, holds the executable open through
//! /proc/<pid>/exe, and writes to it: root on the host with the next container.

use std::fs;
use std::process::Stdio;

use anyhow::{Result, ensure};
use integration_support::{Runtime, run, wait_for};

use crate::T;

// Debian's peers aren't static: with an image without their libraries there's nothing to attack.
crate::attack!([corten Corten] (the_executable_cannot_be_overwritten));

/// The runtime is stuck at opening its log, a fifo: time enough to open its executable. It can be written once no
/// process runs it any more: so this is the container's own process, and not one that a runtime waits for.
const ATTACK: &str = "
    mkfifo /tmp/log
    until [ -n \"$victim\" ]; do
        for p in /proc/[0-9]*; do
            case \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" in '/proc/self/exe --log'*) victim=$p;; esac
        done
    done
    exec 9< $victim/exe
    kill -9 ${victim#/proc/}
    n=0
    until (echo overwritten > /proc/self/fd/9) 2> /tmp/error; do
        grep -q 'Text file busy' /tmp/error || break
        n=$((n + 1)); [ $n -lt 3000 ] || break
    done
    mv /tmp/error /tmp/result
    sleep 100000";

/// Seen to fail with `protect_executable` not called by `main`: "the runtime's executable has 12 bytes now".
fn the_executable_cannot_be_overwritten(t: &T<'_>) -> Result<()> {
    // The attack may succeed: on a copy.
    let copy = t.scope.path("runtime");
    fs::copy(t.rt.binary(), &copy)?;
    let before = fs::read(&copy)?;
    let rt = Runtime::new(t.rt.kind(), copy.clone(), t.scope)?;
    let bundle = t.sh(ATTACK).write()?;
    let container = rt.start(&bundle)?;
    let file = |name: &str| bundle.rootfs().join("tmp").join(name);
    wait_for("the fifo", || file("log").exists())?;
    let mut victim = rt.command();
    victim.args(["exec", container.id(), "/proc/self/exe", "--log", "/tmp/log", "state", "x"]);
    let mut victim = victim.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let ended =
        wait_for("the victim to be killed", || victim.try_wait().is_ok_and(|status| status.is_some()));
    victim.kill().ok(); // because it should have ended already
    victim.wait()?;
    ended?;
    wait_for("the attack to end", || file("result").exists())?;
    let said = fs::read_to_string(file("result"))?;
    let after = fs::read(&copy)?;
    ensure!(before == after, "the runtime's executable has {} bytes now", after.len());
    ensure!(said.contains("Read-only file system"), "the attack didn't come so far: {said}");
    // Not by `copy`: if the attack has succeeded, that is no runtime any more.
    run(t.rt.command().args(["delete", "--force", container.id()]))?.ok().map(drop)
}
