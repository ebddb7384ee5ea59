//! Maps and lists of a JSON text, entry by entry: a vocabulary of megabytes is never kept in another form than its table's.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// A string, borrowed where the text has it as it is.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A merge: a line `left right` or a pair.
pub(super) enum Merge<'a> {
    Line(Cow<'a, str>),
    Pair(Text<'a>, Text<'a>),
}

/// Hands each entry of the map in `json` to `entry`, whose errors end the reading.
pub(super) fn map<'a, V: Deserialize<'a>>(json: &'a str, entry: impl FnMut(&str, V) -> Result<(), String>) -> serde_json::Result<()> {
    serde_json::Deserializer::from_str(json).deserialize_map(Each(entry, PhantomData::<V>))
}

/// The same for the elements of a list.
pub(super) fn list<'a, T: Deserialize<'a>>(json: &'a str, element: impl FnMut(T) -> Result<(), String>) -> serde_json::Result<()> {
    serde_json::Deserializer::from_str(json).deserialize_seq(EachOf(element, PhantomData::<T>))
}

struct Each<F, V>(F, PhantomData<V>);

impl<'de, V: Deserialize<'de>, F: FnMut(&str, V) -> Result<(), String>> Visitor<'de> for Each<F, V> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Text(key), value)) = map.next_entry()? {
            (self.0)(&key, value).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

struct EachOf<F, T>(F, PhantomData<T>);

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), String>> Visitor<'de> for EachOf<F, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.0)(element).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Merge<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOf;
        impl<'de> Visitor<'de> for OneOf {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_borrowed_str<E>(self, line: &'de str) -> Result<Merge<'de>, E> {
                Ok(Merge::Line(line.into()))
            }

            fn visit_str<E>(self, line: &str) -> Result<Merge<'de>, E> {
                Ok(Merge::Line(line.to_owned().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Merge<'de>, A::Error> {
                match (pair.next_element()?, pair.next_element()?) {
                    (Some(left), Some(right)) => Ok(Merge::Pair(left, right)),
                    _ => Err(A::Error::custom("a merge of less than two tokens")),
                }
            }
        }
        deserializer.deserialize_any(OneOf)
    }
}
