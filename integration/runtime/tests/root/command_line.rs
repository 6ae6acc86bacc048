//! The command line itself: flags in any order, closed pipes, the log.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use integration_support::{Kind, run, wait_for};
use serde_json::{Value, json};

use crate::{T, has};

crate::each_runtime!(ps_of_a_container, update_keeps_what_is_not_given, update_from_stdin);
crate::each_runtime!(@one corten_alone Corten
    flags_after_the_id a_closed_pipe_is_no_failure closed_descriptors_are_not_reused ps_of_a_stopped_container_is_empty help_and_version
    wrong_command_lines_are_logged spec_makes_a_bundle_that_runs every_command_has_help
);

fn flags_after_the_id(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).write()?;
    let pid_file = t.scope.path("pid");
    let mut create = t.rt.command();
    create.args(["create", bundle.id(), "--bundle"]).arg(bundle.dir()).arg("--pid-file").arg(&pid_file);
    // Whoever makes it holds its output.
    run(&mut create)?.ok()?;
    run(t.rt.command().args(["start", bundle.id()]))?.ok()?;
    run(t.rt.command().args(["kill", bundle.id(), "KILL", "--all"]))?.ok()?;
    run(t.rt.command().args(["delete", bundle.id(), "--force"]))?.ok()?;
    ensure!(pid_file.exists());
    Ok(())
}

fn a_closed_pipe_is_no_failure(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let id = container.id();
    for arguments in [
        &["state", id][..],
        &["list"],
        &["list", "--quiet"],
        &["list", "--format", "json"],
        &["ps", id],
        &["ps", "--format", "json", id],
        &["events", "--stats", id],
        &["features"],
        &["version"],
        &["--version"],
        &["--help"],
        &["exec", "--help"],
        &[],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let errors = tempfile_in(t)?;
        let mut command = t.rt.command();
        command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(errors.1);
        let mut child = command.spawn()?;
        drop(command);
        wait_for("it to end", || child.try_wait().is_ok_and(|status| status.is_some()))?;
        let said = std::fs::read_to_string(&errors.0)?;
        ensure!(child.wait()?.success() && said.is_empty(), "{arguments:?}: {said}");
        // And errors that nobody reads.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = t.rt.command();
        command.args(["state", "nobody"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        ensure!(command.status()?.code() == Some(1));
    }
    container.delete(&["--force"])
}

fn tempfile_in(t: &T<'_>) -> Result<(std::path::PathBuf, std::fs::File)> {
    let path = t.scope.path("errors");
    Ok((path.clone(), std::fs::File::create(path)?))
}

/// The log would get their numbers, and with them what the container writes.
fn closed_descriptors_are_not_reused(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("echo spilled && echo spilled >&2 && test -c /proc/self/fd/0").write()?;
    let (log, corten) = (t.scope.path("closed.log"), t.rt.command());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"]).arg(corten.get_program()).args(corten.get_args());
    command.args(["--debug", "--log"]).arg(&log).args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
    let status = command.status()?;
    let logged = std::fs::read_to_string(&log)?;
    ensure!(
        status.success() && logged.contains("init is") && !logged.contains("spilled"),
        "{status}: {logged}"
    );
    Ok(())
}

fn ps_of_a_container(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let pid = container.pid()?;
    let json = run(t.rt.command().args(["ps", "--format", "json", container.id()]))?.ok()?;
    ensure!(serde_json::from_str::<Value>(&json.stdout)? == json!([pid]), "{json:?}");
    if t.rt.kind() != Kind::Crun {
        let table = run(t.rt.command().args(["ps", container.id(), "-ef"]))?.ok()?;
        ensure!(table.stdout.lines().count() == 2, "a head and one process: {table:?}");
        has(&table.stdout, "/bin/workload sleep")?;
    }
    container.delete(&["--force"])
}

fn ps_of_a_stopped_container_is_empty(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["exit", "0"]))?;
    container.wait_status("stopped")?;
    let table = container.call(&["ps"])?.ok()?.stdout;
    ensure!(table.lines().count() == 1, "{table}");
    container.delete(&[])
}

