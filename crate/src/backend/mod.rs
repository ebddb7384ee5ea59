//! The contract between models and hardware.
//!
//! A backend owns everything behind small `Copy` handles, in three lifetimes:
//!
//! * *weights* ([`Weight`], [`Rope`]): until the backend is dropped, or an adapter's weight by itself;
//! * *session* ([`Session`]): KV caches, convolution states, position, the last sampled token, token counts for penalties;
//! * *step* ([`Tensor`]): from [`Backend::begin`] to the next `begin`.
//!
//! A step is `begin`, calls of operations, `end`. Operations return handles, never errors: they may run at once (CPU) or
//! be recorded and submitted by `end` (GPU); what goes wrong in between is reported by `end` or by the read that waits.
//! Shapes are part of the contract and breaking them is a bug of the caller: backends may panic. A step asks for the same
//! tensors in the same order as the step before with the same number of rows, so a backend can keep buffers and bind groups.
//!
//! Tensors are row-major f32 `[rows, cols]`; rows are tokens.

use futures_util::future::{FutureExt, LocalBoxFuture};

use crate::{
    error::Result,
    quant::{Format, Plane},
};

pub mod cpu;
pub mod gpu;
pub mod reference;
pub mod snapshot;

/// A weight matrix `[rows, cols]` = `[out, in]`, or a vector as one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Weight(pub u32);

/// Rotation frequencies, see [`crate::ops::rope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rope(pub u32);

/// One conversation's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub u32);

/// The index of a KV cache within the session of the step, as in [`SessionSpec::caches`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cache(pub u32);

/// The index of a convolution state within the session of the step, as in [`SessionSpec::convs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv(pub u32);

/// Activations of the step, `[rows, cols]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tensor(pub u32);

/// What a backend is, for people and for choosing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BackendInfo {
    /// `reference`, `cpu` or `gpu`.
    pub name: &'static str,
    /// The adapter or processor as it names itself.
    pub device: String,
    /// Whether a GPU is emulated by the processor.
    pub software: bool,
}

/// Consecutive rows of a weight that share a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// How the rows are stored.
    pub format: Format,
    /// Number of rows.
    pub rows: usize,
}

/// The shape of one KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSpec {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// The shape of a short convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Columns, each convolved by itself.
    pub cols: usize,
    /// Positions that an output sees: its own and the `taps - 1` before it.
    pub taps: usize,
}

/// Tokens by which a session with convolution states can go back: steps may run so far ahead of a stop.
pub const SPARE: usize = 4;

impl ConvSpec {
    /// Rows before `position` that an output there sees.
    pub fn seen(&self, position: usize) -> usize {
        position.min(self.taps - 1)
    }

    /// Rows that a state keeps: what the next output sees, and the spare ones. Position `p` is in row `p % slots`.
    pub fn slots(&self) -> usize {
        self.taps - 1 + SPARE
    }
}

/// What a session holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionSpec {
    /// One entry per attention layer.
    pub caches: Vec<CacheSpec>,
    /// One entry per convolution layer.
    pub convs: Vec<ConvSpec>,
    /// Most tokens that the session may ever hold; storage grows towards it by doubling.
    pub context: usize,
    /// Logits of a position.
    pub vocab: usize,
}

impl SessionSpec {
    /// Where a session that has held `most` tokens since it was empty can go back to: `position`, or 0 where its convolution
    /// states no longer hold what lies before it.
    pub fn back_to(&self, position: usize, most: usize) -> usize {
        let held = |conv: &ConvSpec| (position + 1).saturating_sub(conv.taps) + conv.slots() >= most;
        if self.convs.iter().all(held) { position } else { 0 }
    }

    /// What counts as most tokens ever held where a session begins at `position`, with no row of a convolution to spare.
    pub fn most_at(&self, position: usize) -> usize {
        if self.convs.is_empty() { position } else { position + SPARE }
    }
}

/// The tokens that a step processes.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// These ids, appended at the session's position.
    Tokens(&'a [u32]),
    /// The one id that the session's last `sample` left on the device.
    Sampled,
}

/// Scaled dot-product attention with grouped queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the dot products, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A position sees itself and what is before it; otherwise, as encoders do, also what comes after it in the step.
    pub causal: bool,
    /// A position sees itself and the `window - 1` before it (and after it, where that is seen); `None`: all.
    pub window: Option<usize>,
    /// `score` becomes `softcap * tanh(score / softcap)`.
    pub softcap: Option<f32>,
    /// A score for each head that takes part in the softmax and has no value (attention sinks): a vector of `heads` elements.
    pub sinks: Option<Weight>,
}

