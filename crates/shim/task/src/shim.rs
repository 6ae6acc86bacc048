//! A connection to a shim, and what can be asked of it.

use std::path::PathBuf;
use std::time::Duration;

use corten_task_api::proto::cgroups;
use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::proto::containerd::types;
use corten_task_api::proto::containerd::v1::types::Status as WireStatus;
use corten_task_api::proto::corten::shim::v1 as corten;
use corten_task_api::services::{CORTEN, TASK, any};
use corten_task_api::time::from_timestamp;
use corten_task_api::ttrpc::{Client, Closed, Code, Status};
use prost::Message;

use crate::{Error, Result, ShimConfig};

/// How long an answer may take that needs no work beyond a runtime call.
///
/// Longer than any healthy call, shorter than a kubelet's patience (two minutes): an operation that hangs has a name and an end.
const PATIENCE: Duration = Duration::from_secs(100);

/// A shim. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Shim {
    id: String,
    client: Client,
    runtime_binary: PathBuf,
    runtime_root: PathBuf,
}

/// A mount that makes up a root file system, as a snapshotter gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// The file system type, or `bind`.
    pub fs_type: String,
    /// The source.
    pub source: String,
    /// Below the root file system; empty for the root itself.
    pub target: String,
    /// Options as mount(8) takes them.
    pub options: Vec<String>,
}

/// A container to create.
#[derive(Debug, Clone, Default)]
pub struct CreateTask {
    /// The container.
    pub id: String,
    /// Its bundle; the root file system is mounted on `rootfs` in it.
    pub bundle: PathBuf,
    /// What the root file system is made of.
    pub rootfs: Vec<Mount>,
    /// Empty, or a fifo.
    pub stdin: String,
    /// Empty, a fifo, `file:///path` or `cri:///path?max-line=N`.
    pub stdout: String,
    /// As `stdout`.
    pub stderr: String,
    /// Give the container a terminal.
    pub terminal: bool,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// The exit code; 128 + n after signal n.
    pub status: u32,
    /// Nanoseconds since 1970.
    pub exited_at_ns: i64,
    /// Whether the kernel's OOM killer hit the container's cgroup.
    pub oom_killed: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
    /// The shim can't tell.
    Unknown,
}

/// A container that a shim holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The container.
    pub id: String,
    /// Its init, 0 when it has ended.
    pub pid: u32,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// Nanoseconds since 1970, 0 if it hasn't started.
    pub started_at_ns: i64,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
}

/// What a command in a container did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// 128 + n after signal n.
    pub exit_code: u32,
    /// What it wrote, as far as it was kept.
    pub stdout: Vec<u8>,
    /// What it wrote, as far as it was kept.
    pub stderr: Vec<u8>,
    /// It was killed because its time was over.
    pub timed_out: bool,
}

/// Resource usage, as the machine's cgroup layout gives it.
#[derive(Debug, Clone)]
pub enum Stats {
    /// From cgroup v1 hierarchies.
    V1(Box<cgroups::v1::Metrics>),
    /// From the unified hierarchy.
    V2(Box<cgroups::v2::Metrics>),
}

impl Shim {
    pub(crate) fn new(id: &str, client: Client, config: &ShimConfig) -> Self {
        Self {
            id: id.to_owned(),
            client,
            runtime_binary: config.runtime_binary.clone(),
            runtime_root: config.runtime_root.clone(),
        }
    }

