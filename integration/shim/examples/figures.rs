//! Figures of idle shims and of ExecSync: memory per pod side by side, latency, CPU time.
//!
//! `CORTEN_BIN_DIR=… cargo run --release -p integration-shim --example figures [PODS] [EXECS] [RUNTIME]`
#![forbid(unsafe_code)]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use corten_task::{CreateTask, Shim, ShimConfig, Shims};
use integration_shim::process;
use integration_support::{Bundle, Kind, Runtime, Scope};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let pods = arguments.next().map_or(Ok(10), |n| n.parse())?;
    let execs: usize = arguments.next().map_or(Ok(200), |n| n.parse())?;
    let kind = match arguments.next().as_deref() {
        Some("runc") => Kind::Runc,
        Some("crun") => Kind::Crun,
        _ => Kind::Corten,
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Scope::test("figures", |scope| {
        let runtime = Runtime::for_test(kind, scope)?.context("no runtime")?;
        tokio.block_on(measure(scope, &runtime, pods, execs))
    })
}

async fn measure(scope: &Scope, runtime: &Runtime, pods: usize, execs: usize) -> Result<()> {
    let state = scope.make_dir("state")?;
    let shims = Shims::new(ShimConfig {
        binary: integration_support::binary("containerd-shim-corten-v2")?,
        runtime_binary: runtime.binary().to_owned(),
        runtime_root: runtime.root().to_owned(),
        state_dir: state,
        namespace: "figures".to_owned(),
    });
    let mut running = Vec::new();
    for n in 0..pods {
        running.push(start(scope, &shims, n).await?);
    }
    memory("idle, before any exec", &running).await?;
    let (shim, id) = running.first().context("no pod")?;
    latency(shim, id, execs).await?;
    memory("idle, after execs in the first", &running).await?;
    for (shim, id) in running {
        shim.kill(&id, "", 9, false).await?;
        shim.wait(&id).await?;
        shim.delete(&id).await?;
        let closed = shim.closed();
        shim.shutdown().await?;
        closed.wait().await;
    }
    Ok(())
}

async fn start(scope: &Scope, shims: &Shims, n: usize) -> Result<(Shim, String)> {
    let dir = scope.make_dir(&format!("state/pods/{n}"))?;
    let shim = shims.start(&scope.id(&format!("pod{n}")), &dir).await?;
    let bundle = Bundle::sh(scope, &format!("c{n}"), "echo begun; exec sleep 100000").write()?;
    let log = format!("cri://{}", scope.path(&format!("{n}.log")).display());
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
    Ok((shim, id))
}

/// What a kernel file of "Name:   N kB" lines says.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

async fn memory(when: &str, running: &[(Shim, String)]) -> Result<()> {
    let mut pss = Vec::new();
    let mut detail = String::new();
    for (shim, _) in running {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.pid().await?))?;
        pss.push(kib(&rollup, "Pss"));
        detail = format!(
            "anonymous {} KiB, private clean {} KiB, RSS {} KiB",
            kib(&rollup, "Pss_Anon"),
            kib(&rollup, "Private_Clean"),
            kib(&rollup, "Rss")
        );
    }
    let sum: u64 = pss.iter().sum();
    println!(
        "{when}: PSS {} KiB a pod over {} pods (first {}, last: {detail})",
        sum / pss.len() as u64,
        pss.len(),
        pss[0]
    );
    Ok(())
}

async fn latency(shim: &Shim, id: &str, execs: usize) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..execs {
        let begin = Instant::now();
        shim.exec_sync(id, process(&["/bin/true"]), Some(Duration::from_secs(10)), 0).await?;
        times.push(begin.elapsed());
    }
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("ExecSync /bin/true: best {:?}, p50 {:?}, p90 {:?}, p99 {:?}", at(0), at(50), at(90), at(99));
    Ok(())
}
