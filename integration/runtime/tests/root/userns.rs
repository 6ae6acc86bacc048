//! User namespaces: new, joined, nested.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind, require_program, run, users_may_unshare, wait_for};
use serde_json::{Value, json};

use crate::{T, has, value};

crate::each_runtime!(
    several_ranges,
    mounts_and_devices_come_along,
    with_the_hosts_network,
    joined_by_path,
    exec_joins_it,
    a_range_that_overlaps_is_refused,
    without_mappings_it_has_the_callers_id,
);

/// Kubernetes' way: a range of 65536 ids.
fn mapped(bundle: Bundle) -> Bundle {
    with_maps(bundle, &json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]))
}

fn with_maps(bundle: Bundle, maps: &Value) -> Bundle {
    let bundle = bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps.clone())
}

fn several_ranges(t: &T<'_>) -> Result<()> {
    let maps = json!([
        {"containerID": 0, "hostID": 100_000, "size": 10},
        {"containerID": 10, "hostID": 300_000, "size": 5},
        {"containerID": 1000, "hostID": 200_000, "size": 1},
    ]);
    let script = "cat /proc/self/uid_map; touch /dev/shm/f; for n in 0 12 1000; do chown $n /dev/shm/f || exit 1; done; \
                  chown 15 /dev/shm/f 2>/dev/null || echo no more";
    let out = t.out(with_maps(t.sh(script), &maps))?;
    let words: Vec<_> = out.split_whitespace().collect();
    let expected = ["0", "100000", "10", "10", "300000", "5", "1000", "200000", "1", "no", "more"];
    ensure!(words == expected, "{out}");
    Ok(())
}

fn mounts_and_devices_come_along(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    fs::write(source.join("file"), "shared\n")?;
    let script = "cat /tmp/data/file; echo x > /dev/null; stat -c %t:%T /dev/null /dev/urandom; head -c 1 /dev/zero | wc -c; \
                  mknod /dev/shm/n c 1 3 2>/dev/null || echo none made; echo x > /tmp/data/file 2>/dev/null || echo read-only; \
                  id -G";
    let bundle = mapped(t.sh(script)).mount("bind", &source.to_string_lossy(), "/tmp/data", &["rbind", "ro"]);
    let out = t.out(bundle.set("/process/user/additionalGids", json!([7])))?;
    let expected = "shared\n1:3\n1:9\n1\nnone made\nread-only\n0 7\n";
    ensure!(out == expected, "{out}");
    Ok(())
}

/// sysfs belongs to the network namespace: the host's can't be mounted by who doesn't own it.
fn with_the_hosts_network(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc wants the config to bind mount /sys") {
        return Ok(());
    }
    let bundle = mapped(t.sh("ls /sys/class/net; touch /sys/x 2>/dev/null || echo closed"));
    let bundle = bundle.namespace("network", None).edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|m| m["destination"] != "/sys/fs/cgroup");
        }
    });
    let out = t.out(bundle)?;
    has(&out, "closed")?;
    for link in fs::read_dir("/sys/class/net")?.flatten() {
        has(&out, &link.file_name().to_string_lossy())?;
    }
    Ok(())
}

fn of(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{file}"))
}

/// The others belong to it or to the host: joined in the order that works.
fn joined_by_path(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 wants mappings, which it then doesn't use") {
        return Ok(());
    }
    let holder = t.start(mapped(Bundle::workload(t.scope, "holder", &["sleep"])))?;
    let pid = holder.pid()?;
    let mut bundle = t.sh("cat /proc/self/uid_map; /bin/workload namespaces").without("/hostname");
    for (kind, file) in [("user", "user"), ("network", "net"), ("uts", "uts"), ("ipc", "ipc")] {
        bundle = bundle.namespace(kind, Some(&of(pid, file)));
    }
    let out = t.out(bundle)?;
    for file in ["user", "net", "uts", "ipc"] {
        has(&out, &fs::read_link(of(pid, file))?.to_string_lossy())?;
    }
    has(&out, "100000")?;
    holder.delete(&["--force"])
}

