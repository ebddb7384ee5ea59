//! Activations in 8 bits, for products with quantised weights: groups of 32 share a scale, `x = scale * code`, codes -127 to 127,
//! rounded to nearest, ties to even. [`crate::ops::matmul::round_activations`] is the plain form.
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
    }

    /// Columns, padded to whole groups.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> Row {
        let (at, groups) = (index * self.cols, index * self.cols / GROUP);
        Row {
            codes: self.codes[at..].as_ptr(),
            magnitudes: self.magnitudes[at..].as_ptr(),
            signs: self.signs[at..].as_ptr(),
            scales: self.scales[groups..].as_ptr(),
            sums: self.sums[2 * groups..].as_ptr(),
            totals: self.totals[groups..].as_ptr(),
            half_totals: self.half_totals[2 * groups..].as_ptr(),
        }
    }

    /// For writing rows.
    pub fn writer(&mut self) -> Writer<'_> {
        let cols = self.cols;
        let first = Target {
            codes: self.codes.as_mut_ptr(),
            magnitudes: self.magnitudes.as_mut_ptr(),
            signs: self.signs.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            sums: self.sums.as_mut_ptr(),
            totals: self.totals.as_mut_ptr(),
            half_totals: self.half_totals.as_mut_ptr(),
        };
        Writer { first, cols, rows: self.codes.len() / cols.max(1), _borrow: PhantomData }
    }
}

/// Writes rows of [`Activations`], each once.
pub struct Writer<'a> {
    first: Target,
    cols: usize,
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
}

impl Writer<'_> {
    /// Rounds `x` into row `index`, and what that leaves into the same row of `rest`, if any.
    pub fn quantise(&self, level: Level, index: usize, x: &[f32], rest: Option<&Writer<'_>>) {
        let rest = rest.map(|rest| rest.target(index));
        assert!(x.len() <= self.cols);
        level.run(Quantise { x, row: self.target(index), rest, cols: self.cols });
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
            }
        }
    }
}

struct Quantise<'a> {
    x: &'a [f32],
    row: Target,
    rest: Option<Target>,
    cols: usize,
}

impl Task for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.x.len() / GROUP;
        for g in 0..self.cols / GROUP {
            let mut group = [0.0_f32; GROUP];
            let have = if g < whole { GROUP } else { self.x.len() - g * GROUP };
            group[..have].copy_from_slice(&self.x[g * GROUP..][..have]);
            unsafe {
                self.row.put::<S>(g, &mut group);
                if let Some(rest) = self.rest {
                    rest.put::<S>(g, &mut group);
                }
            }
        }
    }
}

impl Target {
    /// Rounds a group; leaves in it what rounding took away.
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, g: usize, group: &mut [f32; GROUP]) {
        unsafe {
            let x = group.as_mut_ptr();
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
                    let value = S::load(x.add(i));
                    let code = S::round(S::mul(value, inverse));
                    S::store_i8(codes.add(i), code);
                    S::store(x.add(i), S::sub(value, S::mul(code, S::splat(scale))));
                    total = S::add(total, code);
                }
                // Whole numbers: exact in any order.
                *sum = fold::<S>(total, |a, b| a + b) as i32;
                *self.sums.add(2 * g + half) = *sum;
                *self.half_totals.add(2 * g + half) = scale * *sum as f32;
            }
            for i in g * GROUP..(g + 1) * GROUP {
                let code = *self.codes.add(i);
                *self.magnitudes.add(i) = code.abs();
                *self.signs.add(i) = code >> 7;
            }
            *self.scales.add(g) = scale;
            *self.totals.add(g) = scale * (sums[0] + sums[1]) as f32;
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
