//! containerd's start protocol: `start` binds the socket, leaves the shim behind in a session of its own, writes
//! `address` and `shim.pid` into the current directory and prints the address. The socket listens before the address is
//! known to anyone, so a client can't come too early.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use corten_state::{Durability, write_atomic};
use sha2::{Digest, Sha256};

use crate::args::Args;
use crate::bundle::Config;

/// Set by cortend: its state directory, below which sockets go.
const STATE_DIR: &str = "CORTEN_STATE_DIR";
/// Where sockets go when nobody says.
const SOCKETS: &str = "/run/containerd/s";
/// sockaddr_un's path, with its NUL.
const LONGEST: usize = 107;

/// Starts the shim, or joins the one of the pod.
///
/// # Errors
/// What stands in the way, with paths.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(Path::new(".")).unwrap_or_default();
    let group = config.group().unwrap_or(&args.id);
    let socket = socket_path(args, group)?;
    let address = format!("unix://{}", socket.display());
    if let Some(listener) = bind(&socket)?
        && let Err(error) = leave_behind(args, &address, listener)
    {
        let _ = fs::remove_file(&socket); // it was ours, and nobody listens
        return Err(error);
    }
    write_atomic("address", &address, Durability::Volatile).context("write the address file")?;
    print!("{address}");
    io::stdout().flush().context("print the address")
}

fn socket_path(args: &Args, group: &str) -> anyhow::Result<PathBuf> {
    let state = || std::env::var_os(STATE_DIR).map(|state| Path::new(&state).join("s"));
    let dir = args.socket_dir.clone().or_else(state).unwrap_or_else(|| SOCKETS.into());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&dir)
        .with_context(|| format!("create {}", dir.display()))?;
    let dir = std::path::absolute(&dir)?;
    let mut hash = Sha256::new();
    for part in [&args.address, &args.namespace, group] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let path = dir.join(name);
    if path.as_os_str().len() > LONGEST {
        bail!(
            "the socket's path {} is longer than {LONGEST} bytes: give a shorter -socket-dir",
            path.display()
        );
    }
    Ok(path)
}

/// None when a shim listens there already.
fn bind(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    for _ in 0..2 {
        match UnixListener::bind(path) {
            Ok(listener) => return Ok(Some(listener)),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Ok(None);
                }
                // Left by one that was killed.
                fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
            }
            Err(e) => return Err(e).with_context(|| format!("listen on {}", path.display())),
        }
    }
    bail!("listen on {}: another shim comes and goes there", path.display())
}

fn leave_behind(args: &Args, address: &str, listener: UnixListener) -> anyhow::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address])
        .args(["-socket", address])
        .arg("-runtime")
        .arg(&args.runtime)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        // What a shim says when it dies is read by whoever wonders why.
        .stderr(fs::File::create("shim.log").map_or_else(|_| Stdio::null(), Stdio::from));
    if let Some(root) = &args.runtime_root {
        command.arg("-runtime-root").arg(root);
    }
    if args.debug {
        command.arg("-debug");
    }
    // systemd's notifications aren't for a container's runtime.
    command
        .arg("serve")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .env_remove(STATE_DIR);
    // What containerd or a careless parent has open isn't for a process that outlives them.
    corten_sys::exec::cloexec_from(3).context("close inherited descriptors")?;
    let child = command.spawn().context("start the shim")?;
    write_atomic("shim.pid", child.id().to_string(), Durability::Volatile).context("write the PID file")
}
