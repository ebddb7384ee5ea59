//! The processor: SIMD kernels on threads. Quantised weights are multiplied with activations rounded to 8 bits and, where that costs most,
//! with what rounding left, rounded again ([`Precision`]); float weights with f32. Every operation runs at once.
//!
//! * [`simd`]: the vector operations, per instruction set; kernels are written once over them;
//! * [`pack`]: weights as kernels read them; `product.rs`, `codes.rs` and `activations.rs` multiply with them;
//! * `cache.rs`, `attention.rs`: keys and values, and attention over them;
//! * `multiply.rs`, `attend.rs`: the same, shared out;
//! * [`pool`], [`parts`], [`threads`]: threads, and outputs that they share;
//! * `sample.rs`: the next token;
//! * `contract.rs`: the backend's contract.

use std::collections::VecDeque;

use super::{Precision, Rope, Session, SessionSpec, Tensor, Weight};
use crate::{error::Result, ops};

mod activations;
mod attend;
mod attention;
mod cache;
mod codes;
mod contract;
mod multiply;
pub mod pack;
pub mod parts;
mod pointwise;
pub mod pool;
mod product;
mod sample;
pub mod simd;
mod snapshot;
mod stored;
pub mod threads;
mod weights;

use parts::Parts;
use pool::Pool;
use simd::Level;

/// The CPU backend.
pub struct Cpu {
    pool: Pool,
    host: Host,
    sampled: VecDeque<Option<u32>>,
    rounded: multiply::Rounded,
    /// Rows after a norm, for a product.
    normed: Vec<f32>,
    /// Working memory of attention, one per thread or part.
    scratch: Vec<f32>,
    /// Working memory of sampling.
    sampling: sample::Scratch,
}

/// What all threads see.
struct Host {
    level: Level,
    weights: Vec<weights::Matrix>,
    ropes: Vec<Table>,
    sessions: Vec<Option<State>>,
    step: Step,
}

/// How to make a [`Cpu`].
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// Threads, the caller's included; by default one per processor.
    pub threads: Option<usize>,
    /// The instruction set; by default the best.
    pub level: Option<Level>,
    /// How activations for quantised weights are rounded.
    pub precision: Precision,
}

/// `cos` and `sin` of every pair at each position so far: `[position][2][pairs]`.
struct Table {
    frequencies: Vec<f32>,
    magnitude: f32,
    turns: Vec<f32>,
}

struct State {
    spec: SessionSpec,
    position: usize,
    /// The largest position since the session was empty.
    most: usize,
    caches: Vec<cache::Cache>,
    /// The last rows of each convolution's history.
    convs: Vec<Vec<f32>>,
    counts: Vec<u32>,
    sampled: u32,
}

/// The step's tensors: views into buffers that are kept from step to step.
#[derive(Default)]
struct Step {
    session: Option<Session>,
    tokens: Vec<u32>,
    views: Vec<View>,
    buffers: Vec<Vec<f32>>,
    used: usize,
}

/// Rows of a buffer.
#[derive(Debug, Clone, Copy)]
struct View {
    buffer: usize,
    offset: usize,
    stride: usize,
    rows: usize,
    cols: usize,
}

/// Elements below which work is not worth a fork.
const WORTH_A_FORK: usize = 16 << 10;

impl Cpu {
    /// A backend with its own threads.
    pub fn new(options: CpuOptions) -> Cpu {
        let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        let level = options.level.unwrap_or_else(|| Level::available()[0]);
        Cpu {
            pool: Pool::new(threads),
            host: Host { level, weights: Vec::new(), ropes: Vec::new(), sessions: Vec::new(), step: Step::default() },
            sampled: VecDeque::new(),
            rounded: multiply::Rounded::new(options.precision),
            normed: Vec::new(),
            scratch: Vec::new(),
            sampling: sample::Scratch::default(),
        }
    }

