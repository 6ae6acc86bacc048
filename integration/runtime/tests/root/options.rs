//! Options of exec, create and run that no other test needs.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use integration_support::{Bundle, Container, Kind, run, wait_for};
use serde_json::{Value, json};

use crate::{T, has, value};

crate::each_runtime!(listen_fds_are_passed_on, more_groups, exec_in_a_cgroup_below);
crate::each_runtime!(@one corten_alone Corten
    pidfds_are_sent run_keeps_the_container_if_asked exec_in_a_cgroup_below_of_one_controller
    labels_are_refused_where_there_is_no_module too_many_preserved_descriptors_are_named no_new_privileges_by_flag
    global_flags_after_the_command nothing_of_ours_is_passed_on no_pid_file_of_a_failure
    hooks_in_the_foreground_get_signals
);

/// `command` as a shell runs it that sets LISTEN_FDS for itself and becomes it, with a file as descriptor 3.
fn socket_activated(t: &T<'_>, command: &Command) -> Result<Command> {
    let path = t.scope.path("passed");
    fs::write(&path, "through a socket unit's descriptor")?;
    let mut shell = Command::new("sh");
    let script = "exec 3<\"$0\"; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\"";
    shell.args(["-c", script]).arg(path).arg(command.get_program()).args(command.get_args());
    Ok(shell)
}

fn listen_fds_are_passed_on(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "the shell that hides its controllers stands between crun and LISTEN_PID") {
        return Ok(());
    }
    let bundle = t.sh("cat <&3; echo; echo $LISTEN_FDS $LISTEN_PID").write()?;
    let mut command = t.rt.command();
    command.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
    let out = run(&mut socket_activated(t, &command)?)?.ok()?.stdout;
    ensure!(out == "through a socket unit's descriptor\n1 1\n", "{out}");
    Ok(())
}

fn more_groups(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 has no --additional-gids") {
        return Ok(());
    }
    let container = t.start(t.workload(&["sleep"]))?;
    let groups = ["--additional-gids", "100", "--additional-gids", "65534"];
    let out = container.exec(&groups, &["/bin/workload", "id"])?.ok()?.stdout;
    has(value(&out, "groups")?, "100, 65534")?;
    container.delete(&["--force"])
}

/// The container's cgroup in every hierarchy, by what /proc calls the hierarchy.
fn cgroups(container: &Container<'_>) -> Result<Vec<(String, PathBuf)>> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (name, path) = parts.next().zip(parts.next()).context("a line of /proc/<pid>/cgroup")?;
        let short = name.strip_prefix("name=").unwrap_or(name);
        let roots =
            [format!("/sys/fs/cgroup/{short}"), "/sys/fs/cgroup/unified".into(), "/sys/fs/cgroup".into()];
        let places = roots.iter().map(|root| PathBuf::from(format!("{root}{path}")));
        let place = places.into_iter().find(|place| place.join("cgroup.procs").exists());
        found.extend(place.map(|place| (name.to_owned(), place)));
    }
    Ok(found)
}

fn exec_in_a_cgroup_below(t: &T<'_>) -> Result<()> {
    if t.rt.kind() == Kind::Runc && !fs::exists("/sys/fs/cgroup/cgroup.controllers")? {
        integration_support::skip("runc 1.1 takes --cgroup path on v2 only");
        return Ok(());
    }
    if t.differs(Kind::Crun, "crun 1.8 has no v1 for --cgroup") {
        return Ok(());
    }
    // In the host's cgroup namespace, so that paths are whole.
    let container = t.start(t.workload(&["sleep"]).namespace("cgroup", None))?;
    let all = cgroups(&container)?;
    for (_, place) in &all {
        fs::create_dir(place.join("sub"))?;
        // A v1 cpuset begins empty, and nothing runs in it.
        for name in
            ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| place.join("cpuset.sched_load_balance").exists())
        {
            fs::write(place.join("sub").join(name), fs::read(place.join(name))?)?;
        }
    }
    let out = container.exec(&["--cgroup", "sub"], &["/bin/workload", "cgroup"])?.ok()?.stdout;
    let whole = |line: &str| line.ends_with(&format!("{}/sub", t.scope.cgroup("c")));
    ensure!(out.lines().filter(|line| whole(line)).count() >= all.len(), "{out}");
    let refused = container.exec(&["--cgroup", "nothing-there"], &["/bin/workload", "cgroup"])?.err()?;
    has(&refused.stderr, "nothing-there")?;
    // runc's words, but not those of 1.1.
    if t.rt.kind() == Kind::Corten {
        let outside = container.exec(&["--cgroup", ".."], &["/bin/workload", "cgroup"])?.err()?;
        has(&outside.stderr, "bad sub cgroup path")?;
    }
    container.delete(&["--force"])
}

