//! RunPodSandbox: namespaces, network and a shim for a pod's containers to come.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use corten_cni::PodNamespaces;
use corten_cri_api::v1::{NamespaceMode, PodSandboxConfig, RunPodSandboxRequest, RunPodSandboxResponse};

use super::status::HANDLERS;
use crate::entry::Entry;
use crate::records::{SandboxPhase, SandboxRecord};
use crate::sandbox::{self, Sandbox, SandboxKey};
use crate::server::{Inner, new_id, shim_error};
use crate::spec::mode;
use crate::{Error, Result, pod_files};

impl Inner {
    pub(super) async fn run_pod_sandbox(
        self: Arc<Self>,
        request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse> {
        let config = request.config.ok_or_else(|| Error::invalid("the request has no config"))?;
        check(&config, &request.runtime_handler)?;
        let key = SandboxKey::of(&sandbox::metadata(&config));
        let inner = Arc::clone(&self);
        let work = || inner.run_sandbox(key.clone(), config, request.runtime_handler);
        let pod_sandbox_id = self.run_flights.run(key.clone(), work).await?;
        Ok(RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn run_sandbox(
        self: Arc<Self>,
        key: SandboxKey,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String> {
        for known in self.sandboxes.all().into_iter().filter(|known| known.key() == key) {
            match known.record().phase {
                SandboxPhase::Ready => return Ok(known.id.clone()),
                SandboxPhase::NotReady => {
                    return Err(Error::Exists(format!(
                        "sandbox {} was this pod's and has stopped: remove it, or ask for another attempt",
                        known.id
                    )));
                }
                // What an earlier attempt couldn't take away may be in the way of this one.
                SandboxPhase::Creating | SandboxPhase::Removing => self.take_away_sandbox(&known).await?,
            }
        }
        let sandbox = self.announce(config, handler).await?;
        match self.set_up(&sandbox).await {
            Ok(()) => Ok(sandbox.id.clone()),
            Err(error) => Err(self.undo_sandbox(&sandbox, error).await),
        }
    }

    /// Puts the sandbox on record before anything of it exists.
    async fn announce(&self, config: PodSandboxConfig, handler: String) -> Result<Arc<Sandbox>> {
        let id = new_id()?;
        let asked = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        let own_cgroup = asked.is_empty();
        let cgroup_parent = if own_cgroup {
            format!("{}/pod-{}", self.deps.config.cgroup_parent.trim_end_matches('/'), &id[..16])
        } else {
            format!("/{}", asked.trim_matches('/'))
        };
        let record = SandboxRecord {
            id: id.clone(),
            config,
            handler,
            created_at: crate::time::now(),
            phase: SandboxPhase::Creating,
            stopped: false,
            ips: Vec::new(),
            pid_namespace: None,
            cgroup_parent,
            own_cgroup,
        };
        let sandbox = Arc::new(Sandbox::new(&id, Entry::new(&self.sandbox_store, &id, record).await?));
        self.sandboxes.insert(&id, Arc::clone(&sandbox));
        Ok(sandbox)
    }

    /// Makes what the sandbox consists of. The network and the shim take their time side by side.
    async fn set_up(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let record = sandbox.record();
        let dir = self.deps.dirs.pod(&sandbox.id);
        {
            let (record, dir) = (Arc::clone(&record), dir.clone());
            crate::blocking(move || prepare(&record, &dir)).await??;
        }
        let (ips, shim) = tokio::join!(self.attach(&record), self.deps.shims.start(&sandbox.id, &dir));
        // The shim first: what undoes a failed attachment must find it.
        let shim = shim.map_err(shim_error(format!("start the shim of sandbox {}", sandbox.id)))?;
        sandbox.set_shim(shim.clone());
        let ips = ips?;
        let options = sandbox::namespace_options(&record.config);
        let mut pid_namespace = None;
        if mode(options.pid, "PID")? == NamespaceMode::Pod {
            let made = shim.create_pid_namespace().await;
            pid_namespace = Some(made.map_err(shim_error("make the pod's PID namespace"))?.1);
        }
        let hosts = pod_files::hosts(&sandbox::hostname(&record.config), &ips);
        crate::blocking(move || pod_files::write(&dir.join("hosts"), &hosts)).await??;
        let ready = sandbox.entry.update(|record| {
            record.phase = SandboxPhase::Ready;
            record.ips = ips;
            record.pid_namespace = pid_namespace;
        });
        ready.await?;
        self.watch_shim(sandbox, &shim);
        Ok(())
    }

    async fn attach(&self, record: &SandboxRecord) -> Result<Vec<IpAddr>> {
        if !sandbox::kinds(&record.config)?.net {
            return Ok(Vec::new());
        }
        let network = record.network(&self.deps.dirs)?;
        let attached = self.deps.cni.add(&network).await;
        let metadata = sandbox::metadata(&record.config);
        let operation = format!("attach pod {}/{} to the network", metadata.namespace, metadata.name);
        Ok(attached.map_err(Error::internal(operation))?.ips)
    }
}

/// What can be said of a request without touching anything.
fn check(config: &PodSandboxConfig, handler: &str) -> Result<()> {
    let metadata = sandbox::metadata(config);
    if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
        return Err(Error::invalid("the sandbox's metadata needs name, namespace and uid"));
    }
    if !HANDLERS.contains(&handler) {
        return Err(Error::invalid(format!("unknown runtime handler {handler:?}: there is only \"corten\"")));
    }
    if !config.log_directory.is_empty() && !Path::new(&config.log_directory).is_absolute() {
        return Err(Error::invalid(format!("log directory {:?} is not absolute", config.log_directory)));
    }
    let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
    if parent.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("cgroup parent {parent:?} has .. in it")));
    }
    let options = sandbox::namespace_options(config);
    crate::spec::check_namespaces(&options)?;
    for (number, of) in [(options.network, "network"), (options.pid, "PID"), (options.ipc, "IPC")] {
        if mode(number, of)? == NamespaceMode::Target {
            return Err(Error::invalid(format!("a pod's {of} namespace can't be another container's")));
        }
    }
    Ok(())
}

