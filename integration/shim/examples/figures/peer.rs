//! containerd's own shim, driven as containerd drives it: Debian's, and the one that `CORTEN_CONTAINERD_DIR` names.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use corten_task_api::proto::containerd::task::v3::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse,
    ExecProcessRequest, KillRequest, ShutdownRequest, StartRequest, StartResponse, WaitRequest, WaitResponse,
};
use corten_task_api::services::{TASK, any};
use corten_task_api::ttrpc::Client;
use integration_shim::{containerd, process};
use integration_support::{Bundle, DEADLINE, Kind, Scope, run_with_deadline};
use nix::sys::stat::Mode;
use prost::Message;
use tokio::task::JoinHandle;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// Names the directory with the binaries of another containerd.
const DIR: &str = "CORTEN_CONTAINERD_DIR";

/// Whose shim.
#[derive(Clone, Debug)]
pub(crate) struct Flavour {
    binary: PathBuf,
    /// For people.
    pub(crate) name: &'static str,
    /// Its parameters and its answer are containerd 2.3's; else it tells the address alone, as 1.6's does.
    newest: bool,
}

impl Flavour {
    /// Debian's, and the given one.
    pub(crate) fn all() -> Vec<Self> {
        let mut all =
            vec![Self { binary: "containerd-shim-runc-v2".into(), name: "Debian's", newest: false }];
        match std::env::var_os(DIR) {
            Some(dir) => all.push(Self {
                binary: Path::new(&dir).join("containerd-shim-runc-v2"),
                name: "the newest",
                newest: true,
            }),
            None => println!("{DIR} names no directory with a newer containerd: its shim is left out"),
        }
        all
    }

    /// The Task service as it knows it.
    fn service(&self) -> &'static str {
        if self.newest { TASK[1] } else { TASK[0] }
    }
}

/// A running container under containerd's shim.
pub(crate) struct Peer {
    client: Client,
    id: String,
    service: &'static str,
    /// The shim's.
    pub(crate) pid: u32,
    /// What it logs goes nowhere, but must have a reader.
    _log: File,
    events: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.events.abort();
    }
}

impl Peer {
    /// Starts the shim and in it a container with a runtime of Debian's.
    pub(crate) async fn start(scope: &Scope, flavour: &Flavour, kind: Kind, n: usize) -> Result<Self> {
        let runtime = kind.find().with_context(|| format!("{} isn't installed", kind.name()))?;
        let name = format!("peer{}-{}{n}", u8::from(flavour.newest), kind.name());
        let bundle = Bundle::sh(scope, &name, "exec sleep 100000").write()?;
        // It goes when it can't log, and when nobody takes its events.
        let fifo = bundle.dir().join("log");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).context("make a fifo for its log")?;
        let log = File::options().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo)?;
        let address = scope.path(&name);
        let events_at = address.with_extension("ttrpc");
        let events = containerd::take_events(&events_at, Rc::default())?;
        let said = start_shim(scope, flavour, &bundle, &address, &events_at)?;
        let client = Client::connect(Path::new(&said)).await.with_context(|| format!("connect to {said}"))?;
        let (id, service) = (bundle.id().to_owned(), flavour.service());
        let mut peer = Self { client, id, service, pid: 0, _log: log, events };
        let options = Options {
            binary_name: runtime.display().to_string(),
            root: scope.make_dir(&format!("{name}-root"))?.display().to_string(),
            ..Options::default()
        };
        let request = CreateTaskRequest {
            id: peer.id.clone(),
            bundle: bundle.dir().display().to_string(),
            options: Some(any("containerd.runc.v1.Options", &options)),
            ..CreateTaskRequest::default()
        };
        if let Err(error) = peer.call::<CreateTaskResponse>("Create", &request).await {
            peer.shut_down().await?;
            return Err(error);
        }
        let request = StartRequest { id: peer.id.clone(), ..StartRequest::default() };
        peer.call::<StartResponse>("Start", &request).await?;
        let request = ConnectRequest { id: peer.id.clone() };
        peer.pid = peer.call::<ConnectResponse>("Connect", &request).await?.shim_pid;
        Ok(peer)
    }

    async fn call<A: Default + Message>(&self, method: &str, request: &impl Message) -> Result<A> {
        let answer = self.client.call(self.service, method, request, PATIENCE).await;
        answer.with_context(|| format!("{method} of {}", self.id))
    }

    /// One exec of /bin/true.
    pub(crate) async fn exec(&self) -> Result<()> {
        exec(&self.client, self.service, &self.id).await
    }

    /// Ends container and shim.
    pub(crate) async fn stop(self) -> Result<()> {
        let kill = KillRequest { id: self.id.clone(), signal: 9, all: true, ..KillRequest::default() };
        self.call::<()>("Kill", &kill).await?;
        let wait = WaitRequest { id: self.id.clone(), ..WaitRequest::default() };
        self.call::<WaitResponse>("Wait", &wait).await?;
        let delete = DeleteRequest { id: self.id.clone(), ..DeleteRequest::default() };
        self.call::<DeleteResponse>("Delete", &delete).await?;
        self.shut_down().await
    }

    async fn shut_down(self) -> Result<()> {
        let closed = self.client.closed();
        let request = ShutdownRequest { id: self.id.clone(), now: true };
        // It may be gone before it has answered.
        let _ = self.client.call::<()>(self.service, "Shutdown", &request, PATIENCE).await;
        tokio::time::timeout(DEADLINE, closed.wait()).await.context("containerd's shim stays")
    }
}

