//! Figures of the shim: memory of idle pods side by side, execs beside containerd's own shim, whether it grows.
//!
//! `cargo xtask bench shim [PODS [ROUNDS [EXECS]]]` builds what it needs and runs it.
#![forbid(unsafe_code)]

mod peer;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use corten_task::{CreateTask, Shim, ShimConfig, Shims};
use corten_task_api::ttrpc::Client;
use integration_shim::process;
use integration_support::{Bundle, Kind, Runtime, Scope};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use peer::{Peer, exec};

/// Execs of a round, for each shim.
const RUN: usize = 20;
/// How long idle shims are watched.
const IDLE: Duration = Duration::from_secs(10);

struct Effort {
    pods: usize,
    rounds: usize,
    execs: usize,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse());
    let effort = Effort { pods: number(50)?, rounds: number(3)?, execs: number(2000)? };
    Scope::test("figures", |scope| {
        hide_controllers(scope)?;
        let runtime = Runtime::for_test(Kind::Corten, scope)?.context("corten isn't built")?;
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio.block_on(measure(scope, &runtime, &effort))
    })
}

/// crun refuses a hybrid cgroup layout whose v2 half shows controllers, so all of them run where there are none to see.
fn hide_controllers(scope: &Scope) -> Result<()> {
    let controllers = "/sys/fs/cgroup/unified/cgroup.controllers";
    if !Path::new(controllers).exists() {
        return Ok(());
    }
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("make mounts private")?;
    let empty = scope.path("no-controllers");
    fs::write(&empty, "")?;
    mount(Some(&empty), controllers, none, MsFlags::MS_BIND, none).context("hide the v2 controllers")
}

fn verdict(what: &str, measured: f64, at_most: f64, unit: &str) {
    let word = if measured <= at_most { "met" } else { "NOT met" };
    println!("{word}: {what}: {measured:.2}{unit}, at most {at_most}{unit}");
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn measure(scope: &Scope, runtime: &Runtime, effort: &Effort) -> Result<()> {
    let state = scope.make_dir("state")?;
    let shims = Shims::new(ShimConfig {
        binary: integration_support::binary("containerd-shim-corten-v2")?,
        runtime_binary: runtime.binary().to_owned(),
        runtime_root: runtime.root().to_owned(),
        state_dir: state,
        namespace: "figures".to_owned(),
    });
    let mut pods = Vec::new();
    let mut ready = Vec::new();
    for n in 0..effort.pods {
        let (pod, took) = start(scope, &shims, n).await?;
        pods.push(pod);
        ready.push(took);
    }
    let first = pods.first().context("no pod")?;
    verdict("a shim answers after its start, median", median(ready), 5.0, " ms");
    memory("idle", &pods)?;
    idle(&pods).await?;
    latencies(scope, runtime, first, effort).await?;
    flatness(first, effort.execs).await?;
    memory("idle, after execs in the first", &pods)?;
    for pod in pods {
        for id in &pod.containers {
            pod.shim.kill(id, "", 9, false).await?;
            pod.shim.wait(id).await?;
            pod.shim.delete(id).await?;
        }
        let closed = pod.shim.closed();
        pod.shim.shutdown().await?;
        closed.wait().await;
    }
    Ok(())
}

struct Pod {
    shim: Shim,
    pid: u32,
    address: String,
    containers: Vec<String>,
}

/// A pod of two containers, and how many milliseconds its shim took to answer.
async fn start(scope: &Scope, shims: &Shims, n: usize) -> Result<(Pod, f64)> {
    let dir = scope.make_dir(&format!("state/pods/{n}"))?;
    let begin = Instant::now();
    let shim = shims.start(&scope.id(&format!("pod{n}")), &dir).await?;
    let pid = shim.pid().await?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    let mut containers = Vec::new();
    for name in ["a", "b"] {
        let bundle = Bundle::sh(scope, &format!("{name}{n}"), "echo begun; exec sleep 100000").write()?;
        let log = format!("cri://{}", scope.path(&format!("{name}{n}.log")).display());
        let request = CreateTask {
            id: bundle.id().to_owned(),
            bundle: bundle.dir().to_owned(),
            stdout: log.clone(),
            stderr: log,
            ..CreateTask::default()
        };
        let id = request.id.clone();
        shim.create(request).await?;
        shim.start(&id).await?;
        containers.push(id);
    }
    let address = fs::read_to_string(dir.join("address"))?.trim().to_owned();
    Ok((Pod { shim, pid, address, containers }, took))
}

/// What a kernel file of "Name:   N kB" lines says.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn rollup(pid: u32) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("read smaps_rollup")
}

