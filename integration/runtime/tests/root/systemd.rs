//! Cgroups made by systemd.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, Container, Kind, Runtime, run, run_with_deadline};
use serde_json::json;

use super::cgroups::{read, unified};
use crate::{T, has, lacks};

crate::each_runtime!(
    the_scope_has_the_limits,
    the_scope_is_in_its_slice,
    annotations_are_properties,
    updates_are_kept,
    a_namesake_that_failed_is_no_obstacle,
    what_is_no_unit_is_refused,
    the_unit_goes_with_the_container,
    a_create_that_fails_leaves_no_unit,
    devices_outlive_a_reload,
    a_unit_that_lives_is_not_touched,
    properties_of_many_types,
    systemd_may_be_executed_anew,
    a_bus_that_does_not_answer_is_an_error,
    a_service_with_delegation_starts_containers,
);

/// The runtime with systemd's driver; `None` and a skip where systemd isn't PID 1.
pub(crate) fn driver(t: &T<'_>) -> Option<Runtime> {
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        integration_support::skip("systemd isn't PID 1 here");
        return None;
    }
    Some(t.rt.clone().with_systemd())
}

/// The same on cgroup v2 alone.
fn driver_of_v2(t: &T<'_>) -> Option<Runtime> {
    let driver = driver(t)?;
    if !unified() {
        integration_support::skip("this machine doesn't have cgroup v2 alone");
        return None;
    }
    Some(driver)
}

/// A container in a scope of the test's.
pub(crate) fn bundle(t: &T<'_>) -> Bundle {
    t.workload(&["sleep"]).set("/linux/cgroupsPath", json!(format!("system.slice:{}:c", t.scope.prefix())))
}

pub(crate) fn unit(t: &T<'_>) -> String {
    format!("{}-c.scope", t.scope.prefix())
}

pub(crate) fn show(unit: &str, properties: &str) -> Result<String> {
    Ok(run(Command::new("systemctl").args(["show", "-p", properties, unit]))?.ok()?.stdout)
}

pub(crate) fn cgroup(container: &Container<'_>) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let controller = if unified() { "0::" } else { ":memory:" };
    let line = text.lines().find_map(|line| line.split_once(controller));
    Ok(line.context("a cgroup")?.1.to_owned())
}

fn the_scope_has_the_limits(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver_of_v2(t) else { return Ok(()) };
    let resources = json!({
        "memory": {"limit": 134_217_728, "swap": 134_217_728, "reservation": 67_108_864},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
        "unified": {"memory.high": "100663296"},
    });
    let container = rt.start(&bundle(t).set("/linux/resources", resources).write()?)?;
    let shown = show(
        &unit(t),
        "ActiveState,Slice,Delegate,MemoryMax,MemoryHigh,MemoryLow,MemorySwapMax,CPUQuotaPerSecUSec,AllowedCPUs,TasksMax,\
         CPUAccounting,MemoryAccounting,IOAccounting,TasksAccounting",
    )?;
    for line in [
        "ActiveState=active",
        "Slice=system.slice",
        "Delegate=yes",
        "MemoryMax=134217728",
        "MemoryHigh=100663296",
        "MemoryLow=67108864",
        "MemorySwapMax=0",
        "CPUQuotaPerSecUSec=500ms",
        "AllowedCPUs=0",
        "TasksMax=77",
        "CPUAccounting=yes",
        "MemoryAccounting=yes",
        "IOAccounting=yes",
        "TasksAccounting=yes",
    ] {
        has(&shown, line)?;
    }
    let place = cgroup(&container)?;
    ensure!(place == format!("/system.slice/{}", unit(t)), "{place}");
    let dir = std::path::Path::new("/sys/fs/cgroup").join(place.trim_start_matches('/'));
    ensure!(read(&dir, "memory.max")? == "134217728" && read(&dir, "pids.max")? == "77");
    // Nobody but init and those that exec brings.
    ensure!(read(&dir, "cgroup.procs")? == container.pid()?.to_string());
    let out = container.exec(&[], &["/bin/workload", "cgroup"])?.ok()?.stdout;
    has(&out, "0::/")?;
    container.delete(&["--force"])
}

fn the_scope_is_in_its_slice(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    // As a kubelet names them; a prefix without dashes, which nest.
    let slice = t.scope.prefix().replace('-', "");
    let path = format!("{slice}-pod1.slice:{}:c", t.scope.prefix());
    let container = rt.start(&t.workload(&["sleep"]).set("/linux/cgroupsPath", json!(path)).write()?)?;
    let place = cgroup(&container)?;
    ensure!(place == format!("/{slice}.slice/{slice}-pod1.slice/{}", unit(t)), "{place}");
    container.delete(&["--force"])?;
    run(Command::new("systemctl").args(["stop", &format!("{slice}.slice")]))?.ok()?;
    Ok(())
}

