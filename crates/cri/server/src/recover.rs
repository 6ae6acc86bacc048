//! After a start: finds what an earlier daemon left, goes on with what lives, takes back what was begun.
//!
//! ```text
//! records ──▶ tables ──▶ each sandbox, side by side:  shim alive? ──▶ ask it what runs, watch on
//!                                                     shim dead?  ──▶ take away what it left, not ready
//!         ──▶ half-made and half-removed things go ──▶ what belongs to nobody goes
//! ```

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use corten_task::{Shim, Task, TaskStatus};
use futures_util::future::join_all;

use crate::container::Container;
use crate::entry::Entry;
use crate::records::ContainerPhase;
use crate::sandbox::Sandbox;
use crate::server::{Inner, Server};
use crate::teardown::delete_task;
use crate::watch::{note_exit, note_unknown};
use crate::{Error, Result, pod_files};

impl Server {
    /// Takes over what an earlier daemon left. Call it once, before serving.
    ///
    /// What can't be taken back is logged and tried again by the next start or by the client's own retries: it
    /// doesn't keep the daemon from serving everything else.
    ///
    /// # Errors
    ///
    /// If the records can't be listed at all.
    pub async fn recover(&self) -> Result<()> {
        self.0.load()?;
        let sandboxes = self.0.sandboxes.all();
        join_all(sandboxes.iter().map(|sandbox| self.0.take_over(sandbox))).await;
        self.0.finish(&sandboxes).await;
        self.0.sweep().await;
        tracing::info!(
            sandboxes = self.0.sandboxes.all().len(),
            containers = self.0.containers.all().len(),
            "recovered"
        );
        Ok(())
    }
}

impl Inner {
    fn load(&self) -> Result<()> {
        let sandboxes = self.sandbox_store.list().map_err(Error::internal("list the sandboxes' records"))?;
        let containers =
            self.container_store.list().map_err(Error::internal("list the containers' records"))?;
        for error in sandboxes.unreadable.iter().chain(&containers.unreadable) {
            tracing::error!(%error, "a record is unreadable; what it is about is taken away");
        }
        for (id, record) in sandboxes.records {
            let entry = Entry::loaded(&self.sandbox_store, &id, record);
            self.sandboxes.insert(&id, Arc::new(Sandbox::new(&id, entry)));
        }
        for (id, record) in containers.records {
            let entry = Entry::loaded(&self.container_store, &id, record);
            self.containers.insert(&id, Arc::new(Container::new(&id, entry)));
        }
        Ok(())
    }

    /// Finds the sandbox's shim and learns from it what has happened.
    async fn take_over(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        if sandbox.record().stopped {
            return;
        }
        let dir = self.deps.dirs.pod(&sandbox.id);
        match self.deps.shims.reconnect(&sandbox.id, &dir).await {
            Ok(Some(shim)) => {
                sandbox.set_shim(shim.clone());
                if let Err(error) = self.reconcile(sandbox, &shim).await {
                    tracing::error!(sandbox = sandbox.id, error = error.chain(), "can't ask the shim");
                }
                self.watch_shim(sandbox, &shim);
            }
            Ok(None) => {
                let _work = sandbox.work.write().await;
                self.shim_died(sandbox).await;
            }
            // It may well live: its containers aren't touched. Stopping the sandbox tries again.
            Err(error) => tracing::error!(sandbox = sandbox.id, %error, "the shim doesn't answer"),
        }
    }

    async fn reconcile(self: &Arc<Self>, sandbox: &Arc<Sandbox>, shim: &Shim) -> Result<()> {
        let operation = format!("list the containers of sandbox {}", sandbox.id);
        let tasks = shim.list().await.map_err(crate::server::shim_error(operation))?;
        for container in self.containers_of(&sandbox.id) {
            let task = tasks.iter().find(|task| task.id == container.id);
            if let Err(error) = self.reconcile_container(&container, task, shim).await {
                tracing::error!(container = container.id, error = error.chain(), "not taken over");
            }
        }
        Ok(())
    }

    /// Finds out what came of a start that an earlier daemon was killed in. The caller holds the container's lock, so
    /// nobody of ours is starting it.
    pub(crate) async fn settle(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if container.record().phase != ContainerPhase::Starting {
            return Ok(());
        }
        let shim = self.sandbox_of(container)?.shim()?;
        let operation = format!("look for container {}", container.id);
        let tasks = shim.list().await.map_err(crate::server::shim_error(operation))?;
        let task = tasks.iter().find(|task| task.id == container.id);
        self.reconcile_container(container, task, &shim).await
    }

