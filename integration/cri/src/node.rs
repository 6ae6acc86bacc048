//! A node: a registry, a daemon and a client, and what tests do with them all the time.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use corten_cri_api::v1;
use integration_support::{
    DEADLINE, Daemon, DaemonOptions, ImageBuilder, Pushed, Registry, RegistryOptions, Scope,
};
use integration_support::{require_binary, require_program, require_root, wait_until};

use crate::client::Client;
use crate::config::{container, pod};

/// A registry, a daemon and a client of it.
#[derive(Debug)]
pub struct Node<'a> {
    /// The test's scope.
    pub scope: &'a Scope,
    /// The registry; nothing is in it that the test hasn't pushed.
    pub registry: Registry,
    /// The daemon.
    pub daemon: Daemon,
    /// The client.
    pub cri: Client,
}

/// One line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether the line is whole (`F`) or goes on in the next one (`P`).
    pub whole: bool,
    /// The text.
    pub text: String,
}

impl<'a> Node<'a> {
    /// Runs a test on a fresh node, if it can run here, and proves that nothing is left of it.
    ///
    /// # Errors
    /// What the test failed with, or what it left.
    pub fn test(name: &str, body: impl FnOnce(&mut Node<'_>) -> Result<()>) -> Result<()> {
        Self::test_with(name, DaemonOptions::default(), body)
    }

    /// [`Node::test`] with another daemon.
    ///
    /// # Errors
    /// As [`Node::test`].
    pub fn test_with(
        name: &str,
        options: DaemonOptions,
        body: impl FnOnce(&mut Node<'_>) -> Result<()>,
    ) -> Result<()> {
        if !Self::can_run() {
            return Ok(());
        }
        Scope::test(name, |scope| {
            let mut node = Node::start(scope, options)?;
            body(&mut node)?;
            node.nothing_left()?;
            node.daemon.stop()
        })
    }

    /// Whether this machine has what a node needs; if not, the test counts as skipped.
    #[must_use]
    pub fn can_run() -> bool {
        require_root()
            && require_program("docker-registry")
            && require_program("busybox")
            && ["cortend", "containerd-shim-corten-v2", "corten", "workload"]
                .iter()
                .all(|b| require_binary(b))
    }

    /// Starts a registry and a daemon.
    ///
    /// # Errors
    /// When one of them doesn't come up.
    pub fn start(scope: &'a Scope, options: DaemonOptions) -> Result<Self> {
        let registry = Registry::start(scope, &RegistryOptions::default())?;
        let daemon = Daemon::start(scope, options)?;
        let cri = Client::new(&daemon.socket())?;
        Ok(Self { scope, registry, daemon, cri })
    }

    /// Starts the daemon again after a kill, with a fresh connection to it.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.restart()?;
        self.cri = Client::new(&self.daemon.socket())?;
        Ok(())
    }

    /// Makes the image with busybox and the workload and pushes it; it isn't pulled yet.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub fn push_busybox(&self) -> Result<Pushed> {
        ImageBuilder::busybox()?.push(self.registry.address(), "test/busybox", "1", None)
    }

    /// Makes, pushes and pulls the image with busybox and the workload.
    ///
    /// # Errors
    /// When the daemon can't pull it.
    pub fn busybox(&self) -> Result<Pushed> {
        let pushed = self.push_busybox()?;
        self.pull(&pushed.reference)?;
        Ok(pushed)
    }

    /// Pulls an image and yields what the daemon calls it.
    ///
    /// # Errors
    /// The daemon's.
    pub fn pull(&self, reference: &str) -> Result<String> {
        let image = Some(v1::ImageSpec { image: reference.to_owned(), ..Default::default() });
        let request = v1::PullImageRequest { image, ..Default::default() };
        Ok(self.cri.pull_image(request).with_context(|| format!("pull {reference}"))?.image_ref)
    }

    /// Runs a pod.
    ///
    /// # Errors
    /// The daemon's.
    pub fn run_pod(&self, config: &v1::PodSandboxConfig) -> Result<String> {
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        Ok(self.cri.run_pod_sandbox(request).context("RunPodSandbox")?.pod_sandbox_id)
    }

    /// Runs a pod called `name` with the defaults.
    ///
    /// # Errors
    /// The daemon's.
    pub fn pod(&self, name: &str) -> Result<(String, v1::PodSandboxConfig)> {
        let config = pod(self.scope, name);
        Ok((self.run_pod(&config)?, config))
    }

