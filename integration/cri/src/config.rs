//! Pod and container configurations as a kubelet writes them.

use corten_cri_api::v1;
use integration_support::Scope;

/// A pod with a network, an IPC and a UTS namespace of its own, whose cgroups and logs lie in the scope.
#[must_use]
pub fn pod(scope: &Scope, name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("{}-{name}", scope.prefix()),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: scope.path(&format!("logs/{name}")).to_string_lossy().into_owned(),
        dns_config: Some(v1::DnsConfig {
            servers: vec!["10.96.0.10".to_owned()],
            searches: vec!["default.svc.cluster.local".to_owned()],
            options: vec!["ndots:5".to_owned()],
        }),
        labels: [("app".to_owned(), name.to_owned()), ("scope".to_owned(), scope.prefix().to_owned())].into(),
        annotations: [("org.test/annotation".to_owned(), "kept as it is \u{2713}".to_owned())].into(),
        linux: Some(v1::LinuxPodSandboxConfig {
            // A kubelet makes and removes it; here the scope does.
            cgroup_parent: scope.cgroup_parent(),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A PID namespace for each container, the pod's for the rest: Kubernetes' default.
fn namespaces() -> v1::NamespaceOption {
    v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() }
}

/// A container with the default security context that runs `command`.
#[must_use]
pub fn container(name: &str, image: &str, command: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        labels: [("container".to_owned(), name.to_owned())].into(),
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources {
                cpu_shares: 102,
                memory_limit_in_bytes: 128 << 20,
                oom_score_adj: 900,
                ..Default::default()
            }),
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}
