//! Gated short convolution over time (LFM2): `y = c * conv(b * x)`, where a row is `b | c | x`; each column is convolved by itself,
//! causally: `conv(g)[t] = sum_k taps[k] g[t - (taps - 1) + k] + bias`, with zeros before the first position.
//!
//! A state keeps the last rows of `g = b * x`: those that the next position sees, and [`SPARE`] more to go back by.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{
    backend::{Backend, Conv, ConvSpec, Input, SPARE, SessionSpec},
    error::Result,
};

/// Bindings: step, bcx, taps, bias, state, y.
pub fn kernels() -> Vec<Kernel> {
    use Access::{Read, Write};
    vec![Kernel::new("short_conv", &[include_str!("short_conv.wgsl")], &[Read, Read, Read, Read, Write, Write])]
}

/// The convolution of `bcx`, its state kept. Few rows are written to slots that none of them reads; many need a second call.
pub fn calls(bcx: View, spec: &ConvSpec, bias: bool) -> Vec<Call> {
    let call = |first: usize, computes: bool, keeps: bool| {
        let sizes = [spec.cols, spec.taps, spec.slots(), bcx.offset, bcx.stride, first];
        let flags = [bias, computes, keeps].map(u32::from);
        let groups = [spec.cols.div_ceil(64) as u32, (bcx.rows - first) as u32, 1];
        Call { kernel: ("short_conv", None), params: [&sizes.map(|v| v as u32)[..], &flags].concat(), groups }
    };
    match bcx.rows <= SPARE {
        true => vec![call(0, true, true)],
        false => vec![call(0, true, false), call(bcx.rows.saturating_sub(spec.slots()), false, true)],
    }
}

/// `bcx`: rows of `3 * cols`; `taps`: `[cols][taps]`; `history`: the rows of `g` so far, of which the last `taps - 1` are needed;
/// the new ones are appended.
pub fn reference(bcx: &[f32], history: &mut Vec<f32>, spec: &ConvSpec, taps: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let cols = spec.cols;
    let before = history.len() / cols;
    for row in bcx.chunks_exact(3 * cols) {
        history.extend(row[..cols].iter().zip(&row[2 * cols..]).map(|(b, x)| b * x));
    }
    let mut y = Vec::with_capacity(bcx.len() / 3);
    for (t, row) in bcx.chunks_exact(3 * cols).enumerate() {
        for (column, c) in row[cols..2 * cols].iter().enumerate() {
            let taps = taps[column * spec.taps..][..spec.taps].iter().enumerate();
            let seen = taps.filter_map(|(k, tap)| Some(tap * history[(before + t + k).checked_sub(spec.taps - 1)? * cols + column]));
            y.push(c * (seen.sum::<f32>() + bias.map_or(0.0, |b| b[column])));
        }
    }
    y
}

/// What a case does.
enum Act {
    /// A step of so many rows.
    Step(usize),
    /// Back by so many positions.
    Back(usize),
}

/// Steps around what a state holds; back by what is spare, and by more, where a backend may forget everything but nothing wrong
/// may come out.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    use Act::{Back, Step};
    let mut outcomes = Vec::new();
    let mut random = Random(12);
    for (cols, taps, bias, acts) in [
        (4, 3, false, vec![Step(1), Step(1), Step(1), Step(1)]),
        (64, 3, true, vec![Step(24), Step(1), Step(1), Back(1), Step(1), Step(2), Back(2), Step(1)]),
        (70, 4, false, vec![Step(2), Step(3), Step(4), Step(5), Step(6), Step(7), Step(8), Step(1)]),
        (36, 3, false, vec![Step(9), Step(1), Step(1), Step(1), Step(1), Back(4), Step(1), Step(3), Back(4), Step(6)]),
        (36, 3, false, vec![Step(9), Back(4), Step(1), Back(3), Step(2), Step(1), Back(7), Step(1)]),
        (8, 2, true, vec![Step(5), Back(5), Step(3), Back(1), Step(70), Step(1)]),
    ] {
        let spec = ConvSpec { cols, taps };
        let (weights, b) = (random.floats(cols * taps), bias.then(|| random.floats(cols)));
        let taps_weight = check::vector(backend, &weights)?;
        let bias_weight = b.as_ref().map(|b| check::vector(backend, b)).transpose()?;
        let session = backend.new_session(&SessionSpec { convs: vec![spec], context: 128, vocab: 8, ..SessionSpec::default() })?;
        let (mut history, mut most) = (Vec::new(), 0);
        for act in acts {
            let past = backend.position(session);
            let rows = match act {
                Step(rows) => rows,
                Back(by) => {
                    let to = past.saturating_sub(by);
                    backend.truncate(session, to);
                    let left = backend.position(session);
                    history.truncate(left * cols);
                    if left != 0 || most - to <= SPARE {
                        let name = format!("short_conv back from {past} to {to}");
                        outcomes.push(Outcome { name, expected: vec![to as f32], actual: vec![left as f32] });
                    }
                    most = if left == 0 { 0 } else { most };
                    continue;
                }
            };
            let bcx = random.floats(rows * 3 * cols);
            backend.begin(session, Input::Tokens(&vec![0; rows]))?;
            let input = backend.upload(3 * cols, &bcx);
            let y = backend.short_conv(Conv(0), input, taps_weight, bias_weight);
            backend.end()?;
            most = most.max(past + rows);
            outcomes.push(Outcome {
                name: format!("short_conv [{rows}, {cols}] at {past}, {taps} taps"),
                expected: reference(&bcx, &mut history, &spec, &weights, b.as_deref()),
                actual: backend.read(y).await?,
            });
        }
        backend.drop_session(session);
    }
    Ok(outcomes)
}
