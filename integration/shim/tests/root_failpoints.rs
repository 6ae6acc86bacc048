//! The shim, or the runtime that it runs, killed or failed between any two steps of what it is called for.
//!
//! * The shim killed: its client notices at once, and `containerd-shim-corten-v2 delete`, called as containerd calls it,
//!   takes everything away; an exit code that was recorded is told.
//! * The runtime killed: the call fails and nothing hangs; the shim takes everything away.
//! * A step of the shim failed: the call says so, what was there before is there again, and a repetition works.
//!
//! The points are listed by the binaries' own crates; one that isn't reached fails the test.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use corten_container::failpoint::Failpoint as RuntimePoint;
use corten_shim::failpoint::Failpoint;
use corten_task::{CreateTask, Mount, TaskStatus};
use corten_task_api::proto::containerd::task::v3::{DeleteResponse, ExecProcessRequest, StartRequest};
use corten_task_api::services::TASK;
use integration_shim::{Pod, process, runs};
use integration_support::{Bundle, DEADLINE, Kind, Runtime, Scope, leaks, wait_for};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use prost_types::Any;

/// A world in which a shim is started for each point, with that point armed.
struct Lab<'a> {
    scope: &'a Scope,
    runtime: Runtime,
    /// The shim with failpoints.
    binary: PathBuf,
    trace: PathBuf,
}

/// One pod with one container that is taken through its life, call by call.
struct Life<'a> {
    lab: &'a Lab<'a>,
    pod: Pod<'a>,
    request: CreateTask,
}

/// The calls, in their order. TERM makes the container exit with 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Start,
    Exec,
    StartExec,
    ExecSync,
    Kill,
    Wait,
    Delete,
}

const LIFE: [Step; 8] = [
    Step::Create,
    Step::Start,
    Step::Exec,
    Step::StartExec,
    Step::ExecSync,
    Step::Kill,
    Step::Wait,
    Step::Delete,
];