fn memory(when: &str, pods: &[Pod]) -> Result<()> {
    let mut sum = 0;
    let mut detail = String::new();
    for pod in pods {
        let rollup = rollup(pod.pid)?;
        sum += kib(&rollup, "Pss");
        let (anonymous, file) = (kib(&rollup, "Pss_Anon"), kib(&rollup, "Pss_File"));
        detail = format!("the last: anonymous {anonymous}, file {file}, RSS {}", kib(&rollup, "Rss"));
    }
    println!("{when}: {} pods of two containers; {detail} KiB", pods.len());
    verdict(&format!("PSS of a pod, {when}"), sum as f64 / pods.len() as f64, 250.0, " KiB");
    Ok(())
}

/// Nanoseconds on a processor so far.
fn processor(pods: &[Pod]) -> Result<u64> {
    let mut sum = 0;
    for pod in pods {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", pod.pid))?;
        sum +=
            text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).context("schedstat")?;
    }
    Ok(sum)
}

async fn idle(pods: &[Pod]) -> Result<()> {
    let before = processor(pods)?;
    tokio::time::sleep(IDLE).await;
    let used = processor(pods)? - before;
    verdict(&format!("CPU of {} idle shims in {IDLE:?}", pods.len()), used as f64 / 1e6, 0.0, " ms");
    Ok(())
}

async fn latencies(scope: &Scope, runtime: &Runtime, pod: &Pod, effort: &Effort) -> Result<()> {
    let client = Client::connect(Path::new(pod.address.trim_start_matches("unix://"))).await?;
    let id = pod.containers.first().context("no container")?;
    let mut peers = Vec::new();
    for kind in [Kind::Runc, Kind::Crun] {
        match Peer::start(scope, kind).await {
            Ok(peer) => peers.push((kind.name(), peer, Vec::new())),
            Err(error) => println!("containerd's shim with {} is left out: {error:#}", kind.name()),
        }
    }
    let (mut own, mut sync, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        for _ in 0..RUN {
            own.push(timed(exec(&client, id)).await?);
        }
        for (_, peer, times) in &mut peers {
            for _ in 0..RUN {
                times.push(timed(exec(&peer.client, &peer.id)).await?);
            }
        }
        for _ in 0..RUN {
            sync.push(timed(exec_sync(&pod.shim, id)).await?);
            alone.push(timed(async { directly(runtime, id) }).await?);
        }
    }
    let (own, sync, alone) = (median(own), median(sync), median(alone));
    println!(
        "exec /bin/true through the Task API {own:.2} ms, ExecSync {sync:.2} ms, `corten exec` {alone:.2} ms (medians)"
    );
    verdict("exec through the shim beyond `corten exec`", own - alone, 2.0, " ms");
    verdict("ExecSync beyond `corten exec`", sync - alone, 2.0, " ms");
    for (name, peer, times) in peers {
        let theirs = median(times);
        println!("exec through containerd's shim with {name}: {theirs:.2} ms");
        let at_most = if name == "runc" { 0.15 } else { 0.45 };
        verdict(&format!("exec, of containerd's shim with {name}"), own / theirs, at_most, " ×");
        peer.stop().await?;
    }
    Ok(())
}

/// Milliseconds that something takes.
async fn timed(what: impl Future<Output = Result<()>>) -> Result<f64> {
    let begin = Instant::now();
    what.await?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

async fn exec_sync(shim: &Shim, id: &str) -> Result<()> {
    let output = shim.exec_sync(id, process(&["/bin/true"]), Some(Duration::from_secs(60)), 0).await?;
    ensure!(output.exit_code == 0, "true exited with {}", output.exit_code);
    Ok(())
}

fn directly(runtime: &Runtime, id: &str) -> Result<()> {
    let mut command = Command::new(runtime.binary());
    command.arg("--root").arg(runtime.root()).args(["exec", id, "/bin/true"]).stdin(Stdio::null());
    let status = command.status().context("start corten exec")?;
    ensure!(status.success(), "corten exec: {status}");
    Ok(())
}

/// Whether the shim's memory grows with the number of execs.
async fn flatness(pod: &Pod, execs: usize) -> Result<()> {
    let id = pod.containers.first().context("no container")?;
    for _ in 0..100 {
        exec_sync(&pod.shim, id).await?;
    }
    let before = kib(&rollup(pod.pid)?, "Rss");
    for _ in 0..execs {
        exec_sync(&pod.shim, id).await?;
    }
    let after = kib(&rollup(pod.pid)?, "Rss");
    println!("resident after 100 execs {before} KiB, after {execs} more {after} KiB");
    verdict("growth by execs", after as f64 - before as f64, 0.0, " KiB");
    Ok(())
}
