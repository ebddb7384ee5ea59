//! Which plane of which tensor lies where in a package's shards: decided from names, formats and shapes alone, so the
//! number of shards is known before the first weight is read.

use std::collections::{BTreeSet, HashMap};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::manifest::check_shape;
use crate::{
    error::{Error, Result},
    quant::{Format, Plane},
};

/// Most bytes of a shard.
pub const MAX_SHARD: usize = 32 << 20;
/// Most bytes of a plane before it is split by rows.
pub const MAX_PIECE: usize = 16 << 20;

/// A tensor to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The publisher's name.
    pub name: String,
    /// How it will be stored.
    pub format: Format,
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
}

impl Target {
    /// The product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// The last dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Consecutive rows of a plane, stored as one safetensors tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub name: String,
    /// First byte within the plane.
    pub start: usize,
    pub len: usize,
    pub shard: usize,
    /// First byte within the shard's file.
    pub offset: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// A shard: its file begins with `header`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Shard {
    pub header: Vec<u8>,
    /// Bytes of the whole file.
    pub size: usize,
}

/// The plan of a package.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// Pieces of the two planes of each tensor, by [`plane_index`].
    pub pieces: Vec<[Vec<Piece>; 2]>,
    pub shards: Vec<Shard>,
}

/// Position of a plane in [`Layout::pieces`].
pub(super) fn plane_index(plane: Plane) -> usize {
    match plane {
        Plane::Values => 0,
        Plane::Scales => 1,
    }
}

/// The safetensors type of a plane.
pub(super) fn dtype(format: Format, plane: Plane) -> Dtype {
    match (plane, format) {
        (Plane::Scales, _) => format.scales().dtype(),
        (_, Format::F16) => Dtype::F16,
        (_, Format::F32) => Dtype::F32,
        (_, Format::Bf16) => Dtype::BF16,
        _ => Dtype::U32,
    }
}

impl Layout {
    /// Plans `tensors`, which will be written in this order.
    pub fn plan(tensors: &[Target]) -> Result<Layout> {
        let mut pieces = Vec::new();
        for tensor in tensors {
            check_shape(&tensor.name, &tensor.shape)?;
            pieces.push([split(tensor, Plane::Values)?, split(tensor, Plane::Scales)?]);
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = pieces.iter().flatten().flatten().find(|p| !names.insert(p.name.clone())) {
            return Err(Error::InvalidFile(format!("two tensors would be stored as {:?}", twice.name)));
        }
        let shards = place(&mut pieces)?;
        Ok(Layout { pieces, shards })
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.size as u64).sum()
    }

    /// The name of a shard's file.
    pub fn file_name(&self, shard: usize) -> String {
        format!("model-{:05}-of-{:05}.safetensors", shard + 1, self.shards.len())
    }
}

/// Cuts a plane into pieces of about equal numbers of rows.
fn split(tensor: &Target, plane: Plane) -> Result<Vec<Piece>> {
    let (rows, row_bytes) = (tensor.rows(), tensor.format.row_bytes(plane, tensor.cols()));
    let float = !tensor.format.is_quantised();
    if row_bytes == 0 {
        return Ok(Vec::new());
    }
    // Cut after a multiple of four rows: every piece but the last is then whole words, whatever the scales' row length.
    let most = (MAX_PIECE / row_bytes) & !3;
    if most == 0 || rows.checked_mul(row_bytes).is_none() || (float && row_bytes * 8 != tensor.cols() * tensor.format.bits()) {
        let message = format!("tensor {:?} of shape {:?} cannot be stored as {}", tensor.name, tensor.shape, tensor.format.name());
        return Err(Error::UnsupportedFormat(message));
    }
    let count = rows.div_ceil(most);
    let step = rows.div_ceil(count).next_multiple_of(4);
    let base = match (plane, float, count) {
        (Plane::Values, true, 1) => tensor.name.clone(),
        (Plane::Values, ..) => format!("{}.values", tensor.name),
        (Plane::Scales, ..) => format!("{}.scales", tensor.name),
    };
    let dtype = dtype(tensor.format, plane);
    let piece = |(i, first): (usize, usize)| {
        let rows_here = step.min(rows - first);
        let columns = row_bytes * 8 / dtype.bitsize();
        Piece {
            name: if count == 1 { base.clone() } else { format!("{base}.{i}") },
            start: first * row_bytes,
            len: rows_here * row_bytes,
            shard: 0,
            offset: 0,
            dtype,
            shape: if float && count == 1 { tensor.shape.clone() } else { vec![rows_here, columns] },
        }
    };
    Ok((0..rows).step_by(step).enumerate().map(piece).collect())
}

