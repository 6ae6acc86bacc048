//! From options to the configurations that CRI takes.

use std::{collections::HashMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use corten_cri_api::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus, SecurityProfile,
};

use super::options;
use crate::args::{Network, PodOptions, Run};

/// Where the logs of a pod's containers are: CRI doesn't tell clients.
pub(crate) const LOG_DIRECTORY: &str = "corten.dev/log-directory";
/// The pod was made for the container of the same name and goes with it.
pub(crate) const SINGLE: &str = "corten.dev/single-container";

/// What the kubelet hides from containers.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A pod; `single` if it's made for one container. Makes its log directory.
pub(crate) fn pod(name: &str, args: &PodOptions, share_pid: bool, single: bool) -> Result<PodSandboxConfig> {
    let uid = options::uid()?;
    let logs = log_directory(args)?.join(format!("{}_{name}_{uid}", args.namespace));
    let logs = logs.to_str().with_context(|| format!("{} is not UTF-8", logs.display()))?.to_owned();
    let mut annotations = HashMap::from([(LOG_DIRECTORY.to_owned(), logs.clone())]);
    if single {
        annotations.insert(SINGLE.to_owned(), "true".to_owned());
    }
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(args.network, share_pid)),
        seccomp: Some(SecurityProfile::default()),
        ..LinuxSandboxSecurityContext::default()
    };
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid,
            namespace: args.namespace.clone(),
            attempt: 0,
        }),
        // With the host's network comes its name.
        hostname: match args.network {
            Network::Pod => args.hostname.clone().unwrap_or_else(|| name.to_owned()),
            Network::Host => args.hostname.clone().unwrap_or_default(),
        },
        log_directory: logs.clone(),
        port_mappings: args.publish.iter().map(|text| options::port(text)).collect::<Result<_>>()?,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: args.cgroup_parent.clone().unwrap_or_default(),
            security_context: Some(security),
            sysctls: args.sysctl.iter().map(|text| options::pair("--sysctl", text)).collect::<Result<_>>()?,
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    };
    fs::create_dir_all(&logs).with_context(|| format!("make the log directory {logs}"))?;
    Ok(config)
}

fn log_directory(args: &PodOptions) -> Result<PathBuf> {
    let from_env = || std::env::var_os("CORTEN_LOG_DIR").map(PathBuf::from);
    let dir = args.log_dir.clone().or_else(from_env).unwrap_or_else(|| "/var/log/corten".into());
    std::path::absolute(&dir).with_context(|| format!("log directory {}", dir.display()))
}

fn namespaces(network: Network, share_pid: bool) -> NamespaceOption {
    let network = match network {
        Network::Pod => NamespaceMode::Pod,
        Network::Host => NamespaceMode::Node,
    };
    let pid = if share_pid { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption { network: network.into(), pid: pid.into(), ..NamespaceOption::default() }
}

/// The configuration of a pod that is there already, as far as CreateContainer needs it.
pub(crate) fn existing(status: &PodSandboxStatus) -> PodSandboxConfig {
    let options = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.clone());
    let security =
        LinuxSandboxSecurityContext { namespace_options: options, ..LinuxSandboxSecurityContext::default() };
    PodSandboxConfig {
        metadata: status.metadata.clone(),
        log_directory: status.annotations.get(LOG_DIRECTORY).cloned().unwrap_or_default(),
        labels: status.labels.clone(),
        annotations: status.annotations.clone(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(security),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// A container in that pod.
pub(crate) fn container(
    name: &str,
    image: ImageSpec,
    args: &Run,
    pod: &PodSandboxConfig,
) -> Result<ContainerConfig> {
    let mut envs = Vec::new();
    for text in &args.env {
        envs.extend(options::env(text)?);
    }
    let pod_options =
        pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone());
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(image),
        // CRI's command is Docker's entrypoint, its args are Docker's command.
        command: args.entrypoint.iter().cloned().collect(),
        args: args.command.clone(),
        working_dir: args.workdir.clone().unwrap_or_default(),
        envs,
        mounts: args.volume.iter().map(|text| options::volume(text)).collect::<Result<_>>()?,
        labels: args.label.iter().map(|text| options::pair("--label", text)).collect::<Result<_>>()?,
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources(args)?),
            security_context: Some(security(args, pod_options)?),
        }),
        ..ContainerConfig::default()
    })
}

