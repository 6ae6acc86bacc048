//! Create: mounts the root file system, opens the streams, has the runtime create the container.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use corten_runtime_client::{Kind, Runtime};
use corten_state::Durability;
use corten_task_api::proto::containerd::events::{TaskCreate, TaskIo};
use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::containerd::task::v3::{CreateTaskRequest, CreateTaskResponse};
use corten_task_api::ttrpc::{Code, Status};
use prost::Message;

use super::check_id;
use crate::bundle::{self, Config, RuntimeRecord};
use crate::cgroup::Cgroup;
use crate::failpoint::Failpoint;
use crate::io::{ProcessIo, Stdio};
use crate::serve::Shim;
use crate::task::{Phase, Process, Task};
use crate::{error, exit, mounts};

pub(super) async fn create(
    shim: &Rc<Shim>,
    request: CreateTaskRequest,
) -> Result<CreateTaskResponse, Status> {
    check_id("container id", &request.id)?;
    if !request.checkpoint.is_empty() {
        return Err(Status::new(Code::Unimplemented, "restore from a checkpoint"));
    }
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
    Ok(Rc::new(Task {
        id: request.id.clone(),
        runtime: runtime(shim, request)?,
        own_pid_namespace: config.own_pid_namespace(),
        bundle,
        init: Process::new(stdio, Vec::new()),
        execs: RefCell::default(),
        cgroup: RefCell::default(),
        paused: Cell::new(false),
        deleting: Cell::new(false),
    }))
}

fn runtime(shim: &Shim, request: &CreateTaskRequest) -> Result<Runtime, Status> {
    // Of another type they're for another shim: containerd passes what its configuration has.
    let any = request.options.as_ref().filter(|any| any.type_url.ends_with("containerd.runc.v1.Options"));
    let options = any
        .map(|any| Options::decode(any.value.as_slice()))
        .transpose()
        .map_err(|e| error::invalid(format!("decode the options: {e}")))?
        .unwrap_or_default();
    let given = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
    Ok(Runtime {
        binary: given(options.binary_name).unwrap_or_else(|| shim.runtime_binary.clone()),
        root: given(options.root).or_else(|| shim.runtime_root.clone()),
        systemd_cgroup: options.systemd_cgroup,
        no_pivot: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        reaper: shim.reaper.clone(),
    })
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
    let mounted =
        Failpoint::CreateNoted.pass().and_then(|()| mounts::mount_all(&request.rootfs, &task.rootfs()));
    if let Err(error) = mounted {
        return Err(undo(task, error, true).await);
    }
    match run_runtime(shim, task).await {
        Ok(pid) => Ok(pid),
        Err((error, nothing_of_ours)) => Err(undo(task, error, nothing_of_ours).await),
    }
}

/// The flag with the error says that the container isn't this call's.
async fn run_runtime(shim: &Rc<Shim>, task: &Rc<Task>) -> Result<u32, (Status, bool)> {
    let ours = |status| (status, false);
    Failpoint::CreateMounted.pass().map_err(|e| (e, true))?;
    let (io, for_runtime) = ProcessIo::open(&task.init.stdio, &shim.socket_dir).map_err(|e| (e, true))?;
    Failpoint::CreateOpened.pass().map_err(|e| (e, true))?;
    let started = task
        .runtime
        .create(&task.id, &task.bundle, for_runtime)
        .await
        .map_err(|e| (error::runtime(&e), e.kind() == Kind::Exists))?;
    let pid = started.pid;
    Failpoint::CreateCreated.pass().map_err(ours)?;
    *task.cgroup.borrow_mut() = Cgroup::of(pid);
    io.started().await.map_err(ours)?;
    *task.init.io.borrow_mut() = Some(Rc::new(io));
    task.init.set(Phase::Created { pid });
    tokio::task::spawn_local(exit::watch_init(Rc::clone(shim), Rc::clone(task), started.exit));
    Failpoint::CreateWatched.pass().map_err(ours)?;
    Ok(pid)
}

/// Takes back what a failed create may have left; adds to the error what couldn't be.
async fn undo(task: &Task, error: Status, nothing_of_ours: bool) -> Status {
    let mut failed = Vec::new();
    if !nothing_of_ours
        && let Err(e) = task.runtime.delete(&task.id, true).await
        && e.kind() != Kind::NotFound
    {
        failed.push(Status::from_error(Code::Internal, &e).message);
    }
    if let Err(e) = mounts::unmount_all(&task.rootfs()) {
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
        checkpoint: String::new(),
        pid,
    };
    shim.events.publish("create", "TaskCreate", &event);
}
