//! `ctr`: what containerd's own client does with a container.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use integration_interop::{Background, has, limit, on_a_terminal};
use integration_support::wait_for;

use crate::T;

crate::each_way!(
    run_to_the_end,
    a_terminal,
    exec_and_kill,
    pause_and_checkpoint,
    limits_and_metrics,
    logs,
    events_come_in_order,
);

/// Attached through fifos: output, errors, input and exit code come through.
fn run_to_the_end(t: &mut T<'_, '_>) -> Result<()> {
    let args = t.run("c", &["--rm", "--env", "A=b"], &["sh", "-c", "echo out $A; echo err >&2; exit 7"])?;
    let done = t.containerd.ctr(&words(&args))?;
    ensure!(done.code() == 7, "{done:?}\n{}", t.containerd.log());
    ensure!(done.stdout == "out b\n" && done.stderr.ends_with("err\n"), "{done:?}");

    // ctr passes the end of its input on, unless it comes before the container runs.
    let args = t.run("d", &["--rm"], &["sh", "-c", "echo ready; cat; echo end"])?;
    let log = t.containerd.scope.path("d.out");
    let mut command = t.containerd.command(&words(&args));
    let mut ctr = command.stdin(Stdio::piped()).stdout(fs::File::create(&log)?).spawn()?;
    let printed = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    wait_for("the container to run", || printed("ready\n"))?;
    let mut stdin = ctr.stdin.take().context("no input")?;
    stdin.write_all(b"typed\n")?;
    wait_for("the input to come back", || printed("typed\n"))?;
    drop(stdin);
    wait_for("ctr to end", || matches!(ctr.try_wait(), Ok(Some(_))))?;
    ensure!(ctr.wait()?.success() && fs::read_to_string(&log)? == "ready\ntyped\nend\n");

    // A failure's reason comes all the way up, and nothing stays.
    let args = t.run("e", &["--rm"], &["no-such-program"])?;
    let done = t.containerd.ctr(&words(&args))?.err()?;
    has(&done.stderr, "exec: \"no-such-program\": executable file not found in $PATH")?;
    ensure!(t.containerd.status(&t.id("e"))?.is_empty());
    t.containerd.ctr(&["containers", "delete", &t.id("e")])?;
    Ok(())
}

/// `run -t` and `exec -t`: a terminal with the size of the caller's.
fn a_terminal(t: &mut T<'_, '_>) -> Result<()> {
    let args = t.run("c", &["--rm", "--tty"], &["sh"])?;
    let (mut ctr, mut terminal) = on_a_terminal(&mut t.containerd.command(&words(&args)))?;
    terminal.send("tty; echo ready-$((40+2))\n")?;
    has(terminal.expect("ready-42")?, "/dev/pts/0")?;
    // ctr tells the size after the start.
    terminal.send("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.05; done; echo resized-$((1+1))\n")?;
    terminal.expect("resized-2")?;

    let id = t.id("c");
    let exec = ["tasks", "exec", "--tty", "--exec-id", "x", &id, "sh"];
    let (mut second, mut other) = on_a_terminal(&mut t.containerd.command(&exec))?;
    other.send("echo second-$((1+1)) && exit 5\n")?;
    other.expect("second-2")?;
    wait_for("the exec to end", || matches!(second.try_wait(), Ok(Some(_))))?;
    ensure!(second.wait()?.code() == Some(5));

    terminal.send("exit 3\n")?;
    wait_for("ctr to end", || matches!(ctr.try_wait(), Ok(Some(_))))?;
    ensure!(ctr.wait()?.code() == Some(3));
    Ok(())
}

/// Several processes at once, each with its own exit code; signals reach the first one alone.
fn exec_and_kill(t: &mut T<'_, '_>) -> Result<()> {
    let id = t.start("c", &[], &["workload", "trap"])?;
    for code in [0, 3, 42] {
        let script = format!("echo out {code}; echo err >&2; exit {code}");
        let name = format!("x{code}");
        let done = t.containerd.ctr(&["tasks", "exec", "--exec-id", &name, &id, "sh", "-c", &script])?;
        ensure!(done.code() == code, "{done:?}");
        ensure!(done.stdout == format!("out {code}\n") && done.stderr.ends_with("err\n"), "{done:?}");
    }
    let done = t.containerd.ctr(&["tasks", "exec", "--exec-id", "no", &id, "no-such-program"])?.err()?;
    has(&done.stderr, "executable file not found in $PATH")?;
    let processes = t.containerd.ctr_ok(&["tasks", "ps", &id])?;
    has(&processes, &t.containerd.pid(&id)?.to_string())?;

    t.containerd.ctr_ok(&["tasks", "kill", "--signal", "SIGUSR1", &id])?;
    wait_for("the signal to arrive", || {
        fs::read_to_string(t.log("c")).is_ok_and(|log| log.contains("USR1"))
    })?;
    t.containerd.ctr_ok(&["tasks", "kill", "--signal", "SIGKILL", &id])?;
    t.containerd.wait_status(&id, "STOPPED")?;
    let again = t.containerd.ctr(&["tasks", "kill", &id])?.err()?;
    has(&again.stderr, "process already finished")?;
    let deleted = t.containerd.ctr(&["tasks", "delete", &id])?.ok()?;
    has(&deleted.stderr, "exit code 137")?;
    t.containerd.ctr_ok(&["containers", "delete", &id]).map(drop)
}

