//! Without root: everything here is run by nobody.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use integration_support::{Bundle, Finished, Kind, require_program, run, users_may_unshare};
use serde_json::{Value, json};

use crate::{T, has, has_one, value};

crate::each_runtime!(
    the_config_of_spec_runs,
    a_whole_life_with_exec,
    limits_without_a_cgroup_are_refused,
    more_ids_by_newuidmap,
    without_mappings_those_of_subuid,
    ids_that_are_not_ours_are_refused,
    without_a_user_namespace_it_is_refused,
);

const NOBODY: u32 = 65534;

/// A bundle and a state directory of nobody's.
struct Rootless {
    bundle: Bundle,
    root: PathBuf,
    binary: PathBuf,
}

impl Rootless {
    /// None if this can't be tried here.
    fn new(t: &T<'_>, script: &str) -> Result<Option<Self>> {
        if !require_program("setpriv") || !users_may_unshare() {
            return Ok(None);
        }
        if t.rt.kind() == Kind::Crun && integration_support::hybrid_shows_controllers() {
            integration_support::skip(
                "crun refuses this machine's cgroups, and nobody can hide them from it",
            );
            return Ok(None);
        }
        let root = t.scope.make_dir("state")?;
        t.scope.expect_empty(&root);
        let bundle = Bundle::sh(t.scope, "c", script).write()?;
        for path in [&root, bundle.dir()] {
            chown(path, Some(NOBODY), Some(NOBODY))?;
        }
        let binary = t.rt.binary_for_everybody(t.scope)?;
        let all = Self { bundle, root, binary };
        fs::remove_file(all.bundle.dir().join("config.json"))?;
        let mut spec = Command::new(&all.binary);
        run(&mut nobody(spec.args(["spec", "--rootless", "--bundle"]).arg(all.bundle.dir())))?.ok()?;
        all.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        })?;
        Ok(Some(all))
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.bundle.dir().join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path)?)?;
        change(&mut config);
        Ok(fs::write(path, config.to_string())?)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).args(args);
        nobody(&command)
    }

    fn call(&self, args: &[&str]) -> Result<Finished> {
        run(&mut self.command(args))
    }

    fn run(&self) -> Result<Finished> {
        self.call(&["run", "--bundle", &self.bundle.dir().to_string_lossy(), self.bundle.id()])
    }
}

fn nobody(command: &Command) -> Command {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    setpriv.arg(command.get_program()).args(command.get_args());
    setpriv
}

fn the_config_of_spec_runs(t: &T<'_>) -> Result<()> {
    let script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; hostname; stat -c %t:%T /dev/null; \
                  echo x > /dev/null && ls /sys/class/net | grep -c .; echo $$";
    let Some(nobody) = Rootless::new(t, script)? else { return Ok(()) };
    let out = nobody.run()?.ok()?.stdout;
    let words: Vec<_> = out.split_whitespace().collect();
    ensure!(words.len() == 9, "{out}");
    ensure!(words[..5] == ["0", "0", "65534", "1", "deny"], "{out}");
    // The network is the host's, and so is what sysfs shows of it.
    let links = fs::read_dir("/sys/class/net")?.count().to_string();
    ensure!(words[6..] == ["1:3", &links, "1"], "{out}");
    Ok(())
}

