//! Plans of whole configs, and what is refused.

use std::path::Path;

use corten_sys::mount::{Attributes, Propagation};
use serde_json::{Value, json};

use super::*;

const KUBERNETES: &str = include_str!("golden/kubernetes.json");

fn plan_of(config: &Value) -> Result<Plan, Vec<String>> {
    let spec: Spec = serde_json::from_value(config.clone()).expect("a spec");
    Plan::new(Path::new("/bundle"), &spec, Circumstances::default())
}

/// The Kubernetes config with one place (a JSON pointer) changed.
fn with(pointer: &str, value: Value) -> Value {
    let mut config: Value = serde_json::from_str(KUBERNETES).expect("JSON");
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = config.pointer_mut(parent).expect("its parent");
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
        other => panic!("{other}"),
    }
    config
}

fn problems(config: &Value) -> Vec<String> {
    plan_of(config).expect_err("it must be refused")
}

/// If a change of the plan is wanted, run the test with CORTEN_BLESS=1 and read the difference.
#[test]
fn the_plan_of_a_kubernetes_container() {
    let config = serde_json::from_str(KUBERNETES).expect("JSON");
    let text = format!("{:#?}\n", plan_of(&config).expect("a plan"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/golden/kubernetes.txt");
    if std::env::var_os("CORTEN_BLESS").is_some() {
        std::fs::write(&golden, &text).expect("write");
    }
    let expected = std::fs::read_to_string(&golden).expect("the golden file");
    for (i, (is, should)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, should, "line {} of {}", i + 1, golden.display());
    }
    assert_eq!(text.lines().count(), expected.lines().count());
}

#[test]
fn all_problems_are_told_at_once() {
    let mut config = with("/linux/namespaces/-", json!({"type": "pid"}));
    config["process"]["cwd"] = json!("relative");
    config["process"]["args"] = json!([]);
    let problems = problems(&config);
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn what_nobody_would_do_is_refused() {
    for (pointer, value, field) in [
        ("/linux/intelRdt", json!({"closID": "a/b"}), "linux.intelRdt.closID"),
        ("/linux/intelRdt", json!({"memBwSchema": "L3:0=f"}), "linux.intelRdt.memBwSchema"),
        ("/linux/intelRdt", json!({"l3CacheSchema": "L2:0=f"}), "linux.intelRdt.l3CacheSchema"),
        ("/linux/intelRdt", json!({"schemata": ["0=f"]}), "linux.intelRdt.schemata[0]"),
        ("/linux/netDevices", json!({"eth1": {"name": "a/b"}}), "linux.netDevices[\"eth1\"]"),
        ("/linux/netDevices", json!({"a": {"name": "c"}, "b": {"name": "c"}}), "linux.netDevices"),
        ("/linux/timeOffsets", json!({"monotonic": {"nanosecs": 1_000_000_000_u32}}), "linux.timeOffsets"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 0}]),
            "linux.devices[0]",
        ),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "process.ioPriority"),
        ("/process/execCPUAffinity", json!({"initial": "3-1"}), "process.execCPUAffinity.initial"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "x"}), "linux.memoryPolicy.nodes"),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "linux.timeOffsets"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["x"]}), "linux.personality"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]), "linux.uidMappings"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("/process/user", json!({"uid": u32::MAX, "gid": 0}), "process.user.uid"),
        ("/process/user", json!({"uid": 0, "gid": u32::MAX}), "process.user.gid"),
        ("/process/env/-", json!("no equals sign"), "process.env[3]"),
        ("/linux/sysctl", json!({"vm.swappiness": "1"}), "linux.sysctl[\"vm.swappiness\"]"),
        ("/linux/sysctl", json!({"kernel.hostname": "x"}), "linux.sysctl[\"kernel.hostname\"]"),
        ("/linux/sysctl", json!({"net.../../x": "1"}), "linux.sysctl"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "a"}]), "linux.devices[0]"),
        ("/mounts/-", json!({"destination": "/x", "type": "bind", "options": ["bind"]}), "mounts[12]"),
        (
            "/mounts/-",
            json!({"destination": "/x", "type": "tmpfs", "options": ["src-nofollow"]}),
            "mounts[12]",
        ),
        (
            "/mounts/-",
            json!({"destination": "/x", "source": "/y", "options": ["bind", "copy-symlink", "dest-nofollow"]}),
            "mounts[12]",
        ),
        (
            "/mounts/-",
            json!({"destination": "/x", "source": "/y", "options": ["bind", "copy-symlink", "src-nofollow"]}),
            "mounts[12]",
        ),
        (
            "/mounts/-",
            json!({"destination": "/x", "source": "/y", "options": ["bind", "idmap"]}),
            "mounts[12]",
        ),
        ("/mounts/-", json!({"destination": "/proc/keys", "type": "tmpfs", "source": "t"}), "mounts[12]"),
        ("/mounts/-", json!({"destination": "proc//", "type": "tmpfs", "source": "t"}), "mounts[12]"),
        ("/mounts/-", json!({"destination": "/proc/sys", "source": "/y", "options": ["bind"]}), "mounts[12]"),
    ] {
        let problems = problems(&with(pointer, value));
        assert!(problems.iter().any(|p| p.starts_with(field)), "{pointer}: {problems:?}");
    }
}

