//! Matrix product with experts: each route takes its expert's rows of a weight `[experts * out, in]`:
//! `y[r][o] = sum_i x[t][i] * w[e_r * out + o][i] (+ bias[e_r * out + o])`, where `t` is the route, or the row that was routed.
//!
//! The kernels are variants of the dense product ([`super::matmul`]) whose tokens are routes. A segment of the weight may hold any
//! rows: a route whose expert lies elsewhere costs nothing there.

use super::{
    check::{self, Outcome, Random},
    kernel::{self, Access, Call, Kernel, View},
    matmul::{self, Variant},
};
use crate::{
    backend::{Activation, Backend, Routing},
    error::Result,
    quant::Format,
};

/// Names of the kernels: the product, and the product with a gate.
fn names(variant: Variant) -> [&'static str; 2] {
    match variant {
        Variant::Plain => ["experts_plain", "experts_plain_gated"],
        _ => ["experts_matvec", "experts_matvec_gated"],
    }
}

/// The variant for a device: a thread, or a workgroup, computes four rows for one route.
pub fn variant(software: bool) -> Variant {
    if software { Variant::Plain } else { Variant::Matvec }
}

/// Bindings: x, y, bias, ids, the weight's segment.
pub fn kernels() -> Vec<Kernel> {
    let bindings = [Access::Read, Access::Write, Access::Read, Access::Read];
    let outputs = [include_str!("experts_out.wgsl"), concat!(include_str!("activate.wgsl"), include_str!("experts_gated.wgsl"))];
    let of = |variant: Variant| {
        let parts = move |output| [matmul::WGSL, variant.source(), include_str!("experts.wgsl"), output];
        names(variant).into_iter().zip(outputs).flat_map(move |(name, output)| Kernel::for_formats(name, &parts(output), &bindings))
    };
    [Variant::Plain, Variant::Matvec].into_iter().flat_map(of).collect()
}

/// What a product with experts is made of, for one segment of its weight.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// The segment's format.
    pub format: Format,
    /// The segment's rows.
    pub rows: usize,
    /// Which row of the weight is the segment's first.
    pub first: usize,
    /// Rows of an expert.
    pub expert_rows: usize,
    /// The input.
    pub x: View,
    /// Rows of the result.
    pub routes: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Product {
    /// The product.
    pub fn call(&self, variant: Variant) -> Call {
        self.dispatch(variant, names(variant)[0], self.expert_rows, self.expert_rows.div_ceil(4), 0)
    }

    /// The gated product; each expert's rows are `gate | up`, and the segment holds whole experts.
    pub fn gated_call(&self, variant: Variant, activation: Activation) -> Call {
        let half = self.expert_rows / 2;
        self.dispatch(variant, names(variant)[1], half, half.div_ceil(2), super::activate::kind(activation) as usize)
    }

    fn dispatch(&self, variant: Variant, name: &'static str, out: usize, blocks: usize, activation: usize) -> Call {
        let x = self.x;
        let params = [
            self.routes,
            x.cols / 4,
            self.format.row_quads(x.cols),
            x.offset / 4,
            x.stride / 4,
            blocks,
            self.rows,
            self.first,
            out,
            usize::from(self.bias),
            0,
            0,
            0,
            activation,
            self.expert_rows,
            self.routes / x.rows,
        ];
        let [gx, gy] = kernel::fold(blocks, variant.per_group().0);
        Call { kernel: (name, Some(self.format.planes())), params: params.map(|v| v as u32).to_vec(), groups: [gx, gy, self.routes as u32] }
    }
}

/// `w`: `[experts * out, cols]`; `ids` has an element for each route, `x` a row for each route or for each `ids.len() / rows`
/// routes; returns rows of `out`.
pub fn reference(w: &[f32], out: usize, cols: usize, x: &[f32], ids: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let share = ids.len() / (x.len() / cols);
    let route = |(route, id): (usize, &f32)| {
        let rows = *id as usize * out..(*id as usize + 1) * out;
        let bias = bias.map(|b| &b[rows.clone()]);
        matmul::reference(&w[rows.start * cols..rows.end * cols], cols, &x[route / share * cols..][..cols], bias, None)
    };
    ids.iter().enumerate().flat_map(route).collect()
}

/// Every kind of planes; one and several rows; both forms of input; biases; segments that end within an expert; gated.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(14);
    for format in Format::ALL.into_iter().filter(|format| format.planes() == *format) {
        for (shape, bias, gate) in [([1, 4, 2, 64, 48], false, None), ([5, 8, 3, 96, 34], true, Some(Activation::Silu))] {
            let out = shape[1] * shape[4];
            let segments = [(format, out)];
            outcomes.push(case(backend, &mut random, shape, &segments, bias, false, gate).await?);
            outcomes.push(case(backend, &mut random, shape, &segments, !bias, true, None).await?);
        }
    }
    // Four experts of 40 rows: segments of whole experts, of parts of them, and of different formats.
    for segments in [
        vec![(Format::Q8_0, 80), (Format::Q4_0, 80)],
        vec![(Format::F32, 60), (Format::Q4_1, 30), (Format::F16, 70)],
        vec![(Format::Q8_0, 10), (Format::Bf16, 10), (Format::Q8_0, 140)],
    ] {
        for (rows, shared) in [(1, true), (7, false)] {
            let shape = [rows, 4, 2, 64, 40];
            outcomes.push(case(backend, &mut random, shape, &segments, true, !shared, None).await?);
            outcomes.push(case(backend, &mut random, shape, &segments, true, !shared, Some(Activation::ClampedQuickGelu)).await?);
        }
    }
    Ok(outcomes)
}

/// `shape`: rows, experts, experts of a row, columns, rows of an expert; `each`: the input has a row for each route.
async fn case(
    backend: &mut dyn Backend,
    random: &mut Random,
    shape: [usize; 5],
    segments: &[(Format, usize)],
    with_bias: bool,
    each: bool,
    gate: Option<Activation>,
) -> Result<Outcome> {
    let [rows, experts, per_row, cols, out] = shape;
    let (weight, dense) = check::random_weight(backend, random, cols, segments).await?;
    let routing = Routing { per_row, normalise: true };
    let inputs = if each { rows * per_row } else { rows };
    let (logits, x) = (random.floats(rows * experts), random.floats(inputs * cols));
    let bias = with_bias.then(|| random.floats(experts * out));
    let bias_weight = bias.as_ref().map(|b| check::vector(backend, b)).transpose()?;
    let actual = check::one_step(backend, 0, rows, |b| {
        let (logits, input) = (b.upload(experts, &logits), b.upload(cols, &x));
        let routes = b.route(logits, routing);
        match gate {
            Some(activation) => b.expert_gated(weight, input, routes, bias_weight, activation),
            None => b.expert_matmul(weight, input, routes, bias_weight),
        }
    })
    .await?;
    let (ids, _) = super::route::reference(&logits, experts, routing);
    let row = |i: usize| ids[i / out] as usize * out + i % out;
    let product = |x: &[f32]| reference(&dense, out, cols, x, &ids, bias.as_deref());
    let both = matmul::rounded_where_quantised(backend, segments, cols, &x, row, product);
    let formats: Vec<_> = segments.iter().map(|s| format!("{} x {}", s.1, s.0.name())).collect();
    Ok(Outcome {
        name: format!("experts {shape:?} of {}, bias {with_bias}, each {each}, gate {gate:?}", formats.join(" + ")),
        expected: gate.map_or(both.clone(), |activation| super::gate::reference(&both, out, activation)),
        actual,
    })
}
