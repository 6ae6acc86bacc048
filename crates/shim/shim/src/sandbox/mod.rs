//! The pod itself: namespaces that its containers share, with no process of its own where none is needed.

mod holder;
mod init;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use corten_task_api::proto::containerd::runtime::sandbox::v1::CreateSandboxRequest;
use corten_task_api::proto::cri::v1::{NamespaceMode, PodSandboxConfig, UserNamespace};
use corten_task_api::ttrpc::Status;
use prost::Message;
use tokio::sync::Notify;

use crate::error;
pub(crate) use holder::{Holder, set_up};
pub(crate) use init::{Init, READY};

/// Where the pod's network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    /// The host's.
    Host,
    /// At this path.
    Given(PathBuf),
    /// To be made, with loopback alone.
    New,
}

/// What the pod's namespaces shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) net: Net,
    /// Its own System V IPC and message queues.
    pub(crate) ipc: bool,
    /// Its own PIDs, shared by its containers.
    pub(crate) pid: bool,
    /// Its own users: the lines of uid_map and gid_map.
    pub(crate) user: Option<(String, String)>,
    /// Empty: the host's.
    pub(crate) hostname: String,
    pub(crate) sysctls: Vec<(String, String)>,
    /// The cgroup that the pod's containers are in; empty if nobody says.
    pub(crate) cgroup_parent: String,
}

impl Plan {
    pub(crate) fn of(request: &CreateSandboxRequest) -> Result<Self, Status> {
        let config = config(request)?;
        let linux = config.linux.unwrap_or_default();
        let namespaces = linux.security_context.and_then(|s| s.namespace_options).unwrap_or_default();
        let net = match (mode(namespaces.network), request.netns_path.as_str()) {
            (NamespaceMode::Node, _) => Net::Host,
            (_, "") => Net::New,
            (_, path) => Net::Given(path.into()),
        };
        // As CRI has it: a pod with the host's network has the host's name.
        let hostname = if net == Net::Host { String::new() } else { config.hostname };
        Ok(Self {
            ipc: mode(namespaces.ipc) != NamespaceMode::Node,
            pid: mode(namespaces.pid) == NamespaceMode::Pod && request.options.is_some(),
            user: namespaces.userns_options.as_ref().and_then(user),
            net,
            hostname,
            sysctls: linux.sysctls.into_iter().collect(),
            cgroup_parent: linux.cgroup_parent,
        })
    }
}

impl Plan {
    /// The pod as runtime-spec would describe it, for who asks containerd: namespaces with their paths, above all.
    pub(crate) fn spec(&self, pid: u32) -> serde_json::Value {
        let path = |file: &str| format!("/proc/{pid}/ns/{file}");
        let network = match &self.net {
            Net::Host => None,
            Net::Given(path) => Some(path.to_string_lossy().into_owned()),
            Net::New => Some(path("net")),
        };
        let namespaces = [
            ("network", network),
            ("uts", (self.net != Net::Host).then(|| path("uts"))),
            ("ipc", self.ipc.then(|| path("ipc"))),
            ("pid", self.pid.then(|| path("pid"))),
            ("user", self.user.is_some().then(|| path("user"))),
        ];
        let namespaces: Vec<_> = namespaces
            .into_iter()
            .filter_map(|(kind, path)| Some(serde_json::json!({"type": kind, "path": path?})))
            .collect();
        let sysctl: std::collections::BTreeMap<_, _> = self.sysctls.iter().cloned().collect();
        serde_json::json!({
            "ociVersion": "1.2.0",
            "hostname": self.hostname,
            "linux": {"cgroupsPath": self.cgroup_parent, "namespaces": namespaces, "sysctl": sysctl},
        })
    }
}

fn config(request: &CreateSandboxRequest) -> Result<PodSandboxConfig, Status> {
    let Some(any) = request.options.as_ref().filter(|any| !any.type_url.is_empty()) else {
        return Ok(PodSandboxConfig::default());
    };
    match any.type_url.rsplit('/').next().unwrap_or_default() {
        "runtime.v1.PodSandboxConfig" => PodSandboxConfig::decode(any.value.as_slice())
            .map_err(|e| error::invalid(format!("options of type {}: {e}", any.type_url))),
        other => Err(error::invalid(format!(
            "options of type {other}: a sandbox takes runtime.v1.PodSandboxConfig"
        ))),
    }
}

