//! `cargo xtask reap PROGRAM ARGUMENTS…`: what stands between a lane and a test binary that leaves orphans.
//!
//! A container's init is an orphan as soon as `create` has ended, and it is gone only once somebody has collected it.
//! Who is PID 1 on a test machine may take its time: one that does so once a second made most of the root lane a wait
//! for it. So each test binary runs below a process that is the subreaper of what it leaves, and collects at once.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

/// Runs a program to its end, and ends as it did. The program is killed when standard input ends.
pub(crate) fn reap(program: &str, arguments: &[&str]) -> Result<ExitCode> {
    prctl::set_child_subreaper(true).context("become a subreaper")?;
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn();
    let child = child.with_context(|| format!("can't start {program}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    // The main thread collects the child and ends the process right after that, so the pid is the child's till then.
    thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).ok(); // because an error is an end, too
        kill(pid, Signal::SIGKILL).ok(); // because it may have ended just now
    });
    loop {
        match wait() {
            Ok(WaitStatus::Exited(ended, code)) if ended == pid => return Ok(exit_code(code)),
            Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => {
                eprintln!("{program} was ended by {signal}");
                return Ok(exit_code(128 + signal as i32));
            }
            // EINVAL: an orphan that a real-time signal has ended, for which nix has no word.
            Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
