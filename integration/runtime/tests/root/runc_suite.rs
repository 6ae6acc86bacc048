//! What runc's own test suite found in corten: each of these was otherwise once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind, run};
use serde_json::json;

use super::mounts::{mount_tmpfs, umount};
use crate::{T, has, lacks};

crate::each_runtime!(
    a_terminal_of_ours_adds_no_carriage_returns,
    a_missing_interpreter_is_told_as_execve_does,
    create_container_hooks_start_in_the_rootfs,
    paths_that_are_masked_twice_are_masked_once,
    the_options_of_a_bind_mount_are_all_of_its_options,
    a_tmpfs_on_nothing_is_for_everybody,
    a_bind_mounts_source_may_be_an_earlier_mount,
);
crate::each_runtime!(@one corten_alone Corten
    a_start_container_hook_has_home capabilities_that_nobody_knows_are_a_warning
    exec_adds_ambient_capabilities_where_some_are_inheritable an_event_begins_with_its_type
    a_created_init_holds_nothing_of_the_hosts a_root_that_is_not_there_has_no_list
    debug_messages_are_logged_and_only_on_demand
    a_start_container_hook_is_filtered
    without_a_pivot_there_is_no_whole_proc
);

fn a_terminal_of_ours_adds_no_carriage_returns(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 leaves ONLCR on")
        || t.differs(Kind::Runc, "runc 1.1 wants a terminal itself")
    {
        return Ok(());
    }
    let out = t.out(t.sh("echo one; echo two").terminal())?;
    ensure!(out == "one\ntwo\n", "{out:?}");
    Ok(())
}

fn a_missing_interpreter_is_told_as_execve_does(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).write()?;
    let script = bundle.rootfs().join("script");
    fs::write(&script, "#!/no/such/interpreter\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let container = t.rt.start(&bundle)?;
    let failed = container.exec(&[], &["/script"])?;
    let said = format!("{}{}", failed.stderr, failed.stdout).to_lowercase();
    let words =
        if t.rt.kind() == Kind::Crun { "no such file or directory" } else { "exec /script: no such file" };
    ensure!(!failed.status.success() && said.contains(words), "{said}");
    container.delete(&["--force"])
}

fn create_container_hooks_start_in_the_rootfs(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 starts them elsewhere") {
        return Ok(());
    }
    let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "sh", "-c", "cat > /dev/null; echo hook > tmp/made"]}]);
    let bundle = t.sh("cat /tmp/made").set("/hooks/createContainer", hook).without("/root/readonly");
    let out = t.out(bundle)?;
    ensure!(out == "hook\n", "{out}");
    Ok(())
}

fn paths_that_are_masked_twice_are_masked_once(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 masks them twice") || t.differs(Kind::Crun, "crun 1.8 does so too") {
        return Ok(());
    }
    let masked = json!(["/masked", "/proc/kcore", "/masked"]);
    let bundle =
        t.sh("grep -c ' /masked ' /proc/self/mountinfo").set("/linux/maskedPaths", masked).write()?;
    fs::create_dir(bundle.rootfs().join("masked"))?;
    let done = t.rt.run(&bundle)?.ok()?;
    ensure!(done.stdout == "1\n", "{done:?}");
    Ok(())
}

fn a_start_container_hook_has_home(t: &T<'_>) -> Result<()> {
    let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "sh", "-c", "cat > /dev/null; echo $HOME > /tmp/home"]}]);
    let out = t.out(t.sh("cat /tmp/home").set("/hooks/startContainer", hook))?;
    ensure!(out.starts_with('/'), "{out}");
    Ok(())
}

fn capabilities_that_nobody_knows_are_a_warning(t: &T<'_>) -> Result<()> {
    let names = json!(["CAP_KILL", "CAP_UNKNOWN", "UNKNOWN_CAP"]);
    let bundle =
        t.sh("grep CapBnd /proc/self/status").set("/process/capabilities/bounding", names).write()?;
    let done = t.rt.run(&bundle)?.ok()?;
    has(&done.stdout, "0000000000000020")?;
    has(&done.stderr, "UNKNOWN_CAP")
}

fn exec_adds_ambient_capabilities_where_some_are_inheritable(t: &T<'_>) -> Result<()> {
    let with = |inheritable: Option<&str>| {
        let mut sets = json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
        if let Some(name) = inheritable {
            sets["inheritable"] = json!([name, "CAP_KILL"]);
        }
        t.sh("exec sleep 100000").set("/process/capabilities", sets)
    };
    for (inheritable, ambient) in [(None, "0000000000000000"), (Some("CAP_CHOWN"), "0000000000000001")] {
        let container = t.start(with(inheritable))?;
        let done = container
            .exec(&["--cap", "CAP_CHOWN"], &["/bin/busybox", "grep", "CapAmb", "/proc/self/status"])?;
        has(&done.ok()?.stdout, ambient)?;
        container.delete(&["--force"])?;
    }
    Ok(())
}

fn an_event_begins_with_its_type(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let done = container.call(&["events", "--stats"])?.ok()?;
    let start = format!(r#"{{"type":"stats","id":"{}","data":{{"#, container.id());
    ensure!(done.stdout.starts_with(&start), "{}", done.stdout);
    container.delete(&["--force"])
}

/// The processes of a PID namespace that is shared may look at it, with CAP_SYS_PTRACE.
fn a_created_init_holds_nothing_of_the_hosts(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["sleep"]).write()?;
    let container = t.rt.create(&bundle, &[])?;
    let stdio = 2;
    for entry in fs::read_dir(format!("/proc/{}/fd", container.pid()?))? {
        let entry = entry?;
        let number: u32 = entry.file_name().to_string_lossy().parse()?;
        let target = fs::read_link(entry.path())?.to_string_lossy().into_owned();
        ensure!(
            number <= stdio || target.starts_with("socket:") || target.ends_with("exec.fifo"),
            "{number} is {target}"
        );
    }
    container.start()?;
    container.delete(&["--force"])
}

