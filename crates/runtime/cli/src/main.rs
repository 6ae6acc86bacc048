//! `corten`: the OCI runtime behind runc's command line.
//!
//! `begin` parses, sets up the log, calls one function of `commands/`, and is the only place where an error is
//! printed. The words and exit codes that runc's callers match are in `phrases.rs`.
#![forbid(unsafe_code)]
// It begins by corten-sys's start.rs, as it lives for milliseconds.
#![cfg_attr(not(test), no_main)]

mod args;
mod commands;
mod features;
mod lean;
mod log;
mod output;
mod phrases;
#[cfg(test)]
mod reference;
mod signals;
mod time;

use args::{Cli, Command};

#[cfg(not(test))]
corten_sys::main!(begin);

/// Exit codes.
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

#[cfg_attr(test, allow(dead_code, reason = "the tests have a main of their own"))]
fn begin() -> u8 {
    if let Err(error) = protect() {
        output::complain(&format!("{error:#}\n"));
        return FAILURE;
    }
    // Whoever started us may ignore it; hooks and init are to be waited for.
    corten_sys::signal::default(nix::libc::SIGCHLD).ok(); // because there is such a signal
    let words: Vec<_> = std::env::args_os().collect();
    let cli = match lean::parse(&words) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // Before the log is opened: it mustn't get the number of a descriptor that the container is said to inherit.
    let inherited = check_descriptors(cli.command.as_ref());
    let log = match log::Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => {
            output::complain(&format!("cannot open the log file: {error:#}\n"));
            return FAILURE;
        }
    };
    let log = log.install();
    if cli.version || matches!(cli.command, Some(Command::Version)) {
        return shown(&commands::version());
    }
    let Some(command) = cli.command else {
        return shown(&<Cli as clap::CommandFactory>::command().render_help().to_string());
    };
    let name = phrases::Name::of(&command);
    match inherited.and_then(|()| commands::execute(&cli.global, command)) {
        Ok(code) => code,
        Err(error) => {
            log.fatal(&phrases::message(name, &error));
            phrases::exit_code(name)
        }
    }
}

/// Before a container is met, the executable must be out of its reach. This may start us again, so it comes before
/// everything that costs time, parsing included: that an argument only looks like one of these commands is harmless.
fn protect() -> anyhow::Result<()> {
    let meets_containers =
        |arg: std::ffi::OsString| ["create", "run", "exec"].iter().any(|verb| arg == *verb);
    if std::env::args_os().skip(1).any(meets_containers) {
        corten_container::protect_executable()?;
    }
    Ok(())
}

/// Whether what the container is to inherit is there.
fn check_descriptors(command: Option<&Command>) -> anyhow::Result<()> {
    let preserve = match command {
        Some(Command::Create(create)) => create.preserve_fds,
        Some(Command::Run(run)) => run.create.preserve_fds,
        Some(Command::Exec(exec)) => exec.preserve_fds,
        _ => return Ok(()),
    };
    corten_container::inherited_descriptors(preserve)?;
    Ok(())
}

/// Prints what was asked for.
fn shown(text: &str) -> u8 {
    match output::print(text) {
        Ok(_) => SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}\n"));
            FAILURE
        }
    }
}

/// Help and version go to stdout; a wrong command line is an error like others, in the log too if there is one.
fn usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        return shown(&error.render().to_string());
    }
    output::complain(&error.render().to_string());
    log::usage(std::env::args_os(), &error.to_string());
    FAILURE
}
