//! Weights as kernels read them: blocks of 16 rows whose elements are interleaved, so that a vector's lanes are rows and nothing
//! is added up across lanes.
//!
//! * floats: element `k` of 16 rows, then element `k + 1`;
//! * codes of a byte: elements `4q .. 4q + 3` of row 0, of row 1, ..., then the next four;
//! * codes of half a byte: elements `8o .. 8o + 3` in the lower, `8o + 4 .. 8o + 7` in the upper halves of four bytes a row;
//! * scales and minima: f32, group `g` of 16 rows, then group `g + 1`.

use half::{bf16, f16};

use crate::{
    error::{Error, Result},
    quant::{Format, Integers, Plane},
};

/// Rows of a block.
pub const ROWS: usize = 16;

/// 64 bytes, aligned as the widest vector.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// What a code is, and how it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// f32.
    F32,
    /// f16.
    F16,
    /// bf16.
    Bf16,
    /// 0 to 15, in half a byte.
    Nibbles,
    /// 0 to 31, in a byte.
    Fives,
    /// 0 to 63, in a byte.
    Sixes,
    /// 0 to 255, in a byte.
    Wide,
}

impl Codes {
    /// Bytes of `cols` elements of 16 rows.
    fn block_bytes(self, cols: usize) -> usize {
        match self {
            Codes::F32 => 64 * cols,
            Codes::F16 | Codes::Bf16 => 32 * cols,
            Codes::Nibbles => 8 * cols,
            Codes::Fives | Codes::Sixes | Codes::Wide => 16 * cols,
        }
    }
}

/// Rows of one format, packed: `w = scale * (code - offset) + minimum`.
pub struct Packed {
    /// How codes are kept.
    pub codes: Codes,
    /// Rows.
    pub rows: usize,
    /// Elements of a row, padded to whole groups.
    pub cols: usize,
    /// Elements that share a scale; 1 for floats.
    pub group: usize,
    /// Subtracted from codes.
    pub offset: i32,
    values: Vec<Line>,
    scales: Vec<f32>,
    minima: Vec<f32>,
}

/// `n` zeros, or an error rather than the end of the process.
pub fn zeros<T: bytemuck::Zeroable + Clone>(n: Option<usize>) -> Result<Vec<T>> {
    let mut out = Vec::new();
    let n = n.filter(|&n| out.try_reserve_exact(n).is_ok());
    let n = n.ok_or_else(|| Error::OutOfMemory("the weights do not fit this process's memory".into()))?;
    out.resize(n, T::zeroed());
    Ok(out)
}

impl Packed {
    /// Packs the planes of `rows` rows of `cols` elements.
    pub fn new(format: Format, rows: usize, cols: usize, values: &[u8], scales: &[u8]) -> Result<Packed> {
        let integers = format.integers();
        let codes = match integers {
            None if format == Format::F32 => Codes::F32,
            None if format == Format::F16 => Codes::F16,
            None => Codes::Bf16,
            Some(Integers { largest: 32.., signed: true, .. }) => Codes::Wide,
            Some(Integers { signed: true, .. }) => Codes::Fives,
            Some(Integers { largest: ..=15, .. }) => Codes::Nibbles,
            Some(Integers { largest: ..=31, .. }) => Codes::Fives,
            Some(_) => Codes::Sixes,
        };
        // Kernels take codes without sign: signed ones are moved up.
        let up = match integers {
            Some(Integers { signed: true, .. }) if codes == Codes::Wide => 128,
            Some(Integers { signed: true, .. }) => 16,
            _ => 0,
        };
        let (group, offset) = integers.map_or((1, 0), |integers| (integers.group, integers.offset + up));
        let padded = cols.next_multiple_of(format.group()).next_multiple_of(group);
        let blocks = rows.div_ceil(ROWS);
        let lines = blocks.checked_mul(codes.block_bytes(padded).div_ceil(64));
        let mut packed = Packed { codes, rows, cols: padded, group, offset, values: zeros(lines)?, scales: Vec::new(), minima: Vec::new() };
        let row_bytes = format.row_bytes(Plane::Values, cols);
        let as_they_are = matches!(format.planes(), Format::F32 | Format::F16 | Format::Bf16 | Format::Q4_0 | Format::Q4_1);
        let mut unpacked = vec![0_i8; if as_they_are { 0 } else { padded }];
        for (row, source) in values.chunks_exact(row_bytes).take(rows).enumerate() {
            match integers {
                Some(integers) if !as_they_are => {
                    (integers.codes)(source, &mut unpacked);
                    unpacked.iter_mut().for_each(|code| *code = code.wrapping_add(up as u8 as i8));
                    packed.put_codes(row, &unpacked);
                }
                _ => packed.put_row(row, source),
            }
        }
        if let Some(integers) = integers {
            packed.put_scales(scales, format.row_bytes(Plane::Scales, cols), &integers)?;
        }
        Ok(packed)
    }

    /// Blocks of 16 rows, the last one perhaps with rows of zeros.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// The codes of a block.
    pub fn block(&self, block: usize) -> *const u8 {
        self.bytes()[block * self.block_stride()..].as_ptr()
    }