impl<'a> Lab<'a> {
    /// A pod whose shim, and what it runs, has a point armed.
    async fn begin(&'a self, point: &str, action: &str) -> Result<Life<'a>> {
        fs::write(&self.trace, "")?;
        let script = self.scope.path("shim");
        let text = format!(
            "#!/bin/sh\nexport CORTEN_FAILPOINT={point}={action} CORTEN_FAILPOINT_TRACE={}\nexec {} \"$@\"\n",
            self.trace.display(),
            self.binary.display()
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let pod = Pod::with(self.scope, &self.runtime, "pod", script).await?;
        let bundle = Bundle::sh(self.scope, "c", "trap 'exit 7' TERM; while :; do sleep 1000 & wait; done");
        let mut request = pod.request("c", bundle)?;
        // As a snapshotter does it.
        let lower = self.scope.path("lower");
        fs::rename(request.bundle.join("rootfs"), &lower)?;
        request.rootfs = vec![Mount {
            fs_type: "bind".to_owned(),
            source: lower.to_string_lossy().into_owned(),
            options: vec!["rbind".to_owned()],
            ..Mount::default()
        }];
        Ok(Life { lab: self, pod, request })
    }

    fn reached(&self, point: &str) -> Result<()> {
        let trace = fs::read_to_string(&self.trace)?;
        ensure!(trace.lines().any(|line| line == point), "it is never reached; passed:\n{trace}");
        Ok(())
    }
}

impl Life<'_> {
    async fn step(&self, step: Step) -> Result<()> {
        let (shim, id) = (&self.pod.shim, self.request.id.as_str());
        let call = async {
            match step {
                Step::Create => drop(shim.create(self.request.clone()).await?),
                Step::Start => drop(shim.start(id).await?),
                Step::Exec => {
                    let spec = Any { type_url: String::new(), value: process(&["/bin/sleep", "1000"]) };
                    let request = ExecProcessRequest {
                        id: id.to_owned(),
                        exec_id: "e".to_owned(),
                        spec: Some(spec),
                        ..ExecProcessRequest::default()
                    };
                    self.pod.client().await?.call::<()>(TASK[0], "Exec", &request, None).await?;
                }
                Step::StartExec => {
                    let request = StartRequest { id: id.to_owned(), exec_id: "e".to_owned() };
                    self.pod.client().await?.call::<()>(TASK[0], "Start", &request, None).await?;
                }
                Step::ExecSync => {
                    let out = self.pod.exec(id, "echo probe", None).await?;
                    ensure!(out.stdout == b"probe\n", "{out:?}");
                }
                Step::Kill => shim.kill(id, "", 15, false).await?,
                Step::Wait => ensure!(shim.wait(id).await?.status == 7),
                Step::Delete => ensure!(shim.delete(id).await?.status == 7),
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, call).await.with_context(|| format!("{step:?} hangs"))?
    }

    /// Takes the steps until one fails; returns that one with its error.
    async fn until_failure(&self) -> Option<(Step, anyhow::Error)> {
        for step in LIFE {
            if let Err(error) = self.step(step).await {
                return Some((step, error));
            }
        }
        None
    }

    /// `delete`, as containerd calls it after a shim has died. None if there was nothing to delete.
    fn delete_as_containerd(&self) -> Result<DeleteResponse> {
        let bundle = &self.request.bundle;
        let mut command = Command::new(integration_support::binary("failpoints/containerd-shim-corten-v2")?);
        command.args(["-namespace", "test", "-address", "/nonexistent", "-publish-binary", "/nonexistent"]);
        command.args(["-id", &self.request.id, "-bundle"]).arg(bundle).arg("delete").current_dir(bundle);
        let output = command.output()?;
        ensure!(output.status.success(), "delete: {}", String::from_utf8_lossy(&output.stderr));
        Ok(DeleteResponse::decode(output.stdout.as_slice())?)
    }

    /// Nothing of the container is left; the bundle and the pod's directory are ours.
    fn nothing_is_left(&self) -> Result<()> {
        let of_the_container = || -> Vec<String> {
            leaks(self.lab.scope).into_iter().filter(|leak| !leak.contains(" -namespace test ")).collect()
        };
        wait_for("nothing to be left", || of_the_container().is_empty())
            .with_context(|| format!("left: {:?}", of_the_container()))
    }

    /// Kills the shim, and makes room for the next.
    async fn end(self) -> Result<()> {
        if let Some(shim) = self.pod.shims.reconnect(&self.pod.id(), &self.pod.dir).await? {
            let closed = shim.closed();
            kill(Pid::from_raw(shim.pid().await?.cast_signed()), Signal::SIGKILL)?;
            closed.wait().await;
        }
        self.delete_as_containerd()?;
        self.pod.shims.cleanup_dead(&self.pod.dir, &[]).await?;
        fs::remove_dir_all(&self.request.bundle)?;
        fs::remove_dir_all(self.lab.scope.path("lower"))?;
        wait_for("nothing to be left", || leaks(self.lab.scope).is_empty())
            .with_context(|| format!("left: {:?}", leaks(self.lab.scope)))
    }
}

async fn shim_killed(lab: &Lab<'_>, point: Failpoint) -> Result<()> {
    let life = lab.begin(point.name(), "kill").await?;
    let pid = life.pod.shim.pid().await?;
    let failure = life.until_failure().await;
    tokio::time::timeout(DEADLINE, life.pod.shim.closed().wait()).await.context("its death isn't noticed")?;
    lab.reached(point.name())?;
    // Its connections are closed a moment before it's gone.
    wait_for("the shim to be gone", || !runs(pid))?;
    let answer = life.delete_as_containerd()?;
    let recorded = matches!(
        point,
        Failpoint::ExitRecorded
            | Failpoint::ExitTold
            | Failpoint::DeleteBegun
            | Failpoint::DeleteDeleted
            | Failpoint::DeleteUnmounted
            | Failpoint::DeleteForgotten
    );
    ensure!(answer.exit_status == if recorded { 7 } else { 137 }, "{failure:?}: {answer:?}");
    life.nothing_is_left()?;
    life.end().await
}

async fn shim_failed(lab: &Lab<'_>, point: Failpoint) -> Result<()> {
    let life = lab.begin(point.name(), "error").await?;
    let (failed, error) = life.until_failure().await.context("nothing failed")?;
    lab.reached(point.name())?;
    ensure!(format!("{error:#}").contains(&format!("failpoint {}", point.name())), "{failed:?}: {error:#}");
    let id = life.request.id.as_str();
    let task = life.pod.shim.list().await?.into_iter().find(|task| task.id == id);
    let status = task.as_ref().map(|task| task.status);
    // What has happened can't be taken back: a program that runs, a signal that was sent.
    let mut repeat = true;
    match (failed, point) {
        (Step::Create, _) => {
            ensure!(task.is_none(), "{task:?}");
            life.nothing_is_left()?;
        }
        (Step::Start, Failpoint::StartStarted) => {
            ensure!(status == Some(TaskStatus::Running), "{status:?}");
            repeat = false;
        }
        (Step::Start, _) => ensure!(status == Some(TaskStatus::Created), "{status:?}"),
        (Step::Exec | Step::StartExec | Step::ExecSync, _) => {
            ensure!(status == Some(TaskStatus::Running), "{status:?}");
            let init = task.map(|task| task.pid).unwrap_or_default();
            // The container's own, and the exec that was started before.
            let most = 2 + usize::from(failed == Step::ExecSync);
            let pids = || Ok(Some(()).filter(|()| children(init) <= most));
            integration_support::wait_until("the process to be gone", DEADLINE, pids)?;
        }
        (Step::Kill, Failpoint::KillSent) => repeat = false,
        (Step::Kill, _) => ensure!(status == Some(TaskStatus::Running), "{status:?}"),
        (Step::Delete, _) => {}
        (Step::Wait, _) => bail!("wait failed"),
    }
    let from = LIFE.iter().position(|step| *step == failed).unwrap_or_default() + usize::from(!repeat);
    for step in &LIFE[from..] {
        life.step(*step).await.with_context(|| format!("{step:?} after it"))?;
    }
    life.nothing_is_left()?;
    life.end().await
}

/// How many processes are in the PID namespace of this one.
fn children(init: u32) -> usize {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(theirs) = namespace(&init.to_string()) else { return 0 };
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| namespace(name).as_ref() == Some(&theirs)).count()
}

async fn runtime_killed(lab: &Lab<'_>, point: RuntimePoint) -> Result<()> {
    let life = lab.begin(point.name(), "kill").await?;
    let failure = life.until_failure().await;
    lab.reached(point.name())?;
    let id = life.request.id.as_str();
    match failure {
        None => bail!("nothing failed"),
        Some((Step::Create, _)) => {
            ensure!(life.pod.shim.list().await?.is_empty());
            life.nothing_is_left()?;
        }
        Some((Step::Delete, _)) => {}
        Some((step, error)) => {
            if step == Step::StartExec {
                // The container's own are two.
                let (_, init) = life.pod.shim.state(id).await?;
                wait_for("the exec to be gone", || children(init) <= 2)?;
            }
            // Whatever came of it: it can be killed and deleted.
            let gone = life.pod.shim.kill(id, "", 9, false).await;
            ensure!(gone.as_ref().is_ok() || gone.as_ref().is_err_and(|e| e.is_not_found()), "{gone:?}");
            let ended = tokio::time::timeout(DEADLINE, life.pod.shim.wait(id)).await;
            ended.with_context(|| format!("it doesn't end after {step:?}: {error:#}"))??;
            life.pod.shim.delete(id).await.with_context(|| format!("after {step:?}: {error:#}"))?;
            life.nothing_is_left()?;
        }
    }
    life.end().await
}

/// Runs a test in a world of its own.
fn lab(name: &str, body: impl AsyncFnOnce(&Lab<'_>) -> Result<()>) -> Result<()> {
    let shim = "failpoints/containerd-shim-corten-v2";
    if !integration_support::require_root() || !integration_support::require_binary(shim) {
        return Ok(());
    }
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Scope::test(name, |scope| {
        let runtime = Runtime::new(Kind::Corten, integration_support::binary("failpoints/corten")?, scope)?;
        let lab =
            Lab { scope, runtime, binary: integration_support::binary(shim)?, trace: scope.path("trace") };
        let done = tokio.block_on(body(&lab));
        unmount(&scope.path("state/containers"));
        done
    })
}

/// A failed test must not let its directory be removed through a mount.
fn unmount(containers: &Path) {
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        umount2(&entry.path().join("rootfs"), MntFlags::MNT_DETACH).ok(); // because it usually isn't mounted
    }
}

/// The calls of the shim that points are in: what comes between the dots of a name.
const CALLS: [&str; 7] = ["create", "start", "exec", "exec-sync", "kill", "exit", "delete"];

/// The runtime's commands that points are in. A container of the usual kind doesn't come to helpers; integration/runtime
/// has one that does.
const COMMANDS: [&str; 7] = ["create", "init", "start", "exec", "join", "delete", "helper"];

fn call(point: Failpoint) -> &'static str {
    point.name().split('.').nth(1).unwrap_or_default()
}