fn annotations_are_properties(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    let annotations = json!({
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.TimeoutStopUSec": "uint64 123000000",
        "org.other.thing": "not for systemd",
    });
    let container = rt.start(&bundle(t).set("/annotations", annotations).write()?)?;
    let shown = show(&unit(t), "CollectMode,TimeoutStopUSec")?;
    has(&shown, "CollectMode=inactive-or-failed")?;
    has(&shown, "TimeoutStopUSec=2min 3s")?;
    container.delete(&["--force"])?;
    let wrong = json!({"org.systemd.property.CollectMode": "no text"});
    let refused = rt.run(&bundle(t).set("/annotations", wrong).write()?)?.err()?;
    has(&refused.stderr, "CollectMode")
}

fn updates_are_kept(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver_of_v2(t) else { return Ok(()) };
    let container = rt.start(&bundle(t).write()?)?;
    let mut command = rt.command();
    command.args(["update", "--memory", "536870912", "--memory-swap", "536870912", "--pids-limit", "55"]);
    run(command.args(["--cpu-quota", "30000", "--cpu-period", "100000", container.id()]))?.ok()?;
    let shown = show(&unit(t), "MemoryMax,TasksMax,CPUQuotaPerSecUSec")?;
    for line in ["MemoryMax=536870912", "TasksMax=55", "CPUQuotaPerSecUSec=300ms"] {
        has(&shown, line)?;
    }
    let place = cgroup(&container)?;
    let dir = std::path::Path::new("/sys/fs/cgroup").join(place.trim_start_matches('/'));
    for round in ["after the update", "after systemd has written its idea again"] {
        for (file, expected) in [("memory.max", "536870912"), ("pids.max", "55"), ("cpu.max", "30000 100000")]
        {
            let found = read(&dir, file)?;
            ensure!(found == expected, "{file} {round}: {found}");
        }
        // Minutes, on a busy machine that emulates another.
        let mut reload = Command::new("systemctl");
        run_with_deadline(reload.arg("daemon-reload"), Duration::from_secs(240), b"")?.ok()?;
        run(Command::new("systemctl").args(["set-property", "--runtime", &unit(t), "CPUWeight=50"]))?.ok()?;
    }
    // The devices too.
    container.exec(&[], &["/bin/workload", "stat", "/dev/null"])?.ok()?;
    container.delete(&["--force"])
}

fn a_namesake_that_failed_is_no_obstacle(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    if t.differs(Kind::Crun, "crun 1.8 doesn't reset it") {
        return Ok(());
    }
    let mut command = Command::new("systemd-run");
    command.args(["--scope", "--quiet", "-p", "RuntimeMaxSec=100ms", "-p", "TimeoutStopSec=1", "--unit"]);
    run(command.args([&unit(t), "sleep", "1000"]))?;
    integration_support::wait_for("the scope to have failed", || {
        show(&unit(t), "ActiveState").is_ok_and(|state| state.contains("failed"))
    })?;
    let container = rt.start(&bundle(t).write()?)?;
    container.delete(&["--force"])
}

fn what_is_no_unit_is_refused(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    for path in ["/absolute/path", "too:few", "a--b.slice:p:n"] {
        let refused =
            rt.run(&t.workload(&["exit", "0"]).set("/linux/cgroupsPath", json!(path)).write()?)?.err()?;
        ensure!(!refused.stderr.is_empty(), "{path}");
        if t.rt.kind() == Kind::Corten {
            has(&refused.stderr, path)?;
        }
    }
    Ok(())
}

fn the_unit_goes_with_the_container(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    let container = rt.start(&bundle(t).write()?)?;
    has(&show(&unit(t), "LoadState")?, "LoadState=loaded")?;
    container.kill("KILL")?;
    container.wait_status("stopped")?;
    container.delete(&[])?;
    has(&show(&unit(t), "LoadState")?, "LoadState=not-found")
}

fn a_create_that_fails_leaves_no_unit(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    let refused = rt.run(&bundle(t).set("/process/args/0", json!("/no/such/program")).write()?)?.err()?;
    has(&refused.stderr, "/no/such/program")?;
    integration_support::wait_for("the unit to be gone", || {
        show(&unit(t), "LoadState").is_ok_and(|state| lacks(&state, "LoadState=loaded").is_ok())
    })
}

/// `systemctl` with something that takes minutes on a busy machine that emulates another.
pub(crate) fn systemctl(word: &str) -> Result<()> {
    run_with_deadline(Command::new("systemctl").arg(word), Duration::from_secs(240), b"")?.ok()?;
    Ok(())
}

