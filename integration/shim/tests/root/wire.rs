//! What isn't a proper request.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use corten_task_api::proto::containerd::task::v3::StateRequest;
use corten_task_api::services::{SANDBOX, TASK};
use corten_task_api::ttrpc::Code;
use integration_shim::Pod;

crate::each_runtime!(garbage_is_answered_or_the_connection_closed, unknown_names_are_unimplemented);

pub(crate) fn connect(pod: &Pod<'_>) -> Result<UnixStream> {
    let address = std::fs::read_to_string(pod.dir.join("address"))?;
    let stream = UnixStream::connect(address.strip_prefix("unix://").context("not an address")?)?;
    stream.set_read_timeout(Some(integration_support::DEADLINE))?;
    Ok(stream)
}

pub(crate) fn frame(stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = (data.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(data);
    frame
}

/// Sends bytes, yields the type of the answer; None when the connection was closed.
fn exchange(pod: &Pod<'_>, bytes: &[u8], done: bool) -> Result<Option<u8>> {
    let mut stream = connect(pod)?;
    stream.write_all(bytes)?;
    if done {
        stream.shutdown(std::net::Shutdown::Write)?;
    }
    let mut header = [0; 10];
    match stream.read_exact(&mut header) {
        Ok(()) => Ok(Some(header[8])),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn garbage_is_answered_or_the_connection_closed(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let answered = Some(2);
    ensure!(exchange(pod, &frame(1, 1, b"\xff\xff\xff"), false)? == answered, "not protobuf");
    ensure!(exchange(pod, &frame(2, 1, b""), false)? == answered, "an even stream id");
    ensure!(exchange(pod, &frame(1, 3, b"data"), false)? == answered, "data for no stream");
    ensure!(exchange(pod, &frame(1, 99, b"?"), false)? == answered, "an unknown type");
    ensure!(exchange(pod, &frame(1, 1, &vec![0; (4 << 20) + 1]), false)? == answered, "too long");
    ensure!(exchange(pod, &frame(1, 1, b"whole")[..12], true)?.is_none(), "cut off");
    ensure!(exchange(pod, b"GET / H", true)?.is_none(), "another protocol");
    // Nobody else has noticed.
    ensure!(pod.exec(&id, "true", None).await?.exit_code == 0);
    pod.remove(&id).await
}

async fn unknown_names_are_unimplemented(pod: &Pod<'_>) -> Result<()> {
    let client = pod.client().await?;
    let request = StateRequest::default();
    for (service, method) in [("no.such.Service", "State"), (TASK[0], "NoSuchMethod"), (SANDBOX, "Update")] {
        let error = client.call::<()>(service, method, &request, None).await.err();
        ensure!(error.is_some_and(|s| s.code == Code::Unimplemented), "{service} {method}");
    }
    for service in TASK {
        let error = client.call::<()>(service, "State", &request, None).await.err();
        ensure!(error.is_some_and(|s| s.code == Code::NotFound), "{service}");
    }
    Ok(())
}
