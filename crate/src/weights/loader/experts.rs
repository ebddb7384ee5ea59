//! Experts as one weight: of each expert its maps' rows on top of each other, expert after expert, in whichever layout they are
//! published. Segments end between experts where an expert fits one, so that a backend can fuse what belongs to an expert.

use super::{Loader, Source, segments};
use crate::{
    backend::Weight,
    error::{Error, Result},
    quant::Plane,
    weights::TensorInfo,
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
                self.collect(&stacked, &[experts, rows], 0.0, &mut column).await?;
            } else {
                for expert in 0..experts {
                    self.collect(&format!("{prefix}.{expert}.{map}.bias"), &[rows], 0.0, &mut column).await?;
                }
            }
            columns.push(column);
        }
        let of = |expert: usize| columns.iter().zip(maps).flat_map(move |(all, (_, rows))| all.chunks_exact(*rows).nth(expert));
        let data: Vec<f32> = (0..experts).flat_map(of).flatten().copied().collect();
        self.new_vector(&data)
    }

    /// The stack `name`, published as `[experts, rows, cols]`; `order` says which published row comes first, second, ...
    pub async fn experts_in_order(&mut self, name: &str, experts: usize, cols: usize, order: &[usize]) -> Result<Weight> {
        let tensor = self.expect(name, &[experts, order.len(), cols])?;
        let reorder = |plane: Vec<u8>| {
            let row_bytes = plane.len() / order.len();
            order.iter().flat_map(|&from| &plane[from * row_bytes..][..row_bytes]).copied().collect()
        };
        self.stack(name, tensor, [order.len(), cols], |planes| planes.map(reorder)).await
    }

    /// The stack `name`, published as `[experts, cols, rows]`; `order` as in [`Loader::experts_in_order`].
    /// Its elements are moved one by one, so only floats can be read.
    pub async fn experts_transposed(&mut self, name: &str, experts: usize, cols: usize, order: &[usize]) -> Result<Weight> {
        let rows = order.len();
        let tensor = self.expect(name, &[experts, cols, rows])?;
        let format = tensor.format;
        if format.is_quantised() {
            let message = format!("tensor {name:?} is published transposed and quantised as {}", format.name());
            return Err(Error::UnsupportedFormat(message));
        }
        let transpose = |[values, scales]: [Vec<u8>; 2]| {
            let mut published = vec![0.0; rows * cols];
            format.unpack_row(&values, &[], &mut published);
            let (mut row, mut packed) = (vec![0.0; cols], Vec::new());
            for &from in order {
                row.iter_mut().enumerate().for_each(|(c, v)| *v = published[c * rows + from]);
                format.pack_row(&row, &mut packed, &mut Vec::new());
            }
            [packed, scales]
        };
        self.stack(name, tensor, [rows, cols], transpose).await
    }

    /// A stack, expert by expert: `convert` makes an expert's planes, `rows` rows, of those that are published.
    async fn stack(
        &mut self,
        name: &str,
        tensor: &TensorInfo,
        [rows, cols]: [usize; 2],
        convert: impl Fn([Vec<u8>; 2]) -> [Vec<u8>; 2],
    ) -> Result<Weight> {
        need_quads(name, cols)?;
        let (format, experts, published) = (tensor.format, tensor.shape[0], tensor.shape[1]);
        if !(rows * format.row_bytes(Plane::Scales, cols)).is_multiple_of(4) {
            return Err(Error::UnsupportedFormat(format!("tensor {name:?}: an expert's scales, {rows} rows, do not end with a word")));
        }
        let Some(backend) = self.backend.as_deref_mut() else { return Ok(Weight(u32::MAX)) };
        let whole = [Source { tensor, rows: 0..experts * rows }];
        let (segments, _) = segments(&whole, cols, backend.max_plane_bytes(), rows);
        let weight = backend.new_weight(cols, &segments)?;
        let (mut segment, mut used) = (0, 0);
        for expert in 0..experts {
            let values = self.checkpoint.read_rows(tensor, Plane::Values, expert * published, published).await?;
            let scales = self.checkpoint.read_rows(tensor, Plane::Scales, expert * published, published).await?;
            self.advance((values.len() + scales.len()) as u64);
            let planes = convert([values, scales]);
            // An expert larger than a segment goes on in the next one.
            let mut row = 0;
            while row < rows {
                let here = (segments[segment].rows - used).min(rows - row);
                for (plane, bytes) in [Plane::Values, Plane::Scales].into_iter().zip(&planes).filter(|(_, bytes)| !bytes.is_empty()) {
                    let row_bytes = format.row_bytes(plane, cols);
                    let backend = self.backend.as_deref_mut().expect("there is one");
                    backend.write_weight(weight, segment, plane, used * row_bytes, &bytes[row * row_bytes..][..here * row_bytes])?;
                }
                (row, used) = (row + here, used + here);
                if used == segments[segment].rows {
                    (segment, used) = (segment + 1, 0);
                }
            }
        }
        Ok(weight)
    }

    /// The biases `name`, `[experts, rows]`, each expert's in `order`, as one vector.
    pub async fn expert_biases_in_order(&mut self, name: &str, experts: usize, order: &[usize]) -> Result<Weight> {
        let mut published = Vec::new();
        self.collect(name, &[experts, order.len()], 0.0, &mut published).await?;
        let data: Vec<f32> = published.chunks_exact(order.len()).flat_map(|b| order.iter().map(|&from| b[from])).collect();
        self.new_vector(&data)
    }
}

fn need_quads(name: &str, cols: usize) -> Result<()> {
    match cols.is_multiple_of(4) {
        true => Ok(()),
        false => Err(Error::UnsupportedFormat(format!("experts {name:?} have {cols} columns; kernels need a multiple of 4"))),
    }
}
