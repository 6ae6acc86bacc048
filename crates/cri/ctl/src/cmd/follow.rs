//! Prints a log while its container runs.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result};
use corten_cri_api::v1::{ContainerState, ContainerStatus, StopContainerRequest};

use crate::{
    client::{Answer, Client},
    find,
    log::{Line, Log, Stream},
    show::short,
};

/// What Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Stops the container; the second time kills it.
    Stop,
    /// Ends the program, as it does by default.
    Quit,
}

/// CRI has no call that waits for a container; an idle one is asked this often.
const SLOWEST: Duration = Duration::from_millis(100);

/// Passes lines to `write` until the container has ended; `write` says no when nobody reads on.
pub(crate) async fn until_exit(
    client: &Client,
    id: &str,
    log: &mut Log,
    interrupt: Interrupt,
    mut write: impl FnMut(Vec<Line>) -> Result<bool>,
) -> Result<ContainerStatus> {
    let mut pause = Duration::from_millis(2);
    let mut interrupts = 0_u32;
    loop {
        // Asked before the read: what was written before the end is then in the file.
        let status = find::status(client, id).await?;
        let ended =
            matches!(status.state(), ContainerState::ContainerExited | ContainerState::ContainerUnknown);
        let lines = log.read().with_context(|| format!("read the log {}", status.log_path))?;
        pause = if lines.is_empty() { (pause * 2).min(SLOWEST) } else { Duration::from_millis(2) };
        if !write(lines)? {
            return Ok(status);
        }
        if ended {
            write(log.finish())?;
            return Ok(status);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            signal = tokio::signal::ctrl_c(), if interrupt == Interrupt::Stop => {
                signal.context("wait for Ctrl-C")?;
                interrupts += 1;
                stop(client, id, interrupts).await?;
            }
        }
    }
}

async fn stop(client: &Client, id: &str, interrupts: u32) -> Result<()> {
    let timeout = if interrupts == 1 { 10 } else { 0 };
    eprintln!("cortenctl: stopping {} (Ctrl-C again kills it)", short(id));
    let request = StopContainerRequest { container_id: id.to_owned(), timeout };
    let mut runtime = client.runtime();
    tokio::select! {
        answer = runtime.stop_container(request) => {
            answer.or_say(|| format!("stop container {}", short(id)))?;
        }
        // The loop above doesn't listen while we wait here.
        _ = tokio::signal::ctrl_c() => {
            let request = StopContainerRequest { container_id: id.to_owned(), timeout: 0 };
            client.runtime().stop_container(request).await.or_say(|| format!("kill container {}", short(id)))?;
        }
    }
    Ok(())
}

/// Writes lines where the container wrote them; false when nobody reads on.
pub(crate) fn write(lines: &[Line]) -> Result<bool> {
    write_with(lines, |_| String::new())
}

/// The same with something before each line.
pub(crate) fn write_with(lines: &[Line], prefix: impl Fn(&Line) -> String) -> Result<bool> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    let mut all = || {
        for line in lines {
            let to: &mut dyn Write = match line.stream {
                Stream::Stdout => &mut stdout,
                Stream::Stderr => &mut stderr,
            };
            to.write_all(prefix(line).as_bytes())?;
            to.write_all(&line.text)?;
            to.write_all(b"\n")?;
        }
        stdout.flush()
    };
    match all() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("write the container's output"),
    }
}
