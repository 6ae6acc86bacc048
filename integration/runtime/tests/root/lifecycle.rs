//! create, start, state, kill, delete, run, list: the life of a container and what each says when it can't.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind, run, wait_for};
use serde_json::{Value, json};

use crate::{T, has, has_one, lacks};

crate::each_runtime!(
    states,
    run_passes_the_exit_code_on,
    run_passes_a_signal_on,
    run_passes_input_and_output_on,
    run_forwards_signals,
    run_detached_returns_while_the_container_runs,
    start_twice_is_refused,
    start_of_a_stopped_container_is_refused,
    kill_takes_names_and_numbers,
    kill_of_a_stopped_container_is_refused,
    kill_all_reaches_every_process,
    a_created_container_ends_by_what_it_is_stopped_with,
    a_created_container_ends_where_signals_were_blocked,
    delete_of_a_running_container_needs_force,
    delete_of_a_created_container_kills_it,
    delete_with_force_of_nothing_is_fine,
    unknown_containers_are_named,
    a_used_id_is_refused,
    ids_that_could_escape_are_refused,
    pid_file_holds_the_pid,
    log_json_holds_the_error,
    list_shows_containers,
    an_unknown_program_is_named,
    a_program_that_may_not_run_is_named,
    the_program_is_looked_up_in_path,
    orphans_are_reaped_with_the_container,
    later_edits_of_the_bundle_have_no_effect,
    annotations_come_back,
);

/// What callers match on: runc's phrase, crun's several.
const GONE: [&str; 2] = ["does not exist", "No such file or directory"];

fn states(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).write()?;
    let container = t.rt.create(&bundle, &[])?;
    let state = container.state()?;
    ensure!(state["status"] == "created", "{state}");
    ensure!(state["id"] == bundle.id(), "{state}");
    ensure!(state["bundle"] == bundle.dir().to_string_lossy().as_ref(), "{state}");
    ensure!(state["ociVersion"].is_string(), "{state}");
    let pid = container.pid()?;
    ensure!(pid > 1, "{state}");
    container.start()?;
    ensure!(container.status()? == "running");
    ensure!(container.pid()? == pid, "start changed the pid");
    container.kill("TERM")?;
    container.wait_status("stopped")?;
    container.delete(&[])?;
    let gone = container.call(&["state"])?.err()?;
    has_one(&gone.stderr, &GONE)
}

fn run_passes_the_exit_code_on(t: &T<'_>) -> Result<()> {
    for code in ["0", "1", "42", "255"] {
        let bundle = Bundle::workload(t.scope, &format!("e{code}"), &["exit", code]).write()?;
        let finished = t.rt.run(&bundle)?;
        ensure!(finished.code().to_string() == code, "expected {code}: {finished:?}");
    }
    Ok(())
}

fn run_passes_a_signal_on(t: &T<'_>) -> Result<()> {
    // PID 1 of a namespace can't be killed by its own signals, so the container shares the host's PID namespace.
    let bundle = t.workload(&["kill-self", "SIGTERM"]).namespace("pid", None).write()?;
    let finished = t.rt.run(&bundle)?;
    ensure!(finished.code() == 128 + 15, "{finished:?}");
    Ok(())
}

fn run_passes_input_and_output_on(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["cat-stdin"]).write()?;
    let finished = t.rt.run_with(&bundle, &[], b"over the river\n")?.ok()?;
    ensure!(finished.stdout == "over the river\n", "{finished:?}");
    let bundle = Bundle::workload(t.scope, "both", &["log", "2", "both"]).write()?;
    let finished = t.rt.run(&bundle)?.ok()?;
    ensure!(finished.stdout == "line 1\nline 2\n", "{finished:?}");
    ensure!(finished.stderr == "error line 1\nerror line 2\n", "{finished:?}");
    Ok(())
}

