//! The configuration: one TOML file, whose every key may be left out, and command-line flags over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Where the configuration is looked for when `--config` isn't given.
pub(crate) const DEFAULT_PATH: &str = "/etc/corten/config.toml";

/// All of the configuration. `cortend config default` prints it with its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// What survives a reboot: blobs, snapshots, image metadata, records.
    pub(crate) root: PathBuf,
    /// What doesn't: sockets, namespace pins, bundles. Belongs on a tmpfs.
    pub(crate) state: PathBuf,
    /// The socket of the CRI service; `<state>/cortend.sock` when left out.
    pub(crate) socket: Option<PathBuf>,
    /// The parent cgroup of containers whose pod names none. Absolute.
    pub(crate) cgroup_parent: String,
    pub(crate) log: Log,
    pub(crate) cni: Cni,
    pub(crate) runtime: Runtime,
    pub(crate) images: Images,
    /// How to reach a registry, by `host[:port]`.
    pub(crate) registries: BTreeMap<String, Registry>,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// A level, or a filter such as `info,corten_server=debug`.
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Pod networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cni {
    pub(crate) conf_dir: PathBuf,
    pub(crate) bin_dirs: Vec<PathBuf>,
}

/// What runs containers. A name without a slash is looked up beside `cortend`, then in `PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Runtime {
    pub(crate) shim: PathBuf,
    pub(crate) binary: PathBuf,
}

/// Pulling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Images {
    /// Layers that one pull downloads at a time.
    pub(crate) max_concurrent_downloads: usize,
}

/// One registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// Speak HTTP. Loopback addresses do so anyway.
    pub(crate) plain_http: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/corten".into(),
            state: "/run/corten".into(),
            socket: None,
            cgroup_parent: "/corten".to_owned(),
            log: Log::default(),
            cni: Cni::default(),
            runtime: Runtime::default(),
            images: Images::default(),
            registries: BTreeMap::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Default for Cni {
    fn default() -> Self {
        // /opt is where Kubernetes' installers put plugins, /usr/lib where Debian does.
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self { shim: "containerd-shim-corten-v2".into(), binary: "corten".into() }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self { max_concurrent_downloads: 3 }
    }
}

/// The flags that override the file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Overrides {
    /// Where blobs, snapshots, image metadata and records live
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where sockets, namespace pins and bundles live
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The socket of the CRI service
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where CNI configurations are
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// Where CNI plugins are (repeatable)
    #[arg(long, value_name = "DIR")]
    cni_bin_dir: Vec<PathBuf>,
    /// The shim
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    /// The OCI runtime
    #[arg(long, value_name = "PATH")]
    runtime: Option<PathBuf>,
    /// The parent cgroup of containers whose pod names none
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// A level (error, warn, info, debug, trace) or a filter
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Config {
    /// Reads the file at `path`, or at [`DEFAULT_PATH`] if there is one, and lays the flags over it.
    pub(crate) fn load(path: Option<&Path>, flags: Overrides) -> Result<Self> {
        let config = match path {
            Some(path) => Self::read(path)?,
            None if Path::new(DEFAULT_PATH).is_file() => Self::read(Path::new(DEFAULT_PATH))?,
            None => Self::default(),
        };
        config.overridden(flags).checked()
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read the configuration {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("the configuration {} is wrong", path.display()))
    }

    fn overridden(mut self, flags: Overrides) -> Self {
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut self.root, flags.root);
        set(&mut self.state, flags.state);
        set(&mut self.cni.conf_dir, flags.cni_conf_dir);
        set(&mut self.runtime.shim, flags.shim);
        set(&mut self.runtime.binary, flags.runtime);
        set(&mut self.cgroup_parent, flags.cgroup_parent);
        set(&mut self.log.level, flags.log_level);
        if flags.socket.is_some() {
            self.socket = flags.socket;
        }
        if !flags.cni_bin_dir.is_empty() {
            self.cni.bin_dirs = flags.cni_bin_dir;
        }
        self
    }

    fn checked(self) -> Result<Self> {
        for (name, path) in [("root", &self.root), ("state", &self.state)] {
            anyhow::ensure!(path.is_absolute(), "{name} must be an absolute path, not {}", path.display());
        }
        // A relative cgroup would land wherever the daemon itself was started.
        anyhow::ensure!(
            self.cgroup_parent.starts_with('/') && !self.cgroup_parent.split('/').any(|part| part == ".."),
            "cgroup_parent must be an absolute path without .., not {:?}",
            self.cgroup_parent
        );
        anyhow::ensure!(
            self.images.max_concurrent_downloads > 0,
            "images.max_concurrent_downloads must be at least 1"
        );
        Ok(self)
    }

    /// The socket of the CRI service.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state.join("cortend.sock"))
    }
}

/// The program that `name` means: itself with a slash in it, else beside our own executable, else in `PATH`.
pub(crate) fn program(name: &Path) -> Result<PathBuf> {
    if name.components().count() > 1 {
        anyhow::ensure!(name.is_file(), "{} doesn't exist", name.display());
        return Ok(name.to_owned());
    }
    let own = std::env::current_exe().context("can't tell where cortend itself is")?;
    let beside = own.parent().map(|dir| dir.join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join(name)));
    candidates.find(|candidate| candidate.is_file()).with_context(|| {
        format!("{} is neither beside cortend nor in PATH: name it in the configuration", name.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_survive_a_round_trip() {
        let text = toml::to_string(&Config::default()).expect("serializable");
        assert_eq!(toml::from_str::<Config>(&text).expect("parsable"), Config::default());
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error =
            toml::from_str::<Config>("[cni]\nconfdir = \"/x\"\n").expect_err("unknown key").to_string();
        assert!(error.contains("confdir"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file() {
        let file: Config = toml::from_str("root = \"/a\"\nstate = \"/b\"\n").expect("valid");
        let config = file.overridden(Overrides { root: Some("/c".into()), ..Overrides::default() });
        assert_eq!((config.root, config.state), ("/c".into(), "/b".into()));
    }

    #[test]
    fn a_relative_cgroup_parent_is_refused() {
        for parent in ["corten", "/a/../..", ""] {
            let config = Config { cgroup_parent: parent.to_owned(), ..Config::default() };
            assert!(config.checked().is_err(), "{parent:?}");
        }
    }
}
