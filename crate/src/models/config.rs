//! Typed access to `config.json`, in the spellings of transformers 4 and 5. A field that is present must have a value that we
//! know; nothing is guessed.

use serde_json::Value;

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

    /// A positive integer that must be present. Sizes beyond 2^31 are refused: no product of two then overflows.
    pub fn size(self, key: &str) -> Result<usize> {
        self.size_or_none(key)?.ok_or_else(|| Error::InvalidFile(format!("config.json has no {key:?}")))
    }

    /// A positive integer, if present.
    pub fn size_or_none(self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if n > 0 && n < 1 << 31 => Ok(Some(n as usize)),
            _ => Err(Error::InvalidFile(format!("config.json: {key:?} is {value}, not a positive integer"))),
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

    /// A field that may only have one value, or be absent.
    pub fn only(self, key: &str, value: &Value) -> Result<()> {
        match self.get(key) {
            Some(found) if found != value => {
                Err(Error::UnsupportedFormat(format!("config.json: {key:?} is {found}; this engine knows only {value}")))
            }
            _ => Ok(()),
        }
    }
}
