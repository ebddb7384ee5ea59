//! Inverse frequencies of rotary embeddings as transformers computes them: default, linear, llama3 and yarn, from either
//! spelling of the configuration (`rope_scaling` + `rope_theta`, or `rope_parameters`).

use std::f64::consts::PI;

use serde_json::Value;

use super::config::Config;
use crate::{
    backend::Rope,
    error::{Error, Result},
    weights::loader::Loader,
};

/// What [`crate::backend::Backend::new_rope`] takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// One per pair of elements.
    pub inverse: Vec<f32>,
    /// Factor on sine and cosine.
    pub magnitude: f32,
}

impl Frequencies {
    /// For `rotated` elements of each head.
    pub fn from_config(config: Config<'_>, rotated: usize) -> Result<Frequencies> {
        let part = Frequencies::part(config, 1000, "partial_rotary_factor", 1.0)?;
        if part != 1000 {
            return Err(Error::UnsupportedFormat("config.json: partial_rotary_factor, of which this architecture knows nothing".into()));
        }
        Frequencies::of_all(config, rotated)
    }

    fn of_all(config: Config<'_>, rotated: usize) -> Result<Frequencies> {
        let empty = Value::Null;
        Frequencies::from_parameters(config, config.rope()?.unwrap_or(Config(&empty)), rotated)
    }

    /// For the part of a head that `partial_rotary_factor` of `rope_parameters`, or else `key` of the configuration, says.
    pub fn partial(config: Config<'_>, head_dim: usize, key: &str, default: f64) -> Result<Frequencies> {
        Frequencies::of_all(config, Frequencies::part(config, head_dim, key, default)?)
    }

    /// The elements of a head that [`Frequencies::partial`] rotates.
    pub fn part(config: Config<'_>, head_dim: usize, key: &str, default: f64) -> Result<usize> {
        let part = match config.object("rope_parameters")?.map(|rope| rope.number("partial_rotary_factor")).transpose()?.flatten() {
            Some(part) => part,
            None => config.number(key)?.unwrap_or(default),
        };
        if !(part > 0.0 && part <= 1.0) {
            return Err(Error::InvalidFile(format!("config.json: a part of {part} of each head is to be rotated")));
        }
        Ok((head_dim as f64 * part) as usize)
    }

    /// From a `rope_parameters` object; what it lacks is read from `config`.
    pub fn from_parameters(config: Config<'_>, rope: Config<'_>, rotated: usize) -> Result<Frequencies> {
        if !rotated.is_multiple_of(2) {
            return Err(Error::InvalidFile(format!("config.json: {rotated} elements of a head are to be rotated, an odd number")));
        }
        let theta = match rope.number("rope_theta")? {
            Some(theta) => theta,
            None => config.number("rope_theta")?.or(config.number("rotary_emb_base")?).unwrap_or(10000.0),
        };
        if theta <= 0.0 {
            return Err(Error::InvalidFile(format!("config.json: rope_theta is {theta}")));
        }
        let plain: Vec<f64> = (0..rotated / 2).map(|i| theta.powf(-2.0 * i as f64 / rotated as f64)).collect();
        let kind = match rope.get("rope_type").or(rope.get("type")) {
            None => "default",
            Some(kind) => kind.as_str().unwrap_or("not a string"),
        };
        let (inverse, magnitude) = match kind {
            "default" => (plain, 1.0),
            "linear" => {
                let factor = positive(rope, "factor")?;
                (plain.iter().map(|f| f / factor).collect(), 1.0)
            }
            "llama3" => (llama3(rope, &plain)?, 1.0),
            "yarn" => yarn(config, rope, theta, &plain)?,
            other => return Err(Error::UnsupportedFormat(format!("rope type {other:?}; known: default, linear, llama3, yarn"))),
        };
        Ok(Frequencies { inverse: inverse.iter().map(|f| *f as f32).collect(), magnitude: magnitude as f32 })
    }

    /// As tables on the loader's backend.
    pub fn load(&self, loader: &mut Loader<'_>) -> Result<Rope> {
        loader.rope(&self.inverse, self.magnitude)
    }
}

fn positive(config: Config<'_>, key: &str) -> Result<f64> {
    match config.need_number(key)? {
        n if n > 0.0 => Ok(n),
        n => Err(Error::InvalidFile(format!("config.json: rope parameter {key:?} is {n}"))),
    }
}

/// Llama 3.1: wavelengths beyond `original / low_freq_factor` are stretched by `factor`, those within
/// `original / high_freq_factor` stay, those between are blended.
fn llama3(rope: Config<'_>, plain: &[f64]) -> Result<Vec<f64>> {
    let factor = positive(rope, "factor")?;
    let (low, high) = (positive(rope, "low_freq_factor")?, positive(rope, "high_freq_factor")?);
    let original = positive(rope, "original_max_position_embeddings")?;
    if high <= low {
        return Err(Error::InvalidFile(format!("config.json: rope's high_freq_factor {high} is not above low_freq_factor {low}")));
    }
    let scale = |f: &f64| {
        let turns = original * f / (2.0 * PI);
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 - kept) * f / factor + kept * f
    };
    Ok(plain.iter().map(scale).collect())
}

/// YaRN (Peng et al. 2023): frequencies that turn less than `beta_slow` times over the original context are divided by `factor`,
/// those that turn more than `beta_fast` times stay, with a linear ramp over the dimensions between; attention is
/// scaled by `0.1 ln(factor) + 1`.
fn yarn(config: Config<'_>, rope: Config<'_>, theta: f64, plain: &[f64]) -> Result<(Vec<f64>, f64)> {
    let factor = positive(rope, "factor")?;
    let original = match rope.number("original_max_position_embeddings")? {
        Some(n) => n,
        None => config.need_number("max_position_embeddings")?,
    };
    let (fast, slow) = (rope.number("beta_fast")?.unwrap_or(32.0), rope.number("beta_slow")?.unwrap_or(1.0));
    let rotated = 2.0 * plain.len() as f64;
    let dimension = |turns: f64| rotated * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (dimension(fast), dimension(slow));
    if rope.flag("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(rotated - 1.0));
    if low == high {
        high += 0.001;
    }
    let blend = |(i, f): (usize, &f64)| {
        let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        stretched * f / factor + (1.0 - stretched) * f
    };
    let mscale = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let magnitude = match (rope.number("attention_factor")?, rope.number("mscale")?, rope.number("mscale_all_dim")?) {
        (Some(given), _, _) => given,
        (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => mscale(m) / mscale(all),
        _ => mscale(1.0),
    };
    Ok((plain.iter().enumerate().map(blend).collect(), magnitude))
}
