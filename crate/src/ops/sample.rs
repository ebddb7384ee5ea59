//! Choosing the next token. In this order:
//!
//! 1. penalties: a token seen in prompt or answer has its logit divided (if positive) or multiplied (if negative) by
//!    `repetition_penalty` (Keskar et al. 2019); then `frequency_penalty * times + presence_penalty` is subtracted for tokens
//!    of the answer;
//! 2. temperature 0: the largest logit, the lowest id among equals. Otherwise logits are divided by the temperature;
//! 3. candidates, from the most likely down (lower ids first among equals): the first `top_k`; of those, renormalised, each
//!    token before which the probabilities sum to less than `top_p`; of those, each at least `min_p` times as likely as the first;
//! 4. the draw: the largest of `logit / temperature + gumbel(seed, position, id)`, which draws exactly from the softmax of the
//!    candidates (Gumbel-max) and needs no sum, so that it works for the full vocabulary as for a few.
//!
//! Randomness is counter-based: the noise of a token depends on seed, position and id alone, the same in Rust and WGSL.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{
    backend::{Backend, Input, Sampling},
    error::Result,
};

/// Most logits that can be sampled on the device.
pub const MOST_LOGITS: usize = 1024 * PER_GROUP;

/// Logits that a workgroup of a pass takes.
const PER_GROUP: usize = 4096;

/// Bytes of `Work` in sample.wgsl.
pub const WORK_BYTES: usize = 4 * (3 * 1024 + 2048 + 2 * 1024 + 1);

/// Bindings: step, logits, counts, work, chosen; `sample_count` counts, chosen.
pub fn kernels() -> Vec<Kernel> {
    use Access::{Read, Write};
    let pass = |name, source| Kernel::new(name, &[include_str!("sample.wgsl"), source], &[Read, Read, Write, Write, Write]);
    vec![
        pass("sample_best", include_str!("sample_best.wgsl")),
        pass("sample_bins", include_str!("sample_bins.wgsl")),
        pass("sample_collect", include_str!("sample_collect.wgsl")),
        pass("sample_final", include_str!("sample_final.wgsl")),
        Kernel::new("sample_count", &[include_str!("sample_count.wgsl")], &[Write, Write]),
    ]
}

/// The passes that choose from the last row of `logits` in a step of `rows` rows. Empty where the device cannot: the
/// setting asks for more candidates than it ranks.
pub fn calls(logits: View, rows: usize, sampling: &Sampling) -> Vec<Call> {
    let drawn = sampling.temperature > 0.0;
    let filtered = drawn && (sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0);
    if logits.cols > MOST_LOGITS || (filtered && sampling.top_k as usize > CANDIDATES) {
        return Vec::new();
    }
    let groups = logits.cols.div_ceil(PER_GROUP) as u32;
    let words = [
        logits.cols as u32,
        (logits.offset + (logits.rows - 1) * logits.stride) as u32,
        rows as u32,
        groups,
        u32::from(drawn && !filtered),
        u32::from(filtered),
        sampling.top_k,
        sampling.seed as u32,
        (sampling.seed >> 32) as u32,
    ];
    let floats = [
        sampling.temperature,
        sampling.top_p,
        sampling.min_p,
        sampling.repetition_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    ];
    let params = [&words[..], &floats.map(f32::to_bits)].concat();
    let call = |name, groups| Call { kernel: (name, None), params: params.clone(), groups: [groups, 1, 1] };
    let mut calls = vec![call("sample_best", groups)];
    if filtered {
        calls.extend([call("sample_bins", groups), call("sample_collect", groups)]);
    }
    calls.push(call("sample_final", 1));
    calls
}

/// Counts the token that was set.
pub fn count_call() -> Call {
    Call { kernel: ("sample_count", None), params: vec![0; 4], groups: [1, 1, 1] }
}

/// Bit of a token's count that says it occurs in the prompt; the other bits count its occurrences in the answer.
pub const IN_PROMPT: u32 = 1 << 31;

/// `top_k` up to here, and a nucleus that fits into as many tokens, are sampled on the device.
pub const CANDIDATES: usize = 128;

