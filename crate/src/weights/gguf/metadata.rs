//! The key-value part of a GGUF file.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A metadata value. Integers of all widths are one variant, so are floats; arrays of arrays do not occur.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type; u64 values above `i64::MAX` are refused when parsed.
    Integer(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// An array of any integer type.
    Integers(Vec<i64>),
    /// An array of f32 or f64.
    Floats(Vec<f32>),
    /// An array of booleans.
    Bools(Vec<bool>),
    /// An array of strings.
    Strings(Vec<String>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a boolean",
            Value::String(_) => "a string",
            Value::Integers(_) => "an array of integers",
            Value::Floats(_) => "an array of floats",
            Value::Bools(_) => "an array of booleans",
            Value::Strings(_) => "an array of strings",
        }
    }
}

/// All metadata of a file. Each accessor gives `None` where the key is absent and `invalid_file` where its value has
/// another type than asked for, or does not fit it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    /// The value of `key` as it was stored.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Adds an entry; returns whether the key is new.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> bool {
        self.entries.insert(key.into(), value).is_none()
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |v| match v {
            Value::String(s) => Some(s.as_str()),
            _ => None,
        })
    }

    /// An integer from 0 to `u32::MAX`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer of 32 bits without sign", |v| match v {
            Value::Integer(i) => u32::try_from(*i).ok(),
            _ => None,
        })
    }

    /// A float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a float", |v| match v {
            Value::Float(f) => Some(*f as f32),
            _ => None,
        })
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a boolean", |v| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Strings(s) => Some(s.as_slice()),
            _ => None,
        })
    }

    /// An array of floats.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of floats", |v| match v {
            Value::Floats(f) => Some(f.as_slice()),
            _ => None,
        })
    }

    /// An array of integers of 32 bits.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "an array of integers of 32 bits", |v| match v {
            Value::Integers(list) => list.iter().map(|&i| i32::try_from(i).ok()).collect(),
            _ => None,
        })
    }

    fn typed<'a, T>(&'a self, key: &str, wanted: &str, convert: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        match convert(value) {
            Some(found) => Ok(Some(found)),
            None => Err(Error::InvalidFile(match value {
                Value::Integer(i) => format!("GGUF metadata {key:?} is {i}, expected {wanted}"),
                other => format!("GGUF metadata {key:?} is {}, expected {wanted}", other.kind()),
            })),
        }
    }
}
