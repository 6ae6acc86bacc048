//! Waiting for something to become true, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a test waits for something that should be quick. Generous, because CI machines stall; a test that works
/// never waits so long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polls `condition` until it holds or [`DEADLINE`] has passed.
///
/// # Errors
/// When the deadline passed; the message says `what` was awaited.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_until(what, DEADLINE, || Ok(condition().then_some(())))
}

/// Polls `attempt` until it yields a value or `deadline` has passed.
///
/// # Errors
/// What `attempt` failed with, at once; or that the deadline passed.
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} for {what} in vain");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
