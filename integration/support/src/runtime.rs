//! Drives a runc-compatible runtime: corten, runc or crun.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::command::{Finished, run, run_with_deadline};
use crate::need::{find_program, require};
use crate::scope::Scope;
use crate::wait::{DEADLINE, wait_until};

/// Which runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Ours.
    Corten,
    /// Debian's runc, the reference.
    Runc,
    /// Debian's crun, the quick one.
    Crun,
}

impl Kind {
    /// Its command's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Corten => "corten",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    /// Where it is, if it is installed (or, ours, built).
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Self::Corten => crate::binary("corten").ok(),
            peer => find_program(peer.name()),
        }
    }
}

/// A runtime with a private state directory.
#[derive(Debug, Clone)]
pub struct Runtime {
    kind: Kind,
    binary: PathBuf,
    root: PathBuf,
    empty: PathBuf,
    logs: PathBuf,
    systemd: bool,
}

impl Runtime {
    /// The runtime, if the test can run here with it; else the test counts as skipped.
    ///
    /// # Errors
    /// When its directories can't be made.
    pub fn for_test(kind: Kind, scope: &Scope) -> Result<Option<Self>> {
        let found = kind.find();
        let reason = format!("needs {} (ours: `cargo xtask build`; peers: apt-get install)", kind.name());
        if !crate::require_root() || !require(found.is_some(), &reason) {
            return Ok(None);
        }
        found.map(|binary| Self::new(kind, binary, scope)).transpose()
    }

    /// A runtime at a path of the caller's.
    ///
    /// # Errors
    /// When its directories can't be made.
    pub fn new(kind: Kind, binary: PathBuf, scope: &Scope) -> Result<Self> {
        let root = scope.make_dir(&format!("{}-root", kind.name()))?;
        scope.expect_empty(&root);
        let logs = scope.make_dir("logs")?;
        let empty = scope.path("empty");
        std::fs::write(&empty, "").context("make an empty file")?;
        Ok(Self { kind, binary, root, empty, logs, systemd: false })
    }

    /// The same, with systemd's cgroup driver.
    #[must_use]
    pub fn with_systemd(self) -> Self {
        Self { systemd: true, ..self }
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its `--root`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its executable.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// An executable that every user can reach: where we build, others may have no business.
    ///
    /// # Errors
    /// When it can't be copied.
    pub fn binary_for_everybody(&self, scope: &Scope) -> Result<PathBuf> {
        if self.kind != Kind::Corten {
            return Ok(self.binary.clone());
        }
        let copy = scope.path("corten");
        if !copy.exists() {
            std::fs::copy(&self.binary, &copy).context("copy corten")?;
        }
        Ok(copy)
    }

    /// A command of the runtime with `--root` set, ready for more arguments.
    ///
    /// crun refuses a hybrid cgroup layout that shows controllers on its v2 half, so it runs in a mount namespace in
    /// which they are hidden.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = if self.kind == Kind::Crun && hybrid_shows_controllers() {
            let script = "mount --bind \"$0\" /sys/fs/cgroup/unified/cgroup.controllers && exec \"$@\"";
            let mut command = Command::new("unshare");
            command
                .args(["-m", "--propagation", "unchanged", "sh", "-c", script])
                .arg(&self.empty)
                .arg(&self.binary);
            command
        } else {
            Command::new(&self.binary)
        };
        command.arg("--root").arg(&self.root);
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        command
    }

    /// Runs the runtime with `args` to its end, whether it succeeds or not.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time.
    pub fn call(&self, args: &[&str]) -> Result<Finished> {
        run(self.command().args(args))
    }

    /// `run`: the whole life of a container, with `stdin` as its input.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time; a failing container is no error here.
    pub fn run_with(&self, bundle: &Bundle, options: &[&str], stdin: &[u8]) -> Result<Finished> {
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(bundle.dir()).args(options).arg(bundle.id());
        run_with_deadline(&mut command, DEADLINE, stdin)
    }

    /// `run` without options and input.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time; a failing container is no error here.
    pub fn run(&self, bundle: &Bundle) -> Result<Finished> {
        self.run_with(bundle, &[], b"")
    }

    /// `create`: a container that waits to be started; it is deleted by force when dropped.
    ///
    /// Its output goes to a file, see [`Container::log`].
    ///
    /// # Errors
    /// When the runtime fails.
    pub fn create<'a>(&'a self, bundle: &Bundle, options: &[&str]) -> Result<Container<'a>> {
        let log = self.logs.join(format!("{}.log", bundle.id()));
        let container = Container { runtime: self, id: bundle.id().to_owned(), log };
        let out = File::options().create(true).append(true).open(&container.log)?;
        let mut command = self.command();
        command.arg("create").arg("--bundle").arg(bundle.dir()).args(options).arg(bundle.id());
        command.stdin(std::process::Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut child = command.spawn().with_context(|| format!("start {}", self.binary.display()))?;
        match crate::command::wait_deadline(&mut child, DEADLINE)? {
            Some(status) if status.success() => Ok(container),
            Some(status) => bail!("{} create ended with {status}: {}", self.kind.name(), container.log()?),
            None => bail!("{} create didn't end within {DEADLINE:?}: {}", self.kind.name(), container.log()?),
        }
    }

    /// `create` and `start`.
    ///
    /// # Errors
    /// When either fails.
    pub fn start<'a>(&'a self, bundle: &Bundle) -> Result<Container<'a>> {
        let container = self.create(bundle, &[])?;
        container.start()?;
        Ok(container)
    }
}