/// Runs `start` as containerd does; the path of the socket.
fn start_shim(
    scope: &Scope,
    flavour: &Flavour,
    bundle: &Bundle,
    address: &Path,
    events: &Path,
) -> Result<String> {
    let mut command = Command::new(&flavour.binary);
    command.args(["-namespace", scope.prefix(), "-id", bundle.id()]).arg("-address").arg(address);
    command.arg("start").current_dir(bundle.dir()).env("TTRPC_ADDRESS", events);
    let mut stdin = Vec::new();
    if flavour.newest {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        stdin = BootstrapParams {
            instance_id: bundle.id().to_owned(),
            namespace: scope.prefix().to_owned(),
            containerd_version: "v2.3.0".to_owned(),
            containerd_ttrpc_address: text(events),
            containerd_grpc_address: text(address),
            ..BootstrapParams::default()
        }
        .encode_to_vec();
    }
    let binary = flavour.binary.display();
    let done = run_with_deadline(&mut command, DEADLINE, &stdin)
        .with_context(|| format!("start {binary} (Debian: containerd)"))?
        .ok()?;
    let said = match flavour.newest {
        true => {
            BootstrapResult::decode(done.stdout.as_bytes())
                .with_context(|| format!("{binary} answers {:?}", done.stdout))?
                .address
        }
        false => done.stdout.trim().to_owned(),
    };
    let Some(path) = said.strip_prefix("unix://") else { bail!("not an address: {said:?}") };
    // Debian's leaves its socket's directory to whoever comes next.
    ensure!(fs::exists(path)?, "{binary} names {path}, where nothing is");
    Ok(path.to_owned())
}

/// One exec of /bin/true, as containerd's client makes them: four calls.
pub(crate) async fn exec(client: &Client, service: &str, id: &str) -> Result<()> {
    let (id, exec_id) = (id.to_owned(), "e".to_owned());
    let spec = prost_types::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
        value: process(&["/bin/true"]),
    };
    let request = ExecProcessRequest {
        id: id.clone(),
        exec_id: exec_id.clone(),
        spec: Some(spec),
        ..ExecProcessRequest::default()
    };
    client.call::<()>(service, "Exec", &request, PATIENCE).await.context("exec")?;
    let request = StartRequest { id: id.clone(), exec_id: exec_id.clone() };
    client.call::<StartResponse>(service, "Start", &request, PATIENCE).await.context("start the exec")?;
    let request = WaitRequest { id: id.clone(), exec_id: exec_id.clone() };
    let ended: WaitResponse = client.call(service, "Wait", &request, PATIENCE).await.context("wait")?;
    ensure!(ended.exit_status == 0, "true exited with {}", ended.exit_status);
    let request = DeleteRequest { id, exec_id };
    client.call::<DeleteResponse>(service, "Delete", &request, PATIENCE).await.context("delete the exec")?;
    Ok(())
}
