//! Matrix product with a weight `[out, in]`: `y[t][o] = sum_i x[t][i] * w[o][i] (+ bias[o]) (+ residual[t][o])`.

use super::{
    check::{self, Outcome, Random},
    kernel::{self, Access, Call, Kernel, View},
};
use crate::{
    backend::{Activation, Backend, Precision},
    error::Result,
    quant::Format,
};

/// How a product is computed; all agree, their speed differs with device and number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// A thread computes four rows for one token; no barriers.
    Plain,
    /// A thread computes four rows for eight tokens; no barriers.
    Block,
    /// A workgroup computes four rows for one token.
    Matvec,
    /// A workgroup computes 64 rows for 64 tokens.
    Tiled,
}

impl Variant {
    /// All variants.
    pub const ALL: [Variant; 4] = [Variant::Plain, Variant::Block, Variant::Matvec, Variant::Tiled];

    /// The variant for a device and a number of tokens, as measured by `examples/kernels.rs`.
    pub fn choose(software: bool, tokens: usize) -> Variant {
        match (software, tokens) {
            (true, ..=2) => Variant::Plain,
            (true, _) => Variant::Block,
            (false, ..=4) => Variant::Matvec,
            (false, _) => Variant::Tiled,
        }
    }

    /// Names of the kernels: the product, and the product with a gate.
    fn names(self) -> [&'static str; 2] {
        match self {
            Variant::Plain => ["matmul_plain", "matmul_plain_gated"],
            Variant::Block => ["matmul_block", "matmul_block_gated"],
            Variant::Matvec => ["matmul_matvec", "matmul_matvec_gated"],
            Variant::Tiled => ["matmul_tiled", "matmul_tiled_gated"],
        }
    }

    pub(super) fn source(self) -> &'static str {
        match self {
            Variant::Plain => include_str!("matmul_plain.wgsl"),
            Variant::Block => include_str!("matmul_block.wgsl"),
            Variant::Matvec => include_str!("matmul_matvec.wgsl"),
            Variant::Tiled => include_str!("matmul_tiled.wgsl"),
        }
    }

    /// Blocks of four weight rows, and tokens, that a workgroup computes.
    pub(super) fn per_group(self) -> (usize, usize) {
        match self {
            Variant::Plain => (32, 1),
            Variant::Block => (32, 8),
            Variant::Matvec => (1, 1),
            Variant::Tiled => (16, 64),
        }
    }
}

/// What all products share.
pub(super) const WGSL: &str = include_str!("matmul.wgsl");

/// Bindings: x, y, bias, residual, the weight's segment.
pub fn kernels() -> Vec<Kernel> {
    let bindings = [Access::Read, Access::Write, Access::Read, Access::Read];
    let outputs = [
        concat!(include_str!("matmul_dense.wgsl"), include_str!("matmul_out.wgsl")),
        concat!(include_str!("matmul_dense.wgsl"), include_str!("activate.wgsl"), include_str!("matmul_gated.wgsl")),
    ];
    let of = |variant: Variant| {
        let kernel = move |(name, output)| Kernel::for_formats(name, &[WGSL, variant.source(), output], &bindings);
        variant.names().into_iter().zip(outputs).flat_map(kernel)
    };
    Variant::ALL.into_iter().flat_map(of).collect()
}

/// What a product is made of, for one segment of its weight.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// The segment's format.
    pub format: Format,
    /// The segment's rows.
    pub rows: usize,
    /// Column of `y` that is the segment's first.
    pub first: usize,
    /// Columns of `y`.
    pub out: usize,
    /// The input.
    pub x: View,
    /// Whether there is a bias.
    pub bias: bool,
    /// What is added.
    pub residual: Option<View>,
}

impl Product {
    /// The product.
    pub fn call(&self, variant: Variant) -> Call {
        self.dispatch(variant, variant.names()[0], self.rows, self.rows.div_ceil(4), 0)
    }

