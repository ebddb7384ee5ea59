//! The adapters of a loaded model: they come, change their scale and go while the base stays as it is.
//!
//! An adapter's weights for a map lie beside the map's own (see [`Side`]). Several act in the order in which they were added,
//! as PEFT's active adapters do. Without adapters nothing is computed that was not computed before.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    backend::{Backend, Segment, Weight},
    card::Card,
    error::{Error, Result},
    quant::{Format, Plane},
    weights::{
        Checkpoint,
        adapter::{Adapter, Module},
        gguf::{architecture::Rows, order::Order},
        loader::{Side, Slot, Target, Targets},
        manifest::hex,
    },
};
use dora::Lengths;

mod dora;

/// What an adapter is, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterInfo {
    /// What it is called here.
    pub name: String,
    /// How much of it is added; 1 is what it was trained for.
    pub scale: f32,
    /// `lora` or `dora`.
    pub kind: &'static str,
    /// The largest rank of its maps.
    pub rank: usize,
    /// The published tensors that it changes.
    pub tensors: Vec<String>,
    /// The base model that it says it was made for.
    pub base_model: Option<String>,
    /// Whether this model declares that name as its own; none where either says nothing. Names are no proof: shapes are
    /// checked, and a fine-tuned base has another name.
    pub base_matches: Option<bool>,
}

/// All adapters of one model.
#[derive(Default)]
pub(crate) struct Adapters {
    targets: Targets,
    loaded: Vec<Loaded>,
}

struct Loaded {
    info: AdapterInfo,
    /// Of all its tensors.
    digest: String,
    sides: Vec<Placed>,
}

/// A side, where it belongs, and the rows' lengths that its factors are computed from.
struct Placed {
    slot: Slot,
    side: Side,
    out: usize,
    lengths: Vec<Lengths>,
}

/// A map that an adapter changes.
struct Change<'a> {
    name: String,
    target: Target,
    module: &'a Module,
}

impl Adapters {
    /// None yet; `targets` as the loader has filled them.
    pub fn new(targets: Targets) -> Adapters {
        Adapters { targets, loaded: Vec::new() }
    }

    /// What there is, in the order in which it acts.
    pub fn list(&self) -> Vec<AdapterInfo> {
        self.loaded.iter().map(|l| l.info.clone()).collect()
    }

    /// Digest and scale of each, in the order in which they act.
    pub fn digests(&self) -> Vec<String> {
        self.loaded.iter().map(|l| format!("{} * {}", l.digest, l.info.scale)).collect()
    }

    /// Loads `adapter` onto the device. `base` is the model's own checkpoint: a DoRA needs its weights' lengths. An adapter
    /// that does not fit changes nothing.
    pub async fn add(&mut self, backend: &mut dyn Backend, adapter: &Adapter, name: &str, scale: f32, base: &Checkpoint) -> Result<()> {
        if name.is_empty() || self.loaded.iter().any(|l| l.info.name == name) {
            return Err(Error::InvalidInput(format!("an adapter cannot be called {name:?}: names are not empty and differ")));
        }
        check_scale(scale)?;
        let changes = self.changes(adapter)?;
        let info = AdapterInfo {
            name: name.to_owned(),
            scale,
            kind: if adapter.is_dora() { "dora" } else { "lora" },
            rank: adapter.modules.values().map(Module::rank).max().unwrap_or(0),
            tensors: changes.values().flatten().map(|c| c.name.clone()).collect(),
            base_model: adapter.base_model.clone(),
            base_matches: base_matches(adapter.base_model.as_deref(), &base.card),
        };
        let (mut made, mut sides, mut hash) = (Vec::new(), Vec::new(), Sha256::new());
        let mut load = async || {
            for changes in changes.values() {
                sides.push(place(backend, &mut made, &mut hash, adapter, changes, scale, base).await?);
            }
            backend.flush().await
        };
        if let Err(error) = load().await {
            made.into_iter().for_each(|weight| backend.drop_weight(weight));
            return Err(error);
        }
        self.loaded.push(Loaded { info, digest: hex(&hash.finalize()), sides });
        self.fill();
        Ok(())
    }

