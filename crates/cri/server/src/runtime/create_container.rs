//! CreateContainer: a root file system and a bundle. Nothing runs yet, not even in the shim.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_cri_api::v1::{
    ContainerConfig, CreateContainerRequest, CreateContainerResponse, LinuxContainerSecurityContext,
    NamespaceMode,
};
use corten_image::Image;

use crate::container::Container;
use crate::entry::Entry;
use crate::records::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};
use crate::sandbox::{self, Sandbox};
use crate::server::{Inner, image_error, new_id};
use crate::spec::user::Identity;
use crate::spec::{self, Input, Pod};
use crate::{Error, Result, accounts, pod_files};

/// SIGTERM.
const DEFAULT_STOP_SIGNAL: i32 = 15;

impl Inner {
    pub(super) async fn create_container(
        self: Arc<Self>,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse> {
        let config = request.config.ok_or_else(|| Error::invalid("the request has no config"))?;
        let metadata = config.metadata.clone().unwrap_or_default();
        if metadata.name.is_empty() {
            return Err(Error::invalid("the container's metadata has no name"));
        }
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let key = (sandbox.id.clone(), metadata.name, metadata.attempt);
        let inner = Arc::clone(&self);
        let container_id = self.create_flights.run(key, || inner.create(sandbox, config)).await?;
        Ok(CreateContainerResponse { container_id })
    }

    async fn create(self: Arc<Self>, sandbox: Arc<Sandbox>, config: ContainerConfig) -> Result<String> {
        let _pod = sandbox.work.read().await;
        if sandbox.record().phase != SandboxPhase::Ready {
            return Err(Error::Precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        for known in self.containers_of(&sandbox.id) {
            let record = known.record();
            if record.config.metadata != config.metadata {
                continue;
            }
            if !record.phase.is_visible() {
                self.take_away_container(&known).await?;
            } else if record.config == config {
                // The same request again: its answer was lost, whatever has become of the container since.
                return Ok(known.id.clone());
            } else {
                return Err(Error::Exists(format!(
                    "container {} has this name in sandbox {} and is another one: remove it, or ask for another \
                     attempt",
                    known.id, sandbox.id
                )));
            }
        }
        let image = self.image_of(&config).await?;
        let container = self.announce_container(&sandbox, config, &image).await?;
        match self.fill(&sandbox.record(), &container, &image).await {
            Ok(()) => Ok(container.id.clone()),
            Err(error) => Err(self.undo_container(&container, error).await),
        }
    }

    async fn image_of(&self, config: &ContainerConfig) -> Result<Image> {
        let name = config.image.as_ref().map_or("", |image| image.image.as_str());
        if name.is_empty() {
            return Err(Error::invalid("the container's config names no image"));
        }
        let found = self.deps.images.get(name).await;
        found.map_err(image_error(format!("look up image {name}")))?.ok_or_else(|| Error::image(name))
    }

    /// Puts the container on record before anything of it exists.
    async fn announce_container(
        &self,
        sandbox: &Sandbox,
        config: ContainerConfig,
        image: &Image,
    ) -> Result<Arc<Container>> {
        let id = new_id()?;
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        let record = ContainerRecord {
            id: id.clone(),
            sandbox_id: sandbox.id.clone(),
            created_at: crate::time::now(),
            phase: ContainerPhase::Creating,
            image_id: image.id.clone(),
            image_name: image_name(&config, image),
            log_path: log_path(&sandbox.record(), &config)?,
            identity: Identity::default(),
            resources,
            process: serde_json::Value::Null,
            stop_signal: stop_signal(&config, image),
            cgroup: spec::cgroup_path(&sandbox.record().cgroup_parent, &id),
            config,
        };
        let container = Arc::new(Container::new(&id, Entry::new(&self.container_store, &id, record).await?));
        self.containers.insert(&id, Arc::clone(&container));
        Ok(container)
    }

    /// Makes the root file system and the bundle.
    async fn fill(&self, pod: &Arc<SandboxRecord>, container: &Container, image: &Image) -> Result<()> {
        let id = container.id.clone();
        let mounts = self.deps.images.prepare(&id, image).await;
        let mounts = mounts.map_err(image_error(format!("make a file system from image {}", image.id)))?;
        let bundle = self.deps.dirs.bundle(&id);
        let (record, pod) = (container.record(), Arc::clone(pod));
        let image = image.config.config().clone().unwrap_or_default();
        let target_pid = self.target_pid(&record.config);
        let (dirs, held) = (self.deps.dirs.clone(), self.held.clone());
        let made = crate::blocking(move || {
            let rootfs = bundle.join("rootfs");
            pod_files::make_dir(&rootfs)?;
            let accounts = accounts::read(&mounts, &rootfs)?;
            let image_user = image.user().clone().unwrap_or_default();
            let identity = spec::user::resolve(&security(&record.config), &image_user, &accounts)?;
            let metadata = sandbox::metadata(&pod.config);
            let spec = spec::build(&Input {
                id: &record.id,
                config: &record.config,
                pod: Pod {
                    id: &pod.id,
                    namespace: &metadata.namespace,
                    name: &metadata.name,
                    uid: &metadata.uid,
                    hostname: &sandbox::hostname(&pod.config),
                    options: sandbox::namespace_options(&pod.config),
                    cgroup_parent: &pod.cgroup_parent,
                    pins: pod.pins(&dirs)?,
                    files: dirs.pod(&pod.id),
                },
                image: &image,
                identity: &identity,
                held: &held,
                target_pid,
            })?;
            write_bundle(&bundle, &spec, record.log_path.as_deref())?;
            Ok::<_, Error>((identity, spec["process"].clone()))
        });
        let (identity, process) = made.await??;
        let created = container.entry.update(|record| {
            record.phase = ContainerPhase::Created;
            record.identity = identity;
            record.process = process;
        });
        created.await.map(drop)
    }

    /// The process of the container whose PID namespace is to be joined, if it runs.
    fn target_pid(&self, config: &ContainerConfig) -> Option<u32> {
        let options = security(config).namespace_options?;
        if options.pid != i32::from(NamespaceMode::Target) {
            return None;
        }
        match self.container(&options.target_id).ok()?.record().phase {
            ContainerPhase::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }
}

fn security(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

fn write_bundle(bundle: &Path, spec: &serde_json::Value, log: Option<&Path>) -> Result<()> {
    let path = bundle.join("config.json");
    std::fs::write(&path, spec.to_string()).map_err(Error::io("write", &path))?;
    if let Some(dir) = log.and_then(Path::parent) {
        std::fs::create_dir_all(dir).map_err(Error::io("make the log directory", dir))?;
    }
    Ok(())
}

/// What the image is called towards people: as the client's user wrote it, else by a name of its own.
fn image_name(config: &ContainerConfig, image: &Image) -> String {
    let spec = config.image.clone().unwrap_or_default();
    if !spec.user_specified_image.is_empty() {
        return spec.user_specified_image;
    }
    let own = image.repo_tags.first().or(image.repo_digests.first());
    own.cloned().unwrap_or(spec.image)
}

/// Where the log goes; none if the client wants none.
fn log_path(pod: &SandboxRecord, config: &ContainerConfig) -> Result<Option<PathBuf>> {
    if config.log_path.is_empty() || pod.config.log_directory.is_empty() {
        return Ok(None);
    }
    let relative = Path::new(&config.log_path);
    if relative.is_absolute() || relative.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(Error::invalid(format!("log path {:?} leaves the log directory", config.log_path)));
    }
    Ok(Some(Path::new(&pod.config.log_directory).join(relative)))
}

/// The request's stop signal, else the image's, else SIGTERM.
fn stop_signal(config: &ContainerConfig, image: &Image) -> i32 {
    let of_image = || {
        let image = image.config.config().as_ref();
        image.and_then(|image| image.stop_signal().as_deref().and_then(spec::parse_signal))
    };
    spec::signal_number(config.stop_signal()).or_else(of_image).unwrap_or(DEFAULT_STOP_SIGNAL)
}
