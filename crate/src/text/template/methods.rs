//! The methods that Python's texts and maps have, each with what a call of it takes.

use std::sync::Arc;

use minijinja::{Error, State, Value, value::from_args};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{
    builtins::{any, formatting, join, others, pairs, replace, splitting, stripping, text},
    data::own,
    meter::{Meter, refuse},
};

/// Calls a method, with what it is called on as the first of `all`.
pub(super) fn call(meter: &Arc<Meter>, state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let all = [std::slice::from_ref(value), args].concat();
    match (method, value.as_str()) {
        ("join", Some(joiner)) => {
            let (values,): (&Value,) = from_args(args)?;
            return join(meter, values, joiner);
        }
        ("replace", Some(_)) => {
            let (old, new, count): (&Value, &Value, Option<i32>) = from_args(args)?;
            any(meter, &all)?;
            return replace(meter, value, old, new, count.and_then(|count| usize::try_from(count).ok()));
        }
        // minijinja would count for ever.
        ("count", Some(_)) if args.first().and_then(Value::as_str) == Some("") => {
            return Err(refuse("count: an empty text is everywhere"));
        }
        ("split", Some(_)) => splitting(meter, &all)?,
        ("splitlines", Some(_)) => splitting(meter, &[value.clone(), Value::from("\n")])?,
        ("format", Some(_)) => formatting(meter, &all)?,
        ("strip" | "lstrip" | "rstrip", Some(_)) => stripping(meter, &all)?,
        ("upper" | "lower" | "title" | "capitalize", Some(_)) => text(meter, &all)?,
        ("startswith" | "endswith", Some(_)) | ("get", None) => others(meter, &all)?,
        ("keys" | "values" | "items", None) => pairs(meter, &all)?,
        _ => any(meter, &all)?,
    }
    own(meter, unknown_method_callback(state, value, method, args)?)
}
