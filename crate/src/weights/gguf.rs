//! GGUF: the header of a file (metadata and tensor table), read from its first bytes; [`model`] says what it is in transformers' terms.
//!
//! Layout, all little-endian: `GGUF`, version u32, tensor count u64, metadata count u64; metadata entries (key, value type,
//! value); tensor entries (name, dimension count, dimensions with the fastest first, type, offset); padding to
//! `general.alignment`; then the tensors' data, each padded to the alignment. Lengths and offsets are u64, strings are a
//! length and UTF-8. Source: the GGUF specification in the ggml repository.

use std::collections::HashSet;

pub mod architecture;
mod cursor;
mod families;
pub mod file;
pub mod generation;
mod metadata;
pub mod model;
pub mod order;
mod rope;
pub mod split;

use cursor::{Cursor, Stop};
pub use metadata::{Metadata, Strings, Value};
pub use model::Model;

use super::manifest::check_shape;
use crate::{
    error::{Error, Result},
    quant::Format,
};

/// Longest header that is read: vocabularies of 260,000 tokens with merges need about 15 MiB.
pub const MAX_HEADER: u64 = 128 << 20;

/// A tensor as the header lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name in GGUF's terms: `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions with the slowest first, as `[out, in]`.
    pub shape: Vec<usize>,
    /// How the blocks are stored.
    pub format: Format,
    /// First byte within the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Everything before the tensors' data.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// 2 or 3; they differ for big-endian files only.
    pub version: u32,
    /// All key-value pairs.
    pub metadata: Metadata,
    /// All tensors, in the order of their data.
    pub tensors: Vec<Tensor>,
}

/// What a prefix of a file yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// The whole header.
    Header(Header),
    /// The header goes on: at least this many of the file's first bytes are needed.
    NeedMore(u64),
}

/// Parses the header from `prefix`, the first bytes of a file of `file_len` bytes.
pub fn parse(prefix: &[u8], file_len: u64) -> Result<Parsed> {
    let mut cursor = Cursor::new(prefix, file_len);
    match header(&mut cursor, file_len) {
        Ok(header) => Ok(Parsed::Header(header)),
        Err(Stop::More(bytes)) => Ok(Parsed::NeedMore(bytes)),
        Err(Stop::Bad(error)) => Err(error),
    }
}

/// Fewest bytes of a metadata entry: key length, value type, a value of one byte.
const ENTRY_LEN: u64 = 13;
/// What a metadata entry takes in a map whose nodes are half full.
const ENTRY: usize = 128;
/// What a tensor takes: itself, its shape, its name in a set.
const TENSOR: usize = size_of::<Tensor>() + 64;

fn header(cursor: &mut Cursor, file_len: u64) -> Result<Header, Stop> {
    let version = version(cursor, file_len)?;
    let (tensor_count, metadata_count) = (cursor.u64()?, cursor.u64()?);
    let mut metadata = Metadata::default();
    for _ in 0..metadata_count {
        cursor.claim(1, ENTRY_LEN, ENTRY)?;
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        let value = value(cursor, kind, key)?;
        if !metadata.insert(key, value) {
            return Err(Error::InvalidFile(format!("GGUF metadata {key:?} occurs twice")).into());
        }
    }
    let alignment = alignment(&metadata)?;
    // A tensor entry takes at least 32 bytes: name length, dimension count, one dimension, type, offset.
    cursor.claim(tensor_count, 32, TENSOR)?;
    let mut tensors = Vec::with_capacity(tensor_count as usize);
    for _ in 0..tensor_count {
        tensors.push(tensor(cursor)?);
    }
    let data_start = (cursor.at() as u64).next_multiple_of(alignment);
    place(&mut tensors, data_start, alignment, file_len)?;
    Ok(Header { version, metadata, tensors })
}

