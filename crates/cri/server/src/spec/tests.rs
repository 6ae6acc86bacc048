//! What containers of the usual kinds become. Each test changes one thing of a plain request and looks at what it does.

use corten_cri_api::v1::{
    ContainerMetadata, HugepageLimit, ImageSpec, KeyValue, LinuxContainerConfig, Mount, MountPropagation,
    NamespaceMode, SecurityProfile, UserNamespace, security_profile::ProfileType,
};
use oci_spec::image::ConfigBuilder;

use super::*;

struct Case {
    config: ContainerConfig,
    image: ImageConfig,
    identity: Identity,
    options: NamespaceOption,
    pins: PodPins,
}

fn plain() -> Case {
    let image = ConfigBuilder::default()
        .entrypoint(vec!["/entry".to_owned()])
        .cmd(vec!["default".to_owned()])
        .env(vec!["PATH=/image/bin".to_owned(), "COLOUR=red".to_owned()])
        .working_dir("/work".to_owned())
        .build()
        .expect("an image config");
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "web".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "sha256:ab".into(), ..Default::default() }),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources::default()),
            security_context: Some(LinuxContainerSecurityContext::default()),
        }),
        ..Default::default()
    };
    let options = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
    let pins = PodPins {
        net: Some("/state/pods/p/ns/net".into()),
        ipc: Some("/state/pods/p/ns/ipc".into()),
        uts: Some("/state/pods/p/ns/uts".into()),
        pid: None,
    };
    let identity = Identity { uid: 0, gid: 0, groups: vec![0] };
    Case { config, image, identity, options, pins }
}

impl Case {
    fn build(&self) -> Result<Value> {
        build(&Input {
            id: "c1",
            config: &self.config,
            pod: Pod {
                id: "p1",
                namespace: "default",
                name: "pod",
                uid: "u1",
                hostname: "host",
                options: self.options.clone(),
                cgroup_parent: "/kubepods/burstable/podu1",
                pins: self.pins.clone(),
                files: "/state/pods/p".into(),
            },
            image: &self.image,
            identity: &self.identity,
            held: &["CAP_CHOWN".to_owned(), "CAP_SYS_ADMIN".to_owned()],
            target_pid: None,
        })
    }

    fn spec(&self) -> Value {
        let spec = self.build().expect("a valid request");
        let typed: oci_spec::runtime::Spec = serde_json::from_value(spec.clone()).expect("a valid spec");
        assert!(typed.linux().is_some());
        spec
    }

    fn error(&self) -> String {
        self.build().expect_err("an invalid request").chain()
    }

    fn security(&mut self) -> &mut LinuxContainerSecurityContext {
        let linux = self.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default()
    }

    fn resources(&mut self) -> &mut LinuxContainerResources {
        self.config.linux.get_or_insert_default().resources.get_or_insert_default()
    }
}

fn mount<'a>(spec: &'a Value, destination: &str) -> &'a Value {
    let mounts = spec["mounts"].as_array().expect("mounts");
    mounts.iter().find(|mount| mount["destination"] == destination).unwrap_or(&Value::Null)
}

#[test]
fn a_plain_container() {
    let mut spec = plain().spec();
    let linux = spec["linux"].as_object_mut().expect("linux");
    assert!(linux.remove("maskedPaths").is_some_and(|paths| paths.to_string().contains("/proc/kcore")));
    assert!(linux.remove("readonlyPaths").is_some_and(|paths| paths.to_string().contains("/proc/sys")));
    assert_eq!(
        spec["linux"],
        json!({
            "cgroupsPath": "/kubepods/burstable/podu1/c1",
            "namespaces": namespaces(&[
                json!({"type": "mount"}),
                json!({"type": "network", "path": "/state/pods/p/ns/net"}),
                json!({"type": "ipc", "path": "/state/pods/p/ns/ipc"}),
                json!({"type": "uts", "path": "/state/pods/p/ns/uts"}),
                json!({"type": "pid"}),
            ]),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "devices": [],
        })
    );
    let process = &spec["process"];
    assert_eq!(process["args"], json!(["/entry", "default"]));
    assert_eq!(process["env"], json!(["PATH=/image/bin", "HOSTNAME=host", "COLOUR=red"]));
    assert_eq!(process["cwd"], "/work");
    assert_eq!(process["user"], json!({"uid": 0, "gid": 0, "additionalGids": [0]}));
    assert_eq!(spec["root"], json!({"path": "rootfs", "readonly": false}));
    assert_eq!(mount(&spec, "/etc/hosts")["source"], "/state/pods/p/hosts");
    assert_eq!(mount(&spec, "/dev/shm")["source"], "/state/pods/p/shm");
    assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-id"], "p1");
}

