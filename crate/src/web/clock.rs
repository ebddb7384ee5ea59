//! Time in a worker.

use futures_util::{FutureExt, future::LocalBoxFuture};
use js_sys::Promise;
use wasm_bindgen_futures::JsFuture;

use super::js::worker;
use crate::weights::download::Clock;

/// The browser's clock and timers.
#[derive(Debug, Clone, Copy, Default)]
pub struct BrowserClock;

impl Clock for BrowserClock {
    fn now_ms(&self) -> f64 {
        worker().performance().map_or_else(js_sys::Date::now, |performance| performance.now())
    }

    fn unix_ms(&self) -> f64 {
        js_sys::Date::now()
    }

    fn sleep(&self, ms: f64) -> LocalBoxFuture<'_, ()> {
        async move {
            let mut timer = None;
            let promise = Promise::new(&mut |resolve, _| {
                timer = worker().set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, ms as i32).ok();
            });
            let _timer = Timer(timer);
            // A timer's promise is never rejected.
            let _ = JsFuture::from(promise).await;
        }
        .boxed_local()
    }
}

/// Cancels its timer when nobody waits any more: a download starts one for every piece.
struct Timer(Option<i32>);

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            worker().clear_timeout_with_handle(id);
        }
    }
}
