//! Checkpoint: writes a container to disk through its runtime and criu.

use std::path::{Path, PathBuf};

use corten_runtime_client::Checkpoint;
use corten_task_api::proto::containerd::events::TaskCheckpointed;
use corten_task_api::proto::containerd::runc::v1::CheckpointOptions;
use corten_task_api::proto::containerd::task::v3::CheckpointTaskRequest;
use corten_task_api::ttrpc::Status;
use prost::Message;

use crate::containers::Shim;
use crate::error;
use crate::task::Task;

/// Where criu's log of a failed checkpoint stays, in the bundle.
const DUMP_LOG: &str = "criu-dump.log";

pub(super) async fn checkpoint(shim: &Shim, request: CheckpointTaskRequest) -> Result<(), Status> {
    let task = shim.task(&request.id)?;
    task.require_running("checkpoint")?;
    let options = decode(&request)?;
    let given = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    let image_path = given(&request.path)
        .or_else(|| given(&options.image_path))
        .or_else(|| given(&task.options.criu_image_path))
        .ok_or_else(|| error::invalid(format!("checkpoint container {}: no path is given", task.id)))?;
    let kept = given(&options.work_path).or_else(|| given(&task.options.criu_work_path));
    let work_path = kept.clone().unwrap_or_else(|| work_path(&task));
    let checkpoint = Checkpoint {
        image_path: image_path.clone(),
        work_path: work_path.clone(),
        parent_path: given(&options.parent_path),
        exit: options.exit,
        tcp_established: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        shell_job: options.terminal,
        file_locks: options.file_locks,
        empty_namespaces: options.empty_namespaces,
        cgroups_mode: (!options.cgroups_mode.is_empty()).then_some(options.cgroups_mode),
    };
    let result = task.runtime.checkpoint(&task.id, &checkpoint).await;
    let log = task.bundle.join(DUMP_LOG);
    let copied = result.is_err() && std::fs::copy(work_path.join("dump.log"), &log).is_ok();
    if kept.is_none() {
        let _ = std::fs::remove_dir_all(&work_path); // in the bundle: goes with it
    }
    result.map_err(|e| with_log(error::runtime(&e), copied.then_some(&*log)))?;
    let event = TaskCheckpointed {
        container_id: task.id.clone(),
        checkpoint: image_path.to_string_lossy().into_owned(),
    };
    shim.events.publish("checkpointed", "TaskCheckpointed", &event);
    Ok(())
}

fn decode(request: &CheckpointTaskRequest) -> Result<CheckpointOptions, Status> {
    let Some(any) = request.options.as_ref().filter(|any| !any.type_url.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    if any.type_url.rsplit('/').next() != Some("containerd.runc.v1.CheckpointOptions") {
        let what = format!(
            "options of type {}: checkpoint takes containerd.runc.v1.CheckpointOptions",
            any.type_url
        );
        return Err(error::invalid(what));
    }
    CheckpointOptions::decode(any.value.as_slice())
        .map_err(|e| error::invalid(format!("options of type {}: {e}", any.type_url)))
}

/// Where criu works when nobody says.
pub(super) fn work_path(task: &Task) -> PathBuf {
    match task.options.criu_work_path.as_str() {
        "" => task.bundle.join("criu-work"),
        path => path.into(),
    }
}

/// Adds where criu's own words are.
fn with_log(mut status: Status, log: Option<&Path>) -> Status {
    if let Some(log) = log {
        status.message.push_str(&format!(" (criu's log: {})", log.display()));
    }
    status
}
