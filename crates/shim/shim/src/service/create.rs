//! Create: mounts the root file system, opens the streams, has the runtime create the container.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use corten_runtime_client::{Kind, Patience, Restore, Runtime, Started};
use corten_state::Durability;
use corten_task_api::proto::containerd::events::{TaskCreate, TaskIo};
use corten_task_api::proto::containerd::task::v3::{CreateTaskRequest, CreateTaskResponse};
use corten_task_api::ttrpc::{Code, Status};

use super::check_id;
use crate::bundle::{self, Config, RuntimeRecord};
use crate::cgroup::Cgroup;
use crate::containers::Shim;
use crate::failpoint::Failpoint;
use crate::io::{ProcessIo, Stdio, Surroundings};
use crate::task::{Phase, Process, Task, TaskOptions};
use crate::{error, exit, mounts, options};

pub(super) async fn create(
    shim: &Rc<Shim>,
    request: CreateTaskRequest,
) -> Result<CreateTaskResponse, Status> {
    check_id("container id", &request.id)?;
    shim.check_stays("create container", &request.id)?;
    let task = new_task(shim, &request)?;
    if shim.tasks.borrow().contains_key(&task.id) {
        return Err(Status::new(Code::AlreadyExists, format!("container {} exists", task.id)));
    }
    // From here on the id is taken: nobody else creates it while we wait for the runtime.
    shim.tasks.borrow_mut().insert(task.id.clone(), Rc::clone(&task));
    task.init.set(Phase::Creating);
    match create_container(shim, &task, &request).await {
        Ok(pid) => {
            publish(shim, &request, pid);
            Ok(CreateTaskResponse { pid })
        }
        Err(error) => {
            shim.tasks.borrow_mut().remove(&task.id);
            task.forget();
            Err(error)
        }
    }
}

