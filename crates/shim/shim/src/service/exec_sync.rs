//! ExecSync: a probe in one round trip and one run of the runtime, nothing on disk but a PID file.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use corten_runtime_client::{Exited, Io};
use corten_task_api::proto::corten::shim::v1::{ExecSyncRequest, ExecSyncResponse};
use corten_task_api::ttrpc::{Call, Code, Status};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::net::unix::pipe;

use super::start::pid_file;
use crate::containers::Shim;
use crate::exec_cgroup::ExecCgroup;
use crate::failpoint::Failpoint;
use crate::task::Task;
use crate::{error, tree};

const DEFAULT_OUTPUT: usize = 1 << 20;
/// Two of them and the rest fit into a frame of 4 MiB.
const MOST_OUTPUT: usize = 7 << 18;
/// How long the killed may take to go.
const GRACE: Duration = Duration::from_secs(2);
/// What is read at most once the process has ended: a child of it may write for ever.
const DRAIN: usize = 1 << 20;

pub(super) async fn exec_sync(
    shim: &Rc<Shim>,
    request: ExecSyncRequest,
    call: &Call,
) -> Result<ExecSyncResponse, Status> {
    let task = shim.task(&request.id)?;
    task.require_running("exec")?;
    let limit = match usize::try_from(request.max_output).unwrap_or(usize::MAX) {
        0 => DEFAULT_OUTPUT,
        n => n.min(MOST_OUTPUT),
    };
    let (stdout, out) = Capture::new(limit)?;
    let (stderr, err) = Capture::new(limit)?;
    Failpoint::ProbeOpened.pass()?;
    let pids = Pids { cgroup: ExecCgroup::new(&task), ..Pids::default() };
    let ending =
        run(shim, &task, &request.process_json, Io::Streams(Stdio::null(), out.into(), err.into()), &pids);
    let ending = async {
        tokio::select! {
            biased;
            ended = ending => ended,
            never = async { tokio::join!(stdout.read(), stderr.read()).0 } => match never {},
        }
    };
    tokio::pin!(ending);
    let timeout = async {
        match request.timeout_ms {
            0 => std::future::pending().await,
            ms => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = &mut ending => Some(ended?),
        () = timeout => None,
        () = call.gone() => {
            pids.kill_until(ending).await;
            return Err(Status::new(Code::Cancelled, "nobody waits any more"));
        }
    };
    let timed_out = ended.is_none();
    let exit_code = match ended {
        Some(exited) => exited.status,
        None => {
            pids.kill_until(ending).await;
            137
        }
    };
    Ok(ExecSyncResponse {
        exit_code,
        stdout: stdout.finish(),
        stderr: stderr.finish(),
        timed_out,
        truncated: stdout.truncated.get() || stderr.truncated.get(),
    })
}

/// Who is to be killed when it takes too long.
#[derive(Default)]
struct Pids {
    runtime: Cell<Option<u32>>,
    process: Cell<Option<u32>>,
    /// Where there is one, it has all of them.
    cgroup: Option<ExecCgroup>,
}

impl Pids {
    /// Kills until it has ended: the runtime may just have handed the process over, so that neither is found at first.
    /// What is in the kernel's hands (frozen, in state D) isn't waited for.
    async fn kill_until<T>(&self, mut ending: Pin<&mut impl Future<Output = T>>) {
        let mut pause = Duration::from_millis(10);
        while pause < GRACE {
            self.kill();
            if tokio::time::timeout(pause, ending.as_mut()).await.is_ok() {
                break;
            }
            pause *= 2;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.clear().await;
        }
    }

    fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        let roots: Vec<u32> = self.runtime.get().into_iter().chain(self.process.get()).collect();
        if !roots.is_empty() {
            tree::kill_tree(&roots);
        }
    }
}

async fn run(shim: &Shim, task: &Task, process: &[u8], io: Io, pids: &Pids) -> Result<Exited, Status> {
    let pid_file = pid_file(task);
    let failed = |e| error::runtime(&e);
    let hold = shim.reaper.hold();
    let cgroup = pids.cgroup.as_ref().map(ExecCgroup::option);
    let launch = task.runtime.exec_in(&task.id, process, &pid_file, io, cgroup).map_err(failed)?;
    pids.runtime.set(Some(launch.runtime_pid));
    Failpoint::ProbeLaunched.pass().inspect_err(|_| pids.kill())?;
    let started = task.runtime.exec_started(launch, &pid_file).await;
    pids.runtime.set(None);
    let started = started.map_err(failed)?;
    drop(hold);
    pids.process.set(Some(started.pid));
    Failpoint::ProbeStarted.pass().inspect_err(|_| pids.kill())?;
    let exited = started.exit.await;
    pids.process.set(None);
    Ok(exited)
}

/// What a process writes into a pipe, up to a limit; the rest is read and discarded.
struct Capture {
    pipe: pipe::Receiver,
    kept: RefCell<Vec<u8>>,
    limit: usize,
    truncated: Cell<bool>,
}

enum Never {}

impl Capture {
    /// Our end and the process's.
    fn new(limit: usize) -> Result<(Self, OwnedFd), Status> {
        let failed = |e: io::Error| error::io("make a pipe", &e);
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(|e: Errno| failed(e.into()))?;
        let pipe = pipe::Receiver::from_owned_fd(ours).map_err(failed)?;
        let capture = Self { pipe, kept: RefCell::default(), limit, truncated: Cell::new(false) };
        Ok((capture, theirs))
    }

    /// Reads as long as it is polled.
    async fn read(&self) -> Never {
        let mut buffer = [0; 4096];
        while self.pipe.readable().await.is_ok() {
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.keep(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        std::future::pending().await
    }

    /// Takes what the process wrote before it ended, and doesn't wait for children of it that have the pipe open, too.
    fn finish(&self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let mut drained = 0;
        // Not try_read: it asks the kernel only when epoll has said that there is something, and we haven't waited.
        while let Ok(n @ 1..) = nix::unistd::read(&self.pipe, &mut buffer) {
            self.keep(&buffer[..n]);
            drained += n;
            if drained >= DRAIN {
                break;
            }
        }
        self.kept.take()
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.kept.borrow_mut();
        let room = self.limit - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated.set(self.truncated.get() || bytes.len() > room);
    }
}
