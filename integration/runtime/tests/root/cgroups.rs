//! Resource limits: written where they belong, and effective.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_support::Kind;
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
    a_paused_container_does_not_start,
    device_rules_can_be_changed,
);

/// Whether this machine has cgroup v2 alone.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The container's cgroup: of a controller on v1, the only one on v2.
pub(crate) fn place(t: &T<'_>, controller: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup").join(if unified() { "" } else { controller });
    root.join(t.scope.cgroup("c").trim_start_matches('/'))
}

pub(crate) fn read(dir: &Path, file: &str) -> Result<String> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Demands of each controller's file, named as on v1 and on v2, what is in it there.
fn says(t: &T<'_>, controller: &str, v1: (&str, &str), v2: (&str, &str)) -> Result<()> {
    let (file, expected) = if unified() { v2 } else { v1 };
    let found = read(&place(t, controller), file)?;
    ensure!(found == expected, "{file}: {found}, not {expected}");
    Ok(())
}

fn limits_are_written(t: &T<'_>) -> Result<()> {
    let resources = json!({
        "memory": {"limit": 134_217_728, "reservation": 67_108_864},
        "cpu": {"shares": 256, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
    });
    let container = t.start(t.workload(&["sleep"]).set("/linux/resources", resources))?;
    says(t, "memory", ("memory.limit_in_bytes", "134217728"), ("memory.max", "134217728"))?;
    says(t, "memory", ("memory.soft_limit_in_bytes", "67108864"), ("memory.low", "67108864"))?;
    if unified() {
        // The formula has changed since the peers here were built.
        let weight = read(&place(t, "cpu"), "cpu.weight")?;
        ensure!(weight == if t.rt.kind() == Kind::Corten { "35" } else { "10" }, "cpu.weight: {weight}");
    } else {
        says(t, "cpu", ("cpu.shares", "256"), ("", ""))?;
    }
    says(t, "cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"))?;
    says(t, "cpu", ("cpu.cfs_period_us", "100000"), ("cpu.max", "50000 100000"))?;
    says(t, "pids", ("pids.max", "77"), ("pids.max", "77"))?;
    says(t, "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0"))?;
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
    fs::create_dir_all(place(t, "memory"))?;
    let container = t.start(t.workload(&["sleep"]))?;
    says(t, "memory", ("memory.limit_in_bytes", "268435456"), ("memory.max", "268435456"))?;
    container.delete(&["--force"])
}

fn hugepage_limits_of_zero_are_tolerated(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 fails on limits of a controller that isn't there")
        || t.differs(Kind::Crun, "crun 1.8 fails on limits of a controller that isn't there")
    {
        return Ok(());
    }
    let limits = json!([{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 0}]);
    t.out(t.workload(&["exit", "0"]).set("/linux/resources/hugepageLimits", limits)).map(drop)
}

fn exec_joins_the_cgroup(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]).namespace("cgroup", None))?;
    let out = container.exec(&[], &["/bin/workload", "cgroup"])?.ok()?.stdout;
    for controller in if unified() { &["0:"][..] } else { &["memory", "pids"] } {
        has(&out, &format!("{controller}:{}", t.scope.cgroup("c")))?;
    }
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
    let container = t.start(t.workload(&["sleep"]))?;
    let mut command = t.rt.command();
    command.args(["update", "--memory", "536870912", "--memory-swap", "536870912", container.id()]);
    integration_support::run(&mut command)?.ok()?;
    says(t, "memory", ("memory.limit_in_bytes", "536870912"), ("memory.max", "536870912"))?;
    // What wasn't named stays.
    says(t, "pids", ("pids.max", "1024"), ("pids.max", "1024"))?;
    container.delete(&["--force"])
}

fn the_cgroup_goes_with_the_container(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["exit", "0"]))?;
    ensure!(place(t, "memory").exists());
    container.wait_status("stopped")?;
    container.delete(&[])?;
    ensure!(!place(t, "memory").exists());
    Ok(())
}

fn a_paused_container_does_not_start(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 hangs") || t.differs(Kind::Crun, "crun 1.8 hangs") {
        return Ok(());
    }
    let container = t.rt.create(&t.workload(&["sleep"]).write()?, &[])?;
    container.call(&["pause"])?.ok()?;
    has(&container.call(&["start"])?.err()?.stderr, "paused")?;
    container.call(&["resume"])?.ok()?;
    container.start()?;
    container.delete(&["--force"])
}

fn device_rules_can_be_changed(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc leaves device rules alone")
        || t.differs(Kind::Crun, "crun 1.8 adds to them")
    {
        return Ok(());
    }
    // /dev/full is everybody's; /dev/kmsg isn't, unless it is allowed.
    let node = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    let container = t.start(t.sh("sleep 1000").set("/linux/devices", node))?;
    let opens = |device: &str| -> Result<bool> {
        Ok(container.exec(&[], &["/bin/sh", "-c", &format!("exec 3>{device}")])?.status.success())
    };
    ensure!(opens("/dev/full")? && !opens("/dev/kmsg")?);
    for allowed in [true, false, true] {
        let kmsg = json!({"allow": allowed, "type": "c", "major": 1, "minor": 11, "access": "rw"});
        let rules = json!({"devices": [{"allow": false}, kmsg]}).to_string();
        let mut command = t.rt.command();
        command.args(["update", "-r", "-", container.id()]);
        integration_support::run_with_deadline(
            &mut command,
            integration_support::DEADLINE,
            rules.as_bytes(),
        )?
        .ok()?;
        ensure!(opens("/dev/full")? && opens("/dev/kmsg")? == allowed, "allowed: {allowed}");
    }
    container.delete(&["--force"])
}
