//! How weights are packed. A format is one file with its layout, packing and unpacking, beside its `.wgsl`, and a line here.
//!
//! Every weight is rows of `cols` elements in at most two *planes*, little-endian:
//!
//! * `values`: u32 words, lowest bits first; a row starts at a word boundary. 5- and 6-bit formats hold a group's nibbles,
//!   then its high bits.
//! * `scales`, in quantised formats only: what [`Scales`] says, for each group of [`Format::group`] elements.
//!
//! A quantised row is padded with zeros to whole groups. A float row is padded to whole words.
//!
//! ggml's blocks are split into these planes without a loss, except that the K types of 4, 5 and 6 bits and IQ4_XS, whose
//! scales have two levels, get one f16 for the product of the two: within 2^-11 of it. No format grows by more than 15 %.

use crate::error::{Error, Result};
pub use layout::{Ggml, Integers, Layout, Scales};

mod bits;
mod float;
mod iq4_nl;
mod iq4_xs;
mod layout;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident = $layout:expr,)*) => {
        /// How the elements of a weight are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Format {
            $($(#[$doc])* $name,)*
        }

        impl Format {
            /// All formats.
            pub const ALL: [Format; [$(stringify!($name)),*].len()] = [$(Format::$name),*];

            fn layout(self) -> &'static Layout {
                match self {
                    $(Format::$name => &$layout,)*
                }
            }
        }
    };
}

formats! {
    /// 32-bit floats.
    F32 = float::F32,
    /// IEEE half floats, two in a word.
    F16 = float::F16,
    /// The upper half of a 32-bit float, two in a word.
    Bf16 = float::BF16,
    /// 2 bits in groups of 16, scales and minima of 4 bits: `w = d * scale * q - dmin * minimum`.
    Q2K = q2_k::LAYOUT,
    /// 3 bits in groups of 16, scales of 6 bits: `w = d * scale * (q - 4)`.
    Q3K = q3_k::LAYOUT,
    /// 4 bits in groups of 32: `w = scale * (q - 8)`; element `i` of a row is nibble `i % 8` of word `i / 8`.
    Q4_0 = q4_0::LAYOUT,
    /// 4 bits in groups of 32: `w = scale * q + minimum`; nibbles as in [`Format::Q4_0`].
    Q4_1 = q4_1::LAYOUT,
    /// [`Format::Q4_1`], from ggml's blocks of 256 with scales in two levels.
    Q4K = q4_k::LAYOUT,
    /// 4 bits in groups of 32: `w = scale * table[q]`; nibbles as in [`Format::Q4_0`].
    Iq4Nl = iq4_nl::LAYOUT,
    /// [`Format::Iq4Nl`], from ggml's blocks of 256 with scales in two levels.
    Iq4Xs = iq4_xs::LAYOUT,
    /// 4-bit floats in groups of 32, a power of two as scale: `w = 2^(e - 127) * table[q]`; nibbles as in [`Format::Q4_0`].
    Mxfp4 = mxfp4::LAYOUT,
    /// 5 bits in groups of 32: `w = scale * (q - 16)`; four words of nibbles, a word of high bits.
    Q5_0 = q5_0::LAYOUT,
    /// 5 bits in groups of 32: `w = scale * q + minimum`; bits as in [`Format::Q5_0`].
    Q5_1 = q5_1::LAYOUT,
    /// [`Format::Q5_1`], from ggml's blocks of 256 with scales in two levels.
    Q5K = q5_k::LAYOUT,
    /// 6 bits in groups of 16: `w = scale * (q - 32)`; two words of nibbles, a word of high bits.
    Q6K = q6_k::LAYOUT,
    /// Signed 8 bits in groups of 32: `w = scale * q`; element `i` is byte `i % 4` of word `i / 4`.
    Q8_0 = q8_0::LAYOUT,
}

/// One of the two arrays that hold a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    /// The elements.
    Values,
    /// Scales (and minima) of groups.
    Scales,
}

