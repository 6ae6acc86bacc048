//! Trying again: what may pass, how long to wait, when to stop.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::{Error, RegistryConfig, Result};

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// What the registry asked for.
    pub(crate) retry_after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, retry_after: None }
    }
}

/// Counts attempts of one operation.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    config: &'a RegistryConfig,
    failed: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(config: &'a RegistryConfig) -> Attempts<'a> {
        Attempts { config, failed: 0 }
    }

    /// Waits before the next attempt, or returns the error if there's none to be made.
    pub(crate) async fn after(&mut self, failure: Failure) -> Result<()> {
        self.failed += 1;
        // A refused connection seldom heals within seconds, and the caller would rather hear of it.
        let limit = match failure.error {
            Error::Unreachable { .. } => self.config.attempts.min(2),
            _ => self.config.attempts,
        };
        if !failure.error.is_transient() || self.failed >= limit {
            return Err(failure.error);
        }
        let wait = failure.retry_after.unwrap_or_else(|| jitter(self.config.backoff, self.failed));
        let wait = wait.min(self.config.max_backoff);
        tracing::debug!(error = %failure.error, attempt = self.failed, ?wait, "trying the registry again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Forgets failures, because there was progress since.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }
}

/// Doubles with each failure; half of it is random, so that many clients don't come back together.
fn jitter(base: Duration, failed: u32) -> Duration {
    let full = base.saturating_mul(1 << failed.saturating_sub(1).min(10));
    // Hash keys are the standard library's only randomness, and they're enough here.
    let random = RandomState::new().build_hasher().finish() % 1024;
    full / 2 + full.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 2048.0)
}

/// `Retry-After` in seconds. Its other form, a date, isn't used by registries and counts as absent.
pub(crate) fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_bounds() {
        let base = Duration::from_millis(100);
        for failed in 1..6 {
            let full = base * (1 << (failed - 1));
            for _ in 0..50 {
                let wait = jitter(base, failed);
                assert!(wait >= full / 2 && wait <= full, "{failed}: {wait:?}");
            }
        }
        assert!(jitter(base, u32::MAX) <= base * 1024);
    }
}
