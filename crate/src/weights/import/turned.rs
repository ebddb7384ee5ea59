//! Maps that are published as `[in, out]`: GPT-2's, and gpt-oss's experts where they are floats. Groups of a quantised row lie along `in`, so
//! such a map is turned when it is quantised. As many published rows as a group has elements make a group of each of the map's rows;
//! what waits in memory is the packed map, not its floats.

use serde_json::Value;

use super::{Quantize, check_values};
use crate::{
    error::{Error, Result},
    quant::{Format, Plane},
    weights::{layout::Target, writer::Writer},
};

/// Most bytes of a packed map; an expert of gpt-oss has 17 MB at 8 bits, the largest map of GPT-2 XL 11 MB.
const MOST: usize = 24 << 20;

const PLANES: [Plane; 2] = [Plane::Values, Plane::Scales];

/// Name and shape of the tensor `name` of `config`'s model once it is turned; `None` where it is published as `[.., out, in]`.
pub(super) fn turned(config: &Value, name: &str, shape: &[usize]) -> Option<(String, Vec<usize>)> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    match (model_type, shape) {
        (Some("gpt2"), &[cols, rows]) if is_transposed(config) && ends(&[".c_attn.weight", ".c_proj.weight", ".c_fc.weight"]) => {
            Some((name.to_owned(), vec![rows, cols]))
        }
        // What is published as blocks of rows is called so.
        (Some("gpt_oss"), &[experts, cols, rows]) if ends(&[".experts.gate_up_proj", ".experts.down_proj"]) => {
            Some((format!("{name}_blocks"), vec![experts, rows, cols]))
        }
        _ => None,
    }
}

/// What such a tensor becomes when it is packed in `format`.
pub(super) fn target((name, shape): (String, Vec<usize>), format: Format) -> Result<Target> {
    let target = Target { name, format, shape };
    let row_bytes = PLANES.map(|plane| format.row_bytes(plane, target.cols())).iter().sum::<usize>();
    match target.shape[target.shape.len() - 2].saturating_mul(row_bytes) <= MOST {
        true => Ok(target),
        false => Err(Error::UnsupportedFormat(format!(
            "tensor {:?} of shape {:?} is published transposed, and too large to be turned while it streams in: choose keep or f16",
            target.name, target.shape
        ))),
    }
}

/// The configuration of what was quantised: GPT-2's says whether its maps are as published.
pub(super) fn config(config: &Value, quantize: Quantize) -> Value {
    let mut config = config.clone();
    if quantize.packed().is_some() && config["model_type"] == "gpt2" && is_transposed(&config) {
        config["transposed_weights"] = false.into();
    }
    config
}

fn is_transposed(config: &Value) -> bool {
    config.get("transposed_weights") != Some(&Value::Bool(false))
}

/// Turns and packs the maps of one tensor, in order.
pub(super) struct Turned {
    target: Target,
    from: Format,
    /// Columns of a published row: rows of a map.
    rows: usize,
    /// Published rows that do not make a group yet.
    waiting: Vec<f32>,
    /// Published rows of the map that are packed.
    done: usize,
    /// The planes of the map, as far as they are filled.
    map: [Vec<u8>; 2],
    /// Planes of whole maps, not yet written, and bytes that were.
    ready: [Vec<u8>; 2],
    written: [usize; 2],
}

impl Turned {
    pub fn new(target: &Target, from: Format) -> Turned {
        let rows = target.shape[target.shape.len() - 2];
        let (target, waiting, done) = (target.clone(), Vec::new(), 0);
        Turned { target, from, rows, waiting, done, map: Default::default(), ready: Default::default(), written: [0; 2] }
    }

    /// Passes over `count` published rows, of which there is all that whole maps become.
    pub fn pass(&mut self, count: usize) {
        let maps = count / self.target.cols();
        for (plane, written) in PLANES.into_iter().zip(&mut self.written) {
            *written += maps * self.rows * self.target.format.row_bytes(plane, self.target.cols());
        }
    }

    /// Whether `writer` lacks any of its target `index`.
    pub fn wanted(&self, writer: &Writer<'_>, index: usize) -> bool {
        PLANES
            .into_iter()
            .any(|plane| writer.wants(index, plane, 0, self.target.rows() * self.target.format.row_bytes(plane, self.target.cols())))
    }

    /// Whether all that was added is ready or written: between two maps.
    pub fn rests(&self) -> bool {
        self.done == 0 && self.waiting.is_empty()
    }

    /// Adds published rows.
    pub fn add(&mut self, values: &[u8]) -> Result<()> {
        let (group, cols) = (self.target.format.group(), self.target.cols());
        for row in values.chunks_exact(self.from.row_bytes(Plane::Values, self.rows)) {
            let start = self.waiting.len();
            self.waiting.resize(start + self.rows, 0.0);
            self.from.unpack_row(row, &[], &mut self.waiting[start..]);
            check_values(&self.target.name, self.target.format, &self.waiting[start..])?;
            let have = self.waiting.len() / self.rows;
            if have == group || self.done + have == cols {
                self.pack(have);
            }
        }
        Ok(())
    }

    /// Packs a group of every row, from `count` published ones.
    fn pack(&mut self, count: usize) {
        let (format, cols) = (self.target.format, self.target.cols());
        let row_bytes = PLANES.map(|plane| format.row_bytes(plane, cols));
        self.map.iter_mut().zip(row_bytes).for_each(|(map, bytes)| map.resize(self.rows * bytes, 0));
        let (mut elements, mut packed) = (vec![0.0; count], [Vec::new(), Vec::new()]);
        for row in 0..self.rows {
            elements.iter_mut().zip(self.waiting.iter().skip(row).step_by(self.rows)).for_each(|(to, from)| *to = *from);
            let [values, scales] = &mut packed;
            format.pack_row(&elements, values, scales);
            for ((map, packed), bytes) in self.map.iter_mut().zip(&mut packed).zip(row_bytes) {
                let at = row * bytes + self.done / format.group() * packed.len();
                map[at..at + packed.len()].copy_from_slice(packed);
                packed.clear();
            }
        }
        self.waiting.clear();
        self.done += count;
        if self.done == cols {
            self.done = 0;
            self.ready.iter_mut().zip(&mut self.map).for_each(|(ready, map)| ready.append(map));
        }
    }

    /// Writes the maps that are whole.
    pub async fn write(&mut self, writer: &mut Writer<'_>, index: usize) -> Result<()> {
        for ((plane, ready), written) in PLANES.into_iter().zip(&mut self.ready).zip(&mut self.written) {
            writer.write(index, plane, *written, ready).await?;
            *written += ready.len();
            ready.clear();
        }
        Ok(())
    }
}