/// The pod's directory, namespaces and files.
fn prepare(record: &SandboxRecord, dir: &Path) -> Result<()> {
    let config = &record.config;
    pod_files::make_dir(dir)?;
    if !config.log_directory.is_empty() {
        let logs = Path::new(&config.log_directory);
        std::fs::create_dir_all(logs).map_err(Error::io("make the log directory", logs))?;
    }
    let kinds = sandbox::kinds(config)?;
    let hostname = sandbox::hostname(config);
    let made = PodNamespaces::create(&dir.join("ns"), kinds, &hostname, &sysctls(config, kinds.net));
    made.map_err(|error| {
        let code = match &error {
            corten_cni::Error::Sysctl { .. } => tonic::Code::InvalidArgument,
            _ => tonic::Code::Internal,
        };
        Error::below("make the pod's namespaces", |_: &corten_cni::Error| code)(error)
    })?;
    if kinds.ipc {
        pod_files::mount_shm(&dir.join("shm"))?;
    }
    pod_files::write(&dir.join("hostname"), &format!("{hostname}\n"))?;
    pod_files::write(&dir.join("resolv.conf"), &pod_files::resolv_conf(config.dns_config.as_ref())?)
}

/// What the request sets, over what makes low ports and ping work for users that aren't root.
fn sysctls(config: &PodSandboxConfig, own_network: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if own_network {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    all.extend(config.linux.iter().flat_map(|linux| linux.sysctls.clone()));
    all
}

#[cfg(test)]
mod tests {
    use corten_cri_api::v1::PodSandboxMetadata;

    use super::*;

    #[test]
    fn wrong_requests_are_refused_before_anything_happens() {
        let metadata = PodSandboxMetadata {
            name: "n".into(),
            namespace: "ns".into(),
            uid: "u".into(),
            ..Default::default()
        };
        let good = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        check(&good, "").expect("the default handler");
        check(&good, "corten").expect("our name");
        assert!(check(&good, "kata").expect_err("unknown").to_string().contains("kata"));
        assert!(check(&PodSandboxConfig::default(), "").is_err());
        let mut climbing = good.clone();
        climbing.linux.get_or_insert_default().cgroup_parent = "/a/../..".into();
        assert!(check(&climbing, "").is_err());
        let relative = PodSandboxConfig { log_directory: "logs".into(), ..good };
        assert!(check(&relative, "").is_err());
    }

    #[test]
    fn a_pod_on_the_hosts_network_leaves_the_hosts_sysctls_alone() {
        let config = PodSandboxConfig::default();
        assert!(sysctls(&config, false).is_empty());
        assert_eq!(sysctls(&config, true).len(), 2);
    }
}