    /// The sandbox it serves.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Resolves when the shim has died (or has dropped the connection, which it never does by itself).
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.client.closed()
    }

    /// Mounts the root file system, sets up stdio and creates the container. Returns init's pid.
    ///
    /// # Errors
    /// AlreadyExists for a second one of the same id; what the runtime says.
    pub async fn create(&self, task: CreateTask) -> Result<u32> {
        let options = Options {
            binary_name: self.runtime_binary.display().to_string(),
            root: self.runtime_root.display().to_string(),
            ..Options::default()
        };
        let mount = |m: Mount| types::Mount {
            r#type: m.fs_type,
            source: m.source,
            target: m.target,
            options: m.options,
        };
        let request = api::CreateTaskRequest {
            id: task.id.clone(),
            bundle: task.bundle.display().to_string(),
            rootfs: task.rootfs.into_iter().map(mount).collect(),
            terminal: task.terminal,
            stdin: task.stdin,
            stdout: task.stdout,
            stderr: task.stderr,
            options: Some(any("containerd.runc.v1.Options", &options)),
            ..api::CreateTaskRequest::default()
        };
        let answer: api::CreateTaskResponse =
            self.task("create", &task.id, "Create", &request, Some(PATIENCE)).await?;
        Ok(answer.pid)
    }

    /// Starts the container's program. Returns init's pid.
    ///
    /// # Errors
    /// What the runtime says: the program doesn't exist, a hook failed.
    pub async fn start(&self, id: &str) -> Result<u32> {
        let request = api::StartRequest { id: id.to_owned(), exec_id: String::new() };
        let answer: api::StartResponse = self.task("start", id, "Start", &request, Some(PATIENCE)).await?;
        Ok(answer.pid)
    }

    /// Sends a signal to the container's init (or to all of its processes), or to an exec'ed process.
    ///
    /// # Errors
    /// NotFound when the process is gone.
    pub async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let request = api::KillRequest { id: id.to_owned(), exec_id: exec_id.to_owned(), signal, all };
        self.task::<()>("signal", id, "Kill", &request, Some(PATIENCE)).await
    }

    /// Waits until the container has ended, however long that takes; answers at once when it has.
    ///
    /// # Errors
    /// NotFound for an unknown container; Unavailable when the shim dies.
    pub async fn wait(&self, id: &str) -> Result<Exit> {
        let request = api::WaitRequest { id: id.to_owned(), exec_id: String::new() };
        let answer: api::WaitResponse = self.task("wait for", id, "Wait", &request, None).await?;
        let exit = Exit {
            status: answer.exit_status,
            exited_at_ns: from_timestamp(answer.exited_at.as_ref()),
            oom_killed: false,
        };
        // containerd's answer has no place for the OOM killer; ours has. A container that was deleted meanwhile is in no list.
        let listed = self.list().await?.into_iter().find(|task| task.id == id).and_then(|task| task.exit);
        Ok(listed.unwrap_or(exit))
    }

    /// Deletes a container that has ended (or was never started): runtime state, cgroup, root file system mount.
    ///
    /// # Errors
    /// FailedPrecondition while it runs; NotFound for an unknown one.
    pub async fn delete(&self, id: &str) -> Result<Exit> {
        let request = api::DeleteRequest { id: id.to_owned(), exec_id: String::new() };
        let answer: api::DeleteResponse = self.task("delete", id, "Delete", &request, Some(PATIENCE)).await?;
        let exited_at_ns = from_timestamp(answer.exited_at.as_ref());
        Ok(Exit { status: answer.exit_status, exited_at_ns, oom_killed: false })
    }

    /// Where the container is in its life, and its pid.
    ///
    /// # Errors
    /// NotFound for an unknown one.
    pub async fn state(&self, id: &str) -> Result<(TaskStatus, u32)> {
        let request = api::StateRequest { id: id.to_owned(), exec_id: String::new() };
        let answer: api::StateResponse =
            self.task("tell the state of", id, "State", &request, Some(PATIENCE)).await?;
        Ok((status(answer.status), answer.pid))
    }

    /// The pids of the container, in the host's PID namespace.
    ///
    /// # Errors
    /// NotFound for an unknown one.
    pub async fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let request = api::PidsRequest { id: id.to_owned() };
        let answer: api::PidsResponse =
            self.task("list the processes of", id, "Pids", &request, Some(PATIENCE)).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    /// Resource usage.
    ///
    /// # Errors
    /// NotFound for an unknown container.
    pub async fn stats(&self, id: &str) -> Result<Stats> {
        let request = api::StatsRequest { id: id.to_owned() };
        let answer: api::StatsResponse = self.task("measure", id, "Stats", &request, Some(PATIENCE)).await?;
        decode_stats(answer.stats).map_err(|source| Error::Call {
            operation: "measure",
            id: id.to_owned(),
            source,
        })
    }

    /// Changes limits; `resources` is runtime-spec's `linux.resources` as JSON. What it doesn't name stays.
    ///
    /// # Errors
    /// What the runtime says; the old limits are then in force.
    pub async fn update(&self, id: &str, resources: Vec<u8>) -> Result<()> {
        let type_url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned();
        let request = api::UpdateTaskRequest {
            id: id.to_owned(),
            resources: Some(prost_types::Any { type_url, value: resources }),
            ..api::UpdateTaskRequest::default()
        };
        self.task::<()>("update", id, "Update", &request, Some(PATIENCE)).await
    }

    /// Runs a command and waits for it: one round trip. `process` is runtime-spec's `process` as JSON; no `timeout` means for ever.
    ///
    /// # Errors
    /// NotFound for an unknown container, FailedPrecondition for one that doesn't run; what the runtime says. That the
    /// command fails or is killed is no error.
    pub async fn exec_sync(
        &self,
        id: &str,
        process: Vec<u8>,
        timeout: Option<Duration>,
        max_output: u64,
    ) -> Result<ExecOutput> {
        let timeout_ms = timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1));
        let request =
            corten::ExecSyncRequest { id: id.to_owned(), process_json: process, timeout_ms, max_output };
        // The shim keeps the time; ours only ends a shim that hangs.
        let patience = timeout.map(|timeout| timeout.saturating_add(PATIENCE));
        let answer: corten::ExecSyncResponse =
            self.corten("exec in", id, "ExecSync", &request, patience).await?;
        Ok(ExecOutput {
            exit_code: answer.exit_code,
            stdout: answer.stdout,
            stderr: answer.stderr,
            timed_out: answer.timed_out,
        })
    }

    /// Opens the container's log anew at its path.
    ///
    /// # Errors
    /// NotFound for an unknown container; why the file can't be opened (the old one then stays in use).
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = corten::ReopenLogRequest { id: id.to_owned() };
        self.corten::<()>("reopen the log of", id, "ReopenLog", &request, Some(PATIENCE)).await
    }

    /// All containers of the pod.
    ///
    /// # Errors
    /// Unavailable when the shim is dead.
    pub async fn list(&self) -> Result<Vec<Task>> {
        Ok(self.list_within(PATIENCE).await?.tasks.into_iter().map(task).collect())
    }

    /// The shim's pid.
    ///
    /// # Errors
    /// Unavailable when the shim is dead.
    pub async fn pid(&self) -> Result<u32> {
        Ok(self.list_within(PATIENCE).await?.shim_pid)
    }

    pub(crate) async fn ping(&self, patience: Duration) -> Result<()> {
        self.list_within(patience).await.map(drop)
    }

    async fn list_within(&self, patience: Duration) -> Result<corten::ListResponse> {
        self.corten("list the tasks of", &self.id, "List", &(), Some(patience)).await
    }

    /// Starts the process that holds the pod's PID namespace (or finds it). Returns its pid and the namespace's path.
    ///
    /// # Errors
    /// What cloning said.
    pub async fn create_pid_namespace(&self) -> Result<(u32, PathBuf)> {
        let answer: corten::CreatePidNamespaceResponse = self
            .corten("create a PID namespace for", &self.id, "CreatePidNamespace", &(), Some(PATIENCE))
            .await?;
        Ok((answer.pid, answer.ns_path.into()))
    }

    /// Ends the shim and what it holds for the pod. With containers left it stays, as containerd expects it to: delete
    /// them first.
    ///
    /// # Errors
    /// What went wrong in the shim. That it is gone already is no error.
    pub async fn shutdown(&self) -> Result<()> {
        let request = api::ShutdownRequest { id: self.id.clone(), now: false };
        match self.task::<()>("shut down for", &self.id, "Shutdown", &request, Some(PATIENCE)).await {
            Err(error) if error.code() == Code::Unavailable => Ok(()),
            result => result,
        }
    }

    async fn task<A: Message + Default>(
        &self,
        operation: &'static str,
        id: &str,
        method: &str,
        request: &impl Message,
        patience: Option<Duration>,
    ) -> Result<A> {
        let answer = self.client.call(TASK[1], method, request, patience).await;
        answer.map_err(|source| Error::Call { operation, id: id.to_owned(), source })
    }

    async fn corten<A: Message + Default>(
        &self,
        operation: &'static str,
        id: &str,
        method: &str,
        request: &impl Message,
        patience: Option<Duration>,
    ) -> Result<A> {
        let answer = self.client.call(CORTEN, method, request, patience).await;
        answer.map_err(|source| Error::Call { operation, id: id.to_owned(), source })
    }
}

