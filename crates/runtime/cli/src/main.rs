//! `corten`: the OCI runtime behind runc's command line.
//!
//! This crate parses and prints; what happens is in corten-container. The phrases and exit codes that runc's callers
//! rely on live in [`report`], and docs/compat.md lists them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

mod args;
mod commands;
mod log;
mod report;
mod signal;

fn main() -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            error.print().ok(); // because there is nobody left to tell
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let (global, command) = (arguments.global, arguments.command);
    let outcome = log::init(&global).and_then(|()| commands::run(&global, &command));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => report::failure(&global, &command, &error),
    }
}
