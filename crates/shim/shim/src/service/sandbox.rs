//! containerd's Sandbox service: a pod without a pause process. One shim has one sandbox.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use corten_task_api::proto::containerd::runtime::sandbox::v1 as api;
use corten_task_api::proto::containerd::types::{Metric, Platform};
use corten_task_api::time::{now_ns, to_timestamp};
use corten_task_api::ttrpc::{Call, Code, Status, respond};
use prost_types::Any;

use super::{check_id, delete};
use crate::cgroup::Cgroup;
use crate::containers::Shim;
use crate::error;
use crate::sandbox::{Holder, Plan, Sandbox, Stage};
use crate::task::{Phase, Task};

/// What runtime-spec's Spec is as a typeurl.
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// How long the killed may take to go.
const GRACE: Duration = Duration::from_secs(30);

pub(super) async fn call(shim: &Rc<Shim>, call: &Call) -> Result<Vec<u8>, Status> {
    match call.method.as_str() {
        "CreateSandbox" => respond(call, async |q| create(shim, &q)).await,
        "StartSandbox" => respond(call, |q| start(shim, q)).await,
        "Platform" => respond(call, async |q| platform(shim, &q)).await,
        "StopSandbox" => respond(call, |q| stop(shim, q)).await,
        "WaitSandbox" => respond(call, |q| wait(shim, q, call)).await,
        "SandboxStatus" => respond(call, async |q| status(shim, &q)).await,
        "PingSandbox" => respond(call, async |q| ping(shim, &q)).await,
        "ShutdownSandbox" => respond(call, |q| shutdown(shim, q)).await,
        "SandboxMetrics" => respond(call, async |q| metrics(shim, &q)).await,
        _ => Err(call.unimplemented()),
    }
}

fn find(shim: &Shim, id: &str) -> Result<Rc<Sandbox>, Status> {
    let sandbox = shim.sandbox.borrow().clone().filter(|sandbox| sandbox.id == id);
    sandbox.ok_or_else(|| error::not_found(format!("no sandbox {id}")))
}

fn create(shim: &Shim, request: &api::CreateSandboxRequest) -> Result<api::CreateSandboxResponse, Status> {
    check_id("sandbox id", &request.sandbox_id)?;
    shim.check_stays("create sandbox", &request.sandbox_id)?;
    if let Some(there) = &*shim.sandbox.borrow() {
        let what = format!("create sandbox {}: the shim has sandbox {}", request.sandbox_id, there.id);
        return Err(Status::new(Code::AlreadyExists, what));
    }
    let sandbox = Sandbox::new(request.sandbox_id.clone(), Plan::of(request)?);
    *shim.sandbox.borrow_mut() = Some(sandbox);
    Ok(api::CreateSandboxResponse {})
}

async fn start(
    shim: &Rc<Shim>,
    request: api::StartSandboxRequest,
) -> Result<api::StartSandboxResponse, Status> {
    let sandbox = find(shim, &request.sandbox_id)?;
    if !matches!(*sandbox.stage.borrow(), Stage::Created) {
        return Err(error::precondition(format!("start sandbox {}: it was started before", sandbox.id)));
    }
    sandbox.set(Stage::Starting);
    let hold = shim.reaper.hold();
    let started = Holder::start(sandbox.plan.clone()).await;
    if !matches!(*sandbox.stage.borrow(), Stage::Starting) {
        // What was started goes with its holder.
        return Err(error::precondition(format!("start sandbox {}: it was stopped meanwhile", sandbox.id)));
    }
    let holder = match started {
        Ok(holder) => holder,
        Err(e) => {
            sandbox.set(Stage::Created);
            return Err(error::io(format!("start sandbox {}", sandbox.id), &e));
        }
    };
    let (pid, created_at) = (holder.pid(), now_ns());
    sandbox.created_at_ns.set(created_at);
    if let Some(init) = holder.init() {
        let (end, kept) = (shim.reaper.watch(init), Rc::clone(&sandbox));
        tokio::task::spawn_local(async move {
            let exited = end.await;
            if !matches!(*kept.stage.borrow(), Stage::Running(_)) {
                return; // as it was told
            }
            kept.set(Stage::Stopped { exit_status: exited.status, exited_at_ns: exited.at_ns });
        });
    }
    drop(hold);
    sandbox.set(Stage::Running(holder));
    let spec = Any { type_url: SPEC.to_owned(), value: sandbox.plan.spec(pid).to_string().into_bytes() };
    Ok(api::StartSandboxResponse { pid, created_at: to_timestamp(created_at), spec: Some(spec) })
}

fn platform(shim: &Shim, request: &api::PlatformRequest) -> Result<api::PlatformResponse, Status> {
    find(shim, &request.sandbox_id)?;
    // As Go names them.
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        other => (other, ""),
    };
    let platform = Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        ..Platform::default()
    };
    Ok(api::PlatformResponse { platform: Some(platform) })
}

async fn stop(shim: &Rc<Shim>, request: api::StopSandboxRequest) -> Result<api::StopSandboxResponse, Status> {
    let sandbox = find(shim, &request.sandbox_id)?;
    stop_all(shim, &sandbox, Duration::from_secs(request.timeout_secs.into())).await?;
    Ok(api::StopSandboxResponse {})
}

