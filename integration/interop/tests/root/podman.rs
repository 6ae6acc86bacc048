//! podman with `--runtime corten`.

use anyhow::{Context, Result, ensure};
use integration_interop::{Podman, has, limit, on_a_terminal, runs};
use integration_support::wait_for;

#[test]
fn run_to_the_end() -> Result<()> {
    Podman::test("podman-run", |podman| {
        let script = "echo out $A; echo err >&2; exit 7";
        let done = podman.run(&["--rm", "--env", "A=b"], &["sh", "-c", script])?;
        ensure!(done.code() == 7, "{done:?}");
        ensure!(done.stdout == "out b\n" && done.stderr == "err\n", "{done:?}");

        // podman's own exit codes come from the phrases of the runtime's errors.
        let missing = podman.run(&["--rm"], &["no-such-program"])?;
        ensure!(missing.code() == 127, "{missing:?}");
        has(&missing.stderr, "executable file not found in $PATH")?;
        let refused = podman.run(&["--rm"], &["/etc/passwd"])?;
        ensure!(refused.code() == 126, "{refused:?}");
        has(&refused.stderr, "permission denied")
    })
}

#[test]
fn a_terminal() -> Result<()> {
    Podman::test("podman-tty", |podman| {
        let args = podman.run_args(&["--rm", "--interactive", "--tty", "--name", "t"], &["sh"]);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let (mut child, mut terminal) = on_a_terminal(&mut podman.command(&args))?;
        terminal.send("tty; echo ready-$((40+2))\n")?;
        has(terminal.expect("ready-42")?, "/dev/pts/0")?;
        // podman tells the size after the start.
        terminal
            .send("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.05; done; echo resized-$((1+1))\n")?;
        terminal.expect("resized-2")?;

        let exec = ["exec", "--interactive", "--tty", "t", "sh"];
        let (mut second, mut other) = on_a_terminal(&mut podman.command(&exec))?;
        other.send("echo second-$((1+1)) && exit 5\n")?;
        other.expect("second-2")?;
        wait_for("the exec to end", || matches!(second.try_wait(), Ok(Some(_))))?;
        ensure!(second.wait()?.code() == Some(5));

        terminal.send("exit 3\n")?;
        wait_for("podman to end", || matches!(child.try_wait(), Ok(Some(_))))?;
        ensure!(child.wait()?.code() == Some(3));
        Ok(())
    })
}

#[test]
fn exec_and_stop() -> Result<()> {
    Podman::test("podman-exec", |podman| {
        podman.start("c", &[], &["workload", "trap"])?;
        // As health checks do it, many times.
        for code in [0, 1, 42] {
            let script = format!("echo out; echo err >&2; exit {code}");
            let done = podman.podman(&["exec", "c", "sh", "-c", &script])?;
            ensure!(done.code() == code && done.stdout == "out\n" && done.stderr == "err\n", "{done:?}");
        }
        let missing = podman.podman(&["exec", "c", "no-such-program"])?;
        ensure!(missing.code() == 127, "{missing:?}");
        let user = podman.ok(&[
            "exec",
            "--user",
            "1000:1000",
            "--workdir",
            "/tmp",
            "c",
            "sh",
            "-c",
            "id -u; pwd",
        ])?;
        ensure!(user == "1000\n/tmp\n", "{user}");
        has(&podman.ok(&["top", "c", "pid", "args"])?, "workload trap")?;

        podman.ok(&["kill", "--signal", "USR1", "c"])?;
        wait_for("the signal", || podman.ok(&["logs", "c"]).is_ok_and(|log| log.contains("USR1")))?;
        // It ignores SIGTERM, so that the grace period passes and it is killed.
        podman.ok(&["stop", "--time=1", "c"])?;
        ensure!(podman.inspect("c")?["State"]["ExitCode"] == 137, "{}", podman.inspect("c")?["State"]);
        podman.ok(&["start", "c"])?;
        has(&podman.ok(&["exec", "c", "echo", "again"])?, "again")?;
        podman.ok(&["rm", "--force", "--time=0", "c"]).map(drop)
    })
}

