//! Activations in 8 bits, for products with quantised weights: groups of 32 share a scale, `x = scale * code`, codes -127 to 127,
//! rounded to nearest, ties to even. What that leaves of some groups is rounded again, into a second set of rows that has these groups
//! only. [`crate::ops::matmul::round_activations`] is the plain form.
#![allow(unsafe_code)] // Vector loads and stores.

use std::marker::PhantomData;

use super::simd::{Level, Simd, Task};

/// Elements that share a scale.
pub const GROUP: usize = 32;
/// Elements that share a sum: some weights have groups of 16.
const HALF: usize = 16;

/// Rows of quantised activations; buffers are kept from one product to the next.
#[derive(Default)]
pub struct Activations {
    /// Columns, padded to whole groups.
    cols: usize,
    codes: Vec<i8>,
    /// |code|, and -1 where a code is negative.
    magnitudes: Vec<i8>,
    signs: Vec<i8>,
    scales: Vec<f32>,
    /// Sums of codes, per half group.
    sums: Vec<i32>,
    /// `scale * sum`, per group and then per half group.
    totals: Vec<f32>,
    half_totals: Vec<f32>,
    /// A bit for each group of a second rounding that is not nothing.
    groups: Vec<u64>,
}

/// One row of [`Activations`].
#[derive(Clone, Copy)]
pub struct Row {
    /// Codes.
    pub codes: *const i8,
    /// |code|.
    pub magnitudes: *const i8,
    /// -1 where a code is negative, otherwise 0.
    pub signs: *const i8,
    /// Scale of each group.
    pub scales: *const f32,
    /// Sum of the codes of each half group.
    pub sums: *const i32,
    /// Scaled sum of each group.
    pub totals: *const f32,
    /// Scaled sum of each half group.
    pub half_totals: *const f32,
    /// A bit for each group of a second rounding that is not nothing.
    pub groups: *const u64,
}

impl Activations {
    /// Makes room for `rows` rows of `cols` columns.
    pub fn resize(&mut self, rows: usize, cols: usize) {
        self.cols = cols.next_multiple_of(GROUP);
        let n = rows * self.cols;
        // Only ever longer: what is not written is not read.
        fn grow<T: Default + Clone>(v: &mut Vec<T>, n: usize) {
            if v.len() < n {
                v.resize(n, T::default());
            }
        }
        grow(&mut self.codes, n);
        grow(&mut self.magnitudes, n);
        grow(&mut self.signs, n);
        grow(&mut self.scales, n / GROUP);
        grow(&mut self.sums, n / HALF);
        grow(&mut self.totals, n / GROUP);
        grow(&mut self.half_totals, n / HALF);
        let words = rows * self.words();
        grow(&mut self.groups, words);
    }

    /// Words of a row's `groups`.
    #[inline(always)]
    pub fn words(&self) -> usize {
        (self.cols / GROUP).div_ceil(64)
    }

    /// Columns, padded to whole groups.
    #[inline(always)]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `index`.
    #[inline(always)]
    pub fn row(&self, index: usize) -> Row {
        assert!((index + 1) * self.cols <= self.codes.len());
        let (at, groups) = (index * self.cols, index * self.cols / GROUP);
        // SAFETY: within the buffers, which `resize` makes equally long.
        unsafe {
            Row {
                codes: self.codes.as_ptr().add(at),
                magnitudes: self.magnitudes.as_ptr().add(at),
                signs: self.signs.as_ptr().add(at),
                scales: self.scales.as_ptr().add(groups),
                sums: self.sums.as_ptr().add(2 * groups),
                totals: self.totals.as_ptr().add(groups),
                half_totals: self.half_totals.as_ptr().add(2 * groups),
                groups: self.groups.as_ptr().add(index * self.words()),
            }
        }
    }

    /// For writing rows.
    pub fn writer(&mut self) -> Writer<'_> {
        let (cols, words) = (self.cols, self.words());
        let first = Target {
            codes: self.codes.as_mut_ptr(),
            magnitudes: self.magnitudes.as_mut_ptr(),
            signs: self.signs.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            sums: self.sums.as_mut_ptr(),
            totals: self.totals.as_mut_ptr(),
            half_totals: self.half_totals.as_mut_ptr(),
            groups: self.groups.as_mut_ptr(),
        };
        Writer { first, cols, words, rows: self.codes.len() / cols.max(1), _borrow: PhantomData }
    }
}

/// Writes rows of [`Activations`], each once.
pub struct Writer<'a> {
    first: Target,
    cols: usize,
    words: usize,
    rows: usize,
    _borrow: PhantomData<&'a mut Activations>,
}

// SAFETY: it borrows the buffers; `quantise` writes a row's own parts, and no row is written by two threads at a time.
unsafe impl Sync for Writer<'_> {}

/// Where a row goes.
#[derive(Clone, Copy)]
struct Target {
    codes: *mut i8,
    magnitudes: *mut i8,
    signs: *mut i8,
    scales: *mut f32,
    sums: *mut i32,
    totals: *mut f32,
    half_totals: *mut f32,
    groups: *mut u64,
}

