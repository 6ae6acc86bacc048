//! containerd's way: fifos, Exec and Start, CloseIO, terminals.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::services::TASK;
use corten_task_api::ttrpc::{Client, Code, Status};
use integration_shim::{Pod, process};
use integration_support::Bundle;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

crate::each_runtime!(
    fifos_and_end_of_input,
    exec_by_the_task_api,
    a_terminal_over_fifos,
    an_execs_terminal_and_an_execs_end_of_input,
    what_was_typed_before_the_end_arrives,
    files_are_appended_to,
    shutdown_waits_for_the_last_task,
);

fn fifo(pod: &Pod<'_>, name: &str) -> Result<PathBuf> {
    let path = pod.scope.path(name);
    nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600))?;
    Ok(path)
}

/// As containerd opens it: without waiting for the other side.
fn reader(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

/// Calls a method of the Task service as containerd 1.x does.
async fn call<A: Default + corten_task_api::Message>(
    client: &Client,
    method: &str,
    request: &impl corten_task_api::Message,
) -> Result<A, Status> {
    client.call(TASK[0], method, request, Some(integration_support::DEADLINE)).await
}

/// Reads until the other side closes, elsewhere: the test's thread goes on.
fn collect(mut file: File) -> std::thread::JoinHandle<std::io::Result<String>> {
    std::thread::spawn(move || {
        let mut text = String::new();
        file.read_to_string(&mut text).map(|_| text)
    })
}

async fn fifos_and_end_of_input(pod: &Pod<'_>) -> Result<()> {
    let (stdin, stdout) = (fifo(pod, "in")?, fifo(pod, "out")?);
    let mut request = pod.request("c", Bundle::sh(pod.scope, "c", "cat; echo ended"))?;
    request.stdin = stdin.to_string_lossy().into_owned();
    request.stdout = stdout.to_string_lossy().into_owned();
    request.stderr = String::new();
    let output = reader(&stdout)?;
    let id = pod.run(request).await?;
    let output = collect(output);
    let mut input = OpenOptions::new().write(true).open(&stdin)?;
    input.write_all(b"one\n")?;
    drop(input); // a client that goes isn't the end
    let mut input = OpenOptions::new().write(true).open(&stdin)?;
    input.write_all(b"two\n")?;
    let client = pod.client().await?;
    let close = api::CloseIoRequest { id: id.clone(), exec_id: String::new(), stdin: true };
    call::<()>(&client, "CloseIO", &close).await?;
    drop(input);
    ensure!(pod.shim.wait(&id).await?.status == 0);
    pod.shim.delete(&id).await?;
    let output = output.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(output == "one\ntwo\nended\n", "{output:?}");
    Ok(())
}

async fn exec_by_the_task_api(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let client = pod.client().await?;
    let stdout = fifo(pod, "out")?;
    let output = reader(&stdout)?;
    let exec = |exec_id: &str, script: &str| api::ExecProcessRequest {
        id: id.clone(),
        exec_id: exec_id.to_owned(),
        stdout: stdout.to_string_lossy().into_owned(),
        spec: Some(prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: process(&["/bin/sh", "-c", script]),
        }),
        ..api::ExecProcessRequest::default()
    };
    call::<()>(&client, "Exec", &exec("e", "echo from exec; exit 6")).await?;
    let again = call::<()>(&client, "Exec", &exec("e", "true")).await.err();
    ensure!(again.is_some_and(|s| s.code == Code::AlreadyExists));
    let start = api::StartRequest { id: id.clone(), exec_id: "e".to_owned() };
    let started: api::StartResponse = call(&client, "Start", &start).await?;
    ensure!(started.pid > 0);
    let wait = api::WaitRequest { id: id.clone(), exec_id: "e".to_owned() };
    let exit: api::WaitResponse = call(&client, "Wait", &wait).await?;
    ensure!(exit.exit_status == 6 && exit.exited_at.is_some());
    let delete = api::DeleteRequest { id: id.clone(), exec_id: "e".to_owned() };
    let deleted: api::DeleteResponse = call(&client, "Delete", &delete).await?;
    ensure!(deleted.exit_status == 6 && deleted.pid == started.pid);
    let output = collect(output).join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(output == "from exec\n", "{output:?}");
    // Killed by its own id.
    call::<()>(&client, "Exec", &exec("k", "exec sleep 1000")).await?;
    let start = api::StartRequest { id: id.clone(), exec_id: "k".to_owned() };
    let _: api::StartResponse = call(&client, "Start", &start).await?;
    let pids: api::PidsResponse = call(&client, "Pids", &api::PidsRequest { id: id.clone() }).await?;
    ensure!(
        pids.processes.len() == 2 && pids.processes.iter().filter(|p| p.info.is_some()).count() == 1,
        "{pids:?}"
    );
    let kill = api::KillRequest { id: id.clone(), exec_id: "k".to_owned(), signal: 9, all: false };
    call::<()>(&client, "Kill", &kill).await?;
    let wait = api::WaitRequest { id: id.clone(), exec_id: "k".to_owned() };
    let exit: api::WaitResponse = call(&client, "Wait", &wait).await?;
    ensure!(exit.exit_status == 137);
    let state: api::StateResponse =
        call(&client, "State", &api::StateRequest { id: id.clone(), exec_id: "k".to_owned() }).await?;
    ensure!(state.exit_status == 137 && state.exec_id == "k");
    pod.remove(&id).await
}