fn devices_outlive_a_reload(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    // A process that never stops opening what it may open, and says when it could not.
    let script = "while :; do echo x > /dev/null || echo LOST; echo x > /dev/full 2> /tmp/full; \
                  grep -q 'No space' /tmp/full || echo LOST; done";
    let nodes = json!([
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
    ]);
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ]);
    let path = json!(format!("system.slice:{}:c", t.scope.prefix()));
    let bundle = t.sh(script).set("/linux/cgroupsPath", path).set("/linux/devices", nodes);
    let container = rt.start(&bundle.set("/linux/resources/devices", rules).write()?)?;
    let opens = |device: &str| -> Result<bool> {
        let finished = container.exec(&[], &["/bin/sh", "-c", &format!("exec 3<{device}")])?;
        // Not "No such device": what is forbidden is asked for first.
        Ok(!finished.stderr.contains("not permitted"))
    };
    for round in ["at first", "after a reload", "after its properties were set", "after an update"] {
        ensure!(opens("/dev/null")? && opens("/dev/fuse")?, "{round}: a device is lost");
        ensure!(!opens("/dev/kmsg")?, "{round}: a device was won");
        match round {
            "at first" => systemctl("daemon-reload")?,
            "after a reload" => {
                run(Command::new("systemctl").args(["set-property", "--runtime", &unit(t), "TasksMax=99"]))?
                    .ok()?;
            }
            _ => {
                let mut update = rt.command();
                run(update.args(["update", "--pids-limit", "98", container.id()]))?.ok()?;
            }
        }
    }
    // Of cgroup v1's list systemd itself first forbids all, and then allows one after the other: who opens a device in between
    // loses, whatever a runtime does.
    if unified() {
        lacks(&container.log()?, "LOST")?;
    }
    container.delete(&["--force"])
}

fn a_unit_that_lives_is_not_touched(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    let first = rt.start(&bundle(t).write()?)?;
    let second = Bundle::workload(t.scope, "second", &["sleep"])
        .set("/linux/cgroupsPath", json!(format!("system.slice:{}:c", t.scope.prefix())));
    let refused = rt.run(&second.write()?)?.err()?;
    if t.rt.kind() == Kind::Corten {
        has(&refused.stderr, &unit(t))?;
    }
    ensure!(first.status()? == "running");
    has(&show(&unit(t), "ActiveState")?, "ActiveState=active")?;
    first.delete(&["--force"])
}

fn properties_of_many_types(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    let annotations = json!({
        "org.systemd.property.TimeoutStopSec": "7",
        "org.systemd.property.Documentation": "['https://example.org/a', 'man:a(1)']",
        "org.systemd.property.SendSIGHUP": "true",
        "org.systemd.property.KillSignal": "15",
        "org.systemd.property.CPUWeight": "uint64 77",
        "org.systemd.property.Description": "'of the annotation'",
    });
    if t.differs(Kind::Crun, "crun 1.8 knows fewer types") {
        return Ok(());
    }
    let container = rt.start(&bundle(t).set("/annotations", annotations).write()?)?;
    let shown = show(&unit(t), "TimeoutStopUSec,Documentation,SendSIGHUP,KillSignal,CPUWeight,Description")?;
    for line in [
        "TimeoutStopUSec=7s",
        "Documentation=https://example.org/a ",
        "man:a(1)",
        "SendSIGHUP=yes",
        "KillSignal=15",
        "CPUWeight=77",
        "Description=of the annotation",
    ] {
        has(&shown, line)?;
    }
    container.delete(&["--force"])
}

fn systemd_may_be_executed_anew(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    let container = rt.start(&bundle(t).write()?)?;
    systemctl("daemon-reexec")?;
    ensure!(container.status()? == "running");
    container.exec(&[], &["/bin/workload", "stat", "/dev/null"])?.ok()?;
    let mut update = rt.command();
    run(update.args(["update", "--pids-limit", "66", container.id()]))?.ok()?;
    has(&show(&unit(t), "TasksMax")?, "TasksMax=66")?;
    container.delete(&["--force"])?;
    has(&show(&unit(t), "LoadState")?, "LoadState=not-found")
}

fn a_bus_that_does_not_answer_is_an_error(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    if t.differs(Kind::Runc, "runc waits for ever") || t.differs(Kind::Crun, "crun waits for ever") {
        return Ok(());
    }
    let bundle = bundle(t).write()?;
    let with_bus = |path: &std::path::Path| {
        let mut command = rt.command();
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", path.display()));
        command.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
        run_with_deadline(&mut command, Duration::from_secs(120), b"")
    };
    // One that takes us, and never says a word.
    let silent = t.scope.path("silent");
    let listener = std::os::unix::net::UnixListener::bind(&silent)?;
    let refused = with_bus(&silent)?.err()?;
    has(&refused.stderr, "doesn't answer")?;
    has(&refused.stderr, &silent.display().to_string())?;
    drop(listener);
    has(&show(&unit(t), "LoadState")?, "LoadState=not-found")
}

fn a_service_with_delegation_starts_containers(t: &T<'_>) -> Result<()> {
    let Some(rt) = driver(t) else { return Ok(()) };
    // A container engine's service; the containers aren't in it, and outlive it.
    let bundle = bundle(t).write()?;
    let runtime = rt.command();
    let service = format!("{}-engine.service", t.scope.prefix());
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--wait", "--collect", "-p", "Delegate=yes", "--unit", &service, "--"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.args(["run", "--detach", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
    run_with_deadline(&mut command, Duration::from_secs(120), b"")?.ok()?;
    has(&show(&unit(t), "ActiveState")?, "ActiveState=active")?;
    let mut state = rt.command();
    has(&run(state.args(["state", bundle.id()]))?.ok()?.stdout, "running")?;
    let mut delete = rt.command();
    run(delete.args(["delete", "--force", bundle.id()]))?.ok()?;
    Ok(())
}
