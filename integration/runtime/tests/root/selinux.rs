//! SELinux labels, on a machine that has it: the guest `selinux` of `cargo xtask test vm`, whose policy has these types.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, Kind, run};
use serde_json::json;

use super::keyring;
use crate::{T, has};

crate::each_runtime!(
    processes_have_their_labels,
    file_systems_have_their_label,
    the_keyring_has_the_label,
    labels_that_are_none_are_refused,
);

const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const FILES: &str = "system_u:object_r:container_file_t:s0:c1,c2";

/// True, and a skip, without SELinux.
fn elsewhere() -> bool {
    let there = Path::new("/sys/fs/selinux/policyvers").exists();
    if !there {
        integration_support::skip("SELinux is not enabled in this kernel");
    }
    !there
}

fn processes_have_their_labels(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    for no_new_privileges in [true, false] {
        let bundle = t.sh("sleep 1000").set("/process/selinuxLabel", json!(PROCESS));
        let container = t.start(bundle.set("/process/noNewPrivileges", json!(no_new_privileges)))?;
        let label = |text: String| text.trim_end_matches(['\0', '\n']).to_owned();
        let found = label(fs::read_to_string(format!("/proc/{}/attr/current", container.pid()?))?);
        ensure!(found == PROCESS, "{found}");
        let read = &["/bin/cat", "/proc/self/attr/current"];
        ensure!(label(container.exec(&[], read)?.ok()?.stdout) == PROCESS);
        let other = "system_u:system_r:container_init_t:s0:c3";
        let found = label(container.exec(&["--process-label", other], read)?.ok()?.stdout);
        ensure!(found == other, "{found}");
        container.delete(&["--force"])?;
    }
    Ok(())
}

/// The label of a file as a container has it.
fn label_of(pid: i32, path: &str) -> Result<String> {
    let mut command = Command::new("getfattr");
    command.args(["--absolute-names", "--only-values", "-n", "security.selinux"]);
    let out = run(command.arg(format!("/proc/{pid}/root{path}")))?.ok()?.stdout;
    Ok(out.trim_end_matches('\0').to_owned())
}

fn file_systems_have_their_label(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    let bundle = t.sh("echo x > /dev/shm/file; sleep 1000").set("/linux/mountLabel", json!(FILES));
    let container = t.start(bundle)?;
    let pid = container.pid()?;
    let mut paths = vec!["/dev", "/dev/null", "/dev/pts", "/dev/shm", "/dev/mqueue"];
    if t.rt.kind() != Kind::Crun {
        paths.push("/sys/firmware"); // Masked by an empty directory.
    }
    for path in paths {
        let found = label_of(pid, path)?;
        ensure!(found == FILES, "{path}: {found}");
    }
    for path in ["/proc", "/sys", "/bin"] {
        let found = label_of(pid, path)?;
        ensure!(found != FILES, "{path}: {found}");
    }
    container.delete(&["--force"])
}

fn the_keyring_has_the_label(t: &T<'_>) -> Result<()> {
    if elsewhere() || !keyring::keyctl() || t.differs(Kind::Crun, "crun 1.8 labels no keyring") {
        return Ok(());
    }
    let container = t.start(keyring::bundle(t).set("/process/selinuxLabel", json!(PROCESS)))?;
    let keys = fs::read_to_string("/proc/keys")?;
    let name = format!("_ses.{}", container.id());
    let line = keys.lines().find(|line| line.contains(&name)).with_context(|| keys.clone())?;
    let serial = line.split(' ').next().context("a number")?;
    let label = run(Command::new("keyctl").args(["security", &format!("0x{serial}")]))?.ok()?.stdout;
    has(&label, PROCESS)?;
    container.delete(&["--force"])
}

fn labels_that_are_none_are_refused(t: &T<'_>) -> Result<()> {
    if elsewhere() {
        return Ok(());
    }
    for (key, label) in [
        ("/process/selinuxLabel", "system_u:system_r:there_is_no_such_type_t:s0"),
        ("/linux/mountLabel", "system_u:object_r:there_is_no_such_type_t:s0"),
    ] {
        let refused = t.refused(t.workload(&["exit", "0"]).set(key, json!(label)))?;
        if t.rt.kind() == Kind::Corten {
            has(&refused, label)?;
        }
    }
    let container = t.start(Bundle::sh(t.scope, "other", "sleep 1000"))?;
    let refused = container.exec(&["--process-label", "no label"], &["/bin/true"])?.err()?;
    if t.rt.kind() == Kind::Corten {
        has(&refused.stderr, "no label")?;
    }
    container.delete(&["--force"])
}
