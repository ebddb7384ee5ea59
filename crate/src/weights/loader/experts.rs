//! Experts as one weight: of each expert its maps' rows on top of each other, expert after expert, in whichever layout they are
//! published. Segments end between experts where an expert fits one, so that a backend can fuse what belongs to an expert.

use super::{Loader, Source, segments};
use crate::{
    backend::Weight,
    error::{Error, Result},
    quant::Plane,
};

/// Rows of a stack that are published in turns (gate, up, gate, up, ...): all of the first kind, then all of the second.
pub fn in_turns(rows: usize) -> Vec<usize> {
    (0..rows).step_by(2).chain((1..rows).step_by(2)).collect()
}

impl Loader<'_> {
    /// The maps of `experts` experts, each with its number of rows: `prefix.{expert}.{map}.weight`, or stacked
    /// `prefix.{map}.weight`, `[experts, rows, cols]`.
    pub async fn experts(&mut self, prefix: &str, experts: usize, maps: &[(&str, usize)], cols: usize) -> Result<Weight> {
        need_quads(prefix, cols)?;
        let mut rows_of = Vec::new();
        for expert in 0..experts {
            for &(map, rows) in maps {
                let stacked = format!("{prefix}.{map}.weight");
                rows_of.push(if self.has(&stacked) {
                    let tensor = self.expect(&stacked, &[experts, rows, cols])?;
                    Source { tensor, rows: expert * rows..(expert + 1) * rows }
                } else {
                    let tensor = self.expect(&format!("{prefix}.{expert}.{map}.weight"), &[rows, cols])?;
                    Source { tensor, rows: 0..rows }
                });
            }
        }
        let unit = maps.iter().map(|m| m.1).sum();
        self.rows(&rows_of, cols, unit).await
    }

    /// The biases of the same, as one vector: `prefix.{expert}.{map}.bias`, or stacked `prefix.{map}.bias`, `[experts, rows]`.
    pub async fn expert_biases(&mut self, prefix: &str, experts: usize, maps: &[(&str, usize)]) -> Result<Weight> {
        let mut columns = Vec::new();
        for &(map, rows) in maps {
            let stacked = format!("{prefix}.{map}.bias");
            let mut column = Vec::new();
            if self.has(&stacked) {
                column = self.bias_floats(&stacked, &[experts, rows]).await?;
            } else {
                for expert in 0..experts {
                    column.extend(self.bias_floats(&format!("{prefix}.{expert}.{map}.bias"), &[rows]).await?);
                }
            }
            columns.push(column);
        }
        let of = |expert: usize| columns.iter().zip(maps).flat_map(move |(all, (_, rows))| all.chunks_exact(*rows).nth(expert));
        let data: Vec<f32> = (0..experts).flat_map(of).flatten().copied().collect();
        self.new_vector(&data)
    }

    /// The stack `name`, published as `[experts, cols, rows]`; `order` says which published row comes first, second, ...
    /// Its elements are moved one by one, so only floats can be read.
    pub async fn experts_transposed(&mut self, name: &str, experts: usize, cols: usize, order: &[usize]) -> Result<Weight> {
        need_quads(name, cols)?;
        let rows = order.len();
        let tensor = self.expect(name, &[experts, cols, rows])?;
        let format = tensor.format;
        if format.is_quantised() {
            let message = format!("tensor {name:?} is published transposed and quantised as {}", format.name());
            return Err(Error::UnsupportedFormat(message));
        }
        let Some(backend) = self.backend.as_deref_mut() else { return Ok(Weight(u32::MAX)) };
        let whole = [Source { tensor, rows: 0..experts * rows }];
        let (segments, _) = segments(&whole, cols, backend.max_plane_bytes(), rows);
        let weight = backend.new_weight(cols, &segments)?;
        let (mut index, mut written) = (0, 0);
        for expert in 0..experts {
            let packed = self.checkpoint.read_rows(tensor, Plane::Values, expert * cols, cols).await?;
            let mut published = vec![0.0; rows * cols];
            format.unpack_row(&packed, &[], &mut published);
            let mut row = vec![0.0; cols];
            let mut bytes = Vec::new();
            for &from in order {
                row.iter_mut().enumerate().for_each(|(c, v)| *v = published[c * rows + from]);
                format.pack_row(&row, &mut bytes, &mut Vec::new());
            }
            // An expert larger than a segment goes on in the next one.
            let mut bytes = bytes.as_slice();
            while !bytes.is_empty() {
                let room = segments[index].rows * format.row_bytes(Plane::Values, cols) - written;
                let (here, rest) = bytes.split_at(room.min(bytes.len()));
                let backend = self.backend.as_deref_mut().expect("there is one");
                backend.write_weight(weight, index, Plane::Values, written, here)?;
                (index, written) = if rest.is_empty() && here.len() < room { (index, written + here.len()) } else { (index + 1, 0) };
                bytes = rest;
            }
            self.advance(packed.len() as u64);
        }
        Ok(weight)
    }

    /// The biases `name`, `[experts, rows]`, each expert's in `order`, as one vector.
    pub async fn expert_biases_in_order(&mut self, name: &str, experts: usize, order: &[usize]) -> Result<Weight> {
        let published = self.bias_floats(name, &[experts, order.len()]).await?;
        let data: Vec<f32> = published.chunks_exact(order.len()).flat_map(|b| order.iter().map(|&from| b[from])).collect();
        self.new_vector(&data)
    }

    /// All elements of a tensor of floats; nothing without a backend.
    async fn bias_floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.expect(name, shape)?;
        if tensor.format.is_quantised() {
            return Err(Error::UnsupportedFormat(format!("tensor {name:?} holds biases and is quantised as {}", tensor.format.name())));
        }
        if self.backend.is_some() { self.floats(tensor).await } else { Ok(Vec::new()) }
    }
}

fn need_quads(name: &str, cols: usize) -> Result<()> {
    match cols.is_multiple_of(4) {
        true => Ok(()),
        false => Err(Error::UnsupportedFormat(format!("experts {name:?} have {cols} columns; kernels need a multiple of 4"))),
    }
}