    /// Adds more or less of an adapter from now on.
    pub fn set_scale(&mut self, backend: &mut dyn Backend, name: &str, scale: f32) -> Result<()> {
        check_scale(scale)?;
        let index = self.find(name)?;
        let loaded = &mut self.loaded[index];
        // A weight is written once: a DoRA gets other factors. The old ones stay until all of the new are there.
        let mut made = Vec::new();
        let mut factors = |placed: &Placed| match placed.side.factors {
            Some(_) => upload(backend, &mut made, placed.out, &placed.factors(scale)?).map(Some),
            None => Ok(None),
        };
        match loaded.sides.iter().map(&mut factors).collect::<Result<Vec<_>>>() {
            Ok(factors) => {
                for (Placed { side, .. }, factors) in loaded.sides.iter_mut().zip(factors) {
                    side.factors.into_iter().for_each(|old| backend.drop_weight(old));
                    *side = Side { scale, factors, ..*side };
                }
            }
            Err(error) => {
                made.into_iter().for_each(|weight| backend.drop_weight(weight));
                return Err(error);
            }
        }
        loaded.info.scale = scale;
        self.fill();
        Ok(())
    }

    /// Takes an adapter away and frees its weights.
    pub fn remove(&mut self, backend: &mut dyn Backend, name: &str) -> Result<()> {
        let index = self.find(name)?;
        let gone = self.loaded.remove(index);
        for Placed { slot, side, .. } in gone.sides {
            slot.clear();
            [Some(side.a), Some(side.b), side.factors].into_iter().flatten().for_each(|weight| backend.drop_weight(weight));
        }
        self.fill();
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize> {
        let known = || self.loaded.iter().map(|l| l.info.name.as_str()).collect::<Vec<_>>();
        let index = self.loaded.iter().position(|l| l.info.name == name);
        index.ok_or_else(|| Error::NotFound(format!("no adapter is called {name:?}; there are {:?}", known())))
    }

    /// Puts all sides into their slots.
    fn fill(&self) {
        let all = || self.loaded.iter().flat_map(|l| &l.sides);
        all().for_each(|placed| placed.slot.clear());
        all().for_each(|placed| placed.slot.push(placed.side));
    }

    /// What `adapter` changes, by weight: a weight may be stacked of several tensors.
    fn changes<'a>(&self, adapter: &'a Adapter) -> Result<BTreeMap<u32, Vec<Change<'a>>>> {
        let mut changes: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
        for (name, module) in &adapter.modules {
            let (name, target) = self.target(name, &module.a.name)?;
            for (tensor, shape) in [(&module.a, [module.rank(), target.cols]), (&module.b, [target.rows(), module.rank()])] {
                if tensor.shape != shape {
                    return Err(Error::InvalidInput(format!(
                        "the adapter was made for another base: its tensor {:?} has shape {:?}, {name:?} of this model needs {shape:?}",
                        tensor.name, tensor.shape
                    )));
                }
            }
            changes.entry(target.weight.0).or_default().push(Change { name, target, module });
        }
        Ok(changes)
    }

    /// The target of the name that an adapter uses. The classes of transformers nest models in one another, so one name may
    /// be the end of the other: `h.0.attn.c_attn.weight` and `transformer.h.0.attn.c_attn.weight`.
    fn target(&self, name: &str, tensor: &str) -> Result<(String, Target)> {
        let ends = |long: &str, short: &str| long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let mut names = match self.targets.get(name) {
            Some(_) => vec![name.to_owned()],
            None => self.targets.names().into_iter().filter(|known| ends(known, name) || ends(name, known)).collect(),
        };
        match (names.pop(), names.pop()) {
            (Some(name), None) => self.targets.get(&name).map(|target| (name, target)),
            _ => None,
        }
        .ok_or_else(|| {
            let message = format!("its tensor {tensor:?} changes {name:?}");
            Error::InvalidInput(match name.contains(".experts.") {
                true => format!("adapters of experts are not supported: {message}"),
                false => format!("the adapter was made for another base: {message}, and this model has no such linear map"),
            })
        })
    }
}

impl Placed {
    /// The factors of all outputs of the weight.
    fn factors(&self, scale: f32) -> Result<Vec<f32>> {
        let mut factors = vec![1.0; self.out];
        for lengths in &self.lengths {
            lengths.factors(scale, &mut factors)?;
        }
        Ok(factors)
    }
}

