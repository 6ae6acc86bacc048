//! A daemon that dies in the middle of anything: no exit code, log line or event is lost with it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use corten_task::TaskStatus;
use corten_task_api::proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use corten_task_api::proto::containerd::task::v3 as task;
use corten_task_api::proto::ttrpc::{Request, Response};
use corten_task_api::services::TASK;
use corten_task_api::ttrpc::{Frame, Kind as FrameKind, read_frame, write_frame};
use integration_shim::Pod;
use integration_support::{DEADLINE, Kind};
use prost::Message;
use tokio::net::UnixListener;

use super::hostile::request;
use super::wire::connect;

mod shim {
    #[test]
    fn who_dies_in_each_call_loses_nothing() -> anyhow::Result<()> {
        let name = "who_dies_in_each_call";
        integration_shim::on(super::Kind::Corten, name, super::who_dies_in_each_call_loses_nothing)
    }

    #[test]
    fn events_outlive_who_takes_them() -> anyhow::Result<()> {
        integration_shim::on(super::Kind::Corten, "events", super::events_outlive_who_takes_them)
    }
}

/// Sends a request and is gone.
fn send_and_die(pod: &Pod<'_>, method: &str, message: &impl Message) -> Result<()> {
    connect(pod)?.write_all(&request(1, TASK[0], method, message.encode_to_vec()))?;
    Ok(())
}

/// Waits until the container has this status; None: until it isn't there.
async fn until(pod: &Pod<'_>, id: &str, wanted: Option<TaskStatus>) -> Result<()> {
    let reached = async {
        loop {
            let found = pod.shim.list().await?.into_iter().find(|task| task.id == id);
            if found.map(|task| task.status) == wanted {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.with_context(|| format!("it never becomes {wanted:?}"))?
}

async fn who_dies_in_each_call_loses_nothing(pod: &Pod<'_>) -> Result<()> {
    let script = "trap 'i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; exit 7' TERM; echo ready; \
                  while :; do sleep 1000 & wait; done";
    let create = pod.request("c", integration_support::Bundle::sh(pod.scope, "c", script))?;
    let id = create.id.clone();
    let binary = pod.runtime.binary().display().to_string();
    let root = pod.runtime.root().display().to_string();
    let options = corten_task_api::proto::containerd::runc::v1::Options {
        binary_name: binary,
        root,
        ..Default::default()
    };
    let create = task::CreateTaskRequest {
        id: id.clone(),
        bundle: create.bundle.display().to_string(),
        stdout: create.stdout,
        stderr: create.stderr,
        options: Some(corten_task_api::services::any("containerd.runc.v1.Options", &options)),
        ..Default::default()
    };
    send_and_die(pod, "Create", &create)?;
    until(pod, &id, Some(TaskStatus::Created)).await?;
    send_and_die(pod, "Start", &task::StartRequest { id: id.clone(), ..Default::default() })?;
    until(pod, &id, Some(TaskStatus::Running)).await?;
    integration_support::wait_for("it to be ready", || pod.log("c").is_ok_and(|log| !log.is_empty()))?;
    send_and_die(pod, "Wait", &task::WaitRequest { id: id.clone(), ..Default::default() })?;
    send_and_die(pod, "Kill", &task::KillRequest { id: id.clone(), signal: 15, ..Default::default() })?;
    let exit =
        tokio::time::timeout(DEADLINE, pod.again().await?.wait(&id)).await.context("it doesn't end")??;
    ensure!(exit.status == 7, "{exit:?}");
    let lines: Vec<_> = pod.log("c")?.into_iter().map(|(_, _, text)| text).collect();
    let expected: Vec<_> =
        std::iter::once("ready".to_owned()).chain((0..500).map(|n| format!("line {n}"))).collect();
    ensure!(lines == expected, "{} lines of {}", lines.len(), expected.len());
    send_and_die(pod, "Delete", &task::DeleteRequest { id: id.clone(), ..Default::default() })?;
    until(pod, &id, None).await
}

/// Takes events until the last one is there, and dies with every other instead of saying that it has it.
async fn take_events(listener: UnixListener) -> Result<Vec<String>> {
    let mut topics = Vec::new();
    let mut calls = 0;
    loop {
        let (mut stream, _) = listener.accept().await?;
        while let Ok(Some(frame)) = read_frame(&mut stream).await {
            calls += 1;
            let forwarded = Request::decode(frame.data.as_slice())?;
            let event =
                ForwardRequest::decode(forwarded.payload.as_slice())?.envelope.context("no envelope")?;
            if calls % 2 == 1 {
                break; // with the connection
            }
            topics.push(event.topic.clone());
            let data = Response::default().encode_to_vec();
            write_frame(&mut stream, &Frame { stream: frame.stream, kind: FrameKind::Response, data })
                .await?;
            if event.topic == "/tasks/delete" {
                return Ok(topics);
            }
        }
    }
}

async fn events_outlive_who_takes_them(pod: &Pod<'_>) -> Result<()> {
    // A second shim, one with an address for events, as containerd gives it.
    let socket = pod.scope.path("containerd.sock");
    let script = pod.scope.path("shim");
    let binary = integration_support::binary("containerd-shim-corten-v2")?;
    let text = format!(
        "#!/bin/sh\nunset TTRPC_ADDRESS\nexec {} \"$@\" -address {}\n",
        binary.display(),
        socket.display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let second = Pod::with(pod.scope, pod.runtime, "second", script).await?;
    let id = second.sh("c", "exit 3").await?;
    ensure!(second.shim.wait(&id).await?.status == 3);
    second.shim.delete(&id).await?;
    // Only now there is somebody.
    let listener = UnixListener::bind(pod.scope.path("containerd.sock.ttrpc"))?;
    let topics = tokio::time::timeout(DEADLINE, take_events(listener)).await.context("events are lost")??;
    ensure!(topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"], "{topics:?}");
    let closed = second.shim.closed();
    second.shim.shutdown().await?;
    tokio::time::timeout(DEADLINE, closed.wait()).await.context("the shim stays")?;
    Ok(())
}
