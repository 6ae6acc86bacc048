//! Hooks: when, where, with what input, and what their failure does.

use std::fs;

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind};
use serde_json::{Value, json};

use crate::{T, has_one};

crate::each_runtime!(
    order_and_state,
    create_container_runs_in_the_mount_namespace,
    start_container_runs_in_the_container,
    start_container_needs_little_of_the_profile,
    env_and_args,
    a_failing_create_hook_undoes_everything,
    a_failing_hook_is_followed_by_poststop,
    a_failing_hook_of_start_destroys_the_container,
    poststart_comes_after_the_program,
    the_pid_is_that_of_the_hooks_namespace,
    a_failing_poststop_hook_is_a_warning,
    a_hook_that_hangs_is_killed,
    a_hook_that_ignores_its_input_is_fine,
);

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs a script with busybox, which is at the same path in the container and on the host.
///
/// It reads its input first: peers that write into a pipe may die of one that doesn't.
fn hook(script: &str) -> Value {
    bare_hook(&format!("cat > /dev/null; {script}"))
}

/// One whose script does something else with its input.
fn bare_hook(script: &str) -> Value {
    json!([{"path": "/bin/busybox", "args": ["busybox", "sh", "-c", script]}])
}

fn order_and_state(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 runs poststart hooks in create, before the program runs")
        || t.differs(Kind::Crun, "crun 1.8 does so too")
    {
        return Ok(());
    }
    // The directory is bind-mounted at its own path, so that hooks on both sides of the fence can write there.
    let dir = t.scope.make_dir("hooks")?;
    let at = dir.to_string_lossy().into_owned();
    let mut bundle = t.sh("echo program >> $DIR/order").env("DIR", &at).mount("bind", &at, &at, &["bind"]);
    bundle = bundle.set("/annotations", json!({"org.test/key": "value"}));
    for kind in KINDS {
        let script = format!("cat > {at}/{kind}.json; echo {kind} >> {at}/order");
        bundle = bundle.set(&format!("/hooks/{kind}"), bare_hook(&script));
    }
    let bundle = bundle.write()?;
    let container = t.rt.create(&bundle, &[])?;
    let order = || fs::read_to_string(dir.join("order"));
    ensure!(order()? == "prestart\ncreateRuntime\ncreateContainer\n", "{}", order()?);
    container.start()?;
    container.wait_status("stopped")?;
    container.delete(&[])?;
    let order = order()?;
    let mut lines: Vec<_> = order.lines().skip(3).collect();
    ensure!(lines.first() == Some(&"startContainer") && lines.last() == Some(&"poststop"), "{order}");
    lines.sort_unstable();
    ensure!(lines == ["poststart", "poststop", "program", "startContainer"], "{order}");
    for (kind, status) in KINDS.iter().zip(["creat", "creat", "creat", "created", "running", "stopped"]) {
        let text = fs::read_to_string(dir.join(format!("{kind}.json")))?;
        let state: Value = serde_json::from_str(&text)?;
        ensure!(state["id"] == bundle.id(), "{kind}: {state}");
        ensure!(state["bundle"] == bundle.dir().to_string_lossy().as_ref(), "{kind}: {state}");
        ensure!(state["annotations"]["org.test/key"] == "value", "{kind}: {state}");
        // A program that ends at once may be gone before poststart runs.
        let fine = state["status"].as_str().is_some_and(|s| s.starts_with(status) || *kind == "poststart");
        ensure!(fine, "{kind}: {state}");
        // The container's own hooks see the pid of their namespace, or none.
        let outside = ["prestart", "createRuntime", "poststart"].contains(kind);
        ensure!(!outside || state["pid"].as_i64().is_some_and(|p| p > 0), "{kind}: {state}");
    }
    Ok(())
}