fn a_whole_life_with_exec(t: &T<'_>) -> Result<()> {
    let Some(nobody) = Rootless::new(t, "echo up; exec sleep 100000")? else { return Ok(()) };
    nobody.edit(|config| config["process"]["oomScoreAdj"] = json!(777))?;
    let id = nobody.bundle.id();
    let dir = nobody.bundle.dir().to_string_lossy().into_owned();
    nobody.call(&["create", "--bundle", &dir, id])?.ok()?;
    let status = || -> Result<String> {
        let state: Value = serde_json::from_str(&nobody.call(&["state", id])?.ok()?.stdout)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(status()? == "created");
    if t.rt.kind() == Kind::Corten {
        // It may hold secrets of the environment.
        ensure!(fs::metadata(nobody.root.join(id))?.mode() & 0o7777 == 0o700);
    }
    nobody.call(&["start", id])?.ok()?;
    ensure!(status()? == "running");
    let exec = nobody.call(&[
        "exec",
        id,
        "/bin/sh",
        "-c",
        "id -u; cat /proc/1/cmdline; cat /proc/self/oom_score_adj",
    ]);
    let out = exec?.ok()?.stdout;
    ensure!(out.starts_with("0\nsleep\x00100000\0") || out.starts_with("0\n/bin/sleep\0"), "{out:?}");
    has(&out, "777")?;
    let out = nobody.call(&["exec", id, "/bin/workload", "caps"])?.ok()?.stdout;
    ensure!(value(&out, "NoNewPrivs")? == "1", "{out}");
    nobody.call(&["exec", "--user", "7", id, "/bin/true"])?.err()?;
    nobody.call(&["kill", id, "KILL"])?.ok()?;
    integration_support::wait_for("the container to stop", || status().is_ok_and(|s| s == "stopped"))?;
    nobody.call(&["delete", id])?.ok().map(drop)
}

fn limits_without_a_cgroup_are_refused(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun goes on without the limits") {
        return Ok(());
    }
    let Some(nobody) = Rootless::new(t, "true")? else { return Ok(()) };
    nobody.edit(|config| config["linux"]["resources"] = json!({"memory": {"limit": 100_000_000}}))?;
    has_one(&nobody.run()?.err()?.stderr, &["delegated", "no permission", "could not join"])?;
    nobody.edit(|config| {
        config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]})
    })?;
    nobody.run()?.ok()?;
    if t.rt.kind() == Kind::Corten {
        // A place of one's own is a wish too.
        nobody.edit(|config| config["linux"]["cgroupsPath"] = json!(t.scope.cgroup("c")))?;
        has(&nobody.run()?.err()?.stderr, "delegated")?;
    }
    Ok(())
}

/// Runs it where /etc/subuid and /etc/subgid give nobody 5000 ids from 100000 on; nowhere else.
fn with_subordinate_ids(t: &T<'_>, command: &Command) -> Result<Finished> {
    let table = t.scope.path("subids");
    fs::write(&table, "65534:100000:5000\nnobody:100000:5000\n")?;
    let script = "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec \"$@\"";
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !Path::new(file).exists() {
            fs::write(file, "")?;
        }
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "slave", "sh", "-c", script]).arg(table);
    run(unshare.arg(command.get_program()).args(command.get_args()))
}

fn more_ids_by_newuidmap(t: &T<'_>) -> Result<()> {
    if !require_program("newuidmap") {
        return Ok(());
    }
    let script = "cat /proc/self/uid_map /proc/self/setgroups; id -G; touch /dev/shm/f && chown 7:7 /dev/shm/f && echo given";
    let Some(nobody) = Rootless::new(t, script)? else { return Ok(()) };
    nobody.edit(|config| {
        let map = json!([
            {"containerID": 0, "hostID": NOBODY, "size": 1}, {"containerID": 1, "hostID": 100_000, "size": 5000},
        ]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let capabilities = json!(["CAP_CHOWN"]);
        config["process"]["capabilities"] = json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
        // runc refuses them to everybody who isn't root.
        if t.rt.kind() != Kind::Runc {
            config["process"]["user"]["additionalGids"] = json!([20]);
        }
    })?;
    let dir = nobody.bundle.dir().to_string_lossy().into_owned();
    let command = nobody.command(&["run", "--bundle", &dir, nobody.bundle.id()]);
    let finished = with_subordinate_ids(t, &command)?.ok()?;
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    ensure!(words.starts_with(&["0", "65534", "1", "1", "100000", "5000", "allow", "0"]), "{finished:?}");
    ensure!(words.ends_with(&["given"]), "{finished:?}");
    ensure!(t.rt.kind() == Kind::Runc || words.contains(&"20"), "{finished:?}");
    Ok(())
}

/// As crun: who has a user namespace without mappings gets all ids that there are for him.
fn without_mappings_those_of_subuid(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc refuses it") || !require_program("newuidmap") {
        return Ok(());
    }
    let Some(nobody) = Rootless::new(t, "cat /proc/self/uid_map /proc/self/gid_map")? else { return Ok(()) };
    nobody.edit(|config| {
        let linux = config["linux"].as_object_mut().expect("linux is an object");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    })?;
    let dir = nobody.bundle.dir().to_string_lossy().into_owned();
    let command = nobody.command(&["run", "--bundle", &dir, nobody.bundle.id()]);
    let finished = with_subordinate_ids(t, &command)?.ok()?;
    let map = ["0", "65534", "1", "1", "100000", "5000"];
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    ensure!(words == [map, map].concat(), "{finished:?}");
    Ok(())
}

