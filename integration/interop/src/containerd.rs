//! A private containerd.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{DEADLINE, Finished, Registry, RegistryOptions, Scope, binary, run, skip};
use integration_support::{require_binary, require_program, require_root, wait_for, wait_until};
use nix::sys::signal::Signal;

use crate::process::Background;

/// Names the directory with the binaries of another containerd.
const DIR: &str = "CORTEN_CONTAINERD_DIR";
/// containerd's namespace that `ctr` works in.
const NAMESPACE: &str = "test";

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Debian's.
    Debian,
    /// The one in the directory that `CORTEN_CONTAINERD_DIR` names: `containerd` and `ctr`.
    Given,
}

impl Flavour {
    /// The directory with its binaries, when it isn't in `PATH`; or the test is counted as skipped.
    fn dir(self) -> Option<Option<PathBuf>> {
        if self == Self::Debian {
            return integration_support::require_program("containerd").then_some(None);
        }
        let dir = std::env::var_os(DIR).map(PathBuf::from);
        if dir.is_none() {
            skip(&format!("{DIR} names no directory with another containerd"));
        }
        dir.map(Some)
    }
}

/// A running containerd with a registry to pull from; killed when dropped. Its log is shown when a test fails.
#[derive(Debug)]
pub struct Containerd<'a> {
    /// The test's world.
    pub scope: &'a Scope,
    /// Where its images come from.
    pub registry: Registry,
    daemon: Option<Background>,
    bin: Option<PathBuf>,
    dir: PathBuf,
}

impl<'a> Containerd<'a> {
    /// Runs a test on a fresh containerd, if it can run here, and proves that nothing is left of it.
    ///
    /// # Errors
    /// What the test failed with, or what it left.
    pub fn test(
        flavour: Flavour,
        name: &str,
        body: impl FnOnce(&mut Containerd<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(bin) = can_run().then(|| flavour.dir()).flatten() else { return Ok(()) };
        Scope::test(name, |scope| {
            let mut containerd = Containerd::start(scope, bin)?;
            body(&mut containerd)?;
            containerd.stop()
        })
    }

    fn start(scope: &'a Scope, bin: Option<PathBuf>) -> Result<Self> {
        let registry = Registry::start(scope, &RegistryOptions::default())?;
        let dir = scope.make_dir("c")?;
        scope.expect_empty(dir.join("runc/test"));
        scope.expect_empty(dir.join("runc/k8s.io"));
        for task in ["io.containerd.runtime.v2.task/test", "io.containerd.runtime.v2.task/k8s.io"] {
            scope.expect_empty(dir.join("state").join(task));
        }
        let mut containerd = Self { scope, registry, daemon: None, bin, dir };
        fs::write(containerd.dir.join("config.toml"), containerd.config()?)?;
        crate::pods::write_network(scope, &containerd.dir)?;
        crate::push_pause(&containerd.registry)?;
        containerd.spawn()?;
        Ok(containerd)
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn spawn(&mut self) -> Result<()> {
        let mut command = Command::new(self.program("containerd"));
        // Shims are found by PATH, and our shim finds our runtime by PATH.
        let ours = binary("corten")?.parent().context("the binaries are in no directory")?.to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let dirs = std::iter::once(ours).chain(self.bin.clone()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs)?);
        command.arg("--config").arg(self.dir.join("config.toml"));
        let mut daemon = Background::start(&mut command, &self.dir.join("log"))?;
        let socket = self.socket();
        daemon.wait_ready("containerd to take connections", || UnixStream::connect(&socket).is_ok())?;
        self.daemon = Some(daemon);
        // The socket is there before all services are.
        wait_for("containerd to answer", || {
            self.ctr(&["version"]).is_ok_and(|finished| finished.status.success())
        })
    }

    /// SIGKILL. Shims and containers live on.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("containerd isn't running")?.end(Signal::SIGKILL).map(drop)
    }

    /// SIGTERM, and waits for its end; demands that no container is left.
    ///
    /// # Errors
    /// When one is, or it doesn't end in time.
    fn stop(mut self) -> Result<()> {
        let left = self.ctr_ok(&["containers", "list", "--quiet"])?;
        ensure!(left.is_empty(), "containers are left: {left}");
        let mut daemon = self.daemon.take().context("containerd isn't running")?;
        daemon.end(Signal::SIGTERM)?;
        crate::pods::remove_network(self.scope);
        Ok(())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// Where runtimes below runc's shim keep their state.
    #[must_use]
    pub fn runtime_root(&self) -> PathBuf {
        self.dir.join("runc")
    }

    /// The bundle of a task.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir.join("state/io.containerd.runtime.v2.task").join(NAMESPACE).join(id)
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// `ctr` in the namespace of the tests.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_in(NAMESPACE, args)
    }

