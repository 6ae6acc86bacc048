//! What can go wrong: each message names the operation and the thing; the cause is the source.

use std::{io, path::PathBuf, time::Duration};

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a pod has no network, or keeps it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration directory doesn't exist or is empty.
    #[error("no network configuration (*.conf, *.conflist, *.json) in {}", dir.display())]
    NoConfig {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The configuration directory or a file in it can't be read.
    #[error("read network configuration {}", path.display())]
    Read {
        /// File or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A configuration file isn't JSON.
    #[error("network configuration {} is not valid JSON", file.display())]
    Json {
        /// The broken file.
        file: PathBuf,
        /// Where in the file.
        source: serde_json::Error,
    },
    /// A configuration file is JSON but not a network.
    #[error("network configuration {}: {problem}", file.display())]
    Config {
        /// The broken file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The plugin's program isn't installed.
    #[error("CNI plugin {plugin:?} of network {network:?} is not installed: searched {}", list(dirs))]
    PluginMissing {
        /// Type of the plugin as the configuration names it.
        plugin: String,
        /// Name of the network.
        network: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// The plugin can't be started or talked to.
    #[error("run CNI plugin {}", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The plugin didn't finish in time and was killed.
    #[error("CNI plugin {plugin:?} did not finish {command} for {id} within {timeout:?} and was killed")]
    Timeout {
        /// Type of the plugin.
        plugin: String,
        /// `ADD`, `DEL`, ...
        command: &'static str,
        /// The pod sandbox's id.
        id: String,
        /// How long it had.
        timeout: Duration,
    },
    /// The plugin says why it failed.
    #[error(
        "CNI plugin {plugin:?} failed {command} for {id}: {msg}{} (code {code}){}",
        prefixed(": ", details),
        prefixed("; stderr: ", stderr)
    )]
    Plugin {
        /// Type of the plugin.
        plugin: String,
        /// `ADD`, `DEL`, ...
        command: &'static str,
        /// The pod sandbox's id.
        id: String,
        /// Error code: below 100 from the spec, above the plugin's own.
        code: u64,
        /// Short message.
        msg: Box<str>,
        /// Longer message; may be empty.
        details: Box<str>,
        /// What the plugin printed on standard error; may be empty.
        stderr: Box<str>,
    },
    /// The plugin failed without a CNI error object.
    #[error(
        "CNI plugin {plugin:?} failed {command} for {id}: {status} without an error object{}{}",
        prefixed("; stdout: ", stdout),
        prefixed("; stderr: ", stderr)
    )]
    Crashed {
        /// Type of the plugin.
        plugin: String,
        /// `ADD`, `DEL`, ...
        command: &'static str,
        /// The pod sandbox's id.
        id: String,
        /// How the process ended.
        status: std::process::ExitStatus,
        /// What it printed on standard output.
        stdout: Box<str>,
        /// What it printed on standard error.
        stderr: Box<str>,
    },
    /// The plugin succeeded but what it printed isn't a CNI result.
    #[error(
        "CNI plugin {plugin:?} answered {command} for {id} with something that is not a result: {stdout:?}"
    )]
    Output {
        /// Type of the plugin.
        plugin: String,
        /// `ADD`, `DEL`, ...
        command: &'static str,
        /// The pod sandbox's id.
        id: String,
        /// What it printed, cut.
        stdout: String,
        /// Where it stops being a result.
        source: serde_json::Error,
    },
    /// The result holds an address that isn't one.
    #[error("result of network {network:?} for {id} has the address {address:?}, which is not one")]
    Address {
        /// Name of the network.
        network: String,
        /// The pod sandbox's id.
        id: String,
        /// What stands there.
        address: String,
    },
    /// The record of an attachment can't be kept.
    #[error("{operation} network record {}", path.display())]
    Record {
        /// `save`, `read` or `remove`.
        operation: &'static str,
        /// The record.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The namespaces of a pod can't be made.
    #[error("{operation} for pod namespaces in {}", dir.display())]
    Namespaces {
        /// The step that failed.
        operation: String,
        /// Where the pins are.
        dir: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A sysctl would reach beyond the pod.
    #[error("sysctl {name:?} {problem}")]
    Sysctl {
        /// The sysctl.
        name: String,
        /// Why not.
        problem: &'static str,
    },
}

fn list(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn prefixed(prefix: &str, text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!("{prefix}{text}") }
}
