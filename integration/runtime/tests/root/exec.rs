//! exec: a second process in a running container.

use std::fs;

use anyhow::{Result, ensure};
use integration_support::{Bundle, ConsoleSocket, Kind, run, wait_for};
use serde_json::json;

use crate::{T, has, has_one, value};

crate::each_runtime!(
    output_and_exit_code,
    input_arrives,
    killed_by_a_signal,
    sees_the_container,
    inherits_the_configuration,
    user_cwd_and_env,
    process_file,
    capabilities_and_privileges_can_be_given,
    seccomp_holds,
    detached_with_pid_file,
    with_a_terminal,
    preserved_descriptors_arrive,
    null_is_the_containers_own,
    no_descriptor_leaks,
    in_a_stopped_container_is_refused,
    in_a_created_container_is_refused_or_runs,
    an_unknown_program_is_named,
    many_at_once,
    ends_with_the_container,
);

fn busy<'a>(t: &'a T<'_>) -> Result<integration_support::Container<'a>> {
    t.start(t.sh("sleep 10000"))
}

fn output_and_exit_code(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let finished = container.exec(&[], &["/bin/sh", "-c", "echo out; echo err >&2; exit 17"])?;
    ensure!(finished.stdout == "out\n" && finished.stderr.starts_with("err\n"), "{finished:?}");
    ensure!(finished.code() == 17, "{finished:?}");
    container.delete(&["--force"])
}

fn input_arrives(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let mut command = t.rt.command();
    command.args(["exec", container.id(), "/bin/cat"]);
    let finished =
        integration_support::run_with_deadline(&mut command, integration_support::DEADLINE, b"through\n")?;
    ensure!(finished.ok()?.stdout == "through\n");
    container.delete(&["--force"])
}

fn killed_by_a_signal(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let finished = container.exec(&[], &["/bin/workload", "kill-self", "SIGKILL"])?;
    ensure!(finished.code() == 128 + 9, "{finished:?}");
    container.delete(&["--force"])
}

fn sees_the_container(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let inside = container.exec(&[], &["/bin/workload", "namespaces"])?.ok()?.stdout;
    let pid = container.pid()?;
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        has(&inside, &link.to_string_lossy())?;
    }
    has(&container.exec(&[], &["/bin/cat", "/proc/1/cmdline"])?.ok()?.stdout, "sleep\u{0}10000")?;
    container.delete(&["--force"])
}

fn inherits_the_configuration(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 runs it as root in / unless told otherwise") {
        return Ok(());
    }
    let bundle = t.sh("sleep 10000").env("FROM", "config").set("/process/cwd", json!("/usr"));
    let container = t.start(bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})))?;
    let out = container.exec(&[], &["/bin/sh", "-c", "id -u; pwd; echo $FROM"])?.ok()?.stdout;
    ensure!(out == "1000\n/usr\nconfig\n", "{out}");
    let out =
        container.exec(&[], &["/bin/workload", "all", "caps", ",", "limits", "RLIMIT_NOFILE"])?.ok()?.stdout;
    ensure!(value(&out, "NoNewPrivs")? == "1" && value(&out, "CapBnd")? == "00000000a80425fb", "{out}");
    ensure!(value(&out, "RLIMIT_NOFILE")? == "1024 1024", "{out}");
    container.delete(&["--force"])
}

fn user_cwd_and_env(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let script = ["/bin/sh", "-c", "id -u; id -g; pwd; echo $A $B"];
    let options = ["--user", "1000:2000", "--cwd", "/tmp", "--env", "A=1", "--env", "B=2"];
    let out = container.exec(&options, &script)?.ok()?.stdout;
    ensure!(out == "1000\n2000\n/tmp\n1 2\n", "{out}");
    container.delete(&["--force"])
}

fn process_file(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let path = t.scope.path("process.json");
    let process = json!({
        "args": ["/bin/workload", "all", "id", ",", "pwd", ",", "caps", ",", "env"],
        "env": ["ONLY=this"], "cwd": "/etc",
        "user": {"uid": 65534, "gid": 65534, "additionalGids": [2000]},
        "capabilities": {"bounding": ["CAP_CHOWN"], "permitted": [], "effective": []},
        "noNewPrivileges": true,
    });
    fs::write(&path, process.to_string())?;
    let mut command = t.rt.command();
    command.args(["exec", "--process"]).arg(&path).arg(container.id());
    let out = run(&mut command)?.ok()?.stdout;
    ensure!(value(&out, "uid")? == "65534", "{out}");
    has(value(&out, "groups")?, "2000")?;
    ensure!(value(&out, "CapBnd")? == "0000000000000001", "{out}");
    has(&out, "/etc\n")?;
    has(&out, "ONLY=this\n")?;
    container.delete(&["--force"])
}

fn capabilities_and_privileges_can_be_given(t: &T<'_>) -> Result<()> {
    let container = t.start(t.sh("sleep 10000").set("/process/noNewPrivileges", json!(false)))?;
    let out = container.exec(&["--cap", "CAP_NET_ADMIN"], &["/bin/workload", "caps"])?.ok()?.stdout;
    let effective = u64::from_str_radix(value(&out, "CapEff")?, 16)?;
    ensure!(effective & (1 << 12) != 0, "CAP_NET_ADMIN isn't there: {out}");
    container.delete(&["--force"])
}

