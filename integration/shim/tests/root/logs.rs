//! The log that the shim writes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use corten_task_api::proto::corten::shim::v1::ListResponse;
use corten_task_api::services::CORTEN;
use integration_shim::{Pod, parse_log};
use integration_support::Bundle;

crate::each_runtime!(
    long_and_partial_lines,
    rotation_under_load_loses_and_splits_nothing,
    a_log_that_cannot_be_written_blocks_nobody,
    a_terminal_is_logged_as_stdout,
);

async fn long_and_partial_lines(pod: &Pod<'_>) -> Result<()> {
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf tail";
    let id = pod.sh("c", script).await?;
    pod.shim.wait(&id).await?;
    let log = pod.log("c")?;
    let shape: Vec<_> = log.iter().map(|(_, tag, text)| (tag.as_str(), text.len())).collect();
    ensure!(shape == [("P", 16384), ("P", 16384), ("F", 7232), ("P", 4)], "{shape:?}");
    Ok(())
}

async fn rotation_under_load_loses_and_splits_nothing(pod: &Pod<'_>) -> Result<()> {
    const LINES: usize = 20_000;
    let mut request =
        pod.request("c", Bundle::workload(pod.scope, "c", &["log", &LINES.to_string(), "both"]))?;
    // So short that most lines are in parts.
    let log = format!("cri://{}?max-line=5", pod.log_path("c").display());
    (request.stdout, request.stderr) = (log.clone(), log);
    let id = pod.run(request).await?;
    let mut files = Vec::new();
    let begin = Instant::now();
    loop {
        let ended = tokio::time::timeout(Duration::from_millis(3), pod.shim.wait(&id)).await.is_ok();
        let rotated = pod.scope.path(&format!("rotated-{}", files.len()));
        fs::rename(pod.log_path("c"), &rotated)?;
        pod.shim.reopen_log(&id).await?;
        files.push(rotated);
        ensure!(begin.elapsed() < integration_support::DEADLINE, "it doesn't end");
        if ended {
            break;
        }
    }
    files.push(pod.log_path("c"));
    let mut lines = (Vec::new(), Vec::new());
    for file in &files {
        let mut begun = (String::new(), String::new());
        for (stream, tag, text) in parse_log(file)? {
            let (begun, lines) = match stream.as_str() {
                "stdout" => (&mut begun.0, &mut lines.0),
                _ => (&mut begun.1, &mut lines.1),
            };
            begun.push_str(&text);
            if tag == "F" {
                lines.push(std::mem::take(begun));
            }
        }
        ensure!(begun.0.is_empty() && begun.1.is_empty(), "{} ends within a line: {begun:?}", file.display());
    }
    // What the program wrote: as many lines on each, each with its number, in order.
    for (name, lines) in [("stdout", &lines.0), ("stderr", &lines.1)] {
        ensure!(lines.len() == LINES || lines.len() == LINES / 2, "{name}: {} lines", lines.len());
        let mut numbers = Vec::new();
        for line in lines {
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            numbers.push(digits.parse::<u64>()?);
        }
        ensure!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{name}: out of order");
    }
    ensure!(files.len() > 2, "nothing was rotated: {files:?}");
    Ok(())
}

async fn a_log_that_cannot_be_written_blocks_nobody(pod: &Pod<'_>) -> Result<()> {
    let mut request = pod.request("c", Bundle::workload(pod.scope, "c", &["log", "20000"]))?;
    request.stdout = "cri:///dev/full".to_owned();
    request.stderr = request.stdout.clone();
    let id = pod.run(request).await?;
    ensure!(pod.shim.wait(&id).await?.status == 0);
    let list: ListResponse = pod.client().await?.call(CORTEN, "List", &(), None).await?;
    ensure!(list.tasks.len() == 1 && list.tasks[0].log_bytes_dropped > 20_000, "{list:?}");
    Ok(())
}

async fn a_terminal_is_logged_as_stdout(pod: &Pod<'_>) -> Result<()> {
    let script = "tty; echo err >&2";
    let mut request = pod.request("c", Bundle::sh(pod.scope, "c", script).terminal())?;
    request.terminal = true;
    let id = pod.run(request).await?;
    ensure!(pod.shim.wait(&id).await?.status == 0);
    let log = pod.log("c")?;
    ensure!(log.iter().all(|(stream, ..)| stream == "stdout"), "{log:?}");
    ensure!(log[0].2.starts_with("/dev/") && log.last().is_some_and(|l| l.2.trim_end() == "err"), "{log:?}");
    Ok(())
}
