//! A private dockerd.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{DEADLINE, Finished, Registry, RegistryOptions, Scope, binary, run_with_deadline};
use integration_support::{require_binary, require_program, require_root};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::Background;

/// A running dockerd whose default runtime is ours, and a registry to pull from; killed when dropped.
#[derive(Debug)]
pub struct Docker<'a> {
    /// The test's world.
    pub scope: &'a Scope,
    /// The image with busybox and the workload.
    pub image: String,
    daemon: Option<Background>,
    dir: PathBuf,
}

impl Docker<'_> {
    /// Runs a test on a fresh dockerd, if it can run here, and proves that nothing is left.
    ///
    /// # Errors
    /// What the test failed with, or what it left.
    pub fn test(name: &str, body: impl FnOnce(&mut Docker<'_>) -> Result<()>) -> Result<()> {
        let programs = ["dockerd", "docker", "containerd", "docker-registry", "busybox"];
        let can_run = require_root()
            && programs.iter().all(|program| require_program(program))
            && ["corten", "workload"].iter().all(|name| require_binary(name));
        if !can_run {
            return Ok(());
        }
        Scope::test(name, |scope| {
            let registry = Registry::start(scope, &RegistryOptions::default())?;
            let dir = scope.make_dir("d")?;
            scope.expect_empty(dir.join("exec/runtime-corten/moby"));
            fs::write(dir.join("daemon.json"), "{}")?; // /etc/docker's is the machine's
            let image = crate::push_busybox(&registry)?;
            let mut docker = Docker { scope, image, daemon: None, dir };
            docker.spawn()?;
            docker.ok(&["pull", "--quiet", &docker.image])?;
            body(&mut docker)?;
            docker.stop()
        })
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn spawn(&mut self) -> Result<()> {
        let mut command = Command::new("dockerd");
        for (flag, name) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "root"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(flag).arg(self.dir.join(name));
        }
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command.arg("--add-runtime").arg(format!("corten={}", binary("corten")?.display()));
        command.args(["--default-runtime", "corten", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.arg("--cgroup-parent").arg(self.scope.cgroup_parent());
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        command.args(["--userland-proxy=false", "--live-restore"]);
        let mut daemon = Background::start(&mut command, &self.dir.join("log"))?;
        daemon.wait_ready("dockerd to answer", || {
            self.docker(&["version"]).is_ok_and(|finished| finished.status.success())
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// SIGKILL. Containers live on.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("dockerd isn't running")?.end(Signal::SIGKILL)?;
        // The containerd that it started ends with it. The next one waits for the process ids in these files if they are
        // anything's, be it a zombie's.
        for file in ["pid", "exec/containerd/containerd.pid"] {
            fs::remove_file(self.dir.join(file)).with_context(|| format!("remove dockerd's {file}"))?;
        }
        Ok(())
    }

    /// A command of the client.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.dir.join("client"));
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(args);
        command
    }

    /// Runs the client to its end, whether it succeeds or not.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time.
    pub fn docker(&self, args: &[&str]) -> Result<Finished> {
        run_with_deadline(&mut self.command(args), DEADLINE * 2, b"")
    }

    /// Runs the client, which must succeed, and yields what it printed.
    ///
    /// # Errors
    /// When it fails; with the daemon's log.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let finished = self.docker(args)?.ok();
        Ok(finished.with_context(|| format!("dockerd's log:\n{}", self.log()))?.stdout)
    }

    /// `docker run` without a network; more options, then the command.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Result<Finished> {
        self.docker(&[&["run", "--network=none"], options, &[&self.image], command].concat())
    }

    /// Starts a container in the background.
    ///
    /// # Errors
    /// When the client fails; with the daemon's log.
    pub fn start(&self, name: &str, options: &[&str], command: &[&str]) -> Result<()> {
        let finished = self.run(&[&["--detach", "--name", name], options].concat(), command)?.ok();
        finished.with_context(|| format!("dockerd's log:\n{}", self.log())).map(drop)
    }

    /// What `docker inspect` says of a container.
    ///
    /// # Errors
    /// When there is none.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let list: Value = serde_json::from_str(&self.ok(&["inspect", "--type", "container", name])?)?;
        list.get(0).cloned().context("inspect said nothing")
    }

    /// The cgroup of a container.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn cgroup(&self, name: &str) -> Result<String> {
        let id = self.inspect(name)?["Id"].as_str().context("no id")?.to_owned();
        Ok(format!("{}/{id}", self.scope.cgroup_parent()))
    }

    /// What the daemon has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// SIGTERM, and waits for its end; demands that no container is left.
    fn stop(mut self) -> Result<()> {
        let left = self.ok(&["ps", "--all", "--quiet"])?;
        ensure!(left.is_empty(), "containers are left: {left}");
        self.daemon.take().context("dockerd isn't running")?.end(Signal::SIGTERM)?;
        // One that was killed leaves its root mounted on itself, and its successor takes that for the administrator's.
        let root = self.dir.join("root");
        if fs::read_to_string("/proc/self/mountinfo")?.contains(&format!(" {} ", root.display())) {
            nix::mount::umount(&root).context("unmount dockerd's root")?;
        }
        Ok(())
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            eprintln!("--- dockerd's log ---\n{}--- end of dockerd's log ---", self.log());
        }
    }
}
