//! The runtime killed, or failed, between any two steps of create, start, exec and delete.
//!
//! Killed: `delete --force` takes away whatever there is, and the id can be used again. Failed: the error names the
//! step, and the system is as before. The binaries are built with failpoints (`cargo xtask build failpoints`); the list
//! of points is the runtime's own, and a point that isn't reached fails the test.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use corten_container::failpoint::Failpoint;
use integration_support::{Bundle, Finished, Kind, Runtime, Scope, leaks, run, wait_for};
use serde_json::{Value, json};

/// What is done to the runtime at a point.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Action {
    Kill,
    Error,
}

/// The command that comes to a point.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Verb {
    Create,
    Start,
    Exec,
    Delete,
}

/// Where a point is passed: by which command, and in which process.
fn verb(point: Failpoint) -> (Verb, bool) {
    let (place, _) = point.name().split_once('.').unwrap_or_default();
    match (place, point) {
        (_, Failpoint::InitGo | Failpoint::InitStarted | Failpoint::InitExec) => (Verb::Start, false),
        ("create", _) => (Verb::Create, true),
        ("start", _) => (Verb::Start, true),
        ("exec", _) => (Verb::Exec, true),
        ("join", _) => (Verb::Exec, false),
        ("delete", _) => (Verb::Delete, true),
        _ => (Verb::Create, false),
    }
}

/// A world with a runtime that has failpoints, and a bundle.
struct Lab<'a> {
    scope: &'a Scope,
    rt: Runtime,
    bundle: Bundle,
    trace: PathBuf,
}

impl Lab<'_> {
    fn call(&self, verb: Verb, armed: Option<(Failpoint, Action)>) -> Result<Finished> {
        let mut command = self.rt.command();
        let id = self.bundle.id();
        match verb {
            Verb::Create => command.arg("create").arg("--bundle").arg(self.bundle.dir()),
            Verb::Start => command.arg("start"),
            Verb::Exec => command.args(["exec", "--detach"]),
            Verb::Delete => command.args(["delete", "--force"]),
        };
        if matches!(verb, Verb::Create | Verb::Exec) {
            command.arg("--pid-file").arg(self.scope.path("pid"));
        }
        command.arg(id);
        if verb == Verb::Exec {
            command.args(["/bin/workload", "sleep"]);
        }
        if let Some((point, action)) = armed {
            let action = format!("{action:?}").to_lowercase();
            command.env("CORTEN_FAILPOINT", format!("{}={action}", point.name()));
        }
        run(command.env("CORTEN_FAILPOINT_TRACE", &self.trace))
    }

    fn ok(&self, verb: Verb) -> Result<()> {
        self.call(verb, None)?.ok().map(drop)
    }

    fn status(&self) -> Result<String> {
        let finished = self.rt.call(&["state", self.bundle.id()])?;
        if finished.stderr.contains("does not exist") {
            return Ok("none".to_owned());
        }
        let state: Value = serde_json::from_str(&finished.ok()?.stdout)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    }

    fn nothing_is_left(&self) -> Result<()> {
        wait_for("nothing to be left", || leaks(self.scope).is_empty())
            .with_context(|| format!("left: {:?}", leaks(self.scope)))
    }

    /// One point and what is done there.
    fn case(&self, point: Failpoint, action: Action) -> Result<()> {
        let (verb, in_parent) = verb(point);
        fs::write(&self.trace, "")?;
        // Init is a clone of `create`, and has its environment.
        let with_create = verb == Verb::Start && !in_parent;
        if verb != Verb::Create {
            let armed = with_create.then_some((point, action));
            self.call(Verb::Create, armed)?.ok()?;
        }
        if matches!(verb, Verb::Exec | Verb::Delete) {
            self.ok(Verb::Start)?;
        }
        let finished = self.call(verb, Some((point, action)).filter(|_| !with_create))?;
        // The command may have ended while init is still on its way there.
        let passed = || fs::read_to_string(&self.trace).unwrap_or_default();
        wait_for("it to be reached", || passed().lines().any(|name| name == point.name()))
            .with_context(|| format!("passed:\n{}", passed()))?;
        match action {
            // An init that is killed when nothing but execve is left is a container that has ended at once.
            Action::Kill if with_create => {
                wait_for("stopped", || self.status().is_ok_and(|s| s == "stopped"))?
            }
            Action::Kill if in_parent => {
                ensure!(finished.status.signal() == Some(9), "not killed: {finished:?}")
            }
            // That a process died before its program ran looks to the parent as if the program had been killed.
            Action::Kill if finished.status.success() && verb == Verb::Exec => self.as_before(verb, point)?,
            Action::Kill if finished.status.success() && point == Failpoint::InitReady => {
                wait_for("stopped", || self.status().is_ok_and(|s| s == "stopped"))?;
            }
            Action::Kill => drop(finished.err()?),
            // Nobody listens by then: `create` may have succeeded, and `start` finds nobody.
            Action::Error if matches!(point, Failpoint::InitReady | Failpoint::InitGo) => {
                wait_for("the end", || self.status().is_ok_and(|s| s == "stopped" || s == "none"))?;
            }
            Action::Error => {
                let said = finished.err()?.stderr;
                ensure!(said.contains(&format!("failpoint {}", point.name())), "unclear: {said}");
                self.as_before(verb, point)?;
            }
        }
        self.ok(Verb::Delete).context("delete after it")?;
        // The id can be used again.
        for verb in [Verb::Create, Verb::Start, Verb::Delete] {
            self.ok(verb).with_context(|| format!("{verb:?} when it is over"))?;
        }
        self.nothing_is_left()
    }

    /// After an error.
    fn as_before(&self, verb: Verb, point: Failpoint) -> Result<()> {
        let status = self.status()?;
        match verb {
            Verb::Create => {
                ensure!(status == "none", "the container is {status}");
                self.nothing_is_left()
            }
            // What has been let go can't be called back; but the state says what is true, and a repetition, too.
            Verb::Start => match point {
                Failpoint::StartLoaded | Failpoint::StartOpened => {
                    ensure!(status == "created", "the container is {status}");
                    self.ok(Verb::Start)
                }
                Failpoint::InitStarted | Failpoint::InitExec => {
                    wait_for("stopped", || self.status().is_ok_and(|s| s == "stopped"))
                }
                _ => {
                    wait_for("running", || self.status().is_ok_and(|s| s == "running"))?;
                    let again = self.call(Verb::Start, None)?.err()?;
                    ensure!(again.stderr.contains("running"), "{}", again.stderr);
                    Ok(())
                }
            },
            Verb::Exec => {
                ensure!(status == "running", "the container is {status}");
                let ps = self.rt.call(&["ps", "--format", "json", self.bundle.id()])?.ok()?.stdout;
                let pids: Vec<i32> = serde_json::from_str(&ps)?;
                ensure!(pids.len() == 1, "beside init runs: {pids:?}");
                self.ok(Verb::Exec)
            }
            // What is left can be deleted without force, if it is there at all.
            Verb::Delete => match status.as_str() {
                "none" | "running" => Ok(()),
                _ => self.rt.call(&["delete", self.bundle.id()])?.ok().map(drop),
            },
        }
    }
}