fn run_forwards_signals(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["trap"]).write()?;
    let out = t.scope.path("out");
    let mut command = t.rt.command();
    command.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    let mut child =
        command.stdout(std::fs::File::create(&out)?).stdin(std::process::Stdio::null()).spawn()?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    let shows = |text: &str| std::fs::read_to_string(&out).is_ok_and(|o| o.contains(text));
    wait_for("the workload to be ready", || shows("ready"))?;
    nix::sys::signal::kill(pid, nix::sys::signal::SIGUSR1)?;
    wait_for("the signal to arrive", || shows("SIGUSR1"))?;
    nix::sys::signal::kill(pid, nix::sys::signal::SIGINT)?;
    wait_for("run to end", || child.try_wait().is_ok_and(|s| s.is_some()))?;
    ensure!(child.wait()?.success());
    Ok(())
}

fn run_detached_returns_while_the_container_runs(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).write()?;
    let pid_file = t.scope.path("pid");
    let options = ["--detach", "--pid-file", &pid_file.to_string_lossy()];
    let mut command = t.rt.command();
    command.arg("run").arg("--bundle").arg(bundle.dir()).args(options).arg(bundle.id());
    run(&mut command)?.ok()?;
    let state = run(t.rt.command().args(["state", bundle.id()]))?.ok()?;
    let state: Value = serde_json::from_str(&state.stdout)?;
    ensure!(state["status"] == "running", "{state}");
    ensure!(state["pid"].to_string() == std::fs::read_to_string(&pid_file)?.trim());
    run(t.rt.command().args(["delete", "--force", bundle.id()]))?.ok().map(drop)
}

fn start_twice_is_refused(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    container.call(&["start"])?.err()?;
    ensure!(container.status()? == "running", "a refused start must not harm");
    container.delete(&["--force"])
}

fn start_of_a_stopped_container_is_refused(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["exit", "0"]))?;
    container.wait_status("stopped")?;
    container.call(&["start"])?.err()?;
    container.delete(&[])
}

fn kill_takes_names_and_numbers(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["trap"]))?;
    container.wait_log("ready")?;
    for (given, seen) in [("USR1", "SIGUSR1"), ("SIGUSR2", "SIGUSR2"), ("1", "SIGHUP"), ("TERM", "SIGTERM")] {
        container.kill(given)?;
        container.wait_log(&format!("signal: {seen}"))?;
    }
    let wrong = run(t.rt.command().args(["kill", container.id(), "SIGNONSENSE"]))?;
    if t.rt.kind() != Kind::Crun {
        has(&wrong.err()?.stderr, "NONSENSE")?;
    }
    container.kill("KILL")?;
    container.wait_status("stopped")?;
    container.delete(&[])
}

fn kill_of_a_stopped_container_is_refused(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["exit", "0"]))?;
    container.wait_status("stopped")?;
    let refused = run(t.rt.command().args(["kill", container.id(), "TERM"]))?.err()?;
    // Callers match on these phrases: runc's two, crun's one.
    has_one(&refused.stderr, &["container not running", "process already finished", "No such process"])?;
    container.delete(&[])
}

fn kill_all_reaches_every_process(t: &T<'_>) -> Result<()> {
    // Without a PID namespace of its own, only the cgroup knows who belongs to the container.
    let container = t.start(t.workload(&["tree", "3"]).namespace("pid", None))?;
    container.wait_log("planted")?;
    let pids = pids(&container.log()?);
    ensure!(pids.len() == 3, "{pids:?}");
    run(t.rt.command().args(["kill", "--all", container.id(), "KILL"]))?.ok()?;
    container.wait_status("stopped")?;
    wait_for("all of its processes to be gone", || pids.iter().all(|p| ended(*p)))?;
    container.delete(&[])
}

fn a_created_container_ends_by_what_it_is_stopped_with(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun's init is PID 1 without handlers: the kernel keeps signals from it") {
        return Ok(());
    }
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        let bundle = Bundle::workload(t.scope, &format!("s{signal}"), &["sleep"]).write()?;
        let container = t.rt.create(&bundle, &[])?;
        container.kill(signal)?;
        container.wait_status("stopped")?;
        container.call(&["start"])?.err()?;
        container.delete(&[])?;
    }
    // One that is in no PID namespace of its own dies of anything.
    let bundle = Bundle::workload(t.scope, "shared", &["sleep"]).namespace("pid", None).write()?;
    let container = t.rt.create(&bundle, &[])?;
    container.kill("TERM")?;
    container.wait_status("stopped")?;
    container.delete(&[])
}

