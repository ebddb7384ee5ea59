//! Choosing a token without a look at most of the vocabulary: the token that [`crate::ops::sample::reference`] chooses.
#![allow(unsafe_code)] // Vector loads.

use super::{
    Host,
    activations::fold,
    pointwise,
    simd::{Exp, Simd, Task},
};
use crate::{
    backend::Sampling,
    ops::sample::{gumbel, hash, penalised},
};

/// The largest value of [`gumbel`]: `-ln(2^-33)`, rounded up.
const MOST_NOISE: f32 = 22.9;

/// Working memory, kept from token to token.
#[derive(Default)]
pub(super) struct Scratch {
    /// Logits after penalties and temperature.
    scaled: Vec<f32>,
    keys: Vec<u64>,
}

impl Host {
    /// The token that `sampling` chooses for position `next`; none where no logit is a number.
    pub(super) fn choose(&self, logits: &[f32], counts: &[u32], sampling: &Sampling, next: usize, scratch: &mut Scratch) -> Option<u32> {
        let best = pointwise::largest(self.level, logits);
        if !logits[best].is_finite() {
            return None;
        }
        let plain = sampling.repetition_penalty == 1.0 && sampling.frequency_penalty == 0.0 && sampling.presence_penalty == 0.0;
        if sampling.temperature <= 0.0 && plain {
            return Some(best as u32);
        }
        let Scratch { scaled, keys } = scratch;
        scaled.clear();
        scaled.extend_from_slice(logits);
        if !plain {
            let seen = scaled.iter_mut().zip(counts).filter(|(_, count)| **count != 0);
            seen.for_each(|(logit, count)| *logit = penalised(*logit, *count, sampling));
        }
        if sampling.temperature <= 0.0 {
            return Some(pointwise::largest(self.level, scaled) as u32);
        }
        scaled.iter_mut().for_each(|logit| *logit /= sampling.temperature);
        let noise = |id: u32| gumbel(sampling.seed, next as u32, id);
        if sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0 {
            let best = pointwise::largest(self.level, scaled) as u32;
            return Some(draw(scaled, best, sampling.seed, next as u32));
        }
        let mut drawn = (0, f32::NEG_INFINITY);
        for id in self.candidates(scaled, sampling, keys) {
            let value = scaled[id as usize] + noise(id);
            if value > drawn.1 {
                drawn = (id, value);
            }
        }
        Some(drawn.0)
    }

    /// The ids that may be drawn, most likely first: the vocabulary is sorted only as far as they reach.
    fn candidates(&self, scaled: &[f32], sampling: &Sampling, keys: &mut Vec<u64>) -> Vec<u32> {
        keys.clear();
        keys.extend(scaled.iter().zip(0..).map(|(v, id)| key(*v, id)));
        if sampling.top_k > 0 && (sampling.top_k as usize) < keys.len() {
            keys.select_nth_unstable(sampling.top_k as usize);
            keys.truncate(sampling.top_k as usize);
        }
        let first = scaled[pointwise::largest(self.level, scaled)];
        let weight = |key: u64| (scaled[key as u32 as usize] - first).exp();
        let total = match sampling.top_k {
            0 => self.level.run(Total { values: scaled, first }),
            _ => keys.iter().map(|key| weight(*key)).sum(),
        };
        let (mut kept, mut before, mut sorted) = (Vec::new(), 0.0, 0);
        while sorted < keys.len() {
            let rest = &mut keys[sorted..];
            let more = (2 * sorted).max(64).min(rest.len());
            if more < rest.len() {
                rest.select_nth_unstable(more);
            }
            rest[..more].sort_unstable();
            for &key in &rest[..more] {
                let inside = before < sampling.top_p * total && weight(key) >= sampling.min_p;
                if !inside && !kept.is_empty() {
                    return kept;
                }
                kept.push(key as u32);
                before += weight(key);
            }
            sorted += more;
        }
        kept
    }
}

/// Sorts as logits do from the largest down, lower ids first among equals.
fn key(value: f32, id: u32) -> u64 {
    let bits = value.to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(!ascending) << 32 | u64::from(id)
}

/// The id with the largest `scaled + noise`, beginning with `best`. Noise is `-ln(e)` with `e >= u`, so a token that is `gap` behind needs
/// `u <= exp(-gap)`: few are worth a logarithm.
#[cfg_attr(size_first, optimize(speed))]
fn draw(scaled: &[f32], best: u32, seed: u64, position: u32) -> u32 {
    // exp(-gap) for whole gaps, of 2^32 and a little more.
    let most: [u32; 24] = std::array::from_fn(|gap| ((-(gap as f32)).exp() * 4_294_967_296.0 * 1.001 + 2.0) as u32);
    let mut drawn = (best, scaled[best as usize] + gumbel(seed, position, best));
    for (id, value) in (0..).zip(scaled) {
        let gap = drawn.1 - value;
        if gap > MOST_NOISE || (gap > 0.0 && hash([seed as u32, (seed >> 32) as u32, position, id]) > most[gap as usize]) {
            continue;
        }
        let value = value + gumbel(seed, position, id);
        if value > drawn.1 || (value == drawn.1 && id < drawn.0) {
            drawn = (id, value);
        }
    }
    drawn.0
}

/// `sum(exp(values - first))`.
struct Total<'a> {
    values: &'a [f32],
    first: f32,
}

impl Task for Total<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let whole = self.values.len() / S::LANES * S::LANES;
        unsafe {
            let (first, mut total, exp) = (S::splat(self.first), S::splat(0.0), Exp::prepare());
            for i in (0..whole).step_by(S::LANES) {
                total = S::add(total, exp.of::<S>(S::sub(S::load(self.values.as_ptr().add(i)), first)));
            }
            let rest: f32 = self.values[whole..].iter().map(|v| (v - self.first).exp()).sum();
            fold::<S>(total, |a, b| a + b) + rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;
    use crate::{
        backend::{
            Sampling,
            cpu::{Cpu, CpuOptions},
        },
        ops::{check::Random, sample::reference},
    };

    #[test]
    fn shortcuts_choose_what_the_reference_chooses() {
        let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() });
        let (mut random, mut scratch) = (Random(11), Scratch::default());
        for seed in 0..600 {
            let vocab = 1 + random.below(3000);
            let logits: Vec<f32> = (0..vocab).map(|_| random.float() * random.float() * 20.0).collect();
            let counts: Vec<u32> = (0..vocab).map(|_| (random.below(8) == 0).into()).collect();
            let sampling = Sampling {
                temperature: 0.1 + 1.5 * random.float().abs(),
                top_k: [0, 0, 1, 40, 5000][random.below(5)],
                top_p: [1.0, 1.0, 0.95, 0.5, 0.0][random.below(5)],
                min_p: [0.0, 0.0, 0.0, 0.05, 1.0][random.below(5)],
                repetition_penalty: [1.0, 1.3][random.below(2)],
                seed,
                ..Sampling::default()
            };
            let chosen = cpu.host.choose(&logits, &counts, &sampling, seed as usize, &mut scratch);
            assert_eq!(chosen, Some(reference(&logits, &counts, &sampling, seed as u32)), "{sampling:?}, {vocab} tokens");
        }
    }
}
