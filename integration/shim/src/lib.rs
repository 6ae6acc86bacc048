//! What tests of the shim share: a pod with a shim of its own over any runtime.
#![forbid(unsafe_code)]

pub mod containerd;
pub mod footprint;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use corten_task::{CreateTask, DeadTask, ExecOutput, Shim, ShimConfig, Shims, Task};
use corten_task_api::ttrpc::Client;
use integration_support::{Bundle, DEADLINE, Kind, Runtime, Scope};
use serde_json::{Value, json};

/// A pod: a state directory, a shim, a runtime.
#[derive(Debug)]
pub struct Pod<'a> {
    /// The test's world.
    pub scope: &'a Scope,
    /// The runtime that the shim runs.
    pub runtime: &'a Runtime,
    /// Starts shims.
    pub shims: Shims,
    /// The pod's shim.
    pub shim: Shim,
    /// Its PID.
    pub shim_pid: u32,
    /// Where the shim lives.
    pub dir: PathBuf,
    name: String,
    state: PathBuf,
}

/// Runs a test on one runtime and proves that nothing is left.
///
/// # Errors
/// What the test says, or what was left.
pub fn on(kind: Kind, name: &str, body: impl AsyncFnOnce(&Pod<'_>) -> Result<()>) -> Result<()> {
    on_within(DEADLINE * 2, kind, name, body)
}

/// The same for a test that may take as long as this.
///
/// # Errors
/// What the test says, or what was left.
pub fn on_within(
    deadline: Duration,
    kind: Kind,
    name: &str,
    body: impl AsyncFnOnce(&Pod<'_>) -> Result<()>,
) -> Result<()> {
    if !integration_support::require_root()
        || !integration_support::require_binary("containerd-shim-corten-v2")
    {
        return Ok(());
    }
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Scope::test(name, |scope| {
        let Some(runtime) = Runtime::for_test(kind, scope)? else { return Ok(()) };
        tokio.block_on(async {
            let pod = Pod::start(scope, &runtime).await?;
            let result = tokio::time::timeout(deadline, body(&pod)).await.context("the test hangs");
            let cleaned = pod.clean().await;
            result??;
            cleaned
        })
    })
}

impl<'a> Pod<'a> {
    async fn start(scope: &'a Scope, runtime: &'a Runtime) -> Result<Self> {
        Self::with(scope, runtime, "pod", integration_support::binary("containerd-shim-corten-v2")?).await
    }

    /// A pod of that name whose shim is `binary`.
    ///
    /// # Errors
    /// When it doesn't start.
    pub async fn with(scope: &'a Scope, runtime: &'a Runtime, name: &str, binary: PathBuf) -> Result<Self> {
        let state = scope.make_dir("state")?;
        let dir = scope.make_dir(&format!("state/pods/{name}"))?;
        let shims = Shims::new(ShimConfig {
            binary,
            runtime_binary: runtime_binary(scope, runtime)?,
            runtime_root: runtime.root().to_owned(),
            state_dir: state.clone(),
            namespace: "test".to_owned(),
        });
        let shim = shims.start(&scope.id(name), &dir).await.context("start the shim")?;
        let shim_pid = shim.pid().await?;
        Ok(Self { scope, runtime, shims, shim, shim_pid, dir, name: name.to_owned(), state })
    }

    /// The pod's id.
    #[must_use]
    pub fn id(&self) -> String {
        self.scope.id(&self.name)
    }

    /// Where the container's log goes.
    #[must_use]
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.scope.path(&format!("{name}.log"))
    }

    /// The request for a container from a bundle, which is moved to where the daemon has its bundles. Its output goes
    /// to its log.
    ///
    /// # Errors
    /// When the bundle can't be written.
    pub fn request(&self, name: &str, bundle: Bundle) -> Result<CreateTask> {
        let bundle = bundle.write()?;
        let id = bundle.id().to_owned();
        let containers = self.state.join("containers");
        fs::create_dir_all(&containers)?;
        let dir = containers.join(&id);
        fs::rename(bundle.dir(), &dir)?;
        let log = format!("cri://{}?max-line=16384", self.log_path(name).display());
        Ok(CreateTask { id, bundle: dir, stdout: log.clone(), stderr: log, ..CreateTask::default() })
    }

    /// Creates and starts a container that runs a shell script.
    ///
    /// # Errors
    /// The shim's.
    pub async fn sh(&self, name: &str, script: &str) -> Result<String> {
        self.run(self.request(name, Bundle::sh(self.scope, name, script))?).await
    }

    /// Creates and starts a container.
    ///
    /// # Errors
    /// The shim's.
    pub async fn run(&self, request: CreateTask) -> Result<String> {
        let id = request.id.clone();
        self.shim.create(request).await?;
        self.shim.start(&id).await?;
        Ok(id)
    }

    /// Runs a script in a container.
    ///
    /// # Errors
    /// The shim's.
    pub async fn exec(&self, id: &str, script: &str, timeout: Option<Duration>) -> Result<ExecOutput> {
        Ok(self.shim.exec_sync(id, process(&["/bin/sh", "-c", script]), timeout, 0).await?)
    }

    /// Kills a container, waits for its end and deletes it.
    ///
    /// # Errors
    /// The shim's.
    pub async fn remove(&self, id: &str) -> Result<()> {
        self.shim.kill(id, "", 9, false).await.or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) })?;
        self.shim.wait(id).await?;
        self.shim.delete(id).await?;
        Ok(())
    }

    /// The contents of a log's lines: stream, tag, text.
    ///
    /// # Errors
    /// When a line isn't one.
    pub fn log(&self, name: &str) -> Result<Vec<(String, String, String)>> {
        parse_log(&self.log_path(name))
    }

    /// Takes all away that a test has left in the shim, and the shim.
    ///
    /// # Errors
    /// When that can't be done, or something is left.
    pub async fn clean(&self) -> Result<()> {
        match self.shims.reconnect(&self.id(), &self.dir).await? {
            Some(shim) => {
                for task in shim.list().await? {
                    let _ = shim.kill(&task.id, "", 9, true).await; // may have ended
                    shim.wait(&task.id).await?;
                    shim.delete(&task.id).await?;
                }
                let closed = shim.closed();
                shim.shutdown().await?;
                tokio::time::timeout(DEADLINE, closed.wait()).await.context("the shim stays")?;
            }
            None => drop(self.shims.cleanup_dead(&self.dir, &self.dead()).await?),
        }
        let sockets: Vec<_> = fs::read_dir(self.state.join("s"))?.collect();
        ensure!(sockets.is_empty(), "sockets are left: {sockets:?}");
        Ok(())
    }

    /// All bundles there are, as what a dead shim may have left.
    #[must_use]
    pub fn dead(&self) -> Vec<DeadTask> {
        let entries = fs::read_dir(self.state.join("containers")).into_iter().flatten().flatten();
        let task =
            |e: fs::DirEntry| DeadTask { id: e.file_name().to_string_lossy().into_owned(), bundle: e.path() };
        entries.map(task).collect()
    }

    /// Where the daemon keeps a container's bundle.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }

    /// What the shim says of a container.
    ///
    /// # Errors
    /// When it doesn't know it.
    pub async fn task(&self, id: &str) -> Result<Task> {
        self.shim.list().await?.into_iter().find(|t| t.id == id).context("no such task")
    }

    /// Another connection to the shim.
    ///
    /// # Errors
    /// When there is no shim.
    pub async fn again(&self) -> Result<Shim> {
        self.shims.reconnect(&self.id(), &self.dir).await?.context("no shim")
    }

    /// A bare connection to the shim.
    ///
    /// # Errors
    /// When there is no shim.
    pub async fn client(&self) -> Result<Client> {
        let address = fs::read_to_string(self.dir.join("address"))?;
        let path = address.trim().strip_prefix("unix://").context("not an address")?;
        Ok(Client::connect(Path::new(path)).await?)
    }
}

