//! From a checkpoint's tensors to a backend's weights: checks shapes, stacks, splits by rows where a buffer must stay small,
//! and streams the planes in pieces.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use super::{Checkpoint, Part, TensorInfo};
use crate::{
    backend::{Backend, Rope, Segment, Weight},
    error::{Error, Result},
    quant::{Format, Plane},
};

pub mod experts;
mod segments;
mod targets;

use segments::segments;
pub use targets::{Side, Slot, Target, Targets};

/// Bytes read and handed over at a time; bounds the loader's memory.
const PIECE: u64 = 2 << 20;

/// Bytes loaded and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Gives an architecture its weights by the publisher's names.
///
/// Without a backend it only checks: the same architecture code then names a missing or misshapen tensor before any weight
/// byte is fetched. The handles it gives are then meaningless.
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    backend: Option<&'a mut dyn Backend>,
    progress: Option<Progress<'a>>,
    used: BTreeSet<String>,
    /// Of each weight the tensors that it was made of.
    placed: HashMap<Weight, Vec<(String, Target)>>,
    targets: Targets,
    stripped: &'static str,
    loaded: u64,
    total: u64,
    context: usize,
}

/// Rows of one tensor that go to one segment.
struct Source<'t> {
    tensor: &'t TensorInfo,
    rows: Range<usize>,
}

impl<'a> Loader<'a> {
    /// Loads into `backend`, for sessions of up to `context` tokens.
    pub fn new(checkpoint: &'a Checkpoint, backend: &'a mut dyn Backend, context: usize, progress: Progress<'a>) -> Self {
        let bytes = |t: &TensorInfo| t.values.iter().chain(&t.scales).map(|p| p.len).sum::<u64>();
        let total = checkpoint.tensors.values().map(bytes).sum();
        Loader { backend: Some(backend), progress: Some(progress), total, context, ..Loader::check(checkpoint) }
    }

    /// Checks names and shapes only.
    pub fn check(checkpoint: &'a Checkpoint) -> Self {
        Loader {
            checkpoint,
            backend: None,
            progress: None,
            used: BTreeSet::new(),
            stripped: "",
            placed: HashMap::new(),
            targets: Targets::default(),
            loaded: 0,
            total: 0,
            context: 0,
        }
    }

    /// The table of what adapters can change, which fills while weights become linear maps.
    pub fn targets(&self) -> Targets {
        self.targets.clone()
    }

    /// Lets adapters change what `weight` is made of: a linear map looks into this slot.
    pub fn slot(&mut self, weight: Weight) -> Slot {
        let placed = self.placed.remove(&weight).unwrap_or_default();
        let slot = placed.first().map(|(_, target)| target.slot.clone()).unwrap_or_default();
        for (name, target) in placed {
            self.targets.insert(name, target);
        }
        slot
    }

    /// Notes which rows of which tensors `weight` holds; nothing was loaded while only checking.
    fn place(&mut self, weight: Weight, cols: usize, tensors: Vec<(&str, Vec<Range<usize>>)>, transposed: bool) {
        if self.backend.is_none() {
            return;
        }
        let rows = |order: &[Range<usize>]| order.iter().map(Range::len).sum::<usize>();
        let (slot, out) = (Slot::default(), tensors.iter().map(|(_, order)| rows(order)).sum());
        let mut start = 0;
        for (name, order) in tensors {
            let (name, first) = (self.published(name).to_owned(), start);
            start += rows(&order);
            let target = Target { slot: slot.clone(), weight, out, cols, start: first, order, transposed };
            self.placed.entry(weight).or_default().push((name, target));
        }
    }

    /// Most tokens that a session will be asked to hold; the model may have been made for fewer.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Says that names which begin with `prefix` are published without it.
    pub fn strip(&mut self, prefix: &'static str) {
        self.stripped = prefix;
    }