fn create_container_runs_in_the_mount_namespace(t: &T<'_>) -> Result<()> {
    let out = t.scope.path("out");
    let script = format!("readlink /proc/self/ns/mnt > {}", out.display());
    let bundle = t.workload(&["sleep"]).set("/hooks/createContainer", hook(&script)).write()?;
    let container = t.rt.create(&bundle, &[])?;
    let theirs = fs::read_link(format!("/proc/{}/ns/mnt", container.pid()?))?;
    ensure!(fs::read_to_string(&out)?.trim() == theirs.to_string_lossy());
    container.delete(&["--force"])
}

fn start_container_runs_in_the_container(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("cat /tmp/by-hook").set("/hooks/startContainer", hook("hostname > /tmp/by-hook"));
    let out = t.out(bundle)?;
    ensure!(out == "lab\n", "{out}");
    Ok(())
}

/// A profile older than these system calls, or one that has no use for them.
fn start_container_needs_little_of_the_profile(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "the first of crun 1.8's hooks fails under it") {
        return Ok(());
    }
    let denied = ["memfd_create", "pidfd_open", "pidfd_send_signal", "signalfd", "signalfd4", "eventfd2"];
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": denied, "action": "SCMP_ACT_ERRNO"}],
    });
    for no_new_privileges in [true, false] {
        // An orphan, which is init's to bury, isn't the hook; the second hook has its input as well.
        let script = "(true &) ; cat > /tmp/by-hook";
        let hooks = json!([bare_hook(script)[0], bare_hook("grep -c creat >> /tmp/by-hook")[0]]);
        let bundle = Bundle::sh(t.scope, &format!("{no_new_privileges}"), "cat /tmp/by-hook")
            .set("/linux/seccomp", profile.clone())
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        let out = t.out(bundle.clone().set("/hooks/startContainer", hooks))?;
        ensure!(out.contains("creat") && out.ends_with("1\n"), "{out}");
        let failing = bundle.clone().set("/hooks/startContainer", hook("echo no way >&2; exit 3"));
        has_one(&t.refused(failing)?, &["no way"])?;
        let mut hanging = hook("sleep 1000");
        hanging[0]["timeout"] = json!(1);
        t.refused(bundle.set("/hooks/startContainer", hanging))?;
    }
    Ok(())
}

fn env_and_args(t: &T<'_>) -> Result<()> {
    let out = t.scope.path("out");
    let script = format!(
        "cat > /dev/null; echo $0 $1 $COLOUR > {}; env | grep -c . >> {}",
        out.display(),
        out.display()
    );
    let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "sh", "-c", script, "zero", "one"], "env": ["COLOUR=red"]}]);
    t.out(t.workload(&["exit", "0"]).set("/hooks/createRuntime", hook))?;
    let text = fs::read_to_string(&out)?;
    ensure!(text.starts_with("zero one red\n"), "{text}");
    Ok(())
}

fn a_failing_create_hook_undoes_everything(t: &T<'_>) -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let bundle =
            Bundle::sh(t.scope, kind, "true").set(&format!("/hooks/{kind}"), hook("echo no way >&2; exit 3"));
        let said = t.refused(bundle)?;
        has_one(&said, &["hook", "no way", "/bin/busybox"])?;
    }
    Ok(())
}

/// runtime-spec: "continue the lifecycle at step 12": destroyed, and then poststop hooks.
fn a_failing_hook_is_followed_by_poststop(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 runs no poststop hooks then") {
        return Ok(());
    }
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let out = t.scope.path(&format!("after-{kind}"));
        let bundle = Bundle::sh(t.scope, kind, "true")
            .set(&format!("/hooks/{kind}"), hook("exit 3"))
            .set("/hooks/poststop", bare_hook(&format!("cat > {}", out.display())));
        if kind == "startContainer" && t.differs(Kind::Runc, "runc 1.1 runs none after a failed start") {
            return Ok(());
        }
        t.refused(bundle)?;
        let state: Value = serde_json::from_str(&fs::read_to_string(&out)?)?;
        ensure!(state["status"] == "stopped", "{kind}: {state}");
    }
    Ok(())
}

