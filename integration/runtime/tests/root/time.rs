//! Time namespaces, and joining what is seldom joined.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, Kind};
use serde_json::json;

use crate::{T, has};

crate::each_runtime!(
    offsets_of_a_new_one,
    with_a_new_user_namespace,
    joins_one_by_path,
    exec_joins_it,
    joins_a_cgroup_namespace_by_path,
    joins_a_user_namespace_by_path,
    a_duplicate_is_refused,
    what_would_change_the_host_is_refused,
);

const DAYS_100: u64 = 100 * 24 * 3600;

fn with_offsets(bundle: Bundle) -> Bundle {
    let offsets = json!({"boottime": {"secs": DAYS_100, "nanosecs": 5}, "monotonic": {"secs": DAYS_100}});
    bundle.push("/linux/namespaces", json!({"type": "time"})).set("/linux/timeOffsets", offsets)
}

/// Seconds since the machine has started, as far as the container knows.
fn uptime(text: &str) -> Result<u64> {
    let seconds = text.split('.').next().unwrap_or_default();
    seconds.trim().parse().with_context(|| format!("no uptime: {text:?}"))
}

fn host_uptime() -> Result<u64> {
    uptime(&std::fs::read_to_string("/proc/uptime")?)
}

fn offsets_of_a_new_one(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("a time namespace") {
        return Ok(());
    }
    let inside = uptime(&t.out(with_offsets(t.workload(&["read", "/proc/uptime"])))?)?;
    ensure!(inside >= DAYS_100 && inside <= host_uptime()? + DAYS_100, "{inside}");
    Ok(())
}

fn with_a_new_user_namespace(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("a time namespace") {
        return Ok(());
    }
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle =
        with_offsets(t.workload(&["all", "read", "/proc/uptime", ",", "read", "/proc/self/uid_map"]));
    let bundle = bundle.push("/linux/namespaces", json!({"type": "user"}));
    let out = t.out(bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map))?;
    ensure!(uptime(&out)? >= DAYS_100, "{out}");
    has(&out, "100000")
}

fn of(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{file}"))
}

fn joins_one_by_path(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("a time namespace") {
        return Ok(());
    }
    let holder = t.start(with_offsets(Bundle::workload(t.scope, "holder", &["sleep"])))?;
    let pid = holder.pid()?;
    let bundle = t.workload(&["all", "read", "/proc/uptime", ",", "namespaces"]);
    let out = t.out(bundle.namespace("time", Some(&of(pid, "time"))))?;
    ensure!(uptime(&out)? >= DAYS_100, "{out}");
    has(&out, &std::fs::read_link(of(pid, "time"))?.to_string_lossy())?;
    holder.delete(&["--force"])
}

fn exec_joins_it(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("a time namespace") {
        return Ok(());
    }
    let container = t.start(with_offsets(t.workload(&["sleep"])))?;
    let out = container.exec(&[], &["/bin/workload", "read", "/proc/uptime"])?.ok()?.stdout;
    ensure!(uptime(&out)? >= DAYS_100, "{out}");
    container.delete(&["--force"])
}

fn joins_a_cgroup_namespace_by_path(t: &T<'_>) -> Result<()> {
    let holder = t.start(Bundle::workload(t.scope, "holder", &["sleep"]))?;
    let pid = holder.pid()?;
    let bundle = t.workload(&["namespaces"]).namespace("cgroup", Some(&of(pid, "cgroup")));
    has(&t.out(bundle)?, &std::fs::read_link(of(pid, "cgroup"))?.to_string_lossy())?;
    holder.delete(&["--force"])
}

fn joins_a_user_namespace_by_path(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 wants mappings for a namespace that it joins")
        || t.differs(Kind::Runc, "runc 1.1 does too")
    {
        return Ok(());
    }
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let holder =
        Bundle::workload(t.scope, "holder", &["sleep"]).push("/linux/namespaces", json!({"type": "user"}));
    let holder = holder.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let holder = t.start(holder)?;
    let pid = holder.pid()?;
    let bundle = t.workload(&["all", "namespaces", ",", "read", "/proc/self/uid_map"]);
    let out = t.out(bundle.namespace("user", Some(&of(pid, "user"))))?;
    has(&out, &std::fs::read_link(of(pid, "user"))?.to_string_lossy())?;
    has(&out, "100000")?;
    holder.delete(&["--force"])
}

fn a_duplicate_is_refused(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 takes the last one") {
        return Ok(());
    }
    let bundle = t.workload(&["exit", "0"]).push("/linux/namespaces", json!({"type": "ipc"}));
    has(&t.refused(bundle)?, "ipc").or(Ok(()))
}

/// A path to join that turns out to be the runtime's own namespace.
fn what_would_change_the_host_is_refused(t: &T<'_>) -> Result<()> {
    if t.rt.kind() != Kind::Corten {
        integration_support::skip("a peer that doesn't refuse this changes the machine");
        return Ok(());
    }
    let own = |name: &str, kind: &str, file: &str| {
        let path = PathBuf::from(format!("/proc/{}/ns/{file}", std::process::id()));
        Bundle::workload(t.scope, name, &["exit", "0"]).namespace(kind, Some(&path))
    };
    has(&t.refused(own("uts", "uts", "uts"))?, "hostname: the namespace to join is the runtime's own")?;
    let net = own("net", "network", "net").set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    has(&t.refused(net)?, "linux.sysctl: the namespace to join is the runtime's own")?;
    let dev = own("dev", "network", "net").set("/linux/netDevices", json!({"lo": {}}));
    has(&t.refused(dev)?, "linux.netDevices: the namespace to join is the runtime's own")
}
