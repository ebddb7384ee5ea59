//! Real models against f32 references made with transformers.

use openweights::{engine::Model, ops::score};
use serde_json::Value;

use crate::{ids, logits};

/// Numbers of a JSON array.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// The largest difference of our logits from the reference's ten largest at each position of a prompt.
pub fn prompt_difference(rows: &[Vec<f32>], golden: &Value) -> f64 {
    let positions = golden["top10_per_position"].as_array().expect("positions");
    assert_eq!(positions.len(), rows.len());
    let mut largest = 0.0_f64;
    for (row, position) in rows.iter().zip(positions) {
        for (id, logit) in ids(&position["ids"]).iter().zip(numbers(&position["logits"])) {
            largest = largest.max((f64::from(row[*id as usize]) - logit).abs());
        }
    }
    largest
}

/// Likelihoods, and the twenty largest log-probabilities, of every position of a text; a chunk of logits is held at a time.
/// Returns the largest difference.
pub fn text_difference(model: &mut Model, text: &Value) -> f64 {
    let (all, nll, top) = (ids(&text["ids"]), numbers(&text["nll"]), text["top20"].as_array().expect("top20"));
    let (vocab, mut largest, mut seen) = (model.info().vocab_size, 0.0_f64, 0);
    let result = model.logits(&all, |first, rows| {
        for (row, position) in rows.chunks_exact(vocab).zip(first..) {
            if let Some(nll) = nll.get(position) {
                largest = largest.max((-score::log_probability(row, all[position + 1]) - nll).abs());
            }
            for (id, expected) in ids(&top[position]["ids"]).iter().zip(numbers(&top[position]["logprobs"])) {
                largest = largest.max((score::log_probability(row, *id) - expected).abs());
            }
            seen += 1;
        }
        Ok(())
    });
    pollster::block_on(result).expect("logits");
    assert_eq!(seen, all.len());
    largest
}

/// The mean Kullback-Leibler divergence of `model` from `exact` over the positions of `ids`.
pub fn mean_kl(exact: &mut Model, model: &mut Model, ids: &[u32]) -> f64 {
    let kl: Vec<f64> = logits(exact, ids).iter().zip(&logits(model, ids)).map(|(p, q)| score::kl_divergence(p, q)).collect();
    kl.iter().sum::<f64>() / kl.len() as f64
}
