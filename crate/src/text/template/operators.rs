//! What the rewritten templates do at the steps whose size depends on their operands. The interpreter calls them as filters, by
//! names that no template can write.

use std::sync::Arc;

use minijinja::{
    Environment, Error, State, Value, filters,
    value::{ObjectRepr, Rest, ValueKind},
};

use super::{
    data::{SLOT, dict, is_data, join, list, own, pick, weight},
    meter::{Meter, Text, refuse},
};

/// What a call takes at least.
pub(super) const CALL: usize = 64;
/// What an entry in a table of the interpreter takes: an open capture, a macro, a variable that a macro sees.
const ENTRY: usize = 128;

type Operator = fn(&Arc<Meter>, &State, &[Value]) -> Result<Value, Error>;

/// By name. The number of arguments is the rewriter's.
pub(super) const OPERATORS: [(&str, Operator); 24] = [
    ("@own", |meter, _, args| own(meter, args[0].clone())),
    ("@data", |_, _, args| is_data(&args[0]).map(|()| args[0].clone())),
    ("@+", add),
    ("@*", multiply),
    ("@compare", |meter, _, args| compare(meter, args).map(|()| operands(args))),
    ("@~", concatenate),
    ("@==", |meter, _, args| compare(meter, args).map(|()| (args[0] == args[1]).into())),
    ("@!=", |meter, _, args| compare(meter, args).map(|()| (args[0] != args[1]).into())),
    ("@<", |meter, _, args| compare(meter, args).map(|()| (args[0] < args[1]).into())),
    ("@<=", |meter, _, args| compare(meter, args).map(|()| (args[0] <= args[1]).into())),
    ("@>", |meter, _, args| compare(meter, args).map(|()| (args[0] > args[1]).into())),
    ("@>=", |meter, _, args| compare(meter, args).map(|()| (args[0] >= args[1]).into())),
    ("@in", |meter, _, args| contains(meter, &args[1], &args[0]).map(Value::from)),
    ("@[]", item),
    ("@[:]", slice),
    ("@list", |meter, _, args| list(meter, args.iter().cloned())),
    ("@map", |meter, _, args| dict(meter, args.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())))),
    ("@pass", |meter, _, args| meter.charge(SLOT).map(|()| args[0].clone())),
    ("@passed", |meter, _, args| {
        meter.release(SLOT * args[0].len().unwrap_or(0));
        own(meter, args[0].clone())
    }),
    // Characters of a text are counted before they are gone through.
    ("@iterate", |meter, _, args| meter.work(args[0].as_str().map_or(0, str::len)).map(|()| args[0].clone())),
    ("@called", called),
    ("@capture", |meter, _, args| meter.charge(ENTRY).map(|()| args[0].clone())),
    ("@captured", |meter, _, args| {
        meter.release(ENTRY);
        printed(meter, &args[0])
    }),
    ("@macro", |meter, _, args| meter.charge(ENTRY * (8 + args[1].as_usize().unwrap_or(0))).map(|()| args[0].clone())),
];

/// The place of an operator.
pub(super) fn operator(name: &str) -> usize {
    OPERATORS.iter().position(|(known, _)| *known == name).expect("an operator of the table")
}

/// Adds the operators, and the printing of values.
pub(super) fn register(environment: &mut Environment, meter: &Arc<Meter>) {
    for (name, operator) in OPERATORS {
        let meter = meter.clone();
        environment.add_filter(name, move |state: &State, args: Rest<Value>| -> Result<Value, Error> {
            meter.work(CALL)?;
            operator(&meter, state, &args)
        });
    }
    let meter = meter.clone();
    environment.set_formatter(move |out, _, value| {
        // What is printed counts until its capture has ended; the prompt until the end.
        let write = |text: &str, out: &mut minijinja::Output| {
            meter.charge(text.len())?;
            out.write_str(text).map_err(Error::from)
        };
        match value.as_str() {
            Some(text) => write(text, out),
            None => {
                let mut text = Text::new(&meter);
                text.print(value)?;
                write(text.as_str(), out)
            }
        }
    });
}

/// Two operands for minijinja's operator: it takes the last from the top.
fn operands(args: &[Value]) -> Value {
    Value::from(vec![args[1].clone(), args[0].clone()])
}

fn add(meter: &Arc<Meter>, state: &State, args: &[Value]) -> Result<Value, Error> {
    let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    let number = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(Value::from(i32::from(value.is_true()))),
        ValueKind::Number => Some(value.clone()),
        _ => None,
    };
    if is_list(&args[0]) && is_list(&args[1]) {
        return join(meter, &own(meter, args[0].clone())?, &own(meter, args[1].clone())?);
    }
    match (args[0].as_str(), args[1].as_str(), number(&args[0]), number(&args[1])) {
        (Some(_), Some(_), ..) => concatenate(meter, state, args),
        (.., Some(a), Some(b)) => filters::sum(state, Value::from(vec![a, b])),
        _ => Err(refuse(format!("tried to use + operator on unsupported types {} and {}", args[0].kind(), args[1].kind()))),
    }
}

