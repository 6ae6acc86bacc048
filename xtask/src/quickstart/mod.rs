//! `cargo xtask quickstart`: the main job from a fresh machine, for somebody to watch.
//!
//! Everything that it starts is its own: a registry on loopback, a daemon with private directories, a bridge. Nothing
//! stays, also not after a failure or Ctrl-C.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration_support::{
    Compression, Daemon, DaemonOptions, ImageBuilder, LayerEntry, Pushed, Registry, RegistryOptions, Scope,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{build, setup};

mod client;
mod stages;
mod tour;

use client::Client;
use stages::Stages;

/// Names the directory of the binaries to the process that shows them.
const BINARIES: &str = "CORTEN_BIN_DIR";
/// Tells it what installing and building took: milliseconds, separated by a comma.
const BEFORE: &str = "CORTEN_QUICKSTART_BEFORE";

const INSTALL: &str = "install what is missing from Debian";
const BUILD: &str = "build release binaries";

/// Builds, starts, shows, and takes everything away again.
pub(crate) fn quickstart() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("quickstart makes containers, networks and cgroups: run it as root");
    }
    if let Ok(before) = std::env::var(BEFORE) {
        return show(&before);
    }
    // Until here there is nothing to clean up, so Ctrl-C may end everything at once.
    let mut stages = Stages::new(Interrupts::default());
    stages.run(INSTALL, || setup::install(&setup::QUICKSTART))?;
    let bin = match std::env::var_os(BINARIES) {
        Some(dir) => PathBuf::from(dir),
        None => stages.run(BUILD, build::build)?,
    };
    apart(&bin, &stages.milliseconds().join(","))
}

/// Goes on in a process group of its own: the terminal sends Ctrl-C to all of our group, and what is started from
/// now on is needed for cleaning up.
fn apart(bin: &Path, before: &str) -> Result<()> {
    let interrupts = Interrupts::watch()?;
    // Not by its path: somebody may have built another one meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg("quickstart").env(BINARIES, bin).env(BEFORE, before).stdin(Stdio::null());
    let mut child = command.process_group(0).spawn().context("can't start xtask again")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !told && interrupts.check().is_err() {
            eprintln!("\ninterrupted: cleaning up");
            kill(pid, Signal::SIGINT).ok(); // because it may just have ended
            told = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "quickstart failed: {status}");
    Ok(())
}

/// Everything after the build.
fn show(before: &str) -> Result<()> {
    let mut stages = Stages::new(Interrupts::watch()?);
    stages.resume(&[INSTALL, BUILD], before);
    let bin = PathBuf::from(std::env::var_os(BINARIES).context("no directory of binaries")?);
    let scope = Scope::new("quickstart")?;
    let result = with_registry(&scope, &mut stages, Client::new(bin.join("cortenctl"), &scope));
    let left = stages.always("look for anything left behind", || scope.finish());
    stages.print();
    result?;
    left.context("quickstart did not clean up")?;
    println!("\nNothing is left: no mount, namespace, link, cgroup, process, address or file.");
    Ok(())
}

fn with_registry(scope: &Scope, stages: &mut Stages, client: Client) -> Result<()> {
    let registry = stages
        .run("start docker-registry on loopback", || Registry::start(scope, &RegistryOptions::default()))?;
    let image = stages.run("make an image of busybox and push it", || push(&registry))?;
    println!("  {} ({})", image.reference, image.id);
    let mut daemon = stages.run("start cortend with directories of its own", || {
        // Pods without a parent cgroup of their own get one below this, and it goes with them.
        let args = vec!["--cgroup-parent".to_owned(), scope.cgroup_parent()];
        Daemon::start(scope, DaemonOptions { args, ..DaemonOptions::default() })
    })?;
    let client = client.of(&daemon);
    let toured = tour::tour(stages, &client, &mut daemon, &image);
    let removed = stages.always("remove all", || remove_all(&client, &mut daemon));
    let stopped = stages.always("stop cortend", || daemon.stop());
    toured.and(removed).and(stopped)
}

/// busybox, and two layers that are large enough to watch.
fn push(registry: &Registry) -> Result<Pushed> {
    let file = |name: &str, seed| LayerEntry::File(format!("srv/{name}"), 0o644, noise(seed, 6 << 20));
    let image = ImageBuilder::busybox()?
        .layer(vec![LayerEntry::Dir("srv".into(), 0o755), file("first", 1)], Compression::Gzip)
        .layer(vec![file("second", 2)], Compression::Zstd);
    image.push(registry.address(), "corten/quickstart", "1", None)
}

/// Bytes that don't compress (xorshift).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

/// Also after a failure: whatever pods and images there are go.
fn remove_all(client: &Client, daemon: &mut Daemon) -> Result<()> {
    if client.run(&["version"]).is_err() {
        // Only a daemon can take its pods away.
        daemon.restart()?;
    }
    for pod in client.ids(&["pods"])? {
        client.run(&["pod", "rm", "--force", &pod])?;
    }
    for image in client.ids(&["images"])? {
        client.run(&["rmi", &image])?;
    }
    Ok(())
}

/// Ctrl-C and SIGTERM as something to ask for, so that cleaning up is ordinary code. The signals are handled and not
/// blocked: programs that we start would inherit the block, and couldn't be told to end.
#[derive(Debug, Default)]
struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    fn watch() -> Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&seen)).context("can't watch for Ctrl-C")?;
        }
        Ok(Self(seen))
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}