/// Whatever was blocked where it was created.
fn a_created_container_ends_where_signals_were_blocked(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun's init leaves them blocked") {
        return Ok(());
    }
    let own = Bundle::workload(t.scope, "own", &["sleep"]).write()?;
    let shared = Bundle::workload(t.scope, "shared", &["sleep"]).namespace("pid", None).write()?;
    for bundle in [own, shared] {
        let corten = t.rt.command();
        let mut create = Command::new("env");
        create.args(["--block-signal=TERM,HUP,INT,QUIT"]).arg(corten.get_program()).args(corten.get_args());
        create.args(["create", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
        // Its init holds what it is given.
        create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(create.status()?.success());
        let status = || {
            let state = run(t.rt.command().args(["state", bundle.id()]))?.ok()?.stdout;
            let state: serde_json::Value = serde_json::from_str(&state)?;
            anyhow::Ok(state["status"].as_str().unwrap_or_default().to_owned())
        };
        ensure!(status()? == "created");
        run(t.rt.command().args(["kill", bundle.id(), "TERM"]))?.ok()?;
        wait_for("it to end", || status().is_ok_and(|status| status == "stopped"))?;
        run(t.rt.command().args(["delete", bundle.id()]))?.ok()?;
    }
    Ok(())
}

fn pids(log: &str) -> Vec<i32> {
    log.lines().filter_map(|l| l.strip_prefix("child: ")?.parse().ok()).collect()
}

/// Whether a process is gone, or a zombie that somebody will reap.
fn ended(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn delete_of_a_running_container_needs_force(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let refused = container.call(&["delete"])?.err()?;
    has_one(&refused.stderr, &["not stopped", "is running", "`stopped` state"])?;
    ensure!(container.status()? == "running", "a refused delete must not harm");
    container.delete(&["--force"])
}

fn delete_of_a_created_container_kills_it(t: &T<'_>) -> Result<()> {
    let container = t.rt.create(&t.workload(&["sleep"]).write()?, &[])?;
    container.delete(&[])
}

fn delete_with_force_of_nothing_is_fine(t: &T<'_>) -> Result<()> {
    run(t.rt.command().args(["delete", "--force", "nobody"]))?.ok()?;
    let refused = run(t.rt.command().args(["delete", "nobody"]))?.err()?;
    has_one(&refused.stderr, &GONE)
}

fn unknown_containers_are_named(t: &T<'_>) -> Result<()> {
    let calls: [&[&str]; 5] = [
        &["state", "nobody"],
        &["start", "nobody"],
        &["kill", "nobody", "TERM"],
        &["exec", "nobody", "/bin/true"],
        &["delete", "nobody"],
    ];
    for call in calls {
        let refused = t.rt.call(call)?.err()?;
        has_one(&refused.stderr, &GONE)?;
    }
    Ok(())
}

fn a_used_id_is_refused(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).write()?;
    let container = t.rt.start(&bundle)?;
    let mut again = t.rt.command();
    again.arg("create").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    has(&run(&mut again)?.err()?.stderr, "exist")?;
    ensure!(container.status()? == "running", "a refused create must not harm");
    container.delete(&["--force"])
}

fn ids_that_could_escape_are_refused(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).write()?;
    for id in ["..", ".", "a/b", "../escape", "a\\b", "a b", ""] {
        if t.rt.kind() == Kind::Crun && ["a\\b", "a b", ".", ""].contains(&id) {
            continue; // crun 1.8 takes nearly every id that has no slash
        }
        let mut command = t.rt.command();
        command.arg("run").arg("--bundle").arg(bundle.dir()).arg(id);
        run(&mut command)?.err()?;
    }
    ensure!(!t.scope.path("escape").exists());
    Ok(())
}

