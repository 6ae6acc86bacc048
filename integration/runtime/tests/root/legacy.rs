//! What is only on a machine with cgroup v1 under systemd, alone or beside v2: the guests `v1` and `hybrid`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, Container, Kind, Runtime, run};
use serde_json::json;

use super::cgroups::{read, unified};
use super::systemd::{bundle, cgroup, driver, show, unit};
use crate::{T, has, lacks};

crate::each_runtime!(
    every_limit_has_its_file,
    a_scope_is_in_every_hierarchy,
    a_scope_can_be_paused_and_updated,
    a_scope_that_runs_out_of_memory,
    the_container_sees_its_cgroups,
);

/// True, and a skip, where there is no v1, or it isn't systemd's.
fn elsewhere() -> bool {
    // What only a mounted hierarchy of v1 has.
    let mounted = |name: &str| Path::new("/sys/fs/cgroup").join(name).join("cgroup.clone_children").exists();
    let elsewhere = unified() || !["net_cls", "net_prio", "hugetlb", "memory"].into_iter().all(mounted);
    if elsewhere {
        integration_support::skip("this machine doesn't have cgroup v1 with all controllers");
    }
    elsewhere
}

fn systemd(t: &T<'_>) -> Option<Runtime> {
    if elsewhere() { None } else { driver(t) }
}

/// Where a container is in a hierarchy.
fn place(container: &Container<'_>, controller: &str) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let find = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
    };
    let path = text.lines().find_map(find).with_context(|| format!("no {controller} in {text}"))?;
    Ok(Path::new("/sys/fs/cgroup").join(controller).join(path))
}

fn every_limit_has_its_file(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    let resources = json!({
        "memory": {"limit": 134_217_728, "swap": 201_326_592, "swappiness": 7, "disableOOMKiller": true},
        "cpu": {"shares": 256, "quota": 20_000, "period": 50_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
        "network": {"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 5}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
    });
    let container = t.start(t.workload(&["sleep"]).set("/linux/resources", resources))?;
    for (controller, file, expected) in [
        ("memory", "memory.limit_in_bytes", "134217728"),
        ("memory", "memory.swappiness", "7"),
        ("cpu", "cpu.shares", "256"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "77"),
        ("net_cls", "net_cls.classid", "1048577"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", if t.rt.kind() == Kind::Corten { "" } else { "4194304" }),
        (
            "hugetlb",
            "hugetlb.2MB.rsvd.limit_in_bytes",
            if t.rt.kind() == Kind::Corten { "4194304" } else { "" },
        ),
    ] {
        let found = read(&place(&container, controller)?, file)?;
        ensure!(found == expected || expected.is_empty(), "{file}: {found}, not {expected}");
    }
    has(&read(&place(&container, "net_prio")?, "net_prio.ifpriomap")?, "lo 5")?;
    has(&read(&place(&container, "memory")?, "memory.oom_control")?, "oom_kill_disable 1")?;
    container.delete(&["--force"])
}

fn a_scope_is_in_every_hierarchy(t: &T<'_>) -> Result<()> {
    let Some(rt) = systemd(t) else { return Ok(()) };
    let resources = json!({
        "memory": {"limit": 134_217_728},
        "cpu": {"shares": 256, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
        "network": {"classID": 1_048_577},
    });
    let container = rt.start(&bundle(t).set("/linux/resources", resources).write()?)?;
    let shown = show(&unit(t), "ActiveState,MemoryLimit,CPUShares,CPUQuotaPerSecUSec,TasksMax,Delegate")?;
    for line in [
        "ActiveState=active",
        "MemoryLimit=134217728",
        "CPUShares=256",
        "CPUQuotaPerSecUSec=500ms",
        "TasksMax=77",
        "Delegate=yes",
    ] {
        has(&shown, line)?;
    }
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    for line in text.lines().filter(|line| !line.starts_with("0::")) {
        ensure!(line.ends_with(&format!("/system.slice/{}", unit(t))), "{line} in:\n{text}");
    }
    let mut places = Vec::new();
    for (controller, file, expected) in [
        ("memory", "memory.limit_in_bytes", "134217728"),
        ("cpu", "cpu.shares", "256"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "77"),
        ("net_cls", "net_cls.classid", "1048577"),
    ] {
        let place = place(&container, controller)?;
        let found = read(&place, file)?;
        ensure!(found == expected, "{file}: {found}, not {expected}");
        places.push(place);
    }
    let inside = container.exec(&[], &["/bin/workload", "cgroup"])?.ok()?.stdout;
    lacks(&inside, "vm-job")?;
    container.delete(&["--force"])?;
    has(&show(&unit(t), "LoadState")?, "LoadState=not-found")?;
    ensure!(!places.iter().any(|place| place.exists()), "{places:?}");
    Ok(())
}

fn a_scope_can_be_paused_and_updated(t: &T<'_>) -> Result<()> {
    let Some(rt) = systemd(t) else { return Ok(()) };
    let container = rt.start(&bundle(t).write()?)?;
    container.call(&["pause"])?.ok()?;
    ensure!(container.status()? == "paused");
    ensure!(read(&place(&container, "freezer")?, "freezer.state")? == "FROZEN");
    container.call(&["resume"])?.ok()?;
    let mut update = rt.command();
    update.args(["update", "--memory", "536870912", "--memory-swap", "536870912", "--pids-limit", "55"]);
    run(update.args(["--cpu-quota", "30000", "--cpu-period", "100000", container.id()]))?.ok()?;
    for round in ["after the update", "after a reload"] {
        for (controller, file, expected) in [
            ("memory", "memory.limit_in_bytes", "536870912"),
            ("pids", "pids.max", "55"),
            ("cpu", "cpu.cfs_quota_us", "30000"),
        ] {
            let found = read(&place(&container, controller)?, file)?;
            ensure!(found == expected, "{file} {round}: {found}");
        }
        super::systemd::systemctl("daemon-reload")?;
    }
    ensure!(cgroup(&container)?.ends_with(&unit(t)));
    container.delete(&["--force"])
}

fn a_scope_that_runs_out_of_memory(t: &T<'_>) -> Result<()> {
    let Some(rt) = systemd(t) else { return Ok(()) };
    let path = json!(format!("system.slice:{}:c", t.scope.prefix()));
    let bundle = Bundle::workload(t.scope, "c", &["allocate", "200000000"])
        .set("/linux/cgroupsPath", path)
        .set("/linux/resources/memory", json!({"limit": 33_554_432, "swap": 33_554_432}));
    let finished = rt.run(&bundle.write()?)?;
    ensure!(finished.code() == 128 + 9, "SIGKILL was expected: {finished:?}");
    has(&show(&unit(t), "LoadState")?, "LoadState=not-found")
}

fn the_container_sees_its_cgroups(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max; \
                  cat /sys/fs/cgroup/cpu/cpu.shares; echo 5 > /sys/fs/cgroup/pids/pids.max || echo read-only";
    let with_namespace = t.out(t.sh(script))?;
    ensure!(with_namespace == "268435456\n1024\n512\nread-only\n", "{with_namespace}");
    let without = t.out(t.sh(script).namespace("cgroup", None).edit(|_| ()))?;
    ensure!(without == with_namespace, "{without}");
    Ok(())
}
