//! Takes away what exists of a container or a sandbox, however much that is.
//!
//! Every step does nothing where there is nothing. So a failed creation, a stop, a removal and a restart all take
//! this one way, and a step that fails today is tried again by whoever comes next: the record stays until all is gone.

use std::sync::Arc;
use std::time::Duration;

use corten_task::{DeadTask, Shim};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::container::Container;
use crate::records::{ContainerPhase, SandboxPhase};
use crate::runtime::stop_container::Grace;
use crate::sandbox::{self, Sandbox};
use crate::server::{Inner, shim_error};
use crate::{Error, Result, pod_files};

/// How long killed containers may take to be gone before a pod's stop gives up until its next attempt.
const KILLED: Duration = Duration::from_secs(30);
/// How long a task may be neither here nor gone.
const IN_BETWEEN: Duration = Duration::from_secs(10);
/// How long a shim may take to end once it has agreed to.
const SHUT_DOWN: Duration = Duration::from_secs(10);

impl Inner {
    /// Kills the container if it runs and removes all of it. Logs stay: they are the client's.
    pub(crate) async fn take_away_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if matches!(container.record().phase, ContainerPhase::Running { .. } | ContainerPhase::Starting) {
            self.stop(container, Grace::kill(KILLED)).await?;
        }
        let _work = container.work.lock().await;
        container.entry.update(|record| record.phase = ContainerPhase::Removing).await?;
        let shim = self.sandbox_of(container).ok().and_then(|sandbox| sandbox.shim_if_any());
        if let Some(shim) = shim {
            delete_task(&shim, &container.id).await?;
        }
        let id = &container.id;
        let removed = self.deps.images.remove_snapshot(id).await;
        removed.map_err(crate::server::image_error(format!("remove the file system of container {id}")))?;
        self.collect_if_removed(&container.record().image_id).await;
        let bundle = self.deps.dirs.bundle(id);
        crate::blocking(move || {
            pod_files::unmount(&bundle.join("rootfs"))?;
            pod_files::remove_dir(&bundle)
        })
        .await??;
        container.entry.forget().await?;
        self.containers.remove(id);
        Ok(())
    }

    /// Gives back the space of an image that was removed while containers still used it.
    async fn collect_if_removed(&self, image_id: &str) {
        if !matches!(self.deps.images.get(image_id).await, Ok(None)) {
            return;
        }
        if let Err(error) = self.deps.images.gc().await {
            // The next removal of an image tries again.
            tracing::warn!(image_id, %error, "the space of a removed image can't be given back yet");
        }
    }

    /// Stops everything of the sandbox but keeps its record: containers, shim, network, namespaces. All steps are
    /// tried; the first failure is returned.
    pub(crate) async fn quiesce(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let containers = self.containers_of(&sandbox.id);
        let stops = containers.iter().map(|container| self.stop(container, Grace::kill(KILLED)));
        if let Err(error) = join_all(stops).await.into_iter().collect::<Result<Vec<()>>>() {
            // A dead shim can't stop anything, and what it leaves can't be stopped through it.
            let dir = self.deps.dirs.pod(&sandbox.id);
            match self.deps.shims.reconnect(&sandbox.id, &dir).await {
                Ok(None) => {
                    sandbox.take_shim();
                    self.shim_died(sandbox).await;
                }
                _ => return Err(error),
            }
        }
        // The shim knows nothing more that matters; the network is the slow part, so both at once.
        let (shim, network) = tokio::join!(self.end_shim(sandbox, &containers), self.detach_network(sandbox));
        network?;
        shim?;
        let pins = sandbox::namespace_dir(&self.deps.dirs, &sandbox.id);
        let shm = self.deps.dirs.pod(&sandbox.id).join("shm");
        let record = sandbox.record();
        let hierarchies = self.hierarchies.clone();
        crate::blocking(move || {
            pod_files::unmount(&shm)?;
            corten_cni::PodNamespaces::remove(&pins)
                .map_err(Error::internal(format!("remove the namespaces of sandbox {}", record.id)))?;
            if record.own_cgroup {
                let path = std::path::Path::new(&record.cgroup_parent);
                hierarchies
                    .remove_empty(&record.cgroup_parent)
                    .map_err(Error::io("remove the cgroup", path))?;
            }
            Ok(())
        })
        .await?
    }

    /// Removes all of the sandbox and its containers, the record last.
    pub(crate) async fn take_away_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let _work = sandbox.work.write().await;
        if self.sandboxes.get(&sandbox.id).is_none() {
            return Ok(());
        }
        if !sandbox.record().stopped {
            self.quiesce(sandbox).await?;
        }
        let containers = self.containers_of(&sandbox.id);
        let removals = containers.iter().map(|container| self.take_away_container(container));
        join_all(removals).await.into_iter().collect::<Result<Vec<()>>>()?;
        sandbox.entry.update(|record| record.phase = SandboxPhase::Removing).await?;
        let dir = self.deps.dirs.pod(&sandbox.id);
        crate::blocking(move || pod_files::remove_dir(&dir)).await??;
        sandbox.entry.forget().await?;
        self.sandboxes.remove(&sandbox.id);
        Ok(())
    }

    /// Takes back a creation that failed; what can't be taken back goes into the error and is tried again later.
    pub(crate) async fn undo_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>, cause: Error) -> Error {
        match self.take_away_sandbox(sandbox).await {
            Ok(()) => cause,
            Err(error) => leftovers(cause, &error),
        }
    }

    /// As [`undo_sandbox`](Self::undo_sandbox), of a container.
    pub(crate) async fn undo_container(self: &Arc<Self>, container: &Arc<Container>, cause: Error) -> Error {
        match self.take_away_container(container).await {
            Ok(()) => cause,
            Err(error) => leftovers(cause, &error),
        }
    }

    async fn detach_network(&self, sandbox: &Sandbox) -> Result<()> {
        let network = sandbox.record().network(&self.deps.dirs)?;
        let detached = self.deps.cni.del(&network).await;
        detached.map_err(Error::internal(format!("detach sandbox {} from the network", sandbox.id)))
    }

    /// Ends the shim, or takes away what a dead one has left. Its containers have ended.
    async fn end_shim(&self, sandbox: &Sandbox, containers: &[Arc<Container>]) -> Result<()> {
        let dir = self.deps.dirs.pod(&sandbox.id);
        let found = match sandbox.shim_if_any() {
            Some(shim) => Some(shim),
            None => {
                let operation = format!("find the shim of sandbox {}", sandbox.id);
                self.deps.shims.reconnect(&sandbox.id, &dir).await.map_err(shim_error(operation))?
            }
        };
        let Some(shim) = found else {
            return self.clean_after_shim(sandbox, containers).await.map(drop);
        };
        for container in containers {
            // After whoever saw it end.
            let _work = container.work.lock().await;
            delete_task(&shim, &container.id).await?;
        }
        sandbox.take_shim();
        let ended = shim.shutdown().await;
        ended.map_err(shim_error(format!("end the shim of sandbox {}", sandbox.id)))?;
        // Else somebody who looks for it right now would still find it.
        let gone = tokio::time::timeout(SHUT_DOWN, shim.closed().wait()).await;
        gone.map_err(|_| {
            Error::Deadline(format!("the shim of sandbox {} was told to end and doesn't", sandbox.id))
        })
    }

    /// Takes away what a shim that died has left of the containers, and says how each of them ended.
    pub(crate) async fn clean_after_shim(
        &self,
        sandbox: &Sandbox,
        containers: &[Arc<Container>],
    ) -> Result<Vec<Option<corten_task::Exit>>> {
        let task = |container: &Arc<Container>| DeadTask {
            id: container.id.clone(),
            bundle: self.deps.dirs.bundle(&container.id),
        };
        let tasks: Vec<DeadTask> = containers.iter().map(task).collect();
        let dir = self.deps.dirs.pod(&sandbox.id);
        let cleaned = self.deps.shims.cleanup_dead(&dir, &tasks).await;
        cleaned.map_err(shim_error(format!("clean up after the dead shim of sandbox {}", sandbox.id)))
    }
}

/// Deletes a task that has ended; one that the shim doesn't know is gone already.
///
/// One that is still being made, or deleted by somebody else (an earlier daemon that was killed meanwhile), is
/// waited for. There is no event for that, so this asks again.
pub(crate) async fn delete_task(shim: &Shim, id: &str) -> Result<()> {
    let deadline = Instant::now() + IN_BETWEEN;
    loop {
        let error = match shim.delete(id).await {
            Err(error) if !error.is_not_found() => shim_error(format!("delete container {id}"))(error),
            _ => return Ok(()),
        };
        if error.code() != Code::FailedPrecondition || Instant::now() > deadline {
            return Err(error);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn leftovers(cause: Error, error: &Error) -> Error {
    Error::Leftovers { cause: Box::new(cause), leftovers: error.chain() }
}
