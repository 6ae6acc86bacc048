//! The process that stays: composition and main loop.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use corten_runtime_client::Reaper;
use corten_task_api::ttrpc::{Router, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::args::Args;
use crate::events::Events;
use crate::workload::{Host, Workload};

/// Events taken from the kernel at once: a pod has few at a time, and tokio keeps room for them.
const EVENTS: usize = 64;

/// Serves until told to go.
///
/// # Errors
/// Only before it serves.
pub(crate) fn run(args: Args, workload: &impl Workload) -> anyhow::Result<()> {
    let _ = nix::unistd::setsid(); // fails when we lead a session already, which is what we want
    let socket = PathBuf::from(args.socket.strip_prefix("unix://").unwrap_or(&args.socket));
    let listener = take_listener().context("take over the socket")?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS)
        .build()
        .context("start tokio")?;
    // Threads beside this one write logs and mount, now and then: an arena of each's own would stay for ever.
    corten_sys::memory::one_arena();
    LocalSet::new().block_on(&tokio, serve(args, workload, &socket, listener))
}

/// The listening socket is our standard input, and all that we shall have of our parent's.
fn take_listener() -> std::io::Result<UnixListener> {
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(listener)
}

async fn serve(
    args: Args,
    workload: &impl Workload,
    socket: &Path,
    listener: UnixListener,
) -> anyhow::Result<()> {
    let (reaper, children) = Reaper::new().context("watch children")?;
    tokio::task::spawn_local(reaper.clone().run(children));
    // The machine's shutdown reaches containers first: we stay to the end. Handlers, unlike ignored signals, aren't
    // inherited by what we run.
    let _handlers = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let events = Events::new(&args, reaper.clone());
    tokio::task::spawn_local(Rc::clone(&events).run());
    let leave = Rc::new(Notify::new());
    let host = Host { args, events: Rc::clone(&events), reaper, leave: Rc::clone(&leave) };
    let listener = tokio::net::UnixListener::from_std(listener).context("listen")?;
    let server = Rc::new(Server::new(workload.service(host)));
    tokio::select! {
        () = accept(&listener, server) => {}
        () = leave.notified() => {}
    }
    // While we listen the path is ours: whoever starts a shim there comes to us. Afterwards it may be a successor's. And
    // before connections close: whoever waits for that finds nothing of us.
    let _ = std::fs::remove_file(socket);
    drop(listener);
    events.flush().await;
    Ok(())
}

async fn accept<R: Router>(listener: &tokio::net::UnixListener, server: Rc<Server<R>>) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                let server = Rc::clone(&server);
                tokio::task::spawn_local(async move {
                    if let Err(error) = server.serve(connection).await {
                        tracing::debug!(%error, "a connection broke");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: it passes.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