/// Hash of four words to one: `pcg4d` of Jarzynski and Olano, "Hash Functions for GPU Rendering" (JCGT 2020), first component.
pub fn hash(mut v: [u32; 4]) -> u32 {
    v = v.map(|x| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    for round in 0..2 {
        v[0] = v[0].wrapping_add(v[1].wrapping_mul(v[3]));
        v[1] = v[1].wrapping_add(v[2].wrapping_mul(v[0]));
        v[2] = v[2].wrapping_add(v[0].wrapping_mul(v[1]));
        v[3] = v[3].wrapping_add(v[1].wrapping_mul(v[2]));
        if round == 0 {
            v = v.map(|x| x ^ (x >> 16));
        }
    }
    v[0]
}

/// A standard Gumbel variate: `-ln(e)` with `e = -ln(1 - u)` exponential, `u` uniform in 0 .. 1 of 32 bits. The large variates,
/// which decide draws, come from small `u`: there `e` is a series, since WGSL promises `log` near 1 only to 2^-21 absolute.
pub fn gumbel(seed: u64, position: u32, id: u32) -> f32 {
    let bits = hash([seed as u32, (seed >> 32) as u32, position, id]);
    let u = (bits as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let e = if u < 1.0 / 16.0 {
        u * (1.0 + u * (1.0 / 2.0 + u * (1.0 / 3.0 + u * (1.0 / 4.0 + u / 5.0))))
    } else {
        -(1.0 - u).max(1.0 / 33_554_432.0).ln()
    };
    -e.ln()
}

/// A logit after penalties; `count` as described at [`IN_PROMPT`].
pub fn penalised(logit: f32, count: u32, sampling: &Sampling) -> f32 {
    if count == 0 {
        return logit;
    }
    let repeated = if logit > 0.0 { logit / sampling.repetition_penalty } else { logit * sampling.repetition_penalty };
    let times = count & !IN_PROMPT;
    let present = if times > 0 { sampling.presence_penalty } else { 0.0 };
    repeated - sampling.frequency_penalty * times as f32 - present
}

/// The token that `sampling` chooses at `position`. `counts`: one per logit, see [`IN_PROMPT`].
pub fn reference(logits: &[f32], counts: &[u32], sampling: &Sampling, position: u32) -> u32 {
    let penalised: Vec<f32> = logits.iter().zip(counts).map(|(l, c)| penalised(*l, *c, sampling)).collect();
    if sampling.temperature <= 0.0 {
        return largest((0..).zip(penalised));
    }
    let scaled: Vec<f32> = penalised.iter().map(|l| l / sampling.temperature).collect();
    let kept = candidates(&scaled, sampling);
    largest(kept.into_iter().map(|id| (id, scaled[id as usize] + gumbel(sampling.seed, position, id))))
}

/// The id with the largest value, the lowest among equals.
fn largest(values: impl Iterator<Item = (u32, f32)>) -> u32 {
    values.fold((0, f32::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best }).0
}

/// The ids that may be drawn, most likely first.
fn candidates(scaled: &[f32], sampling: &Sampling) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scaled.len() as u32).collect();
    if sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0 {
        return order;
    }
    order.sort_by(|&a, &b| scaled[b as usize].total_cmp(&scaled[a as usize]).then(a.cmp(&b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let first = scaled[order[0] as usize];
    let weight = |id: u32| (scaled[id as usize] - first).exp();
    let total: f32 = order.iter().map(|&id| weight(id)).sum();
    let mut before = 0.0;
    let nucleus = order.iter().take_while(|&&id| {
        let inside = before < sampling.top_p * total && weight(id) >= sampling.min_p;
        before += weight(id);
        inside
    });
    let kept = nucleus.count().max(1);
    order.truncate(kept);
    order
}

/// Settings of every kind on random logits of several sizes. A token id is compared as a float: equal or wrong.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let settings = [
        Sampling::default(),
        Sampling { repetition_penalty: 1.4, frequency_penalty: 0.7, presence_penalty: 0.3, ..Sampling::default() },
        Sampling { temperature: 1.0, seed: 1, ..Sampling::default() },
        Sampling { temperature: 0.3, seed: u64::MAX - 5, repetition_penalty: 1.2, ..Sampling::default() },
        Sampling { temperature: 0.8, top_k: 1, seed: 3, ..Sampling::default() },
        Sampling { temperature: 1.5, top_k: 40, seed: 4, ..Sampling::default() },
        Sampling { temperature: 1.0, top_k: 128, top_p: 0.9, seed: 5, presence_penalty: 1.0, ..Sampling::default() },
        Sampling { temperature: 0.5, top_p: 0.8, seed: 6, ..Sampling::default() },
        Sampling { temperature: 0.7, min_p: 0.1, seed: 7, ..Sampling::default() },
        Sampling { temperature: 3.0, top_p: 0.99, seed: 8, ..Sampling::default() },
    ];
    let mut outcomes = Vec::new();
    let mut random = Random(7);
    for vocab in [8, 384, 1000, 49152] {
        for sampling in &settings {
            outcomes.push(case(backend, &mut random, vocab, sampling, |_, v| v * 12.0).await?);
        }
    }
    // One token far above all others, which are equal: more ids tie for the candidates than the device ranks.
    let sampling = Sampling { temperature: 1.0, top_k: 40, seed: 9, ..Sampling::default() };
    outcomes.push(case(backend, &mut random, 49152, &sampling, |id, _| if id == 7 { 40.0 } else { 0.0 }).await?);
    Ok(outcomes)
}

/// Four tokens in a row, each counted for the next one's penalties.
async fn case(
    backend: &mut dyn Backend,
    random: &mut Random,
    vocab: usize,
    sampling: &Sampling,
    logit: fn(usize, f32) -> f32,
) -> Result<Outcome> {
    let session = check::session(backend, 1, 4, 16, vocab)?;
    let prompt: Vec<u32> = (0..5).map(|_| random.below(vocab) as u32).collect();
    let mut counts = vec![0; vocab];
    prompt.iter().for_each(|&id| counts[id as usize] = IN_PROMPT);
    backend.reset_counts(session, &prompt);
    let (mut expected, mut actual) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let logits: Vec<f32> = random.floats(2 * vocab).iter().enumerate().map(|(i, v)| logit(i % vocab, *v)).collect();
        backend.begin(session, Input::Tokens(&[0, 0]))?;
        let tensor = backend.upload(vocab, &logits);
        backend.sample(tensor, sampling);
        backend.end()?;
        let position = backend.position(session) as u32;
        let chosen = reference(&logits[vocab..], &counts, sampling, position);
        let sampled = match backend.sampled().await? {
            Some(id) => id,
            None => {
                let read = backend.read(tensor).await?;
                let id = reference(&read[vocab..], &counts, sampling, position);
                backend.set_sampled(session, id);
                id
            }
        };
        counts[chosen as usize] += 1;
        expected.push(chosen as f32);
        actual.push(sampled as f32);
    }
    backend.drop_session(session);
    Ok(Outcome { name: format!("sample of {vocab}: {sampling:?}"), expected, actual })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_softmax() {
        // Frequencies of 40,000 draws against probabilities: the standard deviation of a frequency is below 0.0025.
        let logits = [1.0, 0.0, -1.0, 2.0];
        let total: f64 = logits.iter().map(|l: &f32| f64::from(*l).exp()).sum();
        let sampling = Sampling { temperature: 1.0, seed: 42, ..Sampling::default() };
        let mut seen = [0; 4];
        for position in 0..40_000 {
            seen[reference(&logits, &[0; 4], &sampling, position) as usize] += 1;
        }
        for (logit, n) in logits.iter().zip(seen) {
            let p = f64::from(*logit).exp() / total;
            assert!((f64::from(n) / 40_000.0 - p).abs() < 0.01, "{logit}: {n} of 40,000 for {p}");
        }
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_top_p() {
        let probabilities = [0.5_f32, 0.25, 0.15, 0.1];
        let scaled: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let kept = |top_k, top_p, min_p| candidates(&scaled, &Sampling { top_k, top_p, min_p, ..Sampling::default() });
        assert_eq!(kept(0, 0.7, 0.0), [0, 1]);
        assert_eq!(kept(0, 0.4, 0.0), [0]);
        assert_eq!(kept(0, 0.76, 0.0), [0, 1, 2]);
        assert_eq!(kept(2, 0.6, 0.0), [0]); // of two, renormalised to 2/3 and 1/3
        assert_eq!(kept(0, 1.0, 0.31), [0, 1]); // 0.15 < 0.31 * 0.5
        assert_eq!(kept(3, 1.0, 0.0), [0, 1, 2]);
        assert_eq!(kept(0, 1.0, 0.0), [0, 1, 2, 3]);
    }

    #[test]
    fn penalties_act_on_what_was_seen() {
        let s = Sampling { repetition_penalty: 2.0, frequency_penalty: 0.5, presence_penalty: 0.25, ..Sampling::default() };
        assert_eq!(penalised(4.0, 0, &s), 4.0);
        assert_eq!(penalised(4.0, IN_PROMPT, &s), 2.0);
        assert_eq!(penalised(-4.0, IN_PROMPT, &s), -8.0);
        assert_eq!(penalised(4.0, 2, &s), 2.0 - 1.0 - 0.25);
    }
}
