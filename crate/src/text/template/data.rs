//! The lists and maps of a rendering. Each knows how much it holds, seen as a tree (`[l, l]` within `[l, l]` is small in memory
//! and large to compare or print), and how deep it is; each is charged to the meter for as long as it lives.

use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::{
    Error, Value,
    value::{Enumerator, Object, ObjectExt, ObjectRepr, ValueKind},
};
use serde_json::Value as Json;

use super::meter::{Charge, Meter, refuse};

/// What a value takes in a list, and the weight of one that is not a text, list or map.
pub(super) const SLOT: usize = 32;
/// What a pair takes in a map.
pub(super) const PAIR: usize = 192;
/// Lists within lists: printing, comparing and dropping them recurses.
const MAX_DEPTH: usize = 100;

/// Size as a tree in bytes (texts and [`SLOT`]s), and levels.
#[derive(Debug, Clone, Copy, Default)]
struct Nature {
    weight: usize,
    depth: usize,
}

impl Nature {
    fn of<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Self, Error> {
        let mut nature = Self { weight: SLOT, depth: 1 };
        for value in values {
            let item = Self::of_one(value)?;
            nature.weight = nature.weight.saturating_add(item.weight);
            nature.depth = nature.depth.max(item.depth + 1);
        }
        if nature.depth > MAX_DEPTH {
            return Err(refuse(format!("lists and maps are nested more than {MAX_DEPTH} levels")));
        }
        Ok(nature)
    }

    /// Of data. Namespaces are none (one that holds itself would never be freed), nor are loops and macros.
    fn of_one(value: &Value) -> Result<Self, Error> {
        if let Some(list) = value.downcast_object_ref::<List>() {
            return Ok(list.nature);
        }
        if let Some(dict) = value.downcast_object_ref::<Dict>() {
            return Ok(dict.nature);
        }
        match (value.as_str(), value.kind()) {
            (Some(text), _) => Ok(Self { weight: SLOT + text.len(), depth: 0 }),
            (_, ValueKind::Undefined | ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain) => {
                Ok(Self { weight: SLOT, depth: 0 })
            }
            (_, kind) => Err(refuse(format!("a list, map or namespace holds data only, not a namespace, loop or macro ({kind})"))),
        }
    }
}

/// Whether `value` is data, which may be kept within other values.
pub(super) fn is_data(value: &Value) -> Result<(), Error> {
    Nature::of_one(value).map(drop)
}

/// What going over `value` costs.
pub(super) fn weight(value: &Value) -> usize {
    within(value, 2)
}

/// Namespaces, loops and arguments by name hold data, or one another, once.
fn within(value: &Value, levels: usize) -> usize {
    if let Ok(nature) = Nature::of_one(value) {
        return nature.weight;
    }
    let pairs = value.as_object().filter(|_| levels > 0).and_then(|object| object.try_iter_pairs());
    pairs.into_iter().flatten().fold(SLOT, |sum, (_, value)| sum.saturating_add(SLOT).saturating_add(within(&value, levels - 1)))
}

#[derive(Debug)]
pub(super) struct List {
    items: Vec<Value>,
    nature: Nature,
    _charge: Charge,
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

#[derive(Debug)]
pub(super) struct Dict {
    pairs: IndexMap<Value, Value>,
    nature: Nature,
    _charge: Charge,
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.pairs.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_rev_key_value_enumerator(|this| Box::new(this.pairs.iter().map(|(k, v)| (k.clone(), v.clone()))))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.pairs.len())
    }
}

/// A list of what comes, each item charged before the next is asked for.
pub(super) fn list(meter: &Arc<Meter>, values: impl Iterator<Item = Value>) -> Result<Value, Error> {
    let mut charge = Charge::none(meter);
    charge.grow(SLOT)?;
    let mut items = Vec::new();
    for value in values {
        charge.grow(SLOT)?;
        meter.work(SLOT)?;
        items.push(own(meter, value)?);
    }
    let nature = Nature::of(items.iter())?;
    Ok(Value::from_object(List { items, nature, _charge: charge }))
}

/// A list of `count` places of another.
pub(super) fn pick(meter: &Arc<Meter>, from: &Value, count: usize, places: impl Iterator<Item = usize>) -> Result<Value, Error> {
    let empty = Vec::new();
    let from = from.downcast_object_ref::<List>().map_or(&empty, |list| &list.items);
    kept(meter, count, places.filter_map(|at| from.get(at)), |items| Nature::of(items.iter()))
}

