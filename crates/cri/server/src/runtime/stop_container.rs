//! StopContainer: the stop signal, time to comply, SIGKILL.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use corten_cri_api::v1::{NamespaceMode, StopContainerRequest, StopContainerResponse};
use corten_task::Shim;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::container::Container;
use crate::records::{ContainerPhase, ContainerRecord};
use crate::server::{Inner, shim_error};
use crate::{Error, Result};

const SIGKILL: u32 = 9;
/// How long a killed container may take to be gone: the kernel may have to write out its memory.
const KILLED: Duration = Duration::from_secs(60);
/// No grace period is longer.
const YEAR: Duration = Duration::from_secs(365 * 86400);

/// How much time a container gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    /// To comply with the stop signal. None: it isn't even sent.
    pub(crate) comply: Option<Duration>,
    /// To be gone after SIGKILL.
    pub(crate) die: Duration,
}

impl Grace {
    /// SIGKILL at once.
    pub(crate) fn kill(die: Duration) -> Self {
        Self { comply: None, die }
    }
}

impl Inner {
    /// Succeeds for what isn't there or doesn't run.
    pub(super) async fn stop_container(
        self: Arc<Self>,
        request: StopContainerRequest,
    ) -> Result<StopContainerResponse> {
        if let Ok(container) = self.container(&request.container_id) {
            let seconds = u64::try_from(request.timeout).unwrap_or(0);
            let comply = (seconds > 0).then(|| Duration::from_secs(seconds).min(YEAR));
            self.stop(&container, Grace { comply, die: KILLED }).await?;
        }
        Ok(StopContainerResponse {})
    }

    /// Stops a container and returns when its end is on record. A stop that is under way already is joined: the
    /// signal isn't sent again, and the earlier of both deadlines holds.
    pub(crate) async fn stop(self: &Arc<Self>, container: &Arc<Container>, grace: Grace) -> Result<()> {
        if container.record().phase == ContainerPhase::Starting {
            // Whatever becomes of the start: that is what is stopped.
            let _work = container.work.lock().await;
            self.settle(container).await?;
        }
        if !matches!(container.record().phase, ContainerPhase::Running { .. } | ContainerPhase::Starting) {
            return Ok(());
        }
        let kill_at = Instant::now() + grace.comply.unwrap_or_default();
        let joined = {
            let mut stopping = container.stopping.lock().unwrap_or_else(PoisonError::into_inner);
            match stopping.as_ref() {
                Some(earlier) => {
                    earlier.send_if_modified(|at| {
                        let sooner = kill_at < *at;
                        *at = kill_at.min(*at);
                        sooner
                    });
                    None
                }
                None => {
                    let (sender, receiver) = watch::channel(kill_at);
                    *stopping = Some(sender);
                    Some(receiver)
                }
            }
        };
        let driven = async {
            match joined {
                Some(kill_at) => {
                    let (inner, driven) = (Arc::clone(self), Arc::clone(container));
                    let work = tokio::spawn(async move {
                        let result = inner.drive(&driven, kill_at, grace).await;
                        *driven.stopping.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        result
                    });
                    work.await.map_err(Error::internal("stop a container: this is a bug"))?
                }
                None => self.until_ended(container, kill_at + grace.die).await,
            }
        };
        driven.await
    }

    async fn drive(
        &self,
        container: &Container,
        mut kill_at: watch::Receiver<Instant>,
        grace: Grace,
    ) -> Result<()> {
        let shim = self.sandbox_of(container)?.shim()?;
        let record = container.record();
        if grace.comply.is_some() {
            signal(&shim, &record, u32::try_from(record.stop_signal).unwrap_or(15), false).await?;
        }
        let mut ended = container.ended.subscribe();
        loop {
            let at = *kill_at.borrow_and_update();
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return Ok(()),
                () = sleep_until(at) => break,
                // The shim's end is the containers' end; who watches it writes that down.
                () = shim.closed().wait() => break,
                Ok(()) = kill_at.changed() => {}
            }
        }
        signal(&shim, &record, SIGKILL, !has_own_pids(&record)).await?;
        self.until_ended(container, Instant::now() + grace.die).await
    }

    async fn until_ended(&self, container: &Container, deadline: Instant) -> Result<()> {
        let mut ended = container.ended.subscribe();
        let gone = timeout_at(deadline, ended.wait_for(|ended| *ended)).await.is_ok();
        if gone {
            return Ok(());
        }
        Err(Error::Deadline(format!(
            "container {} has been killed and isn't gone yet: its processes may hang in the kernel",
            container.id
        )))
    }
}

/// Sends a signal; that there is nobody to get it any more is fine.
async fn signal(shim: &Shim, record: &ContainerRecord, number: u32, all: bool) -> Result<()> {
    match shim.kill(&record.id, "", number, all).await {
        Err(error) if !error.is_not_found() => {
            Err(shim_error(format!("send signal {number} to container {}", record.id))(error))
        }
        _ => Ok(()),
    }
}

/// Whether the kernel kills all of the container with its first process.
fn has_own_pids(record: &ContainerRecord) -> bool {
    let linux = record.config.linux.as_ref();
    let options = linux.and_then(|linux| linux.security_context.as_ref()?.namespace_options.as_ref());
    options.is_some_and(|options| options.pid == i32::from(NamespaceMode::Container))
}
