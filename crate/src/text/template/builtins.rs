//! The filters, tests and functions that a chat template may use, each with what a call of it takes. What no chat template has
//! use for and nobody bounds (`debug`, `pprint`, `batch`, `xmlattr`, …) is not here, and so unknown.

use std::sync::Arc;

use minijinja::{
    Environment, Error, State, Value, filters, functions, tests,
    value::{Kwargs, Rest, ValueKind, from_args},
};

use super::{
    data::{PAIR, SLOT, dict, is_data, list, own, weight},
    meter::{Meter, Text, refuse},
    operators::{CALL, compare, contains},
};
use crate::text::python_json;

/// Longest range, as in minijinja.
const MAX_RANGE: i128 = 100_000;

/// Takes what a call with these arguments will take.
type Cost = fn(&Meter, &[Value]) -> Result<(), Error>;

/// Filters of minijinja.
fn known_filters() -> Vec<(&'static str, Value, Cost)> {
    macro_rules! filters {
        ($($name:ident: $cost:expr,)*) => { vec![$((stringify!($name), Value::from_function(filters::$name), $cost as Cost),)*] };
    }
    let mut filters = filters! {
        abs: others, attr: any, bool: others, capitalize: text, default: others, dictsort: sorting, escape: escaping, first: others,
        float: any, format: formatting, indent: indenting, int: any, items: pairs, last: others, length: letters, list: items, lower: text,
        map: each, max: any, min: any, reject: each, rejectattr: each, reverse: items, round: others, safe: text, select: each,
        selectattr: each, sort: sorting, split: splitting, sum: items, title: text, trim: stripping, unique: sorting, upper: text,
    };
    for (alias, of) in [("count", "length"), ("d", "default"), ("e", "escape")] {
        let found = filters.iter().find(|(name, ..)| *name == of).map(|(_, function, cost)| (alias, function.clone(), *cost));
        filters.extend(found);
    }
    filters
}

/// Tests of minijinja.
fn known_tests() -> Vec<(&'static str, Value, Cost)> {
    macro_rules! tests {
        ($($cost:ident: $($($name:literal)|+ => $test:ident)*,)*) => {
            vec![$($($(($name, Value::from_function(tests::$test), $cost as Cost),)+)*)*]
        };
    }
    tests! {
        others: "undefined" => is_undefined "defined" => is_defined "none" => is_none "boolean" => is_boolean "odd" => is_odd
            "even" => is_even "number" => is_number "integer" | "int" => is_integer "float" => is_float "string" => is_string
            "sequence" => is_sequence "mapping" => is_mapping "safe" | "escaped" => is_safe "true" => is_true "false" => is_false
            "startingwith" => is_startingwith "endingwith" => is_endingwith,
        any: "sameas" => is_sameas "filter" => is_filter "test" => is_test "lower" => is_lower "upper" => is_upper,
        dividing: "divisibleby" => is_divisibleby,
        comparing: "eq" | "equalto" | "==" => is_eq "ne" | "!=" => is_ne "lt" | "lessthan" | "<" => is_lt "le" | "<=" => is_le
            "gt" | "greaterthan" | ">" => is_gt "ge" | ">=" => is_ge,
    }
}

