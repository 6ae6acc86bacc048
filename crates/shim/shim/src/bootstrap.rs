//! How a shim is told to start, and in which language it answers.
//!
//! | containerd | standard input | also | answer on standard output |
//! |---|---|---|---|
//! | 2.3 and newer | BootstrapParams, protobuf | flags, environment | BootstrapResult, protobuf |
//! | 1.7 to 2.2 | runtime options (an Any), or nothing | flags, MAX_SHIM_VERSION | JSON |
//! | 1.6 and older | the same | flags | the address alone |
//!
//! Options can be decoded as parameters by accident. So they count as parameters only when they name the same
//! container and namespace as the flags do: options have their type's name where parameters have the container's.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use corten_task_api::proto::containerd::runtime::bootstrap::v1::{
    BootstrapParams, BootstrapResult, LogLevel,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use prost::Message;
use prost_types::Any;

use crate::args::Args;

/// What is read at most.
const LIMIT: u64 = 10 << 20;
/// How long whoever starts us may take to write more, or to close: it has its end open, so it means to.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the Task service: 2 and 3 are the same but for their names.
const NEWEST: i32 = 3;

/// In which form the address is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As it is.
    Text,
    /// With the Task service's version.
    Json(i32),
    /// As BootstrapResult.
    Protobuf,
}

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) args: Args,
    pub(crate) dialect: Dialect,
    /// The runtime's options, if it has any.
    pub(crate) options: Option<Any>,
}

/// All that standard input has, when it is something that ends.
pub(crate) fn read_stdin() -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    let kind = SFlag::from_bits_truncate(fstat(stdin.as_fd())?.st_mode) & SFlag::S_IFMT;
    // A terminal has nothing to say, /dev/null neither.
    if ![SFlag::S_IFIFO, SFlag::S_IFREG, SFlag::S_IFSOCK].contains(&kind) {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    let mut reader = std::fs::File::from(stdin.as_fd().try_clone_to_owned()?).take(LIMIT);
    loop {
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout)? == 0 {
            return Ok(bytes); // nobody writes: what an old containerd's parent has left open
        }
        let mut chunk = [0; 4096];
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Makes sense of what we're given. `max_version` is MAX_SHIM_VERSION.
pub(crate) fn understand(mut args: Args, stdin: &[u8], max_version: Option<&str>) -> Order {
    if let Some(params) = parameters(&args, stdin) {
        let options = params.extensions.into_iter().find_map(|extension| extension.value);
        args.id = params.instance_id;
        args.namespace = params.namespace;
        args.debug |= params.log_level <= LogLevel::Debug as i32;
        let replace = |old: &mut String, new: String| {
            if !new.is_empty() {
                *old = new;
            }
        };
        replace(&mut args.address, params.containerd_grpc_address);
        replace(&mut args.ttrpc_address, params.containerd_ttrpc_address);
        replace(&mut args.publish_binary, params.containerd_binary);
        let given = params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from);
        args.socket_dir = given.or(args.socket_dir);
        return Order { args, dialect: Dialect::Protobuf, options };
    }
    let dialect = match max_version.map(|version| version.trim().parse::<i32>()) {
        Some(Ok(version)) => Dialect::Json(version.clamp(2, NEWEST)),
        _ => Dialect::Text,
    };
    let options = Any::decode(stdin).ok().filter(|any| !any.type_url.is_empty());
    Order { args, dialect, options }
}

fn parameters(args: &Args, stdin: &[u8]) -> Option<BootstrapParams> {
    let params = BootstrapParams::decode(stdin).ok()?;
    let same = |flag: &str, value: &str| flag == value || flag.is_empty();
    // Without a flag to compare with, the version tells: nothing else has a string there.
    let told = !args.id.is_empty() || !params.containerd_version.is_empty();
    let ours = same(&args.id, &params.instance_id) && same(&args.namespace, &params.namespace);
    (!params.instance_id.is_empty() && told && ours).then_some(params)
}

