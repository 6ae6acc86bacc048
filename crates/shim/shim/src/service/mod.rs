//! The services, one file per call that is more than a few lines.

mod checkpoint;
mod corten;
mod create;
mod delete;
mod exec;
mod exec_sync;
mod kill;
mod pod_pid_namespace;
mod query;
mod sandbox;
mod start;
mod update;

use std::rc::Rc;

use corten_task_api::services::{CORTEN, SANDBOX, TASK};
use corten_task_api::ttrpc::{Call, Router, Status, respond};

use crate::containers::Shim;
use crate::error;

/// Finds the method for a call.
#[derive(Debug)]
pub struct Service {
    pub(crate) shim: Rc<Shim>,
}

impl Router for Service {
    async fn call(self: Rc<Self>, call: Call) -> Result<Vec<u8>, Status> {
        if TASK.contains(&call.service.as_str()) {
            let result = self.task(&call).await;
            if matches!(call.method.as_str(), "Create" | "Start" | "Delete") {
                // Between those a pod is idle, for months perhaps.
                corten_sys::memory::trim_heap();
            }
            result
        } else if call.service == SANDBOX {
            sandbox::call(&self.shim, &call).await
        } else if call.service == CORTEN {
            self.corten(&call).await
        } else {
            Err(Status::new(
                corten_task_api::ttrpc::Code::Unimplemented,
                format!("no service {:?}", call.service),
            ))
        }
    }
}

impl Service {
    async fn task(&self, call: &Call) -> Result<Vec<u8>, Status> {
        let shim = &self.shim;
        match call.method.as_str() {
            "Create" => respond(call, |q| create::create(shim, q)).await,
            "Start" => respond(call, |q| start::start(shim, q)).await,
            "Delete" => respond(call, |q| delete::delete(shim, q)).await,
            "Exec" => respond(call, async |q| exec::exec(shim, q)).await,
            "Checkpoint" => respond(call, |q| checkpoint::checkpoint(shim, q)).await,
            "Kill" => respond(call, |q| kill::kill(shim, q)).await,
            "Wait" => respond(call, |q| query::wait(shim, q, call)).await,
            "State" => respond(call, async |q| query::state(shim, &q)).await,
            "Pids" => respond(call, async |q| query::pids(shim, &q)).await,
            "Stats" => respond(call, async |q| query::stats(shim, &q)).await,
            "Connect" => respond(call, async |q| Ok(query::connect(shim, &q))).await,
            "CloseIO" => respond(call, async |q| update::close_io(shim, &q)).await,
            "ResizePty" => respond(call, async |q| update::resize_pty(shim, &q)).await,
            "Pause" => respond(call, |q| update::pause(shim, q)).await,
            "Resume" => respond(call, |q| update::resume(shim, q)).await,
            "Update" => respond(call, |q| update::update(shim, q)).await,
            "Shutdown" => respond(call, async |q| self.shutdown(&q)).await,
            _ => Err(call.unimplemented()),
        }
    }

    async fn corten(&self, call: &Call) -> Result<Vec<u8>, Status> {
        let shim = &self.shim;
        match call.method.as_str() {
            "ExecSync" => respond(call, |q| exec_sync::exec_sync(shim, q, call)).await,
            "ReopenLog" => respond(call, |q| corten::reopen_log(shim, q)).await,
            "List" => respond(call, async |()| Ok(corten::list(shim))).await,
            "CreatePidNamespace" => respond(call, |()| pod_pid_namespace::create(shim)).await,
            _ => Err(call.unimplemented()),
        }
    }

    /// Goes when nothing is left to look after, or when told `now`. May be called again and again.
    fn shutdown(
        &self,
        request: &corten_task_api::proto::containerd::task::v3::ShutdownRequest,
    ) -> Result<(), Status> {
        let idle = self.shim.tasks.borrow().is_empty() && self.shim.sandbox.borrow().is_none();
        if request.now || idle {
            self.shim.go();
        }
        Ok(())
    }
}

/// An id becomes part of paths and command lines.
fn check_id(what: &str, id: &str) -> Result<(), Status> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    if id.is_empty() || id.len() > 255 || !id.chars().all(allowed) || id.starts_with(['.', '-']) {
        return Err(error::invalid(format!("{what} {id:?} isn't 1 to 255 letters, digits, -, _, . or +")));
    }
    Ok(())
}

/// The runtime would say it in its own words, and not whose fault it is.
fn check_json(what: &str, json: &[u8]) -> Result<(), Status> {
    serde_json::from_slice::<std::collections::HashMap<String, serde::de::IgnoredAny>>(json)
        .map(drop)
        .map_err(|e| error::invalid(format!("{what} isn't an object in JSON: {e}")))
}