fn command(point: RuntimePoint) -> &'static str {
    point.name().split('.').next().unwrap_or_default()
}

fn the_shim_killed(calls: &[&str]) -> Result<()> {
    lab("shim-killed", async |lab| {
        for point in Failpoint::ALL.iter().filter(|point| calls.contains(&call(**point))) {
            shim_killed(lab, *point).await.with_context(|| format!("killed at {}", point.name()))?;
        }
        Ok(())
    })
}

fn the_shim_failed(calls: &[&str]) -> Result<()> {
    lab("shim-failed", async |lab| {
        let points = Failpoint::ALL.iter().filter(|point| calls.contains(&call(**point)));
        for point in points.filter(|point| **point != Failpoint::DeleteForgotten) {
            shim_failed(lab, *point).await.with_context(|| format!("failed at {}", point.name()))?;
        }
        Ok(())
    })
}

fn the_runtime_killed(commands: &[&str]) -> Result<()> {
    let detours = |point: &RuntimePoint| {
        ["create.idmap", "create.hooks", "delete.stopped"].iter().any(|d| point.name().starts_with(d))
    };
    lab("runtime-killed", async |lab| {
        let points = RuntimePoint::ALL.iter().filter(|point| commands.contains(&command(**point)));
        for point in points.filter(|point| !detours(point)) {
            runtime_killed(lab, *point)
                .await
                .with_context(|| format!("the runtime killed at {}", point.name()))?;
        }
        Ok(())
    })
}

