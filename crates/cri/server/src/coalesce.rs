//! Joins requests that ask for the same thing: the first one works, the others get its result.
//!
//! A kubelet that ran out of patience sends its request again while the first is still being carried out. "Name is
//! reserved" would be no answer to that.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::{Error, Result};

type Outcome<T> = Option<Result<T>>;

/// The operations in flight, by what they are about.
pub(crate) struct Flights<K, T> {
    flying: Arc<Mutex<HashMap<K, watch::Receiver<Outcome<T>>>>>,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self { flying: Arc::default() }
    }
}

impl<K, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// Runs `work`, or joins what already runs for this key. The work goes on when its callers have gone away.
    pub(crate) async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut outcome = {
            let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
            match flying.get(&key) {
                Some(outcome) => outcome.clone(),
                None => {
                    let (sender, outcome) = watch::channel(None);
                    flying.insert(key.clone(), outcome.clone());
                    let landing = Landing { key, flying: Arc::clone(&self.flying) };
                    let work = work();
                    tokio::spawn(async move {
                        let result = work.await;
                        // Off the list first: who comes now asks about a finished operation.
                        drop(landing);
                        sender.send_replace(Some(result));
                    });
                    outcome
                }
            }
        };
        let done = outcome.wait_for(Option::is_some).await;
        match done.map(|outcome| outcome.clone()) {
            Ok(Some(result)) => result,
            _ => Err(Error::Unavailable("the operation ended abnormally: this is a bug".to_owned())),
        }
    }
}

/// Takes the operation off the list, even if it panics.
struct Landing<K: Eq + Hash, T> {
    key: K,
    flying: Arc<Mutex<HashMap<K, watch::Receiver<Outcome<T>>>>>,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_same_request_joins_and_a_later_one_works_anew() {
        let flights = Arc::new(Flights::<&str, u32>::default());
        let count = Arc::new(AtomicU32::new(0));
        let (go, gone) = oneshot::channel::<()>();
        let first = {
            let (flights, count) = (Arc::clone(&flights), Arc::clone(&count));
            tokio::spawn(async move {
                let work = async move {
                    let _ = gone.await;
                    Ok(count.fetch_add(1, Ordering::SeqCst))
                };
                flights.run("pod", || work).await
            })
        };
        tokio::task::yield_now().await;
        // The first caller gives up; the work goes on.
        first.abort();
        let second = flights.run("pod", || async { panic!("must not run") });
        let other = flights.run("other", || async { Ok(7) });
        assert_eq!(other.await.expect("runs beside"), 7);
        go.send(()).expect("somebody waits");
        assert_eq!(second.await.expect("joined"), 0);
        let count = Arc::clone(&count);
        let third = flights.run("pod", move || async move { Ok(count.fetch_add(1, Ordering::SeqCst)) });
        assert_eq!(third.await.expect("anew"), 1);
    }

    #[tokio::test]
    async fn all_hear_of_a_failure() {
        let flights = Flights::<u8, ()>::default();
        let fail = || async { Err(Error::invalid("no")) };
        let (a, b) = tokio::join!(flights.run(1, fail), flights.run(1, fail));
        assert_eq!(a.expect_err("fails").to_string(), "no");
        assert_eq!(b.expect_err("fails").to_string(), "no");
    }
}
