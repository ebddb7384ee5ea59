//! A public key that a page gave, in the browser's own cryptography.

use futures_util::{FutureExt, future::LocalBoxFuture};
use js_sys::{Function, Promise, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::js::message;
use crate::{
    error::{Error, Result},
    weights::trust::Signer,
};

/// `(message, signature) => Promise<boolean>`.
pub struct Key(pub Function);

impl Key {
    async fn ask(&self, message: &[u8], signature: &[u8]) -> Result<bool, JsValue> {
        // Copies: cryptography takes no shared memory.
        let answer = self.0.call2(&JsValue::NULL, &Uint8Array::from(message), &Uint8Array::from(signature))?;
        Ok(JsFuture::from(answer.dyn_into::<Promise>()?).await?.is_truthy())
    }
}

impl Signer for Key {
    fn signed<'a>(&'a self, text: &'a [u8], signature: &'a [u8]) -> LocalBoxFuture<'a, Result<bool>> {
        async move {
            let failed = |e: JsValue| Error::Integrity(format!("the signature could not be checked: {}", message(&e)));
            self.ask(text, signature).await.map_err(failed)
        }
        .boxed_local()
    }
}
