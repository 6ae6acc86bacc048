//! CreatePidNamespace: a process of ours that is PID 1 of a new PID namespace.

use std::rc::Rc;

use corten_sys::process::Namespaces;
use corten_task_api::proto::corten::shim::v1::CreatePidNamespaceResponse;
use corten_task_api::ttrpc::Status;

use crate::containers::Shim;
use crate::error;
use crate::sandbox::Init;

pub(super) async fn create(shim: &Rc<Shim>) -> Result<CreatePidNamespaceResponse, Status> {
    // Who comes while one is being made waits for that.
    let mut known = shim.pod_init.lock().await;
    let pid = match &*known {
        Some(init) => init.pid(),
        None => known.insert(start(shim).await?).pid(),
    };
    Ok(CreatePidNamespaceResponse { pid, ns_path: format!("/proc/{pid}/ns/pid") })
}

async fn start(shim: &Rc<Shim>) -> Result<Init, Status> {
    // Only its PIDs are for containers. The other namespaces are so that a container that traces it isn't in the host's.
    let new = Namespaces::PID | Namespaces::NET | Namespaces::IPC | Namespaces::UTS;
    let hold = shim.reaper.hold();
    let failed = |e| error::io("make a PID namespace", &e);
    let mut init = Init::start(new, &[], None).map_err(failed)?;
    let end = shim.reaper.watch(init.pid());
    drop(hold);
    init.ready().await.map_err(failed)?;
    let shim = Rc::downgrade(shim);
    tokio::task::spawn_local(async move {
        end.await;
        if let Some(shim) = shim.upgrade() {
            *shim.pod_init.lock().await = None;
        }
    });
    Ok(init)
}