#[test]
fn limits_updates_and_pauses() -> Result<()> {
    Podman::test("podman-limits", |podman| {
        let options =
            ["--memory=64m", "--cpus=0.5", "--pids-limit=50", "--cpu-shares=300", "--ulimit=nofile=99:99"];
        podman.start("c", &options, &["workload", "log", "1000000", "stdout", "10"])?;
        let cgroup = podman.cgroup("c")?;
        ensure!(limit("memory", &cgroup, "memory.limit_in_bytes")? == (64 << 20).to_string());
        ensure!(limit("pids", &cgroup, "pids.max")? == "50");
        ensure!(limit("cpu", &cgroup, "cpu.shares")? == "300");
        let quota: i64 = limit("cpu", &cgroup, "cpu.cfs_quota_us")?.parse()?;
        ensure!(quota * 2 == limit("cpu", &cgroup, "cpu.cfs_period_us")?.parse::<i64>()?, "{quota}");
        ensure!(podman.ok(&["exec", "c", "sh", "-c", "ulimit -n"])? == "99\n");
        podman.ok(&["update", "--cpu-shares=600", "c"])?;
        ensure!(limit("cpu", &cgroup, "cpu.shares")? == "600");

        let lines = || podman.ok(&["logs", "c"]).map_or(0, |log| log.lines().count());
        wait_for("the first lines", || lines() > 0)?;
        podman.ok(&["pause", "c"])?;
        ensure!(limit("freezer", &cgroup, "freezer.state")? == "FROZEN");
        ensure!(podman.inspect("c")?["State"]["Status"] == "paused");
        podman.ok(&["unpause", "c"])?;
        let before = lines();
        wait_for("it to go on", || lines() > before)?;

        let done = podman.podman(&["container", "checkpoint", "c"])?.err()?;
        ensure!(!done.stderr.is_empty(), "{done:?}");
        let before = lines();
        wait_for("it to go on after the checkpoint", || lines() > before)?;
        podman.ok(&["rm", "--force", "--time=0", "c"]).map(drop)
    })
}

#[test]
fn a_pod() -> Result<()> {
    Podman::test("podman-pod", |podman| {
        let parent = format!("--cgroup-parent={}", podman.scope.cgroup_parent());
        let infra = format!("--infra-image={}", podman.image);
        let options = ["--network=none", "--infra-command=/bin/workload sleep", "--share=net,ipc,uts,pid"];
        let create = ["pod", "create", "--name", "p", "--hostname", "inside", &parent, &infra];
        let id = podman.ok(&[&create[..], &options].concat())?;
        podman.start("server", &["--pod", "p"], &["workload", "serve", "8080", "hi there"])?;
        wait_for("the server", || podman.ok(&["logs", "server"]).is_ok_and(|log| log.contains("listening")))?;
        let client = podman.run(&["--rm", "--pod", "p"], &["workload", "get", "127.0.0.1:8080"])?.ok()?;
        ensure!(client.stdout == "hi there\n", "{client:?}");
        let shared = podman.run(&["--rm", "--pod", "p"], &["sh", "-c", "hostname; ps -o args"])?.ok()?;
        has(&shared.stdout, "inside\n")?;
        has(&shared.stdout, "workload serve 8080")?;
        podman.ok(&["pod", "stop", "--time=1", "p"])?;
        podman.ok(&["pod", "rm", "--force", "p"])?;
        // podman removes its pod's cgroup only from the hierarchies that it knows.
        integration_interop::remove_cgroups(podman.scope, &[id.trim()])
    })
}

#[test]
fn a_user_namespace() -> Result<()> {
    Podman::test("podman-userns", |podman| {
        let map = ["--uidmap=0:100000:65536", "--gidmap=0:200000:65536"];
        let script =
            "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /made; stat -c %u:%g /made /etc/passwd";
        let done = podman.run(&[&["--rm"][..], &map].concat(), &["sh", "-c", script])?.ok()?;
        let words: Vec<_> = done.stdout.split_whitespace().collect();
        let expected = ["0", "100000", "65536", "0", "200000", "65536", "0", "0:0", "0:0"];
        ensure!(words == expected, "{done:?}");

        podman.start("c", &map, &["workload", "sleep"])?;
        let pid = podman.inspect("c")?["State"]["Pid"].as_u64().context("no pid")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        has(&status, "Uid:\t100000\t")?;
        ensure!(podman.ok(&["exec", "c", "id", "-u"])? == "0\n");
        podman.ok(&["stop", "--time=5", "c"])?;
        ensure!(!runs(u32::try_from(pid)?));
        podman.ok(&["rm", "c"]).map(drop)
    })
}