impl Writer<'_> {
    /// Rounds `x` into row `index`, and what that leaves of the `again` groups with the largest scales into the same row of `rest`;
    /// `signs` says whether magnitudes and signs are wanted.
    pub fn quantise(&self, level: Level, index: usize, x: &[f32], rest: &Writer<'_>, again: usize, signs: bool) {
        let rest = rest.target(index);
        assert!(x.len() <= self.cols);
        level.run(Quantise { x, row: self.target(index), rest, again, signs, groups: self.cols / GROUP, words: self.words });
    }

    fn target(&self, index: usize) -> Target {
        assert!(index < self.rows);
        let (at, groups) = (index * self.cols, index * self.cols / GROUP);
        // SAFETY: within the buffers, as asserted.
        unsafe {
            Target {
                codes: self.first.codes.add(at),
                magnitudes: self.first.magnitudes.add(at),
                signs: self.first.signs.add(at),
                scales: self.first.scales.add(groups),
                sums: self.first.sums.add(2 * groups),
                totals: self.first.totals.add(groups),
                half_totals: self.first.half_totals.add(2 * groups),
                groups: self.first.groups.add(index * self.words),
            }
        }
    }
}

struct Quantise<'a> {
    x: &'a [f32],
    row: Target,
    rest: Target,
    again: usize,
    signs: bool,
    groups: usize,
    words: usize,
}

impl Task for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Quantise { row, rest, groups, words, signs, .. } = self;
        unsafe {
            for g in 0..groups {
                row.put::<S>(g, &self.group(g), signs);
            }
            if self.again == 0 {
                return;
            }
            let least = rest.least(&row, groups, self.again);
            rest.keep(groups, words, |g| *row.scales.add(g) >= least);
            for g in 0..groups {
                if *row.scales.add(g) >= least {
                    let mut group = self.group(g);
                    row.subtract(g, &mut group);
                    rest.put::<S>(g, &group, signs);
                } else {
                    rest.clear(g);
                }
            }
        }
    }
}

impl Quantise<'_> {
    /// Group `g`, padded with zeros.
    #[inline(always)]
    fn group(&self, g: usize) -> [f32; GROUP] {
        let mut group = [0.0; GROUP];
        let from = &self.x[g * GROUP..self.x.len().min((g + 1) * GROUP)];
        group[..from.len()].copy_from_slice(from);
        group
    }
}

impl Target {
    /// Rounds a group.
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, g: usize, group: &[f32; GROUP], signs: bool) {
        unsafe {
            let x = group.as_ptr();
            let mut largest = S::splat(0.0);
            for i in (0..GROUP).step_by(S::LANES) {
                largest = S::max(S::abs(S::load(x.add(i))), largest);
            }
            let largest = fold::<S>(largest, f32::max);
            let scale = largest / 127.0;
            let inverse = S::splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
            let codes = self.codes.add(g * GROUP);
            let mut sums = [0; 2];
            for (half, sum) in sums.iter_mut().enumerate() {
                let mut total = S::splat(0.0);
                for i in (half * HALF..(half + 1) * HALF).step_by(S::LANES) {
                    let code = S::round(S::mul(S::load(x.add(i)), inverse));
                    S::store_i8(codes.add(i), code);
                    total = S::add(total, code);
                }
                // Whole numbers: exact in any order.
                *sum = fold::<S>(total, |a, b| a + b) as i32;
                *self.sums.add(2 * g + half) = *sum;
                *self.half_totals.add(2 * g + half) = scale * *sum as f32;
            }
            if signs {
                S::store_signs(codes, self.magnitudes.add(g * GROUP), self.signs.add(g * GROUP));
            }
            *self.scales.add(g) = scale;
            *self.totals.add(g) = scale * (sums[0] + sums[1]) as f32;
        }
    }

    /// Makes a group nothing, whatever its codes are.
    unsafe fn clear(&self, g: usize) {
        unsafe {
            *self.scales.add(g) = 0.0;
            *self.totals.add(g) = 0.0;
            *self.half_totals.add(2 * g) = 0.0;
            *self.half_totals.add(2 * g + 1) = 0.0;
        }
    }

    /// Takes from `x` what this has of it.
    #[inline(always)]
    unsafe fn subtract(&self, g: usize, x: &mut [f32; GROUP]) {
        unsafe {
            let scale = *self.scales.add(g);
            for (i, x) in x.iter_mut().enumerate() {
                *x -= scale * f32::from(*self.codes.add(g * GROUP + i));
            }
        }
    }

    /// Says which groups there are.
    #[inline(always)]
    unsafe fn keep(&self, groups: usize, words: usize, kept: impl Fn(usize) -> bool) {
        for word in 0..words {
            let within = word * 64..groups.min((word + 1) * 64);
            let bits = within.clone().filter(|g| kept(*g)).fold(0, |bits, g| bits | 1_u64 << (g - within.start));
            unsafe { *self.groups.add(word) = bits };
        }
    }

    /// The `n`th largest scale of `row`; our own scales, not written yet, are the room to find it.
    unsafe fn least(&self, row: &Target, groups: usize, n: usize) -> f32 {
        unsafe {
            let room = std::slice::from_raw_parts_mut(self.scales, groups);
            std::ptr::copy_nonoverlapping(row.scales, self.scales, groups);
            *room.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1
        }
    }
}

/// One number of all lanes.
#[inline(always)]
pub unsafe fn fold<S: Simd>(v: S::F, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 16];
    unsafe { S::store(lanes.as_mut_ptr(), v) };
    let mut width = S::LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}
