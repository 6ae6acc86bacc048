//! containerd's own shim, driven as containerd drives it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use corten_task_api::proto::containerd::runc::v1::Options;
use corten_task_api::proto::containerd::task::v3::{
    CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest,
    ShutdownRequest, StartRequest, StartResponse, WaitRequest, WaitResponse,
};
use corten_task_api::services::{TASK, any};
use corten_task_api::ttrpc::Client;
use integration_shim::process;
use integration_support::{Bundle, Kind, Scope};

/// The Task service as all shims know it.
const SERVICE: &str = TASK[0];
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// A running container under containerd's shim.
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) id: String,
}

impl Peer {
    /// Starts the shim and in it a container with a runtime of Debian's.
    pub(crate) async fn start(scope: &Scope, kind: Kind) -> Result<Self> {
        let runtime = kind.find().with_context(|| format!("{} isn't installed", kind.name()))?;
        let name = format!("peer-{}", kind.name());
        let bundle = Bundle::sh(scope, &name, "exec sleep 100000").write()?;
        let mut command = Command::new("containerd-shim-runc-v2");
        command.args(["-namespace", scope.prefix(), "-id", bundle.id()]);
        command.arg("-address").arg(scope.path("no-containerd")).arg("start");
        command.current_dir(bundle.dir()).env("TTRPC_ADDRESS", scope.path("no-containerd.ttrpc"));
        // Its child keeps what it inherits, so stderr isn't a pipe that would have to end.
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let output = output.context("start containerd-shim-runc-v2 (Debian: containerd)")?;
        ensure!(output.status.success(), "containerd-shim-runc-v2 start: {}", output.status);
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let Some(address) = said.strip_prefix("unix://") else { bail!("not an address: {said:?}") };
        let client = Client::connect(Path::new(address)).await?;
        let peer = Self { client, id: bundle.id().to_owned() };
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
        if let Err(error) =
            peer.client.call::<CreateTaskResponse>(SERVICE, "Create", &request, PATIENCE).await
        {
            peer.shut_down().await?;
            return Err(error).context("create");
        }
        let request = StartRequest { id: peer.id.clone(), ..StartRequest::default() };
        peer.client.call::<StartResponse>(SERVICE, "Start", &request, PATIENCE).await.context("start")?;
        Ok(peer)
    }

    /// Ends container and shim.
    pub(crate) async fn stop(self) -> Result<()> {
        let kill = KillRequest { id: self.id.clone(), signal: 9, all: true, ..KillRequest::default() };
        self.client.call::<()>(SERVICE, "Kill", &kill, PATIENCE).await.context("kill")?;
        let wait = WaitRequest { id: self.id.clone(), ..WaitRequest::default() };
        self.client.call::<WaitResponse>(SERVICE, "Wait", &wait, PATIENCE).await.context("wait")?;
        let delete = DeleteRequest { id: self.id.clone(), ..DeleteRequest::default() };
        self.client.call::<DeleteResponse>(SERVICE, "Delete", &delete, PATIENCE).await.context("delete")?;
        self.shut_down().await
    }

    async fn shut_down(self) -> Result<()> {
        let closed = self.client.closed();
        let request = ShutdownRequest { id: self.id, now: true };
        // It may be gone before it has answered.
        let _ = self.client.call::<()>(SERVICE, "Shutdown", &request, PATIENCE).await;
        closed.wait().await;
        Ok(())
    }
}

/// One exec of /bin/true, as containerd's client makes them: four calls.
pub(crate) async fn exec(client: &Client, id: &str) -> Result<()> {
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
    client.call::<()>(SERVICE, "Exec", &request, PATIENCE).await.context("exec")?;
    let request = StartRequest { id: id.clone(), exec_id: exec_id.clone() };
    client.call::<StartResponse>(SERVICE, "Start", &request, PATIENCE).await.context("start the exec")?;
    let request = WaitRequest { id: id.clone(), exec_id: exec_id.clone() };
    let ended: WaitResponse = client.call(SERVICE, "Wait", &request, PATIENCE).await.context("wait")?;
    ensure!(ended.exit_status == 0, "true exited with {}", ended.exit_status);
    let request = DeleteRequest { id, exec_id };
    client.call::<DeleteResponse>(SERVICE, "Delete", &request, PATIENCE).await.context("delete the exec")?;
    Ok(())
}
