//! Web Locks: one tab or worker at a time.

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue, prelude::Closure};
use wasm_bindgen_futures::JsFuture;

use super::js::{message, worker};
use crate::error::{Error, Result};

/// A lock that is held until this is dropped; the browser gives it back when the worker ends.
pub struct Lock {
    release: Function,
}

impl Lock {
    /// Waits for the lock `name` of this origin. web-sys hides `navigator.locks` behind an unstable switch.
    pub async fn take(name: &str) -> Result<Lock> {
        let failed = |e: JsValue| Error::Storage(format!("the lock of stored files: {}", message(&e)));
        let mut release = None;
        // The browser holds the lock until this promise is settled.
        let held = Promise::new(&mut |resolve, _| release = Some(resolve));
        let release = release.ok_or_else(|| Error::Storage("the browser made no promise".into()))?;
        let (sender, granted) = oneshot::channel();
        let grant = Closure::once(move |_lock: JsValue| {
            // Nobody listens any more if the load was given up; then `held` is never settled, but the worker ends.
            let _ = sender.send(());
            held
        });
        let locks = Reflect::get(&worker().navigator(), &"locks".into()).map_err(failed)?;
        let request: Function = Reflect::get(&locks, &"request".into()).and_then(JsCast::dyn_into).map_err(failed)?;
        let request: Promise = request.call2(&locks, &name.into(), grant.as_ref()).and_then(JsCast::dyn_into).map_err(failed)?;
        // The request is settled when the lock is given back, or refused at once.
        match select(granted, JsFuture::from(request)).await {
            Either::Right((Err(refused), _)) => Err(failed(refused)),
            _ => Ok(Lock { release }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Settling a promise cannot fail.
        let _ = self.release.call0(&JsValue::NULL);
    }
}
