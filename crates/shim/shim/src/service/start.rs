//! Start: lets a created container run its program, or runs an exec.

use std::path::PathBuf;
use std::rc::Rc;

use corten_runtime_client::{Io, Kind, Restore};
use corten_task_api::proto::containerd::events::TaskExecStarted;
use corten_task_api::proto::containerd::task::v3::{StartRequest, StartResponse};
use corten_task_api::time::now_ns;
use corten_task_api::ttrpc::Status;

use super::create::adopt;
use crate::containers::Shim;
use crate::failpoint::Failpoint;
use crate::io::{ProcessIo, Surroundings};
use crate::task::{Phase, Process, Task};
use crate::{error, exit, tree};

pub(super) async fn start(shim: &Rc<Shim>, request: StartRequest) -> Result<StartResponse, Status> {
    let task = shim.task(&request.id)?;
    let process = task.process(&request.exec_id)?;
    let pid = match request.exec_id.as_str() {
        "" => start_init(shim, &task).await?,
        exec_id => start_exec(shim, &task, exec_id, &process).await?,
    };
    Ok(StartResponse { pid })
}

async fn start_init(shim: &Rc<Shim>, task: &Rc<Task>) -> Result<u32, Status> {
    let Phase::Created { pid } = task.init.phase() else {
        let phase = task.init.phase().name();
        return Err(error::precondition(format!("start container {}: it is {phase}", task.id)));
    };
    task.init.set(Phase::Starting { pid });
    let restore = task.restore.take();
    let started = match restore {
        None => run_start(task).await.map(|()| pid),
        Some((restore, io, for_runtime)) => run_restore(shim, task, restore, io, for_runtime).await,
    };
    // If it has ended and nobody waited any longer for us to get here, Stopped stays.
    let starting = matches!(task.init.phase(), Phase::Starting { .. });
    match started {
        Ok(pid) => {
            exit::announce(shim, task, pid);
            if starting {
                task.init.set(Phase::Running { pid, started_at_ns: now_ns() });
            }
            Ok(pid)
        }
        Err(error) if pid == 0 => Err(take_back_restore(task, error).await),
        Err(error) => {
            // A runtime that died on the way may have let it go already.
            let runs = task.runtime.state(&task.id).await.is_ok_and(|state| state.status == "running");
            if matches!(task.init.phase(), Phase::Starting { .. }) {
                task.init.set(match runs {
                    true => Phase::Running { pid, started_at_ns: now_ns() },
                    false => Phase::Created { pid },
                });
            }
            Err(error)
        }
    }
}

async fn run_start(task: &Task) -> Result<(), Status> {
    Failpoint::StartStarting.pass()?;
    task.runtime.start(&task.id).await.map_err(|e| error::runtime(&e))?;
    Failpoint::StartStarted.pass()
}

/// Nobody watches what a failed restore has made: it goes, or nobody could end it.
async fn take_back_restore(task: &Task, error: Status) -> Status {
    drop(task.oom_watch.take().inspect(tokio::task::AbortHandle::abort));
    let deleted = task.runtime.delete(&task.id, true).await;
    drop(task.cgroup.take());
    task.init.set(Phase::Created { pid: 0 });
    match deleted {
        Err(e) if e.kind() != Kind::NotFound => {
            let undo = Status::from_error(error.code, &e).message;
            Status::new(error.code, format!("{}; taking it back failed too: {undo}", error.message))
        }
        _ => error,
    }
}

/// A failed one isn't tried again: its streams are gone. It can only be deleted.
async fn run_restore(
    shim: &Rc<Shim>,
    task: &Rc<Task>,
    restore: Restore,
    io: ProcessIo,
    for_runtime: Io,
) -> Result<u32, Status> {
    let started = task.runtime.restore(&task.id, &task.bundle, &restore, for_runtime).await;
    let started = started.map_err(|e| error::runtime(&e))?;
    let pid = started.pid;
    task.init.set(Phase::Starting { pid });
    adopt(shim, task, started, io).await?;
    Ok(pid)
}

async fn start_exec(
    shim: &Rc<Shim>,
    task: &Rc<Task>,
    exec_id: &str,
    process: &Rc<Process>,
) -> Result<u32, Status> {
    task.require_running("start an exec")?;
    if process.phase() != Phase::New {
        let phase = process.phase().name();
        return Err(error::precondition(format!("start exec {exec_id} of {}: it is {phase}", task.id)));
    }
    process.set(Phase::Starting { pid: 0 });
    match run_exec(shim, task, exec_id, process).await {
        Ok(pid) => {
            let event = TaskExecStarted { container_id: task.id.clone(), exec_id: exec_id.to_owned(), pid };
            shim.events.publish("exec-started", "TaskExecStarted", &event);
            process.set(Phase::Running { pid, started_at_ns: now_ns() });
            Ok(pid)
        }
        Err(error) => {
            process.set(Phase::New);
            Err(error)
        }
    }
}

async fn run_exec(
    shim: &Rc<Shim>,
    task: &Rc<Task>,
    exec_id: &str,
    process: &Rc<Process>,
) -> Result<u32, Status> {
    let surroundings = Surroundings::of(shim, task, exec_id);
    let (io, for_runtime) = ProcessIo::open(&process.stdio, &surroundings).await?;
    Failpoint::ExecOpened.pass()?;
    let pid_file = pid_file(task);
    let _hold = shim.reaper.hold();
    let launch =
        task.runtime.exec(&task.id, &process.spec, &pid_file, for_runtime).map_err(|e| error::runtime(&e))?;
    let failed = Failpoint::ExecLaunched.pass();
    let started = task.runtime.exec_started(launch, &pid_file).await.map_err(|e| error::runtime(&e))?;
    // Nobody would look after it.
    let unwanted = |_: &Status| tree::kill_tree(&[started.pid]);
    failed.and_then(|()| Failpoint::ExecStarted.pass()).inspect_err(unwanted)?;
    io.started().await.inspect_err(unwanted)?;
    Failpoint::ExecWatched.pass().inspect_err(unwanted)?;
    *process.io.borrow_mut() = Some(Rc::new(io));
    *process.pidfd.borrow_mut() = started.pidfd;
    let pid = started.pid;
    let watch = exit::watch_exec(
        Rc::clone(shim),
        Rc::clone(task),
        exec_id.to_owned(),
        Rc::clone(process),
        started.exit,
    );
    tokio::task::spawn_local(watch);
    Ok(pid)
}

/// A name that isn't taken, in the bundle.
pub(super) fn pid_file(task: &Task) -> PathBuf {
    thread_local!(static NEXT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    let number = NEXT.replace(NEXT.get() + 1);
    task.bundle.join(format!("exec-{number}.pid"))
}
