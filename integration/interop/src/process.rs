//! Programs that run beside a test, with their output in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use integration_support::{DEADLINE, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Background {
    /// Starts `command`; what it prints is appended to the file `log`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, log: log.to_owned(), name })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// When the program ends first, or the deadline passes; with its output.
    pub fn wait_ready(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let (child, name) = (&mut self.child, &self.name);
        wait_until(what, DEADLINE * 2, || {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}");
            }
            Ok(condition().then_some(()))
        })
        .with_context(|| format!("{}'s output: {}", self.name, self.log()))
    }

    /// Waits until it has printed `needle`, and yields all that it has printed.
    ///
    /// # Errors
    /// As [`Background::wait_ready`].
    pub fn wait_output(&mut self, needle: &str) -> Result<String> {
        let log = self.log.clone();
        let printed = || fs::read_to_string(&log).is_ok_and(|text| text.contains(needle));
        self.wait_ready(&format!("{needle:?} to be printed"), printed)?;
        Ok(self.log())
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Errors
    /// When it doesn't end in time.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)
            .with_context(|| format!("signal {}", self.name))?;
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it doesn't end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait_until(&format!("{} to end", self.name), DEADLINE * 2, || Ok(child.try_wait()?))
            .with_context(|| format!("{}'s output: {}", self.name, self.log()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.child.kill().ok(); // because it may have ended by itself
        self.child.wait().ok();
    }
}

/// Whether a process with this id runs (zombies don't).
#[must_use]
pub fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The parent of a process.
///
/// # Errors
/// When there is no such process.
pub fn parent_of(pid: u32) -> Result<u32> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no PPid")?;
    Ok(parent.trim().parse()?)
}