/// `a * n` of a text or list is n times as long.
fn multiply(meter: &Arc<Meter>, _: &State, args: &[Value]) -> Result<Value, Error> {
    for (value, times) in [(&args[0], &args[1]), (&args[1], &args[0])] {
        let one = value.as_str().map(str::len).or_else(|| value.as_object().and(value.len()).map(|len| len.saturating_mul(SLOT)));
        if let (Some(one), Some(times)) = (one, times.as_usize()) {
            meter.room(one.saturating_mul(times))?;
            if value.as_str().is_none() && one == 0 && times > u32::MAX as usize {
                return Err(refuse("a list is repeated too often"));
            }
        }
    }
    Ok(operands(args))
}

fn concatenate(meter: &Arc<Meter>, _: &State, args: &[Value]) -> Result<Value, Error> {
    let mut text = Text::new(meter);
    text.print(&args[0])?;
    text.print(&args[1])?;
    text.finish()
}

pub(super) fn compare(meter: &Meter, args: &[Value]) -> Result<(), Error> {
    meter.work(match (args[0].as_str(), args[1].as_str()) {
        (Some(a), Some(b)) => a.len().min(b.len()) / 8,
        _ => weight(&args[0]).saturating_add(weight(&args[1])),
    })
}

/// `value in container`, as in minijinja.
pub(super) fn contains(meter: &Arc<Meter>, container: &Value, value: &Value) -> Result<bool, Error> {
    meter.work(weight(container).saturating_add(weight(value)))?;
    match (container.as_str(), container.as_object()) {
        _ if container.is_undefined() => Ok(false),
        (Some(text), _) => match value.as_str() {
            Some(part) => Ok(text.contains(part)),
            None => {
                let mut part = Text::new(meter);
                part.print(value)?;
                Ok(text.contains(part.as_str()))
            }
        },
        (_, Some(object)) => Ok(match object.repr() {
            ObjectRepr::Map => object.get_value(value).is_some(),
            ObjectRepr::Seq | ObjectRepr::Iterable => object.try_iter().into_iter().flatten().any(|item| &item == value),
            _ => false,
        }),
        _ => Err(refuse("cannot perform a containment check on this value")),
    }
}

/// `container[key]`: a key is hashed, a text gone through up to the character.
fn item(meter: &Arc<Meter>, _: &State, args: &[Value]) -> Result<Value, Error> {
    meter.work(args[0].as_str().map_or(0, str::len))?;
    if args[1].kind() != ValueKind::Number {
        meter.work(weight(&args[1]).saturating_mul(2))?;
    }
    args[0].get_item(&args[1])
}

/// `value[start:stop:step]`, as in Python.
fn slice(meter: &Arc<Meter>, _: &State, args: &[Value]) -> Result<Value, Error> {
    let bound = |value: &Value| match value.is_none() {
        true => Ok(None),
        false => value.as_i64().map(i128::from).map(Some).ok_or_else(|| refuse("slice bounds are integers")),
    };
    let (start, stop, step) = (bound(&args[1])?, bound(&args[2])?, bound(&args[3])?.unwrap_or(1));
    if step == 0 {
        return Err(refuse("cannot slice by step size of 0"));
    }
    let places = |len: usize| {
        let len = len as i128;
        let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
        let place = |bound: Option<i128>, none: i128| bound.map_or(none, |b| if b < 0 { b + len } else { b }.clamp(low, high));
        let (start, stop) = if step > 0 { (place(start, 0), place(stop, len)) } else { (place(start, len - 1), place(stop, -1)) };
        std::iter::successors(Some(start), move |at| Some(at + step))
            .take_while(move |at| if step > 0 { *at < stop } else { *at > stop })
            .map(|at| at as usize)
    };
    match (args[0].as_str(), args[0].kind()) {
        (Some(text), _) => {
            meter.room(text.len())?;
            meter.work(2 * text.len())?;
            if step == 1 {
                let places = places(text.chars().count());
                let (start, count) = (places.clone().next().unwrap_or(0), places.count());
                return own(meter, text.chars().skip(start).take(count).collect::<String>().into());
            }
            meter.room(4 * text.len())?;
            let chars: Vec<char> = text.chars().collect();
            own(meter, places(chars.len()).map(|at| chars[at]).collect::<String>().into())
        }
        (_, ValueKind::Undefined | ValueKind::None) => list(meter, std::iter::empty()),
        (_, ValueKind::Seq | ValueKind::Iterable) => {
            let whole = own(meter, args[0].clone())?;
            let places = places(whole.len().unwrap_or(0));
            pick(meter, &whole, places.clone().count(), places)
        }
        (_, kind) => Err(refuse(format!("value of type {kind} cannot be sliced"))),
    }
}

/// What a call gave. A macro's output, and that of a loop within itself, has been printed until here.
fn called(meter: &Arc<Meter>, _: &State, args: &[Value]) -> Result<Value, Error> {
    match args[1].kind() {
        ValueKind::Map => printed(meter, &args[0]),
        _ => own(meter, args[0].clone()),
    }
}

/// Printed text that becomes a value.
fn printed(meter: &Arc<Meter>, text: &Value) -> Result<Value, Error> {
    meter.release(text.as_str().map_or(0, str::len));
    own(meter, text.clone())
}
