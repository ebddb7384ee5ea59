//! Weights as kernels read them: blocks of 16 rows whose elements are interleaved, so that a vector's lanes are rows and nothing
//! is added up across lanes.
//!
//! * floats: element `k` of 16 rows, then element `k + 1`;
//! * codes of a byte: elements `4q .. 4q + 3` of row 0, of row 1, ..., then the next four;
//! * codes of half a byte: elements `8o .. 8o + 3` in the lower, `8o + 4 .. 8o + 7` in the upper halves of four bytes a row;
//! * after the codes of a group of columns: the 16 rows' scales, then their minima if there are any, in f32. All that a product reads
//!   of a weight is one stream.

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
    /// -127 to 127, in a byte.
    Signed,
    /// 0 to 255, in a byte.
    Wide,
}

impl Codes {
    /// Elements of each of 16 rows that a line of 64 bytes holds.
    fn per_line(self) -> usize {
        match self {
            Codes::F32 => 1,
            Codes::F16 | Codes::Bf16 => 2,
            Codes::Nibbles => 8,
            Codes::Fives | Codes::Sixes | Codes::Signed | Codes::Wide => 4,
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
    /// Whether groups have minima.
    pub minima: bool,
    lines: Vec<Line>,
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
            // -128, which no quantiser writes, has no opposite.
            Some(Integers { largest: 32.., signed: true, .. }) if format == Format::Q8_0 && values.contains(&0x80) => Codes::Wide,
            Some(Integers { largest: 32.., signed: true, .. }) => Codes::Signed,
            Some(Integers { signed: true, .. }) => Codes::Fives,
            Some(Integers { largest: ..=15, .. }) => Codes::Nibbles,
            Some(Integers { largest: ..=31, .. }) => Codes::Fives,
            Some(_) => Codes::Sixes,
        };
        // Other kernels take codes without sign: signed ones are moved up.
        let up = match integers {
            Some(Integers { signed: true, .. }) if codes == Codes::Wide => 128,
            Some(Integers { signed: true, .. }) if codes == Codes::Fives => 16,
            _ => 0,
        };
        let (group, offset) = integers.map_or((1, 0), |integers| (integers.group, integers.offset + up));
        let padded = cols.next_multiple_of(format.group()).next_multiple_of(group);
        let minima = integers.is_some_and(|integers| integers.minima);
        let mut packed = Packed { codes, rows, cols: padded, group, offset, minima, lines: Vec::new() };
        packed.lines = zeros(packed.blocks().checked_mul(packed.block_lines()))?;
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
            packed.put_scales(scales, format.row_bytes(Plane::Scales, cols), &integers);
        }
        Ok(packed)
    }

    /// Blocks of 16 rows, the last one perhaps with rows of zeros.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// A block: groups one after the other.
    pub fn block(&self, block: usize) -> *const u8 {
        self.lines[block * self.block_lines()..].as_ptr().cast()
    }

    /// Lines of a group's codes.
    pub fn code_lines(&self) -> usize {
        self.group / self.codes.per_line()
    }

    /// Lines of a group: codes, scales, minima.
    pub fn group_lines(&self) -> usize {
        self.code_lines() + 1 + usize::from(self.minima)
    }

    fn block_lines(&self) -> usize {
        match self.group {
            1 => self.cols.div_ceil(self.codes.per_line()),
            group => self.cols / group * self.group_lines(),
        }
    }

    /// The line that holds element `first` of a block's rows and those after it.
    fn line(&self, block: usize, first: usize) -> usize {
        let (per_line, group) = (self.codes.per_line(), self.group);
        let within = if group == 1 { first / per_line } else { first / group * self.group_lines() + first % group / per_line };
        block * self.block_lines() + within
    }

    /// A row whose plane has the elements as they are kept here, but for their order.
    fn put_row(&mut self, row: usize, source: &[u8]) {
        let per_line = self.codes.per_line();
        for (i, unit) in source.chunks_exact(4).enumerate() {
            let line = self.line(row / ROWS, i * per_line);
            let place = &mut self.lines[line].0;
            match self.codes {
                // Two halves of a word lie 16 halves apart.
                Codes::F16 | Codes::Bf16 => {
                    place[2 * (row % ROWS)..][..2].copy_from_slice(&unit[..2]);
                    place[32 + 2 * (row % ROWS)..][..2].copy_from_slice(&unit[2..]);
                }
                Codes::Nibbles => {
                    let word = u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]);
                    let both = spread(word & 0xffff) | (spread(word >> 16) << 4);
                    place[4 * (row % ROWS)..][..4].copy_from_slice(&both.to_le_bytes());
                }
                _ => place[4 * (row % ROWS)..][..4].copy_from_slice(unit),
            }
        }
    }

    /// A row of codes.
    fn put_codes(&mut self, row: usize, codes: &[i8]) {
        let per_line = self.codes.per_line();
        for (i, codes) in codes.chunks_exact(per_line).enumerate() {
            let line = self.line(row / ROWS, i * per_line);
            for (j, place) in self.lines[line].0[4 * (row % ROWS)..][..4].iter_mut().enumerate() {
                *place = codes[j] as u8 | if per_line == 8 { (codes[4 + j] as u8) << 4 } else { 0 };
            }
        }
    }

    fn put_scales(&mut self, scales: &[u8], row_bytes: usize, integers: &Integers) {
        for (row, source) in scales.chunks_exact(row_bytes).take(self.rows).enumerate() {
            for g in 0..self.cols / self.group {
                let line = self.line(row / ROWS, g * self.group) + self.code_lines();
                let numbers = (integers.scale)(source, g);
                for (i, number) in numbers.iter().enumerate().take(1 + usize::from(self.minima)) {
                    self.lines[line + i].0[4 * (row % ROWS)..][..4].copy_from_slice(&number.to_le_bytes());
                }
            }
        }
    }

    /// Row `row`, unpacked to `out.len()` elements.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let (block, lane) = (row / ROWS, row % ROWS);
        let word = |line: usize| -> [u8; 4] { self.lines[line].0[4 * lane..][..4].try_into().expect("four bytes") };
        let number = |i: usize| {
            let line = self.line(block, i);
            let half = |at: usize| [self.lines[line].0[at], self.lines[line].0[at + 1]];
            match self.codes {
                Codes::F32 => f32::from_le_bytes(word(line)),
                Codes::F16 => f16::from_le_bytes(half(i % 2 * 32 + 2 * lane)).to_f32(),
                Codes::Bf16 => bf16::from_le_bytes(half(i % 2 * 32 + 2 * lane)).to_f32(),
                Codes::Signed => f32::from(word(line)[i % 4] as i8),
                Codes::Fives | Codes::Sixes | Codes::Wide => f32::from(word(line)[i % 4]),
                Codes::Nibbles => f32::from((word(line)[i % 4] >> (i / 4 % 2 * 4)) & 15),
            }
        };
        if self.group == 1 {
            return out.iter_mut().enumerate().for_each(|(i, o)| *o = number(i));
        }
        for (g, chunk) in out.chunks_mut(self.group).enumerate() {
            let line = self.line(block, g * self.group) + self.code_lines();
            let scale = f32::from_le_bytes(word(line));
            let minimum = if self.minima { f32::from_le_bytes(word(line + 1)) } else { 0.0 };
            for (i, o) in chunk.iter_mut().enumerate() {
                *o = scale * (number(g * self.group + i) - self.offset as f32) + minimum;
            }
        }
    }
}

/// Four nibbles to four bytes.
fn spread(nibbles: u32) -> u32 {
    let pairs = (nibbles | (nibbles << 8)) & 0x00ff_00ff;
    (pairs | (pairs << 4)) & 0x0f0f_0f0f
}