impl Attention {
    /// Scaled by `1 / sqrt(head_dim)`, causal, over all positions.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Attention {
        let scale = 1.0 / (head_dim as f32).sqrt();
        Attention { heads, kv_heads, head_dim, scale, causal: true, window: None, softcap: None, sinks: None }
    }
}

/// The function of a gated MLP, or of a layer without a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// `tanh(x)`.
    Tanh,
    /// `c / (1 + exp(-1.702 c))` with `c = min(x, 7)`. As a gate it multiplies `min(max(up, -7), 7) + 1` instead of `up`.
    ClampedQuickGelu,
}

/// How a router's logits become a choice of experts; see [`crate::ops::route`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Experts that each row goes to.
    pub per_row: usize,
    /// Whether the weights of a row's experts sum to 1; if not they are their part of the softmax over all experts.
    pub normalise: bool,
}

/// The experts that each row of a step goes to, as they lie on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routes {
    /// Ids, the largest logit's first: `[rows, per_row]`, whole numbers.
    pub ids: Tensor,
    /// Weights of the same: `[rows, per_row]`.
    pub weights: Tensor,
    /// Number of experts to choose from.
    pub experts: usize,
}

/// How the next token is chosen from logits; see [`crate::ops::sample`] for the formulas and their order.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 chooses the largest logit.
    pub temperature: f32,
    /// Keep the `top_k` most likely; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose probabilities reach `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least `min_p` times as likely as the most likely; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer; 1 does nothing.
    pub repetition_penalty: f32,
    /// Subtracted per occurrence in the answer.
    pub frequency_penalty: f32,
    /// Subtracted once for tokens that occur in the answer.
    pub presence_penalty: f32,
    /// Key of the random generator.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy, without penalties.
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// How activations become 8-bit integers: each group of 32 has a scale. What that leaves, mostly in the few groups of a row that hold its
/// outliers, may be rounded once more and added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Once.
    Fast,
    /// Twice in the quarter of a row's groups with the largest scales.
    #[default]
    Balanced,
    /// Twice everywhere.
    Exact,
}

impl Precision {
    /// How many of a row's `groups` are rounded again.
    pub fn again(self, groups: usize) -> usize {
        match self {
            Precision::Fast => 0,
            Precision::Balanced => groups.div_ceil(4),
            Precision::Exact => groups,
        }
    }
}

/// Hardware that runs models.
pub trait Backend: snapshot::Snapshot {
    /// What this is.
    fn info(&self) -> BackendInfo;

    /// How products with quantised weights round activations, see [`crate::ops::matmul::round_activations`]; `None`: not at all.
    fn precision(&self) -> Option<Precision> {
        None
    }

    /// Most bytes of one plane of one segment; the loader splits longer segments by rows.
    fn max_plane_bytes(&self) -> usize;

    // Weights.

    /// Makes room for a weight of `cols` columns whose rows are those of `segments`, one after the other.
    fn new_weight(&mut self, cols: usize, segments: &[Segment]) -> Result<Weight>;

