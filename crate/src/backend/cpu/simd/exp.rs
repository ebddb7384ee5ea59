//! The exponential function.

use std::{f32::consts::LOG2_E, hint::black_box};

use super::{Simd, WHOLE};

/// `exp(x)`, to about 1e-7 relative, within -87.3 to 88; beyond, the value there.
#[derive(Clone, Copy)]
pub struct Exp(&'static [f32; 13]);

impl Exp {
    /// To be made before a loop. Browsers' compilers make a constant that they know anew at each use, with three or four instructions; taking it
    /// from memory is one.
    pub fn prepare() -> Exp {
        Exp(black_box(&[
            -87.3,
            88.0,
            LOG2_E,
            WHOLE,
            // -ln 2 in two parts (Cody and Waite).
            -0.693_359_4,
            2.121_944_4e-4,
            // The polynomial of degree 6 with the least relative error (2e-9) between -ln 2 / 2 and ln 2 / 2.
            1.383_683_5e-3,
            8.374_825e-3,
            4.166_822_5e-2,
            0.166_664_2,
            0.499_999_9,
            1.0,
            1.0,
        ]))
    }

    /// `exp(x)`.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    pub unsafe fn of<S: Simd>(self, x: S::F) -> S::F {
        let [least, most, log2_e, whole, ln_2, rest, c6, c5, c4, c3, c2, c1, c0] = self.0;
        unsafe {
            // e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2.
            let x = S::min(S::max(x, S::splat(*least)), S::splat(*most));
            let shifted = S::mul_add(x, S::splat(*log2_e), S::splat(*whole));
            let n = S::sub(shifted, S::splat(*whole));
            let r = S::mul_add(n, S::splat(*rest), S::mul_add(n, S::splat(*ln_2), x));
            let mut y = S::mul_add(S::splat(*c6), r, S::splat(*c5));
            y = S::mul_add(y, r, S::splat(*c4));
            y = S::mul_add(y, r, S::splat(*c3));
            y = S::mul_add(y, r, S::splat(*c2));
            y = S::mul_add(y, r, S::splat(*c1));
            y = S::mul_add(y, r, S::splat(*c0));
            S::times_pow2(y, shifted)
        }
    }
}
