//! The small calls of Corten's own service: ReopenLog, List.

use corten_task_api::proto::corten::shim::v1::{ListResponse, ReopenLogRequest, Task as WireTask};
use corten_task_api::ttrpc::Status;

use crate::containers::Shim;
use crate::error;
use crate::task::{Phase, Task};

pub(super) async fn reopen_log(shim: &Shim, request: ReopenLogRequest) -> Result<(), Status> {
    let task = shim.task(&request.id)?;
    if let Some(io) = task.init.io()
        && io.reopen_log().await?
    {
        return Ok(());
    }
    Err(error::precondition(format!("container {}: the shim doesn't write its log", request.id)))
}

/// All tasks, but for those whose creation isn't done: the caller of that learns how it ends.
pub(super) fn list(shim: &Shim) -> ListResponse {
    let tasks = shim.tasks.borrow();
    let done = tasks.values().filter(|task| task.init.phase() != Phase::Creating);
    ListResponse { tasks: done.map(|task| wire(task)).collect(), shim_pid: std::process::id() }
}

fn wire(task: &Task) -> WireTask {
    let phase = task.init.phase();
    let exit = phase.exit();
    WireTask {
        id: task.id.clone(),
        bundle: task.bundle.to_string_lossy().into_owned(),
        pid: phase.pid(),
        status: task.init.wire_status(task.paused.get()).into(),
        exit_status: exit.map_or(0, |e| e.exit_status),
        started_at_ns: phase.started_at_ns(),
        exited_at_ns: exit.map_or(0, |e| e.exited_at_ns),
        oom_killed: exit.is_some_and(|e| e.oom_killed),
        log_bytes_dropped: task.init.io().map_or(0, |io| io.log_bytes_dropped()),
    }
}