fn exec_joins_it(t: &T<'_>) -> Result<()> {
    let container = t.start(mapped(t.sh("sleep 100000")))?;
    let out =
        container.exec(&["--user", "7:8"], &["/bin/sh", "-c", "id; cat /proc/self/uid_map"])?.ok()?.stdout;
    has(&out, "uid=7 gid=8")?;
    has(&out, "100000")?;
    let owner = fs::metadata(format!("/proc/{}", container.pid()?))?;
    ensure!(std::os::unix::fs::MetadataExt::uid(&owner) == 100_000);
    container.delete(&["--force"])
}

fn a_range_that_overlaps_is_refused(t: &T<'_>) -> Result<()> {
    let maps = json!([
        {"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 5, "hostID": 200_000, "size": 10},
    ]);
    let said = t.refused(with_maps(t.workload(&["exit", "0"]), &maps))?;
    if t.rt.kind() == Kind::Corten {
        has(&said, "overlap")?;
    }
    Ok(())
}

fn without_mappings_it_has_the_callers_id(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc refuses it") {
        return Ok(());
    }
    // What /etc/subuid has for root, if it has, comes after that.
    let bundle = t
        .sh("id -u; cat /proc/self/uid_map /proc/self/gid_map")
        .without("/process/user/additionalGids")
        .push("/linux/namespaces", json!({"type": "user"}));
    // A devpts with gid=5 needs that group.
    let out =
        t.out(bundle.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}])))?;
    let words: Vec<_> = out.split_whitespace().collect();
    ensure!(words.starts_with(&["0", "0", "0", "1"]), "{out}");
    // One of the two alone is a mistake.
    let half = Bundle::sh(t.scope, "half", "true").push("/linux/namespaces", json!({"type": "user"}));
    let half = half.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    if t.rt.kind() == Kind::Corten {
        has(&t.refused(half)?, "linux.gidMappings")?;
    }
    Ok(())
}

/// corten by way of another program.
fn corten(t: &T<'_>, args: &[&str], program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.args(args).arg(t.rt.binary_for_everybody(t.scope)?).arg("--root").arg(t.rt.root());
    Ok(command)
}

/// A user namespace isn't told by its mappings: here are all ids, and still no device can be made.
#[test]
fn inside_one_that_maps_everything() -> Result<()> {
    T::on(Kind::Corten, "identity", |t| {
        if !require_program("unshare") {
            return Ok(());
        }
        let script = "stat -c %t:%T /dev/null; cat /proc/self/uid_map; id -G";
        let bundle = t.sh(script).without("/linux/resources").without("/linux/cgroupsPath").write()?;
        let args = ["--user", "--mount", "sh", "-c", "read go && exec \"$@\"", "sh"];
        let mut command = corten(t, &args, "unshare")?;
        command.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let proc = Path::new("/proc").join(child.id().to_string());
        let own = fs::read_link("/proc/self/ns/user")?;
        wait_for("the namespace", || fs::read_link(proc.join("ns/user")).is_ok_and(|theirs| theirs != own))?;
        fs::write(proc.join("uid_map"), "0 0 4294967295")?;
        fs::write(proc.join("gid_map"), "0 0 4294967295")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(b"go\n")?;
        }
        let finished = child.wait_with_output()?;
        let out = String::from_utf8_lossy(&finished.stdout).into_owned();
        let words: Vec<_> = out.split_whitespace().collect();
        ensure!(words == ["1:3", "0", "0", "4294967295", "0", "10"], "{finished:?}");
        Ok(())
    })
}