fn seccomp_holds(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let out = container.exec(&[], &["/bin/workload", "all", "caps", ",", "unshare", "user"])?.ok()?.stdout;
    ensure!(value(&out, "Seccomp")? == "2", "{out}");
    has(&out, "unshare: EPERM")?;
    container.delete(&["--force"])
}

fn detached_with_pid_file(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let pid_file = t.scope.path("pid");
    let options = ["--detach", "--pid-file", &pid_file.to_string_lossy()];
    container.exec(&options, &["/bin/workload", "sleep"])?.ok()?;
    let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
    // runc returns before its init has become the program.
    wait_for("the program to run", || {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|command| command == "/bin/workload\0sleep\0")
    })?;
    container.delete(&["--force"])
}

fn with_a_terminal(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let socket = ConsoleSocket::bind(t.scope.path("tty.sock"))?;
    let options = ["--tty", "--detach", "--console-socket", &socket.path().to_string_lossy()];
    container.exec(&options, &["/bin/sh", "-c", "tty; read x; echo got $x"])?.ok()?;
    let mut console = socket.receive()?;
    console.expect("/dev/pts/")?;
    console.send("typed\n")?;
    console.expect("got typed")?;
    drop(console);
    container.delete(&["--force"])
}

fn preserved_descriptors_arrive(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let path = t.scope.path("passed-in");
    fs::write(&path, "through a descriptor")?;
    let mut inner = t.rt.command();
    inner.args(["exec", "--preserve-fds", "1", container.id(), "/bin/sh", "-c", "cat <&3"]);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "exec 3<\"$0\"; exec \"$@\""])
        .arg(&path)
        .arg(inner.get_program())
        .args(inner.get_args());
    ensure!(run(&mut command)?.ok()?.stdout == "through a descriptor");
    container.delete(&["--force"])
}

/// Both stdin of the test's and /dev/null are the same device, but not the same file.
fn null_is_the_containers_own(t: &T<'_>) -> Result<()> {
    if t.rt.kind() != Kind::Corten {
        integration_support::skip("not every release of the peers does so for exec");
        return Ok(());
    }
    let container = busy(t)?;
    let script = "stat -L -c %d:%i /proc/self/fd/0 /dev/null";
    let out = container.exec(&[], &["/bin/sh", "-c", script])?.ok()?.stdout;
    let mut lines = out.lines();
    ensure!(lines.next().is_some_and(|stdin| Some(stdin) == lines.next()), "{out}");
    container.delete(&["--force"])
}

/// CVE-2024-21626 again, by the other door.
fn no_descriptor_leaks(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let out = container.exec(&[], &["/bin/workload", "fds"])?.ok()?.stdout;
    ensure!(out.lines().count() == 3, "{out}");
    for fd in 3..10 {
        let cwd = format!("/proc/self/fd/{fd}");
        let finished = container.exec(&["--cwd", &cwd], &["/bin/workload", "pwd"])?;
        ensure!(!finished.status.success(), "{cwd} led somewhere: {finished:?}");
    }
    container.delete(&["--force"])
}

fn in_a_stopped_container_is_refused(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["exit", "0"]))?;
    container.wait_status("stopped")?;
    let refused = container.exec(&[], &["/bin/workload", "echo", "x"])?.err()?;
    has_one(&refused.stderr, &["stopped", "not running"])?;
    container.delete(&[])
}

fn in_a_created_container_is_refused_or_runs(t: &T<'_>) -> Result<()> {
    // The spec has it refused; runc allows it, and engines rely on that. Either way it mustn't hang.
    let bundle = t.workload(&["sleep"]).write()?;
    let container = t.rt.create(&bundle, &[])?;
    container.exec(&[], &["/bin/workload", "echo", "x"])?;
    ensure!(container.status()? == "created");
    container.delete(&["--force"])
}

fn an_unknown_program_is_named(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    let refused = container.exec(&[], &["/bin/nothing-here"])?.err()?;
    has(&refused.stderr, "nothing-here")?;
    has_one(&refused.stderr, &["no such file or directory", "not found", "No such file"])?;
    container.delete(&["--force"])
}

fn many_at_once(t: &T<'_>) -> Result<()> {
    let container = busy(t)?;
    std::thread::scope(|threads| {
        let handles: Vec<_> = (0..8)
            .map(|n| {
                let word = n.to_string();
                let container = &container;
                threads.spawn(move || container.exec(&[], &["/bin/workload", "echo", &word])?.ok())
            })
            .collect();
        for (n, handle) in handles.into_iter().enumerate() {
            let finished = handle.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            ensure!(finished.stdout == format!("{n}\n"), "{finished:?}");
        }
        Ok(())
    })?;
    container.delete(&["--force"])
}

fn ends_with_the_container(t: &T<'_>) -> Result<()> {
    let bundle = Bundle::sh(t.scope, "c", "sleep 10000");
    let container = t.start(bundle)?;
    let mut command = t.rt.command();
    command.args(["exec", container.id(), "/bin/sh", "-c", "touch /tmp/started; sleep 10000"]);
    let mut child = command.stdin(std::process::Stdio::null()).spawn()?;
    let started = t.scope.path("bundle-c/rootfs/tmp/started");
    wait_for("the exec to run", || started.exists())?;
    container.delete(&["--force"])?;
    wait_for("exec to end with the container", || child.try_wait().is_ok_and(|s| s.is_some()))?;
    ensure!(!child.wait()?.success());
    Ok(())
}
