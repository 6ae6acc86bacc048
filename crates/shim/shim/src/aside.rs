//! Work that may hang, on other threads: a file system whose server has gone must hold up nobody else.
//!
//! A thread comes when there is work and none has nothing to do, and goes when it has had nothing to do for a while: an idle pod has
//! none. There is mostly one, because what a thread's stack has used stays with the process.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use corten_task_api::ttrpc::{Code, Status};
use tokio::sync::oneshot;

use crate::error;

/// What is done there needs little.
const STACK: usize = 256 << 10;
/// How long a thread stays without anything to do.
const LINGER: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    /// No more than there are threads that wait.
    jobs: VecDeque<Job>,
    waiting: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { jobs: VecDeque::new(), waiting: 0 });
static MORE: Condvar = Condvar::new();

/// Has a thread do it.
///
/// # Errors
/// When there is none to be had; it is dropped.
pub(crate) fn spawn(job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.waiting > pool.jobs.len() {
        pool.jobs.push_back(Box::new(job));
        MORE.notify_one();
        return Ok(());
    }
    drop(pool);
    let thread = std::thread::Builder::new().name("files".to_owned()).stack_size(STACK);
    thread.spawn(move || {
        job();
        while let Some(job) = next() {
            job();
        }
        // What the work has left behind; the pod may be idle from now on.
        corten_sys::memory::trim_heap();
    })?;
    Ok(())
}

/// The next job; none when there isn't one for a while.
fn next() -> Option<Job> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    pool.waiting += 1;
    let waited = MORE.wait_timeout_while(pool, LINGER, |pool| pool.jobs.is_empty());
    let (mut pool, _) = waited.unwrap_or_else(PoisonError::into_inner);
    pool.waiting -= 1;
    pool.jobs.pop_front()
}

/// Has a thread do it, and waits for what comes of it. Who doesn't wait any longer leaves the thread to itself.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) async fn aside<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let (done, result) = oneshot::channel();
    let spawned = spawn(move || {
        let _ = done.send(work()); // the caller waits, or has given up
    });
    spawned.map_err(|e| error::io(format!("start a thread for {what}"), &e))?;
    result.await.map_err(|_| Status::new(Code::Internal, format!("the thread for {what} has died")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_go_on_while_it_hangs() {
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answer, server) = std::sync::mpsc::channel();
        let hanging = aside("nothing", move || server.recv());
        // The server's answer comes from the same thread, so only if that isn't held up.
        let both = async { tokio::join!(hanging, async { answer.send(()).unwrap() }).0 };
        assert_eq!(tokio.block_on(both).unwrap(), Ok(()));
    }
}