    /// Creates a container.
    ///
    /// # Errors
    /// The daemon's.
    pub fn create(
        &self,
        sandbox: &str,
        pod: &v1::PodSandboxConfig,
        config: &v1::ContainerConfig,
    ) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(pod.clone()),
        };
        Ok(self.cri.create_container(request).context("CreateContainer")?.container_id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The daemon's.
    pub fn start_container(&self, id: &str) -> Result<()> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        self.cri.start_container(request).context("StartContainer").map(drop)
    }

    /// Creates and starts a container called `name` that runs `command` in the image.
    ///
    /// # Errors
    /// The daemon's.
    pub fn run(
        &self,
        sandbox: &str,
        pod: &v1::PodSandboxConfig,
        name: &str,
        image: &str,
        command: &[&str],
    ) -> Result<String> {
        let id = self.create(sandbox, pod, &container(name, image, command))?;
        self.start_container(&id)?;
        Ok(id)
    }

    /// A container's status.
    ///
    /// # Errors
    /// The daemon's.
    pub fn status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.cri.container_status(request).context("ContainerStatus")?.status.context("no status")
    }

    /// Waits until a container has ended, and yields its status.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn wait_exited(&self, id: &str) -> Result<v1::ContainerStatus> {
        wait_until(&format!("container {id} to end"), DEADLINE, || {
            let status = self.status(id)?;
            Ok((status.state() == v1::ContainerState::ContainerExited).then_some(status))
        })
    }

    /// `ExecSync`; a failing command is no error here.
    ///
    /// # Errors
    /// The daemon's.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<v1::ExecSyncResponse> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 20 };
        self.cri.exec_sync(request).with_context(|| format!("ExecSync {command:?}"))
    }

    /// `ExecSync` of a command that must succeed; yields its output.
    ///
    /// # Errors
    /// The daemon's, or when the command fails.
    pub fn exec_ok(&self, id: &str, command: &[&str]) -> Result<String> {
        let response = self.exec(id, command)?;
        let (out, err) =
            (String::from_utf8_lossy(&response.stdout), String::from_utf8_lossy(&response.stderr));
        ensure!(response.exit_code == 0, "{command:?} ended with {}: {out}{err}", response.exit_code);
        Ok(out.into_owned())
    }

    /// The lines of a container's log so far.
    ///
    /// # Errors
    /// When there is no log, or a line isn't as CRI wants it.
    pub fn log(&self, id: &str) -> Result<Vec<LogLine>> {
        let path = self.status(id)?.log_path;
        let text = std::fs::read_to_string(&path).with_context(|| format!("read the log {path}"))?;
        text.lines().map(parse_line).collect()
    }

    /// Waits until a container's log has a line with `text`.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn wait_log(&self, id: &str, text: &str) -> Result<Vec<LogLine>> {
        wait_until(&format!("{text:?} in the log of {id}"), DEADLINE, || {
            let lines = self.log(id).unwrap_or_default();
            Ok(lines.iter().any(|line| line.text.contains(text)).then_some(lines))
        })
    }

    /// A pod's address.
    ///
    /// # Errors
    /// The daemon's, or when the pod has none.
    pub fn ip(&self, sandbox: &str) -> Result<String> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: false };
        let status =
            self.cri.pod_sandbox_status(request).context("PodSandboxStatus")?.status.context("no status")?;
        let ip = status.network.map(|network| network.ip).unwrap_or_default();
        ensure!(!ip.is_empty(), "pod {sandbox} has no address");
        Ok(ip)
    }

    /// Stops a container with a grace period in seconds.
    ///
    /// # Errors
    /// The daemon's.
    pub fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.cri.stop_container(request).context("StopContainer").map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// The daemon's.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        self.cri.remove_container(request).context("RemoveContainer").map(drop)
    }

    /// Stops a pod.
    ///
    /// # Errors
    /// The daemon's.
    pub fn stop_pod(&self, id: &str) -> Result<()> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.cri.stop_pod_sandbox(request).context("StopPodSandbox").map(drop)
    }

    /// Stops and removes a pod.
    ///
    /// # Errors
    /// The daemon's.
    pub fn remove_pod(&self, id: &str) -> Result<()> {
        self.stop_pod(id)?;
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.cri.remove_pod_sandbox(request).context("RemovePodSandbox").map(drop)
    }

    /// All pods' ids.
    ///
    /// # Errors
    /// The daemon's.
    pub fn pods(&self) -> Result<Vec<String>> {
        let list =
            self.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).context("ListPodSandbox")?;
        Ok(list.items.into_iter().map(|pod| pod.id).collect())
    }

    /// All containers' ids.
    ///
    /// # Errors
    /// The daemon's.
    pub fn containers(&self) -> Result<Vec<String>> {
        let list =
            self.cri.list_containers(v1::ListContainersRequest::default()).context("ListContainers")?;
        Ok(list.containers.into_iter().map(|container| container.id).collect())
    }

    /// Removes an image.
    ///
    /// # Errors
    /// The daemon's.
    pub fn remove_image(&self, image: &str) -> Result<()> {
        let image = Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() });
        self.cri.remove_image(v1::RemoveImageRequest { image }).context("RemoveImage").map(drop)
    }

    /// Removes every image, and demands that no pod, container, address, bridge port, snapshot or blob is left.
    ///
    /// # Errors
    /// What is left.
    pub fn nothing_left(&self) -> Result<()> {
        let (pods, containers) = (self.pods()?, self.containers()?);
        ensure!(pods.is_empty() && containers.is_empty(), "left: pods {pods:?}, containers {containers:?}");
        let images = self.cri.list_images(v1::ListImagesRequest::default()).context("ListImages")?.images;
        for image in images {
            self.remove_image(&image.id)?;
        }
        wait_until("addresses to be given back", Duration::from_secs(5), || {
            Ok((self.daemon.leases().is_empty() && self.daemon.ports().is_empty()).then_some(()))
        })?;
        for dir in ["content/blobs/sha256", "snapshots"] {
            let left = files(&self.daemon.root().join(dir));
            // Snapshot records are files of the store itself; directories with files in them are layers.
            let layers: Vec<_> = left.iter().filter(|f| dir != "snapshots" || f.contains("/fs/")).collect();
            ensure!(layers.is_empty(), "left below {dir}: {layers:?}");
        }
        Ok(())
    }
}

/// All files below a directory.
fn files(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path().to_string_lossy().into_owned());
        }
    }
    found
}

fn parse_line(line: &str) -> Result<LogLine> {
    let mut parts = line.splitn(4, ' ');
    let (Some(time), Some(stream), Some(tag), Some(text)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        bail!("no CRI log line: {line:?}");
    };
    ensure!(time.len() >= 20 && time.contains('T'), "no RFC 3339 time: {line:?}");
    ensure!(["stdout", "stderr"].contains(&stream) && ["F", "P"].contains(&tag), "no CRI log line: {line:?}");
    Ok(LogLine { time: time.to_owned(), stream: stream.to_owned(), whole: tag == "F", text: text.to_owned() })
}
