//! `start`: binds the socket, leaves the shim behind in a session of its own, writes `address` and `shim.pid` into the
//! current directory and tells the address. The socket listens before the address is known to anyone, so a client can't
//! come too early.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use corten_state::{Durability, write_atomic};
use sha2::{Digest, Sha256};

use crate::args::Args;
use crate::bootstrap::{self, Order};
use crate::bundle::Config;
use crate::cgroup::Cgroup;
use crate::options;

/// Set by cortend: its state directory, below which sockets go.
const STATE_DIR: &str = "CORTEN_STATE_DIR";
/// Where sockets go when nobody says.
const SOCKETS: &str = "/run/containerd/s";
/// sockaddr_un's path, with its NUL.
const LONGEST: usize = 107;
/// Nobody is killed sooner.
const OOM_FIRST: i32 = 1000;

/// Starts the shim, or joins the one of the pod.
///
/// # Errors
/// What stands in the way, with paths.
pub(crate) fn run(mut args: Args) -> anyhow::Result<()> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    if args.ttrpc_address.is_empty() {
        args.ttrpc_address = variable("TTRPC_ADDRESS");
    }
    let stdin = bootstrap::read_stdin().context("read what containerd wants")?;
    let order = bootstrap::understand(args, &stdin, std::env::var("MAX_SHIM_VERSION").ok().as_deref());
    if order.args.id.is_empty() {
        bail!("-id is missing");
    }
    let config = match Config::load(Path::new(".")) {
        // A sandbox needs none.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Config::default(),
        config => config.context("load config.json")?,
    };
    let group = config.group().unwrap_or(&order.args.id);
    let socket = socket_path(&order.args, group)?;
    let address = format!("unix://{}", socket.display());
    let Some(listener) = bind(&socket)? else { return tell(&order, &address) };
    let left_behind = leave_behind(&order, &address, listener).and_then(|mut shim| {
        tell(&order, &address).inspect_err(|_| end(&mut shim)) // nobody would know of it
    });
    left_behind.inspect_err(|_| {
        let _ = fs::remove_file(&socket); // it was ours, and nobody listens
    })
}

fn tell(order: &Order, address: &str) -> anyhow::Result<()> {
    write_atomic("address", address, Durability::Volatile).context("write the address file")?;
    let mut stdout = io::stdout();
    stdout.write_all(&bootstrap::answer(order.dialect, address)).context("tell the address")?;
    stdout.flush().context("tell the address")
}

fn end(shim: &mut Child) {
    let _ = shim.kill(); // it serves nobody yet
    let _ = shim.wait();
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
            Ok(listener) => {
                // Whoever may connect is root on this machine.
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                    .with_context(|| format!("protect {}", path.display()))?;
                return Ok(Some(listener));
            }
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

/// Starts the process that stays.
fn leave_behind(order: &Order, address: &str, listener: UnixListener) -> anyhow::Result<Child> {
    let args = &order.args;
    // By its own path, so that people find it by its name, unless it has been replaced since it started.
    let own = fs::read_link("/proc/self/exe").ok().filter(|path| path.exists());
    let mut command = Command::new(own.unwrap_or_else(|| "/proc/self/exe".into()));
    command
        .args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address])
        .args(["-ttrpc-address", &args.ttrpc_address, "-publish-binary", &args.publish_binary])
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
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        // Inherited by the shim and all that it starts.
        corten_sys::sched::new_core_group().context("SCHED_CORE: have a core to itself")?;
    }
    let mut child = command.spawn().context("start the shim")?;
    let placed = place(order, &child).and_then(|()| {
        write_atomic("shim.pid", child.id().to_string(), Durability::Volatile).context("write the PID file")
    });
    match placed {
        Ok(()) => Ok(child),
        Err(error) => {
            end(&mut child);
            Err(error)
        }
    }
}

/// Puts the shim where the options want it, and makes the kernel choose it before containerd when it's out of memory.
fn place(order: &Order, shim: &Child) -> anyhow::Result<()> {
    // Options of another type are Create's to refuse.
    let cgroup =
        options::decode(order.options.as_ref()).map(|options| options.shim_cgroup).unwrap_or_default();
    if !cgroup.is_empty() {
        Cgroup::named(&cgroup)
            .admit(shim.id())
            .with_context(|| format!("join the shim's cgroup {cgroup}"))?;
    }
    let file = |pid: u32| format!("/proc/{pid}/oom_score_adj");
    let parents = fs::read_to_string(file(parent_id())).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = parents.map(|score| (score + 1).min(OOM_FIRST)) {
        // Without CAP_SYS_RESOURCE it can't become less than it was: then it stays.
        let _ = fs::write(file(shim.id()), score.to_string());
    }
    Ok(())
}