#[test]
fn mappings_that_the_kernel_would_refuse() {
    let mapping =
        |inside: u32, host: u32, size: u32| json!({"containerID": inside, "hostID": host, "size": size});
    for (mappings, problem) in [
        (vec![mapping(0, 1000, 0)], "no ids"),
        (vec![mapping(1, 1000, 5)], "id 0"),
        (vec![mapping(0, 1000, 5), mapping(4, 5000, 1)], "overlap"),
        (vec![mapping(0, 1000, 5), mapping(5, 1002, 1)], "overlap"),
        (vec![mapping(0, 4_294_967_290, 100)], "last id"),
    ] {
        let mut config = with("/linux/namespaces/-", json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!([mapping(0, 1000, 1), mapping(1, 100_000, 65_536)]);
        config["linux"]["gidMappings"] = json!(mappings);
        let problems = problems(&config);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("linux.gidMappings") && problems[0].contains(problem),
            "{problems:?}"
        );
    }
}

#[test]
fn without_privileges_there_must_be_a_user_namespace() {
    let circumstances = Circumstances { unprivileged: true, ..Circumstances::default() };
    let spec: Spec = serde_json::from_str(KUBERNETES).expect("a spec");
    let problems = Plan::new(Path::new("/bundle"), &spec, circumstances).expect_err("it must be refused");
    assert!(problems.iter().any(|p| p.starts_with("linux.namespaces: without root")), "{problems:?}");
}

/// As in crun: the same said twice is none.
#[test]
fn two_domain_names_are_a_contradiction() {
    let mut config = with("/linux/sysctl", json!({"kernel.domainname": "one"}));
    config["domainname"] = json!("one");
    plan_of(&config).expect("a plan");
    config["domainname"] = json!("two");
    let problems = problems(&config);
    assert!(problems.len() == 1 && problems[0].starts_with("domainname: "), "{problems:?}");
}

#[test]
fn annotations_are_heeded() {
    let config = with("/annotations", json!({"run.oci.keep_original_groups": "1"}));
    assert!(plan_of(&config).expect("a plan").process.keep_groups);
    let config = with("/annotations", json!({"run.oci.seccomp_fail_unknown_syscall": "1"}));
    assert!(plan_of(&config).expect("a plan").strict_seccomp);
    assert!(!plan_of(&with("/annotations", json!({"a": "1"}))).expect("a plan").process.keep_groups);
}

#[test]
fn sysctls_that_are_the_containers_own_pass() {
    let keys =
        json!({"net.ipv4.conf.eth0/1.forwarding": "1", "fs/mqueue/msg_max": "5", "kernel.sem": "1 2 3 4"});
    let plan = plan_of(&with("/linux/sysctl", keys)).expect("a plan");
    let paths: Vec<_> = plan.sysctl.iter().map(|(path, _)| path.to_str().expect("UTF-8")).collect();
    assert_eq!(paths, ["fs/mqueue/msg_max", "kernel/sem", "net/ipv4/conf/eth0.1/forwarding"]);
}

#[test]
fn mount_options_mean_what_they_say() {
    let mount = |options: &[&str]| {
        let mount = json!({"destination": "/x", "source": "/y", "type": "none", "options": options});
        plan_of(&with("/mounts/-", mount)).expect("a plan").mounts.pop().expect("the mount")
    };
    let plain = mount(&["bind"]);
    assert_eq!((plain.set, plain.clear), (Attributes::empty(), Attributes::empty()));
    assert_eq!(mount(&["rbind", "ro", "rw"]).clear, Attributes::RDONLY);
    assert_eq!(mount(&["rbind", "rro", "nosuid"]).set_recursive, Attributes::RDONLY);
    assert_eq!(mount(&["bind", "noatime", "strictatime"]).set, Attributes::STRICTATIME);
    let relatime = mount(&["bind", "relatime"]);
    assert_eq!((relatime.set, relatime.clear), (Attributes::empty(), Attributes::ATIME));
    let propagated = mount(&["rbind", "rslave", "shared"]);
    assert_eq!(propagated.propagation, [(Propagation::Slave, true), (Propagation::Shared, false)]);
    assert_eq!(
        mount(&["bind"]).kind,
        MountKind::Bind { source: "/y".into(), recursive: false, link: Link::Followed }
    );
}