/// A limit as the kernel has it, on v1 or v2.
fn limit(t: &T<'_>, v1: (&str, &str), v2: &str) -> Result<String> {
    let below = t.scope.cgroup("c");
    let old = format!("/sys/fs/cgroup/{}{below}/{}", v1.0, v1.1);
    let new = format!("/sys/fs/cgroup{below}/{v2}");
    let text = std::fs::read_to_string(old).or_else(|_| std::fs::read_to_string(new))?;
    Ok(text.trim().to_owned())
}

fn update_keeps_what_is_not_given(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let memory = || limit(t, ("memory", "memory.limit_in_bytes"), "memory.max");
    let pids = || limit(t, ("pids", "pids.max"), "pids.max");
    ensure!((memory()?.as_str(), pids()?.as_str()) == ("268435456", "1024"));
    run(t.rt.command().args(["update", "--pids-limit", "55", container.id()]))?.ok()?;
    ensure!((memory()?.as_str(), pids()?.as_str()) == ("268435456", "55"));
    run(t.rt.command().args([
        "update",
        "--memory",
        "300000000",
        "--memory-swap",
        "300000000",
        container.id(),
    ]))?
    .ok()?;
    // Whole pages.
    ensure!((memory()?.as_str(), pids()?.as_str()) == ("299999232", "55"), "{} {}", memory()?, pids()?);
    // Nor have the device rules gone: /dev/null is still allowed, and nothing else has become so.
    let exec = container.exec(
        &[],
        &[
            "/bin/workload",
            "all",
            "open",
            "/dev/null",
            "rw",
            ",",
            "mknod",
            "/dev/m",
            "c",
            "1",
            "1",
            ",",
            "open",
            "/dev/m",
        ],
    )?;
    has(&exec.ok()?.stdout, "EPERM")?;
    container.delete(&["--force"])
}

fn update_from_stdin(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let mut command = t.rt.command();
    command.args(["update", "--resources", "-", container.id()]);
    let limits = br#"{"pids": {"limit": 66}}"#;
    integration_support::run_with_deadline(&mut command, integration_support::DEADLINE, limits)?.ok()?;
    ensure!(limit(t, ("pids", "pids.max"), "pids.max")? == "66");
    container.delete(&["--force"])
}

fn help_and_version(t: &T<'_>) -> Result<()> {
    has(&t.rt.call(&["--version"])?.ok()?.stdout, "spec: 1.")?;
    has(&t.rt.call(&["help", "checkpoint"])?.ok()?.stdout, "--leave-running")?;
    has(&t.rt.call(&["create", "--help"])?.ok()?.stdout, "--console-socket")
}

fn every_command_has_help(t: &T<'_>) -> Result<()> {
    let help = t.rt.call(&["--help"])?.ok()?.stdout;
    for command in [
        "checkpoint",
        "create",
        "delete",
        "events",
        "exec",
        "features",
        "kill",
        "list",
        "pause",
        "ps",
        "restore",
        "resume",
        "run",
        "spec",
        "start",
        "state",
        "update",
        "version",
    ] {
        has(&help, &format!("\n  {command} "))?;
        has(&t.rt.call(&[command, "--help"])?.ok()?.stdout, "Usage:")?;
    }
    Ok(())
}

fn wrong_command_lines_are_logged(t: &T<'_>) -> Result<()> {
    let log = t.scope.path("log.json");
    let mut command = t.rt.command();
    command.arg("--log").arg(&log).args(["--log-format", "json", "state", "--bogus", "x"]);
    run(&mut command)?.err()?;
    let line: Value = serde_json::from_str(std::fs::read_to_string(&log)?.trim())?;
    ensure!(
        line["level"] == "error" && line["msg"].as_str().is_some_and(|m| m.contains("--bogus")),
        "{line}"
    );
    Ok(())
}

fn spec_makes_a_bundle_that_runs(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("").write()?;
    std::fs::remove_file(bundle.dir().join("config.json"))?;
    let mut command = t.rt.command();
    run(command.arg("spec").arg("--bundle").arg(bundle.dir()))?.ok()?;
    let path = bundle.dir().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sh", "-c", "echo fine"]);
    config["linux"]["cgroupsPath"] = json!(t.scope.cgroup("c"));
    std::fs::write(&path, config.to_string())?;
    ensure!(t.rt.run(&bundle)?.ok()?.stdout == "fine\n");
    Ok(())
}