    /// The gated product; the segment is `gate | up`, and `out` is half its rows.
    pub fn gated_call(&self, variant: Variant, activation: Activation) -> Call {
        self.dispatch(variant, variant.names()[1], self.out, self.out.div_ceil(2), super::activate::kind(activation) as usize)
    }

    fn dispatch(&self, variant: Variant, name: &'static str, rows: usize, blocks: usize, activation: usize) -> Call {
        let x = self.x;
        let add = self.residual.unwrap_or(View::whole(0, 0));
        let params = [
            x.rows,
            x.cols / 4,
            self.format.row_quads(x.cols),
            x.offset / 4,
            x.stride / 4,
            blocks,
            rows,
            self.first,
            self.out,
            usize::from(self.bias),
            usize::from(self.residual.is_some()),
            add.offset,
            add.stride,
            activation,
            0,
            0,
        ];
        let (per_group, tokens) = variant.per_group();
        let [gx, gy] = kernel::fold(blocks, per_group);
        Call {
            kernel: (name, Some(self.format.planes())),
            params: params.map(|v| v as u32).to_vec(),
            groups: [gx, gy, x.rows.div_ceil(tokens) as u32],
        }
    }
}

/// Sum of products with eight partial sums, which is how a vector unit adds.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0_f32; 8];
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// `w`: `[out, cols]`, `x`: `[rows, cols]`; returns `[rows, out]`.
pub fn reference(w: &[f32], cols: usize, x: &[f32], bias: Option<&[f32]>, residual: Option<&[f32]>) -> Vec<f32> {
    let out = w.len() / cols;
    let mut y = Vec::with_capacity(x.len() / cols * out);
    for (t, row) in x.chunks_exact(cols).enumerate() {
        for (o, w_row) in w.chunks_exact(cols).enumerate() {
            y.push(dot(row, w_row) + bias.map_or(0.0, |b| b[o]) + residual.map_or(0.0, |r| r[t * out + o]));
        }
    }
    y
}

/// Activations as a backend sees them that multiplies quantised weights with integers: each group of 32 elements of a row is `scale *
/// code`, codes -127 to 127, to nearest, ties to even, with the largest magnitude at 127; where `precision` says so, what that left is
/// rounded in the same way and added.
pub fn round_activations(x: &[f32], cols: usize, precision: Precision) -> Vec<f32> {
    let scale = |group: &[f32]| group.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
    let round = |group: &[f32]| -> Vec<f32> {
        let largest = group.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        group.iter().map(|v| scale(group) * (v * inverse).round_ties_even()).collect()
    };
    let round_row = |row: &[f32]| -> Vec<f32> {
        let mut scales: Vec<f32> = row.chunks(32).map(scale).collect();
        let again = precision.again(scales.len());
        scales.sort_by(|a, b| b.total_cmp(a));
        let least = if again == 0 { f32::INFINITY } else { scales[again - 1] };
        let each = row.chunks(32).flat_map(|group| {
            let once = round(group);
            let rest: Vec<f32> = group.iter().zip(&once).map(|(v, once)| v - once).collect();
            let more = if scale(group) >= least { round(&rest) } else { vec![0.0; rest.len()] };
            once.into_iter().zip(more).map(|(once, more)| once + more)
        });
        each.collect()
    };
    x.chunks_exact(cols).flat_map(round_row).collect()
}

/// What `backend` should give: [`reference()`], with activations rounded for quantised segments where it rounds them.
pub fn expected(
    backend: &dyn Backend,
    segments: &[(Format, usize)],
    dense: &[f32],
    cols: usize,
    x: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let rows: usize = segments.iter().map(|s| s.1).sum();
    rounded_where_quantised(backend, segments, cols, x, |i| i % rows, |x| reference(dense, cols, x, bias, residual))
}

