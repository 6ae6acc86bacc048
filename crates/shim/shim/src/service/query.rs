//! Calls that only look: State, Pids, Stats, Connect, Wait.

use corten_task_api::proto::containerd::runc::v1::ProcessDetails;
use corten_task_api::proto::containerd::task::v3::{
    ConnectRequest, ConnectResponse, PidsRequest, PidsResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, WaitRequest, WaitResponse,
};
use corten_task_api::proto::containerd::v1::types::ProcessInfo;
use corten_task_api::services;
use corten_task_api::time::to_timestamp;
use corten_task_api::ttrpc::{Call, Code, Status};

use crate::containers::Shim;
use crate::error;

pub(super) fn state(shim: &Shim, request: &StateRequest) -> Result<StateResponse, Status> {
    let task = shim.task(&request.id)?;
    let process = task.process(&request.exec_id)?;
    let phase = process.phase();
    let exit = phase.exit();
    Ok(StateResponse {
        id: request.id.clone(),
        exec_id: request.exec_id.clone(),
        bundle: task.bundle.to_string_lossy().into_owned(),
        pid: phase.pid(),
        status: process.wire_status(task.paused.get()).into(),
        stdin: process.stdio.stdin.clone(),
        stdout: process.stdio.stdout.clone(),
        stderr: process.stdio.stderr.clone(),
        terminal: process.stdio.terminal,
        exit_status: exit.map_or(0, |e| e.exit_status),
        exited_at: exit.and_then(|e| to_timestamp(e.exited_at_ns)),
    })
}

/// Answers when the process has ended. A client that has gone doesn't keep us waiting.
pub(super) async fn wait(shim: &Shim, request: WaitRequest, call: &Call) -> Result<WaitResponse, Status> {
    let process = shim.task(&request.id)?.process(&request.exec_id)?;
    let exit = tokio::select! {
        biased;
        exit = process.end() => exit,
        () = call.gone() => return Err(Status::new(Code::DeadlineExceeded, "nobody waits any more")),
    };
    let gone = || {
        error::not_found(format!("wait for {} {}: deleted before it has run", request.id, request.exec_id))
    };
    let exit = exit.ok_or_else(gone)?;
    Ok(WaitResponse { exit_status: exit.exit_status, exited_at: to_timestamp(exit.exited_at_ns) })
}

pub(super) fn pids(shim: &Shim, request: &PidsRequest) -> Result<PidsResponse, Status> {
    let task = shim.task(&request.id)?;
    let cgroup = task.cgroup.borrow();
    let alone = || vec![task.init.phase().pid()];
    let mut pids = match task.init.phase().exit() {
        None => cgroup.as_ref().map_or_else(alone, crate::cgroup::Cgroup::pids),
        Some(_) => Vec::new(),
    };
    pids.retain(|pid| *pid != 0);
    let execs = task.execs.borrow();
    let info = |pid: u32| {
        let (exec_id, _) =
            execs.iter().find(|(_, p)| p.phase().pid() == pid && p.phase().exit().is_none())?;
        let details = ProcessDetails { exec_id: exec_id.clone() };
        Some(services::any("containerd.runc.v1.ProcessDetails", &details))
    };
    let processes = pids.into_iter().map(|pid| ProcessInfo { pid, info: info(pid) }).collect();
    Ok(PidsResponse { processes })
}

pub(super) fn stats(shim: &Shim, request: &StatsRequest) -> Result<StatsResponse, Status> {
    let task = shim.task(&request.id)?;
    if task.init.phase().exit().is_some() {
        return Err(error::precondition(format!("stats of container {}: it has ended", task.id)));
    }
    let cgroup = task.cgroup.borrow();
    let missing = || error::precondition(format!("container {} has no cgroup of its own", task.id));
    Ok(StatsResponse { stats: Some(cgroup.as_ref().ok_or_else(missing)?.metrics()) })
}

/// Of an unknown container too: containerd asks so for the shim's PID.
pub(super) fn connect(shim: &Shim, request: &ConnectRequest) -> ConnectResponse {
    let task_pid = shim.task(&request.id).map_or(0, |task| task.init.phase().pid());
    ConnectResponse { shim_pid: std::process::id(), task_pid, version: "v2".to_owned() }
}
