//! Runs one plugin: environment and configuration in, result or error object out.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    Error, PodNetwork, Result,
    config::{Network, plugin_type},
};

/// The interface in the pod: Kubernetes expects this name.
pub(crate) const IFNAME: &str = "eth0";

/// How much of a plugin's output an error quotes, in bytes.
const QUOTED: usize = 4096;

/// What a plugin is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Status,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
        }
    }
}

/// One call of one plugin.
pub(crate) struct Call<'a> {
    pub(crate) verb: Verb,
    pub(crate) network: &'a Network,
    pub(crate) plugin: &'a Map<String, Value>,
    /// None for STATUS, which is about no pod.
    pub(crate) pod: Option<&'a PodNetwork>,
    /// Path of the network namespace; empty if it's gone.
    pub(crate) netns: &'a Path,
    pub(crate) prev_result: Option<&'a Value>,
    pub(crate) bin_dirs: &'a [PathBuf],
    pub(crate) timeout: Duration,
}

impl Call<'_> {
    /// Runs the plugin; the result is `Null` for all verbs but ADD.
    pub(crate) async fn run(&self) -> Result<Value> {
        let path = self.find()?;
        let output = self.execute(&path).await?;
        if !output.status.success() {
            return Err(self.failure(&output));
        }
        if self.verb != Verb::Add {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout).map_err(|source| Error::Output {
            plugin: self.kind(),
            command: self.verb.name(),
            id: self.id(),
            stdout: quote(&output.stdout),
            source,
        })
    }

    /// Where the plugin's program is; the first directory wins.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let candidates = self.bin_dirs.iter().map(|dir| dir.join(plugin_type(self.plugin)));
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| Error::PluginMissing {
            plugin: self.kind(),
            network: self.network.name.clone(),
            dirs: self.bin_dirs.to_vec(),
        })
    }

    /// What the plugin reads on standard input.
    fn request(&self) -> Value {
        let mut request = self.plugin.clone();
        let capabilities = request.remove("capabilities");
        request.insert("name".into(), self.network.name.clone().into());
        request.insert("cniVersion".into(), self.network.cni_version.clone().into());
        let declared = capabilities.as_ref().and_then(Value::as_object);
        if let Some(config) = declared.zip(self.pod).and_then(|(declared, pod)| pod.runtime_config(declared))
        {
            request.insert("runtimeConfig".into(), config);
        }
        if let Some(prev_result) = self.prev_result {
            request.insert("prevResult".into(), prev_result.clone());
        }
        Value::Object(request)
    }

    fn command(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        let dirs: Vec<_> = self.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        command.env("CNI_COMMAND", self.verb.name()).env("CNI_PATH", dirs.join(":"));
        if let Some(pod) = self.pod {
            command.env("CNI_CONTAINERID", &pod.id).env("CNI_NETNS", self.netns);
            command.env("CNI_IFNAME", IFNAME).env("CNI_ARGS", pod.args());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: on timeout its children (an IPAM plugin, iptables) go with it.
        command.kill_on_drop(true).process_group(0);
        command
    }

    async fn execute(&self, path: &Path) -> Result<Output> {
        let failed = |source: io::Error| Error::Run { path: path.to_owned(), source };
        let mut child = self.command(path).spawn().map_err(failed)?;
        let group = child.id();
        let stdin = child.stdin.take();
        let request = self.request().to_string();
        let talk = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A plugin may exit without reading: what it then says is the better error.
                    stdin.write_all(request.as_bytes()).await.ok();
                }
            };
            tokio::join!(feed, child.wait_with_output()).1
        };
        match tokio::time::timeout(self.timeout, talk).await {
            Ok(output) => output.map_err(failed),
            Err(_) => {
                if let Some(group) = group.and_then(|id| i32::try_from(id).ok()) {
                    // ESRCH if it has ended meanwhile.
                    killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
                }
                let (plugin, id, timeout) = (self.kind(), self.id(), self.timeout);
                Err(Error::Timeout { plugin, command: self.verb.name(), id, timeout })
            }
        }
    }

    /// The error of a plugin that didn't succeed.
    fn failure(&self, output: &Output) -> Error {
        #[derive(Deserialize)]
        struct Object {
            code: u64,
            #[serde(default)]
            msg: Box<str>,
            #[serde(default)]
            details: Box<str>,
        }
        let (plugin, command, id) = (self.kind(), self.verb.name(), self.id());
        let stderr = quote(&output.stderr).into();
        match serde_json::from_slice(&output.stdout) {
            Ok(Object { code, msg, details }) => {
                Error::Plugin { plugin, command, id, code, msg, details, stderr }
            }
            Err(_) => {
                let status: ExitStatus = ExitStatus::from_raw(output.status.into_raw());
                Error::Crashed { plugin, command, id, status, stdout: quote(&output.stdout).into(), stderr }
            }
        }
    }

    fn kind(&self) -> String {
        plugin_type(self.plugin).to_owned()
    }

    fn id(&self) -> String {
        self.pod.map_or_else(|| format!("network {}", self.network.name), |pod| pod.id.clone())
    }
}

/// The end of the text, where the reason stands.
fn quote(text: &[u8]) -> String {
    let start = text.len().saturating_sub(QUOTED);
    let cut = if start > 0 { "..." } else { "" };
    format!("{cut}{}", String::from_utf8_lossy(&text[start..]).trim())
}