    async fn reconcile_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        task: Option<&Task>,
        shim: &Shim,
    ) -> Result<()> {
        let phase = container.record().phase.clone();
        match (phase, task) {
            (ContainerPhase::Running { .. } | ContainerPhase::Starting, Some(task)) => match task.status {
                TaskStatus::Created => {
                    // The daemon was killed between creating and starting it: the client's retry starts it anew.
                    delete_task(shim, &container.id).await?;
                    container.entry.update(|record| record.phase = ContainerPhase::Created).await?;
                }
                TaskStatus::Stopped => {
                    if container.record().phase == ContainerPhase::Starting {
                        self.note_running(container, task).await?;
                    }
                    match task.exit {
                        Some(exit) => note_exit(container, exit).await,
                        None => note_unknown(container, "the shim doesn't know how it ended").await,
                    }
                    delete_task(shim, &container.id).await?;
                }
                _ => {
                    self.note_running(container, task).await?;
                    self.watch_container(container, shim);
                }
            },
            (ContainerPhase::Starting, None) => {
                container.entry.update(|record| record.phase = ContainerPhase::Created).await?;
            }
            (ContainerPhase::Running { .. }, None) => {
                match corten_task::read_exit_record(&self.deps.dirs.bundle(&container.id)) {
                    Ok(Some(exit)) => note_exit(container, exit.into()).await,
                    _ => note_unknown(container, "the shim doesn't know it any more").await,
                }
            }
            (ContainerPhase::Exited(_) | ContainerPhase::Created, Some(_)) => {
                delete_task(shim, &container.id).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn note_running(&self, container: &Container, task: &Task) -> Result<()> {
        let started_at = match container.record().phase {
            ContainerPhase::Running { started_at, .. } => started_at,
            _ => task.started_at_ns,
        };
        let phase = ContainerPhase::Running { pid: task.pid, started_at };
        if container.record().phase != phase {
            container.entry.update(|record| record.phase = phase).await?;
        }
        Ok(())
    }

    /// Takes away what was being made or removed.
    async fn finish(self: &Arc<Self>, sandboxes: &[Arc<Sandbox>]) {
        for container in self.containers.all() {
            let record = container.record();
            let orphan = self.sandboxes.get(&record.sandbox_id).is_none();
            if record.phase.is_visible() && !orphan {
                continue;
            }
            if let Err(error) = self.take_away_container(&container).await {
                tracing::error!(container = container.id, error = error.chain(), "can't be taken away");
            }
        }
        for sandbox in sandboxes.iter().filter(|sandbox| !sandbox.record().phase.is_visible()) {
            if let Err(error) = self.take_away_sandbox(sandbox).await {
                tracing::error!(sandbox = sandbox.id, error = error.chain(), "can't be taken away");
            }
        }
    }

    /// Takes away what no record knows: it belonged to a record that a power failure or a bad disk took.
    async fn sweep(&self) {
        let pods: HashSet<String> = self.sandboxes.all().iter().map(|sandbox| sandbox.id.clone()).collect();
        let containers: HashSet<String> = self.containers.all().iter().map(|c| c.id.clone()).collect();
        for id in strays(&self.deps.dirs.bundles(), &containers) {
            let swept = self.sweep_bundle(&id).await;
            report("bundle", &id, swept);
        }
        for id in strays(&self.deps.dirs.pods(), &pods) {
            let swept = self.sweep_pod(&id).await;
            report("pod", &id, swept);
        }
        match self.deps.cni.collect(&pods).await {
            Ok((gone, failed)) => {
                for id in gone {
                    tracing::warn!(id, "swept a network attachment that belongs to no pod");
                }
                for error in failed {
                    tracing::error!(%error, "a network attachment that belongs to no pod stays");
                }
            }
            Err(error) => tracing::error!(%error, "can't look for network attachments that belong to no pod"),
        }
        let keys = self.deps.images.snapshots().await.unwrap_or_default();
        for key in keys.into_iter().filter(|key| is_id(key) && !containers.contains(key)) {
            let removed = self.deps.images.remove_snapshot(&key).await;
            report("file system", &key, removed.map_err(crate::server::image_error("remove it")));
        }
    }

    async fn sweep_bundle(&self, id: &str) -> Result<()> {
        let bundle = self.deps.dirs.bundle(id);
        let task = corten_task::DeadTask { id: id.to_owned(), bundle: bundle.clone() };
        let cleaned = self.deps.shims.cleanup_dead(&bundle, &[task]).await;
        cleaned.map_err(crate::server::shim_error("kill it"))?;
        crate::blocking(move || pod_files::remove_dir(&bundle)).await?
    }

    async fn sweep_pod(&self, id: &str) -> Result<()> {
        let dir = self.deps.dirs.pod(id);
        let found =
            self.deps.shims.reconnect(id, &dir).await.map_err(crate::server::shim_error("reach it"))?;
        if let Some(shim) = found {
            shim.shutdown().await.map_err(crate::server::shim_error("end its shim"))?;
        }
        crate::blocking(move || {
            pod_files::unmount(&dir.join("shm"))?;
            corten_cni::PodNamespaces::remove(&dir.join("ns"))
                .map_err(Error::internal("remove its namespaces"))?;
            pod_files::remove_dir(&dir)
        })
        .await?
    }
}

/// The names in a directory that aren't among the known ones.
fn strays(dir: &Path, known: &HashSet<String>) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_id(name) && !known.contains(name)).collect()
}

/// Whether it's one of our ids: nothing else is ours to sweep.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn report(kind: &str, id: &str, result: Result<()>) {
    match result {
        Ok(()) => tracing::warn!(kind, id, "swept what belongs to nobody"),
        Err(error) => tracing::error!(kind, id, error = error.chain(), "belongs to nobody, but stays"),
    }
}