fn resources(args: &Run) -> Result<LinuxContainerResources> {
    let mut resources = LinuxContainerResources::default();
    if let Some(cpus) = &args.cpus {
        resources.cpu_period = 100_000;
        resources.cpu_quota = options::cpu_quota(cpus)?;
    }
    if let Some(memory) = &args.memory {
        resources.memory_limit_in_bytes = options::memory(memory)?;
    }
    Ok(resources)
}

fn security(args: &Run, pod: Option<NamespaceOption>) -> Result<LinuxContainerSecurityContext> {
    let user = args.user.as_deref().map(options::user).transpose()?.unwrap_or_default();
    let hidden = |paths: &[&str]| {
        if args.privileged { Vec::new() } else { paths.iter().map(|&path| path.to_owned()).collect() }
    };
    Ok(LinuxContainerSecurityContext {
        privileged: args.privileged,
        namespace_options: Some(pod.unwrap_or_else(|| namespaces(args.pod_options.network, false))),
        run_as_user: user.uid,
        run_as_username: user.name,
        run_as_group: user.gid,
        readonly_rootfs: args.read_only,
        masked_paths: hidden(&MASKED),
        readonly_paths: hidden(&READ_ONLY),
        // The default profile; what is privileged has none anyway.
        seccomp: Some(SecurityProfile::default()),
        ..LinuxContainerSecurityContext::default()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn run(line: &str) -> Run {
        match Arguments::parse_from(line.split(' ')).command {
            Command::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_becomes_a_pod_and_a_container() {
        let dir = tempfile::tempdir().expect("temp dir");
        let line = format!(
            "cortenctl run --log-dir {} -p 8080:80 --user 7:8 --cpus 0.5 -m 64m --entrypoint /bin/sh img -c date",
            dir.path().display()
        );
        let args = run(&line);
        let pod = pod("web", &args.pod_options, false, true).expect("pod");
        assert_eq!(pod.hostname, "web");
        assert_eq!(pod.annotations[SINGLE], "true");
        assert!(fs::metadata(&pod.log_directory).expect("made").is_dir());
        let config = container("web", ImageSpec::default(), &args, &pod).expect("container");
        assert_eq!(
            (config.command, config.args),
            (vec!["/bin/sh".to_owned()], vec!["-c".to_owned(), "date".to_owned()])
        );
        let linux = config.linux.expect("linux");
        let resources = linux.resources.expect("resources");
        assert_eq!((resources.cpu_quota, resources.memory_limit_in_bytes), (50_000, 64 << 20));
        let security = linux.security_context.expect("security");
        assert_eq!(security.run_as_user.map(|uid| uid.value), Some(7));
        let namespaces = security.namespace_options.expect("namespaces");
        assert_eq!((namespaces.network(), namespaces.pid()), (NamespaceMode::Pod, NamespaceMode::Container));
        assert!(security.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn the_hosts_network_has_the_hosts_name() {
        let dir = tempfile::tempdir().expect("temp dir");
        let args =
            run(&format!("cortenctl run --network host --privileged --log-dir {} img", dir.path().display()));
        let pod = pod("web", &args.pod_options, false, true).expect("pod");
        assert_eq!(pod.hostname, "");
        let config = container("web", ImageSpec::default(), &args, &pod).expect("container");
        let security = config.linux.and_then(|linux| linux.security_context).expect("security");
        assert_eq!(security.namespace_options.expect("namespaces").network(), NamespaceMode::Node);
        assert!(security.masked_paths.is_empty());
    }
}