async fn a_terminal_over_fifos(pod: &Pod<'_>) -> Result<()> {
    let (stdin, stdout) = (fifo(pod, "in")?, fifo(pod, "out")?);
    let mut request =
        pod.request("c", Bundle::sh(pod.scope, "c", "read line; echo got $line; stty size").terminal())?;
    request.stdin = stdin.to_string_lossy().into_owned();
    request.stdout = stdout.to_string_lossy().into_owned();
    request.stderr = String::new();
    request.terminal = true;
    let id = request.id.clone();
    let output = reader(&stdout)?;
    pod.shim.create(request).await?;
    let client = pod.client().await?;
    let resize = api::ResizePtyRequest { id: id.clone(), exec_id: String::new(), width: 101, height: 33 };
    call::<()>(&client, "ResizePty", &resize).await?;
    pod.shim.start(&id).await?;
    let output = collect(output);
    OpenOptions::new().write(true).open(&stdin)?.write_all(b"typed\n")?;
    ensure!(pod.shim.wait(&id).await?.status == 0);
    pod.shim.delete(&id).await?;
    let output = output.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(output.contains("got typed") && output.contains("33 101"), "{output:?}");
    Ok(())
}

fn on_a_terminal(process: Vec<u8>, terminal: bool) -> Vec<u8> {
    let mut process: serde_json::Value = serde_json::from_slice(&process).unwrap_or_default();
    process["terminal"] = terminal.into();
    process.to_string().into_bytes()
}