/// The other way round: root of a user namespace that an ordinary user has made (`podman unshare`).
#[test]
fn inside_one_that_maps_one_id() -> Result<()> {
    T::on(Kind::Corten, "single", |t| {
        if !require_program("setpriv") || !users_may_unshare() {
            return Ok(());
        }
        let script = "id -u; cat /proc/self/setgroups; echo $$; stat -c %t:%T /dev/null";
        let bundle = t.sh(script).without("/linux/resources").without("/linux/cgroupsPath");
        let bundle = bundle.edit(|config| {
            // There's no group 5, nor may groups be set.
            config["mounts"][2]["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666"]);
            config["process"]["user"] = json!({"uid": 0, "gid": 0});
        });
        let bundle = bundle.write()?;
        std::os::unix::fs::chown(t.rt.root(), Some(65534), Some(65534))?;
        let nobody = [
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
        ];
        let run_it = |bundle: &Bundle| {
            run(corten(t, &nobody, "setpriv")?.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id()))
        };
        ensure!(run_it(&bundle)?.ok()?.stdout == "0\ndeny\n1\n1:3\n");
        // What can't be done is refused.
        let bundle = bundle.set("/process/user/additionalGids", json!([0])).write()?;
        has(&run_it(&bundle)?.err()?.stderr, "denies setgroups")
    })
}

/// A container made by corten in a container made by corten, the outer one in a user namespace.
#[test]
fn inside_a_container() -> Result<()> {
    T::on(Kind::Corten, "nested", |t| {
        let inner = Bundle::sh(
            t.scope,
            "inner",
            "id -u; cat /proc/self/uid_map; hostname; stat -c %t:%T /dev/null; echo $$",
        );
        let inner =
            inner.without("/linux/resources").without("/linux/cgroupsPath").set("/hostname", json!("inner"));
        let nested = with_maps(
            inner.clone().edit(|config| config["process"]["user"] = json!({"uid": 0, "gid": 0})),
            &json!([{"containerID": 0, "hostID": 1000, "size": 1000}]),
        );
        let inner = inner.write()?;
        let script =
            "for c in one two; do /home/corten --root /home/state run --bundle /home/$c $c || exit 1; done";
        let mut outer = mapped(t.sh(script)).without("/linux/seccomp").without("/linux/maskedPaths");
        outer = outer
            .without("/linux/readonlyPaths")
            .without("/process/capabilities")
            .set("/process/user", json!({"uid": 0, "gid": 0}));
        let binary = t.rt.binary().to_string_lossy();
        outer = outer.mount("tmpfs", "home", "/home", &[]).mount(
            "bind",
            &binary,
            "/home/corten",
            &["bind", "ro"],
        );
        for (name, config) in [("one", inner.config()), ("two", nested.config())] {
            let dir = t.scope.make_dir(name)?;
            fs::write(dir.join("config.json"), config.to_string())?;
            let rootfs = inner.rootfs();
            outer = outer.mount("bind", &dir.to_string_lossy(), &format!("/home/{name}"), &["bind"]);
            fs::create_dir_all(dir.join("rootfs"))?;
            outer =
                outer.mount("bind", &rootfs.to_string_lossy(), &format!("/home/{name}/rootfs"), &["bind"]);
        }
        let finished = t.rt.run(&outer.write()?)?.ok()?;
        let words: Vec<_> = finished.stdout.split_whitespace().collect();
        let expected =
            ["0", "0", "100000", "65536", "inner", "1:3", "1", "0", "0", "1000", "1000", "inner", "1:3", "1"];
        ensure!(words[..2] == expected[..2] && words[3..] == expected[3..], "{finished:?}");
        Ok(())
    })
}

/// The OOM score and the rest of what the parent does for init reach it in a user namespace as well.
#[test]
fn the_parent_reaches_init() -> Result<()> {
    T::on(Kind::Corten, "oom", |t| {
        let bundle = mapped(t.workload(&["caps"])).set("/process/oomScoreAdj", json!(321));
        ensure!(value(&t.out(bundle)?, "oom_score_adj")? == "321");
        ensure!(Path::new("/proc/self/oom_score_adj").exists());
        Ok(())
    })
}
