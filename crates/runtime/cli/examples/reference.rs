//! Writes man pages or shell completions of `corten`: `reference man|completions DIR` (see `cargo xtask man`).
//!
//! An example, so that `corten` itself needn't have what generates them.

#[path = "../src/args.rs"]
mod args;
#[path = "../src/reference.rs"]
mod reference;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, directory] = arguments.as_slice() else { bail!("usage: reference man|completions DIR") };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let written = match kind.as_str() {
        "man" => reference::man(directory, args::Cli::command()),
        "completions" => reference::completions(directory, args::Cli::command()),
        other => bail!("{other}: must be man or completions"),
    };
    written.with_context(|| format!("cannot write into {}", directory.display()))
}
