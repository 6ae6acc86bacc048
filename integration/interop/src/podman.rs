//! podman with storage, network and configuration of the test's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{DEADLINE, Finished, Registry, RegistryOptions, Scope, binary, run_with_deadline};
use integration_support::{require_binary, require_program, require_root};
use serde_json::Value;

/// podman with our runtime, and a registry to pull from. Everything it still runs is removed when it is dropped.
#[derive(Debug)]
pub struct Podman<'a> {
    /// The test's world.
    pub scope: &'a Scope,
    /// The image with busybox and the workload.
    pub image: String,
    dir: PathBuf,
}

impl<'a> Podman<'a> {
    /// Runs a test with podman, if it can run here, and proves that nothing is left.
    ///
    /// # Errors
    /// What the test failed with, or what it left.
    pub fn test(name: &str, body: impl FnOnce(&Podman<'_>) -> Result<()>) -> Result<()> {
        let programs = ["podman", "conmon", "docker-registry", "busybox"];
        let can_run = require_root()
            && programs.iter().all(|program| require_program(program))
            && ["corten", "workload"].iter().all(|name| require_binary(name));
        if !can_run {
            return Ok(());
        }
        Scope::test(name, |scope| {
            let registry = Registry::start(scope, &RegistryOptions::default())?;
            let podman = Podman::new(scope, crate::push_busybox(&registry)?)?;
            podman.ok(&["pull", "--quiet", "--tls-verify=false", &podman.image])?;
            body(&podman)?;
            podman.finish()
        })
    }

    fn new(scope: &'a Scope, image: String) -> Result<Self> {
        let dir = scope.make_dir("p")?;
        scope.expect_empty(dir.join("oci"));
        // Locks in files: those in shared memory are all podmans' on the machine.
        // Unless it's told that the runtime speaks JSON, podman asks for no log, and warnings are the container's output.
        let containers = format!(
            "[engine]\nlock_type = \"file\"\nevents_logger = \"file\"\nruntime = \"corten\"\n\
             runtime_supports_json = [\"corten\"]\n[engine.runtimes]\ncorten = [\"{}\"]\n\
             [containers]\nlog_driver = \"k8s-file\"\n",
            dir.join("corten").display()
        );
        fs::write(dir.join("containers.conf"), containers).context("write containers.conf")?;
        // Options of the runtime on podman's command line don't reach what it runs when a container has ended.
        let script = format!(
            "#!/bin/sh\nexec {} --root {} \"$@\"\n",
            binary("corten")?.display(),
            dir.join("oci").display()
        );
        fs::write(dir.join("corten"), script).context("write the runtime's script")?;
        fs::set_permissions(dir.join("corten"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = \"{dir}/run\"\ngraphroot = \"{dir}/root\"\n",
            dir = dir.display()
        );
        fs::write(dir.join("storage.conf"), storage).context("write storage.conf")?;
        Ok(Self { scope, image, dir })
    }

    /// A podman command.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"));
        command.env("TMPDIR", self.scope.dir());
        for (flag, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.dir.join(name));
        }
        command.arg("--network-config-dir").arg(self.dir.join("networks"));
        command.args(["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"]);
        command.args(args);
        command
    }

    /// Runs podman to its end, whether it succeeds or not.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time.
    pub fn podman(&self, args: &[&str]) -> Result<Finished> {
        run_with_deadline(&mut self.command(args), DEADLINE * 2, b"")
    }

    /// Runs podman, which must succeed, and yields what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        Ok(self.podman(args)?.ok()?.stdout)
    }

    /// `podman run` without a network and with a cgroup of the scope's; more options, then the command.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Result<Finished> {
        self.podman(&self.run_args(options, command).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The arguments of [`Podman::run`].
    #[must_use]
    pub fn run_args(&self, options: &[&str], command: &[&str]) -> Vec<String> {
        let mut args = vec!["run".to_owned()];
        if !options.contains(&"--pod") {
            args.extend(["--network=none".into(), format!("--cgroup-parent={}", self.scope.cgroup_parent())]);
        }
        args.extend(options.iter().map(|word| (*word).to_owned()));
        args.push(self.image.clone());
        args.extend(command.iter().map(|word| (*word).to_owned()));
        args
    }

    /// Starts a container in the background.
    ///
    /// # Errors
    /// When podman fails.
    pub fn start(&self, name: &str, options: &[&str], command: &[&str]) -> Result<()> {
        self.run(&[&["--detach", "--name", name], options].concat(), command)?.ok().map(drop)
    }

    /// What `podman inspect` says of a container.
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
        Ok(format!("{}/libpod-{id}", self.scope.cgroup_parent()))
    }

    fn finish(&self) -> Result<()> {
        let left = self.ok(&["ps", "--all", "--quiet"])?;
        ensure!(left.is_empty(), "containers are left: {left}");
        // podman itself leaves the cgroup that it puts its monitors into.
        integration_support::wait_until("the monitors to end", DEADLINE, || {
            Ok(crate::remove_cgroups(self.scope, &["conmon"]).is_ok().then_some(()))
        })
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        for args in [["rm", "--all", "--force", "--time=0"], ["pod", "rm", "--all", "--force"]] {
            self.podman(&args).ok(); // because most tests have removed all
        }
    }
}
