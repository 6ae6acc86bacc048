//! A private `cortend`: own socket, state, root, CNI configuration, bridge and subnet.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use serde_json::json;

use crate::scope::Scope;
use crate::wait::wait_until;

/// How to start a [`Daemon`].
#[derive(Debug, Clone, Default)]
pub struct DaemonOptions {
    /// More arguments.
    pub args: Vec<String>,
    /// Lines for its configuration file.
    pub config: String,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// The OCI runtime, if not ours.
    pub runtime: Option<PathBuf>,
    /// Leave /etc/cni/net.d's stand-in empty.
    pub no_network: bool,
    /// Look for CNI plugins here instead of where Debian has them.
    pub cni_bin_dir: Option<PathBuf>,
    /// The persistent root, if not a directory of the scope (e.g. a small filesystem to fill).
    pub root: Option<PathBuf>,
}

/// A running `cortend`; killed when dropped. What it printed is shown when the test fails.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    dir: PathBuf,
    root: PathBuf,
    options: DaemonOptions,
    bridge: String,
}

impl Daemon {
    /// Starts one in the scope and waits until it takes connections. It's expected to leave no pod, container, lease or
    /// snapshot behind: [`Scope::finish`] will say so.
    ///
    /// # Errors
    /// When it doesn't come up; the message has its log.
    pub fn start(scope: &Scope, options: DaemonOptions) -> Result<Self> {
        let dir = scope.make_dir("d")?;
        let root = options.root.clone().unwrap_or_else(|| dir.join("root"));
        let bridge = scope.link("br");
        let cni = scope.make_dir("d/cni")?;
        if !options.no_network {
            let conf = network(scope, &bridge, &dir.join("leases"));
            fs::write(cni.join("10-test.conflist"), serde_json::to_vec_pretty(&conf)?)?;
        }
        fs::write(dir.join("config.toml"), &options.config).context("write config.toml")?;
        for state in ["state/pods", "state/containers", "state/oci"] {
            scope.expect_empty(dir.join(state));
        }
        for records in ["records/sandboxes", "records/containers"] {
            scope.expect_empty(root.join(records));
        }
        let mut daemon = Self { child: None, dir, root, options, bridge };
        daemon.spawn()?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// The socket that it serves CRI on.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("cortend.sock")
    }

    /// Its volatile state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its persistent directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The bridge that pods are connected to. It stays when the last pod goes, as the bridge plugin leaves it;
    /// [`Daemon::stop`] removes it.
    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Its process id; 0 when it isn't running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The addresses that host-local has given out and not taken back.
    #[must_use]
    pub fn leases(&self) -> Vec<String> {
        let mut found = Vec::new();
        for network in fs::read_dir(self.dir.join("leases")).into_iter().flatten().flatten() {
            for lease in fs::read_dir(network.path()).into_iter().flatten().flatten() {
                let name = lease.file_name().to_string_lossy().into_owned();
                if name.parse::<std::net::IpAddr>().is_ok() {
                    found.push(name);
                }
            }
        }
        found
    }

    /// Links of pods that are still plugged into the bridge.
    #[must_use]
    pub fn ports(&self) -> Vec<String> {
        let dir = format!("/sys/class/net/{}/brif", self.bridge);
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("cortend isn't running")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal).context("signal cortend")
    }

    /// SIGKILL, and waits for its end. Shims and containers live on.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("cortend isn't running")?;
        child.kill().context("kill cortend")?;
        child.wait().context("wait for cortend").map(drop)
    }

    /// Starts it again after [`Daemon::kill`] and waits until it takes connections.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.kill()?;
        }
        self.spawn()?;
        self.wait_ready()
    }

    /// SIGTERM, waits for its end, and removes the bridge.
    ///
    /// # Errors
    /// When it doesn't end in time or fails, or when something of a pod is left in the network.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let mut child = self.child.take().context("cortend isn't running")?;
        let ended = crate::command::wait_deadline(&mut child, Duration::from_secs(20))?;
        match ended {
            Some(status) if status.success() => {}
            Some(status) => bail!("cortend ended with {status}: {}", self.log()),
            None => bail!("cortend didn't end on SIGTERM: {}", self.log()),
        }
        let (leases, ports) = (self.leases(), self.ports());
        self.remove_bridge();
        if !leases.is_empty() || !ports.is_empty() {
            bail!("pods left leases {leases:?} and bridge ports {ports:?}");
        }
        Ok(())
    }

    fn spawn(&mut self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log"))?;
        let runtime = match &self.options.runtime {
            Some(path) => path.clone(),
            None => crate::binary("corten")?,
        };
        let cni_bin = self.options.cni_bin_dir.clone().unwrap_or_else(|| PathBuf::from("/usr/lib/cni"));
        let mut command = Command::new(crate::binary("cortend")?);
        command.arg("--config").arg(self.dir.join("config.toml"));
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--state")
            .arg(self.state())
            .arg("--socket")
            .arg(self.socket());
        command.arg("--cni-conf-dir").arg(self.dir.join("cni")).arg("--cni-bin-dir").arg(cni_bin);
        command.arg("--shim").arg(crate::binary("containerd-shim-corten-v2")?).arg("--runtime").arg(runtime);
        command.args(&self.options.args).envs(self.options.env.iter().cloned());
        command.env("RUST_BACKTRACE", "1").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("start cortend")?);
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let (socket, log) = (self.socket(), self.log());
        let child = self.child.as_mut().context("cortend isn't running")?;
        let pid = i32::try_from(child.id())?;
        wait_until("cortend to take connections", Duration::from_secs(20), || {
            if let Some(status) = child.try_wait()? {
                bail!("cortend ended with {status}");
            }
            // One that was killed may still be listening for a moment, in a child that has yet to execute its program.
            let listens = |stream| getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.pid() == pid);
            Ok(UnixStream::connect(&socket).is_ok_and(listens).then_some(()))
        })
        .with_context(|| format!("cortend's log: {log}{}", self.log().trim_start_matches(&log)))
    }

    fn remove_bridge(&self) {
        if Path::new("/sys/class/net").join(&self.bridge).exists() {
            Command::new("ip").args(["link", "del", &self.bridge]).output().ok(); // Scope::finish would tell
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() || self.child.is_some() {
            eprintln!("--- cortend's log ---\n{}--- end of cortend's log ---", self.log());
        }
        if self.child.is_some() {
            self.kill().ok(); // because it may have ended by itself
        }
        self.remove_bridge();
    }
}

/// A bridge with host-local addresses and port mappings, as a node has; nothing is masqueraded.
fn network(scope: &Scope, bridge: &str, leases: &Path) -> serde_json::Value {
    let hash = scope.prefix().bytes().fold(7_u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    let subnet = format!("10.{}.{}.0/24", 64 + hash % 128, hash >> 8 & 0xff);
    json!({
        "cniVersion": "1.0.0",
        "name": format!("{}-net", scope.prefix()),
        "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": subnet}]],
                      "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}
