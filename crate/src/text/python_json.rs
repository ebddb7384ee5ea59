//! JSON as Python writes it: what transformers' `tojson` gives.

use std::io;

use minijinja::{ErrorKind, Value, value::Kwargs};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`, which transformers puts in place of Jinja's own
/// filter (that one escapes HTML).
pub(super) fn tojson(value: &Value, kwargs: &Kwargs, out: &mut impl io::Write) -> Result<(), minijinja::Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    if kwargs.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "tojson: ensure_ascii is not known"));
    }
    kwargs.assert_all_used()?;
    let spaces = [b' '; 16];
    let pretty = indent.map(|indent| PrettyFormatter::with_indent(&spaces[..indent.min(16)]));
    value
        .serialize(&mut serde_json::Serializer::with_formatter(out, Python { pretty }))
        .map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, format!("tojson: {e}")))
}

/// Indented, or on one line with a space after `,` and `:`.
struct Python<'a> {
    pretty: Option<PrettyFormatter<'a>>,
}

/// What both kinds of lists and objects have: the indented form's method, or else some bytes.
macro_rules! or_bytes {
    ($(fn $name:ident($($argument:ident)?) $bytes:expr;)*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $argument: bool)?) -> io::Result<()> {
            match &mut self.pretty {
                Some(pretty) => pretty.$name(writer $(, $argument)?),
                None => writer.write_all($bytes),
            }
        }
    )*};
}

impl Formatter for Python<'_> {
    or_bytes! {
        fn begin_array() b"[";
        fn end_array() b"]";
        fn begin_array_value(first) if first { b"" } else { b", " };
        fn end_array_value() b"";
        fn begin_object() b"{";
        fn end_object() b"}";
        fn begin_object_key(first) if first { b"" } else { b", " };
        fn begin_object_value() b": ";
        fn end_object_value() b"";
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float(value).as_bytes())
    }
}

/// Python's `repr` of a float: positional from 1e-4 up to 1e16, with an exponent of two digits or more beyond.
pub(super) fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e').and_then(|(d, e)| Some((d, e.parse::<i32>().ok()?))) else {
        return value.to_string();
    };
    match exponent {
        -4..16 => format!("{value:?}"),
        _ => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_pythons() {
        for (value, text) in [
            (1.5, "1.5"),
            (2.0, "2.0"),
            (-0.0, "-0.0"),
            (1e16, "1e+16"),
            (1.25e-5, "1.25e-05"),
            (123456789.0, "123456789.0"),
            (1e-4, "0.0001"),
        ] {
            assert_eq!(float(value), text);
        }
    }
}
