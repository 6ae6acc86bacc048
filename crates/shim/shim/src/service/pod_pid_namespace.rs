//! CreatePidNamespace: a process of ours that is PID 1 of a new PID namespace.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::rc::Rc;

use corten_sys::exec::{Strings, fexecve};
use corten_sys::process::{Forked, Namespaces, clone, exit};
use corten_task_api::proto::corten::shim::v1::CreatePidNamespaceResponse;
use corten_task_api::ttrpc::Status;

use crate::error;
use crate::serve::Shim;

pub(super) fn create(shim: &Rc<Shim>) -> Result<CreatePidNamespaceResponse, Status> {
    let known = *shim.pod_init.borrow();
    let pid = match known {
        Some(pid) => pid,
        None => spawn(shim)?,
    };
    Ok(CreatePidNamespaceResponse { pid, ns_path: format!("/proc/{pid}/ns/pid") })
}

fn spawn(shim: &Rc<Shim>) -> Result<u32, Status> {
    let failed = |e| error::io("start the pod's init", &e);
    // Everything that allocates before the clone.
    let binary = std::fs::File::open("/proc/self/exe").map_err(failed)?;
    let name = std::env::args_os().next().unwrap_or_default().into_encoded_bytes();
    let name = CString::new(name).unwrap_or_default();
    let arguments = Strings::new(vec![name, c"pod-init".to_owned()]);
    let environment = Strings::new(Vec::new());
    match clone(Namespaces::PID, None, false).map_err(failed)? {
        Forked::Child => {
            drop(fexecve(binary.as_fd(), &arguments, &environment));
            exit(127)
        }
        Forked::Parent { pid, .. } => {
            let pid = pid.cast_unsigned();
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
    }
}
