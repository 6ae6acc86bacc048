//! StartContainer: the shim creates the container and starts its program.

use std::path::Path;
use std::sync::Arc;

use corten_cri_api::v1::{StartContainerRequest, StartContainerResponse};
use corten_task::{CreateTask, Mount, Shim};
use tonic::Code;

use crate::container::Container;
use crate::records::{ContainerPhase, ContainerRecord, Ended, SandboxPhase};
use crate::server::{Inner, image_error, shim_error};
use crate::teardown::delete_task;
use crate::{Error, Result};

/// What Kubernetes knows a failed start by.
const START_ERROR: (i32, &str) = (128, "StartError");

impl Inner {
    pub(super) async fn start_container(
        self: Arc<Self>,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse> {
        let container = self.container(&request.container_id)?;
        let inner = Arc::clone(&self);
        self.start_flights.run(container.id.clone(), || inner.start(container)).await?;
        Ok(StartContainerResponse {})
    }

    async fn start(self: Arc<Self>, container: Arc<Container>) -> Result<()> {
        let sandbox = self.sandbox_of(&container)?;
        let _pod = sandbox.work.read().await;
        let _work = container.work.lock().await;
        self.settle(&container).await?;
        let record = container.record();
        if record.phase != ContainerPhase::Created {
            let state = record.state().as_str_name();
            return Err(Error::Precondition(format!("container {} is in state {state}", container.id)));
        }
        if sandbox.record().phase != SandboxPhase::Ready {
            return Err(Error::Precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let shim = sandbox.shim()?;
        container.entry.update(|record| record.phase = ContainerPhase::Starting).await?;
        match self.launch(&shim, &record).await {
            Ok((pid, started_at)) => {
                let phase = ContainerPhase::Running { pid, started_at };
                container.entry.update(|record| record.phase = phase).await?;
                self.watch_container(&container, &shim);
                Ok(())
            }
            Err(error) => {
                if let Err(error) = delete_task(&shim, &container.id).await {
                    // Removal tries again.
                    tracing::warn!(container = container.id, error = error.chain(), "not taken back");
                }
                let (exit_code, reason) = START_ERROR;
                let ended = Ended {
                    started_at: 0,
                    finished_at: crate::time::now(),
                    exit_code,
                    reason: reason.to_owned(),
                    message: error.chain(),
                };
                container.end(ended).await?;
                Err(error)
            }
        }
    }

    /// Returns the first process and when it began: just before, so that its end can't be earlier.
    async fn launch(&self, shim: &Shim, record: &ContainerRecord) -> Result<(u32, i64)> {
        let id = &record.id;
        let rootfs = self.deps.images.mounts(id).await;
        let rootfs = rootfs.map_err(image_error(format!("find the file system of container {id}")))?;
        let log = record.log_path.as_deref().map(|path| log_uri(path, self.deps.config.max_log_line));
        let log = log.unwrap_or_default();
        let mount = |mount: corten_image::Mount| Mount {
            fs_type: mount.fs_type,
            source: mount.source.to_string_lossy().into_owned(),
            target: mount.target.to_string_lossy().into_owned(),
            options: mount.options,
        };
        let task = CreateTask {
            id: id.clone(),
            bundle: self.deps.dirs.bundle(id),
            rootfs: rootfs.into_iter().map(mount).collect(),
            stdin: String::new(),
            stdout: log.clone(),
            stderr: if record.config.tty { String::new() } else { log },
            terminal: record.config.tty,
        };
        create(shim, task).await?;
        let started_at = crate::time::now();
        let pid = shim.start(id).await.map_err(shim_error(format!("start container {id}")))?;
        Ok((pid, started_at))
    }
}

/// Creates the task. A daemon that was killed may have left one under way: that goes first.
async fn create(shim: &Shim, task: CreateTask) -> Result<()> {
    let failed = |error| shim_error(format!("create container {}", task.id))(error);
    match shim.create(task.clone()).await.map_err(failed) {
        Err(error) if error.code() == Code::AlreadyExists => {
            delete_task(shim, &task.id).await?;
            shim.create(task.clone()).await.map_err(failed).map(drop)
        }
        created => created.map(drop),
    }
}

/// Tells the shim to write a CRI log.
fn log_uri(path: &Path, max_line: u32) -> String {
    format!("cri://{}?max-line={max_line}", path.display())
}
