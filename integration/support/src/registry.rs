//! Debian's docker-registry on a free port of loopback.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::scope::Scope;
use crate::wait::wait_until;

/// How to start a [`Registry`].
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Demands this user and password (htpasswd, Basic auth).
    pub auth: Option<(String, String)>,
}

/// A running registry; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    address: SocketAddr,
    dir: PathBuf,
    auth: Option<(String, String)>,
}

impl Registry {
    /// Starts a registry whose files lie in the scope, and waits until it takes connections.
    ///
    /// # Errors
    /// When docker-registry (or, with auth, htpasswd) isn't installed or doesn't come up.
    pub fn start(scope: &Scope, options: &RegistryOptions) -> Result<Self> {
        let address = free_address()?;
        let dir = scope.make_dir(&format!("registry-{}", address.port()))?;
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\nstorage:\n  delete:\n    enabled: true\n  \
             filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n  secret: test\n",
            dir.join("data").display()
        );
        if let Some((user, password)) = &options.auth {
            let line = crate::run(Command::new("htpasswd").args(["-Bbn", user, password]))?.ok()?;
            fs::write(dir.join("htpasswd"), line.stdout)?;
            let path = dir.join("htpasswd");
            config.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display()));
        }
        fs::write(dir.join("config.yml"), config).context("write the registry's configuration")?;
        let child = spawn(&dir)?;
        let mut registry = Self { child, address, dir, auth: options.auth.clone() };
        registry.wait_ready()?;
        Ok(registry)
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The user and password it demands.
    #[must_use]
    pub fn auth(&self) -> Option<(&str, &str)> {
        self.auth.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// Where it keeps blobs and manifests, for tests that damage them.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Ends it; the address stays, so that clients see a registry that is down.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.child.kill().ok(); // because it may have ended by itself
        self.child.wait().context("wait for the registry").map(drop)
    }

    /// Starts it again at the same address with the same data.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.child = spawn(&self.dir)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let (address, log) = (self.address, self.dir.join("log"));
        let child = &mut self.child;
        wait_until("docker-registry to listen", Duration::from_secs(20), || {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "docker-registry ended with {status}: {}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            Ok(TcpStream::connect(address).is_ok().then_some(()))
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop().ok(); // because a drop has nobody to tell
    }
}

fn spawn(dir: &std::path::Path) -> Result<Child> {
    let log = fs::File::options().create(true).append(true).open(dir.join("log"))?;
    let program = crate::need::find_program("docker-registry")
        .context("docker-registry isn't installed: apt-get install docker-registry")?;
    Command::new(program)
        .arg("serve")
        .arg(dir.join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start docker-registry")
}

/// An address on loopback that nobody listens at.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").context("find a free port")?.local_addr()?)
}
