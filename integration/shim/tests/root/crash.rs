//! Daemons and shims that are killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use corten_task::{DeadTask, TaskStatus};
use corten_task_api::ttrpc::Code;
use integration_shim::{Pod, runs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

crate::each_runtime!(
    a_daemon_finds_its_shim_again,
    the_end_is_known_after_the_daemon_was_away,
    a_killed_shim_is_cleaned_up_after,
    start_joins_the_shim_that_runs,
    termination_signals_do_not_end_the_shim,
);

async fn a_daemon_finds_its_shim_again(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    let again = pod.again().await?;
    ensure!(again.pid().await? == pod.shim.pid().await?);
    ensure!(again.state(&id).await?.0 == TaskStatus::Running);
    Ok(())
}

async fn the_end_is_known_after_the_daemon_was_away(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "sleep 0.2; echo late; exit 9").await?;
    {
        // The daemon dies while it waits.
        let daemon = pod.again().await?;
        let wait = tokio::time::timeout(Duration::from_millis(20), daemon.wait(&id)).await;
        ensure!(wait.is_err(), "ended at once");
    }
    let daemon = pod.again().await?;
    ensure!(daemon.wait(&id).await?.status == 9);
    ensure!(pod.log("c")?.iter().any(|(_, _, text)| text == "late"));
    Ok(())
}

async fn a_killed_shim_is_cleaned_up_after(pod: &Pod<'_>) -> Result<()> {
    let running = pod.sh("running", "exec sleep 1000").await?;
    let ended = pod.sh("ended", "exit 5").await?;
    pod.shim.wait(&ended).await?;
    let request = pod.request("created", integration_support::Bundle::sh(pod.scope, "created", "true"))?;
    let created = request.id.clone();
    pod.shim.create(request).await?;
    let (_, pid) = pod.shim.state(&running).await?;
    let closed = pod.shim.closed();
    kill(Pid::from_raw(pod.shim.pid().await?.cast_signed()), Signal::SIGKILL)?;
    closed.wait().await;
    let error = pod.shim.state(&running).await.err();
    ensure!(error.is_some_and(|e| e.code() == Code::Unavailable));
    ensure!(pod.shims.reconnect(&pod.id(), &pod.dir).await?.is_none(), "a dead shim answers");
    let dead = |id: &str| DeadTask { id: id.to_owned(), bundle: pod.bundle(id) };
    let ids = [dead(&running), dead(&ended), dead(&created)];
    let exits = pod.shims.cleanup_dead(&pod.dir, &ids).await?;
    ensure!(!runs(pid), "the container still runs");
    let status: Vec<_> = exits.iter().map(|exit| exit.map(|e| e.status)).collect();
    ensure!(status == [None, Some(5), None], "{exits:?}");
    ensure!(!pod.dir.join("address").exists());
    // Again, as after a crash in the middle of it.
    pod.shims.cleanup_dead(&pod.dir, &ids).await?;
    // And the pod can have another one.
    let again = pod.shims.start(&pod.id(), &pod.dir).await?;
    ensure!(again.list().await?.is_empty());
    Ok(())
}

async fn start_joins_the_shim_that_runs(pod: &Pod<'_>) -> Result<()> {
    let again = pod.shims.start(&pod.id(), &pod.dir).await?;
    ensure!(again.pid().await? == pod.shim.pid().await?);
    Ok(())
}

async fn termination_signals_do_not_end_the_shim(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "exec sleep 1000").await?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(Pid::from_raw(pod.shim.pid().await?.cast_signed()), signal)?;
    }
    ensure!(pod.shim.state(&id).await?.0 == TaskStatus::Running);
    // And containers don't inherit that.
    let ignored = pod.exec(&id, "grep SigIgn /proc/self/status", None).await?;
    let mask = String::from_utf8_lossy(&ignored.stdout).split_whitespace().last().map(str::to_owned);
    let mask = u64::from_str_radix(&mask.context("no mask")?, 16)?;
    let bit = |signal: Signal| mask & (1 << (signal as u32 - 1)) != 0;
    ensure!(!bit(Signal::SIGTERM) && !bit(Signal::SIGINT) && !bit(Signal::SIGHUP), "{mask:x}");
    Ok(())
}
