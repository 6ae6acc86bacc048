//! `cargo xtask quickstart`: the main job from a fresh machine, for somebody to watch.
//!
//! Everything that it starts is its own: a registry on loopback, a daemon with private directories, a bridge. Nothing
//! stays, also not after a failure or Ctrl-C.

use anyhow::{Context, Result, bail};
use integration_support::{Daemon, DaemonOptions, ImageBuilder, Pushed, Registry, RegistryOptions, Scope};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::{build, setup};

mod client;
mod stages;
mod tour;

use client::Client;
use stages::Stages;

/// Builds, starts, shows, and takes everything away again.
pub(crate) fn quickstart() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("quickstart makes containers, networks and cgroups: run it as root");
    }
    let interrupts = Interrupts::watch()?;
    let mut stages = Stages::new(interrupts);
    stages.run("install what is missing from Debian", || setup::install(&setup::QUICKSTART))?;
    let bin = stages.run("build release binaries", build::build)?;

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
        Daemon::start(scope, DaemonOptions::default())
    })?;
    let client = client.of(&daemon);
    let toured = tour::tour(stages, &client, &mut daemon, &image);
    let removed = stages.always("remove all", || remove_all(&client, &mut daemon));
    let stopped = stages.always("stop cortend", || daemon.stop());
    toured.and(removed).and(stopped)
}

fn push(registry: &Registry) -> Result<Pushed> {
    ImageBuilder::busybox()?.push(registry.address(), "corten/quickstart", "1", None)
}

/// Also after a failure: whatever pods and images there are go.
fn remove_all(client: &Client, daemon: &mut Daemon) -> Result<()> {
    if client.run(&["version"]).is_err() {
        // Ctrl-C reaches the daemon too; only a daemon can take its pods away.
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

/// Ctrl-C and SIGTERM as something to ask for, so that cleaning up is ordinary code.
#[derive(Debug)]
struct Interrupts(SignalFd);

impl Interrupts {
    fn watch() -> Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        // Programs that we start get an empty mask from the standard library.
        set.thread_block().context("can't block signals")?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    fn check(&self) -> Result<()> {
        match self.0.read_signal()? {
            Some(_) => bail!("interrupted"),
            None => Ok(()),
        }
    }
}
