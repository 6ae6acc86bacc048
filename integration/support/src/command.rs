//! Running a program with a deadline and its output in files.
//!
//! Files and not pipes: what a runtime starts inherits its output, and a pipe would keep us reading until the container
//! ends.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::wait::DEADLINE;

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it (and whatever still holds its output) had written by then.
    pub stdout: String,
    /// The same of standard error.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Finished {
    /// The program's exit code, or 128 + the signal that killed it.
    #[must_use]
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().or_else(|| self.status.signal().map(|s| 128 + s)).unwrap_or(-1)
    }

    /// Itself, if the program succeeded.
    ///
    /// # Errors
    /// When it didn't; the message has all of its output.
    pub fn ok(self) -> Result<Self> {
        if !self.status.success() {
            bail!(
                "{} ended with {}\nstdout: {}\nstderr: {}",
                self.command,
                self.status,
                self.stdout,
                self.stderr
            );
        }
        Ok(self)
    }

    /// Itself, if the program failed.
    ///
    /// # Errors
    /// When it succeeded.
    pub fn err(self) -> Result<Self> {
        if self.status.success() {
            bail!(
                "{} succeeded, but must fail\nstdout: {}\nstderr: {}",
                self.command,
                self.stdout,
                self.stderr
            );
        }
        Ok(self)
    }
}

/// Runs `command` to its end, for [`DEADLINE`] at most; see [`run_with_deadline`].
///
/// # Errors
/// When it can't be started or doesn't end in time.
pub fn run(command: &mut Command) -> Result<Finished> {
    run_with_deadline(command, DEADLINE, b"")
}

/// Runs `command` to its end with `stdin` as its input and captures its output. One that doesn't end in time is killed.
///
/// # Errors
/// When it can't be started or doesn't end in time.
pub fn run_with_deadline(command: &mut Command, deadline: Duration, stdin: &[u8]) -> Result<Finished> {
    let shown = show(command);
    let mut out = tempfile::tempfile().context("make a file for the output")?;
    let mut err = tempfile::tempfile().context("make a file for the errors")?;
    command.stdout(out.try_clone()?).stderr(err.try_clone()?);
    command.stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(stdin).ok(); // because a program that doesn't read its input is judged by its exit code
    }
    let status = wait_deadline(&mut child, deadline);
    let elapsed = start.elapsed();
    let (stdout, stderr) = (read_all(&mut out)?, read_all(&mut err)?);
    let Some(status) = status? else {
        bail!("{shown} didn't end within {deadline:?}\nstdout: {stdout}\nstderr: {stderr}");
    };
    Ok(Finished { command: shown, status, stdout, stderr, elapsed })
}

/// Waits for a child; kills it and yields `None` when it doesn't end in time.
pub(crate) fn wait_deadline(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

fn read_all(file: &mut File) -> Result<String> {
    use std::os::unix::fs::FileExt;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        // read_at leaves the shared file offset alone: a container may still be writing there.
        match file.read_at(&mut chunk, bytes.len() as u64)? {
            0 => break,
            n => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
