//! ExecSync: what probes do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use corten_task_api::ttrpc::Code;
use integration_shim::{Pod, process, runs};
use integration_support::DEADLINE;

crate::each_runtime!(
    output_and_exit_code,
    a_timeout_kills_the_whole_tree,
    a_grandchild_that_holds_stdout_is_not_waited_for,
    output_is_capped,
    many_at_once,
    an_unknown_program_is_named,
    in_a_container_that_has_ended_is_refused,
    a_client_that_goes_away_ends_its_exec,
    nothing_is_left_open,
);

async fn busy(pod: &Pod<'_>) -> Result<String> {
    pod.sh("c", "exec sleep 1000").await
}

async fn output_and_exit_code(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let out = pod.exec(&id, "echo out; printf err >&2; exit 17", None).await?;
    ensure!(
        out.exit_code == 17 && out.stdout == b"out\n" && out.stderr == b"err" && !out.timed_out,
        "{out:?}"
    );
    let out = pod.exec(&id, "kill -9 $$", None).await?;
    ensure!(out.exit_code == 137 && !out.timed_out, "{out:?}");
    pod.remove(&id).await
}

/// The PID of a process whose command line is `needle`.
fn find(needle: &str) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        (line == needle.replace(' ', "\0").into_bytes()).then_some(pid)
    })
}

async fn a_timeout_kills_the_whole_tree(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let mark = format!("7{}", std::process::id());
    let script =
        format!("sleep {mark}1 & setsid sleep {mark}2 & sh -c 'sleep {mark}3; true' & echo begun; wait");
    // When it has begun, surely.
    let out = pod.exec(&id, &script, Some(Duration::from_secs(5))).await?;
    ensure!(out.timed_out && out.stdout == b"begun\n", "{out:?}");
    for n in 1..=3 {
        let line = format!("sleep {mark}{n}\0").replace('\0', " ");
        integration_support::wait_for("the tree to be killed", || find(&line).is_none_or(|pid| !runs(pid)))?;
    }
    // The container itself lives.
    ensure!(pod.exec(&id, "true", None).await?.exit_code == 0);
    pod.remove(&id).await
}

async fn a_grandchild_that_holds_stdout_is_not_waited_for(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let exec = pod.exec(&id, "sleep 1000 & echo done", None);
    let out = tokio::time::timeout(DEADLINE, exec).await.context("it is waited for")??;
    ensure!(out.exit_code == 0 && out.stdout == b"done\n", "{out:?}");
    pod.remove(&id).await
}

async fn output_is_capped(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let script = "head -c 3000000 /dev/zero; echo end >&2";
    let out = pod.shim.exec_sync(&id, process(&["/bin/sh", "-c", script]), None, 1000).await?;
    ensure!(out.exit_code == 0 && out.stdout.len() == 1000 && out.stderr == b"end\n");
    let out = pod.shim.exec_sync(&id, process(&["/bin/sh", "-c", script]), None, u64::MAX).await?;
    ensure!(out.exit_code == 0 && out.stdout.len() > 1 << 20);
    pod.remove(&id).await
}

async fn many_at_once(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let execs: Vec<_> = (0..20)
        .map(|n| {
            let (shim, id) = (pod.shim.clone(), id.clone());
            let script = format!("echo {n}; exit {n}");
            tokio::spawn(
                async move { shim.exec_sync(&id, process(&["/bin/sh", "-c", &script]), None, 0).await },
            )
        })
        .collect();
    for (n, exec) in execs.into_iter().enumerate() {
        let out = exec.await??;
        ensure!(out.exit_code as usize == n && out.stdout == format!("{n}\n").as_bytes(), "{n}: {out:?}");
    }
    pod.remove(&id).await
}

async fn an_unknown_program_is_named(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let error = pod.shim.exec_sync(&id, process(&["/bin/nonexistent"]), None, 0).await.err();
    let Some(corten_task::Error::Call { source: status, .. }) = error else { anyhow::bail!("{error:?}") };
    ensure!(status.message.contains("/bin/nonexistent"), "{status}");
    pod.remove(&id).await
}

async fn in_a_container_that_has_ended_is_refused(pod: &Pod<'_>) -> Result<()> {
    let id = pod.sh("c", "true").await?;
    pod.shim.wait(&id).await?;
    let error = pod.exec(&id, "true", None).await.err().and_then(|e| e.downcast::<corten_task::Error>().ok());
    ensure!(error.is_some_and(|e| e.code() == Code::FailedPrecondition));
    Ok(())
}

async fn a_client_that_goes_away_ends_its_exec(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let mark = format!("8{}", std::process::id());
    let other = pod.again().await?;
    let call = {
        let (id, script) = (id.clone(), format!("exec sleep {mark}"));
        tokio::spawn(async move { other.exec_sync(&id, process(&["/bin/sh", "-c", &script]), None, 0).await })
    };
    let line = format!("sleep {mark} ");
    let deadline = Instant::now() + DEADLINE;
    let pid = loop {
        if let Some(pid) = find(&line) {
            break pid;
        }
        ensure!(Instant::now() < deadline, "the exec didn't begin");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    call.abort(); // drops the connection with its only user
    ensure!(call.await.is_err_and(|e| e.is_cancelled()));
    integration_support::wait_for("the exec to be killed", || !runs(pid))?;
    pod.remove(&id).await
}

async fn nothing_is_left_open(pod: &Pod<'_>) -> Result<()> {
    let id = busy(pod).await?;
    let fds = format!("/proc/{}/fd", pod.shim.pid().await?);
    let open = || Ok::<_, anyhow::Error>(std::fs::read_dir(&fds)?.count());
    pod.exec(&id, "true", None).await?;
    let before = open()?;
    for _ in 0..10 {
        pod.exec(&id, "true", None).await?;
    }
    ensure!(open()? == before, "{before} descriptors were open, {} are now", open()?);
    let bundle = pod.bundle(&id);
    let files: Vec<_> = std::fs::read_dir(bundle)?.flatten().map(|e| e.file_name()).collect();
    ensure!(!files.iter().any(|f| f.to_string_lossy().starts_with("exec-")), "{files:?}");
    pod.remove(&id).await
}
