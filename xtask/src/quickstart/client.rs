//! `cortenctl`, as a user would call it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use integration_support::{Daemon, Scope};
use serde_json::Value;

/// `cortenctl` with the private daemon's socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    binary: PathBuf,
    socket: PathBuf,
    logs: PathBuf,
}

impl Client {
    pub(super) fn new(binary: PathBuf, scope: &Scope) -> Self {
        Self { binary, socket: PathBuf::new(), logs: scope.path("logs") }
    }

    /// The client of a daemon.
    pub(super) fn of(self, daemon: &Daemon) -> Self {
        Self { socket: daemon.socket(), ..self }
    }

    /// Where logs go.
    pub(super) fn logs(&self) -> String {
        self.logs.display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(&self.socket).args(args).stdin(Stdio::null());
        command
    }

    /// Runs it for the user to see, with all of its output.
    pub(super) fn show(&self, args: &[&str]) -> Result<()> {
        println!("$ cortenctl {}", args.join(" "));
        let status = self.command(args).status().context("can't start cortenctl")?;
        if !status.success() {
            bail!("cortenctl {}: {status}", args.join(" "));
        }
        Ok(())
    }

    /// What it printed.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output().context("can't start cortenctl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("cortenctl {}: {}: {}", args.join(" "), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What it printed as JSON.
    pub(super) fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[&["--output", "json"], args].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("cortenctl {} printed no JSON: {text}", args.join(" ")))
    }

    /// The ids in a list.
    pub(super) fn ids(&self, args: &[&str]) -> Result<Vec<String>> {
        let list = self.json(args)?;
        let items =
            list.as_array().with_context(|| format!("cortenctl {} printed no list", args.join(" ")))?;
        Ok(items.iter().filter_map(|item| item["id"].as_str()).map(str::to_owned).collect())
    }
}