/// runtime-spec's table: whatever is an option there must not end as a word for the file system, except what the
/// kernel takes as such for all of them.
#[test]
fn every_mount_option_of_the_specification_is_known() {
    const ALL: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev
        nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro
        rprivate rshared rslave runbindable rw shared silent slave strictatime suid sync unbindable nosymfollow
        symfollow ratime rdev rdiratime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
        rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow idmap ridmap mand nomand tmpcopyup";
    const OF_ALL_FILE_SYSTEMS: [&str; 10] = [
        "async",
        "dirsync",
        "iversion",
        "lazytime",
        "mand",
        "nolazytime",
        "nomand",
        "silent",
        "sync",
        "size=1k",
    ];
    for option in ALL.split_whitespace().chain(["size=1k"]) {
        let mut parsed = mounts::Options::default();
        parsed.parse(option);
        assert_eq!(parsed.data.is_empty(), !OF_ALL_FILE_SYSTEMS.contains(&option), "{option}");
    }
}

#[test]
fn a_remount_makes_no_mount() {
    let remount = |options: &[&str]| {
        let mount = json!({"destination": "/x", "type": "tmpfs", "source": "y", "options": options});
        plan_of(&with("/mounts/-", mount)).expect("a plan").mounts.pop().expect("the mount")
    };
    let mount = remount(&["remount", "ro", "size=1k"]);
    let MountKind::Remount { options, bind: false } = mount.kind else { panic!("{mount:?}") };
    assert_eq!((mount.set, options.len()), (Attributes::RDONLY, 1));
    assert!(matches!(remount(&["bind", "remount", "ro"]).kind, MountKind::Remount { bind: true, .. }));
}

#[test]
fn schemata_are_written_in_the_specified_order() {
    let rdt = |rdt: Value| plan_of(&with("/linux/intelRdt", rdt)).expect("a plan").rdt.expect("rdt");
    let all = json!({"l3CacheSchema": "L3:0=f\nMB:0=1", "memBwSchema": "MB:0=50", "schemata": ["L3:0=1", "L2:0=1"]});
    assert_eq!(rdt(all).schemata, ["L3:0=f\nMB:0=50", "L3:0=1\nL2:0=1"]);
    assert_eq!(rdt(json!({"l3CacheSchema": "L3:0=f\nMB:0=1"})).schemata, ["L3:0=f\nMB:0=1"]);
    assert_eq!(rdt(json!({"closID": "gold", "enableMonitoring": true})).schemata, [""; 0]);
}

/// With a look at all others for each this took hours; Kubernetes gives a pod of a namespace with many services thousands.
#[test]
fn a_hundred_thousand_variables_are_no_trouble() {
    let env: Vec<String> = (0..100_000).map(|i| format!("V{i}={i}")).collect();
    let plan = plan_of(&with("/process/env", json!(env))).expect("a plan");
    assert_eq!(plan.process.env.len(), env.len());
}

#[test]
fn of_a_name_given_twice_the_last_value_counts() {
    let env = json!(["A=1", "HOME=", "A=2", "B=x=y"]);
    let plan = plan_of(&with("/process/env", env)).expect("a plan");
    let env: Vec<_> = plan.process.env.iter().map(|e| e.to_str().expect("UTF-8")).collect();
    assert_eq!(env, ["A=2", "B=x=y"]);
    assert!(plan.process.needs_home);
}

#[test]
fn the_hosts_dev_is_left_alone() {
    let dev = json!({"destination": "/dev", "source": "/dev", "options": ["rbind"]});
    let mut config = with("/mounts/-", dev);
    let device = |path| json!({"path": path, "type": "c", "major": 10, "minor": 229});
    config["linux"]["devices"] = json!([device("/dev/fuse"), device("/srv/fuse")]);
    let devices = plan_of(&config).expect("a plan").devices;
    assert!(devices.host_dev);
    assert_eq!(devices.left_out, ["/dev/fuse"]);
    let made: Vec<_> = devices.make.iter().map(|device| device.path.to_str().expect("UTF-8")).collect();
    assert_eq!(made, ["/srv/fuse"]);
}

#[test]
fn joining_the_user_namespace_comes_last() {
    let mut config = with("/linux/namespaces/-", json!({"type": "user", "path": "/p/user"}));
    config["linux"]["namespaces"].as_array_mut().expect("a list").rotate_right(1);
    let plan = plan_of(&config).expect("a plan");
    let order: Vec<_> = plan.namespaces.join.iter().map(|join| join.path.to_str().expect("UTF-8")).collect();
    assert_eq!(order, ["/run/corten/pods/1/ns/net", "/run/corten/pods/1/ns/ipc", "/p/user"]);
}

#[test]
fn lists_of_numbers() {
    assert_eq!(bit_list("0-2,5"), Some(vec![0b10_0111]));
    assert_eq!(bit_list("64"), Some(vec![0, 1]));
    assert_eq!(bit_list(""), Some(vec![]));
    for bad in ["x", "3-1", "1-", "99999999"] {
        assert_eq!(bit_list(bad), None, "{bad}");
    }
}