impl Format {
    /// The name in manifests and messages.
    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// The format called `name`, or `unsupported_format`.
    pub fn parse(name: &str) -> Result<Format> {
        Format::ALL
            .into_iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| Error::UnsupportedFormat(format!("weight format {name:?}; known: {}", Format::ALL.map(Format::name).join(", "))))
    }

    /// The format whose planes these are: kernels know only those. Itself for all but a few.
    pub fn planes(self) -> Format {
        self.layout().planes
    }

    /// The parts of a kernel that unpack, with the planes at bindings 5 and 6: `unpack4(i) -> vec4f` gives elements 4i to 4i + 3
    /// of the values plane; `raw8(i)` gives 8 without scale, which is `scaling(g)` for each `GROUP` vec4s.
    pub fn wgsl(self) -> &'static [&'static str] {
        self.layout().wgsl
    }

    /// Bits of one element in the values plane.
    pub fn bits(self) -> usize {
        self.layout().bits
    }

    /// Elements that are packed together; for floats 1.
    pub fn group(self) -> usize {
        self.layout().group
    }

    /// What a group has in the scales plane.
    pub fn scales(self) -> Scales {
        self.layout().scales
    }

    /// Whether the format has a scales plane.
    pub fn is_quantised(self) -> bool {
        self.scales() != Scales::None
    }

    /// Bytes of one row of `cols` elements in `plane`. A scales row need not be a multiple of 4 bytes: rows follow each
    /// other without padding. Four rows always are one.
    pub fn row_bytes(self, plane: Plane, cols: usize) -> usize {
        match plane {
            Plane::Values => (cols.div_ceil(self.group()) * self.group() * self.bits()).div_ceil(32) * 4,
            Plane::Scales => cols.div_ceil(self.group()) * self.scales().bytes(),
        }
    }

    /// How ggml (GGUF) lays it out.
    pub fn ggml(self) -> Ggml {
        self.layout().ggml
    }

    /// The format of ggml's type number `id`.
    pub fn from_ggml(id: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|f| f.ggml().id == id)
    }

    /// Bytes of one row of `cols` elements in ggml's layout, where rows are whole blocks.
    pub fn ggml_row_bytes(self, cols: usize) -> usize {
        cols / self.ggml().elements * self.ggml().bytes
    }

    /// Splits one row of ggml blocks into the two planes; appends. `blocks` holds exactly this row. Fails only where a scale is
    /// too large for f16.
    pub fn split_ggml_row(self, blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
        (self.ggml().split)(blocks, values, scales)
    }

    /// Vec4s of a padded row of `cols` elements in the values plane; `cols` is a multiple of 4.
    pub fn row_quads(self, cols: usize) -> usize {
        cols.next_multiple_of(self.group()) / 4
    }

    /// Unpacks one row of `out.len()` elements. `values` and `scales` hold exactly this row.
    pub fn unpack_row(self, values: &[u8], scales: &[u8], out: &mut [f32]) {
        (self.layout().unpack)(values, scales, out);
    }

    /// How a row reads as integers; none for floats.
    pub fn integers(self) -> Option<Integers> {
        self.planes().layout().integers
    }

    /// Whether floats can be packed in this format; the others come from files.
    pub fn packs(self) -> bool {
        self.layout().pack.is_some()
    }

    /// Packs one row of floats; appends to the two planes. Only for formats that [`Format::packs`].
    pub fn pack_row(self, row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
        self.layout().pack.expect("a format for packing")(row, values, scales);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_then_unpacking_stays_within_a_step() {
        // Largest magnitude is 0.3: a step is 0.3/8 (q4_0), 0.6/15 (q4_1), 0.3/127 (q8_0), 2^-8 and 2^-11 relative (floats).
        // Half of it is the bound of rounding; q4_0 clips the side opposite to its largest element by up to one step, q4_1 both.
        let bounds = [
            (Format::F32, 0.0),
            (Format::F16, 0.3 / 2048.0),
            (Format::Bf16, 0.3 / 256.0),
            (Format::Q8_0, 0.3 / 127.0 * 0.51),
            (Format::Q4_0, 0.3 / 8.0 * 1.01),
            (Format::Q4_1, 0.6 / 15.0 * 1.01),
        ];
        assert!(Format::ALL.into_iter().all(|f| f.packs() == bounds.iter().any(|b| b.0 == f)));
        // Deterministic values of both signs, a row that is not a multiple of the group.
        let row: Vec<f32> = (0..80).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3).collect();
        for (format, bound) in bounds {
            let (mut values, mut scales) = (Vec::new(), Vec::new());
            format.pack_row(&row, &mut values, &mut scales);
            assert_eq!(values.len(), format.row_bytes(Plane::Values, row.len()), "{}", format.name());
            assert_eq!(scales.len(), format.row_bytes(Plane::Scales, row.len()), "{}", format.name());
            let mut out = vec![0.0; row.len()];
            format.unpack_row(&values, &scales, &mut out);
            for (a, b) in row.iter().zip(&out) {
                assert!((a - b).abs() <= bound, "{}: {a} became {b}", format.name());
            }
        }
    }

    #[test]
    fn integers_say_what_unpacking_gives() {
        for format in Format::ALL {
            let Some(integers) = format.integers() else {
                assert!(!format.is_quantised());
                continue;
            };
            // Any bytes are a row; scales of few bits, so that f16 holds no infinity.
            let bytes =
                |plane, mask: u8| (0..format.row_bytes(plane, 512)).map(|i| (i * 89 + i / 7 * 13) as u8 & mask).collect::<Vec<u8>>();
            let (values, scales) = (bytes(Plane::Values, 0xff), bytes(Plane::Scales, 0x3f));
            let (mut expected, mut codes) = (vec![0.0; 512], vec![0_i8; 512]);
            format.unpack_row(&values, &scales, &mut expected);
            (integers.codes)(&values, &mut codes);
            for (i, (w, code)) in expected.iter().zip(codes).enumerate() {
                let [scale, minimum] = (integers.scale)(&scales, i / integers.group);
                let code = i32::from(code);
                assert!(code.abs() <= integers.largest + i32::from(format == Format::Q8_0) && (integers.signed || code >= 0));
                assert!(integers.minima || minimum == 0.0);
                assert_eq!(scale * (code - integers.offset) as f32 + minimum, *w, "{} element {i}", format.name());
            }
        }
    }

    #[test]
    fn planes_are_at_most_15_percent_larger_than_blocks() {
        for format in Format::ALL {
            let ours: usize = [Plane::Values, Plane::Scales].into_iter().map(|plane| format.row_bytes(plane, 1024)).sum();
            assert!(ours as f64 <= 1.15 * format.ggml_row_bytes(1024) as f64, "{}: {ours} bytes", format.name());
            assert_eq!(format.planes().planes(), format.planes());
            let alike = |f: Format| (f.bits(), f.group(), f.scales(), f.wgsl());
            assert_eq!(alike(format), alike(format.planes()), "{}", format.name());
        }
    }

    #[test]
    fn names_and_numbers_are_unique() {
        for format in Format::ALL {
            assert_eq!(Format::parse(format.name()), Ok(format));
            assert_eq!(Format::from_ggml(format.ggml().id), Some(format));
        }
    }
}