/// One list after the other.
pub(super) fn join(meter: &Arc<Meter>, a: &Value, b: &Value) -> Result<Value, Error> {
    let (Some(a), Some(b)) = (a.downcast_object_ref::<List>(), b.downcast_object_ref::<List>()) else { return Err(refuse("no lists")) };
    let nature = Nature { weight: a.nature.weight.saturating_add(b.nature.weight), depth: a.nature.depth.max(b.nature.depth) };
    kept(meter, a.items.len() + b.items.len(), a.items.iter().chain(&b.items), |_| Ok(nature))
}

/// A list of `count` items of others: each is counted once more where it lies.
fn kept<'a>(
    meter: &Arc<Meter>,
    count: usize,
    values: impl Iterator<Item = &'a Value>,
    nature: impl FnOnce(&[Value]) -> Result<Nature, Error>,
) -> Result<Value, Error> {
    let mut charge = Charge::none(meter);
    charge.grow(SLOT.saturating_mul(count.saturating_add(1)))?;
    meter.work(SLOT.saturating_mul(count))?;
    let mut items = Vec::with_capacity(count);
    items.extend(values.cloned());
    let nature = nature(&items)?;
    Ok(Value::from_object(List { items, nature, _charge: charge }))
}

/// A map of pairs, the last of a key's values counting; a key is hashed, which takes its weight.
pub(super) fn dict(meter: &Arc<Meter>, values: impl Iterator<Item = (Value, Value)>) -> Result<Value, Error> {
    let mut charge = Charge::none(meter);
    charge.grow(SLOT)?;
    let mut pairs = IndexMap::new();
    for (key, value) in values {
        charge.grow(PAIR)?;
        meter.work(weight(&key).saturating_mul(4))?;
        pairs.insert(own(meter, key)?, own(meter, value)?);
    }
    let nature = Nature::of(pairs.iter().flat_map(|(key, value)| [key, value]))?;
    Ok(Value::from_object(Dict { pairs, nature, _charge: charge }))
}

/// A new value, charged: what minijinja made lazily or as its own list is made a [`List`].
pub(super) fn own(meter: &Arc<Meter>, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => meter.hold(&value).map(|()| value),
        ValueKind::Seq | ValueKind::Iterable if value.downcast_object_ref::<List>().is_none() => {
            meter.room(SLOT * value.len().unwrap_or(0))?;
            list(meter, value.try_iter()?)
        }
        ValueKind::Map if value.is_kwargs() => Err(refuse("arguments by name are no value")),
        ValueKind::Map => match value.downcast_object_ref::<IndexMap<Value, Value>>() {
            Some(map) => dict(meter, map.iter().map(|(key, value)| (key.clone(), value.clone()))),
            None => Ok(value),
        },
        ValueKind::Bytes | ValueKind::Invalid => Err(refuse(format!("{} is no value of a chat template", value.kind()))),
        _ => Ok(value),
    }
}

/// A map of the caller's values, which are not charged: they are the input.
pub(super) fn input(meter: &Arc<Meter>, pairs: impl IntoIterator<Item = (String, Value)>) -> Result<Value, Error> {
    let pairs: IndexMap<_, _> = pairs.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
    let nature = Nature::of(pairs.values())?;
    Ok(Value::from_object(Dict { pairs, nature, _charge: Charge::none(meter) }))
}

/// A value of the caller, taken over.
pub(super) fn from_json(meter: &Arc<Meter>, json: Json, depth: usize) -> Result<Value, Error> {
    if depth == MAX_DEPTH {
        return Err(refuse(format!("nested more than {MAX_DEPTH} levels")));
    }
    match json {
        Json::String(text) => Ok(Value::from(text)),
        Json::Array(items) => {
            let items = items.into_iter().map(|item| from_json(meter, item, depth + 1)).collect::<Result<Vec<_>, _>>()?;
            let nature = Nature::of(items.iter())?;
            Ok(Value::from_object(List { items, nature, _charge: Charge::none(meter) }))
        }
        Json::Object(pairs) => {
            let pairs = pairs.into_iter().map(|(key, value)| Ok((key, from_json(meter, value, depth + 1)?)));
            input(meter, pairs.collect::<Result<Vec<_>, Error>>()?)
        }
        scalar => Ok(Value::from_serialize(scalar)),
    }
}