fn namespaces(common: &[Value]) -> Vec<Value> {
    let mut all = common.to_vec();
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        all.push(json!({"type": "cgroup"}));
    }
    all
}

#[test]
fn command_and_arguments_override_the_image() {
    let mut case = plain();
    case.config.args = vec!["mine".into()];
    assert_eq!(case.spec()["process"]["args"], json!(["/entry", "mine"]));
    case.config.command = vec!["/other".into()];
    assert_eq!(case.spec()["process"]["args"], json!(["/other", "mine"]));
    case.config.args.clear();
    assert_eq!(case.spec()["process"]["args"], json!(["/other"]));
    case.config.command.clear();
    case.image = ImageConfig::default();
    assert!(case.error().contains("no command"));
}

#[test]
fn environment_overrides_in_place() {
    let mut case = plain();
    case.config.envs = vec![
        KeyValue { key: "COLOUR".into(), value: b"blue".to_vec() },
        KeyValue { key: "EMPTY".into(), value: Vec::new() },
    ];
    let env = case.spec()["process"]["env"].clone();
    assert_eq!(env, json!(["PATH=/image/bin", "HOSTNAME=host", "COLOUR=blue", "EMPTY="]));
    case.config.envs = vec![KeyValue { key: "RAW".into(), value: vec![0xff] }];
    assert!(case.error().contains("RAW"));
}

#[test]
fn limits_pass_and_empty_hugepage_limits_do_not() {
    let mut case = plain();
    *case.resources() = LinuxContainerResources {
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 1 << 20,
        oom_score_adj: 999,
        cpuset_cpus: "0-1".into(),
        hugepage_limits: vec![
            HugepageLimit { page_size: "2MB".into(), limit: 0 },
            HugepageLimit { page_size: "1GB".into(), limit: 1 << 30 },
        ],
        unified: [("memory.high".to_owned(), "1000".to_owned())].into(),
        ..Default::default()
    };
    let spec = case.spec();
    let mut resources = spec["linux"]["resources"].clone();
    resources.as_object_mut().expect("an object").remove("devices");
    assert_eq!(
        resources,
        json!({
            "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0-1"},
            "memory": {"limit": 1_048_576},
            "hugepageLimits": [{"pageSize": "1GB", "limit": 1_073_741_824}],
            "unified": {"memory.high": "1000"},
        })
    );
    assert_eq!(spec["process"]["oomScoreAdj"], 999);
}

#[test]
fn privileged_sees_everything() {
    let mut case = plain();
    case.security().privileged = true;
    case.security().seccomp = Some(profile(ProfileType::RuntimeDefault, ""));
    let spec = case.spec();
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["seccomp"], Value::Null);
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]));
    assert!(mount(&spec, "/sys")["options"].to_string().contains("rw"));
    assert!(!mount(&spec, "/sys")["options"].to_string().contains("ro\""));
}

fn profile(kind: ProfileType, path: &str) -> SecurityProfile {
    SecurityProfile { profile_type: kind.into(), localhost_ref: path.into() }
}

