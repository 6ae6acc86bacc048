//! Hands the listener of a seccomp filter to the agent that answers its notifications (runtime-spec, config-linux
//! "Seccomp", "The Container Process State").

use std::{
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
};

use corten_sys::{fds, process::pidfd_getfd};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Result, State, error::Doing, spawn::parent::Child, spawn::sync::FromParent};

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    /// `listenerPath`: a UNIX stream socket.
    pub(crate) path: PathBuf,
    /// `listenerMetadata`, which only means something to the agent.
    pub(crate) metadata: Option<String>,
}

impl Agent {
    /// Sends the descriptor that has this number in `child`, with the state of the container, on a connection of
    /// its own; then lets the child go on.
    pub(crate) fn hand_over(&self, child: &Child, number: i32, state: &State) -> Result<()> {
        let listener = pidfd_getfd(child.pidfd.as_fd(), number)
            .doing(|| "get the seccomp listener out of the container (it takes CAP_SYS_PTRACE)".to_owned())?;
        let doing =
            || format!("send the seccomp listener to linux.seccomp.listenerPath {}", self.path.display());
        let json = self.process_state(child.pid, state).to_string();
        let mut socket = UnixStream::connect(&self.path).doing(doing)?;
        // The descriptor goes with the first bytes, whatever of them the socket takes at once.
        let sent = fds::send(socket.as_fd(), json.as_bytes(), &[listener.as_fd()]).doing(doing)?;
        socket.write_all(json.as_bytes().get(sent..).unwrap_or_default()).doing(doing)?;
        child.channel.order(FromParent::Delivered)
    }

    fn process_state(&self, pid: i32, state: &State) -> serde_json::Value {
        let mut container = json!({
            "ociVersion": state.oci_version,
            "id": state.id,
            "status": state.status,
            "pid": state.pid,
            "bundle": state.bundle,
        });
        if !state.annotations.is_empty() {
            container["annotations"] = json!(state.annotations);
        }
        let mut process = json!({
            "ociVersion": state.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": container,
        });
        if let Some(metadata) = &self.metadata {
            process["metadata"] = json!(metadata);
        }
        process
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn the_state_is_what_the_specification_shows() {
        let state = State {
            oci_version: "1.0.2".to_owned(),
            id: "oci-container1".to_owned(),
            pid: 4422,
            status: Status::Creating,
            bundle: "/containers/redis".into(),
            rootfs: "/containers/redis/rootfs".into(),
            created: "now".to_owned(),
            annotations: [("myKey".to_owned(), "myValue".to_owned())].into(),
            owner: "root".to_owned(),
        };
        let agent = Agent { path: "/x".into(), metadata: Some("MKNOD=/dev/null".to_owned()) };
        let expected = json!({
            "ociVersion": "1.0.2",
            "fds": ["seccompFd"],
            "pid": 4423,
            "metadata": "MKNOD=/dev/null",
            "state": {
                "ociVersion": "1.0.2",
                "id": "oci-container1",
                "status": "creating",
                "pid": 4422,
                "bundle": "/containers/redis",
                "annotations": {"myKey": "myValue"},
            },
        });
        assert_eq!(agent.process_state(4423, &state), expected);
    }
}
