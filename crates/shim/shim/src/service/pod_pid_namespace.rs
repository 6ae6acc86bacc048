//! CreatePidNamespace: a process of ours that is PID 1 of a new PID namespace.

use std::rc::Rc;

use corten_sys::process::Namespaces;
use corten_task_api::proto::corten::shim::v1::CreatePidNamespaceResponse;
use corten_task_api::ttrpc::Status;

use crate::containers::Shim;
use crate::error;
use crate::sandbox::spawn_init;

pub(super) fn create(shim: &Rc<Shim>) -> Result<CreatePidNamespaceResponse, Status> {
    let known = *shim.pod_init.borrow();
    let pid = match known {
        Some(pid) => pid,
        None => spawn(shim)?,
    };
    Ok(CreatePidNamespaceResponse { pid, ns_path: format!("/proc/{pid}/ns/pid") })
}

fn spawn(shim: &Rc<Shim>) -> Result<u32, Status> {
    let _hold = shim.reaper.hold();
    let pid = spawn_init(Namespaces::PID, &[], None).map_err(|e| error::io("make a PID namespace", &e))?;
    *shim.pod_init.borrow_mut() = Some(pid);
    let (end, shim) = (shim.reaper.watch(pid), Rc::downgrade(shim));
    tokio::task::spawn_local(async move {
        end.await;
        if let Some(shim) = shim.upgrade() {
            *shim.pod_init.borrow_mut() = None;
        }
    });
    Ok(pid)
}
