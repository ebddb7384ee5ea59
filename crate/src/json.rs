//! JSON of others, bounded before it is parsed: values take many times their text's memory (`[0,0,…]` 100 times, `[{"":0},…]` 80
//! times), so a text is refused if its values would take more than [`MOST`] besides twice its own length. Real files stay far below.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Bytes that a text's values may take beyond twice its length.
const MOST: usize = 19 << 19;

/// What parsing takes: bytes for a value in a list that grows, and what a map takes besides its first value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    value: usize,
    map: usize,
}

/// Of a [`serde_json::Value`].
pub(crate) const ANY: Cost = Cost { value: 216, map: 256 };
/// Of a structure of ours.
pub(crate) const TYPED: Cost = Cost { value: 72, map: 0 };
/// Of a safetensors header: its crate keeps names and values in lists before it makes a structure of them.
pub(crate) const HEADER: Cost = Cost { value: 128, map: 0 };

/// The value in `text`, which the file `name` holds.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, text: &[u8], cost: Cost) -> Result<T> {
    let bad = |e| Error::InvalidFile(format!("{name}: {e}"));
    serde_json::from_slice::<Count>(text).map_err(bad)?.check(name, text, cost)?;
    serde_json::from_slice(text).map_err(bad)
}

/// The object in `text`, but for the member `skipped`.
pub(crate) fn parse_without(name: &str, text: &[u8], skipped: &'static str) -> Result<Map<String, Value>> {
    let bad = |e| Error::InvalidFile(format!("{name}: {e}"));
    let members = |make: bool| -> Result<Members> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let members = reader.deserialize_map(Members { skipped, make, count: Count::ONE, made: Map::new() }).map_err(bad)?;
        reader.end().map_err(bad)?;
        Ok(members)
    };
    members(false)?.count.check(name, text, ANY)?;
    Ok(members(true)?.made)
}

/// The members of an object but one, counted or made.
struct Members {
    skipped: &'static str,
    make: bool,
    count: Count,
    made: Map<String, Value>,
}

impl<'de> Visitor<'de> for Members {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Members, A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == self.skipped {
                map.next_value::<IgnoredAny>()?;
            } else if self.make {
                self.made.insert(key, map.next_value()?);
            } else {
                self.count.add(map.next_value()?);
            }
        }
        Ok(self)
    }
}

/// How many values and maps there are in a value; counting takes no memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Count {
    pub values: usize,
    pub maps: usize,
}

impl Count {
    const ONE: Count = Count { values: 1, maps: 0 };

    fn add(&mut self, other: Count) {
        (self.values, self.maps) = (self.values + other.values, self.maps + other.maps);
    }

    /// Whether that many may be made of `text`.
    fn check(self, name: &str, text: &[u8], cost: Cost) -> Result<()> {
        let Count { values, maps } = self;
        if values.saturating_mul(cost.value).saturating_add(maps.saturating_mul(cost.map)) > MOST + 2 * text.len() {
            return Err(Error::InvalidFile(format!("{name}: {values} values in {} bytes are more than are read", text.len())));
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Counter)
    }
}

struct Counter;

impl<'de> Visitor<'de> for Counter {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count::ONE)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
        Ok(Count::ONE)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Count, E> {
        Ok(Count::ONE)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Count, E> {
        Ok(Count::ONE)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Count, E> {
        Ok(Count::ONE)
    }

    fn visit_str<E>(self, _: &str) -> Result<Count, E> {
        Ok(Count::ONE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
        let mut count = Count::ONE;
        while let Some(element) = list.next_element()? {
            count.add(element);
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
        let mut count = Count { values: 1, maps: 1 };
        while let Some((_, value)) = map.next_entry::<IgnoredAny, Count>()? {
            count.add(value);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_without_being_made() {
        let count = |text: &str| serde_json::from_str::<Count>(text).unwrap();
        assert_eq!(count(r#"{"a,[{\"":[1,-2,{},0.5,true],"b\\":"{","c":null}"#), Count { values: 9, maps: 2 });
        assert_eq!(count("7"), Count { values: 1, maps: 0 });
    }

    #[test]
    fn a_member_is_skipped_and_costs_nothing() {
        let list = "[0,{}],".repeat(200_000);
        let text = format!(r#"{{"a":{{"b":1}},"b":[{list}0],"c":2}}"#);
        let object = parse_without("a.json", text.as_bytes(), "b").unwrap();
        assert_eq!(Value::Object(object), serde_json::json!({"a": {"b": 1}, "c": 2}));
        assert!(parse_without("a.json", text.as_bytes(), "a").unwrap_err().to_string().contains("more than are read"));
        for bad in ["[]", "7", "{", "{} {}"] {
            assert_eq!(parse_without("a.json", bad.as_bytes(), "b").unwrap_err().code(), "invalid_file");
        }
    }

    #[test]
    fn what_would_take_too_much_is_refused_by_name() {
        for unit in ["0,", "[],", "{},", r#"{"":0},"#] {
            let list = |n: usize| format!("[{}0]", unit.repeat(n));
            assert!(parse::<Value>("a.json", list(1000).as_bytes(), ANY).is_ok());
            let error = parse::<Value>("a.json", list(200_000).as_bytes(), ANY).unwrap_err();
            assert_eq!(error.code(), "invalid_file");
            assert!(error.to_string().contains("a.json") && error.to_string().contains("more than are read"), "{error}");
        }
        let text = format!("\"{}\"", "[".repeat(1 << 20));
        assert_eq!(parse::<String>("a.json", text.as_bytes(), ANY).unwrap().len(), 1 << 20);
    }
}