async fn an_execs_terminal_and_an_execs_end_of_input(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let client = pod.client().await?;
    let resize = |exec_id: &str, width| api::ResizePtyRequest {
        id: id.clone(),
        exec_id: exec_id.to_owned(),
        width,
        height: 33,
    };
    let (stdin, stdout) = (fifo(pod, "in")?, fifo(pod, "out")?);
    let exec = |exec_id: &str, script: &str, terminal| api::ExecProcessRequest {
        id: id.clone(),
        exec_id: exec_id.to_owned(),
        stdin: stdin.to_string_lossy().into_owned(),
        stdout: stdout.to_string_lossy().into_owned(),
        terminal,
        spec: Some(prost_types::Any {
            type_url: String::new(),
            value: on_a_terminal(process(&["/bin/sh", "-c", script]), terminal),
        }),
        ..api::ExecProcessRequest::default()
    };
    let start = |exec_id: &str| api::StartRequest { id: id.clone(), exec_id: exec_id.to_owned() };
    let ends = async |exec_id: &str| {
        let wait = api::WaitRequest { id: id.clone(), exec_id: exec_id.to_owned() };
        call::<api::WaitResponse>(&client, "Wait", &wait).await?;
        let delete = api::DeleteRequest { id: id.clone(), exec_id: exec_id.to_owned() };
        call::<api::DeleteResponse>(&client, "Delete", &delete).await
    };
    let output = reader(&stdout)?;
    call::<()>(&client, "Exec", &exec("t", "read line; stty size; exit 3", true)).await?;
    call::<api::StartResponse>(&client, "Start", &start("t")).await?;
    let output = collect(output);
    call::<()>(&client, "ResizePty", &resize("t", 101)).await?;
    let refused = call::<()>(&client, "ResizePty", &resize("t", 70_000)).await.err();
    ensure!(refused.is_some_and(|s| s.code == Code::InvalidArgument));
    OpenOptions::new().write(true).open(&stdin)?.write_all(b"go\n")?;
    ensure!(ends("t").await?.exit_status == 3);
    let output = output.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(output.contains("33 101"), "{output:?}");
    // The other has none, but an input that ends.
    let output = reader(&stdout)?;
    call::<()>(&client, "Exec", &exec("p", "cat; exit 4", false)).await?;
    call::<api::StartResponse>(&client, "Start", &start("p")).await?;
    let output = collect(output);
    let refused = call::<()>(&client, "ResizePty", &resize("p", 80)).await.err();
    ensure!(refused.is_some_and(|s| s.code == Code::FailedPrecondition));
    OpenOptions::new().write(true).open(&stdin)?.write_all(b"last\n")?;
    let close = api::CloseIoRequest { id: id.clone(), exec_id: "p".to_owned(), stdin: true };
    call::<()>(&client, "CloseIO", &close).await?;
    ensure!(ends("p").await?.exit_status == 4);
    let output = output.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(output == "last\n", "{output:?}");
    pod.remove(&id).await
}

async fn what_was_typed_before_the_end_arrives(pod: &Pod<'_>) -> Result<()> {
    let (stdin, stdout) = (fifo(pod, "in")?, fifo(pod, "out")?);
    let script = "while read line; do [ \"$line\" != end ] || exit 5; done";
    let mut request = pod.request("c", Bundle::sh(pod.scope, "c", script).terminal())?;
    request.stdin = stdin.to_string_lossy().into_owned();
    request.stdout = stdout.to_string_lossy().into_owned();
    request.stderr = String::new();
    request.terminal = true;
    let id = request.id.clone();
    let echo = reader(&stdout)?;
    pod.shim.create(request).await?;
    let echo = collect(echo);
    let client = pod.client().await?;
    // More than the terminal takes while nobody reads from it, less than it and the fifo.
    let typed = "0123456789abcde\n".repeat(4000) + "end\n";
    OpenOptions::new().write(true).open(&stdin)?.write_all(typed.as_bytes())?;
    let close = api::CloseIoRequest { id: id.clone(), exec_id: String::new(), stdin: true };
    call::<()>(&client, "CloseIO", &close).await?;
    pod.shim.start(&id).await?;
    ensure!(pod.shim.wait(&id).await?.status == 5);
    pod.shim.delete(&id).await?;
    echo.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    Ok(())
}

async fn files_are_appended_to(pod: &Pod<'_>) -> Result<()> {
    let file = pod.scope.path("output");
    std::fs::write(&file, "before\n")?;
    let mut request = pod.request("c", Bundle::sh(pod.scope, "c", "echo after"))?;
    request.stdout = format!("file://{}", file.display());
    request.stderr = String::new();
    let id = pod.run(request).await?;
    pod.shim.wait(&id).await?;
    ensure!(std::fs::read_to_string(&file)? == "before\nafter\n");
    Ok(())
}

async fn shutdown_waits_for_the_last_task(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let client = pod.client().await?;
    let request = api::ShutdownRequest { id: pod.id(), now: false };
    call::<()>(&client, "Shutdown", &request).await?;
    let connect = api::ConnectRequest { id: id.clone() };
    let connected: api::ConnectResponse = call(&client, "Connect", &connect).await?;
    ensure!(connected.shim_pid == pod.shim.pid().await? && connected.task_pid > 0);
    pod.remove(&id).await?;
    call::<()>(&client, "Shutdown", &request).await?;
    tokio::time::timeout(integration_support::DEADLINE, client.closed().wait()).await?;
    Ok(())
}