fn exec_in_a_cgroup_below_of_one_controller(t: &T<'_>) -> Result<()> {
    if !fs::exists("/sys/fs/cgroup/pids/cgroup.procs")? {
        integration_support::skip("this machine has no cgroup v1 hierarchies");
        return Ok(());
    }
    let container = t.start(t.workload(&["sleep"]).namespace("cgroup", None))?;
    let all = cgroups(&container)?;
    let (_, place) = all.iter().find(|(name, _)| name == "pids").context("pids")?;
    fs::create_dir(place.join("sub"))?;
    let out = container.exec(&["--cgroup", "pids:sub"], &["/bin/workload", "cgroup"])?.ok()?.stdout;
    let below: Vec<&str> = out.lines().filter(|line| line.ends_with("/c/sub")).collect();
    ensure!(below.len() == 1 && below[0].contains(":pids:"), "{out}");
    let refused = container.exec(&["--cgroup", "dreams:sub"], &["/bin/workload", "cgroup"])?.err()?;
    has(&refused.stderr, "dreams")?;
    container.delete(&["--force"])
}

/// Receives a pidfd and says whose it is.
fn whose(listener: &UnixListener) -> Result<i32> {
    listener.set_nonblocking(true)?;
    let mut stream = None;
    wait_for("the runtime to connect", || {
        stream = listener.accept().ok();
        stream.is_some()
    })?;
    let (stream, _) = stream.context("a connection")?;
    stream.set_nonblocking(false)?;
    let (_, fds) = corten_sys::fds::receive(stream.as_fd(), &mut [0; 64])?;
    let pidfd = fds.into_iter().next().context("a descriptor")?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    Ok(value(&info.replace(":\t", ": "), "Pid")?.parse()?)
}

fn pidfds_are_sent(t: &T<'_>) -> Result<()> {
    let path = t.scope.path("pidfd.sock");
    let listener = UnixListener::bind(&path)?;
    let bundle = t.workload(&["sleep"]).write()?;
    let container = t.rt.create(&bundle, &["--pidfd-socket", &path.to_string_lossy()])?;
    ensure!(whose(&listener)? == container.pid()?);
    container.start()?;
    let pid_file = t.scope.path("pid");
    let (socket, file) = (path.to_string_lossy(), pid_file.to_string_lossy());
    let options = ["--detach", "--pidfd-socket", &socket, "--pid-file", &file];
    container.exec(&options, &["/bin/workload", "sleep"])?.ok()?;
    ensure!(whose(&listener)? == fs::read_to_string(&pid_file)?.trim().parse::<i32>()?);
    container.delete(&["--force"])
}

fn run_keeps_the_container_if_asked(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "3"]).write()?;
    ensure!(t.rt.run_with(&bundle, &["--keep"], b"")?.code() == 3);
    let state = run(t.rt.command().args(["state", bundle.id()]))?.ok()?.stdout;
    ensure!(serde_json::from_str::<Value>(&state)?["status"] == "stopped", "{state}");
    run(t.rt.command().args(["delete", bundle.id()]))?.ok()?;
    // And without, it's gone; also if it doesn't adopt the container's orphans.
    ensure!(t.rt.run_with(&bundle, &["--no-subreaper"], b"")?.code() == 3);
    run(t.rt.command().args(["state", bundle.id()]))?.err().map(drop)
}

