//! Work that several callers want at the same time and that is done once.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// One piece of work, driven by whoever awaits it and cancelled when nobody does any more.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, T>>;

/// Flights by what they are about, each with something that tells how far it is.
#[derive(Debug)]
pub(crate) struct Flights<K, A, T: Clone>(Arc<Mutex<HashMap<K, Entry<A, T>>>>);

type Entry<A, T> = (A, WeakShared<BoxFuture<'static, T>>);

impl<K, A, T: Clone> Default for Flights<K, A, T> {
    fn default() -> Self {
        Flights(Arc::default())
    }
}

impl<K, A, T> Flights<K, A, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    A: Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the flight of this key, or begins it.
    pub(crate) fn join<F>(&self, key: K, begin: impl FnOnce() -> (A, F)) -> (A, Flight<T>)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = flights.get(&key).and_then(|(about, weak)| Some((about.clone(), weak.upgrade()?)));
        if let Some(running) = running {
            return running;
        }
        let ((about, work), map, ours) = (begin(), self.0.clone(), key.clone());
        let flight = async move {
            let result = work.await;
            // A failure mustn't be found by those who come later, so the key goes before the result is out.
            map.lock().unwrap_or_else(PoisonError::into_inner).remove(&ours);
            result
        };
        let flight = flight.boxed().shared();
        // Those that were cancelled left their keys. One that is cancelled at this moment must not be dropped, and cleaned
        // up after, under the lock.
        let mut alive = Vec::new();
        flights.retain(|_, (_, weak)| weak.upgrade().map(|flight| alive.push(flight)).is_some());
        flights.extend(flight.downgrade().map(|weak| (key, (about.clone(), weak))));
        drop(flights);
        (about, flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    #[tokio::test]
    async fn callers_at_the_same_time_share_and_later_ones_do_not() {
        let (flights, runs) = (Flights::<u8, (), usize>::default(), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let runs = runs.clone();
            let work = async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst)
            };
            ((), work)
        };
        let (a, b, other) = (flights.join(1, work).1, flights.join(1, work).1, flights.join(2, work).1);
        let (a, b, _) = tokio::join!(a, b, other);
        assert_eq!((a, runs.load(Ordering::SeqCst)), (b, 2));
        flights.join(1, work).1.await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn work_is_cancelled_with_its_last_caller() {
        struct Guard(Arc<Notify>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let (flights, dropped) = (Flights::<u8, (), ()>::default(), Arc::new(Notify::new()));
        let guard = Guard(dropped.clone());
        let begin = || {
            let work = async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            };
            ((), work)
        };
        let first = flights.join(1, begin);
        let second = flights.join(1, || ((), std::future::pending::<()>()));
        drop(first);
        assert!(dropped.notified().now_or_never().is_none());
        drop(second);
        dropped.notified().await;
        assert_eq!(flights.join(1, || ((), async {})).1.now_or_never(), Some(()));
    }
}