fn a_failing_hook_of_start_destroys_the_container(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc leaves it stopped") || t.differs(Kind::Crun, "so does crun") {
        return Ok(());
    }
    for kind in ["startContainer", "poststart"] {
        let out = t.scope.path(&format!("after-{kind}"));
        let bundle = Bundle::workload(t.scope, kind, &["sleep"])
            .edit(|config| config["hooks"] = json!({kind: hook("echo no way >&2; exit 3")}))
            .set("/hooks/poststop", hook(&format!("echo x > {}", out.display())));
        let bundle = if kind == "startContainer" {
            Bundle::sh(t.scope, "sc", "sleep 1000")
                .edit(|config| config["hooks"] = bundle.config()["hooks"].clone())
        } else {
            bundle
        };
        let container = t.rt.create(&bundle.write()?, &[])?;
        has_one(&container.call(&["start"])?.err()?.stderr, &["no way"])?;
        ensure!(out.exists(), "{kind}: no poststop hook has run");
        container.call(&["state"])?.err()?;
    }
    Ok(())
}

fn poststart_comes_after_the_program(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 runs it before the program")
        || t.differs(Kind::Crun, "so does crun 1.8")
    {
        return Ok(());
    }
    let out = t.scope.path("program");
    // What runs at that pid when the hook does: the state says the pid.
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); tr '\\0' ' ' < /proc/$pid/cmdline > {}",
        out.display()
    );
    let bundle = t.workload(&["sleep"]).set("/hooks/poststart", bare_hook(&script));
    let container = t.start(bundle)?;
    let program = fs::read_to_string(&out)?;
    ensure!(program.starts_with("/bin/workload sleep"), "{program:?}");
    container.delete(&["--force"])
}

fn the_pid_is_that_of_the_hooks_namespace(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 says 0 inside")
        || t.differs(Kind::Crun, "crun 1.8 says the host's inside")
    {
        return Ok(());
    }
    let dir = t.scope.make_dir("pids")?;
    let at = dir.to_string_lossy().into_owned();
    let mut bundle = t.sh("sleep 1000").mount("bind", &at, &at, &["bind"]);
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        bundle = bundle.set(&format!("/hooks/{kind}"), bare_hook(&format!("cat > {at}/{kind}")));
    }
    let container = t.start(bundle)?;
    let pid = |kind: &str| -> Result<Value> {
        let state: Value = serde_json::from_str(&fs::read_to_string(dir.join(kind))?)?;
        Ok(state["pid"].clone())
    };
    ensure!(pid("createRuntime")? == container.pid()?, "{}", pid("createRuntime")?);
    ensure!(pid("createContainer")? == 1 && pid("startContainer")? == 1);
    container.delete(&["--force"])
}

fn a_failing_poststop_hook_is_a_warning(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["exit", "0"]).set("/hooks/poststop", hook("exit 3")))?;
    container.wait_status("stopped")?;
    container.delete(&[])?;
    container.call(&["state"])?.err().map(drop)
}

fn a_hook_that_hangs_is_killed(t: &T<'_>) -> Result<()> {
    let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "sleep", "1000"], "timeout": 1}]);
    let bundle = t.workload(&["exit", "0"]).set("/hooks/createRuntime", hook);
    // It would take longer than anybody waits.
    t.refused(bundle).map(drop)
}

fn a_hook_that_ignores_its_input_is_fine(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 may fail with EPIPE") {
        return Ok(());
    }
    let annotations: serde_json::Map<String, Value> =
        (0..4000).map(|n| (format!("org.test/{n}"), json!("x".repeat(40)))).collect();
    let bundle = t.workload(&["exit", "0"]).set("/annotations", annotations.into());
    t.out(bundle.set("/hooks/createRuntime", bare_hook("exec 0</dev/null; true"))).map(drop)
}