/// What the shim is to run. crun refuses a hybrid cgroup layout with controllers on its v2 half: a script hides them.
fn runtime_binary(scope: &Scope, runtime: &Runtime) -> Result<PathBuf> {
    if runtime.kind() != Kind::Crun || !integration_support::hybrid_shows_controllers() {
        return Ok(runtime.binary().to_owned());
    }
    let (script, empty) = (scope.path("crun"), scope.path("no-controllers"));
    fs::write(&empty, "")?;
    let hide = format!("mount --bind {} /sys/fs/cgroup/unified/cgroup.controllers", empty.display());
    let run = format!("exec {} \"$@\"", runtime.binary().display());
    let text =
        format!("#!/bin/sh\nexec unshare -m --propagation unchanged sh -c '{hide} && {run}' crun \"$@\"\n");
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// The lines of a log: stream, tag, text.
///
/// # Errors
/// When a line isn't one.
pub fn parse_log(path: &Path) -> Result<Vec<(String, String, String)>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(text.is_empty() || text.ends_with('\n'), "the log ends within an entry");
    text.lines()
        .map(|line| {
            let fields: Vec<_> = line.splitn(4, ' ').collect();
            let [time, stream, tag, content] = fields.as_slice() else { bail!("not an entry: {line:?}") };
            ensure!(time.len() == 30 && time.ends_with('Z'), "not a time: {line:?}");
            ensure!(
                ["stdout", "stderr"].contains(stream) && ["P", "F"].contains(tag),
                "not an entry: {line:?}"
            );
            Ok(((*stream).to_owned(), (*tag).to_owned(), (*content).to_owned()))
        })
        .collect()
}

/// A `process` for exec.
#[must_use]
pub fn process(args: &[&str]) -> Vec<u8> {
    let process: Value = json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
    });
    process.to_string().into_bytes()
}

/// Whether a process with this PID runs (zombies don't).
#[must_use]
pub fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
