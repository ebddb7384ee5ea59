//! Products with packed weights: a tile of rows by a tile of tokens is kept in registers while the columns go by. Arrays begin as plain
//! zeros (`zeroed`, which vectors and pointers may be): `[value; N]` would be a loop where size comes first, and keep them in memory.
#![allow(unsafe_code)] // Vector loads and stores; output rows are divided among threads.

use std::{marker::PhantomData, mem::zeroed, ops::Range};

use super::{
    activations::{Activations, GROUP, Row},
    codes::{Bytes, Integers, Nibbles, Signed, Wide},
    pack::{Codes, Packed, ROWS},
    simd::{Level, Simd, Task, unroll},
};

/// What a product multiplies with.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// For quantised weights, and what rounding left of some groups.
    Rounded(&'a Activations, Option<&'a Activations>),
    /// For float weights: rows of `stride` elements.
    Floats(*const f32, usize),
}

/// Where results go, and what is added to them. All pointers are to the first row's column 0.
#[derive(Clone, Copy)]
pub struct Output {
    /// Results.
    pub y: *mut f32,
    /// From row to row.
    pub stride: usize,
    /// Column of the first row that is wanted; of the bias, its element.
    pub first: usize,
    /// A vector, added to each row.
    pub bias: Option<*const f32>,
    /// A matrix and its stride.
    pub residual: Option<(*const f32, usize)>,
}

/// Blocks of a weight times rows of activations.
#[derive(Clone)]
pub struct Product<'a> {
    /// The weight.
    pub weight: &'a Packed,
    /// Its blocks to be computed.
    pub blocks: Range<usize>,
    /// The activations.
    pub input: Input<'a>,
    /// Rows of the output to be computed.
    pub rows: Range<usize>,
    /// The activations' row for the first of them; the others follow.
    pub from: usize,
    /// Rows of the weight that are wanted: the first one's result goes to `output.first`.
    pub wanted: Range<usize>,
    /// Where to.
    pub output: Output,
}

impl Product<'_> {
    /// Computes it. Each kind of weight has a function of its own: a compiler at run time does better with small ones, and only with
    /// those that a model needs.
    pub fn run(self, level: Level) {
        match self.weight.codes {
            Codes::Nibbles if self.weight.group == 16 => level.run(Tiles::<Whole<Nibbles, 16>>(self, PhantomData)),
            Codes::Nibbles => level.run(Tiles::<Whole<Nibbles, 32>>(self, PhantomData)),
            Codes::Fives => level.run(Tiles::<Whole<Bytes<31>, 32>>(self, PhantomData)),
            Codes::Sixes => level.run(Tiles::<Whole<Bytes<63>, 16>>(self, PhantomData)),
            Codes::Signed => level.run(Tiles::<Whole<Signed, 32>>(self, PhantomData)),
            Codes::Wide => level.run(Tiles::<Whole<Wide, 32>>(self, PhantomData)),
            Codes::F32 => level.run(Tiles::<Floats<4>>(self, PhantomData)),
            Codes::F16 => level.run(Tiles::<Floats<2>>(self, PhantomData)),
            Codes::Bf16 => level.run(Tiles::<Floats<0>>(self, PhantomData)),
        }
    }
}

/// A product by one kernel.
struct Tiles<'a, K>(Product<'a>, PhantomData<K>);

impl<K: Kernel> Task for Tiles<'_, K> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { self.0.tiles::<S, K>() }
    }
}

