//! Real plugins (Debian's containernetworking-plugins) and scripts in their place. Each test has a network
//! namespace of its own in place of the host's, so the machine's network stays untouched.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    future::Future,
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use corten_cni::{Cni, CniConfig, Error, Kinds, PodNamespaces, PodNetwork, PortMapping};
use nix::sched::{CloneFlags, setns, unshare};

const PLUGINS: &str = "/usr/lib/cni";

/// Directories of one test, gone with it.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A network with the bridge, addresses from host-local and mapped ports.
    fn bridge(&self) {
        let conf = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "bench",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni-bench", "isGateway": true, "ipMasq": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.path("leases"),
                        "ranges": [[{"subnet": "10.209.7.0/24"}], [{"subnet": "fd09:7::/64"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        self.conf("10-bench.conflist", &conf.to_string());
    }

    fn conf(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("conf")).expect("mkdir");
        fs::write(self.path("conf").join(name), text).expect("write");
    }

    /// A plugin that is a shell script; it finds its name as `$0` and a directory to write to as `$OUT`.
    fn script(&self, name: &str, body: &str) {
        fs::create_dir_all(self.path("bin")).expect("mkdir");
        let path = self.path("bin").join(name);
        let text = format!("#!/bin/sh\nOUT={}\n{body}\n", self.dir.path().display());
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    fn cni(&self) -> Cni {
        self.cni_within(Duration::from_secs(30))
    }

    fn cni_within(&self, timeout: Duration) -> Cni {
        Cni::new(CniConfig {
            conf_dir: self.path("conf"),
            bin_dirs: vec![self.path("bin"), PLUGINS.into()],
            cache_dir: self.path("cache"),
            timeout,
        })
    }

    fn pod(&self, id: &str) -> PodNetwork {
        let ns =
            PodNamespaces::create(&self.path(id), Kinds::ALL, "web", &BTreeMap::new()).expect("namespaces");
        PodNetwork {
            id: id.into(),
            netns: ns.net().expect("net"),
            namespace: "default".into(),
            name: "web".into(),
            uid: format!("uid-{id}"),
            ..PodNetwork::default()
        }
    }

    /// Files below a directory.
    fn list(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name)) else { return Vec::new() };
        let names = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with("last_reserved_ip") && name != "lock").collect()
    }

    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Bench {
    /// A test that failed leaves no pins either.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                PodNamespaces::remove(&entry.path()).ok();
            }
        }
    }
}