/// Checks the magic number and the version.
fn version(cursor: &mut Cursor, file_len: u64) -> Result<u32, Stop> {
    let not_gguf = || Error::InvalidFile("not a GGUF file: it does not begin with the bytes \"GGUF\"".into());
    if file_len < 4 {
        return Err(not_gguf().into());
    }
    if cursor.array::<4>()? != *b"GGUF" {
        return Err(not_gguf().into());
    }
    let version = cursor.u32()?;
    match version {
        2 | 3 => Ok(version),
        v if matches!(v.swap_bytes(), 1..=0xffff) && v > 0xffff => {
            Err(Error::UnsupportedFormat("a big-endian GGUF file; convert it to little-endian".into()).into())
        }
        v => Err(Error::UnsupportedFormat(format!("GGUF version {v}; versions 2 and 3 are read")).into()),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    match metadata.u32("general.alignment")?.unwrap_or(32) {
        a if a.is_power_of_two() && (8..=1 << 16).contains(&a) => Ok(u64::from(a)),
        a => Err(Error::InvalidFile(format!("GGUF metadata \"general.alignment\" is {a}; expected a power of two from 8 to 65536"))),
    }
}

/// A metadata value of type number `kind`.
fn value(cursor: &mut Cursor, kind: u32, key: &str) -> Result<Value, Stop> {
    Ok(match kind {
        0..=5 | 10 | 11 => Value::Integer(integer(cursor, kind, key)?),
        6 | 12 => Value::Float(float(cursor, kind)?),
        7 => Value::Bool(boolean(cursor, key)?),
        8 => Value::String(cursor.string()?.to_owned()),
        9 => array(cursor, key)?,
        _ => return Err(Error::InvalidFile(format!("GGUF metadata {key:?} has the unknown value type {kind}")).into()),
    })
}

/// Elements of the largest arrays are vocabularies and their merges, below a million.
const MOST_ELEMENTS: u64 = 1 << 22;

fn array(cursor: &mut Cursor, key: &str) -> Result<Value, Stop> {
    let (kind, count) = (cursor.u32()?, cursor.u64()?);
    let size = smallest_size(kind, key)?;
    cursor.require(count, size)?;
    if count > MOST_ELEMENTS {
        return Err(
            Error::InvalidFile(format!("GGUF metadata {key:?} is an array of {count} elements, at most {MOST_ELEMENTS} are read")).into()
        );
    }
    Ok(match kind {
        6 | 12 => Value::Floats(list(cursor, count, size, |cursor| Ok(float(cursor, kind)? as f32))?),
        7 => Value::Bools(list(cursor, count, size, |cursor| boolean(cursor, key))?),
        8 => Value::Strings(strings(cursor, count)?),
        _ => Value::Integers(list(cursor, count, size, |cursor| integer(cursor, kind, key))?),
    })
}

/// `count` elements of at least `size` bytes.
fn list<T>(cursor: &mut Cursor, count: u64, size: u64, read: impl Fn(&mut Cursor) -> Result<T, Stop>) -> Result<Vec<T>, Stop> {
    cursor.claim(count, size, size_of::<T>())?;
    let mut list = Vec::with_capacity(count as usize);
    for _ in 0..count {
        list.push(read(cursor)?);
    }
    Ok(list)
}

/// Their length is found first, so that one text holds them all.
fn strings(cursor: &mut Cursor, count: u64) -> Result<Strings, Stop> {
    let mut ahead = cursor.clone();
    let mut bytes = 0;
    for _ in 0..count {
        bytes += ahead.string()?.len();
    }
    let mut strings = Strings::with_capacity(count as usize, bytes);
    for _ in 0..count {
        strings.push(cursor.string()?);
    }
    Ok(strings)
}

/// Fewest bytes of an array element of type number `kind`.
fn smallest_size(kind: u32, key: &str) -> Result<u64> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        8 | 10..=12 => Ok(8),
        9 => Err(Error::UnsupportedFormat(format!("GGUF metadata {key:?} is an array of arrays"))),
        _ => Err(Error::InvalidFile(format!("GGUF metadata {key:?} is an array of the unknown value type {kind}"))),
    }
}

fn integer(cursor: &mut Cursor, kind: u32, key: &str) -> Result<i64, Stop> {
    Ok(match kind {
        0 => cursor.array::<1>()?[0].into(),
        1 => i8::from_le_bytes(cursor.array()?).into(),
        2 => u16::from_le_bytes(cursor.array()?).into(),
        3 => i16::from_le_bytes(cursor.array()?).into(),
        4 => cursor.u32()?.into(),
        5 => i32::from_le_bytes(cursor.array()?).into(),
        11 => i64::from_le_bytes(cursor.array()?),
        _ => {
            let value = cursor.u64()?;
            i64::try_from(value).map_err(|_| Error::InvalidFile(format!("GGUF metadata {key:?} holds {value}, which is out of range")))?
        }
    })
}