fn pid_file_holds_the_pid(t: &T<'_>) -> Result<()> {
    let pid_file = t.scope.path("pid");
    let bundle = t.workload(&["sleep"]).write()?;
    let container = t.rt.create(&bundle, &["--pid-file", &pid_file.to_string_lossy()])?;
    let written = std::fs::read_to_string(&pid_file)?;
    ensure!(written == container.pid()?.to_string(), "{written:?}");
    container.delete(&["--force"])
}

fn log_json_holds_the_error(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun calls the message `msg` too, but writes none for this error") {
        return Ok(());
    }
    let log = t.scope.path("log.json");
    let bundle = t.workload(&["sleep"]).set("/process/args", json!(["/bin/nothing-here"])).write()?;
    let mut command = t.rt.command();
    command.arg("--log").arg(&log).args(["--log-format", "json"]);
    command.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    run(&mut command)?.err()?;
    let text = std::fs::read_to_string(&log)?;
    let entries: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let error = entries.iter().rev().find(|e| e["level"] == "error");
    ensure!(error.is_some_and(|e| e["msg"].as_str().is_some_and(|m| m.contains("nothing-here"))), "{text}");
    ensure!(error.is_some_and(|e| e["time"].is_string()), "{text}");
    Ok(())
}

fn list_shows_containers(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    has(&t.rt.call(&["list"])?.ok()?.stdout, container.id())?;
    ensure!(t.rt.call(&["list", "-q"])?.ok()?.stdout.trim() == container.id());
    let json: Value = serde_json::from_str(&t.rt.call(&["list", "--format", "json"])?.ok()?.stdout)?;
    ensure!(json[0]["id"] == container.id() && json[0]["status"] == "running", "{json}");
    container.delete(&["--force"])?;
    lacks(&t.rt.call(&["list", "-q"])?.ok()?.stdout, container.id())
}

fn an_unknown_program_is_named(t: &T<'_>) -> Result<()> {
    for program in ["/bin/nothing-here", "nothing-here"] {
        let name = if program.starts_with('/') { "abs" } else { "rel" };
        let bundle = Bundle::workload(t.scope, name, &[]).set("/process/args", json!([program]));
        let said = t.refused(bundle)?;
        has(&said, "nothing-here")?;
        has_one(&said, &["no such file or directory", "not found", "No such file"])?;
    }
    Ok(())
}

fn a_program_that_may_not_run_is_named(t: &T<'_>) -> Result<()> {
    let said = t.refused(t.workload(&[]).set("/process/args", json!(["/etc/passwd"])))?;
    if t.rt.kind() != Kind::Crun {
        has(&said, "/etc/passwd")?;
    }
    has_one(&said, &["permission denied", "Permission denied", "is not executable"])
}

fn the_program_is_looked_up_in_path(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&[]).set("/process/args", json!(["workload", "echo", "found"]));
    ensure!(t.out(bundle)? == "found\n");
    Ok(())
}

fn orphans_are_reaped_with_the_container(t: &T<'_>) -> Result<()> {
    // Init ends and leaves orphans in its PID namespace: the kernel kills them, delete must not be kept waiting.
    let container = t.start(t.workload(&["fork", "3"]))?;
    container.wait_status("stopped")?;
    container.delete(&[])
}

fn later_edits_of_the_bundle_have_no_effect(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["echo", "first"]).write()?;
    let container = t.rt.create(&bundle, &[])?;
    bundle.clone().set("/process/args", json!(["/bin/workload", "echo", "second"])).write()?;
    container.start()?;
    container.wait_status("stopped")?;
    ensure!(container.log()? == "first\n", "{}", container.log()?);
    container.delete(&[])?;
    // The rootfs belongs to the caller and stays.
    ensure!(bundle.rootfs().metadata()?.nlink() > 2);
    Ok(())
}

fn annotations_come_back(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).set("/annotations", json!({"org.test/key": "value"}));
    let container = t.start(bundle)?;
    let state = container.state()?;
    ensure!(state["annotations"]["org.test/key"] == "value", "{state}");
    container.delete(&["--force"])
}
