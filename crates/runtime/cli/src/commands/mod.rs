//! One file per verb that needs more than a line.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use corten_container::{CreateOptions, Outcome, RunOptions, Runtime};

use crate::args::{Command, Create, Global, Run};
use crate::signal;

mod exec;
mod features;
mod list;
mod ps;
mod spec;
mod update;

/// Carries out a command and returns the exit code.
pub(crate) fn run(global: &Global, command: &Command) -> Result<u8> {
    let runtime = runtime(global);
    match command {
        Command::Create(create) => drop(runtime.create(&create.id, &create_options(create))?),
        Command::Start(start) => runtime.start(&start.id)?,
        Command::Run(run) => return container(&runtime, run),
        Command::Exec(exec) => return exec::run(&runtime, exec),
        Command::Kill(kill) => runtime.kill(&kill.id, signal::parse(&kill.signal)?, kill.all)?,
        Command::Delete(delete) => runtime.delete(&delete.id, delete.force)?,
        Command::State(state) => print(&serde_json::to_string_pretty(&runtime.state(&state.id)?)?)?,
        Command::List(options) => list::run(&runtime, options)?,
        Command::Ps(options) => ps::run(&runtime, options)?,
        Command::Pause(pause) => runtime.pause(&pause.id)?,
        Command::Resume(resume) => runtime.resume(&resume.id)?,
        Command::Update(options) => update::run(&runtime, options)?,
        Command::Features => features::run()?,
        Command::Spec(options) => spec::run(options)?,
        Command::Version => version()?,
        Command::Events(_) | Command::Checkpoint(_) | Command::Restore(_) => {
            bail!("{} is not supported yet", command.verb());
        }
    }
    Ok(0)
}

fn runtime(global: &Global) -> Runtime {
    let mut runtime = Runtime::new(global.root.clone().unwrap_or_else(default_root));
    runtime.systemd_cgroup = global.systemd_cgroup;
    runtime
}

/// /run for root, the user's own runtime directory for others.
fn default_root() -> PathBuf {
    let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !nix::unistd::geteuid().is_root());
    user.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("corten-oci")
}

fn create_options(create: &Create) -> CreateOptions {
    CreateOptions {
        bundle: create.bundle.clone(),
        console_socket: create.console_socket.clone(),
        pidfd_socket: create.pidfd_socket.clone(),
        pid_file: create.pid_file.clone(),
        preserve_fds: create.preserve_fds,
        no_pivot: create.no_pivot,
        no_new_keyring: create.no_new_keyring,
    }
}

fn container(runtime: &Runtime, run: &Run) -> Result<u8> {
    let options = RunOptions { detach: run.detach, keep: run.keep, no_subreaper: run.no_subreaper };
    Ok(exit_code(runtime.run(&run.create.id, &create_options(&run.create), &options)?))
}

/// What the shell sees: the program's code, or success for one that runs on.
fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Exited(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Outcome::Detached(_) => 0,
    }
}

fn version() -> Result<()> {
    print(&format!("corten version {}\nspec: {}", env!("CARGO_PKG_VERSION"), features::OCI_VERSION_MAX))
}

/// Prints lines. A reader that has seen enough (`corten features | head`) is no failure.
fn print(text: &str) -> Result<()> {
    let mut text = text.to_owned();
    text.push('\n');
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("can't write to standard output")
        }
        _ => Ok(()),
    }
}