fn new_task(shim: &Shim, request: &CreateTaskRequest) -> Result<Rc<Task>, Status> {
    let bundle = PathBuf::from(&request.bundle);
    let config = Config::load(&bundle)
        .map_err(|e| error::io(format!("load {}", bundle.join("config.json").display()), &e))?;
    let stdio = Stdio {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let (runtime, options) = runtime(shim, request)?;
    Ok(Rc::new(Task {
        id: request.id.clone(),
        runtime,
        options,
        own_pid_namespace: config.own_pid_namespace(),
        bundle,
        init: Process::new(stdio, Vec::new()),
        execs: RefCell::default(),
        cgroup: RefCell::default(),
        paused: Cell::new(false),
        deleting: Cell::new(false),
        init_ended: Cell::new(false),
        oom_kills: Cell::new(0),
        oom_watch: RefCell::default(),
        restore: RefCell::default(),
    }))
}

fn runtime(shim: &Shim, request: &CreateTaskRequest) -> Result<(Runtime, TaskOptions), Status> {
    let options = options::decode(request.options.as_ref())?;
    let given = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
    let runtime = Runtime {
        binary: given(options.binary_name).unwrap_or_else(|| shim.runtime_binary.clone()),
        root: Some(given(options.root).unwrap_or_else(|| shim.runtime_root.clone())),
        systemd_cgroup: options.systemd_cgroup,
        no_pivot: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        patience: Patience::default(),
        reaper: shim.reaper.clone(),
    };
    let options = TaskOptions {
        io_owner: (options.io_uid, options.io_gid),
        criu_image_path: options.criu_image_path,
        criu_work_path: options.criu_work_path,
    };
    Ok((runtime, options))
}

async fn create_container(
    shim: &Rc<Shim>,
    task: &Rc<Task>,
    request: &CreateTaskRequest,
) -> Result<u32, Status> {
    Failpoint::CreateTaken.pass()?;
    let record = RuntimeRecord {
        binary: task.runtime.binary.to_string_lossy().into_owned(),
        root: task.runtime.root.as_ref().map(|root| root.to_string_lossy().into_owned()),
        systemd_cgroup: task.runtime.systemd_cgroup,
    };
    // Before anything exists that would have to be deleted with it.
    bundle::write(&task.bundle, "runtime.json", &record, Durability::Volatile)
        .map_err(|e| Status::from_error(Code::Internal, &e))?;
    let _ = std::fs::remove_file(task.bundle.join("exit.json")); // an earlier attempt's
    // What follows is taken back when it fails.
    let mounted = match Failpoint::CreateNoted.pass() {
        Ok(()) => mounts::mount_aside(request.rootfs.clone(), task.rootfs()).await,
        failed => failed,
    };
    if let Err(error) = mounted {
        return Err(undo(task, error, true).await);
    }
    match make(shim, task, request).await {
        Ok(pid) => Ok(pid),
        Err((error, nothing_of_ours)) => Err(undo(task, error, nothing_of_ours).await),
    }
}

/// The flag with the error says that the container isn't this call's.
async fn make(shim: &Rc<Shim>, task: &Rc<Task>, request: &CreateTaskRequest) -> Result<u32, (Status, bool)> {
    let ours = |status| (status, false);
    Failpoint::CreateMounted.pass().map_err(|e| (e, true))?;
    let surroundings = Surroundings::of(shim, task, &task.id);
    let (io, for_runtime) = ProcessIo::open(&task.init.stdio, &surroundings).await.map_err(|e| (e, true))?;
    Failpoint::CreateOpened.pass().map_err(|e| (e, true))?;
    if !request.checkpoint.is_empty() {
        // A restored container runs at once, so that is start's. There is no process until then.
        let work_path = super::checkpoint::work_path(task);
        let restore = Restore { image_path: request.checkpoint.clone().into(), work_path };
        *task.restore.borrow_mut() = Some((restore, io, for_runtime));
        task.init.set(Phase::Created { pid: 0 });
        return Ok(0);
    }
    let started = task
        .runtime
        .create(&task.id, &task.bundle, for_runtime)
        .await
        .map_err(|e| (error::runtime(&e), e.kind() == Kind::Exists))?;
    let pid = started.pid;
    Failpoint::CreateCreated.pass().map_err(ours)?;
    adopt(shim, task, started, io).await.map_err(ours)?;
    Failpoint::CreateWatched.pass().map_err(ours)?;
    Ok(pid)
}

/// Takes over a container's init that the runtime has made.
pub(super) async fn adopt(
    shim: &Rc<Shim>,
    task: &Rc<Task>,
    started: Started,
    io: ProcessIo,
) -> Result<(), Status> {
    *task.cgroup.borrow_mut() = Cgroup::of(started.pid);
    // From now on: its program may run out of memory at once.
    exit::watch_oom(shim, task);
    io.started().await?;
    *task.init.io.borrow_mut() = Some(Rc::new(io));
    *task.init.pidfd.borrow_mut() = started.pidfd;
    if task.init.phase() == Phase::Creating {
        task.init.set(Phase::Created { pid: started.pid });
    }
    tokio::task::spawn_local(exit::watch_init(Rc::clone(shim), Rc::clone(task), started.exit));
    Ok(())
}

/// Takes back what a failed create may have left; adds to the error what couldn't be.
async fn undo(task: &Task, error: Status, nothing_of_ours: bool) -> Status {
    let mut failed = Vec::new();
    drop(task.oom_watch.take().inspect(tokio::task::AbortHandle::abort));
    if !nothing_of_ours
        && let Err(e) = task.runtime.delete(&task.id, true).await
        && e.kind() != Kind::NotFound
    {
        failed.push(Status::from_error(Code::Internal, &e).message);
    }
    if let Err(e) = mounts::unmount_aside(task.rootfs()).await {
        failed.push(e.message);
    }
    for file in ["runtime.json", "init.pid"] {
        let _ = std::fs::remove_file(task.bundle.join(file)); // the bundle's owner removes all of it anyway
    }
    match failed.as_slice() {
        [] => error,
        _ => Status::new(
            error.code,
            format!("{}; taking it back failed too: {}", error.message, failed.join("; ")),
        ),
    }
}

fn publish(shim: &Shim, request: &CreateTaskRequest, pid: u32) {
    let event = TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: Some(TaskIo {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        }),
        checkpoint: request.checkpoint.clone(),
        pid,
    };
    shim.events.publish("create", "TaskCreate", &event);
}
