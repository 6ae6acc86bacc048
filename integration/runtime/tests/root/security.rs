//! Capabilities, no_new_privs, seccomp, masked and read-only paths, a read-only root.

use anyhow::{Result, ensure};
use integration_support::Bundle;
use serde_json::json;

use crate::{T, has, value};

crate::each_runtime!(
    default_capabilities,
    no_capabilities,
    users_keep_no_effective_capabilities,
    ambient_capabilities_survive_a_user,
    unknown_capabilities_do_not_stop_a_container,
    no_new_privileges,
    default_seccomp_profile_holds,
    seccomp_errno,
    seccomp_errno_ret,
    seccomp_kill,
    seccomp_arguments,
    seccomp_with_unknown_syscalls,
    seccomp_with_unknown_syscalls_may_be_an_error,
    seccomp_that_refuses_getcwd,
    seccomp_without_new_privileges_as_user,
    seccomp_profile_from_before_faccessat2,
    masked_paths,
    read_only_paths,
    read_only_root,
    device_nodes_cannot_be_opened_when_denied,
    no_escape_through_proc_self_exe,
);

/// The 14 default capabilities as a mask.
const DEFAULT: &str = "00000000a80425fb";

fn default_capabilities(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["caps"]))?;
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(value(&out, set)? == DEFAULT, "{out}");
    }
    for set in ["CapInh", "CapAmb"] {
        ensure!(value(&out, set)? == "0000000000000000", "{out}");
    }
    Ok(())
}

fn no_capabilities(t: &T<'_>) -> Result<()> {
    let out = t.out(
        t.workload(&["all", "caps", ",", "chown", "/etc/passwd", "7", "7"])
            .set("/process/capabilities", json!({})),
    )?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(value(&out, set)? == "0000000000000000", "{out}");
    }
    has(&out, "chown: EPERM")
}

fn users_keep_no_effective_capabilities(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["caps"]).set("/process/user", json!({"uid": 1000, "gid": 1000})))?;
    ensure!(value(&out, "CapEff")? == "0000000000000000", "{out}");
    ensure!(value(&out, "CapBnd")? == DEFAULT, "{out}");
    Ok(())
}

fn ambient_capabilities_survive_a_user(t: &T<'_>) -> Result<()> {
    let set = ["CAP_NET_BIND_SERVICE", "CAP_NET_RAW"];
    let capabilities =
        json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set});
    let bundle = t.workload(&["all", "caps", ",", "raw-socket"]).set("/process/capabilities", capabilities);
    let out = t.out(bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})))?;
    for set in ["CapEff", "CapAmb", "CapBnd", "CapInh"] {
        ensure!(value(&out, set)? == "0000000000002400", "{out}");
    }
    has(&out, "raw-socket: ok")
}

/// A newer engine may name a capability that this kernel or runtime doesn't know: it's left out.
fn unknown_capabilities_do_not_stop_a_container(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Crun, "crun 1.8 refuses unknown capabilities") {
        return Ok(());
    }
    let bundle = t.workload(&["caps"]).push("/process/capabilities/bounding", json!("CAP_FROM_THE_FUTURE"));
    let out = t.out(bundle.push("/process/capabilities/effective", json!("CAP_FROM_THE_FUTURE")))?;
    ensure!(value(&out, "CapBnd")? == DEFAULT, "{out}");
    Ok(())
}

fn no_new_privileges(t: &T<'_>) -> Result<()> {
    for (given, seen) in [(true, "1"), (false, "0")] {
        let bundle = Bundle::workload(t.scope, &format!("nnp{seen}"), &["caps"]);
        let out = t.out(bundle.set("/process/noNewPrivileges", json!(given)))?;
        ensure!(value(&out, "NoNewPrivs")? == seen, "{out}");
    }
    Ok(())
}

