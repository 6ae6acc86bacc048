//! Real cgroups, in whatever layout this machine has, below /corten-test.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use corten_cgroups::{Cgroup, Error, devices};
use integration_support::require_root;
use oci_spec::runtime::LinuxResources;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A cgroup that is killed and removed whatever happens.
struct Temporary(Cgroup);

impl Temporary {
    fn create(name: &str, json: &str) -> Self {
        Self(Cgroup::create(path(name), &resources(json)).unwrap())
    }

    /// The directory of a hierarchy; None if there is no such.
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        let mut directories = self.0.directories();
        let find = |(names, _): &(String, _)| names.split(',').any(|name| name == controller);
        directories.find(find).map(|(_, dir)| dir.to_owned())
    }

    /// What a file says, by its name on v1 or v2.
    fn value(&self, controller: &str, v1: &str, v2: &str) -> String {
        let path = match self.dir(controller) {
            Some(dir) => dir.join(v1),
            None => self.dir("").unwrap().join(v2),
        };
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.0.kill().ok(); // The next line tells.
        self.0.remove().unwrap();
    }
}

fn path(name: &str) -> String {
    format!("/corten-test/cgroups-{}-{name}", std::process::id())
}

/// A process in the cgroup that ends only if it is killed.
struct Sleeper(Child);

impl Sleeper {
    fn inside(cgroup: &Cgroup) -> Self {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        cgroup.add_pid(child.id().cast_signed()).unwrap();
        Self(child)
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok(); // It may be dead, which is fine.
        self.0.wait().unwrap();
    }
}