/// Pause stops it, resume goes on. This kernel or runtime can't checkpoint: the error says so, the container goes on.
fn pause_and_checkpoint(t: &mut T<'_, '_>) -> Result<()> {
    let id = t.start("c", &[], &["workload", "log", "1000000", "stdout", "10"])?;
    let lines = || fs::read_to_string(t.log("c")).map_or(0, |log| log.lines().count());
    wait_for("the first line", || lines() > 0)?;
    t.containerd.ctr_ok(&["tasks", "pause", &id])?;
    ensure!(t.containerd.status(&id)? == "PAUSED");
    let frozen = limit("freezer", &t.containerd.scope.cgroup("c"), "freezer.state")?;
    ensure!(frozen == "FROZEN", "{frozen}");
    t.containerd.ctr_ok(&["tasks", "resume", &id])?;
    ensure!(t.containerd.status(&id)? == "RUNNING");
    let before = lines();
    wait_for("it to go on", || lines() > before)?;

    let image = t.containerd.scope.path("checkpoint");
    let image = image.to_str().context("path")?;
    let done = t.containerd.ctr(&["tasks", "checkpoint", "--image-path", image, &id])?.err()?;
    has(&done.stderr.to_lowercase(), "checkpoint")?;
    ensure!(t.containerd.status(&id)? == "RUNNING");
    let before = lines();
    wait_for("it to go on after the checkpoint", || lines() > before)?;
    t.remove(&id)
}

/// Limits are in the cgroup; containerd reads its metrics from there.
fn limits_and_metrics(t: &mut T<'_, '_>) -> Result<()> {
    let options = ["--memory-limit", "67108864", "--cpus", "0.5", "--cpu-shares", "300"];
    let id = t.start("c", &options, &["workload", "sleep"])?;
    let cgroup = t.containerd.scope.cgroup("c");
    ensure!(limit("memory", &cgroup, "memory.limit_in_bytes")? == "67108864");
    ensure!(limit("cpu", &cgroup, "cpu.shares")? == "300");
    let quota: i64 = limit("cpu", &cgroup, "cpu.cfs_quota_us")?.parse()?;
    ensure!(quota * 2 == limit("cpu", &cgroup, "cpu.cfs_period_us")?.parse::<i64>()?, "{quota}");
    let metrics = t.containerd.ctr_ok(&["tasks", "metrics", &id])?;
    let usage = metrics.lines().find_map(|line| line.strip_prefix("memory.usage_in_bytes"));
    ensure!(usage.context("no memory")?.trim().parse::<u64>()? > 0, "{metrics}");
    t.remove(&id)
}

/// Output into a file and into a program of the user's.
fn logs(t: &mut T<'_, '_>) -> Result<()> {
    // It lives until its output has arrived: runc's shim loses what a container says just before its end.
    let run = ["sh", "-c", "echo to stdout; echo to stderr >&2; exec workload sleep"];
    let id = t.start("file", &[], &run)?;
    wait_for("both in the file", || {
        let log = fs::read_to_string(t.log("file")).unwrap_or_default();
        log.contains("to stdout\n") && log.contains("to stderr\n")
    })?;
    t.remove(&id)?;

    // The program gets the streams as 3 and 4, and says that it is ready by closing 5. It is told to end when the
    // container is deleted, and goes on to the end of both.
    let (program, written) = (t.containerd.scope.path("logger"), t.containerd.scope.path("logged"));
    let id = t.id("program");
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\n[ \"$CONTAINER_ID\" = {id} ] || exit 1\nexec 5>&-\n\
         cat <&4 >{out}.err &\ncat <&3 >{out}\nwait\necho end >>{out}.err\n",
        out = written.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let uri = format!("binary://{}", program.display());
    let args = t.run("program", &["--detach", "--log-uri", &uri], &run)?;
    t.containerd.ctr_ok(&words(&args))?;
    let read = |end: &str| fs::read_to_string(format!("{}{end}", written.display())).unwrap_or_default();
    wait_for("the program to have both", || read("") == "to stdout\n" && read(".err") == "to stderr\n")?;
    t.remove(&id)?;
    wait_for("the program to see the end", || read(".err") == "to stderr\nend\n")
}

/// What containerd publishes of a container's life, in the order in which it happens.
fn events_come_in_order(t: &mut T<'_, '_>) -> Result<()> {
    let log = t.containerd.scope.path("events");
    let mut events = Background::start(&mut t.containerd.command(&["events"]), &log)?;
    // The subscription has begun when something that happened after it is seen.
    wait_for("the subscription", || {
        t.containerd.ctr(&["images", "label", &t.image, "seen=yes"]).is_ok()
            && events.log().contains("/images/update")
    })?;
    let id = t.start("c", &[], &["workload", "sleep"])?;
    t.containerd.ctr_ok(&["tasks", "exec", "--exec-id", "x", &id, "true"])?;
    t.containerd.ctr_ok(&["tasks", "pause", &id])?;
    t.containerd.ctr_ok(&["tasks", "resume", &id])?;
    t.remove(&id)?;
    let seen = events.wait_output("/containers/delete")?;
    let topics: Vec<&str> = seen.split_whitespace().filter_map(|word| word.strip_prefix("/tasks/")).collect();
    let expected =
        ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"];
    ensure!(topics == expected, "{topics:?} in\n{seen}");
    Ok(())
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
