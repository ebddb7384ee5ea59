//! Weights as kernels read them: blocks of 16 rows whose elements are interleaved, so that a vector's lanes are rows and nothing
//! is added up across lanes.
//!
//! * floats: element `k` of 16 rows, then element `k + 1`;
//! * codes of a byte: elements `4q .. 4q + 3` of row 0, of row 1, ..., then the next four;
//! * codes of half a byte: elements `8o .. 8o + 3` in the lower, `8o + 4 .. 8o + 7` in the upper halves of four bytes a row;
//! * after the codes of a group of columns: the 16 rows' scales, then their minima if there are any, in f32. All that a product reads
//!   of a weight is one stream.

use half::{bf16, f16};

use super::{WORTH_A_FORK, parts::Parts, pool::Pool};
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
    format: Format,
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
    /// Added to codes.
    up: i32,
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
    /// Room for `rows` rows of `cols` elements: zeros, until they are written.
    pub fn new(format: Format, rows: usize, cols: usize) -> Result<Packed> {
        let integers = format.integers();
        let codes = match integers {
            None if format == Format::F32 => Codes::F32,
            None if format == Format::F16 => Codes::F16,
            None => Codes::Bf16,
            Some(Integers { largest: 32.., signed: true, .. }) => Codes::Signed,
            Some(Integers { signed: true, .. }) => Codes::Fives,
            Some(Integers { largest: ..=15, .. }) => Codes::Nibbles,
            Some(Integers { largest: ..=31, .. }) => Codes::Fives,
            Some(_) => Codes::Sixes,
        };
        let (group, offset) = integers.map_or((1, 0), |integers| (integers.group, integers.offset));
        // Kernels for bytes take codes without sign: signed ones are moved up.
        let up = if codes == Codes::Fives && integers.is_some_and(|integers| integers.signed) { 16 } else { 0 };
        let padded = cols.next_multiple_of(format.group()).next_multiple_of(group);
        let minima = integers.is_some_and(|integers| integers.minima);
        let mut packed = Packed { format, codes, rows, cols: padded, group, offset: offset + up, up, minima, lines: Vec::new() };
        packed.lines = zeros(packed.blocks().checked_mul(packed.block_lines()))?;
        Ok(packed)
    }

    /// Packs whole rows of a plane, the first of them row `first`; threads share them.
    pub fn write(&mut self, plane: Plane, first: usize, row_bytes: usize, bytes: &[u8], pool: &Pool) {
        // -128, which no quantiser writes, has no opposite.
        if plane == Plane::Values && self.codes == Codes::Signed && self.as_they_are() && bytes.contains(&0x80) {
            self.widen();
        }
        let rows = first..first + bytes.len() / row_bytes;
        let (from, blocks, block_lines) = (rows.start / ROWS, rows.end.div_ceil(ROWS) - rows.start / ROWS, self.block_lines());
        let mut lines = std::mem::take(&mut self.lines);
        let (shared, packed) = (Parts::new(&mut lines), &*self);
        pool.split(blocks, WORTH_A_FORK.div_ceil(row_bytes * ROWS), &|blocks| {
            let mut codes = Vec::new();
            for block in blocks.start + from..blocks.end + from {
                // SAFETY: each block is given out once.
                #[allow(unsafe_code)]
                let lines = unsafe { shared.part(block * block_lines..(block + 1) * block_lines) };
                for row in rows.start.max(block * ROWS)..rows.end.min((block + 1) * ROWS) {
                    let source = &bytes[(row - first) * row_bytes..][..row_bytes];
                    match (plane, packed.format.integers()) {
                        (Plane::Scales, Some(integers)) => packed.put_scales(lines, row % ROWS, source, &integers),
                        (Plane::Values, Some(integers)) if !packed.as_they_are() => {
                            codes.resize(packed.cols, 0);
                            (integers.codes)(source, &mut codes);
                            packed.put_codes(lines, row % ROWS, &codes);
                        }
                        _ => packed.put_row(lines, row % ROWS, source),
                    }
                }
            }
        });
        self.lines = lines;
    }

    /// From -127 to 127 to 0 to 255.
    fn widen(&mut self) {
        (self.codes, self.offset) = (Codes::Wide, self.offset + 128);
        let (group_lines, code_lines) = (self.group_lines(), self.code_lines());
        for group in self.lines.chunks_exact_mut(group_lines) {
            group[..code_lines].iter_mut().flat_map(|line| &mut line.0).for_each(|code| *code ^= 0x80);
        }
    }

    /// Whether a row's plane has the elements as they are kept here, but for their order.
    fn as_they_are(&self) -> bool {
        matches!(self.format.planes(), Format::F32 | Format::F16 | Format::Bf16 | Format::Q4_0 | Format::Q4_1 | Format::Q8_0)
    }

    /// Blocks of 16 rows, the last one perhaps with rows of zeros.
    #[inline(always)]
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// A block: groups one after the other.
    #[inline(always)]
    pub fn block(&self, block: usize) -> *const u8 {
        self.lines[block * self.block_lines()..].as_ptr().cast()
    }

    /// Lines of a group's codes.
    #[inline(always)]
    pub fn code_lines(&self) -> usize {
        self.group / self.codes.per_line()
    }

    /// Lines of a group: codes, scales, minima.
    #[inline(always)]
    pub fn group_lines(&self) -> usize {
        self.code_lines() + 1 + usize::from(self.minima)
    }

    #[inline(always)]
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

    /// The lines of a block that hold codes, in order.
    fn codes_of<'l>(&self, lines: &'l mut [Line]) -> impl Iterator<Item = &'l mut [u8; 64]> {
        let (per_group, codes) = match self.group {
            1 => (lines.len(), lines.len()),
            _ => (self.group_lines(), self.code_lines()),
        };
        lines.chunks_exact_mut(per_group).flat_map(move |group| group[..codes].iter_mut().map(|line| &mut line.0))
    }

    /// A row whose plane has the elements as they are kept here, into lane `lane` of a block.
    #[cfg_attr(size_first, optimize(speed))]
    fn put_row(&self, lines: &mut [Line], lane: usize, source: &[u8]) {
        for (place, unit) in self.codes_of(lines).zip(source.chunks_exact(4)) {
            match self.codes {
                // Two halves of a word lie 16 halves apart.
                Codes::F16 | Codes::Bf16 => {
                    place[2 * lane..][..2].copy_from_slice(&unit[..2]);
                    place[32 + 2 * lane..][..2].copy_from_slice(&unit[2..]);
                }
                Codes::Nibbles => {
                    let word = u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]);
                    let both = spread(word & 0xffff) | (spread(word >> 16) << 4);
                    place[4 * lane..][..4].copy_from_slice(&both.to_le_bytes());
                }
                Codes::Wide => std::iter::zip(&mut place[4 * lane..][..4], unit).for_each(|(place, code)| *place = code ^ 0x80),
                _ => place[4 * lane..][..4].copy_from_slice(unit),
            }
        }
    }

    /// A row of codes.
    #[cfg_attr(size_first, optimize(speed))]
    fn put_codes(&self, lines: &mut [Line], lane: usize, codes: &[i8]) {
        let per_line = self.codes.per_line();
        let code = |code: i8| code.wrapping_add(self.up as i8) as u8;
        for (place, codes) in self.codes_of(lines).zip(codes.chunks_exact(per_line)) {
            for (j, place) in place[4 * lane..][..4].iter_mut().enumerate() {
                *place = code(codes[j]) | if per_line == 8 { code(codes[4 + j]) << 4 } else { 0 };
            }
        }
    }

    #[cfg_attr(size_first, optimize(speed))]
    fn put_scales(&self, lines: &mut [Line], lane: usize, source: &[u8], integers: &Integers) {
        for (g, group) in lines.chunks_exact_mut(self.group_lines()).enumerate() {
            let numbers = (integers.scale)(source, g);
            for (line, number) in group[self.code_lines()..].iter_mut().zip(numbers) {
                line.0[4 * lane..][..4].copy_from_slice(&number.to_le_bytes());
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
