//! What containerd is to a shim: starts it by one of its protocols, takes its events, calls it.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use corten_task_api::Message;
use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use corten_task_api::proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use corten_task_api::proto::containerd::task::v3 as api;
use corten_task_api::proto::containerd::types::Envelope;
use corten_task_api::services::{TASK, any};
use corten_task_api::ttrpc::{Call, Client, Router, Server, Status, respond};
use integration_support::{Bundle, DEADLINE, Kind, Runtime, Scope};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};

/// How the shim is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As by containerd 1.6.
    Text,
    /// As by containerd 1.7 to 2.2.
    Json,
    /// As by containerd 2.3.
    Protobuf,
}

/// A containerd.
#[derive(Debug)]
pub struct Containerd<'a> {
    /// The test's world.
    pub scope: &'a Scope,
    /// What the shim runs.
    pub runtime: &'a Runtime,
    /// The shim's binary.
    pub shim: PathBuf,
    binary: PathBuf,
    events: Rc<Events>,
    serving: RefCell<Option<JoinHandle<()>>>,
}

/// Runs a test on one runtime and proves that nothing is left.
///
/// # Errors
/// What the test says, or what was left.
pub fn with(kind: Kind, name: &str, body: impl AsyncFnOnce(&Containerd<'_>) -> Result<()>) -> Result<()> {
    if !integration_support::require_root()
        || !integration_support::require_binary("containerd-shim-corten-v2")
    {
        return Ok(());
    }
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Scope::test(name, |scope| {
        let Some(runtime) = Runtime::for_test(kind, scope)? else { return Ok(()) };
        LocalSet::new().block_on(&tokio, async {
            let containerd = Containerd {
                scope,
                runtime: &runtime,
                shim: integration_support::binary("containerd-shim-corten-v2")?,
                binary: crate::runtime_binary(scope, &runtime)?,
                events: Rc::default(),
                serving: RefCell::default(),
            };
            scope.make_dir("b")?;
            scope.expect_empty(scope.path("s"));
            containerd.come()?;
            let result =
                tokio::time::timeout(DEADLINE * 2, body(&containerd)).await.context("the test hangs");
            containerd.clean().await;
            result?
        })
    })
}

impl Containerd<'_> {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> PathBuf {
        self.scope.path("containerd.sock")
    }

    /// Where it takes events.
    #[must_use]
    pub fn events_address(&self) -> PathBuf {
        self.scope.path("containerd.sock.ttrpc")
    }

    /// Begins to take events.
    ///
    /// # Errors
    /// When it can't listen.
    pub fn come(&self) -> Result<()> {
        *self.serving.borrow_mut() = Some(take_events(&self.events_address(), Rc::clone(&self.events))?);
        Ok(())
    }

    /// Takes no more events, and drops its connections.
    pub async fn go(&self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await; // aborted
        }
        let _ = fs::remove_file(self.events_address());
    }

    /// A container's bundle, where containerd has bundles.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn bundle(&self, bundle: Bundle) -> Result<(String, PathBuf)> {
        let bundle = bundle.write()?;
        let id = bundle.id().to_owned();
        let dir = self.scope.path("b").join(&id);
        fs::rename(bundle.dir(), &dir)?;
        Ok((id, dir))
    }

    /// The command that starts a shim in `dir`, and what goes to its standard input.
    #[must_use]
    pub fn start_command(&self, id: &str, dir: &Path, protocol: Protocol) -> (Command, Vec<u8>) {
        let mut command = Command::new(&self.shim);
        command.current_dir(dir).args(["-namespace", "test", "-id", id]);
        command.arg("-address").arg(self.address()).args(["-publish-binary", "/nonexistent"]);
        command.env("TTRPC_ADDRESS", self.events_address()).env_remove("MAX_SHIM_VERSION");
        let stdin = match protocol {
            Protocol::Text => Vec::new(),
            Protocol::Json => any("containerd.runc.v1.Options", &Options::default()).encode_to_vec(),
            Protocol::Protobuf => BootstrapParams {
                instance_id: id.to_owned(),
                namespace: "test".to_owned(),
                containerd_version: "v2.3.0".to_owned(),
                containerd_ttrpc_address: self.events_address().to_string_lossy().into_owned(),
                containerd_grpc_address: self.address().to_string_lossy().into_owned(),
                socket_dir: Some(self.scope.path("s").to_string_lossy().into_owned()),
                ..BootstrapParams::default()
            }
            .encode_to_vec(),
        };
        if protocol != Protocol::Protobuf {
            command.arg("-socket-dir").arg(self.scope.path("s"));
        }
        if protocol != Protocol::Text {
            command.env("MAX_SHIM_VERSION", "2");
        }
        command.arg("start");
        (command, stdin)
    }

    /// Starts a shim and connects to it.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn start(&self, id: &str, dir: &Path, protocol: Protocol) -> Result<Client> {
        let (mut command, stdin) = self.start_command(id, dir, protocol);
        let done = integration_support::run_with_deadline(&mut command, DEADLINE, &stdin)?.ok()?;
        ensure!(done.stderr.is_empty(), "containerd reads both: {:?}", done.stderr);
        let address = match protocol {
            Protocol::Text => done.stdout,
            Protocol::Json => serde_json::from_str::<serde_json::Value>(&done.stdout)?["address"]
                .as_str()
                .context("no address")?
                .to_owned(),
            Protocol::Protobuf => BootstrapResult::decode(done.stdout.as_bytes())?.address,
        };
        let path = address.strip_prefix("unix://").context("not an address")?;
        Ok(Client::connect(Path::new(path)).await?)
    }

    /// The request for a container with the runtime under test; its output goes nowhere.
    #[must_use]
    pub fn request(&self, id: &str, bundle: &Path) -> api::CreateTaskRequest {
        let options = Options {
            binary_name: self.binary.to_string_lossy().into_owned(),
            root: self.runtime.root().to_string_lossy().into_owned(),
            ..Options::default()
        };
        api::CreateTaskRequest {
            id: id.to_owned(),
            bundle: bundle.to_string_lossy().into_owned(),
            options: Some(any("containerd.runc.v1.Options", &options)),
            ..api::CreateTaskRequest::default()
        }
    }

    /// A shim with a container that runs.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn run(&self, bundle: Bundle) -> Result<(Client, String)> {
        let (id, dir) = self.bundle(bundle)?;
        let client = self.start(&id, &dir, Protocol::Protobuf).await?;
        task::<api::CreateTaskResponse>(&client, "Create", &self.request(&id, &dir)).await?;
        start(&client, &id, "").await?;
        Ok((client, id))
    }

    /// Events so far, without their prefix, each with the exec it is about.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        self.events.taken.borrow().iter().map(name).collect()
    }

    /// The events themselves.
    #[must_use]
    pub fn envelopes(&self) -> Vec<Envelope> {
        self.events.taken.borrow().clone()
    }

    /// Waits until an event has come.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn event(&self, wanted: &str) -> Result<()> {
        let comes = async {
            while !self.events().iter().any(|event| event == wanted) {
                self.events.more.notified().await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, comes).await;
        came.map_err(|_| anyhow::anyhow!("no event {wanted:?}, but {:?}", self.events()))
    }

    /// How many events a call of the Events service is answered with an error for.
    pub fn refuse(&self, events: usize) {
        *self.events.refuse.borrow_mut() = events;
    }

    /// Takes away what a test has left.
    async fn clean(&self) {
        for entry in fs::read_dir(self.scope.path("b")).into_iter().flatten().flatten() {
            let (id, dir) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            let Ok(address) = fs::read_to_string(dir.join("address")) else { continue };
            let path = address.strip_prefix("unix://").unwrap_or_default();
            if let Ok(client) = Client::connect(Path::new(path)).await {
                let _ = task::<()>(&client, "Kill", &kill_request(&id, "", 9)).await;
                let _ = wait(&client, &id, "").await;
                let _ = delete(&client, &id, "").await;
                let _ = task::<()>(&client, "Shutdown", &api::ShutdownRequest { id, now: true }).await;
                client.closed().wait().await;
            }
        }
    }
}

