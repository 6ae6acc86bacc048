//! Resource limits: written where they belong, and effective.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{T, has, value};

crate::each_runtime!(
    limits_are_written,
    pids_limit_is_effective,
    memory_limit_is_effective,
    the_process_is_in_all_hierarchies,
    a_cgroup_that_exists_is_taken,
    hugepage_limits_of_zero_are_tolerated,
    exec_joins_the_cgroup,
    pause_and_resume,
    update_changes_limits,
    the_cgroup_goes_with_the_container,
);

/// The container's cgroup in a v1 hierarchy; `None` (and a skip) on a machine without.
fn v1(t: &T<'_>, controller: &str) -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup").join(controller);
    if !root.is_dir() {
        integration_support::skip("this machine has no cgroup v1 hierarchies");
        return None;
    }
    Some(root.join(t.scope.cgroup("c").trim_start_matches('/')))
}

fn read(dir: &Path, file: &str) -> Result<String> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn limits_are_written(t: &T<'_>) -> Result<()> {
    let (Some(memory), Some(cpu), Some(pids), Some(cpuset)) =
        (v1(t, "memory"), v1(t, "cpu"), v1(t, "pids"), v1(t, "cpuset"))
    else {
        return Ok(());
    };
    let resources = json!({
        "memory": {"limit": 134_217_728, "reservation": 67_108_864},
        "cpu": {"shares": 256, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
    });
    let container = t.start(t.workload(&["sleep"]).set("/linux/resources", resources))?;
    ensure!(read(&memory, "memory.limit_in_bytes")? == "134217728");
    ensure!(read(&memory, "memory.soft_limit_in_bytes")? == "67108864");
    ensure!(read(&cpu, "cpu.shares")? == "256");
    ensure!(read(&cpu, "cpu.cfs_quota_us")? == "50000");
    ensure!(read(&cpu, "cpu.cfs_period_us")? == "100000");
    ensure!(read(&pids, "pids.max")? == "77");
    ensure!(read(&cpuset, "cpuset.cpus")? == "0");
    container.delete(&["--force"])
}

fn pids_limit_is_effective(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["spawn", "50"]).set("/linux/resources/pids/limit", json!(12)))?;
    let spawned: u32 = value(&out, "spawned")?.parse()?;
    ensure!((5..12).contains(&spawned), "{out}");
    Ok(())
}

fn memory_limit_is_effective(t: &T<'_>) -> Result<()> {
    let limit = json!({"limit": 33_554_432, "swap": 33_554_432});
    let bundle = t.workload(&["allocate", "200000000"]).set("/linux/resources/memory", limit).write()?;
    let finished = t.rt.run(&bundle)?;
    ensure!(finished.code() == 128 + 9, "SIGKILL was expected: {finished:?}");
    Ok(())
}

fn the_process_is_in_all_hierarchies(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    for line in text.lines() {
        // The v2 half of a hybrid layout may stay at the root: not every runtime has a use for it.
        if !line.starts_with("0::") {
            ensure!(line.ends_with(&t.scope.cgroup("c")), "{line} in:\n{text}");
        }
    }
    container.delete(&["--force"])
}

fn a_cgroup_that_exists_is_taken(t: &T<'_>) -> Result<()> {
    // Kubernetes makes the pod's cgroup, and a restarted container may meet its own from before.
    let Some(memory) = v1(t, "memory") else { return Ok(()) };
    fs::create_dir_all(&memory)?;
    let container = t.start(t.workload(&["sleep"]))?;
    ensure!(read(&memory, "memory.limit_in_bytes")? == "268435456");
    container.delete(&["--force"])
}

fn hugepage_limits_of_zero_are_tolerated(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Runc, "runc 1.1 fails on limits of a controller that isn't there")
        || t.differs(
            integration_support::Kind::Crun,
            "crun 1.8 fails on limits of a controller that isn't there",
        )
    {
        return Ok(());
    }
    let limits = json!([{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 0}]);
    t.out(t.workload(&["exit", "0"]).set("/linux/resources/hugepageLimits", limits)).map(drop)
}

fn exec_joins_the_cgroup(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]).namespace("cgroup", None))?;
    let out = container.exec(&[], &["/bin/workload", "cgroup"])?.ok()?.stdout;
    has(&out, &format!(":memory:{}", t.scope.cgroup("c")))?;
    has(&out, &format!(":pids:{}", t.scope.cgroup("c")))?;
    container.delete(&["--force"])
}

fn pause_and_resume(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    container.call(&["pause"])?.ok()?;
    ensure!(container.status()? == "paused");
    let refused = container.exec(&[], &["/bin/workload", "echo", "x"])?;
    ensure!(!refused.status.success(), "exec in a paused container must not hang: {refused:?}");
    container.call(&["resume"])?.ok()?;
    ensure!(container.status()? == "running");
    container.call(&["pause"])?.ok()?;
    container.delete(&["--force"])
}

fn update_changes_limits(t: &T<'_>) -> Result<()> {
    let Some(memory) = v1(t, "memory") else { return Ok(()) };
    let container = t.start(t.workload(&["sleep"]))?;
    let mut command = t.rt.command();
    command.args(["update", "--memory", "536870912", "--memory-swap", "536870912", container.id()]);
    integration_support::run(&mut command)?.ok()?;
    ensure!(read(&memory, "memory.limit_in_bytes")? == "536870912");
    // What wasn't named stays.
    ensure!(v1(t, "pids").map(|p| read(&p, "pids.max")).transpose()?.is_some_and(|p| p == "1024"));
    container.delete(&["--force"])
}

fn the_cgroup_goes_with_the_container(t: &T<'_>) -> Result<()> {
    let Some(memory) = v1(t, "memory") else { return Ok(()) };
    let container = t.start(t.workload(&["exit", "0"]))?;
    ensure!(memory.exists());
    container.wait_status("stopped")?;
    container.delete(&[])?;
    ensure!(!memory.exists());
    Ok(())
}