/// Fills shards. Values and scales of a tensor grow side by side, so each plane has shards of its own: two shards grow at a
/// time, each from its first byte to its last, and none has to be held in memory. Pieces begin at multiples of 4 bytes, so
/// one of odd length (scales, rarely) ends its shard.
fn place(pieces: &mut [[Vec<Piece>; 2]]) -> Result<Vec<Shard>> {
    let mut shards: Vec<Vec<&mut Piece>> = Vec::new();
    // The shard that grows, and how many bytes it may still take; by plane.
    let mut growing = [(0, 0); 2];
    for tensor in pieces {
        for (pieces, (shard, room)) in tensor.iter_mut().zip(&mut growing) {
            for piece in pieces {
                // The header needs the name and about 100 bytes a piece.
                let bytes = piece.len + piece.name.len() + 200;
                if bytes > *room {
                    shards.push(Vec::new());
                    (*shard, *room) = (shards.len() - 1, MAX_SHARD - 1024);
                }
                *room = if piece.len % 4 == 0 { *room - bytes } else { 0 };
                piece.shard = *shard;
                shards[*shard].push(piece);
            }
        }
    }
    shards.into_iter().map(shard).collect()
}

/// Builds the header and fixes the offsets.
fn shard(pieces: Vec<&mut Piece>) -> Result<Shard> {
    let mut end = 0;
    let mut infos = Vec::new();
    for piece in &pieces {
        let info = TensorInfo { dtype: piece.dtype, shape: piece.shape.clone(), data_offsets: (end, end + piece.len) };
        infos.push((piece.name.clone(), info));
        end += piece.len;
    }
    let invalid = |e: String| Error::InvalidFile(format!("cannot plan a shard: {e}"));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(metadata), infos).map_err(|e| invalid(e.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| invalid(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let header = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
    let mut offset = header.len();
    for piece in pieces {
        piece.offset = offset;
        offset += piece.len;
    }
    Ok(Shard { header, size: offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, format: Format, shape: &[usize]) -> Target {
        Target { name: name.into(), format, shape: shape.into() }
    }

    #[test]
    fn planes_are_split_by_rows_and_shards_stay_small_and_aligned() {
        // 100,000 rows of 576: 28.8 MB of values each, scales of 3.6 MB; odd scales: 3 rows of one group.
        let tensors: Vec<Target> = (0..4)
            .flat_map(|i| {
                [
                    target(&format!("big{i}"), Format::Q4_1, &[100_000, 576]),
                    target(&format!("odd{i}"), Format::Q8_0, &[3, 32]),
                    target(&format!("norm{i}"), Format::F16, &[576]),
                ]
            })
            .collect();
        let layout = Layout::plan(&tensors).unwrap();
        assert_eq!(layout.pieces[0][0].iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["big0.values.0", "big0.values.1"]);
        assert_eq!(layout.pieces[0][1].iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["big0.scales"]);
        assert_eq!(layout.pieces[2][0][0].name, "norm0");
        assert!(layout.shards.iter().all(|s| s.size <= MAX_SHARD));
        for (tensor, planes) in tensors.iter().zip(&layout.pieces) {
            for plane in [Plane::Values, Plane::Scales] {
                let pieces = &planes[plane_index(plane)];
                let whole: usize = pieces.iter().map(|p| p.len).sum();
                assert_eq!(whole, tensor.rows() * tensor.format.row_bytes(plane, tensor.cols()));
                assert!(pieces.iter().all(|p| p.offset % 4 == 0 && p.len <= MAX_PIECE));
            }
        }
    }

    #[test]
    fn names_that_would_collide_are_refused() {
        let tensors = [target("a", Format::Q8_0, &[2, 32]), target("a.values", Format::F32, &[2])];
        assert_eq!(Layout::plan(&tensors).unwrap_err().code(), "invalid_file");
    }
}