/// A container of the usual kind.
fn plain(scope: &Scope) -> Bundle {
    Bundle::workload(scope, "c", &["sleep"])
}

/// One that takes every detour: an intermediate process, mapped ids, an id-mapped mount, hooks.
fn detours(scope: &Scope, data: &Path) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mut bundle = Bundle::busybox(scope, "c", &["/bin/workload", "sleep"])
        .push("/linux/namespaces", json!({"type": "user"}))
        .push("/linux/namespaces", json!({"type": "time"}))
        .set("/linux/timeOffsets", json!({"monotonic": {"secs": 5}}))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .mount("bind", &data.to_string_lossy(), "/home", &["bind", "idmap"]);
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        bundle = bundle.set(&format!("/hooks/{kind}"), json!([{"path": "/bin/busybox", "args": ["true"]}]));
    }
    bundle
}

/// The places that points are in: what comes before the dot of a name.
const PLACES: [&str; 7] = ["create", "helper", "init", "start", "exec", "join", "delete"];

/// Points that a container of the usual kind doesn't come to.
const ON_DETOURS: [Failpoint; 4] =
    [Failpoint::CreateIdmap, Failpoint::CreateHooks, Failpoint::HelperJoined, Failpoint::HelperCloned];

fn is_in(point: Failpoint, places: &[&str]) -> bool {
    places.iter().any(|place| point.name().split('.').next() == Some(place))
}

/// All points of these places that this kind of container comes to.
fn every_point(places: &[&str], action: Action, with_detours: bool) -> Result<()> {
    if !integration_support::require_root() || !integration_support::require_binary("failpoints/corten") {
        return Ok(());
    }
    // On a file system that can be id-mapped, which the scope's need not be.
    let data = tempfile::tempdir_in("/dev/shm")?;
    Scope::test("failpoints", |scope| {
        let rt = Runtime::new(Kind::Corten, integration_support::binary("failpoints/corten")?, scope)?;
        let bundle = if with_detours { detours(scope, data.path()) } else { plain(scope) };
        let lab = Lab { scope, rt, bundle: bundle.write()?, trace: scope.path("trace") };
        let points = Failpoint::ALL.iter().filter(|point| is_in(**point, places));
        for point in points.filter(|point| with_detours || !ON_DETOURS.contains(point)) {
            lab.case(*point, action).with_context(|| format!("{action:?} at {}", point.name()))?;
        }
        Ok(())
    })
}

#[test]
fn every_point_is_in_one_of_the_places() {
    let lost: Vec<_> = Failpoint::ALL.iter().filter(|point| !is_in(**point, &PLACES)).collect();
    assert!(lost.is_empty(), "no test below goes there: {lost:?}");
}

/// One test for each place: none of them takes long, also on a slow machine.
macro_rules! tests {
    ($($name:ident: $places:expr, $action:ident, $detours:expr;)+) => {
        $(#[test]
        fn $name() -> Result<()> {
            every_point(&$places, Action::$action, $detours)
        })+
    };
}

tests! {
    killed_in_create: ["create"], Kill, false;
    killed_in_init: ["init"], Kill, false;
    killed_in_start: ["start"], Kill, false;
    killed_in_exec: ["exec", "join"], Kill, false;
    killed_in_delete: ["delete"], Kill, false;
    killed_in_create_with_detours: ["create", "helper"], Kill, true;
    killed_in_init_with_detours: ["init"], Kill, true;
    failed_in_create: ["create"], Error, false;
    failed_in_init: ["init"], Error, false;
    failed_in_start: ["start"], Error, false;
    failed_in_exec: ["exec", "join"], Error, false;
    failed_in_delete: ["delete"], Error, false;
    failed_in_create_with_detours: ["create", "helper"], Error, true;
}
