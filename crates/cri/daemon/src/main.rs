//! `cortend`: reads the config, builds everything in one visible function, serves, recovers.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod config;
mod listen;
mod logging;
mod serve;

use config::{Config, Overrides};

/// The container daemon that serves the kubelet's Container Runtime Interface.
#[derive(Debug, Parser)]
#[command(name = "cortend", version)]
struct Arguments {
    /// The configuration file [default: /etc/corten/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the configuration instead of serving
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the defaults
    Default,
    /// Print what the file and the flags amount to
    Show,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Config(ConfigCommand::Default)) = arguments.command {
        print!("{}", toml::to_string(&Config::default())?);
        return Ok(());
    }
    let config = Config::load(arguments.config.as_deref(), arguments.overrides)?;
    if let Some(Command::Config(ConfigCommand::Show)) = arguments.command {
        print!("{}", toml::to_string(&config)?);
        return Ok(());
    }
    logging::init(&config.log)?;
    // Two workers: pulls hash and inflate on blocking threads of their own, and everything else waits for somebody.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve::serve(config))
}
