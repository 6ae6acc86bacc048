//! `delete`: a shim was killed, this clears up after it.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, anyhow};
use corten_runtime_client::{Kind, Patience, Reaper, Runtime};
use corten_task_api::proto::containerd::task::v3::DeleteResponse;
use corten_task_api::time::{now_ns, to_timestamp};
use tokio::task::LocalSet;

use crate::args::Args;
use crate::bundle::{self, ExitRecord, RuntimeRecord};
use crate::containers::default_root;
use crate::mounts;

/// Kills and deletes the container, unmounts its root file system. What is gone already is no error.
pub(crate) fn run(args: &Args, bundle: &Path) -> anyhow::Result<DeleteResponse> {
    let deleted = delete_container(args, bundle);
    // The rest even if that failed: as little as possible shall be left.
    let unmounted = mounts::unmount_all(&bundle.join("rootfs"));
    forget_socket(bundle);
    let exit = bundle::read(bundle, "exit.json").unwrap_or(ExitRecord {
        exit_status: 137,
        exited_at_ns: now_ns(),
        oom_killed: false,
    });
    deleted?;
    unmounted?;
    let pid = std::fs::read_to_string(bundle.join("init.pid")).ok().and_then(|t| t.trim().parse().ok());
    Ok(DeleteResponse {
        pid: pid.unwrap_or(0),
        exit_status: exit.exit_status,
        exited_at: to_timestamp(exit.exited_at_ns),
    })
}

/// A shim that was killed leaves its socket behind. The one of a pod's other container still listens.
fn forget_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return };
    let socket = Path::new(address.trim().trim_start_matches("unix://"));
    if UnixStream::connect(socket).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
        let _ = std::fs::remove_file(socket); // the next shim of that name would do it, too
    }
}

fn delete_container(args: &Args, bundle: &Path) -> anyhow::Result<()> {
    let record = bundle::read::<RuntimeRecord>(bundle, "runtime.json");
    if record.is_none() && !bundle.join("init.pid").exists() && args.runtime_root.is_none() {
        return Ok(()); // no container was ever created here
    }
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    LocalSet::new().block_on(&tokio, async {
        let (reaper, children) = Reaper::new().context("watch children")?;
        tokio::task::spawn_local(reaper.clone().run(children));
        let root = args.runtime_root.clone().unwrap_or_else(|| default_root(&args.namespace));
        let record = record.unwrap_or(RuntimeRecord {
            binary: args.runtime.to_string_lossy().into_owned(),
            root: Some(root.to_string_lossy().into_owned()),
            systemd_cgroup: false,
        });
        let runtime = Runtime {
            binary: record.binary.into(),
            root: record.root.map(Into::into),
            systemd_cgroup: record.systemd_cgroup,
            no_pivot: false,
            no_new_keyring: false,
            patience: Patience::default(),
            reaper,
        };
        match runtime.delete(&args.id, true).await {
            Err(error) if error.kind() != Kind::NotFound => Err(anyhow!(error)),
            _ => Ok(()),
        }
    })
}