/// What goes to standard output, to the byte.
pub(crate) fn answer(dialect: Dialect, address: &str) -> Vec<u8> {
    match dialect {
        Dialect::Text => address.into(),
        Dialect::Json(version) => {
            serde_json::json!({"version": version, "address": address, "protocol": "ttrpc"})
                .to_string()
                .into()
        }
        Dialect::Protobuf => BootstrapResult {
            version: NEWEST,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..BootstrapResult::default()
        }
        .encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_task_api::proto::containerd::runc::v1::Options;
    use corten_task_api::proto::containerd::runtime::bootstrap::v1::Extension;
    use corten_task_api::services::any;

    fn args(line: &str) -> Args {
        Args::parse(line.split_whitespace().map(Into::into)).unwrap()
    }

    fn params() -> BootstrapParams {
        BootstrapParams {
            instance_id: "c1".into(),
            namespace: "k8s.io".into(),
            containerd_version: "2.3.0".into(),
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn parameters_are_told_from_all_else() {
        let flags = "-namespace k8s.io -id c1 -address /a start";
        let order = understand(args(flags), &params().encode_to_vec(), Some("2"));
        assert_eq!(order.dialect, Dialect::Protobuf);
        let options =
            any("containerd.runc.v1.Options", &Options { shim_cgroup: "/x".into(), ..Options::default() });
        for (stdin, name) in [
            (Vec::new(), "nothing"),
            (options.encode_to_vec(), "options"),
            (b"anything else\n".to_vec(), "text"),
            (vec![0; 100], "zeroes"),
            (BootstrapParams { instance_id: "c2".into(), ..params() }.encode_to_vec(), "another's"),
            (BootstrapParams { namespace: "moby".into(), ..params() }.encode_to_vec(), "another namespace's"),
        ] {
            assert_eq!(understand(args(flags), &stdin, None).dialect, Dialect::Text, "{name}");
            assert_eq!(understand(args(flags), &stdin, Some("2")).dialect, Dialect::Json(2), "{name}");
        }
        let order = understand(args(flags), &options.encode_to_vec(), None);
        assert_eq!(order.options, Some(options));
    }

    #[test]
    fn parameters_go_before_flags() {
        let options = any("containerd.runc.v1.Options", &Options::default());
        let given = BootstrapParams {
            log_level: LogLevel::Trace as i32,
            containerd_ttrpc_address: "/t".into(),
            containerd_binary: "/bin/containerd".into(),
            extensions: vec![Extension { value: Some(options.clone()) }],
            socket_dir: Some("/run/s".into()),
            ..params()
        };
        // No flags at all, as a containerd to come may do it.
        let order = understand(args("start"), &given.encode_to_vec(), None);
        assert_eq!((order.args.id.as_str(), order.args.namespace.as_str()), ("c1", "k8s.io"));
        assert_eq!(order.args.ttrpc_address, "/t");
        assert_eq!(order.args.publish_binary, "/bin/containerd");
        assert_eq!(order.args.socket_dir, Some("/run/s".into()));
        assert!(order.args.debug);
        assert_eq!(order.options, Some(options));
    }

    #[test]
    fn answers() {
        assert_eq!(answer(Dialect::Text, "unix:///s"), b"unix:///s");
        let json: serde_json::Value = serde_json::from_slice(&answer(Dialect::Json(2), "unix:///s")).unwrap();
        assert_eq!(json, serde_json::json!({"version": 2, "address": "unix:///s", "protocol": "ttrpc"}));
        let result = BootstrapResult::decode(answer(Dialect::Protobuf, "unix:///s").as_slice()).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///s", "ttrpc")
        );
        let max = |version| understand(args("-id x start"), b"", version).dialect;
        assert_eq!(
            (max(Some("4")), max(Some("3")), max(Some("x"))),
            (Dialect::Json(3), Dialect::Json(3), Dialect::Text)
        );
    }
}
