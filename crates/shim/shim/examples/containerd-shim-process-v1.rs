//! A shim for another kind of workload: processes of the host instead of containers. A task is what a bundle's
//! config.json has as `process.args`. Bootstrap, socket, events, reaping and shutdown come from the library.

use std::{cell::RefCell, collections::HashMap, process::Command, process::ExitCode, rc::Rc};

use corten_shim::api::proto::containerd::{events, task::v3 as api};
use corten_shim::api::ttrpc::{Call, Code, Router, Status, respond};
use corten_shim::api::{services::TASK, time::to_timestamp};
use corten_shim::{Host, Workload};
use nix::{sys::signal::Signal, sys::signal::kill, unistd::Pid};
use tokio::sync::watch;

struct Processes;
struct Service {
    host: Host,
    tasks: RefCell<HashMap<String, Task>>,
}

#[derive(Clone)]
struct Task {
    arguments: Vec<String>,
    state: watch::Sender<(u32, u32, i64)>, // PID, exit status and time: 0 is not yet
}

impl Workload for Processes {
    type Service = Service;
    fn name(&self) -> &'static str {
        "containerd-shim-process-v1"
    }
    fn service(&self, host: Host) -> Rc<Service> {
        Rc::new(Service { host, tasks: RefCell::default() })
    }
}

impl Router for Service {
    async fn call(self: Rc<Self>, call: Call) -> Result<Vec<u8>, Status> {
        match call.method.as_str() {
            _ if !TASK.contains(&call.service.as_str()) => Err(call.unimplemented()),
            "Create" => respond(&call, async |q| self.create(q)).await,
            "Start" => respond(&call, async |q| self.start(q)).await,
            "Wait" => respond(&call, async |q| self.wait(q).await).await,
            "Kill" => respond(&call, async |q| self.kill(q)).await,
            "Shutdown" => respond(&call, async |()| self.shutdown()).await,
            _ => Err(call.unimplemented()),
        }
    }
}

impl Service {
    fn task(&self, id: &str) -> Result<Task, Status> {
        self.tasks.borrow().get(id).cloned().ok_or(Status::new(Code::NotFound, format!("no task {id}")))
    }
    fn create(&self, q: api::CreateTaskRequest) -> Result<api::CreateTaskResponse, Status> {
        let text = std::fs::read(format!("{}/config.json", q.bundle)).unwrap_or_default();
        let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let arguments = serde_json::from_value(config["process"]["args"].clone());
        let arguments = arguments.map_err(|e| Status::new(Code::InvalidArgument, e.to_string()))?;
        self.tasks.borrow_mut().insert(q.id.clone(), Task { arguments, state: watch::Sender::default() });
        let event = events::TaskCreate { container_id: q.id, ..Default::default() };
        self.host.events.publish("create", "TaskCreate", &event);
        Ok(api::CreateTaskResponse { pid: 0 })
    }
    fn start(&self, q: api::StartRequest) -> Result<api::StartResponse, Status> {
        let (id, task, host) = (q.id.clone(), self.task(&q.id)?, self.host.clone());
        let [program, rest @ ..] = &*task.arguments else {
            return Err(Status::new(Code::Unknown, "no args"));
        };
        let spawned = host.reaper.spawn(Command::new(program).args(rest));
        let (pid, end) = spawned.map_err(|e| Status::new(Code::Unknown, format!("{program}: {e}")))?;
        task.state.send_replace((pid, 0, 0));
        host.events.publish("start", "TaskStart", &events::TaskStart { container_id: q.id, pid });
        tokio::task::spawn_local(async move {
            let end = end.await;
            task.state.send_replace((pid, end.status, end.at_ns));
            let (container_id, exit_status, exited_at) = (id.clone(), end.status, to_timestamp(end.at_ns));
            let event = events::TaskExit { container_id, id, pid, exit_status, exited_at };
            host.events.publish("exit", "TaskExit", &event);
        });
        Ok(api::StartResponse { pid })
    }
    async fn wait(&self, q: api::WaitRequest) -> Result<api::WaitResponse, Status> {
        let mut state = self.task(&q.id)?.state.subscribe();
        let ended = state.wait_for(|state| state.2 != 0).await.map(|s| *s).unwrap_or_default();
        Ok(api::WaitResponse { exit_status: ended.1, exited_at: to_timestamp(ended.2) })
    }
    fn kill(&self, q: api::KillRequest) -> Result<(), Status> {
        let (pid, _, ended) = *self.task(&q.id)?.state.borrow();
        let signal = Signal::try_from(q.signal as i32).ok().filter(|_| pid > 0 && ended == 0);
        let sent = signal.map(|signal| kill(Pid::from_raw(pid as i32), signal));
        sent.and_then(Result::ok).ok_or(Status::new(Code::NotFound, "process already finished"))
    }
    fn shutdown(&self) -> Result<(), Status> {
        self.host.leave.notify_one();
        Ok(())
    }
}
fn main() -> ExitCode {
    corten_shim::main(&Processes)
}