fn a_root_that_is_not_there_has_no_list(t: &T<'_>) -> Result<()> {
    let nowhere = t.scope.path("nowhere");
    let done = run(Command::new(t.rt.binary()).arg("--root").arg(&nowhere).arg("list"))?;
    ensure!(!done.status.success(), "{done:?}");
    has(&done.stderr, &nowhere.display().to_string())
}

fn debug_messages_are_logged_and_only_on_demand(t: &T<'_>) -> Result<()> {
    for debug in [true, false] {
        let log = t.scope.path(if debug { "debug.log" } else { "plain.log" });
        let bundle = t.workload(&["exit", "0"]).write()?;
        let mut command = t.rt.command();
        if debug {
            command.arg("--debug");
        }
        // The harness' own --log comes before it; the last one counts.
        command.arg("--log").arg(&log).args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
        run(&mut command)?.ok()?;
        let text = fs::read_to_string(&log).unwrap_or_default();
        if debug { has(&text, "init is set up")? } else { lacks(&text, "debug")? }
    }
    Ok(())
}

fn the_options_of_a_bind_mount_are_all_of_its_options(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 clears them even without any options")
        || t.differs(Kind::Runc, "runc 1.1 clears none for an option that only clears")
    {
        return Ok(());
    }
    let source = t.scope.make_dir("source")?;
    let at = source.to_string_lossy().into_owned();
    mount_tmpfs(&source)?;
    let locked = run(Command::new("mount").args(["-o", "remount,bind,ro,nosuid,nodev,noexec"]).arg(&source));
    let outcome = locked.and_then(|done| done.ok()).and_then(|_| options_of(t, &at));
    umount(&source)?;
    outcome
}

fn options_of(t: &T<'_>, source: &str) -> Result<()> {
    for (options, has_them, hasnt) in [
        (&["bind"][..], &["ro", "nosuid", "nodev", "noexec"][..], &[][..]),
        (&["bind", "nosuid"], &["rw", "nosuid"], &["ro", "nodev", "noexec"]),
        (&["bind", "ro"], &["ro"], &["nosuid", "nodev", "noexec"]),
        (&["bind", "rprivate", "dev"], &["rw"], &["nosuid", "nodev", "noexec"]),
        (&["rbind", "rro", "nosuid"], &["ro", "nosuid"], &["nodev", "noexec"]),
        (&["rbind", "ro", "rnosuid", "rnoexec"], &["ro", "nosuid", "noexec"], &["nodev"]),
    ] {
        let name = options.join("-");
        let bundle = Bundle::sh(t.scope, &name, "grep ' /mnt ' /proc/self/mounts");
        let out = t.out(bundle.mount("bind", source, "/mnt", options))?;
        let found: Vec<&str> = out.split(' ').nth(3).unwrap_or_default().split(',').collect();
        ensure!(has_them.iter().all(|word| found.contains(word)), "{options:?}: {out}");
        ensure!(!hasnt.iter().any(|word| found.contains(word)), "{options:?}: {out}");
    }
    Ok(())
}

fn a_tmpfs_on_nothing_is_for_everybody(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 takes the mode of the directory it has made") {
        return Ok(());
    }
    let bundle = t.sh("stat -c %a /new/place").mount("tmpfs", "tmpfs", "/new/place", &[]);
    let out = t.out(bundle)?;
    ensure!(out == "1777\n", "{out}");
    Ok(())
}

fn a_bind_mounts_source_may_be_an_earlier_mount(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("touch /b/made; ls /a");
    let inside = bundle.rootfs().join("a").to_string_lossy().into_owned();
    let bundle = bundle.mount("tmpfs", "tmpfs", "/a", &[]).mount("bind", &inside, "/b", &["bind"]);
    let out = t.out(bundle)?;
    ensure!(out == "made\n", "{out}");
    Ok(())
}

fn a_start_container_hook_is_filtered(t: &T<'_>) -> Result<()> {
    let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "sh", "-c", "cat > /dev/null; mkdir /tmp/made"]}]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    });
    for no_new_privileges in [true, false] {
        let name = format!("c-{no_new_privileges}");
        let bundle = Bundle::sh(t.scope, &name, "true")
            .set("/hooks/startContainer", hook.clone())
            .set("/linux/seccomp", profile.clone())
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .write()?;
        let failed = t.rt.run(&bundle)?.err()?;
        has(&failed.stderr, "error running startContainer hook #0")?;
    }
    Ok(())
}

/// The kernel lets a user namespace in the container mount a /proc without our masks if it finds a whole one in the mount
/// namespace, however unreachable.
fn without_a_pivot_there_is_no_whole_proc(t: &T<'_>) -> Result<()> {
    let script = "unshare -mrpf sh -c 'mount -t proc none /proc && echo bare' 2>&1";
    for options in [&[][..], &["--no-pivot"]] {
        let name = format!("c{}", options.len());
        let all = json!(["CAP_SYS_ADMIN", "CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"]);
        let bundle = Bundle::sh(t.scope, &name, script)
            .without("/linux/seccomp")
            .set("/process/capabilities/bounding", all.clone())
            .set("/process/capabilities/permitted", all.clone())
            .set("/process/capabilities/effective", all)
            .write()?;
        let done = t.rt.run_with(&bundle, options, b"")?;
        has(&done.stdout.to_lowercase(), "mount: ")?;
        lacks(&done.stdout, "bare")?;
    }
    Ok(())
}