#[test]
fn seccomp_profiles() {
    let mut case = plain();
    assert_eq!(case.spec()["linux"]["seccomp"], Value::Null);
    case.security().seccomp = Some(profile(ProfileType::RuntimeDefault, ""));
    assert_eq!(case.spec()["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    case.security().seccomp = Some(profile(ProfileType::Unconfined, ""));
    assert_eq!(case.spec()["linux"]["seccomp"], Value::Null);
    case.security().seccomp = Some(profile(ProfileType::Localhost, "/nonexistent.json"));
    assert!(case.error().contains("/nonexistent.json"));
}

#[test]
fn mounts_are_ordered_and_replace_the_pods_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let host = dir.path().to_string_lossy().into_owned();
    let at = |path: &str, readonly| Mount {
        container_path: path.into(),
        host_path: host.clone(),
        readonly,
        ..Default::default()
    };
    let mut case = plain();
    case.config.mounts = vec![at("/a/b/c", false), at("/etc/hosts/", true), at("/a", true)];
    let spec = case.spec();
    let order: Vec<&str> =
        spec["mounts"].as_array().expect("mounts").iter().filter_map(|m| m["destination"].as_str()).collect();
    let position = |path: &str| order.iter().position(|other| *other == path);
    assert!(position("/a") < position("/a/b/c") && position("/dev") < position("/dev/shm"), "{order:?}");
    assert_eq!(order.iter().filter(|path| **path == "/etc/hosts").count(), 1);
    assert_eq!(mount(&spec, "/etc/hosts")["options"], json!(["rbind", "rprivate", "ro"]));
    assert_eq!(mount(&spec, "/a/b/c")["options"], json!(["rbind", "rprivate", "rw"]));
}

#[test]
fn wrong_mounts_are_named() {
    let case = |change: fn(&mut Mount)| {
        let mut mount =
            Mount { container_path: "/inside".into(), host_path: "/tmp".into(), ..Default::default() };
        change(&mut mount);
        let mut case = plain();
        case.config.mounts = vec![mount];
        case.error()
    };
    assert!(case(|m| m.host_path = "/no/such/path".into()).contains("/no/such/path"));
    assert!(case(|m| m.container_path = "inside".into()).contains("inside"));
    assert!(case(|m| m.container_path = "/a/../../b".into()).contains("/a/../../b"));
    assert!(case(|m| m.image = Some(ImageSpec::default())).contains("image"));
    assert!(case(|m| m.recursive_read_only = true).contains("recursive_read_only"));
    assert!(case(|m| m.mount_options = vec!["exec".into()]).contains("exec"));
    let shared = |m: &mut Mount| {
        (m.readonly, m.recursive_read_only) = (true, true);
        m.propagation = MountPropagation::PropagationHostToContainer.into();
    };
    assert!(case(shared).contains("recursive_read_only"));
}

#[test]
fn pid_namespaces() {
    let mut case = plain();
    case.options.pid = NamespaceMode::Pod.into();
    assert!(case.error().contains("PID namespace"));
    case.pins.pid = Some("/proc/9/ns/pid".into());
    assert!(case.spec()["linux"]["namespaces"].to_string().contains("/proc/9/ns/pid"));
    case.options.pid = NamespaceMode::Node.into();
    assert!(!case.spec()["linux"]["namespaces"].to_string().contains("\"pid\""));
    case.options =
        NamespaceOption { pid: NamespaceMode::Target.into(), target_id: "c9".into(), ..Default::default() };
    assert!(case.error().contains("c9"));
}

#[test]
fn what_is_not_served_is_refused() {
    let mut case = plain();
    case.options.userns_options =
        Some(UserNamespace { mode: NamespaceMode::Pod.into(), ..Default::default() });
    assert!(case.error().contains("user namespace"));
    let mut case = plain();
    case.config.stdin = true;
    assert!(case.error().contains("stdin"));
    let mut case = plain();
    case.security().apparmor = Some(profile(ProfileType::Localhost, "strict"));
    assert!(case.error().contains("strict"));
}

#[test]
fn a_cgroup_is_never_relative() {
    assert_eq!(cgroup_path("corten", "c"), "/corten/c");
    assert_eq!(cgroup_path("/a/b/", "c"), "/a/b/c");
}
