//! SIGKILL for containerd and for shims.

use anyhow::{Result, ensure};
use integration_interop::{has, parent_of, runs};
use integration_support::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{T, Via};

crate::each_way!(containerd_is_killed, the_shim_is_killed, the_same_id_in_two_namespaces);

/// Containers live on, and the next containerd has them as they were.
fn containerd_is_killed(t: &mut T<'_, '_>) -> Result<()> {
    let id = t.start("c", &[], &["workload", "log", "1000000", "stdout", "10"])?;
    let short = t.start("d", &[], &["sh", "-c", "while ! [ -e /tmp/end ]; do sleep 0.05; done; exit 9"])?;
    let pid = t.containerd.pid(&id)?;
    let short_pid = t.containerd.pid(&short)?;
    t.containerd.kill()?;
    // One ends while nobody looks; its log goes on for the other.
    std::fs::write(format!("/proc/{short_pid}/root/tmp/end"), "")?;
    wait_for("the short one to end", || !runs(short_pid))?;
    let lines = || std::fs::read_to_string(t.log("c")).map_or(0, |log| log.lines().count());
    let before = lines();
    wait_for("the log to grow without containerd", || lines() > before + 20)?;
    ensure!(runs(pid));

    t.containerd.spawn()?;
    ensure!(t.containerd.pid(&id)? == pid && t.containerd.status(&id)? == "RUNNING");
    let done = t.containerd.ctr(&["tasks", "exec", "--exec-id", "x", &id, "echo", "again"])?;
    ensure!(done.ok()?.stdout == "again\n");
    t.remove(&id)?;
    if t.via != Via::OurShimNewest {
        t.containerd.wait_status(&short, "STOPPED")?;
        let deleted = t.containerd.ctr(&["tasks", "delete", &short])?.ok()?;
        has(&deleted.stderr, "exit code 9")?;
    }
    // The newest removes a task that it finds stopped when it starts.
    t.containerd.ctr_ok(&["containers", "delete", &short]).map(drop)
}

/// containerd calls the shim's `delete`, which ends what the shim left.
fn the_shim_is_killed(t: &mut T<'_, '_>) -> Result<()> {
    let id = t.start("c", &[], &["workload", "ignore-sigterm"])?;
    let pid = t.containerd.pid(&id)?;
    let shim = parent_of(pid)?;
    let program = std::fs::read_link(format!("/proc/{shim}/exe"))?;
    has(&program.to_string_lossy(), "containerd-shim")?;
    kill(Pid::from_raw(i32::try_from(shim)?), Signal::SIGKILL)?;
    wait_for("the container to end with its shim", || !runs(pid))?;
    wait_for("the task to be gone", || t.containerd.status(&id).is_ok_and(|status| status.is_empty()))?;
    t.containerd.ctr_ok(&["containers", "delete", &id])?;
    // The id can be used again, as soon as containerd has got so far.
    wait_for("the id to be free", || {
        let started = t.start("c", &[], &["workload", "sleep"]).is_ok();
        started || t.containerd.ctr(&["containers", "delete", &id]).is_err()
    })?;
    t.remove(&id)
}

/// Namespaces of containerd don't see each other, down to the runtime's state.
fn the_same_id_in_two_namespaces(t: &mut T<'_, '_>) -> Result<()> {
    let id = t.start("c", &[], &["workload", "sleep"])?;
    let other = |args: &[&str]| integration_support::run(&mut t.containerd.command_in("other", args));
    other(&["images", "pull", "--plain-http", &t.image])?.ok()?;
    let mut args = t.run("c", &["--rm"], &["echo", "other"])?;
    // Its own cgroup: that one is really shared.
    args.iter_mut()
        .filter(|arg| arg.starts_with('/') && arg.ends_with("/c"))
        .for_each(|arg| arg.push_str("-other"));
    let done = other(&args.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
    ensure!(done.stdout == "other\n", "{done:?}");
    ensure!(t.containerd.status(&id)? == "RUNNING");
    t.remove(&id)
}