fn ids_that_are_not_ours_are_refused(t: &T<'_>) -> Result<()> {
    if !require_program("newuidmap") {
        return Ok(());
    }
    let Some(nobody) = Rootless::new(t, "true")? else { return Ok(()) };
    nobody.edit(|config| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })?;
    let said = nobody.run()?.err()?.stderr;
    if t.rt.kind() == Kind::Corten {
        has(&said, "newuidmap")?;
        has(&said, "/etc/subuid")?;
        // And where the helpers aren't installed, the error says what is missing.
        let dir = nobody.bundle.dir().to_string_lossy().into_owned();
        let mut bare = Command::new("env");
        bare.arg("PATH=/nowhere").arg(&nobody.binary).arg("--root").arg(&nobody.root);
        bare.args(["run", "--bundle", &dir, nobody.bundle.id()]);
        has(&run(&mut self::nobody(&bare))?.err()?.stderr, "package uidmap")?;
    }
    Ok(())
}

fn without_a_user_namespace_it_is_refused(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun makes a user namespace of its own") {
        return Ok(());
    }
    let Some(nobody) = Rootless::new(t, "true")? else { return Ok(()) };
    nobody.edit(|config| {
        if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
            list.retain(|n| n["type"] != "user");
        }
        for map in ["uidMappings", "gidMappings"] {
            config["linux"].as_object_mut().and_then(|linux| linux.remove(map));
        }
    })?;
    has_one(&nobody.run()?.err()?.stderr, &["user namespace"])
}

/// The state goes to $XDG_RUNTIME_DIR, and no limits means no cgroup.
#[test]
fn the_default_root_is_the_users() -> Result<()> {
    T::on(Kind::Corten, "default_root", |t| {
        let Some(nobody) = Rootless::new(t, "exec sleep 100000")? else { return Ok(()) };
        let call = |args: &[&str]| {
            let mut command = Command::new(&nobody.binary);
            run(self::nobody(command.args(args)).env("XDG_RUNTIME_DIR", &nobody.root))
        };
        let id = nobody.bundle.id();
        call(&["run", "--detach", "--bundle", &nobody.bundle.dir().to_string_lossy(), id])?.ok()?;
        ensure!(nobody.root.join("corten").join(id).join("state.json").exists());
        ensure!(fs::metadata(nobody.root.join("corten"))?.mode() & 0o777 == 0o700);
        has(&call(&["list", "--quiet"])?.ok()?.stdout, id)?;
        has(&call(&["ps", id])?.err()?.stderr, "cgroup")?;
        has(&call(&["pause", id])?.err()?.stderr, "cgroup")?;
        call(&["delete", "--force", id])?.ok()?;
        Ok(fs::remove_dir(nobody.root.join("corten"))?)
    })
}

/// `--rootless false` takes the cgroup seriously; what isn't true, false or auto is refused.
#[test]
fn without_a_cgroup_only_if_allowed() -> Result<()> {
    T::on(Kind::Corten, "rootless_false", |t| {
        let Some(nobody) = Rootless::new(t, "true")? else { return Ok(()) };
        let dir = nobody.bundle.dir().to_string_lossy().into_owned();
        let rest = ["run", "--bundle", &dir, nobody.bundle.id()];
        let with = |value: &str| nobody.call(&[&["--rootless", value][..], &rest].concat());
        has(&with("false")?.err()?.stderr, "cgroup")?;
        has(&with("maybe")?.err()?.stderr, "--rootless")?;
        with("true")?.ok()?;
        with("auto")?.ok().map(drop)
    })
}