#[test]
fn every_point_is_in_one_of_the_calls() {
    let lost: Vec<_> = Failpoint::ALL.iter().filter(|point| !CALLS.contains(&call(**point))).collect();
    assert!(lost.is_empty(), "no test below goes there: {lost:?}");
    let lost: Vec<_> =
        RuntimePoint::ALL.iter().filter(|point| !COMMANDS.contains(&command(**point))).collect();
    assert!(lost.is_empty(), "no test below goes there: {lost:?}");
}

/// One test for each place: none of them takes long, also on a slow machine.
macro_rules! tests {
    ($($name:ident: $who:ident($($place:literal),+);)+) => {
        $(#[test]
        fn $name() -> Result<()> {
            $who(&[$($place),+])
        })+
    };
}

tests! {
    the_shim_killed_in_create: the_shim_killed("create");
    the_shim_killed_in_start: the_shim_killed("start");
    the_shim_killed_in_exec: the_shim_killed("exec");
    the_shim_killed_in_exec_sync: the_shim_killed("exec-sync");
    the_shim_killed_in_kill: the_shim_killed("kill");
    the_shim_killed_at_an_exit: the_shim_killed("exit");
    the_shim_killed_in_delete: the_shim_killed("delete");
    // There's nobody to fail to at an exit.
    the_shim_failed_in_create: the_shim_failed("create");
    the_shim_failed_in_start: the_shim_failed("start");
    the_shim_failed_in_exec: the_shim_failed("exec");
    the_shim_failed_in_exec_sync: the_shim_failed("exec-sync");
    the_shim_failed_in_kill: the_shim_failed("kill");
    the_shim_failed_in_delete: the_shim_failed("delete");
    the_runtime_killed_in_create: the_runtime_killed("create");
    the_runtime_killed_in_init: the_runtime_killed("init");
    the_runtime_killed_in_start: the_runtime_killed("start");
    the_runtime_killed_in_exec: the_runtime_killed("exec", "join");
    the_runtime_killed_in_delete: the_runtime_killed("delete");
}