/// Runs a test on a thread with its own network namespace: what it starts sees that as the host's.
fn scratch<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F + Send) {
    if !integration_support::require_root() {
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
            corten_sys::net::loopback_up().expect("lo up");
            let bench = Bench { dir: tempfile::tempdir().expect("temp dir") };
            let dir = bench.dir.path().to_owned();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(test(bench));
            let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
            assert!(!mounts.contains(&*dir.to_string_lossy()), "a pin is left in {}", dir.display());
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs `f` on a thread in the namespace at `path`.
fn inside<T: Send>(path: &Path, kind: CloneFlags, f: impl FnOnce() -> T + Send) -> T {
    let ns = fs::File::open(path).expect("open namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(ns, kind).expect("setns");
            f()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Interfaces of the calling thread's network namespace.
fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("net/dev");
    text.lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

#[test]
fn a_pods_namespaces_are_its_own_and_outlive_their_thread() {
    scratch(|bench| async move {
        let dir = bench.path("ns");
        let sysctls = [
            ("net.ipv4.ip_unprivileged_port_start", "7"),
            ("kernel.shmmni", "111"),
            ("fs.mqueue.msg_max", "9"),
        ];
        let sysctls = sysctls.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let ns = PodNamespaces::create(&dir, Kinds::ALL, "pod-host", &sysctls).expect("create");
        let read = |path: &str| fs::read_to_string(path).expect(path).trim().to_owned();
        let net = ns.net().expect("net");
        inside(&net, CloneFlags::CLONE_NEWNET, || {
            assert_eq!(read("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "7");
            assert_eq!(links(), ["lo"]);
            let listener = TcpListener::bind("127.0.0.1:0").expect("lo is up");
            TcpStream::connect(listener.local_addr().expect("address")).expect("connect over lo");
        });
        let ipc = ns.ipc().expect("ipc");
        inside(&ipc, CloneFlags::CLONE_NEWIPC, || {
            assert_eq!(read("/proc/sys/kernel/shmmni"), "111");
            assert_eq!(read("/proc/sys/fs/mqueue/msg_max"), "9");
        });
        let uts = ns.uts().expect("uts");
        inside(&uts, CloneFlags::CLONE_NEWUTS, || assert_eq!(read("/proc/sys/kernel/hostname"), "pod-host"));
        assert_ne!(read("/proc/sys/kernel/shmmni"), "111", "the host's sysctl was changed");
        // As after a crash between create and the record of it.
        PodNamespaces::create(&dir, Kinds { net: true, ..Kinds::default() }, "", &BTreeMap::new())
            .expect("again");
        assert!(!dir.join("uts").exists());
        PodNamespaces::remove(&dir).expect("remove");
        PodNamespaces::remove(&dir).expect("remove twice");
        assert!(!dir.exists());
    });
}

#[test]
fn failing_namespaces_leave_nothing() {
    scratch(|bench| async move {
        let dir = bench.path("ns");
        let sysctls = BTreeMap::from([("net.ipv4.no_such_sysctl".to_owned(), "1".to_owned())]);
        let error = PodNamespaces::create(&dir, Kinds::ALL, "h", &sysctls).expect_err("no such sysctl");
        assert!(error.to_string().contains("no_such_sysctl"), "{error}");
        assert!(!dir.exists());
    });
}

#[test]
fn a_pod_on_the_bridge_is_reached_and_forgotten() {
    scratch(|bench| async move {
        bench.bridge();
        let cni = bench.cni();
        cni.status().await.expect("ready");
        let port =
            |host_port| PortMapping { host_port, container_port: 80, protocol: "tcp".into(), host_ip: None };
        let pod = PodNetwork { port_mappings: vec![port(18_080)], ..bench.pod("p1") };
        let result = cni.add(&pod).await.expect("add");
        let [IpAddr::V4(v4), IpAddr::V6(_)] = result.ips[..] else { panic!("addresses: {:?}", result.ips) };
        assert_eq!(v4.octets()[..3], [10, 209, 7]);
        assert_eq!(cni.cached("p1").expect("cached"), Some(result));

        let listener =
            inside(&pod.netns, CloneFlags::CLONE_NEWNET, || TcpListener::bind("0.0.0.0:80").expect("bind"));
        let server = std::thread::spawn(move || {
            listener.accept().expect("accept").0.write_all(b"hello").expect("write")
        });
        let mut text = String::new();
        TcpStream::connect((v4, 80)).expect("connect from the host").read_to_string(&mut text).expect("read");
        server.join().expect("server");
        assert_eq!(text, "hello");

        let rules = std::process::Command::new("iptables")
            .args(["-w", "-t", "nat", "-S"])
            .output()
            .expect("iptables");
        assert!(String::from_utf8_lossy(&rules.stdout).contains("18080"), "the port is mapped");
        cni.del(&pod).await.expect("del");
        cni.del(&pod).await.expect("del twice");
        let rules = std::process::Command::new("iptables")
            .args(["-w", "-t", "nat", "-S"])
            .output()
            .expect("iptables");
        assert!(!String::from_utf8_lossy(&rules.stdout).contains("18080"), "the port is unmapped");
        assert!(!links().iter().any(|link| link.starts_with("veth")), "{:?}", links());
        assert!(bench.list("leases/bench").is_empty(), "{:?}", bench.list("leases/bench"));
        assert!(bench.list("cache").is_empty());
        PodNamespaces::remove(&bench.path("p1")).expect("remove");
    });
}

#[test]
fn del_works_when_namespace_and_configuration_are_gone() {
    scratch(|bench| async move {
        bench.bridge();
        let cni = bench.cni();
        let (gone, plain) = (bench.pod("gone"), bench.pod("plain"));
        for pod in [&gone, &plain] {
            cni.add(pod).await.expect("add");
            PodNamespaces::remove(&bench.path(&pod.id)).expect("remove");
        }
        // As after a reboot: the pin is a plain file.
        fs::create_dir_all(bench.path("plain")).expect("mkdir");
        fs::write(&plain.netns, "").expect("write");
        fs::remove_dir_all(bench.path("conf")).expect("remove configuration");
        assert_eq!(bench.list("leases/bench").len(), 4);
        cni.del(&gone).await.expect("del");
        let live = HashSet::from(["other".to_owned()]);
        let (collected, failed) = cni.collect(&live).await.expect("collect");
        assert_eq!(collected, ["plain"]);
        assert!(failed.is_empty(), "{failed:?}");
        assert!(bench.list("leases/bench").is_empty());
        assert!(bench.list("cache").is_empty());
    });
}

/// Two pods at once get different addresses.
#[test]
fn pods_are_attached_side_by_side() {
    scratch(|bench| async move {
        bench.bridge();
        let cni = bench.cni();
        let (a, b) = (bench.pod("a"), bench.pod("b"));
        let (one, two) = tokio::join!(cni.add(&a), cni.add(&b));
        assert_ne!(one.expect("a").ips, two.expect("b").ips);
        for pod in [a, b] {
            cni.check(&pod).await.expect("check");
            cni.del(&pod).await.expect("del");
            PodNamespaces::remove(&bench.path(&pod.id)).expect("remove");
        }
    });
}

const CHAIN: &str = r#"{"cniVersion":"1.1.0","name":"chain","plugins":[
    {"type":"first","capabilities":{"portMappings":true}},{"type":"second"}]}"#;
const LOG: &str =
    r#"cat >$OUT/in-$(basename $0)-$CNI_COMMAND; echo "$(basename $0) $CNI_COMMAND $CNI_NETNS" >>$OUT/log"#;
const RESULT: &str =
    r#"[ $CNI_COMMAND != ADD ] || echo '{"cniVersion":"1.1.0","ips":[{"address":"10.9.9.9/24"}]}'"#;

fn verbs(log: &[String]) -> Vec<String> {
    log.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_failing_plugin_is_quoted_and_the_chain_taken_back() {
    scratch(|bench| async move {
        bench.conf("10.conflist", CHAIN);
        bench.script("first", &format!("{LOG}\n{RESULT}"));
        let fail = r#"[ $CNI_COMMAND != ADD ] || { echo about to fail >&2; echo '{"code":107,"msg":"no more addresses","details":"all 3 are taken"}'; exit 1; }"#;
        bench.script("second", &format!("{LOG}\n{fail}"));
        let cni = bench.cni();
        let pod = bench.pod("p1");
        let error = cni.add(&pod).await.expect_err("second fails");
        assert!(matches!(&error, Error::Plugin { code: 107, .. }), "{error:?}");
        let text = error.to_string();
        for part in ["second", "ADD", "p1", "no more addresses", "all 3 are taken", "about to fail"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(verbs(&bench.log()), ["first ADD", "second ADD", "second DEL", "first DEL"]);
        assert!(bench.list("cache").is_empty());
        PodNamespaces::remove(&bench.path("p1")).expect("remove");
    });
}

#[test]
fn results_are_chained_and_capabilities_declared() {
    scratch(|bench| async move {
        bench.conf("10.conflist", CHAIN);
        bench.script("first", &format!("{LOG}\n{RESULT}"));
        bench.script("second", &format!("{LOG}\n{RESULT}"));
        let cni = bench.cni();
        let map = PortMapping { host_port: 81, container_port: 80, protocol: "tcp".into(), host_ip: None };
        let pod = PodNetwork { port_mappings: vec![map], ..bench.pod("p1") };
        cni.status().await.expect("status");
        cni.add(&pod).await.expect("add");
        cni.del(&PodNetwork { port_mappings: Vec::new(), ..pod.clone() }).await.expect("del");
        let input = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&fs::read(bench.path(name)).expect(name)).expect(name)
        };
        let (first, second) = (input("in-first-ADD"), input("in-second-ADD"));
        assert_eq!(first["runtimeConfig"]["portMappings"][0]["hostPort"], 81);
        assert_eq!(first["name"], "chain");
        assert_eq!(first["cniVersion"], "1.1.0");
        assert_eq!(first.get("prevResult"), None);
        assert_eq!(first.get("capabilities"), None);
        assert_eq!(second.get("runtimeConfig"), None);
        assert_eq!(second["prevResult"]["ips"][0]["address"], "10.9.9.9/24");
        let del = input("in-first-DEL");
        assert_eq!(del["runtimeConfig"], first["runtimeConfig"], "DEL is told what ADD was");
        assert_eq!(del["prevResult"], second["prevResult"]);
        assert_eq!(verbs(&bench.log())[..2], ["first STATUS", "second STATUS"]);
        PodNamespaces::remove(&bench.path("p1")).expect("remove");
    });
}

#[test]
fn what_del_could_not_take_back_is_retried() {
    scratch(|bench| async move {
        bench.conf("10.conflist", CHAIN);
        bench.script("first", &format!("{LOG}\n{RESULT}"));
        bench.script(
            "second",
            &format!("{LOG}\n[ $CNI_COMMAND != DEL ] || [ -e $OUT/well ] || exit 3\n{RESULT}"),
        );
        let cni = bench.cni();
        let pod = bench.pod("p1");
        cni.add(&pod).await.expect("add");
        let error = cni.del(&pod).await.expect_err("second fails");
        assert!(matches!(&error, Error::Crashed { .. }), "{error:?}");
        assert_eq!(verbs(&bench.log())[2..], ["second DEL", "first DEL"], "the others run all the same");
        fs::write(bench.path("well"), "").expect("write");
        PodNamespaces::remove(&bench.path("p1")).expect("remove");
        cni.del(&pod).await.expect("retry");
        assert_eq!(bench.log()[4..], ["second DEL ", "first DEL "], "without a namespace");
        assert!(bench.list("cache").is_empty());
    });
}

#[test]
fn a_hanging_plugin_is_killed_with_its_children() {
    scratch(|bench| async move {
        bench.conf("10.conf", r#"{"cniVersion":"1.0.0","name":"slow","type":"slow"}"#);
        bench.script("slow", "[ $CNI_COMMAND = ADD ] || exit 0\nsleep 1000 &\necho $! >$OUT/child\nwait");
        let pod = bench.pod("p1");
        let error = bench.cni_within(Duration::from_millis(500)).add(&pod).await.expect_err("hangs");
        assert!(matches!(&error, Error::Timeout { .. }), "{error:?}");
        let child = fs::read_to_string(bench.path("child")).expect("child ran");
        let stat = format!("/proc/{}/stat", child.trim());
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        // Gone, or a zombie until whoever is its parent now reaps it.
        while fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "the plugin's child lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        PodNamespaces::remove(&bench.path("p1")).expect("remove");
    });
}

#[test]
fn a_missing_plugin_is_named_with_where_it_was_looked_for() {
    scratch(|bench| async move {
        bench.conf("10.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"no-such-plugin"}"#);
        let cni = bench.cni();
        let pod = bench.pod("p1");
        for error in
            [cni.status().await.expect_err("status"), cni.add(&pod).await.map(drop).expect_err("add")]
        {
            let text = error.to_string();
            for part in ["no-such-plugin", PLUGINS, "\"n\""] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        PodNamespaces::remove(&bench.path("p1")).expect("remove");
    });
}

#[test]
fn broken_and_missing_configurations_are_named() {
    scratch(|bench| async move {
        let cni = bench.cni();
        let missing = cni.status().await.expect_err("missing").to_string();
        assert!(missing.contains(&*bench.path("conf").to_string_lossy()), "{missing}");
        bench.conf("10-broken.conflist", "{\"name\":");
        let broken = cni.status().await.expect_err("broken").to_string();
        assert!(broken.contains("10-broken.conflist"), "{broken}");
        let pod = bench.pod("p1");
        assert!(matches!(cni.add(&pod).await, Err(Error::Json { .. })));
        assert!(bench.list("cache").is_empty());
        PodNamespaces::remove(&bench.path("p1")).expect("remove");
    });
}
