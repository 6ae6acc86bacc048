//! The shim itself: composition and main loop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use corten_runtime_client::Reaper;
use corten_task_api::ttrpc::{Server, Status};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::args::Args;
use crate::error;
use crate::events::Events;
use crate::service::Service;
use crate::task::Task;

/// Events taken from the kernel at once: a pod has few at a time, and tokio keeps room for them.
const EVENTS: usize = 64;

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) runtime_binary: PathBuf,
    pub(crate) runtime_root: Option<PathBuf>,
    pub(crate) socket_dir: PathBuf,
    pub(crate) reaper: Reaper,
    pub(crate) events: Rc<Events>,
    pub(crate) tasks: RefCell<HashMap<String, Rc<Task>>>,
    pub(crate) pod_init: RefCell<Option<u32>>,
    /// Told to go.
    pub(crate) leave: Notify,
}

impl Shim {
    pub(crate) fn task(&self, id: &str) -> Result<Rc<Task>, Status> {
        let missing = || error::not_found(format!("no container {id}"));
        self.tasks.borrow().get(id).cloned().ok_or_else(missing)
    }
}

/// Serves until told to go.
///
/// # Errors
/// Only before it serves.
pub fn run(args: Args) -> anyhow::Result<()> {
    let _ = nix::unistd::setsid(); // fails when we lead a session already, which is what we want
    let socket = PathBuf::from(args.socket.strip_prefix("unix://").unwrap_or(&args.socket));
    let listener = take_listener().context("take over the socket")?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS)
        .build()
        .context("start tokio")?;
    LocalSet::new().block_on(&tokio, serve(args, &socket, listener))
}

/// The listening socket is our standard input, and all that we shall have of our parent's.
fn take_listener() -> std::io::Result<UnixListener> {
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(listener)
}

async fn serve(args: Args, socket: &Path, listener: UnixListener) -> anyhow::Result<()> {
    let (reaper, children) = Reaper::new().context("watch children")?;
    tokio::task::spawn_local(reaper.clone().run(children));
    // The machine's shutdown reaches containers first: we stay to the end. Handlers, unlike ignored signals, aren't
    // inherited by what we run.
    let _handlers = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let events_address = match args.address.as_str() {
        "" => String::new(),
        _ => std::env::var("TTRPC_ADDRESS").unwrap_or_else(|_| format!("{}.ttrpc", args.address)),
    };
    let events = Events::new(&args.namespace, &events_address);
    tokio::task::spawn_local(Rc::clone(&events).run());
    let shim = Rc::new(Shim {
        runtime_binary: args.runtime,
        runtime_root: args.runtime_root,
        socket_dir: socket.parent().unwrap_or(Path::new("/run")).to_owned(),
        reaper,
        events,
        tasks: RefCell::default(),
        pod_init: RefCell::default(),
        leave: Notify::new(),
    });
    let listener = tokio::net::UnixListener::from_std(listener).context("listen")?;
    let server = Rc::new(Server::new(Rc::new(Service { shim: Rc::clone(&shim) })));
    tokio::select! {
        () = accept(listener, server) => {}
        () = shim.leave.notified() => {}
    }
    shim.events.flush().await;
    // Before connections close: whoever waits for that finds nothing of us.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

async fn accept(listener: tokio::net::UnixListener, server: Rc<Server<Service>>) {
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
