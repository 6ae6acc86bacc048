//! The commands: from flags to calls of the container crate, and from its answers to output.

mod checkpoint;
mod events;
mod exec;
mod list;
mod ps;
mod spec;
mod update;

use std::{env, ffi::CString, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use corten_container::{CreateOptions, Outcome, RunOptions, Runtime};
use corten_sys::regex::Regex;

use crate::{
    args::{self, CgroupManager, Command, Global},
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
        Command::Kill(args) => kill(&runtime, &args)?,
        Command::Delete(args) if args.regex => {
            each_match(&runtime, &args.id, |id| runtime.delete(id, args.force))?;
        }
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
    let manager = global.cgroup_manager;
    runtime.systemd_cgroup = manager.map_or(global.systemd_cgroup, |it| it == CgroupManager::Systemd);
    runtime.without_cgroup = manager == Some(CgroupManager::Disabled);
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
        config: args
            .config
            .as_ref()
            .map(std::path::absolute)
            .transpose()
            .context("cannot resolve --config")?,
        like_crun: is_called("crun"),
    })
}

/// Whether we are executed by this name, as by a link: whoever has one called crun counts on crun.
fn is_called(name: &str) -> bool {
    env::args_os().next().is_some_and(|program| Path::new(&program).file_name() == Some(name.as_ref()))
}

#[inline(never)]
fn kill(runtime: &Runtime, args: &args::Kill) -> Result<()> {
    let signal = signals::parse(&args.signal)?;
    if args.regex {
        return each_match(runtime, &args.id, |id| runtime.kill(id, signal, args.all));
    }
    Ok(runtime.kill(&args.id, signal, args.all)?)
}

/// Does it to all containers whose ids match; all are tried, and each failure is told.
fn each_match(
    runtime: &Runtime,
    pattern: &str,
    operation: impl Fn(&str) -> corten_container::Result<()>,
) -> Result<()> {
    let wrong = |why| anyhow!("--regex {pattern:?}: {why}");
    let regex = Regex::new(&CString::new(pattern)?).map_err(wrong)?;
    let mut failures = Vec::new();
    for id in runtime.list()?.into_iter().map(|state| state.id) {
        if regex.is_match(&CString::new(id.as_str())?)
            && let Err(error) = operation(&id)
        {
            failures.push(format!("{id}: {:#}", anyhow!(error)));
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
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
