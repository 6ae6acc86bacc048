//! Two things at once: none hangs, and each gets the right answer.

use std::process::{Child, Stdio};
use std::thread;

use anyhow::{Result, ensure};
use integration_support::{Bundle, Finished, Kind, run, wait_for};

use crate::{T, has, has_one};

crate::each_runtime!(
    exec_into_a_paused_container_is_refused,
    exec_while_init_exits,
    programs_that_end_at_once,
    create_of_an_id_at_the_same_time,
);
crate::each_runtime!(@one corten_alone Corten
    deletes_at_the_same_time kill_during_create starts_at_the_same_time exec_into_a_paused_container_waits
    poststop_hooks_run_once
);

/// Runs the same command several times at once.
fn at_once(t: &T<'_>, count: usize, arguments: &[&str]) -> Result<Vec<Finished>> {
    thread::scope(|threads| {
        let one = || run(t.rt.command().args(arguments));
        let all: Vec<_> = (0..count).map(|_| threads.spawn(one)).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, Result<Finished>>| {
            handle.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
        };
        all.into_iter().map(join).collect()
    })
}

fn succeeded(all: &[Finished]) -> usize {
    all.iter().filter(|finished| finished.status.success()).count()
}

fn deletes_at_the_same_time(t: &T<'_>) -> Result<()> {
    for _ in 0..8 {
        let container = t.start(t.workload(&["sleep"]))?;
        let forced = at_once(t, 3, &["delete", "--force", container.id()])?;
        ensure!(succeeded(&forced) == 3, "{forced:?}");
        let container = t.start(t.workload(&["exit", "0"]))?;
        container.wait_status("stopped")?;
        let plain = at_once(t, 3, &["delete", container.id()])?;
        ensure!(succeeded(&plain) == 1, "one of them deletes it: {plain:?}");
        for late in plain.iter().filter(|finished| !finished.status.success()) {
            has(&late.stderr, "does not exist")?;
        }
    }
    Ok(())
}

fn poststop_hooks_run_once(t: &T<'_>) -> Result<()> {
    let told = t.scope.path("told");
    let script = format!("echo once >> {}", told.display());
    let hook = serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    for round in 1..=4 {
        let bundle = t.workload(&["sleep"]).push("/hooks/poststop", hook.clone());
        let container = t.start(bundle)?;
        at_once(t, 4, &["delete", "--force", container.id()])?;
        let lines = std::fs::read_to_string(&told)?.lines().count();
        ensure!(lines == round, "the hooks of {round} containers ran {lines} times");
    }
    Ok(())
}