    /// A new tensor that `fill` writes. Buffers keep their place and size, so that a step like the last one allocates nothing.
    fn produce(&mut self, rows: usize, cols: usize, fill: impl FnOnce(&Host, &Pool, &mut [f32])) -> Tensor {
        let step = &mut self.host.step;
        let index = step.used;
        if index == step.buffers.len() {
            step.buffers.push(Vec::new());
        }
        step.used += 1;
        let mut buffer = std::mem::take(&mut step.buffers[index]);
        if buffer.len() < rows * cols {
            buffer.resize(rows * cols, 0.0);
        }
        fill(&self.host, &self.pool, &mut buffer[..rows * cols]);
        self.host.step.buffers[index] = buffer;
        self.host.push(View { buffer: index, offset: 0, stride: cols, rows, cols })
    }

    /// A new tensor, written row by row; rows are shared out if there is enough to do.
    fn by_row(&mut self, rows: usize, cols: usize, fill: impl Fn(&Host, usize, &mut [f32]) + Sync) -> Tensor {
        self.produce(rows, cols, |host, pool, out| {
            let shared = Parts::new(out);
            each_row(pool, rows, cols, |row| {
                // SAFETY: each row is given out once.
                #[allow(unsafe_code)]
                let out = unsafe { shared.part(row * cols..(row + 1) * cols) };
                fill(host, row, out);
            });
        })
    }

    /// A tensor whose rows are those of `x`, each by itself a plain function of one.
    fn map(&mut self, x: Tensor, f: impl Fn(&[f32]) -> Vec<f32> + Sync) -> Tensor {
        let x = self.host.view(x);
        self.by_row(x.rows, x.cols, |host, row, out| out.copy_from_slice(&f(host.row(x, row))))
    }
}

/// `work` for every row, on all threads if rows of `cost` elements are worth it.
fn each_row(pool: &Pool, rows: usize, cost: usize, work: impl Fn(usize) + Sync) {
    let chunk = (WORTH_A_FORK / 4).div_ceil(cost.max(1));
    if rows * cost < WORTH_A_FORK {
        (0..rows).for_each(work);
    } else {
        pool.split(rows, chunk, &|rows| rows.for_each(&work));
    }
}

impl Host {
    fn matrix(&self, weight: Weight) -> &weights::Matrix {
        &self.weights[weight.0 as usize]
    }

    fn view(&self, tensor: Tensor) -> View {
        self.step.views[tensor.0 as usize]
    }

    /// All of a tensor's buffer from its first element on; rows are `stride` apart.
    fn data(&self, view: View) -> &[f32] {
        &self.step.buffers[view.buffer][view.offset..]
    }

    fn row(&self, view: View, row: usize) -> &[f32] {
        &self.data(view)[row * view.stride..][..view.cols]
    }

    fn live(&self, session: Session) -> &State {
        self.sessions[session.0 as usize].as_ref().expect("a session in use")
    }

    fn live_mut(&mut self, session: Session) -> &mut State {
        self.sessions[session.0 as usize].as_mut().expect("a session in use")
    }

    fn session(&self) -> Session {
        self.step.session.expect("an operation outside a step")
    }

    fn push(&mut self, view: View) -> Tensor {
        self.step.views.push(view);
        Tensor(self.step.views.len() as u32 - 1)
    }
}

impl Table {
    /// Makes the table long enough for `positions`.
    fn grow(&mut self, positions: usize) {
        let pairs = self.frequencies.len();
        for position in self.turns.len() / (2 * pairs.max(1))..positions {
            let angles = || ops::rope::angles(&self.frequencies, self.magnitude, position);
            let turn: Vec<f32> = angles().map(|a| a.0).chain(angles().map(|a| a.1)).collect();
            self.turns.extend(turn);
        }
    }

    /// Rotates every head of a row at `position`.
    #[cfg_attr(size_first, optimize(speed))]
    fn turn(&self, row: &mut [f32], head_dim: usize, position: usize) {
        let pairs = self.frequencies.len();
        let (cos, sin) = self.turns[position * 2 * pairs..][..2 * pairs].split_at(pairs);
        for head in row.chunks_exact_mut(head_dim) {
            let (low, high) = head.split_at_mut(pairs);
            for ((a, b), (cos, sin)) in low.iter_mut().zip(&mut high[..pairs]).zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

impl State {
    fn grow(&mut self, positions: usize) -> Result<()> {
        self.caches.iter_mut().try_for_each(|cache| cache.grow(positions))
    }
}