fn labels_are_refused_where_there_is_no_module(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if apparmor.trim() != "Y" {
        let refused = container.exec(&["--apparmor", "some-profile"], &["/bin/workload", "pwd"])?.err()?;
        has(&refused.stderr, "AppArmor")?;
    }
    if !fs::exists("/sys/fs/selinux/enforce")? {
        let refused = container.exec(&["--process-label", "a:b:c"], &["/bin/workload", "pwd"])?.err()?;
        has(&refused.stderr, "SELinux")?;
    }
    ensure!(container.status()? == "running");
    container.delete(&["--force"])
}

fn too_many_preserved_descriptors_are_named(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let refused = container.exec(&["--preserve-fds", "50"], &["/bin/workload", "pwd"])?.err()?;
    has(&refused.stderr, "is it open?")?;
    container.delete(&["--force"])
}

/// CVE-2024-21626 by a third door: what the runtime itself opens gets the number of what is missing.
fn nothing_of_ours_is_passed_on(t: &T<'_>) -> Result<()> {
    let (bundle, log) = (t.workload(&["fds"]).write()?, t.scope.path("log"));
    let activated = "LISTEN_FDS=1; LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; ";
    for (environment, count) in
        [("", "1"), ("", "3"), ("", "4294967295"), (activated, "0"), (activated, "4294967295")]
    {
        let mut inner = t.rt.command();
        inner.arg("--log").arg(&log).args(["run", "--preserve-fds", count, "--bundle"]);
        inner.arg(bundle.dir()).arg(bundle.id());
        let mut shell = Command::new("sh");
        let script = format!("{environment}exec 3<&- 4<&- 5<&-; exec \"$@\"");
        shell.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        let refused = run(&mut shell)?.err()?;
        has(&refused.stderr, "pass on")?;
        has(&fs::read_to_string(&log)?, "corten run failed: cannot pass on")?;
        ensure!(refused.stdout.is_empty(), "the program ran: {refused:?}");
    }
    Ok(())
}

fn no_pid_file_of_a_failure(t: &T<'_>) -> Result<()> {
    let dir = t.scope.make_dir("pid-files")?;
    let path = dir.join("pid").to_string_lossy().into_owned();
    let bundle = Bundle::workload(t.scope, "none", &["exit", "0"]);
    let bundle = bundle.set("/process/args", json!(["/nothing-there"])).write()?;
    for name in ["create", "run"] {
        let mut command = t.rt.command();
        command.args([name, "--pid-file", &path, "--bundle"]);
        run(command.arg(bundle.dir()).arg(bundle.id()))?.err()?;
    }
    let container = t.start(t.workload(&["sleep"]))?;
    for options in [&["--pid-file", &path][..], &["--detach", "--pid-file", &path]] {
        container.exec(options, &["/nothing-there"])?.err()?;
    }
    ensure!(fs::read_dir(&dir)?.next().is_none(), "something is left in {}", dir.display());
    container.delete(&["--force"])
}

fn hooks_in_the_foreground_get_signals(t: &T<'_>) -> Result<()> {
    let out = t.scope.path("blocked");
    // exec, as dash unblocks all for what it forks.
    let script = format!("exec grep SigBlk /proc/self/status >> {}", out.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let bundle = kinds
        .iter()
        .fold(t.workload(&["exit", "0"]), |bundle, kind| bundle.set(&format!("/hooks/{kind}"), hook.clone()));
    t.out(bundle)?;
    ensure!(fs::read_to_string(&out)? == "SigBlk:\t0000000000000000\n".repeat(kinds.len()));
    Ok(())
}

fn no_new_privileges_by_flag(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]).set("/process/noNewPrivileges", json!(false)))?;
    for (options, expected) in [(&["--no-new-privs"][..], "1"), (&[], "0")] {
        let out = container.exec(options, &["/bin/workload", "caps"])?.ok()?.stdout;
        ensure!(value(&out, "NoNewPrivs")? == expected, "{out}");
    }
    container.delete(&["--force"])
}

fn global_flags_after_the_command(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let log = t.scope.path("log");
    let mut command = Command::new(t.rt.binary());
    command.args(["state", "--root"]).arg(t.rt.root()).arg(container.id());
    command.arg("--log").arg(&log).args(["--log-format=json", "--debug"]).stdin(Stdio::null());
    has(&run(&mut command)?.ok()?.stdout, "\"running\"")?;
    container.delete(&["--force"])
}
