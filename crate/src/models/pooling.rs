//! From an encoder's hidden states to one embedding, as Sentence Transformers says it beside a checkpoint: pooling, then perhaps
//! dense layers. An opened checkpoint carries what its `modules.json` lists under this key of `config.json`.

use serde_json::{Value, json};

use super::{classic::activation, config::Config};
use crate::{
    backend::{Activation, Backend, Tensor},
    error::{Error, Result},
    layers::Linear,
    weights::loader::Loader,
};

/// The list of modules in `config.json`.
const MODULES: &str = "sentence_transformers";

/// Which rows an embedding is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Mean,
    First,
    Last,
}

/// Pooling, and the layers after it.
pub struct Pooling {
    rows: Rows,
    dense: Vec<(Linear, Option<Activation>)>,
    width: usize,
}

/// Whether a configuration says how to make embeddings.
pub fn is_described(config: Config<'_>) -> bool {
    config.get(MODULES).is_some()
}

impl Pooling {
    /// What `config` says of hidden states `hidden` wide; where it says nothing, the mean.
    pub async fn load(config: Config<'_>, loader: &mut Loader<'_>, hidden: usize) -> Result<Pooling> {
        let mut pooling = Pooling { rows: Rows::Mean, dense: Vec::new(), width: hidden };
        let Some(modules) = config.get(MODULES) else { return Ok(pooling) };
        let mut pooled = false;
        for module in modules.as_array().ok_or_else(|| Error::InvalidFile(format!("config.json: {MODULES:?} is no list")))? {
            match module.get("type").and_then(Value::as_str) {
                // What embeddings are divided by their length for at the end, they are anyway.
                Some("Transformer" | "Normalize") => {}
                Some("Pooling") if !pooled => (pooling.rows, pooled) = (rows(Config(module))?, true),
                Some("Dense") if pooled => pooling.add(Config(module), loader).await?,
                _ => {
                    let message =
                        format!("modules.json: {module} is not known here; known: Transformer, one Pooling, then Dense, Normalize");
                    return Err(Error::UnsupportedFormat(message));
                }
            }
        }
        match pooled {
            true => Ok(pooling),
            false => Err(Error::UnsupportedFormat("modules.json has no Pooling: hidden states of each token are no embedding".into())),
        }
    }

    async fn add(&mut self, module: Config<'_>, loader: &mut Loader<'_>) -> Result<()> {
        module.only("in_features", &json!(self.width))?;
        let path = module.get("path").and_then(Value::as_str).unwrap_or_default();
        self.width = module.size("out_features")?;
        // torch.nn.modules.linear.Identity
        let named = module.get("activation_function").and_then(Value::as_str).unwrap_or("not given");
        let activation = match named.rsplit('.').next() {
            Some("Identity") => None,
            Some("GELU") => Some(activation(Some("gelu"))?),
            Some("SiLU") => Some(activation(Some("silu"))?),
            Some("Tanh") => Some(Activation::Tanh),
            _ => {
                let message = format!("{path}/config.json: activation_function {named:?}; known: Identity, GELU, SiLU, Tanh");
                return Err(Error::UnsupportedFormat(message));
            }
        };
        let (prefix, cols) = (format!("{path}.linear"), module.size("in_features")?);
        self.dense.push((Linear::load(loader, &prefix, self.width, cols, module.flag("bias", true)?).await?, activation));
        Ok(())
    }

    /// The embedding of a text's hidden states, one row of [`Pooling::width`], not yet normalised.
    pub fn of(&self, b: &mut dyn Backend, hidden: Tensor) -> Tensor {
        let mut x = match self.rows {
            Rows::Mean => b.mean_rows(hidden),
            Rows::First => b.first_row(hidden),
            Rows::Last => b.last_row(hidden),
        };
        for (linear, activation) in &self.dense {
            x = linear.of(b, x);
            if let Some(activation) = activation {
                x = b.activate(x, *activation);
            }
        }
        x
    }

    /// Elements of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Which rows an embedding is made of: `mean`, `cls` or `lasttoken`.
    pub fn name(&self) -> &'static str {
        match self.rows {
            Rows::Mean => "mean",
            Rows::First => "cls",
            Rows::Last => "lasttoken",
        }
    }
}

/// `pooling_mode`, or the one of `pooling_mode_cls_token`, `pooling_mode_mean_tokens`, ... that is true.
fn rows(module: Config<'_>) -> Result<Rows> {
    let flags = module.0.as_object().into_iter().flatten().filter(|(_, value)| **value == json!(true));
    let flags: Vec<&str> = flags.filter_map(|(key, _)| key.strip_prefix("pooling_mode_")).collect();
    let named = module.get("pooling_mode").map(|mode| mode.as_str().unwrap_or("not a name"));
    match named.as_slice().iter().chain(&flags).copied().collect::<Vec<_>>()[..] {
        ["mean" | "mean_tokens"] => Ok(Rows::Mean),
        ["cls" | "cls_token"] => Ok(Rows::First),
        ["lasttoken"] => Ok(Rows::Last),
        ref others => Err(Error::UnsupportedFormat(format!("pooling by {others:?}; known: one of mean_tokens, cls_token, lasttoken"))),
    }
}