fn default_seccomp_profile_holds(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&[
        "all", "caps", ",", "unshare", "user", ",", "mount", "none", "/tmp", "tmpfs", ",", "mkdir", "/tmp/x",
    ]);
    let out = t.out(bundle)?;
    ensure!(value(&out, "Seccomp")? == "2", "{out}");
    has(&out, "unshare: EPERM")?;
    has(&out, "mount: EPERM")?;
    has(&out, "mkdir: ok")
}

fn profile(syscalls: serde_json::Value) -> serde_json::Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": syscalls})
}

fn seccomp_errno(t: &T<'_>) -> Result<()> {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let out = t.out(t.workload(&["all", "mkdir", "/tmp/x"]).set("/linux/seccomp", profile(rule)))?;
    has(&out, "mkdir: EPERM")
}

fn seccomp_errno_ret(t: &T<'_>) -> Result<()> {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let out = t.out(t.workload(&["all", "mkdir", "/tmp/x"]).set("/linux/seccomp", profile(rule)))?;
    has(&out, "mkdir: ENOSPC")
}

fn seccomp_kill(t: &T<'_>) -> Result<()> {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]);
    let bundle = t.workload(&["mkdir", "/tmp/x"]).set("/linux/seccomp", profile(rule)).write()?;
    let finished = t.rt.run(&bundle)?;
    ensure!(finished.code() == 128 + 31, "SIGSYS was expected: {finished:?}");
    Ok(())
}

fn seccomp_arguments(t: &T<'_>) -> Result<()> {
    // mkdir with mode 0700 is refused, with 0755 it isn't.
    let rule = json!([
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}]},
        {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 2, "value": 0o700, "op": "SCMP_CMP_EQ"}]},
    ]);
    let bundle = t.workload(&["all", "mkdir", "/tmp/no", "700", ",", "mkdir", "/tmp/yes", "755"]);
    let out = t.out(bundle.set("/linux/seccomp", profile(rule)))?;
    ensure!(out.starts_with("mkdir: EPERM\n") && out.contains("mkdir: ok"), "{out}");
    Ok(())
}

fn seccomp_with_unknown_syscalls(t: &T<'_>) -> Result<()> {
    let rule = json!([{"names": ["from_the_future", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let out = t.out(t.workload(&["all", "mkdir", "/tmp/x"]).set("/linux/seccomp", profile(rule)))?;
    has(&out, "mkdir: EPERM")
}

/// An annotation of crun's.
fn seccomp_with_unknown_syscalls_may_be_an_error(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Runc, "runc doesn't know the annotation") {
        return Ok(());
    }
    let rule = json!([{"names": ["mkdir", "from_the_future"], "action": "SCMP_ACT_ERRNO"}]);
    let bundle = t.workload(&["exit", "0"]).set("/linux/seccomp", profile(rule));
    let said = t.refused(bundle.set("/annotations", json!({"run.oci.seccomp_fail_unknown_syscall": "1"})))?;
    has(&said, "from_the_future")
}

/// Whether the working directory is the container's (CVE-2024-21626) is seen before a filter may refuse to tell.
fn seccomp_that_refuses_getcwd(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Runc, "runc asks for the working directory after the filter") {
        return Ok(());
    }
    let rule = json!([{"names": ["getcwd", "readlink", "readlinkat"], "action": "SCMP_ACT_ERRNO"}]);
    for (name, privileges) in [("without", json!(false)), ("with", json!(true))] {
        let bundle = Bundle::workload(t.scope, name, &["all", "echo", "here", ",", "caps"]);
        let bundle = bundle.set("/linux/seccomp", profile(rule.clone())).set("/process/cwd", json!("/tmp"));
        let out = t.out(bundle.set("/process/noNewPrivileges", privileges))?;
        has(&out, "here")?;
        ensure!(value(&out, "Seccomp")? == "2", "{out}");
    }
    Ok(())
}

/// Profiles that are older than a system call refuse it, also to the runtime that looks for the program.
fn seccomp_profile_from_before_faccessat2(t: &T<'_>) -> Result<()> {
    let rule = json!([{"names": ["close_range", "faccessat2", "openat2"], "action": "SCMP_ACT_ERRNO"}]);
    for program in ["workload", "/bin/workload"] {
        let bundle = t.workload(&["echo", "here"]).set("/process/args/0", json!(program));
        let bundle = bundle.set("/linux/seccomp", profile(rule.clone()));
        let out = t.out(bundle.set("/process/noNewPrivileges", json!(false)))?;
        has(&out, "here")?;
    }
    Ok(())
}

fn seccomp_without_new_privileges_as_user(t: &T<'_>) -> Result<()> {
    // Without no_new_privs the filter must be loaded while the runtime still has CAP_SYS_ADMIN.
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let bundle = t.workload(&["all", "caps", ",", "mkdir", "/tmp/x"]).set("/linux/seccomp", profile(rule));
    let bundle = bundle.set("/process/noNewPrivileges", json!(false));
    let out = t.out(bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})))?;
    has(&out, "mkdir: EPERM")?;
    ensure!(value(&out, "NoNewPrivs")? == "0", "{out}");
    Ok(())
}