/// Loads what an adapter has for one weight. Its tensors share the input, so their ranks are stacked; the rows of `b` are the
/// weight's, and each reads only its own tensor's ranks. Weights are noted in `made` as they are made.
async fn place(
    backend: &mut dyn Backend,
    made: &mut Vec<Weight>,
    hash: &mut Sha256,
    adapter: &Adapter,
    changes: &[Change<'_>],
    scale: f32,
    base: &Checkpoint,
) -> Result<Placed> {
    let Target { slot, out, cols, .. } = changes[0].target.clone();
    // Kernels read four columns at once; the rows that are added are zeros.
    let ranks = changes.iter().map(|c| c.module.rank()).sum::<usize>().next_multiple_of(4);
    let (mut a, mut b, mut lengths) = (vec![0.0; ranks * cols], vec![0.0; out * ranks], Vec::new());
    let mut first = 0;
    for Change { name, target, module } in changes {
        let (rank, own_a, own_b) = (module.rank(), adapter.floats(&module.a).await?, rows_of_b(adapter, target, module, base).await?);
        hash.update(name);
        [&own_a, &own_b].iter().for_each(|floats| hash.update(bytemuck::cast_slice::<f32, u8>(floats)));
        a[first * cols..][..rank * cols].copy_from_slice(&own_a);
        for (row, own) in b.chunks_exact_mut(ranks).skip(target.start).zip(own_b.chunks_exact(rank)) {
            row[first..first + rank].copy_from_slice(own);
        }
        if let Some(magnitude) = &module.magnitude {
            let magnitude = adapter.floats(magnitude).await?;
            hash.update(bytemuck::cast_slice::<f32, u8>(&magnitude));
            lengths.push(Lengths::measure(base, name, target, &own_a, &own_b, &magnitude).await?);
        }
        first += rank;
    }
    let (a, b) = (upload(backend, made, cols, &a)?, upload(backend, made, ranks, &b)?);
    let mut placed = Placed { slot, side: Side { a, b, scale, factors: None }, out, lengths };
    if !placed.lengths.is_empty() {
        placed.side.factors = Some(upload(backend, made, out, &placed.factors(scale)?)?);
    }
    Ok(placed)
}

/// The scaled rows of B in the order that the weight's rows have on the device.
async fn rows_of_b(adapter: &Adapter, target: &Target, module: &Module, base: &Checkpoint) -> Result<Vec<f32>> {
    let (rank, b) = (module.rank(), adapter.floats(&module.b).await?);
    let order = match module.rows {
        Rows::AsPublished => Order::AsStored,
        rows => {
            let [heads, head_dim] = heads(base)?;
            Order::new(rows, heads, head_dim)
        }
    };
    let block = order.together();
    if !target.rows().is_multiple_of(block) {
        return Err(Error::InvalidInput(format!("{:?} has {} rows, no multiple of {block}", module.b.name, target.rows())));
    }
    let stored = |row: usize| row - row % block + order.stored(row % block);
    let rows = target.order.iter().cloned().flatten();
    Ok(rows.flat_map(|row| &b[stored(row) * rank..][..rank]).map(|v| v * module.scaling).collect())
}

/// Query heads and elements of a head, by the base's configuration.
fn heads(base: &Checkpoint) -> Result<[usize; 2]> {
    let number = |key: &str| base.config.get(key).and_then(serde_json::Value::as_u64);
    let sizes = || {
        let heads = number("num_attention_heads").filter(|n| *n > 0)?;
        let head_dim = number("head_dim").or(Some(number("hidden_size")? / heads)).filter(|n| *n > 0 && n.is_multiple_of(2))?;
        // No product of these overflows.
        Some([usize::from(u16::try_from(heads).ok()?), usize::from(u16::try_from(head_dim).ok()?)])
    };
    sizes().ok_or_else(|| Error::InvalidFile("config.json does not say how many heads there are, and of which even size".into()))
}

/// A weight of f32 rows, cut where a buffer would become too large.
fn upload(backend: &mut dyn Backend, made: &mut Vec<Weight>, cols: usize, data: &[f32]) -> Result<Weight> {
    let most = (backend.max_plane_bytes() / (4 * cols)).max(1);
    let pieces: Vec<&[f32]> = data.chunks(most * cols).collect();
    let segments: Vec<Segment> = pieces.iter().map(|piece| Segment { format: Format::F32, rows: piece.len() / cols }).collect();
    let weight = backend.new_weight(cols, &segments)?;
    made.push(weight);
    for (index, piece) in pieces.iter().enumerate() {
        backend.write_weight(weight, index, Plane::Values, 0, bytemuck::cast_slice(piece))?;
    }
    Ok(weight)
}

fn check_scale(scale: f32) -> Result<()> {
    if scale.is_finite() { Ok(()) } else { Err(Error::InvalidInput(format!("an adapter's scale is {scale}; it must be a finite number"))) }
}

/// Whether one of the names that the model declares is the one that the adapter names, organisation and spelling aside.
fn base_matches(declared: Option<&str>, card: &Card) -> Option<bool> {
    let plain = |name: &str| {
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
        last.split([' ', '_']).collect::<Vec<_>>().join("-")
    };
    let own: Vec<String> = [&card.name, &card.origin].into_iter().flatten().map(|d| plain(&d.value)).collect();
    (!own.is_empty()).then_some(own.contains(&plain(declared?)))
}
