//! CVE-2024-21626: a descriptor of the host leaks into the container, where it is a working directory and a way out.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use integration_support::{Finished, run};
use serde_json::json;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (descriptors_do_not_leak));

// crun 1.8 of Debian 12 ends up in the host's directory, if its caller leaves one open.
crate::attack!([inside_corten Corten, inside_runc Runc] (
    the_working_directory_is_never_the_hosts,
    nor_is_that_of_a_further_process
));

/// Runs the runtime as someone careless does: with descriptors 7 and 8 open on a directory of the host.
fn careless(command: &Command, outside: &Path) -> Result<Finished> {
    let mut sh = Command::new("sh");
    sh.args(["-c", "exec 7<\"$0\" 8<\"$0\"; exec \"$@\""]).arg(outside);
    run(sh.arg(command.get_program()).args(command.get_args()))
}

fn outside(t: &T<'_>) -> Result<std::path::PathBuf> {
    let outside = t.scope.make_dir("outside")?;
    fs::write(outside.join("secret-of-the-host"), "")?;
    Ok(outside)
}

/// Seen to fail without `cloexec_from` in `become_program`: "fd 7: /tmp/.../outside".
fn descriptors_do_not_leak(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("exec /bin/workload fds").write()?;
    let mut command = t.rt.command();
    command.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
    let out = careless(&command, &outside(t)?)?.ok()?.stdout;
    ensure!(out.lines().count() == 3, "{out}");
    Ok(())
}

/// Seen to fail without `inside` in `steps/user.rs`: "7 led somewhere: ... secret-of-the-host".
fn the_working_directory_is_never_the_hosts(t: &T<'_>) -> Result<()> {
    let outside = outside(t)?;
    for fd in 3..14 {
        let bundle = t.sh("ls; ls ..").set("/process/cwd", json!(format!("/proc/self/fd/{fd}"))).write()?;
        let mut command = t.rt.command();
        command.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
        let finished = careless(&command, &outside)?;
        ensure!(!finished.status.success(), "{fd} led somewhere: {finished:?}");
        ensure!(!finished.stdout.contains("secret-of-the-host"), "{finished:?}");
    }
    Ok(())
}

/// Seen to fail the same way.
fn nor_is_that_of_a_further_process(t: &T<'_>) -> Result<()> {
    let outside = outside(t)?;
    let container = t.start(t.sh("sleep 100000"))?;
    for fd in 3..14 {
        let mut command = t.rt.command();
        command.args(["exec", "--cwd", &format!("/proc/self/fd/{fd}"), container.id(), "/bin/ls"]);
        let finished = careless(&command, &outside)?;
        ensure!(!finished.status.success(), "{fd} led somewhere: {finished:?}");
        ensure!(!finished.stdout.contains("secret-of-the-host"), "{finished:?}");
    }
    container.delete(&["--force"])
}
