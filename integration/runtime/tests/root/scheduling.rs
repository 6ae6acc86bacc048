//! When and where a process runs: scheduler, I/O priority, CPUs, personality, memory policy.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{Kind, run};
use serde_json::json;

use crate::{T, has};

crate::each_runtime!(
    scheduler,
    io_priority,
    the_callers_cpus_are_not_the_containers,
    exec_cpu_affinity,
    personality,
    memory_policy,
    a_limit_that_cannot_be_raised_is_clamped,
    a_limit_given_twice_is_refused,
    a_capability_that_cannot_be_granted_is_a_warning,
);

/// Field `number` of /proc/self/stat, counted from 1 as in proc(5).
fn stat(text: &str, number: usize) -> Result<&str> {
    let fields = text.rsplit_once(") ").context("no stat")?.1;
    fields.split_whitespace().nth(number - 3).with_context(|| format!("no field {number} in {text}"))
}

fn scheduler(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("process.scheduler") {
        return Ok(());
    }
    let bundle = t.workload(&["read", "/proc/self/stat"]);
    let out = t.out(bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5})))?;
    ensure!(stat(&out, 19)? == "5" && stat(&out, 41)? == "3", "{out}");
    Ok(())
}

fn io_priority(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("process.ioPriority") {
        return Ok(());
    }
    let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    let out = t.out(t.sh("ionice -p $$").set("/process/ioPriority", priority))?;
    ensure!(out == "best-effort: prio 6\n", "{out}");
    Ok(())
}

fn cpus() -> usize {
    std::fs::read_to_string("/proc/cpuinfo").map_or(1, |text| text.matches("processor\t").count())
}

fn allowed(status: &str) -> Result<&str> {
    let mut lines = status.lines().filter_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    lines.next().map(str::trim).context("no Cpus_allowed_list")
}

/// An engine pinned to one CPU doesn't pin its containers there.
fn the_callers_cpus_are_not_the_containers(t: &T<'_>) -> Result<()> {
    if cpus() < 2 {
        integration_support::skip("one CPU is all there is");
        return Ok(());
    }
    if t.differs(Kind::Runc, "runc 1.1 hands its own CPUs on") || t.differs(Kind::Crun, "so does crun 1.8") {
        return Ok(());
    }
    let all = t.out(t.workload(&["read", "/proc/self/status"]))?;
    let bundle =
        integration_support::Bundle::workload(t.scope, "pinned", &["read", "/proc/self/status"]).write()?;
    let inner = t.rt.command();
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(inner.get_program()).args(inner.get_args());
    pinned.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    let out = run(&mut pinned)?.ok()?.stdout;
    ensure!(allowed(&out)? == allowed(&all)?, "{} {}", allowed(&out)?, allowed(&all)?);
    Ok(())
}

fn exec_cpu_affinity(t: &T<'_>) -> Result<()> {
    if cpus() < 2 {
        integration_support::skip("one CPU is all there is");
        return Ok(());
    }
    if t.too_new_for_peers("process.execCPUAffinity") {
        return Ok(());
    }
    let affinity = json!({"initial": "0", "final": "1"});
    let container = t.start(t.workload(&["sleep"]).set("/process/execCPUAffinity", affinity))?;
    let read = ["/bin/workload", "read", "/proc/self/status"];
    let out = container.exec(&[], &read)?.ok()?.stdout;
    ensure!(allowed(&out)? == "1", "{out}");
    // Not init's: it is for exec.
    let init = std::fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
    ensure!(allowed(&init)? != "1", "{init}");
    // A process.json without any gets the container's.
    let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": read});
    let file = t.scope.path("process.json");
    std::fs::write(&file, process.to_string())?;
    let mut command = t.rt.command();
    command.args(["exec", "--process"]).arg(&file).arg(container.id());
    let out = run(&mut command)?.ok()?.stdout;
    ensure!(allowed(&out)? == "1", "{out}");
    container.delete(&["--force"])
}

fn personality(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 doesn't know linux.personality") {
        return Ok(());
    }
    let out = t.out(t.sh("uname -m").set("/linux/personality", json!({"domain": "LINUX32"})))?;
    ensure!(!out.contains("64"), "{out}");
    if t.rt.kind() != Kind::Corten {
        return Ok(()); // what comes next is newer than the peers
    }
    let container =
        t.start(t.sh("exec sleep 1000").set("/linux/personality", json!({"domain": "LINUX32"})))?;
    let out = container.exec(&[], &["/bin/busybox", "uname", "-m"])?.ok()?.stdout;
    ensure!(!out.contains("64"), "exec: {out}");
    container.delete(&["--force"])
}

fn memory_policy(t: &T<'_>) -> Result<()> {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        integration_support::skip("this kernel has no NUMA");
        return Ok(());
    }
    if t.too_new_for_peers("linux.memoryPolicy") {
        return Ok(());
    }
    for (policy, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), " bind=static:0 "),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), " interleave:0 "),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), " prefer:0 "),
        (json!({"mode": "MPOL_LOCAL"}), " local "),
        (json!({"mode": "MPOL_DEFAULT"}), " default "),
    ] {
        let bundle = t.workload(&["read", "/proc/self/numa_maps"]);
        has(&t.out(bundle.set("/linux/memoryPolicy", policy))?, shown)?;
    }
    let beyond = json!({"mode": "MPOL_BIND", "nodes": "900"});
    let bundle = integration_support::Bundle::workload(t.scope, "beyond", &["exit", "0"]);
    has(&t.refused(bundle.set("/linux/memoryPolicy", beyond))?, "memory policy")
}

/// No limit of open files may be above the kernel's, whoever asks.
fn a_limit_that_cannot_be_raised_is_clamped(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc gives up") || t.differs(Kind::Crun, "crun gives up") {
        return Ok(());
    }
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 1_u64 << 40, "hard": 1_u64 << 40}]);
    let bundle = t.workload(&["limits", "RLIMIT_NOFILE"]).set("/process/rlimits", limits).write()?;
    let finished = t.rt.run(&bundle)?.ok()?;
    has(&finished.stderr, "may not raise RLIMIT_NOFILE")?;
    ensure!(!finished.stdout.contains(&(1_u64 << 40).to_string()), "{finished:?}");
    Ok(())
}

fn a_limit_given_twice_is_refused(t: &T<'_>) -> Result<()> {
    let why = "takes the last one";
    if t.differs(Kind::Runc, why) || t.differs(Kind::Crun, why) {
        return Ok(());
    }
    let limit = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
    has(&t.refused(t.workload(&["exit", "0"]).set("/process/rlimits", json!([limit, limit])))?, "RLIMIT_CORE")
}

fn a_capability_that_cannot_be_granted_is_a_warning(t: &T<'_>) -> Result<()> {
    // Whoever runs the tests may have all of them: the runtime itself gets one less.
    if t.differs(Kind::Runc, "runc 1.1 needs it itself") || t.differs(Kind::Crun, "crun 1.8 gives up") {
        return Ok(());
    }
    let sets = json!({"bounding": ["CAP_KILL", "CAP_SYS_BOOT"], "permitted": ["CAP_KILL", "CAP_SYS_BOOT"],
        "effective": ["CAP_KILL", "CAP_SYS_BOOT"]});
    let bundle = t.workload(&["caps"]).set("/process/capabilities", sets).write()?;
    let inner = t.rt.command();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_boot"]).arg(inner.get_program()).args(inner.get_args());
    command.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    let finished = run(&mut command)?.ok()?;
    has(&finished.stderr, "can't be granted")?;
    has(&finished.stdout, "CapEff: 0000000000000020")
}