    /// Writes `bytes` at byte `offset` of a segment's plane; both are multiples of 4, except that the last write to a plane may end anywhere.
    /// A plane's bytes come in order.
    fn write_weight(&mut self, weight: Weight, segment: usize, plane: Plane, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Frees a weight that no step under way uses. Its handle may be given out again.
    fn drop_weight(&mut self, weight: Weight);

    /// Rotation tables for `inverse_frequencies` (one per pair of elements): angle = position * inverse frequency; sine and
    /// cosine are multiplied by `magnitude`.
    fn new_rope(&mut self, inverse_frequencies: &[f32], magnitude: f32) -> Result<Rope>;

    /// Resolves when all weight bytes written so far have reached the device.
    fn flush(&mut self) -> LocalBoxFuture<'static, Result<()>>;

    // Sessions.

    /// A new, empty session.
    fn new_session(&mut self, spec: &SessionSpec) -> Result<Session>;

    /// Frees a session.
    fn drop_session(&mut self, session: Session);

    /// Tokens that the session holds: the position of the next one.
    fn position(&self, session: Session) -> usize;

    /// Forgets all tokens from `position` on; all tokens, where convolution states no longer hold what lies before it, see
    /// [`SessionSpec::back_to`]. [`Backend::position`] says what is left.
    fn truncate(&mut self, session: Session, position: usize);

    /// Starts counting tokens for penalties: `prompt` marks ids as seen; what `sample` chooses is counted from here on.
    fn reset_counts(&mut self, session: Session, prompt: &[u32]);

    // A step.

    /// Starts a step; returns its number of rows. The session's position advances by as many at `end`. A session that would
    /// outgrow its context is an error.
    fn begin(&mut self, session: Session, input: Input<'_>) -> Result<usize>;

    /// Activations from outside: `rows * cols` floats.
    fn upload(&mut self, cols: usize, data: &[f32]) -> Tensor;

    /// The rows of `table` for the step's tokens: `[rows, hidden]`.
    fn embed(&mut self, table: Weight) -> Tensor;

    /// The rows of `table` at the step's positions: `[rows, hidden]`.
    fn embed_positions(&mut self, table: Weight) -> Tensor;

    /// `x * weight^T`, plus `bias` on every row, plus `residual`: `[rows, out]`.
    fn matmul(&mut self, weight: Weight, x: Tensor, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor;

    /// `x / sqrt(mean(x^2) + eps) * weight`, each row; where the weight is shorter than a row, each head of its length.
    fn rms_norm(&mut self, x: Tensor, weight: Weight, eps: f32) -> Tensor;

    /// `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`, each row.
    fn layer_norm(&mut self, x: Tensor, weight: Weight, bias: Option<Weight>, eps: f32) -> Tensor;

    /// Columns `start .. start + width` of `x`: a view.
    fn columns(&mut self, x: Tensor, start: usize, width: usize) -> Tensor;

    /// The first row of `x`: a view.
    fn first_row(&mut self, x: Tensor) -> Tensor;

    /// The last row of `x`: a view.
    fn last_row(&mut self, x: Tensor) -> Tensor;

    /// The mean of all rows of `x`: one row.
    fn mean_rows(&mut self, x: Tensor) -> Tensor;

    /// `x` with each head of `head_dim` rotated by the row's position (half-split form).
    fn rope(&mut self, x: Tensor, rope: Rope, head_dim: usize) -> Tensor;

    /// Appends keys and values `[rows, kv_heads * head_dim]` to a cache at the step's positions.
    fn append(&mut self, cache: Cache, k: Tensor, v: Tensor);

    /// Attention of queries `[rows, heads * head_dim]` over the cache's tokens, up to each row's own where it is causal: the same shape.
    fn attention(&mut self, cache: Cache, q: Tensor, spec: &Attention) -> Tensor;

    /// A gated short convolution over time (see [`crate::ops::short_conv`]): `bcx` is `b | c | x`, `taps` a vector `[cols][taps]`;
    /// `c * (taps over b * x, plus bias)`: `[rows, cols]`.
    fn short_conv(&mut self, conv: Conv, bcx: Tensor, taps: Weight, bias: Option<Weight>) -> Tensor;

    /// `a + b`, of one shape; or `b` one row, added to every row.
    fn add(&mut self, a: Tensor, b: Tensor) -> Tensor;

    /// `x * factor`.
    fn scale(&mut self, x: Tensor, factor: f32) -> Tensor;

    /// `x * factors`, column by column, plus `bias` on every row, plus `residual`.
    fn scale_columns(&mut self, x: Tensor, factors: Weight, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor;

    /// `cap * tanh(x / cap)`.
    fn softcap(&mut self, x: Tensor, cap: f32) -> Tensor;

    /// `activation(x)`.
    fn activate(&mut self, x: Tensor, activation: Activation) -> Tensor;

    /// `activation(gate) * up` where `x` is `gate | up`: `[rows, cols / 2]`.
    fn gate(&mut self, x: Tensor, activation: Activation) -> Tensor;

    /// Chooses experts for each row of a router's logits, `[rows, experts]`.
    fn route(&mut self, logits: Tensor, routing: Routing) -> Routes;

    /// `x * weight^T` plus `bias`, where each route takes its expert's part of the weight, which is `[experts * out, in]`, and of
    /// the bias, which has `experts * out` elements: `[rows * per_row, out]`. `x` has one row for each row that was routed, or one
    /// for each route.
    fn expert_matmul(&mut self, weight: Weight, x: Tensor, routes: Routes, bias: Option<Weight>) -> Tensor;

    /// The rows of `x`, one for each route, times the routes' weights, added up for each row that was routed, plus `residual`:
    /// `[rows, cols]`.
    fn mix(&mut self, x: Tensor, routes: Routes, residual: Option<Tensor>) -> Tensor;

    /// Says that of the step's activations only `x` is used from here on, under the handle that this returns; the memory of the others may
    /// hold what follows. A backend that knows when an activation was used last need do nothing.
    fn keep(&mut self, x: Tensor) -> Tensor {
        x
    }

    /// Chooses a token from the logits' last row and leaves it on the device for [`Input::Sampled`].
    fn sample(&mut self, logits: Tensor, sampling: &Sampling);

    /// Ends the step: submits what was recorded and advances the session.
    fn end(&mut self) -> Result<()>;

    /// A tensor of the step just ended, row by row.
    fn read(&mut self, tensor: Tensor) -> LocalBoxFuture<'static, Result<Vec<f32>>>;

    /// The token that `sampling`, which has no penalties, chooses from each row's `vocab` logits in the step just ended, the first of them
    /// for position `first`; none where no logit is a number.
    fn choose(
        &mut self,
        logits: Tensor,
        vocab: usize,
        sampling: &Sampling,
        first: usize,
    ) -> LocalBoxFuture<'static, Result<Vec<Option<u32>>>> {
        let (rows, sampling, counts) = (self.read(logits), *sampling, vec![0; vocab]);
        let choose = move |(row, position): (&[f32], u32)| {
            let number = row.iter().any(|logit| logit.is_finite());
            number.then(|| crate::ops::sample::reference(row, &counts, &sampling, position))
        };
        async move { Ok(rows.await?.chunks_exact(vocab).zip(first as u32..).map(choose).collect()) }.boxed_local()
    }

    /// The token chosen by the oldest step that sampled and was not yet asked for. `None`: the sampler's candidates do not hold
    /// the nucleus; read the logits, choose with [`crate::ops::sample::reference`] and call [`Backend::set_sampled`]. The
    /// future does not borrow the backend: further steps may be submitted before it resolves.
    fn sampled(&mut self) -> LocalBoxFuture<'static, Result<Option<u32>>>;

    /// Sets (and counts) the token that the next step's [`Input::Sampled`] reads.
    fn set_sampled(&mut self, session: Session, token: u32);

    /// Work handed to the device since the last `begin`: kernel dispatches; 0 where nothing is dispatched.
    fn dispatches(&self) -> usize {
        0
    }

    // Compound operations: a backend may fuse, none must.

    /// `matmul(rms_norm(x))`.
    fn norm_matmul(&mut self, x: Tensor, norm: Weight, eps: f32, weight: Weight, bias: Option<Weight>) -> Tensor {
        let normed = self.rms_norm(x, norm, eps);
        self.matmul(weight, normed, bias, None)
    }

    /// Splits `qkv` (`q | k | v`), rotates q and k, appends k and v to the cache; returns the rotated q.
    fn rope_append(&mut self, cache: Cache, qkv: Tensor, rope: Rope, spec: &Attention) -> Tensor {
        let (q_width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let q = self.columns(qkv, 0, q_width);
        let k = self.columns(qkv, q_width, kv_width);
        let v = self.columns(qkv, q_width + kv_width, kv_width);
        let q = self.rope(q, rope, spec.head_dim);
        let k = self.rope(k, rope, spec.head_dim);
        self.append(cache, k, v);
        q
    }

    /// `gate(matmul(rms_norm(x)))` for a stacked `gate | up` weight.
    fn norm_gated(&mut self, x: Tensor, norm: Weight, eps: f32, weight: Weight, bias: Option<Weight>, activation: Activation) -> Tensor {
        let both = self.norm_matmul(x, norm, eps, weight, bias);
        self.gate(both, activation)
    }

    /// `gate(expert_matmul(x))` where each expert's rows are `gate | up`.
    fn expert_gated(&mut self, weight: Weight, x: Tensor, routes: Routes, bias: Option<Weight>, activation: Activation) -> Tensor {
        let both = self.expert_matmul(weight, x, routes, bias);
        self.gate(both, activation)
    }
}
