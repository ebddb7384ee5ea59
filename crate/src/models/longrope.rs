//! "longrope" (Ding et al. 2024): every frequency is divided by a factor of its own, from `long_factor` for contexts beyond the
//! positions that the model was first made for, else from `short_factor`.
//!
//! Transformers changes from short to long within a conversation, which leaves keys of both kinds in the cache; here the
//! session's length decides once, as in other engines.

use serde_json::Value;

use super::{config::Config, rotary::Frequencies};
use crate::error::{Error, Result};

/// Frequencies for `rotated` elements of each head in sessions of up to `context` tokens; `None` if the configuration has
/// another type of rope.
pub fn frequencies(config: Config<'_>, rotated: usize, context: usize) -> Result<Option<Frequencies>> {
    let Some(rope) = config.rope()? else { return Ok(None) };
    if rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str) != Some("longrope") {
        return Ok(None);
    }
    let original = match rope.size_or_none("original_max_position_embeddings")? {
        Some(original) => original,
        None => config.size("original_max_position_embeddings")?,
    };
    let most = config.size("max_position_embeddings")?;
    let list = |key: &str| {
        let factors = rope.list(key)?.map(|list| list.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        let factors = factors.filter(|f| f.len() == rotated / 2 && f.iter().all(|f| *f > 0.0));
        factors.ok_or_else(|| Error::InvalidFile(format!("config.json: {key:?} is not a list of {} factors", rotated / 2)))
    };
    let (short, long) = (list("short_factor")?, list("long_factor")?);
    let factors = if context.min(most) > original { long } else { short };
    let theta = match rope.number("rope_theta")? {
        Some(theta) => theta,
        None => config.number("rope_theta")?.unwrap_or(10000.0),
    };
    let inverse = factors.iter().enumerate().map(|(i, f)| (theta.powf(-2.0 * i as f64 / rotated as f64) / f) as f32).collect();
    let stretch = rope.number("factor")?.unwrap_or(most as f64 / original as f64);
    let magnitude = match rope.number("attention_factor")? {
        Some(given) => given,
        None if stretch <= 1.0 => 1.0,
        None => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
    };
    Ok(Some(Frequencies { inverse, magnitude: magnitude as f32 }))
}
