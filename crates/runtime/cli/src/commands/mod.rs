//! The commands: from flags to calls of the container crate, and from its answers to output.

mod checkpoint;
mod events;
mod exec;
mod list;
mod ps;
mod spec;
mod update;

use std::env;

use anyhow::{Context as _, Result, bail};
use corten_container::{CreateOptions, Outcome, RunOptions, Runtime};

use crate::{
    args::{self, Command, Global},
    features, output, signals,
};

/// The newest runtime-spec that we know.
pub(crate) const SPEC: &str = "1.3.0";

/// Does what the command line asks for; the exit code is the process's own where one was run.
///
/// What it calls isn't inlined: of all commands one is executed, and only its code and stack are to be touched
/// (docs/decisions/0012-start-up.md).
///
/// # Errors
/// Any.
pub(crate) fn execute(global: &Global, command: Command) -> Result<u8> {
    let runtime = runtime(global)?;
    match command {
        Command::Create(args) => runtime.create(&args.id, &create_options(&args)?).map(|_| ())?,
        Command::Start(args) => runtime.start(&args.id)?,
        Command::Run(args) => return run(&runtime, &args),
        Command::State(args) => print_json(&runtime.state(&args.id)?)?,
        Command::Kill(args) => runtime.kill(&args.id, signals::parse(&args.signal)?, args.all)?,
        Command::Delete(args) => runtime.delete(&args.id, args.force)?,
        Command::Exec(args) => return exec::exec(&runtime, *args),
        Command::List(args) => list::list(&runtime, &global.root, &args)?,
        Command::Features => print_json(&features::document())?,
        Command::Spec(args) => spec::spec(&args)?,
        Command::Ps(args) => ps::ps(&runtime, &args)?,
        Command::Pause(args) => runtime.pause(&args.id)?,
        Command::Resume(args) => runtime.resume(&args.id)?,
        Command::Update(args) => update::update(&runtime, &args)?,
        Command::Checkpoint(args) => checkpoint::checkpoint(&runtime, *args)?,
        Command::Restore(args) => return checkpoint::restore(&runtime, *args),
        Command::Events(args) => events::events(&runtime, &args)?,
        Command::Version => output::print(&version()).map(drop)?,
    }
    Ok(crate::SUCCESS)
}

/// What `--version` prints.
pub(crate) fn version() -> String {
    format!("corten version {}\nspec: {SPEC}\n", env!("CARGO_PKG_VERSION"))
}

fn runtime(global: &Global) -> Result<Runtime> {
    let rootless = match global.rootless.as_str() {
        "auto" => None,
        "true" => Some(true),
        "false" => Some(false),
        other => bail!("--rootless {other:?}: must be true, false or auto"),
    };
    let root = std::path::absolute(&global.root).context("cannot resolve --root")?;
    let mut runtime = Runtime::new(root);
    runtime.systemd_cgroup = global.systemd_cgroup;
    runtime.rootless = rootless;
    Ok(runtime)
}

fn create_options(args: &args::Create) -> Result<CreateOptions> {
    Ok(CreateOptions {
        bundle: std::path::absolute(&args.bundle).context("cannot resolve --bundle")?,
        console_socket: args.console_socket.clone(),
        pidfd_socket: args.pidfd_socket.clone(),
        pid_file: args.pid_file.clone(),
        preserve_fds: args.preserve_fds,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
    })
}

fn run(runtime: &Runtime, args: &args::Run) -> Result<u8> {
    let options = RunOptions { detach: args.detach, keep: args.keep, no_subreaper: args.no_subreaper };
    Ok(exit_code(runtime.run(&args.create.id, &create_options(&args.create)?, &options)?))
}

/// The process's own exit code.
fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Detached(_) => crate::SUCCESS,
        Outcome::Exited(code) => u8::try_from(code).unwrap_or(255),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    output::print(&format!("{}\n", serde_json::to_string_pretty(value)?)).map(drop)
}
