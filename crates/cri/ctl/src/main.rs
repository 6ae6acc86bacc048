//! `cortenctl`: pods, containers and images for people and scripts, over the daemon's public API only.
//!
//! Exit codes: 0, 1 for an error of ours (its message on standard error). `run` and `exec` return the exit code of
//! the program that was run, or 125 to 127 if it couldn't be.
#![forbid(unsafe_code)]

mod args;
mod client;
mod cmd;
mod find;
mod json;
mod log;
mod show;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let code = runtime.block_on(cmd::run(args));
    // A thread may still be blocked in a read of standard input: nobody waits for it.
    runtime.shutdown_background();
    match code {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("cortenctl: {error:#}");
    ExitCode::FAILURE
}
