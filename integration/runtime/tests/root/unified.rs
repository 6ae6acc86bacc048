//! What is only on a machine with cgroup v2 alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_support::Kind;
use serde_json::{Value, json};

use super::cgroups::{place, read, unified};
use crate::{T, has};

crate::each_runtime!(
    every_limit_has_its_file,
    an_idle_container,
    a_limit_of_no_processes_is_one,
    what_there_is_not_is_refused,
    the_cgroup_is_given_to_the_user,
    a_container_divides_its_cgroup,
    frozen_cgroups_below_do_not_keep_it_alive,
    a_limit_below_the_usage,
);

/// True, and a skip, on other machines.
fn elsewhere() -> bool {
    if !unified() {
        integration_support::skip("this machine doesn't have cgroup v2 alone");
    }
    !unified()
}

/// A disk of this machine, as `major:minor`.
fn disk() -> Result<String> {
    for disk in fs::read_dir("/sys/block")?.flatten() {
        // Loop and RAM devices are there before anything is in them.
        if disk.path().join("device").exists() {
            return Ok(fs::read_to_string(disk.path().join("dev"))?.trim().to_owned());
        }
    }
    anyhow::bail!("this machine has no disk")
}

fn every_limit_has_its_file(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    let disk = disk()?;
    let (major, minor) = disk.split_once(':').context("no device number")?;
    let rate = |rate: u32| json!([{"major": major.parse::<u32>().ok(), "minor": minor.parse::<u32>().ok(), "rate": rate}]);
    let resources = json!({
        "memory": {"limit": 134_217_728, "swap": 201_326_592},
        "cpu": {"shares": 1024, "quota": 20_000, "period": 50_000, "burst": 10_000},
        "pids": {"limit": 77},
        "blockIO": {
            "weight": 500,
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400),
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
        "unified": {"memory.high": "100663296", "memory.oom.group": "1", "cpu.weight.nice": "3"},
    });
    let bundle = t.workload(&["sleep"]).set("/linux/resources", resources);
    let bundle =
        if t.rt.kind() == Kind::Runc { bundle.without("/linux/resources/cpu/burst") } else { bundle };
    let container = t.start(bundle)?;
    let dir = place(t, "");
    for (file, expected) in [
        ("memory.max", "134217728"),
        ("memory.swap.max", "67108864"),
        ("memory.high", "100663296"),
        ("memory.oom.group", "1"),
        ("cpu.max", "20000 50000"),
        ("cpu.weight.nice", "3"),
        ("pids.max", "77"),
        ("hugetlb.2MB.max", "4194304"),
    ] {
        let found = read(&dir, file)?;
        ensure!(found == expected, "{file}: {found}, not {expected}");
    }
    has(&read(&dir, "io.max")?, &format!("{disk} rbps=1048576 wbps=2097152 riops=300 wiops=400"))?;
    if t.rt.kind() == Kind::Corten {
        ensure!(read(&dir, "cpu.max.burst")? == "10000");
        ensure!(read(&dir, "hugetlb.2MB.rsvd.max")? == "4194304");
        if dir.join("io.bfq.weight").exists() {
            has(&read(&dir, "io.bfq.weight")?, "500")?;
        } else {
            has(&read(&dir, "io.weight")?, "default 4950")?;
        }
    }
    container.delete(&["--force"])
}

fn an_idle_container(t: &T<'_>) -> Result<()> {
    if elsewhere() || t.differs(Kind::Runc, "runc 1.1.5 knows no cpu.idle") {
        return Ok(());
    }
    let cpu = json!({"idle": 1});
    let container = t.start(t.workload(&["sleep"]).set("/linux/resources/cpu", cpu))?;
    ensure!(read(&place(t, ""), "cpu.idle")? == "1");
    container.delete(&["--force"])
}

fn a_limit_of_no_processes_is_one(t: &T<'_>) -> Result<()> {
    if elsewhere()
        || t.differs(Kind::Runc, "runc 1.1 takes 0 for no limit")
        || t.differs(Kind::Crun, "crun 1.8 takes 0 for no limit")
    {
        return Ok(());
    }
    // Nobody can be born where there may be none: 1 is what init takes up.
    let bundle = t.workload(&["sleep"]).set("/ociVersion", json!("1.3.0"));
    let container = t.start(bundle.set("/linux/resources/pids/limit", json!(0)))?;
    ensure!(read(&place(t, ""), "pids.max")? == "1");
    ensure!(read(&place(t, ""), "pids.current")? == "1");
    container.delete(&["--force"])
}

