//! One file for each command.

mod config;
mod doctor;
mod exec;
mod follow;
mod images;
mod inspect;
mod logs;
mod options;
mod pods;
mod progress;
mod ps;
mod pull;
mod remove;
mod run;
mod stats;
mod status;
mod stop;

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    args::{Arguments, Command, Pod},
    client::Client,
};

/// Runs the command; its exit code becomes ours.
pub(crate) async fn run(args: Arguments) -> Result<ExitCode> {
    let output = args.output;
    if matches!(args.command, Command::Doctor) {
        return doctor::doctor(args.socket, output).await;
    }
    let client = &Client::connect(args.socket).await?;
    match args.command {
        Command::Run(args) => {
            return Ok(run::run(client, *args).await.unwrap_or_else(|error| not_run(&error)));
        }
        Command::Exec(args) => {
            return Ok(exec::exec(client, args).await.unwrap_or_else(|error| not_run(&error)));
        }
        Command::Status => return status::status(client, output).await,
        Command::Rmi(args) => return images::remove(client, args.names).await,
        Command::Stop(args) => return stop::stop(client, args).await,
        Command::Rm(args) => return remove::containers(client, args.names, args.force).await,
        Command::Pod(Pod::Stop(args)) => return pods::stop(client, args.names).await,
        Command::Pod(Pod::Rm(args)) => return remove::pods(client, args.names, args.force).await,
        Command::Pull(args) => pull::pull(client, args, output).await,
        Command::Images => images::list(client, output).await,
        Command::Ps(args) => ps::ps(client, args, output).await,
        Command::Pods => pods::list(client, output).await,
        Command::Pod(Pod::Create(args)) => pods::create(client, args).await,
        Command::Logs(args) => logs::logs(client, args, output).await,
        Command::Inspect(args) => inspect::inspect(client, args.names).await,
        Command::Stats(args) => stats::stats(client, args.names, output).await,
        Command::Version => status::version(client, output).await,
        Command::Doctor => Ok(()),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The outcome of one operation on many things: each failure is told, one is enough for exit code 1.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    failed: bool,
}

impl Batch {
    /// Takes the outcome for `name`; says its name if it went well.
    pub(crate) fn take(&mut self, name: &str, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => crate::show::print(&format!("{name}\n"))?,
            Err(error) => {
                self.failed = true;
                eprintln!("cortenctl: {error:#}");
            }
        }
        Ok(())
    }

    pub(crate) fn code(self) -> ExitCode {
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Tells an error of `run` or `exec`. The code is one that programs hardly use, as people know it from shells and
/// Docker: 127 for a program that isn't there, 126 for one that can't be executed, 125 for everything else.
fn not_run(error: &anyhow::Error) -> ExitCode {
    let text = format!("{error:#}");
    eprintln!("cortenctl: {text}");
    ExitCode::from(code_of(&text))
}

/// The runtime's words are all that crosses CRI.
fn code_of(text: &str) -> u8 {
    let Some((_, cause)) = text.split_once("exec: \"") else { return 125 };
    let cause = cause.to_ascii_lowercase();
    match () {
        () if cause.contains("not found") || cause.contains("no such file") => 127,
        () if cause.contains("permission denied") || cause.contains("exec format error") => 126,
        () if cause.contains("is a directory") => 126,
        () => 125,
    }
}

/// A container's exit code as a process's.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::code_of;

    #[test]
    fn a_program_that_could_not_be_run_has_a_shells_code() {
        assert_eq!(code_of("can't start web: exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(code_of("exec: \"/x\": stat /x: no such file or directory"), 127);
        assert_eq!(code_of("exec: \"/etc\": permission denied"), 126);
        assert_eq!(code_of("can't pull x: no such file"), 125);
    }
}