    /// Scales of a block: group by group, 16 each.
    pub fn block_scales(&self, block: usize) -> *const f32 {
        self.scales[block * self.cols / self.group * ROWS..].as_ptr()
    }

    /// Minima of a block, where there are any.
    pub fn block_minima(&self, block: usize) -> Option<*const f32> {
        (!self.minima.is_empty()).then(|| self.minima[block * self.cols / self.group * ROWS..].as_ptr())
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.values.len() * 64 + (self.scales.len() + self.minima.len()) * 4
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.values)
    }

    fn block_stride(&self) -> usize {
        self.codes.block_bytes(self.cols).next_multiple_of(64)
    }

    fn lines_of(&mut self, block: usize) -> &mut [u8] {
        let stride = self.block_stride();
        &mut bytemuck::cast_slice_mut::<Line, u8>(&mut self.values)[block * stride..(block + 1) * stride]
    }

    /// A row whose plane has the elements as they are kept here, but for their order.
    fn put_row(&mut self, row: usize, source: &[u8]) {
        let codes = self.codes;
        let (target, lane) = (self.lines_of(row / ROWS), row % ROWS);
        match codes {
            Codes::F16 | Codes::Bf16 => scatter::<2>(source, target, lane),
            Codes::F32 | Codes::Fives | Codes::Sixes | Codes::Wide => scatter::<4>(source, target, lane),
            Codes::Nibbles => {
                for (word, line) in source.chunks_exact(4).zip(target.chunks_exact_mut(64)) {
                    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    let both = spread(word & 0xffff) | (spread(word >> 16) << 4);
                    line[4 * lane..4 * lane + 4].copy_from_slice(&both.to_le_bytes());
                }
            }
        }
    }

    /// A row of codes.
    fn put_codes(&mut self, row: usize, codes: &[i8]) {
        let nibbles = self.codes == Codes::Nibbles;
        let (target, lane) = (self.lines_of(row / ROWS), row % ROWS);
        if !nibbles {
            return scatter::<4>(bytemuck::cast_slice(codes), target, lane);
        }
        for (octet, line) in codes.chunks_exact(8).zip(target.chunks_exact_mut(64)) {
            for i in 0..4 {
                line[4 * lane + i] = octet[i] as u8 | (octet[4 + i] as u8) << 4;
            }
        }
    }

    fn put_scales(&mut self, scales: &[u8], row_bytes: usize, integers: &Integers) -> Result<()> {
        let groups = self.cols / self.group;
        let room = self.blocks().checked_mul(groups * ROWS);
        self.scales = zeros(room)?;
        if integers.minima {
            self.minima = zeros(room)?;
        }
        for (row, source) in scales.chunks_exact(row_bytes).take(self.rows).enumerate() {
            let first = row / ROWS * groups * ROWS + row % ROWS;
            for g in 0..groups {
                let [scale, minimum] = (integers.scale)(source, g);
                self.scales[first + g * ROWS] = scale;
                if integers.minima {
                    self.minima[first + g * ROWS] = minimum;
                }
            }
        }
        Ok(())
    }

    /// Row `row`, unpacked to `out.len()` elements.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let (block, lane) = (row / ROWS, row % ROWS);
        let bytes = &self.bytes()[block * self.block_stride()..];
        let number = |i: usize| {
            let (quad, within) = (i / 4 * 64 + 4 * lane, i % 4);
            match self.codes {
                Codes::F32 => f32::from_le_bytes(bytes[64 * i + 4 * lane..][..4].try_into().expect("four bytes")),
                Codes::F16 => f16::from_le_bytes([bytes[32 * i + 2 * lane], bytes[32 * i + 2 * lane + 1]]).to_f32(),
                Codes::Bf16 => bf16::from_le_bytes([bytes[32 * i + 2 * lane], bytes[32 * i + 2 * lane + 1]]).to_f32(),
                Codes::Fives | Codes::Sixes | Codes::Wide => f32::from(bytes[quad + within]),
                Codes::Nibbles => f32::from((bytes[i / 8 * 64 + 4 * lane + within] >> (i / 4 % 2 * 4)) & 15),
            }
        };
        if self.group == 1 {
            return out.iter_mut().enumerate().for_each(|(i, o)| *o = number(i));
        }
        let groups = self.cols / self.group;
        for (g, chunk) in out.chunks_mut(self.group).enumerate() {
            let at = (block * groups + g) * ROWS + lane;
            let (scale, minimum) = (self.scales[at], self.minima.get(at).copied().unwrap_or(0.0));
            for (i, o) in chunk.iter_mut().enumerate() {
                *o = scale * (number(g * self.group + i) - self.offset as f32) + minimum;
            }
        }
    }
}

/// Units of `N` bytes of a row, each to its place among those of 16 rows.
fn scatter<const N: usize>(source: &[u8], target: &mut [u8], lane: usize) {
    for (unit, place) in source.chunks_exact(N).zip(target.chunks_exact_mut(N * ROWS)) {
        place[lane * N..(lane + 1) * N].copy_from_slice(unit);
    }
}

/// Four nibbles to four bytes.
fn spread(nibbles: u32) -> u32 {
    let pairs = (nibbles | (nibbles << 8)) & 0x00ff_00ff;
    (pairs | (pairs << 4)) & 0x0f0f_0f0f
}