fn what_there_is_not_is_refused(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    for (key, value, needle) in [
        ("/linux/resources/unified", json!({"nosuch.max": "1"}), "nosuch.max"),
        ("/linux/resources/cpu", json!({"realtimeRuntime": 5000}), "realtime"),
    ] {
        let refused = t.refused(t.workload(&["exit", "0"]).set(key, value))?;
        if t.rt.kind() == Kind::Corten {
            has(&refused, needle)?;
        }
    }
    Ok(())
}

/// The cgroups mounted, for writing or not.
fn cgroup_mount(config: &mut Value, writable: bool) {
    let options = if writable {
        json!(["nosuid", "noexec", "nodev"])
    } else {
        json!(["nosuid", "noexec", "nodev", "ro"])
    };
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = options.clone();
        }
    }
}

fn the_cgroup_is_given_to_the_user(t: &T<'_>) -> Result<()> {
    if elsewhere() || t.differs(Kind::Crun, "crun 1.8 gives it to users of user namespaces only") {
        return Ok(());
    }
    for (writable, owner) in [(true, 1000), (false, 0)] {
        let bundle = t.workload(&["sleep"]).set("/process/user", json!({"uid": 1000, "gid": 1000}));
        let container = t.start(bundle.edit(|config| cgroup_mount(config, writable)))?;
        let dir = place(t, "");
        for (file, owner) in [
            ("", owner),
            ("cgroup.procs", owner),
            ("cgroup.subtree_control", owner),
            ("cgroup.threads", owner),
            // The limits stay the runtime's.
            ("memory.max", 0),
            ("pids.max", 0),
        ] {
            let found = fs::metadata(dir.join(file))?.uid();
            ensure!(found == owner, "{file:?} is {found}'s, not {owner}'s");
        }
        container.delete(&["--force"])?;
    }
    Ok(())
}

/// Moves itself down and hands controllers on, as systemd in a container does.
const DIVIDE: &str = "cd /sys/fs/cgroup && mkdir init && echo $$ > init/cgroup.procs && \
                      echo +pids > cgroup.subtree_control && echo divided && sleep 1000";

fn a_container_divides_its_cgroup(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    let container = t.start(t.sh(DIVIDE).edit(|config| cgroup_mount(config, true)))?;
    container.wait_log("divided")?;
    // No process may be in its cgroup itself any more.
    let out = container.exec(&[], &["/bin/sh", "-c", "cat /proc/self/cgroup"])?.ok()?.stdout;
    has(&out, "0::/init")?;
    container.call(&["pause"])?.ok()?;
    ensure!(container.status()? == "paused");
    container.call(&["resume"])?.ok()?;
    container.delete(&["--force"])
}

fn frozen_cgroups_below_do_not_keep_it_alive(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    let script = "cd /sys/fs/cgroup && mkdir -p a/b && sleep 1000 & \
                  sleep 1000 & echo $! > /sys/fs/cgroup/a/b/cgroup.procs; \
                  until echo $! > /sys/fs/cgroup/a/b/cgroup.procs; do :; done; \
                  echo 1 > /sys/fs/cgroup/a/cgroup.freeze; echo frozen; sleep 1000";
    let container = t.start(t.sh(script).edit(|config| cgroup_mount(config, true)))?;
    container.wait_log("frozen")?;
    container.delete(&["--force"])
}

fn a_limit_below_the_usage(t: &T<'_>) -> Result<()> {
    if elsewhere() || t.differs(Kind::Crun, "crun 1.8 doesn't look before it limits") {
        return Ok(());
    }
    // v1's kernel refuses such a limit, v2's would kill.
    let container = t.start(t.sh("sleep 1000"))?;
    let used: u64 = read(&place(t, ""), "memory.current")?.parse()?;
    ensure!(used > 8192, "{used}");
    let limit = json!({"memory": {"limit": 8192, "checkBeforeUpdate": true}}).to_string();
    let mut command = t.rt.command();
    command.args(["update", "-r", "-", container.id()]);
    let refused = integration_support::run_with_deadline(
        &mut command,
        integration_support::DEADLINE,
        limit.as_bytes(),
    )?
    .err()?;
    ensure!(!refused.stderr.is_empty());
    ensure!(read(Path::new(&place(t, "")), "memory.max")? == "268435456");
    ensure!(container.status()? == "running");
    container.delete(&["--force"])
}
