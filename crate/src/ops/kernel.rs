//! What a kernel is, without naming the library that runs it: WGSL source in parts, and the buffers it is given.
//!
//! Source is concatenated: shared parts, the op's file and the weight format's `unpack4`; WGSL's module scope has no order.
//! Binding 0 is a uniform block of words (`Params` of the op), the others are storage buffers in the order of `bindings`.
//! Every kernel is listed in [`all`], and [`find`] gives no others: what the tests validate is what backends run.

use std::sync::OnceLock;

use crate::quant::Format;

/// How a kernel uses a storage buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Reads and writes.
    Write,
}

/// The name of a kernel: the op with its variant, and the format of the weight where there is one.
pub type Id = (&'static str, Option<Format>);

/// A kernel before compilation; its entry point is `main`.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its name.
    pub id: Id,
    /// Source parts.
    pub parts: Vec<&'static str>,
    /// The storage buffers with their binding numbers: 1, 2, ... and the planes of a weight at 5 and 6.
    pub bindings: Vec<(u32, Access)>,
}

impl Kernel {
    /// A kernel without weights.
    pub fn new(name: &'static str, parts: &[&'static str], bindings: &[Access]) -> Kernel {
        Kernel { id: (name, None), parts: parts.to_vec(), bindings: (1..).zip(bindings.iter().copied()).collect() }
    }

    /// A kernel for each format that has planes of its own; these are the last bindings.
    pub fn for_formats(name: &'static str, parts: &[&'static str], bindings: &[Access]) -> Vec<Kernel> {
        let kernel = |format: Format| {
            let planes = if format.is_quantised() { 2 } else { 1 };
            Kernel {
                id: (name, Some(format)),
                parts: [parts, &[include_str!("../quant/unpack.wgsl")], format.wgsl()].concat(),
                bindings: (1..)
                    .zip(bindings.iter().copied())
                    .chain([(5, Access::Read), (6, Access::Read)].into_iter().take(planes))
                    .collect(),
            }
        };
        Format::ALL.into_iter().filter(|format| format.planes() == *format).map(kernel).collect()
    }

    /// The whole source.
    pub fn source(&self) -> String {
        self.parts.concat()
    }
}

/// One use of a kernel.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which kernel.
    pub kernel: Id,
    /// The words of its `Params`.
    pub params: Vec<u32>,
    /// Workgroups in x, y and z.
    pub groups: [u32; 3],
}

/// Every kernel.
pub fn all() -> &'static [Kernel] {
    static ALL: OnceLock<Vec<Kernel>> = OnceLock::new();
    ALL.get_or_init(|| {
        [
            super::embed::kernels(),
            super::matmul::kernels(),
            super::rms_norm::kernels(),
            super::rope::kernels(),
            super::attention::kernels(),
            super::layer_norm::kernels(),
            super::activate::kernels(),
            super::gate::kernels(),
            super::route::kernels(),
            super::experts::kernels(),
            super::mix::kernels(),
            super::add::kernels(),
            super::mean_rows::kernels(),
            super::short_conv::kernels(),
            super::scale::kernels(),
            super::scale_columns::kernels(),
            super::softcap::kernels(),
            super::sample::kernels(),
        ]
        .concat()
    })
}

/// The kernel called `id`.
pub fn find(id: Id) -> &'static Kernel {
    all().iter().find(|k| k.id == id).unwrap_or_else(|| panic!("no kernel {id:?}"))
}

/// Workgroups for `n` pieces of work of which each group does `per_group`, folded into x and y: a dimension holds 65,535.
pub fn fold(n: usize, per_group: usize) -> [u32; 2] {
    let groups = n.div_ceil(per_group).max(1);
    let y = groups.div_ceil(65_535);
    [groups.div_ceil(y) as u32, y as u32]
}

/// Where a tensor lies in its buffer, in floats: element `[row, col]` is at `offset + row * stride + col`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// First element.
    pub offset: usize,
    /// Distance of rows.
    pub stride: usize,
}

impl View {
    /// A whole tensor.
    pub fn whole(rows: usize, cols: usize) -> View {
        View { rows, cols, offset: 0, stride: cols }
    }

    /// Floats from the first to the last element of a whole tensor.
    pub fn len(&self) -> usize {
        self.rows * self.stride
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    /// Whether kernels that read four floats at once can read it.
    pub fn in_quads(&self) -> bool {
        self.cols.is_multiple_of(4) && self.offset.is_multiple_of(4) && self.stride.is_multiple_of(4)
    }
}