/// Ends what runs in it, then the sandbox. Again is no error.
async fn stop_all(shim: &Shim, sandbox: &Sandbox, timeout: Duration) -> Result<(), Status> {
    let tasks: Vec<_> = shim.tasks.borrow().values().cloned().collect();
    if !timeout.is_zero() {
        tell(&tasks, SIGTERM);
        let _ = tokio::time::timeout(timeout, ends(&tasks)).await; // then they're killed
    }
    tell(&tasks, SIGKILL);
    for task in &tasks {
        let frozen = || task.cgroup.borrow().as_ref().is_some_and(Cgroup::is_frozen);
        if task.paused.replace(false) || frozen() {
            // Where cgroups are of version 1, the frozen don't die.
            let _ = task.runtime.resume(&task.id).await; // if it fails, the wait below tells
        }
    }
    if tokio::time::timeout(GRACE, ends(&tasks)).await.is_err() {
        let left: Vec<_> = tasks.iter().filter(|t| runs(t)).map(|t| t.id.as_str()).collect();
        let what = format!("stop sandbox {}: killed, but still there: {}", sandbox.id, left.join(", "));
        return Err(Status::new(Code::DeadlineExceeded, what));
    }
    if sandbox.ended().is_none() {
        // Drops the holder, and with it the namespaces.
        sandbox.set(Stage::Stopping);
        sandbox.set(Stage::Stopped { exit_status: 0, exited_at_ns: now_ns() });
    }
    Ok(())
}

fn runs(task: &Task) -> bool {
    !matches!(task.init.phase(), Phase::Stopped { .. } | Phase::New | Phase::Created { pid: 0 })
}

fn tell(tasks: &[Rc<Task>], signal: u32) {
    for task in tasks.iter().filter(|task| runs(task)) {
        let _ = task.init.signal(signal); // it may have ended meanwhile
    }
}

async fn ends(tasks: &[Rc<Task>]) {
    for task in tasks.iter().filter(|task| runs(task)) {
        task.init.until(Phase::exit).await;
    }
}

async fn wait(
    shim: &Shim,
    request: api::WaitSandboxRequest,
    call: &Call,
) -> Result<api::WaitSandboxResponse, Status> {
    let sandbox = find(shim, &request.sandbox_id)?;
    let (exit_status, exited_at_ns) = tokio::select! {
        biased;
        ended = sandbox.end() => ended,
        () = call.gone() => return Err(Status::new(Code::DeadlineExceeded, "nobody waits any more")),
    };
    Ok(api::WaitSandboxResponse { exit_status, exited_at: to_timestamp(exited_at_ns) })
}

fn status(shim: &Shim, request: &api::SandboxStatusRequest) -> Result<api::SandboxStatusResponse, Status> {
    let sandbox = find(shim, &request.sandbox_id)?;
    let pid = sandbox.pid();
    let mut info = HashMap::new();
    if request.verbose && pid != 0 {
        for kind in ["net", "ipc", "uts", "pid", "user"] {
            info.insert(format!("{kind}Namespace"), format!("/proc/{pid}/ns/{kind}"));
        }
        info.insert("shimPid".to_owned(), std::process::id().to_string());
        // Where `crictl inspectp` has it with a pause process.
        let known = serde_json::json!({"pid": pid, "runtimeSpec": sandbox.plan.spec(pid)});
        info.insert("info".to_owned(), known.to_string());
    }
    let state = if pid == 0 { "SANDBOX_NOTREADY" } else { "SANDBOX_READY" };
    Ok(api::SandboxStatusResponse {
        sandbox_id: sandbox.id.clone(),
        pid,
        state: state.to_owned(),
        info,
        created_at: to_timestamp(sandbox.created_at_ns.get()),
        exited_at: sandbox.ended().and_then(|(_, at)| to_timestamp(at)),
        extra: None,
    })
}

fn ping(shim: &Shim, request: &api::PingRequest) -> Result<api::PingResponse, Status> {
    find(shim, &request.sandbox_id).map(|_| api::PingResponse {})
}

/// Stops and deletes what is left, and goes, whatever fails: the next word would be SIGKILL.
async fn shutdown(
    shim: &Rc<Shim>,
    request: api::ShutdownSandboxRequest,
) -> Result<api::ShutdownSandboxResponse, Status> {
    if shim.sandbox.borrow().is_none() && shim.tasks.borrow().is_empty() {
        // Its creation has failed: a client then has nothing else to say, and the shim nothing to stay for.
        shim.go();
        return Ok(api::ShutdownSandboxResponse {});
    }
    let sandbox = find(shim, &request.sandbox_id)?;
    let stopped = stop_all(shim, &sandbox, Duration::ZERO).await;
    let tasks: Vec<_> = shim.tasks.borrow().values().cloned().collect();
    let mut failed = stopped.err();
    for task in tasks {
        if let Err(e) = delete::delete_task(shim, &task).await {
            failed.get_or_insert(e);
        }
    }
    drop(shim.sandbox.take());
    shim.go();
    failed.map_or(Ok(api::ShutdownSandboxResponse {}), Err)
}

fn metrics(shim: &Shim, request: &api::SandboxMetricsRequest) -> Result<api::SandboxMetricsResponse, Status> {
    let sandbox = find(shim, &request.sandbox_id)?;
    let missing = |why: &str| error::precondition(format!("figures of sandbox {}: {why}", sandbox.id));
    let cgroup = match sandbox.plan.cgroup_parent.as_str() {
        "" => return Err(missing("it was created without a cgroup")),
        parent => Cgroup::named(parent),
    };
    if !cgroup.exists() {
        return Err(missing(&format!("there is no cgroup {}", sandbox.plan.cgroup_parent)));
    }
    let metrics =
        Metric { timestamp: to_timestamp(now_ns()), id: sandbox.id.clone(), data: Some(cgroup.metrics()) };
    Ok(api::SandboxMetricsResponse { metrics: Some(metrics) })
}