    fn published<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(self.stripped).unwrap_or(name)
    }

    /// Whether the checkpoint has a tensor called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.tensors.contains_key(self.published(name))
    }

    /// Says that the tensor `name`, if there is one, is known and holds nothing that is needed: a mask, a table.
    pub fn ignore(&mut self, name: &str) {
        self.used.insert(self.published(name).to_owned());
    }

    /// The matrix `name`, `[rows, cols]`.
    pub async fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        self.stacked(&[(name, rows)], cols).await
    }

    /// Several matrices of `cols` columns as one weight, the rows of the first on top.
    pub async fn stacked(&mut self, names: &[(&str, usize)], cols: usize) -> Result<Weight> {
        if !cols.is_multiple_of(4) {
            return Err(Error::UnsupportedFormat(format!("tensor {:?} has {cols} columns; kernels need a multiple of 4", names[0].0)));
        }
        let mut rows_of = Vec::new();
        for (name, rows) in names {
            rows_of.push(Source { tensor: self.expect(name, &[*rows, cols])?, rows: 0..*rows });
        }
        let weight = self.rows(&rows_of, cols, 1).await?;
        self.place(weight, cols, names.iter().map(|(name, rows)| (*name, whole(*rows))).collect(), false);
        Ok(weight)
    }

    /// Rows of the matrix `name`, `[rows, cols]`, in another order: these ranges one after the other.
    pub async fn reordered(&mut self, name: &str, rows: usize, cols: usize, order: &[Range<usize>]) -> Result<Weight> {
        let tensor = self.expect(name, &[rows, cols])?;
        let rows_of: Vec<_> = order.iter().map(|rows| Source { tensor, rows: rows.clone() }).collect();
        let weight = self.rows(&rows_of, cols, 1).await?;
        self.place(weight, cols, vec![(name, order.to_vec())], false);
        Ok(weight)
    }

    /// The matrix `name`, published as `[cols, rows]`. Its elements are moved one by one, so only floats can be read.
    pub async fn transposed(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let tensor = self.expect(name, &[cols, rows])?;
        if tensor.format.is_quantised() {
            let format = tensor.format.name();
            return Err(Error::UnsupportedFormat(format!("tensor {name:?} is published transposed and quantised as {format}")));
        }
        if self.backend.is_none() {
            return Ok(Weight(u32::MAX));
        }
        let published = self.floats(tensor).await?;
        let (mut values, mut row) = (Vec::new(), vec![0.0; cols]);
        for r in 0..rows {
            row.iter_mut().enumerate().for_each(|(c, v)| *v = published[c * rows + r]);
            tensor.format.pack_row(&row, &mut values, &mut Vec::new());
        }
        let Some(backend) = self.backend.as_deref_mut() else { return Ok(Weight(u32::MAX)) };
        let weight = backend.new_weight(cols, &[Segment { format: tensor.format, rows }])?;
        backend.write_weight(weight, 0, Plane::Values, 0, &values)?;
        self.place(weight, cols, vec![(name, whole(rows))], true);
        Ok(weight)
    }

    /// A weight of these rows; segments end after a multiple of `unit` rows where they can.
    async fn rows(&mut self, rows_of: &[Source<'_>], cols: usize, unit: usize) -> Result<Weight> {
        let Some(backend) = self.backend.as_deref_mut() else { return Ok(Weight(u32::MAX)) };
        let (segments, sources) = segments(rows_of, cols, backend.max_plane_bytes(), unit);
        let weight = backend.new_weight(cols, &segments)?;
        for (index, sources) in sources.iter().enumerate() {
            for plane in [Plane::Values, Plane::Scales] {
                self.copy_plane(weight, index, plane, sources, cols).await?;
            }
        }
        Ok(weight)
    }

    /// The vector `name` of `len` elements, as f32, with `offset` added to each.
    pub async fn vector(&mut self, name: &str, len: usize, offset: f32) -> Result<Weight> {
        self.vectors(&[(name, len)], offset).await
    }

    /// Row `index` of the matrix `name`, `[rows, cols]`, as numbers; zeros where nothing is loaded.
    pub async fn row(&mut self, name: &str, [rows, cols]: [usize; 2], index: usize) -> Result<Vec<f32>> {
        let tensor = self.expect(name, &[rows, cols])?;
        let mut row = vec![0.0; cols];
        if self.backend.is_some() {
            let values = self.checkpoint.read_rows(tensor, Plane::Values, index, 1).await?;
            let scales = self.checkpoint.read_rows(tensor, Plane::Scales, index, 1).await?;
            tensor.format.unpack_row(&values, &scales, &mut row);
        }
        Ok(row)
    }

    /// All elements of the tensor `name` of this shape, in order, as one vector of f32.
    pub async fn flat(&mut self, name: &str, shape: &[usize]) -> Result<Weight> {
        let mut data = Vec::new();
        self.collect(name, shape, 0.0, &mut data).await?;
        self.new_vector(&data)
    }

    /// Elements of the vector `name` in another order: these ranges one after the other.
    pub async fn reordered_vector(&mut self, name: &str, len: usize, order: &[Range<usize>]) -> Result<Weight> {
        let tensor = self.expect(name, &[len])?;
        if self.backend.is_none() {
            return Ok(Weight(u32::MAX));
        }
        let values = self.floats(tensor).await?;
        let ordered: Vec<f32> = order.iter().flat_map(|range| &values[range.clone()]).copied().collect();
        self.new_vector(&ordered)
    }

    /// Several vectors, one after the other, as one.
    pub async fn stacked_vectors(&mut self, names: &[(&str, usize)]) -> Result<Weight> {
        self.vectors(names, 0.0).await
    }

    async fn vectors(&mut self, names: &[(&str, usize)], offset: f32) -> Result<Weight> {
        let mut data = Vec::new();
        for (name, len) in names {
            self.collect(name, &[*len], offset, &mut data).await?;
        }
        self.new_vector(&data)
    }

    async fn collect(&mut self, name: &str, shape: &[usize], offset: f32, data: &mut Vec<f32>) -> Result<()> {
        let tensor = self.expect(name, shape)?;
        if tensor.format.is_quantised() {
            return Err(Error::UnsupportedFormat(format!("tensor {name:?} is a vector and quantised as {}", tensor.format.name())));
        }
        if self.backend.is_some() {
            data.extend(self.floats(tensor).await?.into_iter().map(|v| v + offset));
        }
        Ok(())
    }

    fn new_vector(&mut self, data: &[f32]) -> Result<Weight> {
        let Some(backend) = self.backend.as_deref_mut() else { return Ok(Weight(u32::MAX)) };
        let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        let weight = backend.new_weight(data.len(), &[Segment { format: Format::F32, rows: 1 }])?;
        backend.write_weight(weight, 0, Plane::Values, 0, &bytes)?;
        Ok(weight)
    }

    /// All elements of a float tensor.
    async fn floats(&mut self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        let mut packed = Vec::new();
        for part in &tensor.values {
            packed.extend(self.checkpoint.files.read(&part.file, part.offset, part.len as usize).await?);
        }
        self.advance(packed.len() as u64);
        let mut values = vec![0.0; tensor.shape.iter().product()];
        tensor.format.unpack_row(&packed, &[], &mut values);
        Ok(values)
    }

    /// Rotation tables, see [`Backend::new_rope`].
    pub fn rope(&mut self, inverse_frequencies: &[f32], magnitude: f32) -> Result<Rope> {
        match self.backend.as_deref_mut() {
            Some(backend) => backend.new_rope(inverse_frequencies, magnitude),
            None => Ok(Rope(u32::MAX)),
        }
    }

    /// Every tensor of the checkpoint must have been asked for: one that was not would be silently ignored.
    pub fn finish(self) -> Result<()> {
        match self.checkpoint.tensors.keys().find(|name| !self.used.contains(*name)) {
            Some(name) => Err(Error::UnsupportedFormat(format!("tensor {name:?} is not part of this architecture as we know it"))),
            None => Ok(()),
        }
    }

    fn expect(&mut self, name: &str, shape: &[usize]) -> Result<&'a TensorInfo> {
        let name = self.published(name);
        let tensor = self.checkpoint.tensor(name)?;
        if tensor.shape != shape {
            return Err(Error::InvalidFile(format!("tensor {name:?} has shape {:?}; the configuration says {shape:?}", tensor.shape)));
        }
        self.used.insert(name.to_owned());
        Ok(tensor)
    }

    async fn copy_plane(&mut self, weight: Weight, segment: usize, plane: Plane, sources: &[Source<'_>], cols: usize) -> Result<()> {
        let checkpoint = self.checkpoint;
        let mut written = 0;
        for source in sources {
            let row_bytes = source.tensor.format.row_bytes(plane, cols) as u64;
            let mut next = source.rows.start as u64 * row_bytes;
            let end = source.rows.end as u64 * row_bytes;
            while next < end {
                let (part, skip) = locate(source.tensor.parts(plane), next)?;
                let len = (part.len - skip).min(end - next).min(PIECE);
                let bytes = checkpoint.files.read(&part.file, part.offset + skip, len as usize).await?;
                let backend = self.backend.as_deref_mut().expect("only called with a backend");
                backend.write_weight(weight, segment, plane, written, &bytes)?;
                written += bytes.len();
                next += len;
                self.advance(len);
            }
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.loaded += bytes;
        if let Some(progress) = self.progress.as_deref_mut() {
            progress(self.loaded, self.total);
        }
    }
}

/// All rows of a tensor, in its own order.
fn whole(rows: usize) -> Vec<Range<usize>> {
    std::iter::once(0..rows).collect()
}

/// The part that holds byte `offset` of a plane, and the offset within it.
fn locate(parts: &[Part], mut offset: u64) -> Result<(&Part, u64)> {
    for part in parts {
        if offset < part.len {
            return Ok((part, offset));
        }
        offset -= part.len;
    }
    Err(Error::InvalidFile("a tensor's parts are shorter than its shape".into()))
}
