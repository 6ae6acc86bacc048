//! Containers as a workload: what `containerd-shim-corten-v2` keeps, with any OCI runtime.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::Context;
use corten_runtime_client::Reaper;
use corten_task_api::proto::containerd::task::v3::DeleteResponse;
use corten_task_api::proto::containerd::types::{RuntimeInfo, RuntimeVersion};
use corten_task_api::ttrpc::{Code, Status};
use prost_types::Any;
use tokio::sync::{Mutex, Notify};

use crate::args::Args;
use crate::events::Events;
use crate::sandbox::{Init, Sandbox};
use crate::service::Service;
use crate::task::Task;
use crate::workload::{Host, Workload};
use crate::{delete, error, options};

/// The runtime when nobody names one.
pub(crate) const RUNTIME: &str = "corten";
/// What a runtime's `features` are as a typeurl.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Containers of one pod.
#[derive(Clone, Copy, Debug)]
pub struct Containers;

impl Workload for Containers {
    type Service = Service;

    fn name(&self) -> &'static str {
        "containerd-shim-corten-v2"
    }

    fn service(&self, host: Host) -> Rc<Service> {
        let socket = PathBuf::from(host.args.socket.strip_prefix("unix://").unwrap_or(&host.args.socket));
        let shim = Shim {
            runtime_binary: host.args.runtime,
            runtime_root: host.args.runtime_root.unwrap_or_else(|| default_root(&host.args.namespace)),
            namespace: host.args.namespace,
            socket_dir: socket.parent().unwrap_or(Path::new("/run")).to_owned(),
            reaper: host.reaper,
            events: host.events,
            tasks: RefCell::default(),
            pod_init: Mutex::default(),
            sandbox: RefCell::default(),
            leaving: Cell::default(),
            leave: host.leave,
        };
        Rc::new(Service { shim: Rc::new(shim) })
    }

    fn delete(&self, args: &Args, bundle: &Path) -> anyhow::Result<DeleteResponse> {
        delete::run(args, bundle)
    }

    fn info(&self, given: Option<Any>) -> anyhow::Result<RuntimeInfo> {
        let binary = match options::decode(given.as_ref())?.binary_name {
            name if name.is_empty() => RUNTIME.to_owned(),
            name => name,
        };
        let output = Command::new(&binary).arg("features").output();
        let output = output.with_context(|| format!("run {binary} features"))?;
        // An old runtime has no such command: then nothing is known, which is no error.
        let known =
            output.status.success() && serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok();
        let features = known.then(|| Any { type_url: FEATURES.to_owned(), value: output.stdout });
        Ok(RuntimeInfo {
            name: self.name().to_owned(),
            version: Some(RuntimeVersion {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                revision: String::new(),
            }),
            options: given,
            features,
            ..RuntimeInfo::default()
        })
    }
}

/// Where the runtime keeps its state when nobody says: an id may be taken in each of containerd's namespaces.
pub(crate) fn default_root(namespace: &str) -> PathBuf {
    Path::new("/run/containerd/corten").join(namespace)
}

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) runtime_binary: PathBuf,
    pub(crate) runtime_root: PathBuf,
    pub(crate) namespace: String,
    pub(crate) socket_dir: PathBuf,
    pub(crate) reaper: Reaper,
    pub(crate) events: Rc<Events>,
    pub(crate) tasks: RefCell<HashMap<String, Rc<Task>>>,
    pub(crate) pod_init: Mutex<Option<Init>>,
    pub(crate) sandbox: RefCell<Option<Rc<Sandbox>>>,
    /// It is about to go, or does: nothing new begins.
    pub(crate) leaving: Cell<bool>,
    /// Told to go.
    pub(crate) leave: Rc<Notify>,
}

impl Shim {
    pub(crate) fn task(&self, id: &str) -> Result<Rc<Task>, Status> {
        let missing = || error::not_found(format!("no container {id}"));
        self.tasks.borrow().get(id).cloned().ok_or_else(missing)
    }

    /// Refuses what would begin in a shim that goes.
    pub(crate) fn check_stays(&self, what: &str, id: &str) -> Result<(), Status> {
        if self.leaving.get() {
            let what = format!("{what} {id}: this shim was told to shut down and ends; start another");
            return Err(Status::new(Code::Unavailable, what));
        }
        Ok(())
    }

    /// Goes, the answer to whoever has asked first.
    pub(crate) fn go(&self) {
        self.leaving.set(true);
        let leave = Rc::clone(&self.leave);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            leave.notify_one();
        });
    }
}
