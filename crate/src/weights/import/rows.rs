//! Rows from one format to another.

use crate::{
    error::{Error, Result},
    quant::{Format, Plane},
    weights::{layout::Target, writer::Writer},
};

/// Whether `format` can hold these values.
pub(super) fn check_values(name: &str, format: Format, values: &[f32]) -> Result<()> {
    let largest = if format == Format::F32 { f32::MAX } else { 65504.0 };
    match values.iter().find(|v| v.is_nan() || v.abs() > largest) {
        Some(value) => {
            let format = format.name();
            Err(Error::InvalidFile(format!("tensor {name:?} holds {value}, which {format} cannot: convert with --quantize keep")))
        }
        None => Ok(()),
    }
}

/// Converts the rows of one tensor, in order, and writes them in blocks. Rows whose format and values stay are copied bit for bit.
pub(super) struct Repack {
    name: String,
    from: Format,
    to: Format,
    /// Added to each element.
    offset: f32,
    floats: Vec<f32>,
    /// Converted and not yet written.
    values: Vec<u8>,
    scales: Vec<u8>,
    /// Bytes of each plane written so far.
    written: [usize; 2],
}

impl Repack {
    pub fn new(target: &Target, from: Format, offset: f32) -> Repack {
        Repack {
            name: target.name.clone(),
            from,
            to: target.format,
            offset,
            floats: vec![0.0; target.cols()],
            values: Vec::new(),
            scales: Vec::new(),
            written: [0; 2],
        }
    }

    /// Passes over `count` rows, which are there already.
    pub fn pass(&mut self, count: usize) {
        let bytes = self.bytes(count);
        self.written.iter_mut().zip(bytes).for_each(|(written, bytes)| *written += bytes);
    }

    /// Whether `writer` lacks any of the next `count` rows of its target `index`.
    pub fn wanted(&self, writer: &Writer<'_>, index: usize, count: usize) -> bool {
        let [values, scales] = self.bytes(count);
        writer.wants(index, Plane::Values, self.written[0], values) || writer.wants(index, Plane::Scales, self.written[1], scales)
    }

    /// What `count` rows have in each plane.
    fn bytes(&self, count: usize) -> [usize; 2] {
        [Plane::Values, Plane::Scales].map(|plane| count * self.to.row_bytes(plane, self.floats.len()))
    }

    /// Adds a row of ggml blocks.
    pub fn ggml_row(&mut self, blocks: &[u8]) -> Result<()> {
        let named = |e: Error| match e {
            Error::InvalidFile(what) => Error::InvalidFile(format!("tensor {:?} holds {what}", self.name)),
            other => other,
        };
        if self.from == self.to && self.offset == 0.0 {
            return self.from.split_ggml_row(blocks, &mut self.values, &mut self.scales).map_err(named);
        }
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        self.from.split_ggml_row(blocks, &mut values, &mut scales).map_err(named)?;
        self.row(&values, &scales)
    }

    /// Adds `count` rows of planes.
    pub fn rows(&mut self, values: &[u8], scales: &[u8], count: usize) -> Result<()> {
        if self.from == self.to && self.offset == 0.0 {
            self.values.extend(values);
            self.scales.extend(scales);
            return Ok(());
        }
        let (value_bytes, scale_bytes) = (values.len() / count, scales.len() / count);
        for i in 0..count {
            self.row(&values[i * value_bytes..][..value_bytes], &scales[i * scale_bytes..][..scale_bytes])?;
        }
        Ok(())
    }

    fn row(&mut self, values: &[u8], scales: &[u8]) -> Result<()> {
        self.from.unpack_row(values, scales, &mut self.floats);
        self.floats.iter_mut().for_each(|v| *v += self.offset);
        check_values(&self.name, self.to, &self.floats)?;
        self.to.pack_row(&self.floats, &mut self.values, &mut self.scales);
        Ok(())
    }

    /// Writes what was added since the last call.
    pub async fn write(&mut self, writer: &mut Writer<'_>, index: usize) -> Result<()> {
        for (plane, bytes, written) in [(Plane::Values, &mut self.values, 0), (Plane::Scales, &mut self.scales, 1)] {
            writer.write(index, plane, self.written[written], bytes).await?;
            self.written[written] += bytes.len();
            bytes.clear();
        }
        Ok(())
    }
}
