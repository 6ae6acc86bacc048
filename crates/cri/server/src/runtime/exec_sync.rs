//! ExecSync: runs a command in a container and returns what it wrote. Probes and lifecycle hooks come this way.

use std::sync::Arc;
use std::time::Duration;

use corten_cri_api::v1::{ExecSyncRequest, ExecSyncResponse};

use crate::records::ContainerPhase;
use crate::server::{Inner, shim_error};
use crate::{Error, Result, spec};

impl Inner {
    /// That the command fails is no error; that its time is over is one, by which the kubelet knows.
    pub(super) async fn exec_sync(self: Arc<Self>, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        if request.cmd.is_empty() {
            return Err(Error::invalid("no command"));
        }
        let container = self.container(&request.container_id)?;
        let record = container.record();
        if !matches!(record.phase, ContainerPhase::Running { .. }) {
            return Err(Error::Precondition(format!("container {} doesn't run", container.id)));
        }
        let shim = self.sandbox_of(&container)?.shim()?;
        let process = spec::exec_process(&record.process, &request.cmd).to_string().into_bytes();
        let seconds = u64::try_from(request.timeout).unwrap_or(0);
        let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
        let done = shim.exec_sync(&container.id, process, timeout, self.deps.config.max_exec_output).await;
        let done =
            done.map_err(shim_error(format!("run {:?} in container {}", request.cmd, container.id)))?;
        if done.timed_out {
            return Err(Error::Deadline(format!("command {:?} timed out after {seconds}s", request.cmd)));
        }
        Ok(ExecSyncResponse {
            stdout: done.stdout,
            stderr: done.stderr,
            exit_code: i32::try_from(done.exit_code).unwrap_or(i32::MAX),
        })
    }
}