fn status(wire: i32) -> TaskStatus {
    match WireStatus::try_from(wire) {
        Ok(WireStatus::Created) => TaskStatus::Created,
        Ok(WireStatus::Running) => TaskStatus::Running,
        Ok(WireStatus::Stopped) => TaskStatus::Stopped,
        Ok(WireStatus::Paused | WireStatus::Pausing) => TaskStatus::Paused,
        _ => TaskStatus::Unknown,
    }
}

fn task(wire: corten::Task) -> Task {
    let exit =
        Exit { status: wire.exit_status, exited_at_ns: wire.exited_at_ns, oom_killed: wire.oom_killed };
    let status = status(wire.status);
    Task {
        id: wire.id,
        pid: wire.pid,
        status,
        started_at_ns: wire.started_at_ns,
        exit: (status == TaskStatus::Stopped).then_some(exit),
    }
}

fn decode_stats(stats: Option<prost_types::Any>) -> Result<Stats, Status> {
    let wrong = |what: String| Status::new(Code::Internal, what);
    let any = stats.ok_or_else(|| wrong("the answer holds no metrics".to_owned()))?;
    let bytes = any.value.as_slice();
    // The type's name may have a host before it.
    match any.type_url.rsplit('/').next().unwrap_or_default() {
        "io.containerd.cgroups.v1.Metrics" => {
            cgroups::v1::Metrics::decode(bytes).map(|m| Stats::V1(Box::new(m)))
        }
        "io.containerd.cgroups.v2.Metrics" => {
            cgroups::v2::Metrics::decode(bytes).map(|m| Stats::V2(Box::new(m)))
        }
        other => return Err(wrong(format!("metrics of the unknown type {other:?}"))),
    }
    .map_err(|error| wrong(format!("metrics that can't be decoded: {error}")))
}
