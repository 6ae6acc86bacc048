//! Namespaces: new ones, shared ones, joined ones.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration_support::Bundle;
use serde_json::json;

use crate::{T, has_one};

crate::each_runtime!(
    new_namespaces_differ_from_the_host,
    absent_namespaces_are_the_hosts,
    joins_network_ipc_and_uts_by_path,
    joins_a_pid_namespace_by_path,
    a_wrong_namespace_path_is_refused,
    the_new_network_has_a_loopback,
    user_namespace_maps_ids,
    without_a_mount_namespace_it_shares_the_hosts,
    joins_a_mount_namespace_by_path,
);

const KINDS: [(&str, &str); 6] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("uts", "uts"),
];

fn host(kind: &str) -> Result<String> {
    let link = fs::read_link(format!("/proc/self/ns/{kind}"))
        .with_context(|| format!("read our {kind} namespace"))?;
    Ok(link.to_string_lossy().into_owned())
}

fn new_namespaces_differ_from_the_host(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["namespaces"]))?;
    for (_, file) in KINDS {
        ensure!(!out.contains(&host(file)?), "{file} is the host's: {out}");
    }
    ensure!(out.contains(&host("user")?), "{out}");
    Ok(())
}

fn absent_namespaces_are_the_hosts(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["namespaces"]).namespace("network", None).namespace("ipc", None);
    // With the host's network sysfs can't be mounted anew in every kernel; that's not what this is about.
    let out = t.out(bundle.namespace("cgroup", None))?;
    for file in ["net", "ipc", "cgroup"] {
        ensure!(out.contains(&host(file)?), "{file} isn't the host's: {out}");
    }
    Ok(())
}

fn of(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{file}"))
}

fn joins_network_ipc_and_uts_by_path(t: &T<'_>) -> Result<()> {
    let holder = t.start(Bundle::workload(t.scope, "holder", &["sleep"]))?;
    let pid = holder.pid()?;
    let mut bundle = t.workload(&["namespaces"]).without("/hostname");
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        bundle = bundle.namespace(kind, Some(&of(pid, file)));
    }
    let out = t.out(bundle)?;
    for file in ["net", "ipc", "uts"] {
        let theirs = fs::read_link(of(pid, file))?;
        ensure!(out.contains(theirs.to_string_lossy().as_ref()), "{file} isn't {theirs:?}: {out}");
    }
    ensure!(!out.contains(fs::read_link(of(pid, "pid"))?.to_string_lossy().as_ref()), "{out}");
    holder.delete(&["--force"])
}

fn joins_a_pid_namespace_by_path(t: &T<'_>) -> Result<()> {
    let holder = t.start(Bundle::workload(t.scope, "holder", &["sleep"]))?;
    let pid = holder.pid()?;
    let bundle =
        t.sh("readlink /proc/self/ns/pid; cat /proc/1/cmdline").namespace("pid", Some(&of(pid, "pid")));
    let out = t.out(bundle)?;
    ensure!(out.contains(fs::read_link(of(pid, "pid"))?.to_string_lossy().as_ref()), "{out}");
    ensure!(out.contains("/bin/workload\0sleep"), "PID 1 isn't the holder: {out:?}");
    holder.delete(&["--force"])
}

fn a_wrong_namespace_path_is_refused(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).namespace("network", Some("/nothing/here".as_ref()));
    has_one(&t.refused(bundle)?, &["/nothing/here", "lstat", "no such file"])?;
    // A namespace of another kind isn't one to join either.
    let bundle = Bundle::workload(t.scope, "kind", &["exit", "0"]);
    t.refused(bundle.namespace("network", Some("/proc/self/ns/uts".as_ref()))).map(drop)
}

fn the_new_network_has_a_loopback(t: &T<'_>) -> Result<()> {
    let out = t.out(t.sh("ls /sys/class/net; ip link show lo"))?;
    ensure!(out.starts_with("lo\n") && out.contains("UP"), "{out}");
    Ok(())
}