/// Adds them all to an empty environment.
pub(super) fn register(environment: &mut Environment, meter: &Arc<Meter>) {
    for (name, function, cost) in known_filters() {
        add(environment, meter, name, cost, move |_, state, args| function.call(state, args));
    }
    add(environment, meter, "join", others, |meter, _, args| {
        let (values, joiner): (&Value, Option<&Value>) = from_args(args)?;
        join(meter, values, joiner.and_then(Value::as_str).unwrap_or_default())
    });
    add(environment, meter, "replace", any, |meter, _, args| {
        let (value, old, new): (&Value, &Value, &Value) = from_args(args)?;
        replace(meter, &print(meter, value)?, &print(meter, old)?, &print(meter, new)?, None)
    });
    add(environment, meter, "string", others, |meter, _, args| {
        let (value,): (&Value,) = from_args(args)?;
        if value.as_str().is_some() { Ok(value.clone()) } else { print(meter, value) }
    });
    add(environment, meter, "tojson", written, |meter, _, args| {
        let (value, kwargs): (&Value, Kwargs) = from_args(args)?;
        let mut text = Text::new(meter);
        python_json::tojson(value, &kwargs, &mut text)?;
        text.finish()
    });
    for (name, function, cost) in known_tests() {
        let meter = meter.clone();
        environment.add_test(name, move |state: &State, args: Rest<Value>| -> Result<Value, Error> {
            cost(&meter, &args)?;
            function.call(state, &args)
        });
    }
    let counted = meter.clone();
    environment.add_test("in", move |value: &Value, container: &Value| contains(&counted, container, value).unwrap_or(false));
    // As in Python, where a text is iterable and none is not.
    environment.add_test("iterable", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::String | ValueKind::Undefined)
    });
    let counted = meter.clone();
    environment.add_function("range", move |a: i64, b: Option<i64>, step: Option<i64>| range(&counted, a, b, step));
    let counted = meter.clone();
    environment.add_function("dict", move |value: Option<&Value>, more: Kwargs| -> Result<Value, Error> {
        let more = Value::from(more);
        dict(&counted, value.into_iter().chain([&more]).filter_map(Value::as_object).filter_map(|map| map.try_iter_pairs()).flatten())
    });
    let counted = meter.clone();
    // A namespace is only ever held by a variable; that it was made is not forgotten.
    environment.add_function("namespace", move |defaults: Option<Value>| -> Result<Value, Error> {
        let pairs = defaults.as_ref().and_then(Value::as_object).and_then(|map| map.try_iter_pairs());
        for (_, value) in pairs.into_iter().flatten() {
            counted.charge(PAIR)?;
            is_data(&value)?;
        }
        counted.charge(PAIR)?;
        functions::namespace(defaults)
    });
}

fn add<F>(environment: &mut Environment, meter: &Arc<Meter>, name: &'static str, cost: Cost, filter: F)
where
    F: Fn(&Arc<Meter>, &State, &[Value]) -> Result<Value, Error> + Send + Sync + 'static,
{
    let meter = meter.clone();
    environment.add_filter(name, move |state: &State, args: Rest<Value>| -> Result<Value, Error> {
        cost(&meter, &args)?;
        own(&meter, filter(&meter, state, &args)?)
    });
}

fn print(meter: &Arc<Meter>, value: &Value) -> Result<Value, Error> {
    let mut text = Text::new(meter);
    text.print(value)?;
    text.finish()
}

/// The values as they are printed, with `joiner` between them.
pub(super) fn join(meter: &Arc<Meter>, values: &Value, joiner: &str) -> Result<Value, Error> {
    let mut text = Text::new(meter);
    for (at, value) in values.try_iter()?.enumerate() {
        meter.work(CALL)?;
        if at > 0 {
            text.push(joiner)?;
        }
        text.print(&value)?;
    }
    text.finish()
}

/// `text` with `new` in place of `old`, of the first `most` if that is given.
pub(super) fn replace(meter: &Arc<Meter>, text: &Value, old: &Value, new: &Value, most: Option<usize>) -> Result<Value, Error> {
    let [Some(text), Some(old), Some(new)] = [text, old, new].map(Value::as_str) else { return Err(refuse("replace takes texts")) };
    let mut out = Text::new(meter);
    for (at, part) in text.splitn(most.map_or(usize::MAX, |most| most.saturating_add(1)), old).enumerate() {
        if at > 0 {
            meter.work(16)?;
            out.push(new)?;
        }
        out.push(part)?;
    }
    out.finish()
}

fn range(meter: &Arc<Meter>, a: i64, b: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, stop) = b.map_or((0, a), |b| (a, b));
    let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step.unwrap_or(1)));
    let distance = if step > 0 { stop - start } else { start - stop };
    match (distance + step.abs() - 1).checked_div(step.abs()) {
        None => Err(refuse("cannot create range with step of 0")),
        Some(count) if count > MAX_RANGE => Err(refuse("range has too many elements")),
        Some(count) => list(meter, (0..count.max(0)).map(|at| Value::from((start + at * step) as i64))),
    }
}

fn sum(args: &[Value]) -> usize {
    args.iter().fold(CALL, |sum, value| sum.saturating_add(weight(value)))
}

fn len(args: &[Value]) -> usize {
    args.first().and_then(|value| value.as_str().map(str::len).or_else(|| value.as_object().and(value.len()))).unwrap_or(0)
}

/// Goes over its arguments, but not what it is called on.
pub(super) fn others(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    meter.work(sum(args.get(1..).unwrap_or_default()))
}

