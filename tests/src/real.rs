//! Real models against f32 references made with transformers.

use openweights::{engine::Model, ops::score};
use serde_json::Value;

use crate::ids;

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

/// Likelihoods, and the twenty largest log-probabilities, of every position of a text. Returns the largest difference.
pub fn text_difference(rows: &[Vec<f32>], text: &Value) -> f64 {
    let (all, nll, top) = (ids(&text["ids"]), numbers(&text["nll"]), text["top20"].as_array().expect("top20"));
    assert_eq!(rows.len(), all.len());
    let mut largest = 0.0_f64;
    for (position, row) in rows.iter().enumerate() {
        let sum = score::log_sum_exp(row);
        let mut compare = |id: u32, expected: f64| largest = largest.max((f64::from(row[id as usize]) - sum - expected).abs());
        if let Some(nll) = nll.get(position) {
            compare(all[position + 1], -nll);
        }
        ids(&top[position]["ids"]).into_iter().zip(numbers(&top[position]["logprobs"])).for_each(|(id, expected)| compare(id, expected));
    }
    largest
}

/// The mean Kullback-Leibler divergence of `model` from the logits `exact` of the first tokens of `ids`; a chunk of its own is held at a time.
pub fn mean_kl(exact: &[Vec<f32>], model: &mut Model, ids: &[u32]) -> f64 {
    let (vocab, mut sum) = (model.info().vocab_size, 0.0);
    let result = model.logits(&ids[..exact.len()], |first, rows| {
        sum += exact[first..].iter().zip(rows.chunks_exact(vocab)).map(|(p, q)| score::kl_divergence(p, q)).sum::<f64>();
        Ok(())
    });
    pollster::block_on(result).expect("logits");
    sum / exact.len() as f64
}