/// Whether the v2 half of a hybrid cgroup layout has controllers here.
#[must_use]
pub fn hybrid_shows_controllers() -> bool {
    std::fs::read("/sys/fs/cgroup/unified/cgroup.controllers").is_ok_and(|text| !text.is_empty())
}

/// A container that a test made; deleted by force when dropped.
#[derive(Debug)]
pub struct Container<'a> {
    runtime: &'a Runtime,
    id: String,
    log: PathBuf,
}

impl Container<'_> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it has written so far.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until it has written something that contains `needle`, and yields all that it has written.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn wait_log(&self, needle: &str) -> Result<String> {
        wait_until(&format!("{needle:?} in the output of {}", self.id), DEADLINE, || {
            let log = self.log()?;
            Ok(log.contains(needle).then_some(log))
        })
    }

    /// Runs `<runtime> <args> <id>`.
    ///
    /// # Errors
    /// When the runtime can't be started or doesn't end in time.
    pub fn call(&self, args: &[&str]) -> Result<Finished> {
        run(self.runtime.command().args(args).arg(&self.id))
    }

    /// `start`.
    ///
    /// # Errors
    /// When it fails.
    pub fn start(&self) -> Result<()> {
        self.call(&["start"])?.ok().map(drop)
    }

    /// `exec` with options before the id and the command after it.
    ///
    /// # Errors
    /// When the runtime can't be started or doesn't end in time.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Result<Finished> {
        run(self.runtime.command().arg("exec").args(options).arg(&self.id).args(command))
    }

    /// `kill`.
    ///
    /// # Errors
    /// When it fails.
    pub fn kill(&self, signal: &str) -> Result<()> {
        run(self.runtime.command().args(["kill", &self.id, signal]))?.ok().map(drop)
    }

    /// `state`, parsed.
    ///
    /// # Errors
    /// When it fails or yields no JSON.
    pub fn state(&self) -> Result<Value> {
        let output = self.call(&["state"])?.ok()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("parse the state {}", output.stdout))
    }

    /// The `status` of its state.
    ///
    /// # Errors
    /// As [`Container::state`].
    pub fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().unwrap_or_default().to_owned())
    }

    /// The process id of its state.
    ///
    /// # Errors
    /// As [`Container::state`], or when there is none.
    pub fn pid(&self) -> Result<i32> {
        let state = self.state()?;
        let pid = state["pid"].as_i64().with_context(|| format!("no pid in {state}"))?;
        Ok(i32::try_from(pid)?)
    }

    /// Waits for a status.
    ///
    /// # Errors
    /// When it doesn't come in time.
    pub fn wait_status(&self, status: &str) -> Result<()> {
        wait_until(&format!("{} to be {status}", self.id), DEADLINE, || {
            Ok((self.status()? == status).then_some(()))
        })
    }

    /// `delete` with options.
    ///
    /// # Errors
    /// When it fails.
    pub fn delete(&self, options: &[&str]) -> Result<()> {
        let mut args = vec!["delete"];
        args.extend(options);
        self.call(&args)?.ok().map(drop)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.call(&["delete", "--force"]).ok(); // because most tests have deleted it
    }
}
