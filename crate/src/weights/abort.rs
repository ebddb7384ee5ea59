//! A request to stop, which wakes whatever waits.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use crate::error::{Error, Result};

/// A flag that is set once and seen by all its clones.
#[derive(Debug, Clone, Default)]
pub struct Abort(Rc<State>);

#[derive(Debug, Default)]
struct State {
    set: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Abort {
    /// Asks to stop.
    pub fn set(&self) {
        self.0.set.set(true);
        self.0.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// `aborted` once asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.0.set.get() { Err(Error::Aborted) } else { Ok(()) }
    }

    /// The result of `work`, or `aborted` as soon as asked to stop, even if `work` never wakes again.
    pub async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Err(aborted) = self.check() {
                return Poll::Ready(Err(aborted));
            }
            let polled = work.as_mut().poll(cx);
            let mut waiting = self.0.waiting.borrow_mut();
            if polled.is_pending() && !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            polled
        })
        .await
    }
}
