//! Docker with `--add-runtime corten=…`.

use anyhow::{Context, Result, ensure};
use integration_interop::{Docker, has, limit, on_a_terminal, runs};
use integration_support::wait_for;

#[test]
fn run_to_the_end() -> Result<()> {
    Docker::test("docker-run", |docker| {
        has(&docker.ok(&["info"])?, "Default Runtime: corten")?;
        let script = "echo out $A; echo err >&2; exit 7";
        let done = docker.run(&["--rm", "--env", "A=b"], &["sh", "-c", script])?;
        ensure!(done.code() == 7, "{done:?}");
        ensure!(done.stdout == "out b\n" && done.stderr == "err\n", "{done:?}");

        // Docker's own exit codes come from the phrases of the runtime's errors.
        let missing = docker.run(&["--rm"], &["no-such-program"])?;
        ensure!(missing.code() == 127, "{missing:?}");
        has(&missing.stderr, "executable file not found in $PATH")?;
        let refused = docker.run(&["--rm"], &["/etc/passwd"])?;
        ensure!(refused.code() == 126, "{refused:?}");
        has(&refused.stderr, "permission denied")
    })
}

#[test]
fn a_terminal_and_exec() -> Result<()> {
    Docker::test("docker-exec", |docker| {
        let run = ["run", "--rm", "--network=none", "-it", "--name", "tty", &docker.image, "sh"];
        let (mut child, mut terminal) = on_a_terminal(&mut docker.command(&run))?;
        terminal.send("tty; echo ready-$((40+2))\n")?;
        has(terminal.expect("ready-42")?, "/dev/pts/0")?;
        // The client tells the size after the start.
        terminal
            .send("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.05; done; echo resized-$((1+1))\n")?;
        terminal.expect("resized-2")?;

        for code in [0, 1, 42] {
            let script = format!("echo out; echo err >&2; exit {code}");
            let done = docker.docker(&["exec", "tty", "sh", "-c", &script])?;
            ensure!(done.code() == code && done.stdout == "out\n" && done.stderr == "err\n", "{done:?}");
        }
        let missing = docker.docker(&["exec", "tty", "no-such-program"])?;
        ensure!(missing.code() == 127 || missing.code() == 126, "{missing:?}");
        let user = docker.ok(&[
            "exec",
            "--user",
            "1000:1000",
            "--workdir",
            "/tmp",
            "tty",
            "sh",
            "-c",
            "id -u; pwd",
        ])?;
        ensure!(user == "1000\n/tmp\n", "{user}");
        let (mut second, mut other) = on_a_terminal(&mut docker.command(&["exec", "-it", "tty", "sh"]))?;
        other.send("echo second-$((1+1)) && exit 5\n")?;
        other.expect("second-2")?;
        wait_for("the exec to end", || matches!(second.try_wait(), Ok(Some(_))))?;
        ensure!(second.wait()?.code() == Some(5));

        terminal.send("exit 3\n")?;
        wait_for("docker to end", || matches!(child.try_wait(), Ok(Some(_))))?;
        ensure!(child.wait()?.code() == Some(3));
        wait_for("the container to be removed", || {
            docker.ok(&["ps", "-aq"]).is_ok_and(|list| list.is_empty())
        })
    })
}

#[test]
fn limits_updates_pauses_and_stops() -> Result<()> {
    Docker::test("docker-limits", |docker| {
        let options = ["--memory=64m", "--cpus=0.5", "--pids-limit=50", "--cpu-shares=300"];
        docker.start("one", &options, &["workload", "log", "1000000", "stdout", "10"])?;
        let cgroup = docker.cgroup("one")?;
        ensure!(limit("memory", &cgroup, "memory.limit_in_bytes")? == (64 << 20).to_string());
        ensure!(limit("pids", &cgroup, "pids.max")? == "50");
        ensure!(limit("cpu", &cgroup, "cpu.shares")? == "300");
        let quota: i64 = limit("cpu", &cgroup, "cpu.cfs_quota_us")?.parse()?;
        ensure!(quota * 2 == limit("cpu", &cgroup, "cpu.cfs_period_us")?.parse::<i64>()?, "{quota}");
        docker.ok(&["update", "--memory=80m", "--memory-swap=80m", "--cpu-shares=600", "one"])?;
        ensure!(limit("memory", &cgroup, "memory.limit_in_bytes")? == (80 << 20).to_string());
        ensure!(limit("cpu", &cgroup, "cpu.shares")? == "600");
        let stats = docker.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "one"])?;
        has(&stats, "/ 80MiB")?;
        has(&docker.ok(&["top", "one"])?, "workload log 1000000")?;

        let lines = || docker.ok(&["logs", "one"]).map_or(0, |log| log.lines().count());
        wait_for("the first lines", || lines() > 0)?;
        docker.ok(&["pause", "one"])?;
        ensure!(limit("freezer", &cgroup, "freezer.state")? == "FROZEN");
        docker.ok(&["unpause", "one"])?;
        let before = lines();
        wait_for("it to go on", || lines() > before)?;

        docker.ok(&["stop", "--time=1", "one"])?;
        ensure!(docker.inspect("one")?["State"]["ExitCode"] != 0, "{}", docker.inspect("one")?["State"]);
        docker.ok(&["start", "one"])?;
        ensure!(docker.ok(&["exec", "one", "echo", "again"])? == "again\n");
        docker.ok(&["kill", "one"])?;
        wait_for("its end", || docker.inspect("one").is_ok_and(|c| c["State"]["Running"] == false))?;
        ensure!(docker.inspect("one")?["State"]["ExitCode"] == 137);
        docker.ok(&["rm", "one"]).map(drop)
    })
}

#[test]
fn a_health_check() -> Result<()> {
    Docker::test("docker-health", |docker| {
        let options = ["--health-cmd=test -e /tmp/well", "--health-interval=1s", "--health-retries=1"];
        docker.start("one", &options, &["workload", "sleep"])?;
        let health = |wanted: &str| {
            wait_for(&format!("it to be {wanted}"), || {
                docker.inspect("one").is_ok_and(|c| c["State"]["Health"]["Status"] == wanted)
            })
        };
        health("unhealthy")?;
        docker.ok(&["exec", "one", "touch", "/tmp/well"])?;
        health("healthy")?;
        docker.ok(&["rm", "--force", "one"]).map(drop)
    })
}

/// With live-restore, a killed dockerd finds its containers again.
#[test]
fn dockerd_is_killed() -> Result<()> {
    Docker::test("docker-kill", |docker| {
        docker.start("one", &[], &["workload", "log", "1000000", "stdout", "10"])?;
        let pid = docker.inspect("one")?["State"]["Pid"].as_u64().context("no pid")?;
        docker.kill()?;
        ensure!(runs(u32::try_from(pid)?));
        docker.spawn()?;
        let state = docker.inspect("one")?["State"].clone();
        ensure!(state["Pid"] == pid && state["Running"] == true, "{state}");
        ensure!(docker.ok(&["exec", "one", "echo", "again"])? == "again\n");
        docker.ok(&["rm", "--force", "one"]).map(drop)
    })
}
