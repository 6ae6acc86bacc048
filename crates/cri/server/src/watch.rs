//! Hears of containers that end and shims that die.

use std::sync::Arc;

use corten_task::{Exit, Shim};

use crate::container::Container;
use crate::records::{ContainerPhase, Ended, SandboxPhase};
use crate::sandbox::Sandbox;
use crate::server::Inner;
use crate::teardown::delete_task;

impl Inner {
    /// Waits for the container's end in the background, records it and deletes what the shim holds of it.
    pub(crate) fn watch_container(self: &Arc<Self>, container: &Arc<Container>, shim: &Shim) {
        let (container, shim) = (Arc::clone(container), shim.clone());
        tokio::spawn(async move {
            // A shim that dies is the sandbox's business.
            let Ok(exit) = shim.wait(&container.id).await else { return };
            let _work = container.work.lock().await;
            note_exit(&container, exit).await;
            if let Err(error) = delete_task(&shim, &container.id).await {
                // Removal tries again.
                tracing::warn!(container = container.id, error = error.chain(), "ended, but not deleted");
            }
        });
    }

    /// Waits for the shim's end in the background. One that wasn't told to end takes its sandbox with it.
    pub(crate) fn watch_shim(self: &Arc<Self>, sandbox: &Arc<Sandbox>, shim: &Shim) {
        let (server, sandbox, closed) = (Arc::clone(self), Arc::clone(sandbox), shim.closed());
        tokio::spawn(async move {
            closed.wait().await;
            let _work = sandbox.work.write().await;
            if sandbox.take_shim().is_none() {
                return;
            }
            tracing::warn!(sandbox = sandbox.id, "the shim died");
            server.shim_died(&sandbox).await;
        });
    }

    /// Ends the containers of a sandbox whose shim is dead, on record and in fact.
    pub(crate) async fn shim_died(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let containers = self.containers_of(&sandbox.id);
        let exits = match self.clean_after_shim(sandbox, &containers).await {
            Ok(exits) => exits,
            Err(error) => {
                // Stopping the sandbox tries again.
                tracing::warn!(
                    sandbox = sandbox.id,
                    error = error.chain(),
                    "a dead shim left something behind"
                );
                Vec::new()
            }
        };
        for (index, container) in containers.iter().enumerate() {
            match exits.get(index).copied().flatten() {
                Some(exit) => note_exit(container, exit).await,
                None => note_unknown(container, "the shim died").await,
            }
        }
        let updated = sandbox.entry.update(|record| {
            if record.phase == SandboxPhase::Ready {
                record.phase = SandboxPhase::NotReady;
            }
        });
        if let Err(error) = updated.await {
            tracing::error!(sandbox = sandbox.id, error = error.chain(), "state not recorded");
        }
    }
}

/// Records how the container ended.
pub(crate) async fn note_exit(container: &Container, exit: Exit) {
    let started_at = container.record().phase.started_at();
    note(container, Ended::of(exit, started_at)).await;
}

/// Records that the container ended in a way that nobody knows.
pub(crate) async fn note_unknown(container: &Container, why: &str) {
    let started_at = container.record().phase.started_at();
    note(container, Ended::unknown(started_at, why)).await;
}

async fn note(container: &Container, ended: Ended) {
    if matches!(container.record().phase, ContainerPhase::Creating | ContainerPhase::Created) {
        return;
    }
    if let Err(error) = container.end(ended).await {
        tracing::error!(container = container.id, error = error.chain(), "end not recorded");
    }
}
