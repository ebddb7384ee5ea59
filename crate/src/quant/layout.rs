//! What the engine asks of a format, in one table that each format's file fills in.

use safetensors::Dtype;

use super::Format;
use crate::error::Result;

/// Unpacks a row from values and scales.
pub type Unpack = fn(values: &[u8], scales: &[u8], out: &mut [f32]);

/// Packs a row; appends to values and scales.
pub type Pack = fn(row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>);

/// Splits a row of ggml blocks; appends to values and scales.
pub type Split = fn(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()>;

/// A format.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The name in manifests and messages; in capitals it is ggml's.
    pub name: &'static str,
    /// The format whose planes these are. Formats that differ only in how ggml writes them share planes, and so kernels.
    pub planes: Format,
    /// Bits of an element in the values plane.
    pub bits: usize,
    /// Elements that are packed together: a quantised row is padded to whole groups. 1 for floats.
    pub group: usize,
    /// What a group has in the scales plane.
    pub scales: Scales,
    /// Unpacks.
    pub unpack: Unpack,
    /// For products of integers; none for floats.
    pub integers: Option<Integers>,
    /// Packs, for formats that floats are converted to.
    pub pack: Option<Pack>,
    /// How GGUF files hold it.
    pub ggml: Ggml,
    /// Parts of a kernel: `unpack4`, `raw8`, `scaling` and `GROUP`, with the planes at bindings 5 and 6.
    pub wgsl: &'static [&'static str],
}

/// How a quantised row reads as integers: `w = scale * (code - offset) + minimum`.
#[derive(Debug, Clone, Copy)]
pub struct Integers {
    /// Elements that share scale and minimum: 16 or 32.
    pub group: usize,
    /// Largest magnitude of a code.
    pub largest: i32,
    /// Codes below 0 occur.
    pub signed: bool,
    /// Subtracted from codes.
    pub offset: i32,
    /// Whether minima occur.
    pub minima: bool,
    /// Codes of a row.
    pub codes: fn(values: &[u8], codes: &mut [i8]),
    /// Scale and minimum of a row's group.
    pub scale: fn(scales: &[u8], group: usize) -> [f32; 2],
}

/// A ggml type: rows are blocks.
#[derive(Debug, Clone, Copy)]
pub struct Ggml {
    /// Its number in GGUF files.
    pub id: u32,
    /// Elements of a block.
    pub elements: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Splits blocks.
    pub split: Split,
}

/// What a group of elements has in the scales plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scales {
    /// Nothing: there is no such plane.
    None,
    /// A scale, f16.
    Scale,
    /// A scale and a minimum, f16.
    ScaleMinimum,
    /// For 256 elements a word and 16 bytes: two f16 that are common to all, and a byte for each 16 elements.
    TwoLevel,
    /// A byte `e`: the scale is `2^(e - 127)`.
    Exponent,
}

impl Scales {
    /// Bytes of a group.
    pub fn bytes(self) -> usize {
        match self {
            Scales::None => 0,
            Scales::Exponent => 1,
            Scales::Scale => 2,
            Scales::ScaleMinimum => 4,
            Scales::TwoLevel => 20,
        }
    }

    /// The plane's type in safetensors files.
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Scales::None | Scales::Scale | Scales::ScaleMinimum => Dtype::F16,
            Scales::TwoLevel | Scales::Exponent => Dtype::U8,
        }
    }
}
