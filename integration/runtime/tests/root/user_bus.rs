//! A user's own systemd: `--systemd-cgroup` without root, on a machine where systemd is PID 1 and has a user manager.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, Finished, Kind, run, run_with_deadline, users_may_unshare, wait_until};
use serde_json::{Value, json};

use super::cgroups::{read, unified};
use crate::{T, has};

crate::each_runtime!(a_whole_life, from_outside_of_the_session, without_a_bus);

/// Who is in the guests' /etc/passwd, with subordinate ids.
const USER: u32 = 1000;
const RUNTIME_DIR: &str = "/run/user/1000";

/// A container of a user's.
struct Session<'a> {
    t: &'a T<'a>,
    bundle: Bundle,
    root: std::path::PathBuf,
    binary: std::path::PathBuf,
}

impl<'a> Session<'a> {
    /// `None`, and a skip, where there are no user managers.
    fn new(t: &'a T<'a>) -> Result<Option<Self>> {
        let there = Path::new("/lib/systemd/systemd").exists() && Path::new("/run/systemd/system").is_dir();
        if !there || !unified() || !users_may_unshare() {
            integration_support::skip("needs systemd as PID 1, cgroup v2 alone, and user namespaces");
            return Ok(None);
        }
        let lingers = run(Command::new("loginctl").args(["enable-linger", &USER.to_string()]))?;
        if !lingers.status.success() {
            integration_support::skip(&format!("no user {USER} with a manager: {}", lingers.stderr.trim()));
            return Ok(None);
        }
        let bus = Path::new(RUNTIME_DIR).join("bus");
        wait_until("the user's bus", Duration::from_secs(240), || Ok(bus.exists().then_some(())))?;
        let root = t.scope.make_dir("state")?;
        t.scope.expect_empty(&root);
        let path = format!("user.slice:{}:c", t.scope.prefix());
        let bundle = Bundle::sh(t.scope, "c", "sleep 1000").write()?;
        for path in [&root, bundle.dir()] {
            chown(path, Some(USER), Some(USER))?;
        }
        let binary = t.rt.binary_for_everybody(t.scope)?;
        let session = Self { t, bundle, root, binary };
        fs::remove_file(session.config())?;
        let mut spec = session.user(&[]);
        spec.arg(&session.binary).args(["spec", "--rootless", "--bundle"]).arg(session.bundle.dir());
        run(&mut spec)?.ok()?;
        let mut config: Value = serde_json::from_slice(&fs::read(session.config())?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/sh", "-c", "sleep 1000"]);
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = json!({"memory": {"limit": 134_217_728}, "pids": {"limit": 77}});
        fs::write(session.config(), config.to_string())?;
        Ok(Some(session))
    }

    fn config(&self) -> std::path::PathBuf {
        self.bundle.dir().join("config.json")
    }

    /// A command of the user's, with `env` besides what a login has.
    fn user(&self, env: &[&str]) -> Command {
        let id = USER.to_string();
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &id,
            "--regid",
            &id,
            "--init-groups",
            "--",
            "env",
            "-u",
            "DBUS_SESSION_BUS_ADDRESS",
        ]);
        command.arg(format!("XDG_RUNTIME_DIR={RUNTIME_DIR}")).args(env);
        command
    }

    /// The runtime, in a scope of the user's own, or from where we are.
    fn call(&self, inside: bool, env: &[&str], args: &[&str]) -> Result<Finished> {
        let mut command = self.user(env);
        if inside {
            command.args(["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]);
        }
        command.arg(&self.binary).arg("--root").arg(&self.root).arg("--systemd-cgroup").args(args);
        run_with_deadline(&mut command, Duration::from_secs(120), b"")
    }

    fn detached(&self, inside: bool) -> Result<Finished> {
        let log = self.t.scope.path("log");
        let dir = self.bundle.dir().display().to_string();
        let script = "exec \"$@\" </dev/null >/dev/null";
        let mut command = self.user(&[]);
        if inside {
            command.args(["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]);
        }
        command.args(["sh", "-c", &format!("{script} 2>{}", log.display()), "sh"]);
        fs::write(&log, "")?;
        chown(&log, Some(USER), Some(USER))?;
        command.arg(&self.binary).arg("--root").arg(&self.root).arg("--systemd-cgroup");
        command.args(["run", "--detach", "--bundle", &dir, self.bundle.id()]);
        let mut finished = run_with_deadline(&mut command, Duration::from_secs(120), b"")?;
        finished.stderr.push_str(&fs::read_to_string(log)?);
        Ok(finished)
    }

    fn pid(&self) -> Result<i64> {
        let state: Value =
            serde_json::from_str(&self.call(true, &[], &["state", self.bundle.id()])?.ok()?.stdout)?;
        state["pid"].as_i64().filter(|pid| *pid > 0).with_context(|| state.to_string())
    }

    fn show(&self, properties: &str) -> Result<String> {
        let unit = format!("{}-c.scope", self.t.scope.prefix());
        let mut command = self.user(&[]);
        Ok(run(command.args(["systemctl", "--user", "show", "-p", properties, &unit]))?.ok()?.stdout)
    }

    /// It is where it belongs, with its limits; and lets itself be used, changed and deleted.
    fn live(&self) -> Result<()> {
        let pid = self.pid()?;
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let place = cgroup.trim().strip_prefix("0::/").context("a cgroup")?;
        let manager = format!("user.slice/user-{USER}.slice/user@{USER}.service/user.slice/");
        ensure!(place == format!("{manager}{}-c.scope", self.t.scope.prefix()), "{place}");
        let dir = Path::new("/sys/fs/cgroup").join(place);
        ensure!(read(&dir, "memory.max")? == "134217728" && read(&dir, "pids.max")? == "77");
        let shown = self.show("ActiveState,MemoryMax,TasksMax,Delegate")?;
        for line in ["ActiveState=active", "MemoryMax=134217728", "TasksMax=77", "Delegate=yes"] {
            has(&shown, line)?;
        }
        let id = self.bundle.id();
        has(&self.call(true, &[], &["exec", id, "/bin/cat", "/proc/1/cmdline"])?.ok()?.stdout, "sleep")?;
        self.call(true, &[], &["pause", id])?.ok()?;
        self.call(true, &[], &["resume", id])?.ok()?;
        self.call(true, &[], &["update", "--pids-limit", "66", id])?.ok()?;
        ensure!(read(&dir, "pids.max")? == "66");
        has(&self.show("TasksMax")?, "TasksMax=66")?;
        self.call(true, &[], &["delete", "--force", id])?.ok()?;
        has(&self.show("LoadState")?, "LoadState=not-found")
    }
}

fn a_whole_life(t: &T<'_>) -> Result<()> {
    let Some(session) = Session::new(t)? else { return Ok(()) };
    session.detached(true)?.ok()?;
    session.live()
}

fn from_outside_of_the_session(t: &T<'_>) -> Result<()> {
    // As in a login by SSH, whose processes aren't the manager's: the user may not move them.
    let Some(session) = Session::new(t)? else { return Ok(()) };
    if t.differs(Kind::Runc, "runc lets systemd move it") || t.differs(Kind::Crun, "crun says less") {
        return Ok(());
    }
    let refused = session.detached(false)?.err()?;
    has(
        &refused.stderr,
        "start it below the user's own service manager, as with systemd-run --user --scope",
    )?;
    wait_until("the unit to be gone", Duration::from_secs(60), || {
        Ok(session.show("LoadState")?.contains("not-found").then_some(()))
    })
}

fn without_a_bus(t: &T<'_>) -> Result<()> {
    let Some(session) = Session::new(t)? else { return Ok(()) };
    let dir = session.bundle.dir().display().to_string();
    let args = ["run", "--bundle", &dir, session.bundle.id()];
    let nowhere = "DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere/bus";
    let refused = session.call(false, &[nowhere], &args)?.err()?;
    if t.rt.kind() == Kind::Corten {
        has(&refused.stderr, "unix:path=/nowhere/bus")?;
    }
    Ok(())
}
