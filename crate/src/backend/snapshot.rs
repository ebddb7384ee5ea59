//! What a session holds, out of a backend and into one: conversations are saved, restored and forked through it. The layout is the
//! same on every backend, whatever it keeps itself.

use std::ops::Range;

use futures_util::future::LocalBoxFuture;

use super::{Cache, Conv, Session};
use crate::error::Result;

/// Reading and writing a session's state between steps.
pub trait Snapshot {
    /// Keys, and values, that a cache holds at `positions`: each `[positions, kv_heads * head_dim]`.
    fn read_cache(&mut self, session: Session, cache: Cache, positions: Range<usize>) -> LocalBoxFuture<'static, Result<[Vec<f32>; 2]>>;

    /// Writes what [`Snapshot::read_cache`] gave, from position `first` on.
    fn write_cache(&mut self, session: Session, cache: Cache, first: usize, keys: &[f32], values: &[f32]);

    /// The rows of a convolution that the next position sees, oldest first: `[taps - 1, cols]`, fewer at the beginning.
    fn read_conv(&mut self, session: Session, conv: Conv) -> LocalBoxFuture<'static, Result<Vec<f32>>>;

    /// Writes what [`Snapshot::read_conv`] gave.
    fn write_conv(&mut self, session: Session, conv: Conv, rows: &[f32]);

    /// Makes an empty session one of `position` tokens, at most its context, whose caches and convolutions are written next. It can go
    /// back anywhere, with convolutions only to nothing.
    fn resume(&mut self, session: Session, position: usize) -> Result<()>;
}
