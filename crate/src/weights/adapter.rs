//! LoRA adapters as their publishers release them: PEFT's directory of two files, or a GGUF file.
//!
//! An adapter changes linear maps. For a weight `W` `[out, in]` it has `A` `[rank, in]` and `B` `[out, rank]`, and `W x`
//! becomes `W x + s B A x` with `s = alpha / rank` (Hu et al. 2021) or `alpha / sqrt(rank)` (rsLoRA, Kalajdzievski 2023).
//! DoRA (Liu et al. 2024) then gives the rows of `W + s B A` the lengths in its magnitude vector.

use std::collections::BTreeMap;

use super::{Files, Part, files::Listing, gguf::architecture::Rows, safetensors::read_small};
use crate::{
    error::{Error, Result},
    quant::Format,
};

mod config;
pub mod fetch;
mod gguf;
mod peft;

/// PEFT's configuration file.
pub const CONFIG: &str = "adapter_config.json";

/// PEFT's weights.
const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter, its tensors still in their files.
pub struct Adapter {
    /// The base model that it says it was made for.
    pub base_model: Option<String>,
    /// What it changes, by the published names of the weights.
    pub modules: BTreeMap<String, Module>,
    files: Box<dyn Files>,
}

/// What an adapter holds for one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// `[rank, in]`.
    pub a: Stored,
    /// `[out, rank]`.
    pub b: Stored,
    /// DoRA's lengths of rows, `[out]`.
    pub magnitude: Option<Stored>,
    /// The factor `s`.
    pub scaling: f32,
    /// What a converter did to the rows of `b`.
    pub rows: Rows,
}

/// A tensor in a file, in ggml's layout: for floats the same as safetensors'.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its name there.
    pub name: String,
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    format: Format,
    part: Part,
}

impl Module {
    /// Rows of `a`.
    pub fn rank(&self) -> usize {
        self.a.shape[0]
    }

    /// Checks that the tensors of the weight called `name` are there and fit each other.
    fn new(name: &str, parts: Parts, scaling: impl FnOnce(usize) -> Result<f32>) -> Result<Module> {
        let missing = |what: &str| Error::InvalidFile(format!("the adapter's {what} for {name:?} is missing"));
        let (a, b) = (parts.a.ok_or_else(|| missing("A"))?, parts.b.ok_or_else(|| missing("B"))?);
        let fit = match (a.shape.as_slice(), b.shape.as_slice(), parts.magnitude.as_ref().map(|m| m.shape.as_slice())) {
            ([rank, _], [out, columns], magnitude) => rank == columns && magnitude.is_none_or(|m| m == [*out]),
            _ => false,
        };
        if !fit {
            let shapes: Vec<_> =
                [Some(&a), Some(&b), parts.magnitude.as_ref()].into_iter().flatten().map(|t| (&t.name, &t.shape)).collect();
            return Err(Error::InvalidFile(format!("the adapter's tensors do not fit each other: {shapes:?}")));
        }
        let scaling = scaling(a.shape[0])?;
        Ok(Module { a, b, magnitude: parts.magnitude, scaling, rows: Rows::AsPublished })
    }
}

/// A module's tensors as they are found.
#[derive(Default)]
struct Parts {
    a: Option<Stored>,
    b: Option<Stored>,
    magnitude: Option<Stored>,
}

impl Adapter {
    /// All elements of one of its tensors.
    pub async fn floats(&self, tensor: &Stored) -> Result<Vec<f32>> {
        let Stored { format, part, .. } = tensor;
        let packed = self.files.read(&part.file, part.offset, part.len as usize).await?;
        let cols = tensor.shape.last().copied().unwrap_or(1);
        let mut floats = vec![0.0; tensor.shape.iter().product()];
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        for (blocks, row) in packed.chunks_exact(format.ggml_row_bytes(cols)).zip(floats.chunks_exact_mut(cols)) {
            values.clear();
            scales.clear();
            format.split_ggml_row(blocks, &mut values, &mut scales)?;
            format.unpack_row(&values, &scales, row);
        }
        Ok(floats)
    }

    /// Whether it is a DoRA.
    pub fn is_dora(&self) -> bool {
        self.modules.values().any(|m| m.magnitude.is_some())
    }
}

/// Opens the adapter among the files of `listing`. Nothing of its settings is ignored: what would change the result and is not
/// known here is refused by name.
pub async fn open(files: Box<dyn Files>, listing: &Listing) -> Result<Adapter> {
    let ending = |with: &str| listing.iter().filter(|(name, _)| name.ends_with(with)).collect::<Vec<_>>();
    let tensors = match listing.get_key_value(WEIGHTS) {
        Some(weights) => vec![weights],
        None => ending(".safetensors"),
    };
    match (listing.get(CONFIG), tensors.as_slice(), ending(".gguf").as_slice()) {
        (Some(&config), [(weights, size)], _) => {
            let config = config::Lora::parse(&read_small(&*files, CONFIG, config).await?)?;
            peft::open(files, config, weights, **size).await
        }
        (Some(_), [], _) => Err(Error::NotFound(match listing.keys().find(|name| name.ends_with(".bin")) {
            Some(pickle) => format!("{WEIGHTS}: {pickle:?} is a pickle, which is not read; save the adapter with safe_serialization"),
            None => format!("{WEIGHTS}, beside {CONFIG}"),
        })),
        (Some(_), ..) => Err(Error::InvalidInput(format!("several files are named *.safetensors, none {WEIGHTS}: name the one"))),
        (None, [], [(file, size)]) => gguf::open(files, file, **size).await,
        _ => Err(Error::NotFound(format!("{CONFIG}: an adapter is a directory with it and {WEIGHTS}, or one GGUF file"))),
    }
}
