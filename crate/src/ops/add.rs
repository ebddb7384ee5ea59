//! Sum: `y = a + b`, where `b` has the rows of `a`, or one for all of them.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{backend::Backend, error::Result};

/// Bindings: a, b, y.
pub fn kernels() -> Vec<Kernel> {
    vec![Kernel::new("add", &[include_str!("add.wgsl")], &[Access::Read, Access::Read, Access::Write])]
}

/// The sum of two tensors of as many columns.
pub fn call(a: View, b: View) -> Call {
    let b_stride = if b.rows == 1 { 0 } else { b.stride };
    let params = [a.cols, a.offset, a.stride, b.offset, b_stride].map(|v| v as u32).to_vec();
    Call { kernel: ("add", None), params, groups: [a.cols.div_ceil(64) as u32, a.rows as u32, 1] }
}

/// Element by element, `b` again and again where it is shorter.
pub fn reference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b.iter().cycle()).map(|(a, b)| a + b).collect()
}

/// Widths around a workgroup; a view; one row for all.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(8);
    for (rows, b_rows, cols) in [(1, 1, 4), (3, 3, 64), (9, 9, 100), (9, 1, 100)] {
        let (wide, b) = (random.floats(rows * (cols + 4)), random.floats(b_rows * cols));
        let actual = check::one_step(backend, 0, rows, |backend| {
            let (left, right) = (backend.upload(cols + 4, &wide), backend.upload(cols, &b));
            let view = backend.columns(left, 4, cols);
            backend.add(view, right)
        })
        .await?;
        let a: Vec<f32> = wide.chunks_exact(cols + 4).flat_map(|r| &r[4..]).copied().collect();
        outcomes.push(Outcome { name: format!("add [{rows}, {cols}] + [{b_rows}, {cols}]"), expected: reference(&a, &b), actual });
    }
    Ok(outcomes)
}
