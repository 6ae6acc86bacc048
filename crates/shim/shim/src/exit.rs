//! What happens when a process has ended, in this order, because others rely on it:
//!
//! 1. Whoever started it learns that it was started (events: start before exit).
//! 2. A container without a PID namespace of its own: what it leaves behind is killed.
//! 3. Execs in it have ended, and it is known how: a container's exit is the last of its exits.
//! 4. What it had written is in the log.
//! 5. How it ended is on the disk.
//! 6. Everybody else learns of it.

use std::rc::Rc;
use std::time::Duration;

use corten_runtime_client::{Exited, Watch};
use corten_state::Durability;
use corten_task_api::proto::containerd::events::{TaskExit, TaskOom, TaskStart};
use corten_task_api::time::to_timestamp;

use crate::bundle::{self, ExitRecord};
use crate::containers::Shim;
use crate::failpoint::Failpoint;
use crate::task::{Phase, Process, Task};

/// How long a runtime may take to say that it has started what has ended already, or execs to end after their container.
const PATIENCE: Duration = Duration::from_secs(10);
/// After these the kernel looks for a victim no longer.
const KILLING: [u64; 5] = [0, 10, 50, 200, 1000];

/// Waits for a container's init to end.
pub(crate) async fn watch_init(shim: Rc<Shim>, task: Rc<Task>, end: Watch) {
    let exited = end.await;
    task.init_ended.set(true);
    settled(&task.init).await;
    Failpoint::ExitSeen.see();
    if let Phase::Starting { pid } = task.init.phase() {
        announce(&shim, &task, pid);
    }
    let cgroup = task.cgroup.borrow().clone().filter(|_| !task.own_pid_namespace);
    if let Some(cgroup) = cgroup {
        cgroup.kill_all().await;
    }
    execs_ended(&task).await;
    drop(task.oom_watch.take().inspect(tokio::task::AbortHandle::abort));
    report_oom(&shim, &task);
    let oom_killed = task.oom_kills.get() > 0;
    if let Some(io) = task.init.io() {
        io.drain().await;
    }
    Failpoint::ExitDrained.see();
    let record = ExitRecord { exit_status: exited.status, exited_at_ns: exited.at_ns, oom_killed };
    if let Err(error) = bundle::write(&task.bundle, "exit.json", &record, Durability::Synced) {
        tracing::warn!(id = %task.id, error = ?error, "the exit status can't be kept");
    }
    Failpoint::ExitRecorded.see();
    let pid = task.init.phase().pid();
    stop(&task.init, record);
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
        io.drain().await;
    }
    let pid = process.phase().pid();
    stop(&process, ExitRecord { exit_status: exited.status, exited_at_ns: exited.at_ns, oom_killed: false });
    shim.events.publish("exit", "TaskExit", &event(&task, &exec_id, pid, exited));
}

/// Publishes that a container has started, once.
pub(crate) fn announce(shim: &Shim, task: &Task, pid: u32) {
    if !task.init.announced.replace(true) {
        shim.events.publish("start", "TaskStart", &TaskStart { container_id: task.id.clone(), pid });
    }
}

/// Publishes when the kernel kills in a container's cgroup for want of memory.
pub(crate) fn watch_oom(shim: &Rc<Shim>, task: &Rc<Task>) {
    let watch = task.cgroup.borrow().as_ref().map(crate::cgroup::Cgroup::watch_oom);
    let mut watch = match watch {
        None => return,
        Some(Ok(watch)) => watch,
        Some(Err(error)) => {
            tracing::warn!(id = %task.id, %error, "memory can't be watched: kills are reported when it ends");
            return;
        }
    };
    let (shim, kept) = (Rc::clone(shim), Rc::downgrade(task));
    let watching = tokio::task::spawn_local(async move {
        while watch.changed().await.is_ok() {
            for pause in KILLING {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let Some(task) = kept.upgrade() else { return };
                if report_oom(&shim, &task) {
                    break;
                }
            }
        }
    });
    *task.oom_watch.borrow_mut() = Some(watching.abort_handle());
}

/// Publishes that there have been kills since the last time, if there have.
fn report_oom(shim: &Shim, task: &Task) -> bool {
    let cgroup = task.cgroup.borrow();
    let Some(cgroup) = cgroup.as_ref() else { return false };
    let kills = cgroup.oom_kills();
    if kills <= task.oom_kills.replace(kills.max(task.oom_kills.get())) {
        return false;
    }
    let limit =
        if cgroup.reached_own_limit() { "its own" } else { "one above it: the pod's or the machine's" };
    tracing::warn!(id = %task.id, kills, limit, "the kernel has killed for want of memory");
    shim.events.publish("oom", "TaskOOM", &TaskOom { container_id: task.id.clone() });
    true
}

async fn settled(process: &Process) {
    let settled =
        process.until(|phase| (!matches!(phase, Phase::Starting { .. } | Phase::Creating)).then_some(()));
    // A runtime that hangs must not hide that its container has ended.
    let _ = tokio::time::timeout(PATIENCE, settled).await;
}

/// Waits until no exec is left, or for a while: one that the kernel doesn't let go must not hide it either.
async fn execs_ended(task: &Task) {
    let execs: Vec<_> = task.execs.borrow().values().cloned().collect();
    let ended = async {
        for exec in execs {
            let over =
                |phase| (!matches!(phase, Phase::Starting { .. } | Phase::Running { .. })).then_some(());
            exec.until(over).await;
        }
    };
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        tracing::warn!(id = %task.id, "an exec outlives its container");
    }
}

fn stop(process: &Process, exit: ExitRecord) {
    let phase = process.phase();
    drop(process.pidfd.take());
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
