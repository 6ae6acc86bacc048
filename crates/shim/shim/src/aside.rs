//! Work that may hang, on a thread of its own: a file system whose server has gone must hold up nobody else.

use corten_task_api::ttrpc::{Code, Status};
use tokio::sync::oneshot;

use crate::error;

/// What is done there needs little.
pub(crate) const STACK: usize = 256 << 10;

/// Runs it on a thread, which goes with it. Who doesn't wait any longer leaves the thread to itself.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) async fn aside<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(what.to_owned()).stack_size(STACK);
    let thread = thread.spawn(move || {
        let _ = done.send(work()); // the caller waits, or has given up
    });
    let thread = thread.map_err(|e| error::io(format!("start a thread for {what}"), &e))?;
    let result = result.await;
    let _ = thread.join(); // it has sent all there was to say
    result.map_err(|_| Status::new(Code::Internal, format!("the thread for {what} has died")))
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
