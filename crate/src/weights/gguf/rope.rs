//! Rotary positions: scaling by metadata, and factors that files keep as tensors.

use serde_json::{Value as Json, json};

use super::file::{File, decimal};
use crate::error::{Error, Result};

/// Factors of Llama 3.1 and later.
const LLAMA3: &str = "rope_freqs.weight";
/// Factors of Phi 3 for long contexts, and for short ones.
const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";

/// Tensors that become configuration.
pub fn is_factors(tensor: &str) -> bool {
    [LLAMA3, LONG, SHORT].contains(&tensor)
}

/// `rope_scaling` from `rope.scaling.*`, or the older `rope.scale_linear`.
pub fn scaling(file: &File<'_>) -> Result<Option<Json>> {
    let attention = file.number("rope.scaling.attn_factor")?;
    if file.has(LONG) {
        // The factors follow, see [`set_factors`].
        let mut scaling = json!({ "rope_type": "longrope" });
        if let Some(attention) = attention {
            scaling["attention_factor"] = attention;
        }
        return Ok(Some(scaling));
    }
    if attention.is_some_and(|f| f != 1.0) {
        return Err(file.unsupported("rope.scaling.attn_factor", "is not 1"));
    }
    let (key, kind) = ("rope.scaling.factor", file.metadata().string(&file.key("rope.scaling.type"))?);
    let factor = match file.number(key)? {
        Some(factor) => Some(factor),
        None => file.number("rope.scale_linear")?,
    };
    let kind = match (kind, factor.as_ref().and_then(Json::as_f64)) {
        (Some("none"), _) | (None, None | Some(1.0)) => return Ok(None),
        (None, Some(_)) => "linear",
        (Some(kind), _) => kind,
    };
    let Some(factor) = factor.filter(|f| f.as_f64().is_some_and(|f| f > 0.0)) else {
        return Err(file.bad(key, "is missing or no positive number"));
    };
    let mut scaling = json!({ "rope_type": kind, "factor": factor });
    match kind {
        "linear" => {}
        "yarn" => {
            scaling["original_max_position_embeddings"] = file.need_size("rope.scaling.original_context_length")?.into();
            for (name, gguf) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                if let Some(beta) = file.number(&format!("rope.scaling.{gguf}"))? {
                    scaling[name] = beta;
                }
            }
        }
        other => return Err(file.unsupported("rope.scaling.type", &format!("is {other:?}; none, linear and yarn are read"))),
    }
    Ok(Some(scaling))
}

/// Takes the values of one of the factor tensors into the configuration of heads of `head_dim` elements.
pub fn set_factors(config: &mut Json, tensor: &str, factors: &[f32], head_dim: u64) -> Result<()> {
    if tensor == LLAMA3 {
        return set_llama3(config, factors, head_dim);
    }
    let rotated = head_dim as f64 * config["partial_rotary_factor"].as_f64().unwrap_or(1.0);
    if factors.len() as f64 * 2.0 != rotated || factors.iter().any(|f| !f.is_finite() || *f <= 0.0) {
        return Err(Error::InvalidFile(format!("GGUF tensor {tensor:?} does not hold {} positive factors", rotated / 2.0)));
    }
    if config["rope_scaling"]["rope_type"] != "longrope" {
        return Err(Error::InvalidFile(format!("GGUF tensor {tensor:?} is there, and {LONG:?} is not")));
    }
    let key = if tensor == LONG { "long_factor" } else { "short_factor" };
    config["rope_scaling"][key] = factors.iter().map(|f| decimal(*f)).collect::<Result<Vec<_>>>()?.into();
    Ok(())
}

/// The file does not say what Llama 3's factors were computed from, so the parameters that Meta publishes are tried, and taken
/// only if they give these very factors: frequencies that turn once or less over the original context are divided by `factor`,
/// those that turn four times or more stay. Any factor in between tells the original context, a power of two.
fn set_llama3(config: &mut Json, factors: &[f32], head_dim: u64) -> Result<()> {
    if factors.iter().all(|&f| f == 1.0) {
        return Ok(());
    }
    let base = config["rope_theta"].as_f64().unwrap_or_default();
    let factor = f64::from(factors.iter().copied().fold(0.0, f32::max));
    let frequency = |i: usize| base.powf(-2.0 * i as f64 / head_dim as f64);
    let turns = |f: f64| 1.0 + 3.0 * (1.0 / f - 1.0 / factor) / (1.0 - 1.0 / factor);
    let between = factors.iter().map(|f| f64::from(*f)).enumerate().find(|(_, f)| *f > 1.0 && *f < factor);
    let original = between.map_or(8192.0, |(i, f)| (turns(f) * std::f64::consts::TAU / frequency(i)).log2().round().exp2());
    let same = factors.len() as u64 * 2 == head_dim
        && (1.0..1e9).contains(&original)
        && factors.iter().enumerate().all(|(i, &f)| {
            let expected = llama3_factor(original * frequency(i) / std::f64::consts::TAU, factor);
            (f64::from(f) - expected).abs() <= 1e-3 * expected
        });
    if !same || config.get("rope_scaling").is_some() {
        return Err(Error::UnsupportedFormat(format!("GGUF tensor {LLAMA3:?} holds factors other than those of Llama 3")));
    }
    config["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": original as u64
    });
    Ok(())
}

/// By what a frequency is divided that turns `turns` times over the original context.
fn llama3_factor(turns: f64, factor: f64) -> f64 {
    let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
    1.0 / ((1.0 - smooth) / factor + smooth)
}