fn float(cursor: &mut Cursor, kind: u32) -> Result<f64, Stop> {
    Ok(if kind == 6 { f32::from_le_bytes(cursor.array()?).into() } else { f64::from_le_bytes(cursor.array()?) })
}

fn boolean(cursor: &mut Cursor, key: &str) -> Result<bool, Stop> {
    match cursor.array()? {
        [0] => Ok(false),
        [1] => Ok(true),
        [b] => Err(Error::InvalidFile(format!("GGUF metadata {key:?} holds the boolean {b}; expected 0 or 1")).into()),
    }
}

/// One entry of the tensor table; `offset` still counts from the start of the data.
fn tensor(cursor: &mut Cursor) -> Result<Tensor, Stop> {
    let name = cursor.string()?;
    let bad = |what: String| Error::InvalidFile(format!("GGUF tensor {name:?} {what}"));
    let dimensions = cursor.u32()?;
    if !(1..=4).contains(&dimensions) {
        return Err(bad(format!("has {dimensions} dimensions; expected 1 to 4")).into());
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(usize::try_from(cursor.u64()?).unwrap_or(usize::MAX));
    }
    shape.reverse();
    check_shape(name, &shape)?;
    let kind = cursor.u32()?;
    let format = format(kind, name)?;
    let cols = shape[shape.len() - 1];
    let block = format.ggml().elements;
    if cols % block != 0 {
        return Err(bad(format!("has rows of {cols} elements, which are no multiple of the {block} of {}", format.name())).into());
    }
    let rows: u64 = shape[..shape.len() - 1].iter().map(|&d| d as u64).product();
    let len = rows * format.ggml_row_bytes(cols) as u64;
    Ok(Tensor { name: name.to_owned(), shape, format, offset: cursor.u64()?, len })
}

/// The format of ggml's type number `kind`.
fn format(kind: u32, tensor: &str) -> Result<Format> {
    Format::from_ggml(kind).ok_or_else(|| {
        let name = type_name(kind).map_or_else(|| format!("type number {kind}"), |n| format!("type {n} ({kind})"));
        let known = Format::ALL.map(|f| f.name().to_uppercase()).join(", ");
        Error::UnsupportedFormat(format!("GGUF tensor {tensor:?} has {name}; these types are read: {known}"))
    })
}

/// ggml's name of a type that this engine does not read.
fn type_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return None,
    })
}

/// Sorts the tensors by offset, turns offsets into file positions and checks that they follow each other without overlap or
/// unexplained bytes, up to the end of the file.
fn place(tensors: &mut [Tensor], data_start: u64, alignment: u64, file_len: u64) -> Result<()> {
    let mut names = HashSet::new();
    if let Some(twice) = tensors.iter().find(|t| !names.insert(t.name.as_str())) {
        return Err(Error::InvalidFile(format!("GGUF tensor {:?} occurs twice", twice.name)));
    }
    tensors.sort_by_key(|t| t.offset);
    let mut end = data_start;
    for tensor in tensors.iter_mut() {
        let expected = end.next_multiple_of(alignment);
        let at = data_start.saturating_add(tensor.offset);
        if at != expected {
            let message = format!("GGUF tensor {:?} begins at byte {at}; the data before it ends at byte {expected}", tensor.name);
            return Err(Error::InvalidFile(message));
        }
        tensor.offset = at;
        end = at + tensor.len;
        if end > file_len {
            let message = format!(
                "the GGUF file is cut short: tensor {:?} reaches from byte {at} to byte {end}, the file has {file_len} bytes",
                tensor.name
            );
            return Err(Error::Integrity(message));
        }
    }
    if file_len > end.next_multiple_of(alignment) {
        return Err(Error::Integrity(format!(
            "the GGUF file is too long: its last tensor ends at byte {end}, the file has {file_len} bytes"
        )));
    }
    Ok(())
}
