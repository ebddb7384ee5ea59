//! Time that passes only while everything waits, so that a night of stalls and back-off takes a millisecond; and the executor
//! that knows when everything waits.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{FutureExt, future::LocalBoxFuture};
use openweights::weights::network::Clock;

/// A clock that [`VirtualClock::run`] moves from one sleeper's time to the next.
#[derive(Clone, Default)]
pub struct VirtualClock(Rc<State>);

#[derive(Default)]
struct State {
    now_us: Cell<u64>,
    sleepers: RefCell<BTreeMap<(u64, u64), Waker>>,
    next: Cell<u64>,
}

/// 1 January 2026.
const EPOCH_MS: f64 = 1_767_225_600_000.0;

impl VirtualClock {
    /// What `work` gives; none if it was dropped after so many polls, as a crash would.
    ///
    /// # Panics
    /// Where nothing will ever wake it.
    pub fn run<T>(&self, work: impl Future<Output = T>, crash_after: Option<usize>) -> Option<T> {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut work = pin!(work);
        for _ in 0..crash_after.unwrap_or(usize::MAX) {
            while !woken.0.swap(false, Ordering::Relaxed) {
                assert!(self.advance(), "everything waits, and nothing is to come");
            }
            if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(done);
            }
        }
        None
    }

    /// Moves to the next sleeper's time and wakes it.
    fn advance(&self) -> bool {
        let Some(((at, _), waker)) = self.0.sleepers.borrow_mut().pop_first() else { return false };
        self.0.now_us.set(self.0.now_us.get().max(at));
        waker.wake();
        true
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Its place among the sleepers; given up when nobody waits any more.
struct Sleeper<'a>(&'a State, (u64, u64));

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.sleepers.borrow_mut().remove(&self.1);
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> f64 {
        self.0.now_us.get() as f64 / 1000.0
    }

    fn unix_ms(&self) -> f64 {
        EPOCH_MS + self.now_ms()
    }

    fn sleep(&self, ms: f64) -> LocalBoxFuture<'_, ()> {
        async move {
            let state = &*self.0;
            let at = state.now_us.get() + (ms * 1000.0).ceil() as u64;
            state.next.set(state.next.get() + 1);
            let sleeper = Sleeper(state, (at, state.next.get()));
            poll_fn(|cx| {
                if state.now_us.get() >= at {
                    return Poll::Ready(());
                }
                state.sleepers.borrow_mut().insert(sleeper.1, cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
        .boxed_local()
    }
}
