//! The command line as containerd gives it: Go's flags (`-id x`, `--id x`, `-id=x`), then a verb.

use std::ffi::OsString;
use std::path::PathBuf;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Leave a shim behind.
    Start,
    /// Clear up after one that was killed.
    Delete,
    /// Be the shim; the listening socket is standard input.
    Serve,
    /// Be PID 1 of a pod.
    PodInit,
    /// Print the version.
    Version,
    /// Print what the runtime can do: RuntimeInfo, protobuf.
    Info,
}

/// The command line.
#[derive(Clone, Debug)]
pub struct Args {
    /// What to do.
    pub verb: Verb,
    /// containerd's namespace.
    pub namespace: String,
    /// The container, or the pod under cortend.
    pub id: String,
    /// containerd's own socket; empty under cortend.
    pub address: String,
    /// containerd's socket for events: `$TTRPC_ADDRESS`.
    pub ttrpc_address: String,
    /// Publishes events where there is no such socket.
    pub publish_binary: String,
    /// The bundle to delete.
    pub bundle: Option<PathBuf>,
    /// Where sockets go; below containerd's state when not given.
    pub socket_dir: Option<PathBuf>,
    /// The OCI runtime when Create's options name none.
    pub runtime: PathBuf,
    /// Its root when Create's options name none.
    pub runtime_root: Option<PathBuf>,
    /// The socket's address, for `serve`.
    pub socket: String,
    /// Log more.
    pub debug: bool,
    /// For `pod-init`: set the loopback device up.
    pub loopback: bool,
    /// For `pod-init`: the pod's hostname.
    pub hostname: String,
    /// For `pod-init`: kernel parameters to set.
    pub sysctls: Vec<(String, String)>,
}

/// What is wrong with a command line.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// A flag nobody knows.
    #[error("unknown flag {0}")]
    Unknown(String),
    /// A flag without its value.
    #[error("flag -{0} needs a value")]
    NoValue(String),
    /// Not a verb.
    #[error("unknown command {0:?}: expected start or delete")]
    Verb(String),
    /// No verb.
    #[error("expected start or delete")]
    NoVerb,
    /// Without an id.
    #[error("-id is missing")]
    NoId,
}

impl Args {
    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// [`ArgsError`]
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut args = Self {
            verb: Verb::Version,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            ttrpc_address: String::new(),
            publish_binary: String::new(),
            bundle: None,
            socket_dir: None,
            runtime: "corten".into(),
            runtime_root: None,
            socket: String::new(),
            debug: false,
            loopback: false,
            hostname: String::new(),
            sysctls: Vec::new(),
        };
        let mut arguments = arguments.into_iter();
        let mut verb = None;
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy();
            let Some(flag) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')) else {
                verb = Some(parse_verb(&text)?);
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
                None => (flag.to_owned(), None),
            };
            match name.as_str() {
                "debug" => args.debug = inline.is_none_or(|v| v != "false"),
                "loopback" => args.loopback = true,
                "v" | "version" => verb = Some(Verb::Version),
                "info" => verb = Some(Verb::Info),
                _ => {
                    let value = inline
                        .or_else(|| arguments.next())
                        .ok_or_else(|| ArgsError::NoValue(name.clone()))?;
                    args.set(&name, value)?;
                }
            }
        }
        args.verb = verb.ok_or(ArgsError::NoVerb)?;
        // `start` may be told by its standard input.
        if args.id.is_empty() && matches!(args.verb, Verb::Delete | Verb::Serve) {
            return Err(ArgsError::NoId);
        }
        Ok(args)
    }

    fn set(&mut self, name: &str, value: OsString) -> Result<(), ArgsError> {
        let text = value.to_string_lossy().into_owned();
        match name {
            "namespace" => self.namespace = text,
            "id" => self.id = text,
            "address" => self.address = text,
            "bundle" => self.bundle = Some(value.into()),
            "socket-dir" => self.socket_dir = Some(value.into()),
            "runtime" => self.runtime = value.into(),
            "runtime-root" => self.runtime_root = Some(value.into()),
            "socket" => self.socket = text,
            "ttrpc-address" => self.ttrpc_address = text,
            "publish-binary" => self.publish_binary = text,
            "hostname" => self.hostname = text,
            "sysctl" => {
                let (key, value) = text.split_once('=').unwrap_or((&text, ""));
                self.sysctls.push((key.to_owned(), value.to_owned()));
            }
            "debug-socket" => {} // we have no profiler
            other => return Err(ArgsError::Unknown(format!("-{other}"))),
        }
        Ok(())
    }
}

fn parse_verb(text: &str) -> Result<Verb, ArgsError> {
    match text {
        "start" => Ok(Verb::Start),
        "delete" => Ok(Verb::Delete),
        "serve" => Ok(Verb::Serve),
        "pod-init" => Ok(Verb::PodInit),
        other => Err(ArgsError::Verb(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, ArgsError> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn containerds_command_line_is_understood() {
        let args =
            parse("-namespace k8s.io --id=abc -address /run/c.sock -publish-binary /bin/c -debug start")
                .unwrap();
        assert_eq!((args.verb, args.id.as_str(), args.debug), (Verb::Start, "abc", true));
        assert_eq!((args.namespace.as_str(), args.address.as_str()), ("k8s.io", "/run/c.sock"));
    }

    #[test]
    fn questions_need_no_id() {
        assert_eq!(parse("-v").unwrap().verb, Verb::Version);
        assert_eq!(parse("-info").unwrap().verb, Verb::Info);
        assert_eq!(parse("-version").unwrap().verb, Verb::Version);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(parse("-id x"), Err(ArgsError::NoVerb)));
        assert!(matches!(parse("delete"), Err(ArgsError::NoId)));
        assert!(matches!(parse("-id"), Err(ArgsError::NoValue(_))));
        assert!(matches!(parse("-id x -nope y start"), Err(ArgsError::Unknown(_))));
        assert!(matches!(parse("-id x stop"), Err(ArgsError::Verb(_))));
    }
}
