//! Exec: remembers another process for a container; Start runs it.

use corten_task_api::proto::containerd::events::TaskExecAdded;
use corten_task_api::proto::containerd::task::v3::ExecProcessRequest;
use corten_task_api::ttrpc::{Code, Status};

use super::check_id;
use crate::containers::Shim;
use crate::error;
use crate::failpoint::Failpoint;
use crate::io::Stdio;
use crate::task::Process;

pub(super) fn exec(shim: &Shim, request: ExecProcessRequest) -> Result<(), Status> {
    check_id("exec id", &request.exec_id)?;
    let task = shim.task(&request.id)?;
    task.require_running("exec")?;
    let spec = request.spec.ok_or_else(|| error::invalid("exec without a process"))?;
    super::check_json(
        &format!("exec {} in container {}: the process", request.exec_id, task.id),
        &spec.value,
    )?;
    let stdio = Stdio {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    let mut execs = task.execs.borrow_mut();
    if execs.contains_key(&request.exec_id) {
        let what = format!("exec {} exists in container {}", request.exec_id, task.id);
        return Err(Status::new(Code::AlreadyExists, what));
    }
    Failpoint::ExecAdded.pass()?;
    execs.insert(request.exec_id.clone(), Process::new(stdio, spec.value));
    let event = TaskExecAdded { container_id: task.id.clone(), exec_id: request.exec_id };
    shim.events.publish("exec-added", "TaskExecAdded", &event);
    Ok(())
}
