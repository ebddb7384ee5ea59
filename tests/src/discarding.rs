//! A store that counts what it is given, and forgets it: for tests of how much memory passing something on takes.

use std::{cell::Cell, rc::Rc};

use futures_util::{FutureExt, future::LocalBoxFuture};
use openweights::{
    Error, Result,
    weights::{
        network::Clock,
        store::{Partial, Storage, Usage},
    },
};

use crate::virtual_clock::VirtualClock;

/// Nothing is ever found in it.
#[derive(Clone, Default)]
pub struct Discarding {
    kept: Rc<Cell<u64>>,
    /// How long a write takes, on a clock.
    slow: Option<(VirtualClock, f64)>,
}

impl Discarding {
    /// Each write takes so long.
    pub fn slow(clock: &VirtualClock, ms: f64) -> Discarding {
        Discarding { kept: Rc::default(), slow: Some((clock.clone(), ms)) }
    }

    /// Bytes that were written.
    pub fn kept(&self) -> u64 {
        self.kept.get()
    }
}

struct Counted {
    storage: Discarding,
    size: u64,
}

impl Partial for Counted {
    fn size(&self) -> u64 {
        self.size
    }

    fn read<'a>(&'a mut self, _: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        async move { Ok(vec![0; len]) }.boxed_local()
    }

    fn truncate(&mut self, size: u64) -> Result<()> {
        self.size = self.size.min(size);
        Ok(())
    }

    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            if let Some((clock, ms)) = &self.storage.slow {
                clock.sleep(*ms).await;
            }
            self.size += bytes.len() as u64;
            self.storage.kept.set(self.storage.kept.get() + bytes.len() as u64);
            Ok(())
        }
        .boxed_local()
    }

    fn commit(self: Box<Self>, _: &str) -> LocalBoxFuture<'static, Result<()>> {
        done(())
    }
}

fn done<'a, T: 'a>(value: T) -> LocalBoxFuture<'a, Result<T>> {
    async { Ok(value) }.boxed_local()
}

impl Storage for Discarding {
    fn blob_size<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>> {
        done(None)
    }
    fn read<'a>(&'a self, sha256: &'a str, _: u64, _: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        async move { Err(Error::NotFound(sha256.into())) }.boxed_local()
    }
    fn resume<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn Partial>>> {
        done(Box::new(Counted { storage: self.clone(), size: 0 }) as Box<dyn Partial>)
    }
    fn remove_blob<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        done(())
    }
    fn blobs(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        done(Vec::new())
    }
    fn partials(&self) -> LocalBoxFuture<'_, Result<Vec<(String, u64)>>> {
        done(Vec::new())
    }
    fn remove_partial<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        done(())
    }
    fn records(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        done(Vec::new())
    }
    fn read_record<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>>> {
        done(None)
    }
    fn write_record<'a>(&'a self, _: &'a str, _: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        done(())
    }
    fn remove_record<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        done(())
    }
    fn usage(&self) -> LocalBoxFuture<'_, Result<Usage>> {
        done(Usage::default())
    }
}