fn masked_paths(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("cat /proc/kcore | wc -c; ls /secret | wc -l; cat /secret-file | wc -c; ls -d /proc/not-there 2>&1").write()?;
    std::fs::create_dir(bundle.rootfs().join("secret"))?;
    std::fs::write(bundle.rootfs().join("secret/key"), "k")?;
    std::fs::write(bundle.rootfs().join("secret-file"), "secret")?;
    let paths = json!(["/proc/kcore", "/secret", "/secret-file", "/proc/not-there"]);
    let finished = t.rt.run(&bundle.set("/linux/maskedPaths", paths).write()?)?;
    ensure!(finished.stdout.starts_with("0\n0\n0\n"), "{finished:?}");
    Ok(())
}

fn read_only_paths(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("echo 1 > /proc/sys/kernel/msgmax; echo 1 > /etc/file; cat /etc/passwd | wc -l; echo 1 > /tmp/fine && echo fine");
    let finished = t.rt.run(&bundle.push("/linux/readonlyPaths", json!("/etc")).write()?)?;
    ensure!(finished.stderr.matches("Read-only file system").count() == 2, "{finished:?}");
    has(&finished.stdout, "3\nfine")
}

fn read_only_root(t: &T<'_>) -> Result<()> {
    let bundle =
        t.sh("echo 1 > /file; echo 1 > /dev/shm/file && echo fine").set("/root/readonly", json!(true));
    let finished = t.rt.run(&bundle.write()?)?;
    has(&finished.stderr, "Read-only file system")?;
    has(&finished.stdout, "fine")
}

fn device_nodes_cannot_be_opened_when_denied(t: &T<'_>) -> Result<()> {
    // The default capabilities include CAP_MKNOD: the device cgroup alone stands between a container and a disk.
    let bundle = t.workload(&[
        "all",
        "mknod",
        "/tmp/disk",
        "b",
        "254",
        "0",
        ",",
        "open",
        "/tmp/disk",
        ",",
        "open",
        "/dev/null",
        "rw",
    ]);
    let out = t.out(bundle)?;
    ensure!(out.contains("mknod: EPERM") || out.contains("open: EPERM\n"), "{out}");
    ensure!(out.ends_with("open: ok\n"), "{out}");
    Ok(())
}

/// CVE-2019-5736: a container that makes the runtime execute its own /proc/self/exe must not be able to write to the
/// runtime's binary.
fn no_escape_through_proc_self_exe(t: &T<'_>) -> Result<()> {
    let before = std::fs::metadata(t.rt.binary())?;
    let container = t.start(t.sh("while true; do sleep 100; done"))?;
    let attack = "for p in /proc/[0-9]*; do (echo '#!/bin/false' > $p/exe) 2>/dev/null; done; true";
    for _ in 0..5 {
        container.exec(&[], &["/bin/sh", "-c", attack])?;
    }
    let after = std::fs::metadata(t.rt.binary())?;
    ensure!(
        before.len() == after.len() && before.modified()? == after.modified()?,
        "the runtime was overwritten"
    );
    container.delete(&["--force"])
}