impl Product<'_> {
    /// Tokens by twos, then one by one; all vectors of a block at a time.
    #[inline(always)]
    unsafe fn tiles<S: Simd, K: Kernel>(&self) {
        for block in self.blocks.clone() {
            let mut row = self.rows.start;
            unsafe {
                while row + 2 <= self.rows.end {
                    match S::LANES {
                        4 => self.tile::<S, K, 4, 2>(block, 0, row),
                        8 => self.tile::<S, K, 2, 2>(block, 0, row),
                        _ => self.tile::<S, K, 1, 2>(block, 0, row),
                    }
                    row += 2;
                }
                for row in row..self.rows.end {
                    match S::LANES {
                        4 => self.tile::<S, K, 4, 1>(block, 0, row),
                        8 => self.tile::<S, K, 2, 1>(block, 0, row),
                        _ => self.tile::<S, K, 1, 1>(block, 0, row),
                    }
                }
            }
        }
    }

    /// `V` vectors of a block from vector `first` on, `T` rows of activations from `row` on.
    #[inline(always)]
    unsafe fn tile<S: Simd, K: Kernel, const V: usize, const T: usize>(&self, block: usize, first: usize, row: usize) {
        unsafe {
            let x_row = self.from + row - self.rows.start;
            let sums = K::sums::<S, V, T>(self.weight, block, first * S::LANES, self.input, x_row);
            unroll!(t in T => unroll!(v in V => self.put::<S>(row + t, block * ROWS + (first + v) * S::LANES, sums[t][v])));
        }
    }

    /// Writes a vector of results: weight rows from `at` on.
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, row: usize, at: usize, mut sum: S::F) {
        let Output { y, stride, first, bias, residual } = self.output;
        let Range { start, end } = self.wanted;
        unsafe {
            if at >= start && at + S::LANES <= end {
                let column = first + at - start;
                if let Some(bias) = bias {
                    sum = S::add(sum, S::load(bias.add(column)));
                }
                if let Some((residual, stride)) = residual {
                    sum = S::add(sum, S::load(residual.add(row * stride + column)));
                }
                return S::store(y.add(row * stride + column), sum);
            }
            let mut lanes = [0.0_f32; 16];
            S::store(lanes.as_mut_ptr(), sum);
            for at_lane in at.max(start)..(at + S::LANES).min(end) {
                let column = first + at_lane - start;
                let bias = bias.map_or(0.0, |bias| *bias.add(column));
                let residual = residual.map_or(0.0, |(residual, stride)| *residual.add(row * stride + column));
                *y.add(row * stride + column) = lanes[at_lane - at] + bias + residual;
            }
        }
    }
}

/// The sums of a tile.
trait Kernel {
    unsafe fn sums<S: Simd, const V: usize, const T: usize>(
        weight: &Packed,
        block: usize,
        lane: usize,
        input: Input<'_>,
        row: usize,
    ) -> [[S::F; V]; T];
}

/// Floats: 4 for f32, 2 for f16, 0 for bf16.
struct Floats<const KIND: usize>;

impl<const KIND: usize> Kernel for Floats<KIND> {
    #[inline(always)]
    unsafe fn sums<S: Simd, const V: usize, const T: usize>(
        weight: &Packed,
        block: usize,
        lane: usize,
        input: Input<'_>,
        row: usize,
    ) -> [[S::F; V]; T] {
        let Input::Floats(x, stride) = input else { unreachable!("float weights take float activations") };
        let base = weight.block(block);
        unsafe {
            let mut sums: [[S::F; V]; T] = zeroed();
            let mut w: [S::F; V] = zeroed();
            for k in 0..weight.cols {
                unroll!(v in V => {
                    let at = k * ROWS + lane + v * S::LANES;
                    w[v] = match KIND {
                        4 => S::load(base.cast::<f32>().add(at)),
                        2 => S::load_f16(base.cast::<u16>().add(at)),
                        _ => S::load_bf16(base.cast::<u16>().add(at)),
                    };
                });
                unroll!(t in T => {
                    let x = S::splat(*x.add((row + t) * stride + k));
                    unroll!(v in V => sums[t][v] = S::mul_add(w[v], x, sums[t][v]));
                });
            }
            sums
        }
    }
}

/// Codes in groups of `G` elements.
struct Whole<C, const G: usize>(PhantomData<C>);