fn mode(number: i32) -> NamespaceMode {
    NamespaceMode::try_from(number).unwrap_or(NamespaceMode::Pod)
}

/// None where the pod has the host's users.
fn user(options: &UserNamespace) -> Option<(String, String)> {
    if options.mode == NamespaceMode::Node as i32 {
        return None;
    }
    let lines = |maps: &[corten_task_api::proto::cri::v1::IdMapping]| -> String {
        maps.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.length)).collect()
    };
    Some((lines(&options.uids), lines(&options.gids)))
}

/// Where a sandbox stands.
#[derive(Debug)]
pub(crate) enum Stage {
    Created,
    Starting,
    Running(Holder),
    Stopping,
    Stopped { exit_status: u32, exited_at_ns: i64 },
}

/// A sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) plan: Plan,
    pub(crate) created_at_ns: Cell<i64>,
    pub(crate) stage: RefCell<Stage>,
    changed: Notify,
}

impl Sandbox {
    pub(crate) fn new(id: String, plan: Plan) -> Rc<Self> {
        Rc::new(Self {
            id,
            plan,
            created_at_ns: Cell::new(0),
            stage: RefCell::new(Stage::Created),
            changed: Notify::new(),
        })
    }

    /// Goes to another stage; returns the one before.
    pub(crate) fn set(&self, stage: Stage) -> Stage {
        let before = self.stage.replace(stage);
        self.changed.notify_waiters();
        before
    }

    /// Whose /proc/<pid>/ns has the pod's namespaces; 0 when nobody's has.
    pub(crate) fn pid(&self) -> u32 {
        match &*self.stage.borrow() {
            Stage::Running(holder) => holder.pid(),
            _ => 0,
        }
    }

    /// How it has ended, and when.
    pub(crate) fn ended(&self) -> Option<(u32, i64)> {
        match *self.stage.borrow() {
            Stage::Stopped { exit_status, exited_at_ns } => Some((exit_status, exited_at_ns)),
            _ => None,
        }
    }

    /// Waits for its end.
    pub(crate) async fn end(&self) -> (u32, i64) {
        loop {
            if let Some(ended) = self.ended() {
                return ended;
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_task_api::proto::cri::v1::{
        IdMapping, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption,
    };
    use corten_task_api::services::any;

    fn plan(options: NamespaceOption, netns: &str) -> Plan {
        let security_context = Some(LinuxSandboxSecurityContext { namespace_options: Some(options) });
        let config = PodSandboxConfig {
            hostname: "pod".into(),
            linux: Some(LinuxPodSandboxConfig { security_context, ..LinuxPodSandboxConfig::default() }),
            ..PodSandboxConfig::default()
        };
        let request = CreateSandboxRequest {
            netns_path: netns.into(),
            options: Some(any("runtime.v1.PodSandboxConfig", &config)),
            ..CreateSandboxRequest::default()
        };
        Plan::of(&request).unwrap()
    }

    #[test]
    fn namespaces_are_as_the_pod_wants_them() {
        let usual = NamespaceOption { pid: NamespaceMode::Container as i32, ..NamespaceOption::default() };
        let got = plan(usual.clone(), "/run/netns/x");
        assert_eq!(
            (got.net, got.ipc, got.pid, got.user),
            (Net::Given("/run/netns/x".into()), true, false, None)
        );
        assert_eq!(got.hostname, "pod");
        assert_eq!(plan(usual.clone(), "").net, Net::New);
        let node = NamespaceMode::Node as i32;
        let host = NamespaceOption { network: node, ipc: node, pid: node, ..usual.clone() };
        let got = plan(host, "");
        assert_eq!((got.net, got.ipc, got.pid, got.hostname.as_str()), (Net::Host, false, false, ""));
        assert!(plan(NamespaceOption::default(), "").pid);
        let map = |host_id| vec![IdMapping { host_id, container_id: 0, length: 65536 }];
        let userns = UserNamespace { uids: map(100_000), gids: map(200_000), ..UserNamespace::default() };
        let got = plan(NamespaceOption { userns_options: Some(userns), ..usual }, "");
        assert_eq!(got.user, Some(("0 100000 65536\n".into(), "0 200000 65536\n".into())));
        // Without a configuration: a network and IPC of its own.
        let bare = Plan::of(&CreateSandboxRequest::default()).unwrap();
        assert_eq!((bare.net, bare.ipc, bare.pid), (Net::New, true, false));
    }
}
