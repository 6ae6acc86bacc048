//! After a shim died: nobody reaps, logs or waits for its containers any more, so they are taken away.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::start::ADDRESS;
use crate::{Error, Exit, Result, Shims};

/// How long the runtime may take to kill and delete one container.
const DELETE: Duration = Duration::from_secs(30);

/// A container whose shim is dead.
#[derive(Debug, Clone)]
pub struct DeadTask {
    /// The container.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
}

/// `exit.json` in a bundle: how the container ended, written by the shim before it tells anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code; 128 + n after signal n.
    pub exit_status: u32,
    /// Nanoseconds since 1970.
    pub exited_at_ns: i64,
    /// Whether the kernel's OOM killer hit the container's cgroup.
    #[serde(default)]
    pub oom_killed: bool,
}

impl From<ExitRecord> for Exit {
    fn from(record: ExitRecord) -> Self {
        Self { status: record.exit_status, exited_at_ns: record.exited_at_ns, oom_killed: record.oom_killed }
    }
}

/// What the shim recorded about the end of the container in `bundle`; None if it didn't get to that.
///
/// # Errors
/// When the record is there and can't be read.
pub fn read_exit_record(bundle: &Path) -> Result<Option<ExitRecord>> {
    let path = bundle.join("exit.json");
    let failed = |source| Error::File { operation: "read", path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(io::Error::other(error)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

impl Shims {
    /// Takes away what a dead shim of the sandbox in `dir` supervised: kills and deletes the containers through the
    /// runtime, unmounts their root file systems, forgets the shim's address. Returns how each ended, as far as recorded.
    ///
    /// Idempotent. The first failure is returned, after everything has been tried.
    ///
    /// # Errors
    /// [`Error::Cleanup`] for a container that can't be deleted or unmounted.
    pub async fn cleanup_dead(&self, dir: &Path, tasks: &[DeadTask]) -> Result<Vec<Option<Exit>>> {
        let mut exits = Vec::with_capacity(tasks.len());
        let mut failure = None;
        for task in tasks {
            // Read before the deletion, which could make the bundle's owner believe it may go.
            let record = read_exit_record(&task.bundle);
            let removed = self.remove(task).await;
            match (record, removed) {
                (Ok(record), Ok(())) => exits.push(record.map(Exit::from)),
                (Err(error), _) | (_, Err(error)) => {
                    exits.push(None);
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        forget_address(dir).await?;
        Ok(exits)
    }

    async fn remove(&self, task: &DeadTask) -> Result<()> {
        let failed = |reason: String| Error::Cleanup { id: task.id.clone(), reason };
        let mut command = Command::new(&self.config.runtime_binary);
        command.arg("--root").arg(&self.config.runtime_root).args(["delete", "--force", &task.id]);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(DELETE, output)
            .await
            .map_err(|_| {
                failed(format!("{} delete took longer than {DELETE:?}", self.config.runtime_binary.display()))
            })?
            .map_err(|source| Error::Spawn { binary: self.config.runtime_binary.clone(), source })?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        unmount(&task.bundle.join("rootfs"))
            .map_err(|error| failed(format!("can't unmount its rootfs: {error}")))
    }
}

/// Unmounts all that is stacked on `path`. Lazily: a log agent that holds a file in it must not keep a pod from going.
fn unmount(path: &Path) -> nix::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more), or not there at all.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

async fn forget_address(dir: &Path) -> Result<()> {
    let path = dir.join(ADDRESS);
    let remove = |path: PathBuf| async move {
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { operation: "remove", path, source })
            }
            _ => Ok(()),
        }
    };
    if let Ok(address) = tokio::fs::read_to_string(&path).await {
        let socket = address.trim();
        remove(PathBuf::from(socket.strip_prefix("unix://").unwrap_or(socket))).await?;
    }
    remove(path).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShimConfig;

    fn shims(runtime: &Path) -> Shims {
        Shims::new(ShimConfig {
            binary: "/nonexistent".into(),
            runtime_binary: runtime.to_owned(),
            runtime_root: "/nonexistent".into(),
            state_dir: "/nonexistent".into(),
            namespace: "test".into(),
        })
    }

    #[tokio::test]
    async fn recorded_exits_survive_the_shim() {
        let dir = tempfile::tempdir().expect("a directory");
        let record = br#"{"exit_status":137,"exited_at_ns":5,"oom_killed":true}"#;
        std::fs::write(dir.path().join("exit.json"), record).expect("writable");
        std::fs::write(dir.path().join(ADDRESS), "unix:///nonexistent/socket").expect("writable");
        let task = DeadTask { id: "one".into(), bundle: dir.path().to_owned() };
        let exits = shims(Path::new("/bin/true")).cleanup_dead(dir.path(), &[task]).await.expect("clean");
        assert_eq!(exits, [Some(Exit { status: 137, exited_at_ns: 5, oom_killed: true })]);
        assert!(!dir.path().join(ADDRESS).exists());
    }

    #[tokio::test]
    async fn what_the_runtime_cannot_delete_is_an_error_and_the_address_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(ADDRESS), "unix:///nonexistent/socket").expect("writable");
        let task = DeadTask { id: "one".into(), bundle: dir.path().to_owned() };
        let error =
            shims(Path::new("/bin/false")).cleanup_dead(dir.path(), &[task]).await.expect_err("undeletable");
        assert!(error.to_string().contains("one"), "{error}");
        assert!(dir.path().join(ADDRESS).exists());
    }
}