impl<C: Integers, const G: usize> Kernel for Whole<C, G> {
    #[inline(always)]
    unsafe fn sums<S: Simd, const V: usize, const T: usize>(
        weight: &Packed,
        block: usize,
        lane: usize,
        input: Input<'_>,
        row: usize,
    ) -> [[S::F; V]; T] {
        let Input::Rounded(rounded, rest) = input else { unreachable!("quantised weights take rounded activations") };
        let codes = unsafe { weight.block(block).add(lane * 4) };
        let (lines, bytes) = (weight.code_lines(), weight.group_lines() * 64);
        let groups = Groups { codes, lines, bytes, offset: weight.offset, minima: weight.minima };
        let end = weight.cols.min(rounded.cols()) / G; // Beyond the activations there is only padding.
        let (mut x, mut more): ([Row; T], [Row; T]) = unsafe { (zeroed(), zeroed()) };
        unroll!(t in T => (x[t], more[t]) = (rounded.row(row + t), rest.unwrap_or(rounded).row(row + t)));
        unsafe {
            let mut sums: [[S::F; V]; T] = zeroed();
            let mut rests: [[S::F; V]; T] = zeroed();
            // Groups in the order in which they lie in memory: what fetches ahead would lose its way otherwise.
            let mut again = [0_u64; T];
            for group in 0..rounded.cols() / GROUP {
                if rest.is_some() && group % 64 == 0 {
                    unroll!(t in T => again[t] = *more[t].groups.add(group / 64));
                }
                let mut both = again;
                unroll!(t in T => (both[t], again[t]) = (again[t] & 1, again[t] >> 1));
                for g in group * (GROUP / G)..end.min((group + 1) * (GROUP / G)) {
                    if T == 1 && both[0] != 0 {
                        // Two rows at a time: weights are unpacked once.
                        let mut two: [[S::F; V]; 2] = zeroed();
                        unroll!(v in V => (two[0][v], two[1][v]) = (sums[0][v], rests[0][v]));
                        groups.add::<S, C, V, 2, G>(&mut two, &[x[0], more[0]], g);
                        unroll!(v in V => (sums[0][v], rests[0][v]) = (two[0][v], two[1][v]));
                        continue;
                    }
                    groups.add::<S, C, V, T, G>(&mut sums, &x, g);
                    if both == [1; T] {
                        groups.add::<S, C, V, T, G>(&mut rests, &more, g);
                    } else {
                        unroll!(t in T => if both[t] != 0 {
                            let mut one = [rests[t]];
                            groups.add::<S, C, V, 1, G>(&mut one, &[more[t]], g);
                            rests[t] = one[0];
                        });
                    }
                }
            }
            unroll!(t in T => unroll!(v in V => sums[t][v] = S::add(sums[t][v], rests[t][v])));
            sums
        }
    }
}

/// A block's groups, from the first of some lanes on.
#[derive(Clone, Copy)]
struct Groups {
    codes: *const u8,
    /// Lines of a group's codes.
    lines: usize,
    /// From group to group.
    bytes: usize,
    offset: i32,
    minima: bool,
}

impl Groups {
    /// Adds the products of group `g`.
    #[inline(always)]
    unsafe fn add<S: Simd, C: Integers, const V: usize, const T: usize, const G: usize>(
        self,
        sums: &mut [[S::F; V]; T],
        x: &[Row; T],
        g: usize,
    ) {
        unsafe {
            let codes = self.codes.add(g * self.bytes);
            let mut dots: [[S::I; T]; V] = zeroed();
            C::dot::<S, V, T>(&mut dots, codes, self.lines, x, g * G);
            if self.offset != 0 {
                // (code - offset) * activation, summed: the offset's part is known before.
                unroll!(t in T => {
                    let sum = match G {
                        16 => *x[t].sums.add(g),
                        _ => *x[t].sums.add(2 * g) + *x[t].sums.add(2 * g + 1),
                    };
                    let known = S::splat_i(-self.offset * sum);
                    unroll!(v in V => dots[v][t] = S::add_i(dots[v][t], known));
                });
            }
            let scales = codes.add(self.lines * 64).cast::<f32>();
            let mut of_group: [S::F; V] = zeroed();
            unroll!(v in V => of_group[v] = S::load(scales.add(v * S::LANES)));
            unroll!(t in T => {
                let a = S::splat(*x[t].scales.add(g * G / GROUP));
                unroll!(v in V => sums[t][v] = S::mul_add(S::mul(S::to_f(dots[v][t]), of_group[v]), a, sums[t][v]));
            });
            if self.minima {
                let minima = scales.add(ROWS);
                unroll!(v in V => of_group[v] = S::load(minima.add(v * S::LANES)));
                unroll!(t in T => {
                    let total = S::splat(if G == 16 { *x[t].half_totals.add(g) } else { *x[t].totals.add(g) });
                    unroll!(v in V => sums[t][v] = S::mul_add(of_group[v], total, sums[t][v]));
                });
            }
        }
    }
}
