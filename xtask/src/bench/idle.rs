//! The memory of idle pods: what stays resident for a pod besides its containers, measured through the whole chain.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{
    Daemon, DaemonOptions, ImageBuilder, Registry, RegistryOptions, Scope, binary, wait_for,
};

/// How many pods are started.
const PODS: usize = 10;

/// Starts idle pods and prints what their shims (proportional share) and the daemon (resident) take.
pub(crate) fn print() -> Result<()> {
    Scope::test("idle", |scope| {
        let registry = Registry::start(scope, &RegistryOptions::default())?;
        let image = ImageBuilder::workload()?.push(registry.address(), "bench/workload", "1", None)?;
        let daemon = Daemon::start(scope, DaemonOptions::default())?;
        let fresh = resident(daemon.pid())?;
        let ctl = |args: &[&str]| {
            let mut command = Command::new(binary("cortenctl")?);
            command.env("CORTEN_LOG_DIR", scope.path("logs")).arg("--socket").arg(daemon.socket());
            integration_support::run(command.args(args))?.ok()
        };
        ctl(&["pull", &image.reference])?;
        let names: Vec<String> = (0..PODS).map(|n| format!("idle-{n}")).collect();
        for name in &names {
            let parent = scope.cgroup_parent();
            ctl(&["run", "--detach", "--cgroup-parent", &parent, "--name", name, &image.reference])?;
        }
        let shims = shims(scope)?;
        ensure!(shims.len() == PODS, "{} shims for {PODS} pods", shims.len());
        let shares: Vec<u64> = shims.iter().map(|pid| share(*pid)).collect::<Result<_>>()?;
        let each = shares.iter().sum::<u64>() / shares.len().max(1) as u64;
        println!("memory of an idle pod: {each} KiB (PSS of its shim, mean of {PODS})");
        println!(
            "memory of cortend: {fresh} KiB fresh, {} KiB with {PODS} pods (RSS)",
            resident(daemon.pid())?
        );
        for name in &names {
            ctl(&["rm", "--force", name])?;
        }
        wait_for("the shims to end", || self::shims(scope).is_ok_and(|found| found.is_empty()))?;
        ctl(&["rmi", &image.reference])?;
        daemon.stop()
    })
}

/// The shims of this scope: by their executable's name and their working directory, the pod's.
fn shims(scope: &Scope) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let link = |name: &str| std::fs::read_link(entry.path().join(name)).unwrap_or_default();
        let is_shim = link("exe").file_name().is_some_and(|name| name == "containerd-shim-corten-v2");
        if is_shim && link("cwd").starts_with(scope.dir()) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn share(pid: u32) -> Result<u64> {
    kib(&Path::new("/proc").join(pid.to_string()).join("smaps_rollup"), "Pss:")
}

fn resident(pid: u32) -> Result<u64> {
    kib(&Path::new("/proc").join(pid.to_string()).join("status"), "VmRSS:")
}

/// The number in the line of a file in /proc that begins with `name`.
fn kib(path: &Path, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{} has no {name}", path.display()))
}
