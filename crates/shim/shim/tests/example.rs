//! The library carries shims of other workloads: the example's, from start to shutdown.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use corten_task_api::Message;
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::proto::containerd::types::RuntimeInfo;
use corten_task_api::services::TASK;
use corten_task_api::ttrpc::{Client, Code, Status};

async fn call<A: Default + Message>(
    client: &Client,
    method: &str,
    request: &impl Message,
) -> Result<A, Status> {
    client.call(TASK[1], method, request, Some(Duration::from_secs(60))).await
}

#[tokio::test]
async fn a_shim_of_processes() {
    // target/debug/deps/example-… beside target/debug/examples
    let target = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let shim = target.join("examples/containerd-shim-process-v1");
    if !shim.exists() {
        println!("SKIP a_shim_of_processes: the example isn't built: cargo test -p corten-shim builds it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&shim);
        command.current_dir(&dir).args(arguments).stdin(Stdio::null());
        for variable in ["TTRPC_ADDRESS", "MAX_SHIM_VERSION", "SCHED_CORE"] {
            command.env_remove(variable);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let info = RuntimeInfo::decode(run(&["-info"]).as_slice()).unwrap();
    assert_eq!(info.name, "containerd-shim-process-v1");
    let config = r#"{"process": {"args": ["/bin/sh", "-c", "exit 7"]}}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let sockets = dir.path().join("s").to_string_lossy().into_owned();
    let start = ["-namespace", "test", "-id", "one", "-address=", "-socket-dir", &sockets, "start"];
    let address = String::from_utf8(run(&start)).unwrap();
    let client = Client::connect(Path::new(address.strip_prefix("unix://").unwrap())).await.unwrap();
    let id = || "one".to_owned();
    let create = api::CreateTaskRequest {
        id: id(),
        bundle: dir.path().to_string_lossy().into_owned(),
        ..api::CreateTaskRequest::default()
    };
    call::<api::CreateTaskResponse>(&client, "Create", &create).await.unwrap();
    let started: api::StartResponse =
        call(&client, "Start", &api::StartRequest { id: id(), exec_id: String::new() }).await.unwrap();
    assert!(started.pid > 0);
    let wait = api::WaitRequest { id: id(), exec_id: String::new() };
    let ended: api::WaitResponse = call(&client, "Wait", &wait).await.unwrap();
    assert!(ended.exit_status == 7 && ended.exited_at.is_some());
    let kill = api::KillRequest { id: id(), exec_id: String::new(), signal: 9, all: false };
    assert_eq!(call::<()>(&client, "Kill", &kill).await.unwrap_err().code, Code::NotFound);
    assert_eq!(call::<()>(&client, "Pause", &()).await.unwrap_err().code, Code::Unimplemented);
    call::<()>(&client, "Shutdown", &()).await.unwrap();
    client.closed().wait().await;
    assert_eq!(std::fs::read_dir(&sockets).unwrap().count(), 0, "the socket is left");
}
