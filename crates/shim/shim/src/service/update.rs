//! Calls that change something about a container that is there: CloseIO, ResizePty, Pause, Resume, Update.

use corten_task_api::proto::containerd::events::{TaskPaused, TaskResumed};
use corten_task_api::proto::containerd::task::v3::{
    CloseIoRequest, PauseRequest, ResizePtyRequest, ResumeRequest, UpdateTaskRequest,
};
use corten_task_api::ttrpc::Status;

use crate::containers::Shim;
use crate::error;

pub(super) fn close_io(shim: &Shim, request: &CloseIoRequest) -> Result<(), Status> {
    let process = shim.task(&request.id)?.process(&request.exec_id)?;
    if let Some(io) = process.io().filter(|_| request.stdin) {
        io.close_stdin();
    }
    Ok(())
}

pub(super) fn resize_pty(shim: &Shim, request: &ResizePtyRequest) -> Result<(), Status> {
    let process = shim.task(&request.id)?.process(&request.exec_id)?;
    let size =
        |n: u32| u16::try_from(n).map_err(|_| error::invalid(format!("no terminal is {n} wide or high")));
    let (rows, columns) = (size(request.height)?, size(request.width)?);
    let resized = process.io().map_or(Ok(false), |io| io.resize(rows, columns));
    match resized.map_err(|e| error::io("resize the terminal", &e))? {
        true => Ok(()),
        false => Err(error::precondition(format!("container {}: the process has no terminal", request.id))),
    }
}

pub(super) async fn pause(shim: &Shim, request: PauseRequest) -> Result<(), Status> {
    let task = shim.task(&request.id)?;
    task.require_running("pause processes")?;
    task.runtime.pause(&task.id).await.map_err(|e| error::runtime(&e))?;
    task.paused.set(true);
    shim.events.publish("paused", "TaskPaused", &TaskPaused { container_id: request.id });
    Ok(())
}

pub(super) async fn resume(shim: &Shim, request: ResumeRequest) -> Result<(), Status> {
    let task = shim.task(&request.id)?;
    task.runtime.resume(&task.id).await.map_err(|e| error::runtime(&e))?;
    task.paused.set(false);
    shim.events.publish("resumed", "TaskResumed", &TaskResumed { container_id: request.id });
    Ok(())
}

pub(super) async fn update(shim: &Shim, request: UpdateTaskRequest) -> Result<(), Status> {
    let task = shim.task(&request.id)?;
    let resources = request.resources.ok_or_else(|| error::invalid("update without resources"))?;
    super::check_json(&format!("update container {}: the resources", task.id), &resources.value)?;
    if task.init.phase().exit().is_some() {
        return Err(error::precondition(format!("update container {}: it has ended", task.id)));
    }
    task.runtime.update(&task.id, &resources.value).await.map_err(|e| error::runtime(&e))
}
