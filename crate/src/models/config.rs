//! Typed access to `config.json`, in the spellings of transformers 4 and 5. A field that is present must have a value that we
//! know; nothing is guessed.

use serde_json::Value;

use super::sizes::most;
use crate::error::{Error, Result};

/// A model's `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a>(pub &'a Value);

impl<'a> Config<'a> {
    /// The architecture's name.
    pub fn model_type(self) -> Result<&'a str> {
        self.0.get("model_type").and_then(Value::as_str).ok_or_else(|| Error::InvalidFile("config.json has no \"model_type\"".into()))
    }

    /// A field that is not `null`.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A positive integer that must be present, and not above [`most`].
    pub fn size(self, key: &str) -> Result<usize> {
        self.size_or_none(key)?.ok_or_else(|| Error::InvalidFile(format!("config.json has no {key:?}")))
    }

    /// A positive integer, if present.
    pub fn size_or_none(self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if n > 0 && n <= most(key) => Ok(Some(n as usize)),
            Some(n) if n > 0 => Err(Error::InvalidFile(format!("config.json: {key:?} is {n}; at most {} are read", most(key)))),
            _ => Err(Error::InvalidFile(format!("config.json: {key:?} is {value}, not a positive integer"))),
        }
    }

    /// A positive integer that must be present under one of two names.
    pub fn size_of_either(self, key: &str, other: &str) -> Result<usize> {
        match self.size_or_none(key)? {
            Some(n) => Ok(n),
            None => self.size(other),
        }
    }

    /// A finite number, if present.
    pub fn number(self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(n) if n.is_finite() => Ok(Some(n)),
            _ => Err(Error::InvalidFile(format!("config.json: {key:?} is {value}, not a number"))),
        }
    }

    /// A number that must be present.
    pub fn need_number(self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| Error::InvalidFile(format!("config.json has no {key:?}")))
    }

    /// `true` or `false`; absent is `default`.
    pub fn flag(self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| Error::InvalidFile(format!("config.json: {key:?} is {value}, neither true nor false")))
    }

    /// An object, if present.
    pub fn object(self, key: &str) -> Result<Option<Config<'a>>> {
        match self.get(key) {
            Some(value) if !value.is_object() => Err(Error::InvalidFile(format!("config.json: {key:?} is {value}, not an object"))),
            value => Ok(value.map(Config)),
        }
    }

    /// A list, if present.
    pub fn list(self, key: &str) -> Result<Option<&'a [Value]>> {
        match self.get(key).map(Value::as_array) {
            Some(None) => Err(Error::InvalidFile(format!("config.json: {key:?} is {}, not a list", self.0[key]))),
            list => Ok(list.flatten().map(Vec::as_slice)),
        }
    }

    /// What is said of rotary positions: `rope_parameters`, or `rope_scaling`.
    pub fn rope(self) -> Result<Option<Config<'a>>> {
        let (new, old) = (self.object("rope_parameters")?, self.object("rope_scaling")?);
        Ok(new.or(old))
    }

    /// A field that may only have one value, or be absent.
    pub fn only(self, key: &str, value: &Value) -> Result<()> {
        match self.get(key) {
            Some(found) if found != value => {
                Err(Error::UnsupportedFormat(format!("config.json: {key:?} is {found}; this engine knows only {value}")))
            }
            _ => Ok(()),
        }
    }

    /// For each layer whether its attention slides: `layer_types` if present, else `sliding(layer)`.
    pub fn sliding_layers(self, layers: usize, sliding: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
        let Some(types) = self.list("layer_types")? else { return Ok((0..layers).map(sliding).collect()) };
        if types.len() != layers {
            return Err(Error::InvalidFile(format!("config.json: layer_types is not a list of {layers}")));
        }
        let slides = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(Error::UnsupportedFormat(format!("config.json: a layer type is {kind}; known: full_attention, sliding_attention"))),
        };
        types.iter().map(slides).collect()
    }

    /// `hidden_activation` or `hidden_act`, one of `known`.
    pub fn activation(self, known: &[&str]) -> Result<()> {
        let (key, value) = match self.get("hidden_activation") {
            Some(value) => ("hidden_activation", Some(value)),
            None => ("hidden_act", self.get("hidden_act")),
        };
        match value {
            Some(value) if !value.as_str().is_some_and(|v| known.contains(&v)) => {
                Err(Error::UnsupportedFormat(format!("config.json: {key:?} is {value}; this architecture has {}", known.join(", "))))
            }
            _ => Ok(()),
        }
    }
}