/// `exit`, or `exit e` of the exec e.
fn name(envelope: &Envelope) -> String {
    use corten_task_api::proto::containerd::events as e;
    let topic = envelope.topic.trim_start_matches("/tasks/");
    let bytes = envelope.event.as_ref().map(|event| event.value.as_slice()).unwrap_or_default();
    let exec = match topic {
        "exit" => e::TaskExit::decode(bytes).ok().filter(|e| e.id != e.container_id).map(|e| e.id),
        "exec-added" => e::TaskExecAdded::decode(bytes).ok().map(|e| e.exec_id),
        "exec-started" => e::TaskExecStarted::decode(bytes).ok().map(|e| e.exec_id),
        _ => None,
    };
    exec.map_or_else(|| topic.to_owned(), |exec| format!("{topic} {exec}"))
}

/// Takes events at `path`, in a `LocalSet`, as long as the task isn't aborted.
///
/// # Errors
/// When it can't listen there.
pub fn take_events(path: &Path, events: Rc<Events>) -> Result<JoinHandle<()>> {
    let _ = fs::remove_file(path); // an earlier listener's
    let listener = tokio::net::UnixListener::bind(path).context("listen for events")?;
    let server = Rc::new(Server::new(events));
    Ok(tokio::task::spawn_local(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            let server = Rc::clone(&server);
            connections.spawn_local(async move { drop(server.serve(connection).await) });
        }
    }))
}