fn ours_alone(t: &T<'_>) -> bool {
    // They change the propagation of all of the host's mounts, and leave theirs behind.
    t.differs(integration_support::Kind::Runc, "runc would change the host's mounts")
        || t.differs(integration_support::Kind::Crun, "so would crun")
}

/// How many mounts the process sees below the scope's directory.
fn mounts_of(t: &T<'_>, pid: &str) -> Result<usize> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    Ok(text.matches(&format!(" {}/", t.scope.dir().display())).count())
}

fn without_a_mount_namespace_it_shares_the_hosts(t: &T<'_>) -> Result<()> {
    if ours_alone(t) {
        return Ok(());
    }
    let bundle = t.workload(&["sleep"]).namespace("mount", None).write()?;
    fs::write(bundle.rootfs().join("only-here"), "")?;
    let container = t.rt.start(&bundle)?;
    let script = ["/bin/workload", "all", "namespaces", ",", "ls", "/", ",", "ls", "/proc/acpi"];
    let out = container.exec(&[], &script)?.ok()?.stdout;
    ensure!(out.contains(&host("mnt")?) && out.contains("only-here"), "{out}");
    ensure!(mounts_of(t, "self")? > 0, "what is compared below isn't what is mounted");
    container.delete(&["--force"])?;
    ensure!(mounts_of(t, "self")? == 0, "it has left mounts on the host");
    // Nor does one that fails leave anything.
    let bundle = Bundle::workload(t.scope, "fails", &["exit", "0"]).namespace("mount", None);
    t.refused(bundle.set("/process/args", json!(["/no/such/program"])))?;
    ensure!(mounts_of(t, "self")? == 0, "it has left mounts on the host");
    Ok(())
}

fn joins_a_mount_namespace_by_path(t: &T<'_>) -> Result<()> {
    if ours_alone(t) {
        return Ok(());
    }
    let mut holder = std::process::Command::new("unshare").args(["-m", "sleep", "1000"]).spawn()?;
    let outcome = (|| {
        let pid = i32::try_from(holder.id())?;
        let ours = host("mnt")?;
        integration_support::wait_for("the holder's namespace", || {
            fs::read_link(of(pid, "mnt")).is_ok_and(|link| link.to_string_lossy() != ours)
        })?;
        let mounts = || mounts_of(t, &pid.to_string());
        let bundle = t.workload(&["sleep"]).namespace("mount", Some(&of(pid, "mnt"))).write()?;
        fs::write(bundle.rootfs().join("only-here"), "")?;
        let container = t.rt.start(&bundle)?;
        ensure!(mounts()? > 0, "nothing was mounted there");
        let out = container.exec(&[], &["/bin/workload", "all", "namespaces", ",", "ls", "/"])?.ok()?.stdout;
        ensure!(out.contains("only-here"), "{out}");
        ensure!(out.contains(fs::read_link(of(pid, "mnt"))?.to_string_lossy().as_ref()), "{out}");
        container.delete(&["--force"])?;
        ensure!(mounts()? == 0, "something is still mounted there");
        Ok(())
    })();
    holder.kill()?;
    holder.wait()?;
    outcome
}

fn user_namespace_maps_ids(t: &T<'_>) -> Result<()> {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = t.sh("cat /proc/self/uid_map; id -u; touch /tmp/mine && stat -c %u /tmp/mine");
    let bundle = bundle.push("/linux/namespaces", json!({"type": "user"}));
    let bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).write()?;
    // The rootfs' way must be open to the mapped user.
    let chmod = |path: &std::path::Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
    };
    chmod(bundle.dir())?;
    chmod(&bundle.rootfs())?;
    let finished = t.rt.run(&bundle)?.ok()?;
    let fields: Vec<_> = finished.stdout.split_whitespace().collect();
    ensure!(fields == ["0", "100000", "65536", "0", "0"], "{finished:?}");
    Ok(())
}
