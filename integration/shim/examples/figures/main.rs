//! Figures of the shim: memory of idle pods side by side, execs beside containerd's own shim, whether it grows.
//!
//! `cargo xtask bench shim [PODS [ROUNDS [EXECS]]]` and `cargo xtask bench shim probes [PODS [SECONDS]]` build what they
//! need and run it.
#![forbid(unsafe_code)]

mod peer;
mod probes;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use corten_task::{CreateTask, Shim, ShimConfig, Shims};
use corten_task_api::services::TASK;
use corten_task_api::ttrpc::Client;
use integration_shim::footprint::{cpu_ms, rollup_kib};
use integration_shim::process;
use integration_support::{Bundle, Kind, Runtime, Scope};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::task::LocalSet;

use peer::{Flavour, Peer, exec};

/// Execs of a round, for each shim.
const RUN: usize = 20;
/// How long idle shims are watched.
const IDLE: Duration = Duration::from_secs(10);
/// Shims of containerd's side by side, to see what they share.
const PEERS: usize = 5;

struct Effort {
    pods: usize,
    rounds: usize,
    execs: usize,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let probes = arguments.next_if(|word| word == "probes").is_some();
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let mut numbers =
        |defaults: [usize; 3]| anyhow::Ok([number(defaults[0])?, number(defaults[1])?, number(defaults[2])?]);
    let [pods, second, execs] = numbers(if probes { [100, 120, 0] } else { [50, 3, 2000] })?;
    Scope::test("figures", |scope| {
        hide_controllers(scope)?;
        let runtime = Runtime::for_test(Kind::Corten, scope)?.context("corten isn't built")?;
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&tokio, async {
            if probes {
                return probes::run(scope, &runtime, pods, second).await;
            }
            measure(scope, &runtime, &Effort { pods, rounds: second, execs }).await
        })
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
    let shims = shims(scope, runtime)?;
    let mut pods = Vec::new();
    let mut ready = Vec::new();
    for n in 0..effort.pods {
        let (pod, took) = start(scope, &shims, n, &["a", "b"]).await?;
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
    stop(pods).await
}

fn shims(scope: &Scope, runtime: &Runtime) -> Result<Shims> {
    Ok(Shims::new(ShimConfig {
        binary: integration_support::binary("containerd-shim-corten-v2")?,
        runtime_binary: runtime.binary().to_owned(),
        runtime_root: runtime.root().to_owned(),
        state_dir: scope.make_dir("state")?,
        namespace: "figures".to_owned(),
    }))
}

/// Ends containers and shims.
async fn stop(pods: Vec<Pod>) -> Result<()> {
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

/// A pod with containers of these names, and how many milliseconds its shim took to answer.
async fn start(scope: &Scope, shims: &Shims, n: usize, names: &[&str]) -> Result<(Pod, f64)> {
    let dir = scope.make_dir(&format!("state/pods/{n}"))?;
    let begin = Instant::now();
    let shim = shims.start(&scope.id(&format!("pod{n}")), &dir).await?;
    let pid = shim.pid().await?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    let mut containers = Vec::new();
    for name in names {
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

fn memory(when: &str, pods: &[Pod]) -> Result<()> {
    let mut sum = 0;
    let mut detail = String::new();
    for pod in pods {
        let kib = |name| rollup_kib(pod.pid, name);
        sum += kib("Pss")?;
        let (anonymous, file, resident) = (kib("Pss_Anon")?, kib("Pss_File")?, kib("Rss")?);
        detail = format!("the last: anonymous {anonymous}, file {file}, RSS {resident}");
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
    let (mut own, mut sync, mut alone) = (Times::default(), Times::default(), Vec::new());
    let mut peers = peers(scope).await;
    for _ in 0..effort.rounds {
        own.take(pod.pid, async || exec(&client, TASK[1], id).await).await?;
        for (_, peers, times) in &mut peers {
            if let Some(peer) = peers.first() {
                times.take(peer.pid, async || peer.exec().await).await?;
            }
        }
        sync.take(pod.pid, async || exec_sync(&pod.shim, id).await).await?;
        for _ in 0..RUN {
            alone.push(timed(async { directly(runtime, id) }).await?);
        }
    }
    println!("exec of /bin/true: through the Task API {own}; ExecSync {sync}");
    let (own, sync, alone) = (own.median(), sync.median(), median(alone));
    println!("`corten exec` alone {alone:.2} ms (medians)");
    verdict("exec through the shim beyond `corten exec`", own - alone, 2.0, " ms");
    verdict("ExecSync beyond `corten exec`", sync - alone, 2.0, " ms");
    for ((flavour, kind), peers, times) in peers {
        let whose = format!("{} containerd-shim-runc-v2 with {}", flavour.name, kind.name());
        let mut sum = 0;
        for peer in &peers {
            sum += rollup_kib(peer.pid, "Pss")?;
        }
        let each = sum / peers.len() as u64;
        println!("{whose}: exec {times}; PSS {each} KiB a shim of one container, {} side by side", 2 * PEERS);
        let at_most = if kind == Kind::Runc { 0.15 } else { 0.45 };
        verdict(&format!("exec, of {whose}"), own / times.median(), at_most, " ×");
        for peer in peers {
            peer.stop().await?;
        }
    }
    Ok(())
}

type Peers = Vec<((Flavour, Kind), Vec<Peer>, Times)>;

/// containerd's shims with one container each, as many as there are kinds of.
async fn peers(scope: &Scope) -> Peers {
    let mut all: Peers = Vec::new();
    for flavour in Flavour::all() {
        for kind in [Kind::Runc, Kind::Crun] {
            let mut peers = Vec::new();
            for n in 0..PEERS {
                match Peer::start(scope, &flavour, kind, n).await {
                    Ok(peer) => peers.push(peer),
                    Err(error) => {
                        println!("{} shim with {} is left out: {error:#}", flavour.name, kind.name());
                        break;
                    }
                }
            }
            if !peers.is_empty() {
                all.push(((flavour.clone(), kind), peers, Times::default()));
            }
        }
    }
    all
}

/// How long execs took, and how much CPU time.
#[derive(Default)]
struct Times {
    wall: Vec<f64>,
    cpu: f64,
}

impl Times {
    /// A round of execs by the shim with this PID.
    async fn take(&mut self, shim: u32, exec: impl AsyncFn() -> Result<()>) -> Result<()> {
        let before = cpu_ms(shim)?;
        for _ in 0..RUN {
            self.wall.push(timed(exec()).await?);
        }
        self.cpu += cpu_ms(shim)? - before;
        Ok(())
    }

    fn median(&self) -> f64 {
        median(self.wall.clone())
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu = self.cpu / self.wall.len() as f64;
        write!(f, "{:.2} ms (median), CPU of shim and runtime {cpu:.1} ms (mean)", self.median())
    }
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
    let before = rollup_kib(pod.pid, "Rss")?;
    for _ in 0..execs {
        exec_sync(&pod.shim, id).await?;
    }
    let after = rollup_kib(pod.pid, "Rss")?;
    println!("resident after 100 execs {before} KiB, after {execs} more {after} KiB");
    verdict("growth by execs", after as f64 - before as f64, 0.0, " KiB");
    Ok(())
}
