//! Commands about processes, signals and memory.

use std::io::Write;
use std::process::{Command, Stdio};
use std::str::FromStr;

use nix::sys::signal::{SigSet, Signal, raise};

use crate::{Outcome, number, word};

/// Sleeps until SIGTERM or SIGINT comes. As PID 1 of a namespace nothing ends us that we don't ask for, so the signals
/// are awaited explicitly.
pub(crate) fn until_terminated() -> Outcome {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    set.wait()?;
    Ok(0)
}

pub(crate) fn allocate(arguments: &[String]) -> Outcome {
    let bytes: usize = number(arguments, 0, 0)?;
    let mut memory = Vec::new();
    const STEP: usize = 1 << 20;
    while memory.len() * STEP < bytes {
        // Filled with something else than zeros: untouched pages cost nothing.
        memory.push(vec![0xa5_u8; STEP]);
    }
    println!("allocated: {bytes}");
    let outcome = until_terminated();
    drop(memory);
    outcome
}

pub(crate) fn crash(_: &[String]) -> Outcome {
    std::process::abort()
}

pub(crate) fn segv(_: &[String]) -> Outcome {
    // PID 1 ignores signals that it sends itself with the default action, so a child does it where that matters.
    signal_self(Signal::SIGSEGV)
}

pub(crate) fn kill_self(arguments: &[String]) -> Outcome {
    signal_self(Signal::from_str(word(arguments, 0)?)?)
}

fn signal_self(signal: Signal) -> Outcome {
    raise(signal)?;
    Err(format!("survived {signal}").into())
}

fn me(arguments: &[&str]) -> std::io::Result<std::process::Child> {
    Command::new("/proc/self/exe").args(arguments).stdin(Stdio::null()).spawn()
}

pub(crate) fn fork(arguments: &[String]) -> Outcome {
    for _ in 0..number(arguments, 0, 1)? {
        println!("orphan: {}", me(&["ignore-sigterm"])?.id());
    }
    Ok(0)
}

pub(crate) fn tree(arguments: &[String]) -> Outcome {
    for _ in 0..number(arguments, 0, 2)? {
        println!("child: {}", me(&["ignore-sigterm"])?.id());
    }
    // The children say "ready" too.
    println!("planted");
    until_terminated()
}

pub(crate) fn spawn(arguments: &[String]) -> Outcome {
    let mut children = Vec::new();
    for _ in 0..number(arguments, 0, 1)? {
        match me(&["sleep"]) {
            Ok(child) => children.push(child),
            Err(error) => {
                println!("error: {error}");
                break;
            }
        }
    }
    println!("spawned: {}", children.len());
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    Ok(0)
}

pub(crate) fn ignore_sigterm(_: &[String]) -> Outcome {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        println!("ignored: {}", set.wait()?);
    }
}

pub(crate) fn trap(_: &[String]) -> Outcome {
    let mut set = SigSet::all();
    for fatal in [Signal::SIGKILL, Signal::SIGSTOP] {
        set.remove(fatal);
    }
    set.thread_block()?;
    println!("ready");
    loop {
        let signal = set.wait()?;
        println!("signal: {signal}");
        if signal == Signal::SIGINT {
            return Ok(0);
        }
    }
}

pub(crate) fn burn(_: &[String]) -> Outcome {
    println!("ready");
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(1));
    }
}