    /// `ctr` in another namespace.
    #[must_use]
    pub fn command_in(&self, namespace: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.program("ctr"));
        command.arg("--address").arg(self.socket()).args(["--namespace", namespace]).args(args);
        command
    }

    /// Runs `ctr` to its end, whether it succeeds or not.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time.
    pub fn ctr(&self, args: &[&str]) -> Result<Finished> {
        run(&mut self.command(args))
    }

    /// Runs `ctr`, which must succeed, and yields what it printed.
    ///
    /// # Errors
    /// When it fails; with the daemon's log.
    pub fn ctr_ok(&self, args: &[&str]) -> Result<String> {
        let finished = self.ctr(args)?.ok();
        Ok(finished.with_context(|| format!("containerd's log:\n{}", self.log()))?.stdout)
    }

    /// Makes and pulls the image with busybox and the workload.
    ///
    /// # Errors
    /// When it can't be pulled.
    pub fn busybox(&self) -> Result<String> {
        let image = crate::push_busybox(&self.registry)?;
        self.ctr_ok(&["images", "pull", "--plain-http", &image])?;
        Ok(image)
    }

    /// The status of a task as `ctr` prints it; empty when there is none.
    ///
    /// # Errors
    /// When `ctr` fails.
    pub fn status(&self, id: &str) -> Result<String> {
        let tasks = self.ctr_ok(&["tasks", "list"])?;
        let line = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = line.into_iter().find_map(|words| match words.as_slice() {
            [name, _, status, ..] if *name == id => Some((*status).to_owned()),
            _ => None,
        });
        Ok(found.unwrap_or_default())
    }

    /// The process id of a task.
    ///
    /// # Errors
    /// When there is none.
    pub fn pid(&self, id: &str) -> Result<u32> {
        let tasks = self.ctr_ok(&["tasks", "list"])?;
        let words = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let pid = words.into_iter().find(|words| words.first() == Some(&id)).context("no such task")?;
        Ok(pid.get(1).context("no process id")?.parse()?)
    }

    /// Waits until a task has a status.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn wait_status(&self, id: &str, status: &str) -> Result<()> {
        wait_until(&format!("{id} to be {status}"), DEADLINE * 2, || {
            Ok((self.status(id)? == status).then_some(()))
        })
        .with_context(|| format!("containerd's log:\n{}", self.log()))
    }

    fn program(&self, name: &str) -> PathBuf {
        self.bin.as_ref().map_or_else(|| PathBuf::from(name), |dir| dir.join(name))
    }

    /// Configuration of version 2, which newer ones migrate by themselves.
    fn config(&self) -> Result<String> {
        let dir = self.dir.display();
        let corten = binary("corten")?;
        let sandbox = format!("{}/{}:{}", self.registry.address(), crate::PAUSE.0, crate::PAUSE.1);
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        Ok(format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
address = "{dir}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
[{cri}]
sandbox_image = "{sandbox}"
stream_server_port = "0"
disable_hugetlb_controller = true
[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
[{cri}.containerd]
default_runtime_name = "corten-shim"
[{cri}.containerd.runtimes.corten-shim]
runtime_type = "io.containerd.corten.v2"
[{cri}.containerd.runtimes.corten-pod]
runtime_type = "io.containerd.corten.v2"
sandboxer = "shim"
[{cri}.containerd.runtimes.corten]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.corten.options]
BinaryName = "{corten}"
Root = "{dir}/runc"
"#,
            corten = corten.display(),
        ))
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            eprintln!("--- containerd's log ---\n{}--- end of containerd's log ---", self.log());
        }
        crate::pods::remove_network(self.scope);
    }
}

/// Whether this machine has what the tests of containerd need; if not, the test is counted as skipped.
fn can_run() -> bool {
    require_root()
        && ["docker-registry", "busybox", "ip"].iter().all(|program| require_program(program))
        && ["containerd-shim-corten-v2", "corten", "workload"].iter().all(|name| require_binary(name))
}
