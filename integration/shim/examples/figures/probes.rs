//! A probe a second in each of many pods: what it costs, and what it leaves.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration_shim::footprint::{Footprint, cpu_ms, files, rollup_kib};
use integration_support::{Runtime, Scope};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::{Pod, exec_sync, shims, start, stop, verdict};

/// What an allocator may keep for good once probes have begun, in KiB for each pod.
const MARGIN: f64 = 16.0;
/// Probes before it is looked at for the first time: what is made once is made then.
const WARM: usize = 5;

/// Starts so many pods, probes each of them once a second for so many seconds, and says what that did.
pub(crate) async fn run(scope: &Scope, runtime: &Runtime, pods: usize, seconds: usize) -> Result<()> {
    let shims = shims(scope, runtime)?;
    let mut all = Vec::new();
    for n in 0..pods {
        all.push(Rc::new(start(scope, &shims, n, &["a"]).await?.0));
    }
    probe(&all, WARM).await?;
    let before = State::of(&all, scope, runtime)?;
    let began = Instant::now();
    let mut times = probe(&all, seconds).await?;
    let took = began.elapsed().as_secs_f64();
    let after = State::of(&all, scope, runtime)?;
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
    let count = times.len() as f64;
    let cpu = after.cpu - before.cpu;
    println!(
        "{pods} pods, {seconds} s: {count} probes in {took:.1} s; median {:.2} ms, 99 of 100 within {:.2} ms, all within {:.2} ms",
        at(0.5),
        at(0.99),
        at(1.0 - 0.5 / count)
    );
    println!(
        "CPU of shims, runtimes and probes: {:.2} ms a probe, {:.3} of a processor",
        cpu / count,
        cpu / 1e3 / took
    );
    println!("PSS of a pod before {:.0} KiB, after {:.0} KiB", before.pss, after.pss);
    verdict("growth of a pod's PSS by probes", after.pss - before.pss, MARGIN, " KiB");
    let different = before.footprints.iter().zip(&after.footprints).filter(|(b, a)| b != a).count();
    verdict("shims with other descriptors, threads or children than before", different as f64, 0.0, "");
    let files = after.files.iter().filter(|file| !before.files.contains(file)).count();
    verdict("files left", files as f64, 0.0, "");
    let pods = all.into_iter().map(|pod| Rc::into_inner(pod).context("a probe goes on"));
    stop(pods.collect::<Result<Vec<_>>>()?).await
}

/// Probes all pods at once, as kubelets do: each once a second, spread over it. Milliseconds of each.
async fn probe(pods: &[Rc<Pod>], seconds: usize) -> Result<Vec<f64>> {
    let times = Rc::new(RefCell::new(Vec::with_capacity(pods.len() * seconds)));
    let mut probers = JoinSet::new();
    for (n, pod) in pods.iter().enumerate() {
        let (pod, times) = (Rc::clone(pod), Rc::clone(&times));
        let offset = Duration::from_secs(1).mul_f64(n as f64 / pods.len() as f64);
        probers.spawn_local(async move {
            let id = pod.containers.first().context("no container")?;
            let mut ticks =
                tokio::time::interval_at(tokio::time::Instant::now() + offset, Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for _ in 0..seconds {
                ticks.tick().await;
                let begin = Instant::now();
                exec_sync(&pod.shim, id).await?;
                times.borrow_mut().push(begin.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = probers.join_next().await {
        ended??;
    }
    Ok(times.take())
}

/// What the pods have.
struct State {
    /// Milliseconds, of all.
    cpu: f64,
    /// KiB, of one.
    pss: f64,
    footprints: Vec<Footprint>,
    files: Vec<PathBuf>,
}

impl State {
    fn of(pods: &[Rc<Pod>], scope: &Scope, runtime: &Runtime) -> Result<Self> {
        let mut state = Self { cpu: 0.0, pss: 0.0, footprints: Vec::new(), files: Vec::new() };
        for (n, pod) in pods.iter().enumerate() {
            state.cpu += cpu_ms(pod.pid)?;
            state.pss += rollup_kib(pod.pid, "Pss")? as f64 / pods.len() as f64;
            state.footprints.push(Footprint::of(pod.pid)?);
            let dir = scope.path(&format!("state/pods/{n}"));
            let mut dirs = vec![dir];
            for id in &pod.containers {
                dirs.push(runtime.root().join(id));
                dirs.push(scope.path(&format!("bundle-a{n}")));
            }
            let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
            state.files.extend(files(&dirs));
        }
        Ok(state)
    }
}
