//! What happens when a process has ended, in this order, because others rely on it:
//!
//! 1. Whoever started it learns that it was started (events: start before exit).
//! 2. A container without a PID namespace of its own: what it leaves behind is killed.
//! 3. What it had written is in the log.
//! 4. How it ended is on the disk.
//! 5. Everybody else learns of it.

use std::rc::Rc;
use std::time::Duration;

use corten_runtime_client::{Exited, Watch};
use corten_state::Durability;
use corten_task_api::proto::containerd::events::{TaskExit, TaskOom};
use corten_task_api::time::to_timestamp;

use crate::bundle::{self, ExitRecord};
use crate::failpoint::Failpoint;
use crate::serve::Shim;
use crate::task::{Phase, Process, Task};

/// How long a runtime may take to say that it has started what has ended already.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a container's init to end.
pub(crate) async fn watch_init(shim: Rc<Shim>, task: Rc<Task>, end: Watch) {
    let exited = end.await;
    settled(&task.init).await;
    Failpoint::ExitSeen.see();
    let oom_killed = {
        let cgroup = task.cgroup.borrow();
        if let Some(cgroup) = cgroup.as_ref().filter(|_| !task.own_pid_namespace) {
            cgroup.kill_all();
        }
        cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_kills() > 0)
    };
    if let Some(io) = task.init.io() {
        io.drain();
    }
    Failpoint::ExitDrained.see();
    let record = ExitRecord { exit_status: exited.status, exited_at_ns: exited.at_ns, oom_killed };
    if let Err(error) = bundle::write(&task.bundle, "exit.json", &record, Durability::Synced) {
        tracing::warn!(id = %task.id, error = ?error, "the exit status can't be kept");
    }
    Failpoint::ExitRecorded.see();
    let pid = task.init.phase().pid();
    stop(&task.init, record);
    if oom_killed {
        shim.events.publish("oom", "TaskOOM", &TaskOom { container_id: task.id.clone() });
    }
    shim.events.publish("exit", "TaskExit", &event(&task, &task.id, pid, exited));
    Failpoint::ExitTold.see();
}

/// Waits for an exec to end.
pub(crate) async fn watch_exec(
    shim: Rc<Shim>,
    task: Rc<Task>,
    exec_id: String,
    process: Rc<Process>,
    end: Watch,
) {
    let exited = end.await;
    settled(&process).await;
    if let Some(io) = process.io() {
        io.drain();
    }
    let pid = process.phase().pid();
    stop(&process, ExitRecord { exit_status: exited.status, exited_at_ns: exited.at_ns, oom_killed: false });
    shim.events.publish("exit", "TaskExit", &event(&task, &exec_id, pid, exited));
}

async fn settled(process: &Process) {
    let settled =
        process.until(|phase| (!matches!(phase, Phase::Starting { .. } | Phase::Creating)).then_some(()));
    // A runtime that hangs must not hide that its container has ended.
    let _ = tokio::time::timeout(PATIENCE, settled).await;
}

fn stop(process: &Process, exit: ExitRecord) {
    let phase = process.phase();
    process.set(Phase::Stopped { pid: phase.pid(), started_at_ns: phase.started_at_ns(), exit });
}

fn event(task: &Task, id: &str, pid: u32, exited: Exited) -> TaskExit {
    TaskExit {
        container_id: task.id.clone(),
        id: id.to_owned(),
        pid,
        exit_status: exited.status,
        exited_at: to_timestamp(exited.at_ns),
    }
}