/// `product(x)`, where `backend` rounds activations with those rounded for elements that come from quantised rows of a weight;
/// `row(i)` is the weight's row that element `i` comes from.
pub fn rounded_where_quantised(
    backend: &dyn Backend,
    segments: &[(Format, usize)],
    cols: usize,
    x: &[f32],
    row: impl Fn(usize) -> usize,
    product: impl Fn(&[f32]) -> Vec<f32>,
) -> Vec<f32> {
    let mut y = product(x);
    if let Some(precision) = backend.precision() {
        let quantised: Vec<bool> = segments.iter().flat_map(|&(format, rows)| vec![format.is_quantised(); rows]).collect();
        let rounded = product(&round_activations(x, cols, precision));
        (0..y.len()).filter(|i| quantised[row(*i)]).for_each(|i| y[i] = rounded[i]);
    }
    y
}

/// Every kind of planes; one, few and many tokens; sizes around tiles and groups; bias, residual and both; stacked formats.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(2);
    for format in Format::ALL.into_iter().filter(|format| format.planes() == *format) {
        let sizes = [(1, 32, 1), (1, 80, 33), (1, 576, 130), (5, 96, 65), (65, 160, 129), (2, 64, 64), (33, 576, 31), (64, 128, 64)];
        // Formats only differ in how they unpack: for those that the engine does not make itself, the first sizes will do.
        let count = if format.packs() { sizes.len() } else { 5 };
        for (i, (rows, cols, out)) in sizes.into_iter().take(count).enumerate() {
            let segments = [(format, out)];
            outcomes.push(case(backend, &mut random, rows, cols, &segments, i % 2 == 1, i % 4 >= 2).await?);
        }
    }
    let mixed = [(Format::Q4_1, 48), (Format::Q8_0, 17), (Format::F16, 3)];
    let shared_planes = [(Format::Q4K, 16), (Format::Q5K, 9), (Format::Q4K, 3), (Format::Iq4Xs, 5)];
    for (rows, segments) in [(1, &mixed[..]), (9, &mixed), (1, &shared_planes), (9, &shared_planes)] {
        outcomes.push(case(backend, &mut random, rows, 96, segments, true, true).await?);
    }
    outcomes.push(last_row_case(backend, &mut random).await?);
    Ok(outcomes)
}

async fn case(
    backend: &mut dyn Backend,
    random: &mut Random,
    rows: usize,
    cols: usize,
    segments: &[(Format, usize)],
    with_bias: bool,
    with_residual: bool,
) -> Result<Outcome> {
    let out: usize = segments.iter().map(|s| s.1).sum();
    let (weight, dense) = check::random_weight(backend, random, cols, segments).await?;
    let x = random.floats(rows * cols);
    let bias = with_bias.then(|| random.floats(out));
    let residual = with_residual.then(|| random.floats(rows * out));
    let bias_weight = bias.as_ref().map(|b| check::vector(backend, b)).transpose()?;
    let actual = check::one_step(backend, 0, rows, |b| {
        let input = b.upload(cols, &x);
        let add = residual.as_ref().map(|r| b.upload(out, r));
        b.matmul(weight, input, bias_weight, add)
    })
    .await?;
    let formats: Vec<_> = segments.iter().map(|s| s.0.name()).collect();
    Ok(Outcome {
        name: format!("matmul {} [{out}, {cols}] x {rows} rows, bias {with_bias}, residual {with_residual}", formats.join("+")),
        expected: expected(backend, segments, &dense, cols, &x, bias.as_deref(), residual.as_deref()),
        actual,
    })
}

/// The output head reads a view: the last of several rows.
async fn last_row_case(backend: &mut dyn Backend, random: &mut Random) -> Result<Outcome> {
    let (rows, cols, out) = (6, 64, 40);
    let (weight, dense) = check::random_weight(backend, random, cols, &[(Format::Q8_0, out)]).await?;
    let x = random.floats(rows * cols);
    let actual = check::one_step(backend, 0, rows, |b| {
        let input = b.upload(cols, &x);
        let last = b.last_row(input);
        b.matmul(weight, last, None, None)
    })
    .await?;
    let expected = expected(backend, &[(Format::Q8_0, out)], &dense, cols, &x[(rows - 1) * cols..], None, None);
    Ok(Outcome { name: "matmul of the last row".into(), expected, actual })
}
