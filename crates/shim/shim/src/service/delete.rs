//! Delete: forgets a process that has ended; with a container's init, the container.

use std::rc::Rc;
use std::time::Duration;

use corten_runtime_client::Kind;
use corten_task_api::proto::containerd::events::TaskDelete;
use corten_task_api::proto::containerd::task::v3::{DeleteRequest, DeleteResponse};
use corten_task_api::time::to_timestamp;
use corten_task_api::ttrpc::Status;

use super::kill::thaw_killed;
use crate::cgroup::Cgroup;
use crate::containers::Shim;
use crate::failpoint::Failpoint;
use crate::task::{Phase, Process, Task};
use crate::{error, mounts};

/// How long a container that was never started may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

const SIGKILL: u32 = 9;

pub(super) async fn delete(shim: &Shim, request: DeleteRequest) -> Result<DeleteResponse, Status> {
    let task = shim.task(&request.id)?;
    if request.exec_id.is_empty() {
        return delete_task(shim, &task).await;
    }
    let process = task.process(&request.exec_id)?;
    if !matches!(process.phase(), Phase::New | Phase::Stopped { .. }) {
        let phase = process.phase().name();
        return Err(error::precondition(format!(
            "delete exec {} of {}: it is {phase}",
            request.exec_id, task.id
        )));
    }
    // Before there is anything to wait for: nobody may start it meanwhile, nor delete it once more.
    task.execs.borrow_mut().remove(&request.exec_id);
    process.forget();
    finish(&process).await;
    Ok(answer(shim, &task, &process, &request.exec_id))
}

pub(super) async fn delete_task(shim: &Shim, task: &Rc<Task>) -> Result<DeleteResponse, Status> {
    if task.deleting.replace(true) {
        return Err(error::precondition(format!("container {} is being deleted", task.id)));
    }
    if let Err(error) = delete_container(task).await {
        task.deleting.set(false);
        return Err(error);
    }
    // From here on it is forgotten, once: another call that came in between would forget a namesake.
    finish(&task.init).await;
    shim.tasks.borrow_mut().remove(&task.id);
    task.forget();
    let answer = answer(shim, task, &task.init, "");
    Failpoint::DeleteForgotten.see();
    drop(task.init.io.take());
    Ok(answer)
}

async fn delete_container(task: &Task) -> Result<(), Status> {
    Failpoint::DeleteBegun.pass()?;
    match task.init.phase() {
        Phase::Stopped { .. } => {}
        // To be restored, and never was.
        Phase::Created { pid: 0 } => drop(task.restore.take()),
        Phase::Created { pid } => {
            // Never started: nobody will miss it.
            let _ = task.init.signal(SIGKILL); // it may be ending
            if task.cgroup.borrow().as_ref().is_some_and(Cgroup::is_frozen) {
                thaw_killed(task).await?;
            }
            if tokio::time::timeout(PATIENCE, task.init.until(Phase::exit)).await.is_err() {
                let seconds = PATIENCE.as_secs();
                return Err(error::precondition(format!(
                    "delete container {}: its process {pid} hasn't ended {seconds} s after it was killed{}",
                    task.id,
                    why_it_runs(task)
                )));
            }
        }
        phase => {
            let what = format!("delete container {}: it is {}{}", task.id, phase.name(), why_it_runs(task));
            return Err(error::precondition(what));
        }
    }
    // Where a restore has failed there may be something, or nothing.
    let force = task.init.phase().pid() == 0;
    match task.runtime.delete(&task.id, force).await {
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error::runtime(&error)),
        Ok(()) => {}
    }
    Failpoint::DeleteDeleted.pass()?;
    mounts::unmount_aside(task.rootfs()).await?;
    Failpoint::DeleteUnmounted.pass()
}

/// What keeps its processes from dying, if something does: an operator wonders why it can't be deleted.
fn why_it_runs(task: &Task) -> String {
    let cgroup = task.cgroup.borrow();
    let pids = cgroup.as_ref().map_or_else(|| vec![task.init.phase().pid()], Cgroup::pids);
    let frozen = if cgroup.as_ref().is_some_and(Cgroup::is_frozen) { "; its cgroup is frozen" } else { "" };
    frozen.to_owned() + &corten_sys::stuck::why(&pids)
}

/// Lets the client have what is on its way to it.
async fn finish(process: &Process) {
    if let Some(io) = process.io() {
        io.finish().await;
    }
}

fn answer(shim: &Shim, task: &Task, process: &Process, exec_id: &str) -> DeleteResponse {
    let phase = process.phase();
    let exit = phase.exit();
    let (exit_status, exited_at) =
        exit.map_or((0, None), |exit| (exit.exit_status, to_timestamp(exit.exited_at_ns)));
    if exec_id.is_empty() {
        let event = TaskDelete {
            container_id: task.id.clone(),
            pid: phase.pid(),
            exit_status,
            exited_at,
            id: String::new(),
        };
        shim.events.publish("delete", "TaskDelete", &event);
    }
    DeleteResponse { pid: phase.pid(), exit_status, exited_at }
}