/// Writes what it is called on, which takes longer than to go over it.
fn written(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    meter.work(sum(args).saturating_mul(4))
}

/// Counts the letters of a text.
fn letters(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    meter.work(args.first().and_then(Value::as_str).map_or(CALL, str::len))
}

fn comparing(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    if args.len() == 2 { compare(meter, args) } else { Ok(()) }
}

fn dividing(_: &Meter, args: &[Value]) -> Result<(), Error> {
    match args.get(1) {
        Some(by) if !by.is_true() => Err(refuse("divisibleby: a number is not divided by 0")),
        _ => Ok(()),
    }
}

/// Goes over all its arguments.
pub(super) fn any(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    meter.work(sum(args))
}

/// Gives a text of at most three times the length, as some letters' other case.
pub(super) fn text(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    any(meter, args)?;
    meter.work(8 * len(args))?;
    match args.first() {
        Some(value) if value.as_str().is_none() => escaping(meter, args),
        _ => meter.room(3 * len(args)),
    }
}

/// Gives six letters for one: `&quot;`, and what is no letter within a printed list (in which a number has up to 310).
fn escaping(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    any(meter, args)?;
    meter.room(args.first().map_or(0, |value| value.as_str().map_or(weight(value).saturating_mul(12), |text| text.len().saturating_mul(6))))
}

/// Strips any of some characters.
pub(super) fn stripping(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    text(meter, args)?;
    let chars = args.get(1).and_then(Value::as_str).map_or(1, str::len);
    meter.room(4 * chars)?;
    meter.work(len(args).saturating_mul(chars))
}

/// Gives a list of the argument's items or characters.
fn items(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    others(meter, args)?;
    meter.work(len(args).saturating_mul(CALL / 2))?;
    meter.room(len(args).saturating_mul(2 * SLOT))
}

/// Gives a list of a map's pairs.
pub(super) fn pairs(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    items(meter, args)?;
    meter.room(len(args).saturating_mul(2 * PAIR))
}

/// Compares items with one another, by an attribute perhaps.
fn sorting(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    any(meter, args)?;
    pairs(meter, args)?;
    let times = 8 * (usize::BITS - len(args).leading_zeros()) as usize;
    meter.work(sum(args).saturating_add(len(args).saturating_mul(sum(args.get(1..).unwrap_or_default()))).saturating_mul(times))
}

/// Calls another filter, which counts for itself, or a test on each item.
fn each(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    items(meter, args)?;
    meter.work(len(args).saturating_mul(2 * sum(args.get(1..).unwrap_or_default())))?;
    if args.iter().skip(1).any(|name| name.as_str().is_some_and(|name| name.starts_with('@'))) {
        return Err(refuse("unknown filter"));
    }
    Ok(())
}

pub(super) fn splitting(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    any(meter, args)?;
    let Some(text) = args.first().and_then(Value::as_str) else { return Ok(()) };
    let most = args.get(2).and_then(Value::as_usize).unwrap_or(usize::MAX);
    let parts = match args.get(1).and_then(Value::as_str) {
        Some(separator) => text.matches(separator).take(most).count() + 1,
        None => text.split_whitespace().take(most.saturating_add(1)).count(),
    };
    meter.room(text.len().saturating_add(parts.saturating_mul(2 * SLOT)))
}

fn indenting(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    text(meter, args)?;
    let kwargs = args.last().filter(|last| last.is_kwargs()).and_then(|kwargs| kwargs.get_attr("width").ok());
    let width = args.get(1).and_then(Value::as_usize).into_iter().chain(kwargs.and_then(|width| width.as_usize())).max().unwrap_or(4);
    let lines = args.first().and_then(Value::as_str).map_or(1, |text| text.matches('\n').count() + 1);
    meter.room(lines.saturating_add(1).saturating_mul(width))
}

/// Each field of a format is at most as long as all arguments, or the largest number: a width.
pub(super) fn formatting(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    any(meter, args)?;
    let Some(format) = args.first().and_then(Value::as_str) else { return Ok(()) };
    let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty()).map(|run| run.parse().unwrap_or(usize::MAX));
    let width = numbers.chain(args[1..].iter().filter_map(Value::as_usize)).max().unwrap_or(0);
    let field = 12usize.saturating_mul(sum(&args[1..])).saturating_add(width).saturating_add(format.len());
    meter.room(format.len().saturating_add(format.matches(['%', '{']).count().saturating_mul(field)))
}
