//! Pods on containerd's CRI plugin, as a kubelet runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_cri::{Client, container, pod, v1};
use integration_support::{DEADLINE, Scope, wait_until};
use serde_json::{Value, json};

/// A CRI client of a [`Containerd`](crate::Containerd), and the image that its pods run.
#[derive(Debug)]
pub struct Pods<'a> {
    /// The client.
    pub cri: Client,
    /// The image with busybox and the workload.
    pub image: String,
    scope: &'a Scope,
    handler: &'a str,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    /// Its id.
    pub id: String,
    /// What it was made from.
    pub config: v1::PodSandboxConfig,
    /// Its network namespace.
    pub network: PathBuf,
}

impl<'a> Pods<'a> {
    /// Waits until CRI answers at `socket`, and pulls `image` through it. Pods will run by the runtime `handler`.
    ///
    /// # Errors
    /// When it doesn't answer, or can't pull.
    pub fn new(scope: &'a Scope, socket: &Path, image: &str, handler: &'a str) -> Result<Self> {
        let cri = Client::new(socket)?;
        // The network isn't ready before the plugin has found its configuration.
        wait_until("the CRI plugin to be ready", DEADLINE * 2, || {
            let Ok(status) = cri.status(v1::StatusRequest::default()) else { return Ok(None) };
            let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
            let holds = |kind: &str| conditions.iter().any(|c| c.r#type == kind && c.status);
            Ok((holds("RuntimeReady") && holds("NetworkReady")).then_some(()))
        })?;
        let spec = v1::ImageSpec { image: image.to_owned(), ..Default::default() };
        cri.pull_image(v1::PullImageRequest { image: Some(spec), ..Default::default() })
            .context("PullImage")?;
        Ok(Self { cri, image: image.to_owned(), scope, handler })
    }

    /// Runs a pod.
    ///
    /// # Errors
    /// The daemon's.
    pub fn run_pod(&self, name: &str) -> Result<Pod> {
        let mut config = pod(self.scope, name);
        fs::create_dir_all(&config.log_directory)?; // a kubelet's work
        config.annotations.clear();
        let request = v1::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: self.handler.to_owned(),
        };
        let id = self.cri.run_pod_sandbox(request).context("RunPodSandbox")?.pod_sandbox_id;
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
        let status = self.cri.pod_sandbox_status(request).context("PodSandboxStatus")?;
        let info: Value = serde_json::from_str(status.info.get("info").context("no verbose status")?)?;
        let namespaces =
            info["runtimeSpec"]["linux"]["namespaces"].as_array().context("no namespaces")?.clone();
        let network = namespaces.iter().find(|n| n["type"] == "network").and_then(|n| n["path"].as_str());
        Ok(Pod { id, config, network: network.context("no network namespace")?.into() })
    }

    /// Creates and starts a container that runs `command`.
    ///
    /// # Errors
    /// The daemon's.
    pub fn run(&self, pod: &Pod, name: &str, command: &[&str]) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(container(name, &self.image, command)),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = self.cri.create_container(request).context("CreateContainer")?.container_id;
        let request = v1::StartContainerRequest { container_id: id.clone() };
        self.cri.start_container(request).context("StartContainer")?;
        Ok(id)
    }

    /// `ExecSync`: exit code, standard output, standard error.
    ///
    /// # Errors
    /// The daemon's.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<(i32, String, String)> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 30 };
        let done = self.cri.exec_sync(request).with_context(|| format!("ExecSync {command:?}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((done.exit_code, text(&done.stdout), text(&done.stderr)))
    }

    /// A container's status.
    ///
    /// # Errors
    /// The daemon's.
    pub fn status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.cri.container_status(request).context("ContainerStatus")?.status.context("no status")
    }

    /// Waits until a container's log has `text`, and yields all of the log.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn wait_log(&self, id: &str, text: &str) -> Result<String> {
        let path = self.status(id)?.log_path;
        wait_until(&format!("{text:?} in {path}"), DEADLINE, || {
            let log = fs::read_to_string(&path).unwrap_or_default();
            Ok(log.contains(text).then_some(log))
        })
    }

    /// Stops a container with a grace period in seconds.
    ///
    /// # Errors
    /// The daemon's.
    pub fn stop(&self, id: &str, timeout: i64) -> Result<()> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.cri.stop_container(request).context("StopContainer").map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// The daemon's.
    pub fn remove(&self, id: &str) -> Result<()> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        self.cri.remove_container(request).context("RemoveContainer").map(drop)
    }

    /// Stops and removes a pod with all its containers; demands that its network namespace is gone.
    ///
    /// # Errors
    /// The daemon's.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.cri.stop_pod_sandbox(request).context("StopPodSandbox")?;
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.cri.remove_pod_sandbox(request).context("RemovePodSandbox")?;
        ensure!(!pod.network.exists(), "{} is left", pod.network.display());
        Ok(())
    }
}

/// Writes the configuration of a bridge of the scope's below `dir`.
pub(crate) fn write_network(scope: &Scope, dir: &Path) -> Result<()> {
    let hash = scope.prefix().bytes().fold(11_u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    let subnet = format!("10.{}.{}.0/24", 192 + hash % 60, hash >> 8 & 0xff);
    let conf = json!({
        "cniVersion": "0.4.0",
        "name": format!("{}-net", scope.prefix()),
        "plugins": [{
            "type": "bridge", "bridge": scope.link("br"), "isGateway": true, "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": dir.join("leases"), "ranges": [[{"subnet": subnet}]],
                     "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    });
    let conf_dir = dir.join("cni");
    fs::create_dir_all(&conf_dir)?;
    fs::write(conf_dir.join("10-test.conflist"), serde_json::to_vec_pretty(&conf)?)
        .context("write the network")
}

/// Removes the bridge, which its plugin leaves.
pub(crate) fn remove_network(scope: &Scope) {
    if Path::new("/sys/class/net").join(scope.link("br")).exists() {
        Command::new("ip").args(["link", "del", &scope.link("br")]).output().ok(); // Scope::finish would tell
    }
}