/// The Events service.
#[derive(Debug, Default)]
pub struct Events {
    taken: RefCell<Vec<Envelope>>,
    refuse: RefCell<usize>,
    more: Notify,
}

impl Router for Events {
    async fn call(self: Rc<Self>, call: Call) -> Result<Vec<u8>, Status> {
        respond(&call, async |request: ForwardRequest| {
            if *self.refuse.borrow() > 0 {
                *self.refuse.borrow_mut() -= 1;
                return Err(Status::new(corten_task_api::ttrpc::Code::Internal, "not now"));
            }
            self.taken.borrow_mut().extend(request.envelope);
            self.more.notify_one();
            Ok(())
        })
        .await
    }
}

/// Calls the Task service.
///
/// # Errors
/// The shim's.
pub async fn task<A: Default + Message>(
    client: &Client,
    method: &str,
    request: &impl Message,
) -> Result<A, Status> {
    client.call(TASK[1], method, request, Some(DEADLINE)).await
}

/// Starts a container, or an exec.
///
/// # Errors
/// The shim's.
pub async fn start(client: &Client, id: &str, exec_id: &str) -> Result<u32, Status> {
    let request = api::StartRequest { id: id.to_owned(), exec_id: exec_id.to_owned() };
    Ok(task::<api::StartResponse>(client, "Start", &request).await?.pid)
}

/// Adds an exec and starts it.
///
/// # Errors
/// The shim's.
pub async fn exec(client: &Client, id: &str, exec_id: &str, script: &str) -> Result<u32, Status> {
    let request = api::ExecProcessRequest {
        id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        spec: Some(prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: crate::process(&["/bin/sh", "-c", script]),
        }),
        ..api::ExecProcessRequest::default()
    };
    task::<()>(client, "Exec", &request).await?;
    start(client, id, exec_id).await
}

/// Waits for the end of a container, or an exec.
///
/// # Errors
/// The shim's.
pub async fn wait(client: &Client, id: &str, exec_id: &str) -> Result<u32, Status> {
    let request = api::WaitRequest { id: id.to_owned(), exec_id: exec_id.to_owned() };
    Ok(task::<api::WaitResponse>(client, "Wait", &request).await?.exit_status)
}

/// Deletes a container, or an exec.
///
/// # Errors
/// The shim's.
pub async fn delete(client: &Client, id: &str, exec_id: &str) -> Result<u32, Status> {
    let request = api::DeleteRequest { id: id.to_owned(), exec_id: exec_id.to_owned() };
    Ok(task::<api::DeleteResponse>(client, "Delete", &request).await?.exit_status)
}

/// A Kill.
#[must_use]
pub fn kill_request(id: &str, exec_id: &str, signal: u32) -> api::KillRequest {
    api::KillRequest { id: id.to_owned(), exec_id: exec_id.to_owned(), signal, all: false }
}

/// Fails unless a call has failed with `code` and says `words`.
///
/// # Errors
/// When it hasn't.
pub fn refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: corten_task_api::ttrpc::Code,
    words: &str,
) -> Result<()> {
    match result {
        Err(status) if status.code == code && status.message.contains(words) => Ok(()),
        other => bail!("expected {code:?} with {words:?}, got {other:?}"),
    }
}
