//! MXFP4 as gpt-oss publishes it: `name_blocks`, bytes `[.., rows, groups, 16]`, with `name_scales`, `[.., rows, groups]`. They are the
//! two planes of one tensor byte for byte; it keeps the name of its blocks.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::Entry;
use crate::{
    error::{Error, Result},
    quant::Format,
    weights::{TensorInfo, manifest::check_shape},
};

/// Takes the pairs out of `entries`.
pub(super) fn take_pairs(entries: &mut BTreeMap<String, Entry>) -> Result<BTreeMap<String, TensorInfo>> {
    let mut tensors = BTreeMap::new();
    let names: Vec<String> =
        entries.iter().filter(|(name, e)| name.ends_with("_blocks") && e.dtype == Dtype::U8).map(|e| e.0.clone()).collect();
    for name in names {
        let partner = format!("{}_scales", name.trim_end_matches("_blocks"));
        let (Some(blocks), Some(scales)) = (entries.remove(&name), entries.remove(&partner)) else {
            return Err(Error::InvalidFile(format!("tensor {name:?} has no {partner:?}, which holds its scales")));
        };
        tensors.insert(name.clone(), pair(&name, blocks, scales)?);
    }
    Ok(tensors)
}

fn pair(name: &str, blocks: Entry, scales: Entry) -> Result<TensorInfo> {
    let group = Format::Mxfp4.group();
    let shape = match &blocks.shape[..] {
        [outer @ .., groups, 16] if scales.dtype == Dtype::U8 && scales.shape == [outer, &[*groups]].concat() => {
            [outer, &[groups.saturating_mul(group)]].concat()
        }
        other => {
            let message = format!("tensor {name:?} has shape {other:?} and scales {:?} of {:?}: not mxfp4", scales.shape, scales.dtype);
            return Err(Error::UnsupportedFormat(message));
        }
    };
    check_shape(name, &shape)?;
    Ok(TensorInfo { format: Format::Mxfp4, shape, values: vec![blocks.part], scales: vec![scales.part] })
}
