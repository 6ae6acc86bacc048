//! Kill. Both inits and execs are our children, whom we have pidfds of: the signal goes without the runtime, and to
//! nobody else.

use corten_runtime_client::Kind;
use corten_task_api::proto::containerd::task::v3::KillRequest;
use corten_task_api::ttrpc::Status;
use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::containers::Shim;
use crate::error;
use crate::failpoint::Failpoint;
use crate::task::{Phase, Task};

const SIGKILL: u32 = 9;

pub(super) async fn kill(shim: &Shim, request: KillRequest) -> Result<(), Status> {
    let task = shim.task(&request.id)?;
    let process = task.process(&request.exec_id)?;
    let whom = match request.exec_id.as_str() {
        "" => format!("container {}", request.id),
        exec_id => format!("exec {exec_id} of container {}", request.id),
    };
    let finished = || error::not_found(format!("kill {whom}: process already finished"));
    match process.phase() {
        Phase::Stopped { .. } => return Err(finished()),
        phase if phase.pid() == 0 => {
            return Err(error::precondition(format!("kill {whom}: it is {}", phase.name())));
        }
        _ => {}
    }
    Failpoint::KillFound.pass()?;
    let init = request.exec_id.is_empty();
    // All of a PID namespace die with its init.
    if init && request.all && !(task.own_pid_namespace && request.signal == SIGKILL) {
        return task.runtime.kill(&task.id, request.signal, true).await.map_err(|e| error::runtime(&e));
    }
    match process.signal(request.signal) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Err(finished()),
        Err(errno) => {
            return Err(error::io(format!("send signal {} to {whom}", request.signal), &errno.into()));
        }
    }
    Failpoint::KillSent.pass()?;
    // Where cgroups are of version 1, the frozen don't die, whoever has frozen them.
    let frozen = || task.cgroup.borrow().as_ref().is_some_and(Cgroup::is_frozen);
    if request.signal == SIGKILL && (task.paused.get() || frozen()) {
        thaw_killed(&task).await?;
    }
    Ok(())
}

/// Thaws a container whose init has been sent SIGKILL. Where cgroups are of version 2, the frozen die of that at once:
/// then there is nothing left to thaw.
pub(super) async fn thaw_killed(task: &Task) -> Result<(), Status> {
    match task.runtime.resume(&task.id).await {
        Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::NotRunning | Kind::WrongState) => {
            Err(error::runtime(&error))
        }
        Ok(()) | Err(_) => {
            task.paused.set(false);
            Ok(())
        }
    }
}
