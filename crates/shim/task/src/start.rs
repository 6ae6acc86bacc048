//! Starting shims by containerd's start protocol, and finding them again.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use corten_task_api::ttrpc::Code;
use tokio::process::Command;

use crate::{Error, Result, Shim};

/// How long a live shim may take to answer a daemon that comes back.
const RECONNECT: Duration = Duration::from_secs(10);

/// How often a shim may take a connection and drop it before it counts as dead, and how long it is left alone between.
const DYING: usize = 20;
const TEARDOWN: Duration = Duration::from_millis(10);

/// The file in a sandbox's directory that holds the address of its shim.
pub(crate) const ADDRESS: &str = "address";

/// How shims are started.
#[derive(Debug, Clone)]
pub struct ShimConfig {
    /// `containerd-shim-corten-v2`, or another one that speaks `corten.shim.v1`.
    pub binary: PathBuf,
    /// The OCI runtime that the shims drive.
    pub runtime_binary: PathBuf,
    /// The runtime's `--root`.
    pub runtime_root: PathBuf,
    /// The daemon's state directory: where shims may put their sockets.
    pub state_dir: PathBuf,
    /// containerd's notion of a tenant; part of the socket's name.
    pub namespace: String,
}

/// Starts shims and finds them again.
#[derive(Debug, Clone)]
pub struct Shims {
    pub(crate) config: ShimConfig,
}

impl Shims {
    /// Shims as `config` says.
    #[must_use]
    pub fn new(config: ShimConfig) -> Self {
        Self { config }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ShimConfig {
        &self.config
    }

    /// Starts the shim of a sandbox with `dir` as its working directory, and connects to it.
    ///
    /// The address is left in `dir/address` for a later [`Self::reconnect`].
    ///
    /// # Errors
    /// [`Error::Spawn`], [`Error::Start`] with what the shim wrote, [`Error::Connect`].
    pub async fn start(&self, sandbox_id: &str, dir: &Path) -> Result<Shim> {
        let mut command = Command::new(&self.config.binary);
        command.args(["-namespace", &self.config.namespace, "-id", sandbox_id, "-address", ""]);
        command.arg("-bundle").arg(dir).arg("start").current_dir(dir);
        command.env("CORTEN_STATE_DIR", &self.config.state_dir);
        // kill_on_drop: only `start` itself, which ends at once; the shim has a session of its own.
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.map_err(|source| Error::Spawn { binary: self.config.binary.clone(), source })?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || said.is_empty() {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let reason = format!("{}: {}", output.status, if stderr.is_empty() { &said } else { &stderr });
            return Err(Error::Start { id: sandbox_id.to_owned(), reason });
        }
        let path = dir.join(ADDRESS);
        corten_state::write_atomic(&path, &said, corten_state::Durability::Volatile)
            .map_err(|error| Error::File { operation: "write", path, source: io::Error::other(error) })?;
        self.connect(sandbox_id, &said).await
    }

    /// Finds the shim that serves a sandbox, or None if there is none: it was never started, or is dead.
    ///
    /// # Errors
    /// When that can't be told: a live shim that doesn't answer is not a dead one.
    pub async fn reconnect(&self, sandbox_id: &str, dir: &Path) -> Result<Option<Shim>> {
        let path = dir.join(ADDRESS);
        let address = match tokio::fs::read_to_string(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { operation: "read", path, source }),
        };
        for _ in 0..DYING {
            let shim = match self.connect(sandbox_id, address.trim()).await {
                Ok(shim) => shim,
                Err(Error::Connect { source, .. }) if nobody_listens(&source) => return Ok(None),
                Err(error) => return Err(error),
            };
            // Only a shim that answers is a shim. One that is being torn down may still take connections, and drops them.
            match shim.ping(RECONNECT).await {
                Ok(()) => return Ok(Some(shim)),
                Err(error) if error.code() == Code::Unavailable => tokio::time::sleep(TEARDOWN).await,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn connect(&self, sandbox_id: &str, address: &str) -> Result<Shim> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let client = corten_task_api::ttrpc::Client::connect(Path::new(path)).await.map_err(|source| {
            Error::Connect { id: sandbox_id.to_owned(), address: address.to_owned(), source }
        })?;
        Ok(Shim::new(sandbox_id, client, &self.config))
    }
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shims(binary: &str) -> Shims {
        Shims::new(ShimConfig {
            binary: binary.into(),
            runtime_binary: "corten".into(),
            runtime_root: "/nonexistent".into(),
            state_dir: "/nonexistent".into(),
            namespace: "test".into(),
        })
    }

    #[tokio::test]
    async fn a_shim_that_fails_is_told_with_its_words() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = dir.path().join("shim");
        // By another process: a descriptor of ours that is open for writing would be inherited by what the tests beside
        // this one start just then, and the script couldn't be executed (ETXTBSY).
        let text = r"printf '#!/bin/sh\necho no room >&2\nexit 3\n' >$0; chmod 755 $0";
        let written = std::process::Command::new("sh").arg("-c").arg(text).arg(&script).status();
        assert!(written.expect("a shell").success());
        let error =
            shims(script.to_str().expect("UTF-8")).start("pod", dir.path()).await.expect_err("it fails");
        let text = error.to_string();
        assert!(text.contains("pod") && text.contains("no room") && text.contains('3'), "{text}");
        assert!(!dir.path().join(ADDRESS).exists());
    }

    #[tokio::test]
    async fn a_dead_socket_is_no_shim_and_no_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let shims = shims("/nonexistent");
        assert!(shims.reconnect("pod", dir.path()).await.expect("no address").is_none());
        let socket = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("bindable"));
        std::fs::write(dir.path().join(ADDRESS), format!("unix://{}\n", socket.display())).expect("writable");
        assert!(shims.reconnect("pod", dir.path()).await.expect("nobody listens").is_none());
    }
}