#[test]
fn limits_arrive_and_updates_leave_the_rest() {
    if !require_root() {
        return;
    }
    let json = r#"{"memory":{"limit":67108864},"cpu":{"shares":512,"quota":50000,"period":100000},"pids":{"limit":77}}"#;
    let cgroup = Temporary::create("limits", json);
    assert_eq!(cgroup.value("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(cgroup.value("pids", "pids.max", "pids.max"), "77");
    let shares = cgroup.value("cpu", "cpu.shares", "cpu.weight");
    assert!(shares == "512" || shares == "59", "{shares}");

    cgroup.0.update(&resources(r#"{"cpu":{"quota":20000}}"#)).unwrap();
    let quota = cgroup.value("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "20000" || quota == "20000 100000", "{quota}");
    assert_eq!(cgroup.value("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(cgroup.value("pids", "pids.max", "pids.max"), "77");

    // Up and down again, whatever order the kernel wants for memory and swap.
    for limit in [134_217_728, 33_554_432] {
        cgroup.0.update(&resources(&format!(r#"{{"memory":{{"limit":{limit},"swap":{limit}}}}}"#))).unwrap();
        assert_eq!(cgroup.value("memory", "memory.limit_in_bytes", "memory.max"), limit.to_string());
    }
    let stats = cgroup.0.stats().unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit, stats.pids.current), (33_554_432, 77, 0));
    assert_eq!(cgroup.0.oom_kills().unwrap(), 0);
}

#[test]
fn what_the_kernel_refuses_is_named_and_leaves_nothing() {
    if !require_root() {
        return;
    }
    let bad = resources(r#"{"cpu":{"cpus":"4000"}}"#);
    let error = Cgroup::create(path("bad"), &bad).unwrap_err();
    let Error::Write { path: file, value, .. } = &error else { panic!("{error:?}") };
    assert!(file.ends_with("cpuset.cpus") && value == "4000", "{error}");
    assert!(!Cgroup::locate(path("bad")).unwrap().exists());
    // No controller is needed to forbid what can't be had.
    Temporary::create(
        "huge",
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"3MB","limit":0}]}"#,
    );
}

#[test]
fn members_freeze_thaw_and_die() {
    if !require_root() {
        return;
    }
    let cgroup = Temporary::create("members", "{}");
    let sleeper = Sleeper::inside(&cgroup.0);
    assert_eq!(cgroup.0.pids().unwrap(), [sleeper.pid()]);
    assert!(matches!(
        Cgroup::create(path("members"), &resources("{}")),
        Err(Error::NotEmpty { count: 1, .. })
    ));
    // That attempt must not have taken the cgroup away.
    assert_eq!(cgroup.0.pids().unwrap(), [sleeper.pid()]);

    cgroup.0.freeze().unwrap();
    assert!(cgroup.0.is_frozen().unwrap());
    cgroup.0.thaw().unwrap();
    assert!(!cgroup.0.is_frozen().unwrap());

    cgroup.0.freeze().unwrap();
    cgroup.0.kill().unwrap();
    assert!(cgroup.0.wait_empty(Duration::from_secs(10)).unwrap(), "the killed process is still there");
}

#[test]
fn a_frozen_cgroup_takes_no_container() {
    if !require_root() {
        return;
    }
    let cgroup = Temporary::create("frozen", "{}");
    cgroup.0.freeze().unwrap();
    assert!(matches!(Cgroup::create(path("frozen"), &resources("{}")), Err(Error::Frozen { .. })));
    cgroup.0.thaw().unwrap();
}

#[test]
fn cgroups_below_go_too() {
    if !require_root() {
        return;
    }
    let cgroup = Temporary::create("nested", "{}");
    for (_, dir) in cgroup.0.directories() {
        fs::create_dir_all(dir.join("a/b")).unwrap();
    }
    let below = Cgroup::locate(path("nested/a")).unwrap();
    if let Some(dir) = cgroup.dir("cpuset") {
        // v1's cpusets begin empty.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(dir.join("a").join(file), fs::read(dir.join(file)).unwrap()).unwrap();
        }
    }
    let sleeper = Sleeper::inside(&below);
    assert_eq!(cgroup.0.pids().unwrap(), [sleeper.pid()]);
    // Frozen below, which killing from above must cope with.
    below.freeze().unwrap();
    cgroup.0.kill().unwrap();
    cgroup.0.remove().unwrap();
    assert!(!cgroup.0.exists());
}

#[test]
fn a_thread_enters() {
    if !require_root() {
        return;
    }
    let cgroup = Temporary::create("enter", "{}");
    if cgroup.0.is_unified() {
        return integration_support::skip("entering by thread is for cgroup v1");
    }
    let entrance = cgroup.0.entrance().unwrap();
    let place = thread::scope(|scope| {
        let enter = || {
            entrance.enter(true).unwrap();
            fs::read_to_string("/proc/thread-self/cgroup").unwrap()
        };
        scope.spawn(enter).join().unwrap()
    });
    let name = path("enter");
    for line in place.lines().filter(|line| !line.starts_with("0::")) {
        assert!(line.ends_with(&name), "{line}");
    }
    assert!(cgroup.0.entrance_below("nowhere").is_err());
}

#[test]
fn the_kernel_takes_the_device_program() {
    if !require_root() {
        return;
    }
    let cgroup = Temporary::create("devices", "{}");
    let Some(dir) = cgroup.dir("") else {
        return integration_support::skip("needs cgroup v2, or a hybrid machine");
    };
    let table =
        devices::Table::of_container(&serde_json::from_str::<Vec<_>>(r#"[{"allow":false}]"#).unwrap())
            .unwrap();
    let program = match corten_sys::bpf::load_cgroup_device(&devices::program(&table)) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return integration_support::skip("may not load BPF programs");
        }
        other => other.unwrap(),
    };
    corten_sys::bpf::attach_cgroup_device(&program, &fs::File::open(dir).unwrap(), None).unwrap();

    // Allowed: /dev/null. Not allowed: /dev/kmsg (1:11).
    let open = |device: &str| {
        let script = format!("kill -STOP $$; exec 3<{device}");
        let mut child = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let stopped = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, nix::sys::wait::WaitStatus::Stopped(..)), "{stopped:?}");
        cgroup.0.add_pid(pid.as_raw()).unwrap();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        child.wait().unwrap().success()
    };
    assert!(open("/dev/null"));
    assert!(!open("/dev/kmsg"));
}

#[test]
fn below_threads_there_are_threads() {
    if !require_root() {
        return;
    }
    let parent = Temporary::create("threads", "{}");
    if !parent.0.is_unified() {
        return integration_support::skip("needs cgroup v2 alone");
    }
    let dir = parent.dir("").unwrap().join("threaded");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cgroup.type"), "threaded").unwrap();

    let refused = Cgroup::create(path("threads/threaded/no"), &resources(r#"{"memory":{"limit":1048576}}"#));
    assert!(
        matches!(&refused, Err(Error::Limit { limit, .. }) if limit == "linux.resources.memory"),
        "{refused:?}"
    );
    assert!(!dir.join("no").exists());

    let below = Cgroup::create(path("threads/threaded/yes"), &resources(r#"{"pids":{"limit":7}}"#)).unwrap();
    assert_eq!(fs::read_to_string(dir.join("yes/cgroup.type")).unwrap().trim(), "threaded");
    assert_eq!(fs::read_to_string(dir.join("yes/pids.max")).unwrap().trim(), "7");
    below.remove().unwrap();
}
