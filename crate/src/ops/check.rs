//! Running an op's random cases on a backend and comparing with the reference: used by the tests on every backend.

use crate::{
    backend::{Backend, CacheSpec, Input, Segment, Session, SessionSpec, Tensor, Weight},
    error::Result,
    quant::{Format, Plane, Scales},
};

/// Largest normalised mean squared error of an op on a backend that computes in f32. Two f32 summation orders differ by
/// about 1e-7 relative, so 1e-14 squared; a wrong element among 10,000 gives 1e-4.
pub const NMSE: f64 = 1e-10;

/// What one case gave.
pub struct Outcome {
    /// The op and its sizes.
    pub name: String,
    /// By the plain reference.
    pub expected: Vec<f32>,
    /// By the backend.
    pub actual: Vec<f32>,
}

impl Outcome {
    /// `sum((actual - expected)^2) / sum(expected^2)`; infinite if lengths differ or a value is not finite.
    pub fn nmse(&self) -> f64 {
        if self.expected.len() != self.actual.len() || self.actual.iter().any(|v| !v.is_finite()) {
            return f64::INFINITY;
        }
        let square = |v: f64| v * v;
        let error: f64 = self.expected.iter().zip(&self.actual).map(|(e, a)| square(f64::from(*e) - f64::from(*a))).sum();
        let norm: f64 = self.expected.iter().map(|e| square(f64::from(*e))).sum();
        if error == 0.0 { 0.0 } else { error / norm }
    }
}

/// All cases of all ops on `backend`, in a fixed order with fixed seeds.
pub async fn all(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    outcomes.extend(super::embed::cases(backend).await?);
    outcomes.extend(super::matmul::cases(backend).await?);
    outcomes.extend(super::rms_norm::cases(backend).await?);
    outcomes.extend(super::rope::cases(backend).await?);
    outcomes.extend(super::attention::cases(backend).await?);
    outcomes.extend(super::layer_norm::cases(backend).await?);
    outcomes.extend(super::activate::cases(backend).await?);
    outcomes.extend(super::gate::cases(backend).await?);
    outcomes.extend(super::route::cases(backend).await?);
    outcomes.extend(super::experts::cases(backend).await?);
    outcomes.extend(super::mix::cases(backend).await?);
    outcomes.extend(super::add::cases(backend).await?);
    outcomes.extend(super::mean_rows::cases(backend).await?);
    outcomes.extend(super::short_conv::cases(backend).await?);
    outcomes.extend(super::scale::cases(backend).await?);
    outcomes.extend(super::scale_columns::cases(backend).await?);
    outcomes.extend(super::softcap::cases(backend).await?);
    outcomes.extend(super::sample::cases(backend).await?);
    Ok(outcomes)
}

/// A small deterministic generator (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in -1 .. 1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `n` floats in -1 .. 1.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
}

/// Writes `rows` random rows to a new weight, one segment per entry; returns the weight and what it unpacks to.
pub async fn random_weight(
    backend: &mut dyn Backend,
    random: &mut Random,
    cols: usize,
    segments: &[(Format, usize)],
) -> Result<(Weight, Vec<f32>)> {
    let specs: Vec<Segment> = segments.iter().map(|&(format, rows)| Segment { format, rows }).collect();
    let weight = backend.new_weight(cols, &specs)?;
    let mut dense = Vec::new();
    for (index, &(format, rows)) in segments.iter().enumerate() {
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            let (v, s) = (values.len(), scales.len());
            random_row(random, format, cols, &mut values, &mut scales);
            let mut row = vec![0.0; cols];
            format.unpack_row(&values[v..], &scales[s..], &mut row);
            dense.extend(row);
        }
        backend.write_weight(weight, index, Plane::Values, 0, &values)?;
        if !scales.is_empty() {
            backend.write_weight(weight, index, Plane::Scales, 0, &scales)?;
        }
    }
    Ok((weight, dense))
}

/// Appends a random row: floats in -1 .. 1; or any bits as elements, also in the padding, with scales of about that size.
fn random_row(random: &mut Random, format: Format, cols: usize, values: &mut Vec<u8>, scales: &mut Vec<u8>) {
    if !format.is_quantised() {
        return format.pack_row(&random.floats(cols), values, scales);
    }
    values.extend((0..format.row_bytes(Plane::Values, cols)).map(|_| random.bits() as u8));
    for _ in 0..cols.div_ceil(format.group()) {
        let (halves, bytes) = match format.scales() {
            Scales::None => (0, 0),
            Scales::Scale => (1, 0),
            Scales::ScaleMinimum => (2, 0),
            Scales::TwoLevel => (2, 16),
            Scales::Exponent => {
                scales.push(120 + random.below(8) as u8);
                (0, 0)
            }
        };
        scales.extend(random.floats(halves).into_iter().flat_map(|v| half::f16::from_f32(v).to_le_bytes()));
        scales.extend((0..bytes).map(|_| random.bits() as u8));
    }
}

/// An f32 vector as a weight.
pub fn vector(backend: &mut dyn Backend, data: &[f32]) -> Result<Weight> {
    let weight = backend.new_weight(data.len(), &[Segment { format: Format::F32, rows: 1 }])?;
    let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    backend.write_weight(weight, 0, Plane::Values, 0, &bytes)?;
    Ok(weight)
}

/// Gives the backend a quantised weight: it may keep caches otherwise then ([`super::attention::round_cached`]).
pub fn quantise(backend: &mut dyn Backend) -> Result<()> {
    backend.new_weight(32, &[Segment { format: Format::Q8_0, rows: 1 }]).map(drop)
}

/// A session with one cache.
pub fn session(backend: &mut dyn Backend, kv_heads: usize, head_dim: usize, context: usize, vocab: usize) -> Result<Session> {
    backend.new_session(&SessionSpec { caches: vec![CacheSpec { kv_heads, head_dim }], context, vocab, ..SessionSpec::default() })
}

/// Runs one step of `rows` tokens in a session of its own that first took `past` tokens, and reads the tensor that `step` returns.
pub async fn one_step(
    backend: &mut dyn Backend,
    past: usize,
    rows: usize,
    step: impl FnOnce(&mut dyn Backend) -> Tensor,
) -> Result<Vec<f32>> {
    let session = session(backend, 1, 4, past + rows, 8)?;
    if past > 0 {
        backend.begin(session, Input::Tokens(&vec![0; past]))?;
        backend.end()?;
    }
    backend.begin(session, Input::Tokens(&vec![0; rows]))?;
    let tensor = step(backend);
    backend.end()?;
    let result = backend.read(tensor).await?;
    backend.drop_session(session);
    Ok(result)
}
