//! Matrix product with a weight `[out, in]`: `y[t][o] = sum_i x[t][i] * w[o][i] (+ bias[o]) (+ residual[t][o])`.

use super::check::{self, Outcome, Random};
use crate::{backend::Backend, error::Result, quant::Format};

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

/// Every format; one, few and many tokens; sizes around tiles and groups; bias, residual and both; stacked formats.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(2);
    for format in Format::ALL {
        for (i, (rows, cols, out)) in
            [(1, 32, 1), (1, 80, 33), (1, 576, 130), (2, 64, 64), (5, 96, 65), (33, 576, 31), (64, 128, 64), (65, 160, 129)]
                .into_iter()
                .enumerate()
        {
            let segments = [(format, out)];
            outcomes.push(case(backend, &mut random, rows, cols, &segments, i % 2 == 1, i % 4 >= 2).await?);
        }
    }
    let mixed = [(Format::Q4_1, 48), (Format::Q8_0, 17), (Format::F16, 3)];
    for rows in [1, 9] {
        outcomes.push(case(backend, &mut random, rows, 96, &mixed, true, true).await?);
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
        expected: reference(&dense, cols, &x, bias.as_deref(), residual.as_deref()),
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
    let expected = reference(&dense, cols, &x[(rows - 1) * cols..], None, None);
    Ok(Outcome { name: "matmul of the last row".into(), expected, actual })
}
