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
    Strings(Strings),
}

/// Many strings in one text: vocabularies have hundreds of thousands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strings {
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Strings {
    /// Room for `count` strings, `bytes` in all.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Strings {
        Strings { text: String::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    pub(super) fn push(&mut self, string: &str) {
        self.text.push_str(string);
        // A header is shorter than 2^32 bytes.
        self.ends.push(self.text.len() as u32);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.ends.get(index).map(|end| &self.text[self.start(index)..*end as usize])
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.ends.iter().enumerate().map(|(index, end)| &self.text[self.start(index)..*end as usize])
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    fn from_iter<T: IntoIterator<Item = S>>(strings: T) -> Strings {
        let mut all = Strings::default();
        strings.into_iter().for_each(|string| all.push(string.as_ref()));
        all
    }
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
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Strings(s) => Some(s),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_lie_in_one_text_and_come_out_again() {
        let list = ["", "a", "", "é▁", ""];
        let strings: Strings = list.into_iter().collect();
        assert_eq!(strings.iter().collect::<Vec<_>>(), list);
        assert_eq!((strings.get(3), strings.get(5), strings.len(), strings.is_empty()), (Some("é▁"), None, 5, false));
    }
}
