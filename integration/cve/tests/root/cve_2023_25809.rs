//! CVE-2023-25809: without root the host's /sys is bind mounted, and the cgroups in it stay writable.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, require_program, run, users_may_unshare};
use serde_json::Value;

use crate::T;

// Debian's peers write configs of their own, and have the fix.
crate::attack!([corten Corten] (a_delegated_cgroup_cannot_be_written));

const NOBODY: u32 = 65534;

/// With the config that `corten spec --rootless` writes, run by nobody, who has a cgroup. Seen to fail with "ro"
/// instead of "rro" in `without_root`: "made".
fn a_delegated_cgroup_cannot_be_written(t: &T<'_>) -> Result<()> {
    if !require_program("setpriv") || !users_may_unshare() {
        return Ok(());
    }
    let hierarchy = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
    let hierarchy = hierarchy.into_iter().find(|path| path.is_dir()).context("no cgroups")?;
    let cgroup = hierarchy.join(t.scope.cgroup("delegated").trim_start_matches('/'));
    fs::create_dir_all(&cgroup)?;
    chown(&cgroup, Some(NOBODY), Some(NOBODY))?;
    let outcome = attack(t, &cgroup);
    fs::remove_dir(cgroup.join("made")).ok(); // because it must not be there
    fs::remove_dir(&cgroup)?;
    outcome
}

fn attack(t: &T<'_>, cgroup: &Path) -> Result<()> {
    let bundle = Bundle::sh(t.scope, "c", "true").write()?;
    let nobody = |command: &Command| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        setpriv.arg(command.get_program()).args(command.get_args());
        setpriv
    };
    let binary = t.rt.binary_for_everybody(t.scope)?;
    let root = t.scope.make_dir("state")?;
    for path in [&root, bundle.dir()] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    fs::remove_file(bundle.dir().join("config.json"))?;
    let mut spec = Command::new(&binary);
    run(&mut nobody(spec.args(["spec", "--rootless", "--bundle"]).arg(bundle.dir())))?.ok()?;
    let mut config: Value = serde_json::from_slice(&fs::read(bundle.dir().join("config.json"))?)?;
    config["process"]["terminal"] = Value::Bool(false);
    let script = format!("test -d {0} && mkdir {0}/made && echo made; true", cgroup.display());
    config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
    fs::write(bundle.dir().join("config.json"), config.to_string())?;
    let mut command = Command::new(&binary);
    command.arg("--root").arg(&root).args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
    let finished = run(&mut nobody(&command))?.ok()?;
    ensure!(!finished.stdout.contains("made"), "{finished:?}");
    ensure!(finished.stderr.contains("Read-only file system"), "the cgroup isn't there: {finished:?}");
    Ok(())
}