fn spawn(t: &T<'_>, arguments: &[&str]) -> Result<Child> {
    let mut command = t.rt.command();
    Ok(command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

fn ends(what: &str, child: &mut Child) -> Result<bool> {
    wait_for(what, || child.try_wait().is_ok_and(|status| status.is_some()))?;
    Ok(child.wait()?.success())
}

fn kill_during_create(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).write()?;
    for _ in 0..12 {
        let dir = bundle.dir().to_string_lossy();
        let mut create = spawn(t, &["create", "--bundle", &dir, bundle.id()])?;
        // As early as there is something to kill.
        wait_for("kill to find it, or create to end", || {
            let killed = run(t.rt.command().args(["kill", bundle.id(), "KILL"]));
            killed.is_ok_and(|k| k.status.success()) || create.try_wait().is_ok_and(|s| s.is_some())
        })?;
        // Killed before it was done it fails, and takes back what it has made.
        let created = ends("create to end", &mut create)?;
        let state = run(t.rt.command().args(["state", bundle.id()]))?;
        ensure!(created == state.status.success(), "create {created}, but {state:?}");
        run(t.rt.command().args(["delete", "--force", bundle.id()]))?.ok()?;
    }
    Ok(())
}

fn starts_at_the_same_time(t: &T<'_>) -> Result<()> {
    for _ in 0..8 {
        let container = t.rt.create(&t.workload(&["sleep"]).write()?, &[])?;
        let all = at_once(t, 3, &["start", container.id()])?;
        ensure!(succeeded(&all) == 1, "one of them starts it: {all:?}");
        for late in all.iter().filter(|finished| !finished.status.success()) {
            has(&late.stderr, "cannot start an already running container")?;
        }
        ensure!(container.status()? == "running");
        container.delete(&["--force"])?;
    }
    Ok(())
}

fn create_of_an_id_at_the_same_time(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 looks whether the id is taken, and later takes it")
        || t.differs(Kind::Crun, "crun 1.8 fails both, now and then")
    {
        return Ok(());
    }
    let bundle = t.workload(&["sleep"]).write()?;
    for _ in 0..8 {
        let dir = bundle.dir().to_string_lossy();
        // Files and not pipes for output, as the container has it for longer than create.
        let all = at_once(t, 3, &["create", "--bundle", &dir, bundle.id()])?;
        ensure!(succeeded(&all) == 1, "one of them creates it: {all:?}");
        for late in all.iter().filter(|finished| !finished.status.success()) {
            has(&late.stderr, "container with given ID already exists")?;
        }
        run(t.rt.command().args(["start", bundle.id()]))?.ok()?;
        run(t.rt.command().args(["delete", "--force", bundle.id()]))?.ok()?;
    }
    Ok(())
}

fn exec_while_init_exits(t: &T<'_>) -> Result<()> {
    for round in 0..12 {
        let seconds = format!("0.{round:03}");
        let container = t.start(Bundle::workload(t.scope, "c", &["sleep", &seconds]))?;
        // It runs, is killed with the container, or finds it stopped; it doesn't hang.
        let finished = container.exec(&[], &["/bin/workload", "echo", "ran"])?;
        match finished.code() {
            0 => ensure!(finished.stdout == "ran\n", "{finished:?}"),
            137 => {}
            _ if t.rt.kind() == Kind::Corten => {
                has(&finished.stderr, "cannot exec in a stopped container")?;
            }
            _ => {}
        }
        container.wait_status("stopped")?;
        container.delete(&[])?;
    }
    Ok(())
}

fn programs_that_end_at_once(t: &T<'_>) -> Result<()> {
    for round in 0..12 {
        let code = (round % 4).to_string();
        let bundle = Bundle::workload(t.scope, "c", &["exit", &code]).write()?;
        ensure!(t.rt.run(&bundle)?.code().to_string() == code);
        let dir = bundle.dir().to_string_lossy();
        let detached = ["run", "--detach", "--bundle", &dir, bundle.id()];
        run(t.rt.command().args(detached))?.ok()?;
        run(t.rt.command().args(["delete", "--force", bundle.id()]))?.ok()?;
        let container = t.rt.start(&bundle)?;
        container.wait_status("stopped")?;
        container.delete(&[])?;
    }
    Ok(())
}

fn exec_into_a_paused_container_is_refused(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    container.call(&["pause"])?.ok()?;
    let refused = container.exec(&[], &["/bin/workload", "echo", "x"])?.err()?;
    has_one(&refused.stderr, &["cannot exec in a paused container", "is paused"])?;
    container.call(&["resume"])?.ok()?;
    ensure!(container.exec(&[], &["/bin/workload", "echo", "x"])?.ok()?.stdout == "x\n");
    container.delete(&["--force"])
}

fn exec_into_a_paused_container_waits(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    container.call(&["pause"])?.ok()?;
    let mark = t.scope.path("bundle-c/rootfs/tmp/mark");
    let arguments =
        ["exec", "--ignore-paused", container.id(), "/bin/workload", "write", "/tmp/mark", "thawed"];
    let mut exec = spawn(t, &arguments)?;
    // It can't have run yet; that it never does so would show only by waiting, which is not worth it.
    ensure!(!mark.exists() && container.status()? == "paused");
    container.call(&["resume"])?.ok()?;
    ensure!(ends("exec to end after the thaw", &mut exec)?);
    ensure!(std::fs::read_to_string(&mark)? == "thawed");
    // Deleting one that is paused, with an exec that waits, doesn't hang either.
    container.call(&["pause"])?.ok()?;
    let mut exec = spawn(t, &arguments)?;
    container.delete(&["--force"])?;
    ends("exec to end with the container", &mut exec).map(drop)
}