/// As in a pod: everything but the mounts is another container's. None of it can be joined before its user namespace.
#[test]
fn namespaces_of_another_container_are_joined() -> Result<()> {
    T::on(Kind::Corten, "joined", |t| {
        let script = "hostname; cat /proc/self/uid_map; for n in user uts pid; do readlink /proc/self/ns/$n; done; \
                      cat /proc/1/cmdline";
        let Some(nobody) = Rootless::new(t, script)? else { return Ok(()) };
        let holder = t.scope.make_dir("holder")?;
        let config = nobody.bundle.dir().join("config.json");
        let mut held: Value = serde_json::from_slice(&fs::read(&config)?)?;
        held["root"]["path"] = json!(nobody.bundle.rootfs());
        held["hostname"] = json!("holder");
        held["process"]["args"] = json!(["/bin/sleep", "100000"]);
        fs::write(holder.join("config.json"), held.to_string())?;
        let id = t.scope.id("holder");
        nobody.call(&["run", "--detach", "--bundle", &holder.to_string_lossy(), &id])?.ok()?;
        let state: Value = serde_json::from_str(&nobody.call(&["state", &id])?.ok()?.stdout)?;
        let of = |file: &str| format!("/proc/{}/ns/{file}", state["pid"]);
        nobody.edit(|config| {
            let join = |kind: &str, file: &str| json!({"type": kind, "path": of(file)});
            config["linux"]["namespaces"] = json!([
                {"type": "mount"}, join("uts", "uts"), join("ipc", "ipc"), join("pid", "pid"), join("user", "user"),
            ]);
            for field in ["uidMappings", "gidMappings"] {
                config["linux"].as_object_mut().and_then(|linux| linux.remove(field));
            }
            config.as_object_mut().and_then(|config| config.remove("hostname"));
        })?;
        let out = nobody.run()?.ok()?.stdout;
        has(&out, "holder\n")?;
        has(&out, "65534          1")?;
        for file in ["user", "uts", "pid"] {
            has(&out, &fs::read_link(of(file))?.to_string_lossy())?;
        }
        has(&out, "/bin/sleep\x00100000")?;
        nobody.call(&["delete", "--force", &id])?.ok().map(drop)
    })
}
/// Where only cgroup v2 is mounted, as in a mount namespace of the test's, and nobody has been given a cgroup, it's used.
#[test]
fn a_delegated_cgroup_is_used() -> Result<()> {
    T::on(Kind::Corten, "delegated", |t| {
        let Some(nobody) = Rootless::new(t, "cat /proc/self/cgroup; sleep 100000")? else { return Ok(()) };
        nobody.edit(|config| {
            // In the host's one can see where it is.
            if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
                list.retain(|n| n["type"] != "cgroup");
            }
        })?;
        let parent = t.scope.cgroup_parent();
        let log = t.scope.path("log");
        fs::write(&log, "")?;
        let script = format!(
            "set -e; mount -t cgroup2 none /sys/fs/cgroup; cd /sys/fs/cgroup{parent}; mkdir given given/caller
             chown 65534 given given/cgroup.procs given/caller given/caller/cgroup.procs
             echo $$ > given/caller/cgroup.procs
             root=$1 bundle=$2 id=$3 log=$4 binary=$0
             as_nobody() {{ setpriv --reuid 65534 --regid 65534 --clear-groups $binary --root $root \"$@\"; }}
             as_nobody run --detach --bundle $bundle $id > $log
             as_nobody ps $id | grep -c sleep
             as_nobody pause $id; cat given/$id/cgroup.freeze; as_nobody resume $id
             as_nobody exec $id cat /proc/self/cgroup
             as_nobody delete --force $id
             ls -d given/*/; cat $log
             echo $$ > /sys/fs/cgroup/cgroup.procs; rmdir given/caller given"
        );
        let setup = Path::new("/sys/fs/cgroup/unified");
        let root = if setup.is_dir() { setup } else { Path::new("/sys/fs/cgroup") };
        fs::create_dir_all(root.join(parent.trim_start_matches('/')))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).arg(&nobody.binary);
        command.arg(&nobody.root).arg(nobody.bundle.dir()).arg(nobody.bundle.id()).arg(&log);
        let finished = run(&mut command)?.ok()?;
        let place = format!("{parent}/given/{}", nobody.bundle.id());
        let expected = format!("1\n1\n0::{place}\ngiven/caller/\n0::{place}\n");
        let v2: Vec<_> =
            finished.stdout.lines().filter(|l| !l.contains(':') || l.starts_with("0::")).collect();
        ensure!(v2.join("\n") + "\n" == expected, "{finished:?}");
        ensure!(finished.stderr.is_empty(), "{finished:?}");
        Ok(())
    })
}
