//! The `process` section: who the program is and what it gets.

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind, require_program, run};
use serde_json::json;

use crate::{T, has, lacks, value};

crate::each_runtime!(
    env_is_exactly_what_is_given,
    cwd,
    a_missing_cwd_is_made,
    user_and_groups,
    groups_of_the_caller_may_be_kept,
    umask,
    rlimits,
    oom_score_adj,
    hostname_and_domainname,
    no_descriptor_leaks,
    preserved_descriptors_arrive,
    listen_fds_arrive,
    home_is_set_from_passwd,
    sysctls,
);

fn env_is_exactly_what_is_given(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["env"]).env("GREETING", "hello world").env("EMPTY", "");
    let bundle = bundle.env("EQUALS", "a=b=c").env("MULTI", "one\ntwo");
    let out = t.out(bundle)?;
    for line in ["GREETING=hello world\n", "EMPTY=\n", "EQUALS=a=b=c\n", "MULTI=one\ntwo\n"] {
        has(&out, line)?;
    }
    lacks(&out, "CARGO")?;
    lacks(&out, "_LIBCONTAINER")
}

fn cwd(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["pwd"]).set("/process/cwd", json!("/usr/bin")))?;
    ensure!(out == "/usr/bin\n", "{out}");
    Ok(())
}

fn a_missing_cwd_is_made(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["pwd"]).set("/process/cwd", json!("/made/on/the/spot")))?;
    ensure!(out == "/made/on/the/spot\n", "{out}");
    Ok(())
}

fn user_and_groups(t: &T<'_>) -> Result<()> {
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 2000]});
    let out = t.out(t.workload(&["id"]).set("/process/user", user))?;
    ensure!(value(&out, "uid")? == "1000" && value(&out, "gid")? == "1001", "{out}");
    for group in ["5", "2000"] {
        has(value(&out, "groups")?, group)?;
    }
    Ok(())
}

/// podman's `--group-add keep-groups`, by crun's annotation: for the container's process and for exec.
fn groups_of_the_caller_may_be_kept(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc doesn't know the annotation") || !require_program("setpriv") {
        return Ok(());
    }
    let with_group = |inner: &std::process::Command| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--groups", "4321", "--"]).arg(inner.get_program()).args(inner.get_args());
        command
    };
    let kept = json!({"run.oci.keep_original_groups": "1"});
    for (name, annotations, expected) in [("kept", kept.clone(), true), ("left", json!({}), false)] {
        let bundle = Bundle::workload(t.scope, name, &["id"]).set("/annotations", annotations).write()?;
        let mut command = t.rt.command();
        command.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
        let out = run(&mut with_group(&command))?.ok()?.stdout;
        ensure!(value(&out, "groups")?.contains("4321") == expected, "{name}: {out}");
    }
    let container = t.start(t.sh("sleep 100000").set("/annotations", kept))?;
    let mut command = t.rt.command();
    command.args(["exec", container.id(), "/bin/busybox", "id", "-G"]);
    let out = run(&mut with_group(&command))?.ok()?.stdout;
    has(&out, "4321")?;
    container.delete(&["--force"])
}

fn umask(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["id"]).set("/process/user/umask", json!(0o027)))?;
    ensure!(value(&out, "umask")? == "0027", "{out}");
    let default = Bundle::workload(t.scope, "default", &["id"]);
    let out = t.out(default)?;
    ensure!(value(&out, "umask")? == "0022", "{out}");
    Ok(())
}

fn rlimits(t: &T<'_>) -> Result<()> {
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 1_048_576, "hard": 2_097_152},
    ]);
    let bundle = t.workload(&["limits", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_FSIZE"]);
    let out = t.out(bundle.set("/process/rlimits", limits))?;
    ensure!(value(&out, "RLIMIT_NOFILE")? == "512 1024", "{out}");
    ensure!(value(&out, "RLIMIT_CORE")? == "0 0", "{out}");
    ensure!(value(&out, "RLIMIT_FSIZE")? == "1048576 2097152", "{out}");
    Ok(())
}

fn oom_score_adj(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["caps"]).set("/process/oomScoreAdj", json!(777)))?;
    ensure!(value(&out, "oom_score_adj")? == "777", "{out}");
    Ok(())
}

fn hostname_and_domainname(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["hostname"]).set("/hostname", json!("box-7")))?;
    ensure!(value(&out, "hostname")? == "box-7", "{out}");
    if t.differs(integration_support::Kind::Runc, "runc 1.1 doesn't know domainname")
        || t.differs(integration_support::Kind::Crun, "crun 1.8.1 doesn't know domainname")
    {
        return Ok(());
    }
    let bundle = integration_support::Bundle::workload(t.scope, "domain", &["hostname"]);
    let out = t.out(bundle.set("/domainname", json!("example.test")))?;
    ensure!(value(&out, "domainname")? == "example.test", "{out}");
    Ok(())
}

/// CVE-2024-21626 and its kind: nothing that the runtime had open may be seen in the container.
fn no_descriptor_leaks(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["fds"]))?;
    let fds: Vec<_> = out.lines().filter_map(|l| l.strip_prefix("fd ")?.split_once(": ")).collect();
    ensure!(fds.iter().all(|(n, _)| ["0", "1", "2"].contains(n)), "{out}");
    Ok(())
}

fn preserved_descriptors_arrive(t: &T<'_>) -> Result<()> {
    let path = t.scope.path("passed-in");
    std::fs::write(&path, "through a descriptor")?;
    let bundle = t.sh("cat <&3").write()?;
    // The shell puts the file at descriptor 3 and becomes the runtime.
    let mut inner = t.rt.command();
    inner.arg("run").args(["--preserve-fds", "1", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
    let finished = run(&mut with_descriptor_3(&inner, &path))?.ok()?;
    ensure!(finished.stdout == "through a descriptor", "{finished:?}");
    Ok(())
}

fn listen_fds_arrive(t: &T<'_>) -> Result<()> {
    let path = t.scope.path("passed-in");
    std::fs::write(&path, "socket activation")?;
    let bundle = t.sh("echo fds=$LISTEN_FDS pid=$LISTEN_PID; cat <&3").write()?;
    let mut inner = t.rt.command();
    inner.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    let mut command = with_descriptor_3(&inner, &path);
    // The runtime takes the descriptors only if they are meant for its own process.
    command.env("ACTIVATE", "1");
    let finished = run(&mut command)?.ok()?;
    if t.rt.kind() != integration_support::Kind::Crun {
        has(&finished.stdout, "fds=1 pid=1\n")?;
    }
    has(&finished.stdout, "socket activation")
}

const WITH_DESCRIPTOR_3: &str =
    "exec 3<\"$0\"; [ -z \"$ACTIVATE\" ] || export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";

/// The same command, started with descriptor 3 open on a file.
fn with_descriptor_3(inner: &std::process::Command, path: &std::path::Path) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", WITH_DESCRIPTOR_3]).arg(path).arg(inner.get_program()).args(inner.get_args());
    command
}

fn home_is_set_from_passwd(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["env"]).set("/process/env", json!(["PATH=/bin"]));
    let out = t.out(bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})))?;
    has(&out, "HOME=/home\n")
}

fn sysctls(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&[
        "all",
        "read",
        "/proc/sys/net/ipv4/ping_group_range",
        ",",
        "read",
        "/proc/sys/kernel/msgmax",
    ]);
    let sysctl = json!({"net.ipv4.ping_group_range": "0 100", "kernel.msgmax": "4096"});
    let out = t.out(bundle.set("/linux/sysctl", sysctl))?;
    ensure!(out == "0\t100\n4096\n", "{out:?}");
    Ok(())
}
