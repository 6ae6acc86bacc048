//! Kill. Both inits and execs are our children and unreaped while we think they run, so their PIDs are theirs: the
//! signal goes without the runtime.

use corten_task_api::proto::containerd::task::v3::KillRequest;
use corten_task_api::ttrpc::Status;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::error;
use crate::failpoint::Failpoint;
use crate::serve::Shim;
use crate::task::Phase;

const SIGKILL: u32 = 9;

pub(super) async fn kill(shim: &Shim, request: KillRequest) -> Result<(), Status> {
    let task = shim.task(&request.id)?;
    let process = task.process(&request.exec_id)?;
    let whom = match request.exec_id.as_str() {
        "" => format!("container {}", request.id),
        exec_id => format!("exec {exec_id} of container {}", request.id),
    };
    let finished = || error::not_found(format!("kill {whom}: process already finished"));
    let pid = match process.phase() {
        Phase::Stopped { .. } => return Err(finished()),
        phase if phase.pid() == 0 => {
            return Err(error::precondition(format!("kill {whom}: it is {}", phase.name())));
        }
        phase => phase.pid(),
    };
    Failpoint::KillFound.pass()?;
    let init = request.exec_id.is_empty();
    // All of a PID namespace die with its init.
    if init && request.all && !(task.own_pid_namespace && request.signal == SIGKILL) {
        return task.runtime.kill(&task.id, request.signal, true).await.map_err(|e| error::runtime(&e));
    }
    match send(pid, request.signal) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Err(finished()),
        Err(errno) => {
            return Err(error::io(format!("send signal {} to {whom}", request.signal), &errno.into()));
        }
    }
    Failpoint::KillSent.pass()?;
    // Where cgroups are of version 1, the frozen don't die, whoever has frozen them.
    let frozen = || task.cgroup.borrow().as_ref().is_some_and(Cgroup::is_frozen);
    if request.signal == SIGKILL && (task.paused.replace(false) || frozen()) {
        task.runtime.resume(&task.id).await.map_err(|e| error::runtime(&e))?;
    }
    Ok(())
}

/// kill(2) of any number: nix knows no real-time signals.
fn send(pid: u32, signal: u32) -> Result<(), Errno> {
    let pidfd = corten_sys::process::pidfd_open(pid.cast_signed()).map_err(errno)?;
    let number = i32::try_from(signal).map_err(|_| Errno::EINVAL)?;
    debug_assert!(Pid::from_raw(pid.cast_signed()).as_raw() > 0, "0 and less are groups");
    corten_sys::process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&pidfd), number).map_err(errno)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
