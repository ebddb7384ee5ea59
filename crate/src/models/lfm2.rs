//! LFM2 (Liquid AI 2025): blocks that mix positions by a gated short convolution or by attention, then a gated MLP.

use serde_json::{Value, json};

use super::{Network, Positions, config::Config, rotary::Frequencies};
use crate::{
    backend::{Activation, Attention, Backend, Cache, CacheSpec, Conv, ConvSpec, Tensor, Weight},
    error::{Error, Result},
    layers::{GatedMlp, Linear, Residual, RmsNorm, SelfAttention, short_conv::ShortConv},
    weights::loader::Loader,
};

enum Mixer {
    Conv(ShortConv),
    Attention(SelfAttention),
}

struct Layer {
    mixer: Mixer,
    around_mixer: Residual,
    mlp: GatedMlp,
    around_mlp: Residual,
}

/// The network.
pub struct Lfm2 {
    embed: Weight,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    caches: Vec<CacheSpec>,
    convs: Vec<ConvSpec>,
    vocab: usize,
    context: usize,
}

/// The MLP's width: of what is configured two thirds, times a factor, rounded up.
fn mlp_width(config: Config<'_>) -> Result<usize> {
    let width = config.size_or_none("block_ff_dim")?.map_or_else(|| config.size("intermediate_size"), Ok)?;
    if !config.flag("block_auto_adjust_ff_dim", true)? {
        return Ok(width);
    }
    let factor = config.number("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    if !(factor > 0.0 && factor <= 64.0) {
        return Err(Error::InvalidFile(format!("config.json: block_ffn_dim_multiplier is {factor}")));
    }
    let width = ((2 * width / 3) as f64 * factor) as usize;
    Ok(width.next_multiple_of(config.size_or_none("block_multiple_of")?.unwrap_or(256)))
}

/// For each layer whether it attends: `layer_types`, or the indices in `full_attn_idxs`.
fn attends(config: Config<'_>, layers: usize) -> Result<Vec<bool>> {
    let kind = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(true),
        Some("conv") => Ok(false),
        _ => Err(Error::UnsupportedFormat(format!("config.json: a layer type is {kind}; known: conv, full_attention"))),
    };
    match (config.list("layer_types")?, config.list("full_attn_idxs")?) {
        (Some(types), _) if types.len() == layers => types.iter().map(kind).collect(),
        (None, Some(indices)) => Ok((0..layers).map(|layer| indices.contains(&json!(layer))).collect()),
        _ => Err(Error::InvalidFile(format!("config.json has neither a list of {layers} layer_types nor full_attn_idxs"))),
    }
}

/// Tensors' names are LFM2's own.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Lfm2> {
    let (hidden, vocab, inner) = (config.size("hidden_size")?, config.size("vocab_size")?, mlp_width(config)?);
    for key in ["block_dim", "conv_dim", "conv_dim_out"] {
        config.only(key, &json!(hidden))?;
    }
    config.only("block_use_swiglu", &json!(true))?;
    config.only("use_pos_enc", &json!(true))?;
    let (eps, bias, attention) = (config.need_number("norm_eps")? as f32, config.flag("conv_bias", false)?, config.attention(hidden)?);
    let conv = ConvSpec { cols: hidden, taps: config.size("conv_L_cache")? };
    if conv.taps > 64 {
        return Err(Error::UnsupportedFormat(format!("config.json: conv_L_cache is {}, above 64", conv.taps)));
    }
    let rope = Frequencies::from_config(config, attention.head_dim)?.load(loader)?;
    let embed = loader.matrix("model.embed_tokens.weight", vocab, hidden).await?;
    let (mut layers, mut caches, mut convs) = (Vec::new(), Vec::new(), Vec::new());
    for (i, attends) in attends(config, config.size("num_hidden_layers")?)?.into_iter().enumerate() {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        let mixer = if attends {
            let cache = Cache(caches.len() as u32);
            caches.push(CacheSpec { kv_heads: attention.kv_heads, head_dim: attention.head_dim });
            let (qkv, out, norms) = maps(loader, &name("self_attn"), hidden, attention, eps).await?;
            Mixer::Attention(SelfAttention::new(qkv, out, attention, Some(rope), cache).normed(norms))
        } else {
            convs.push(conv);
            Mixer::Conv(ShortConv::load(loader, &name("conv"), conv, bias, Conv(convs.len() as u32 - 1)).await?)
        };
        let gate_up = [(&*name("feed_forward.w1"), inner), (&*name("feed_forward.w3"), inner)];
        let gate_up = Linear::stacked(loader, &gate_up, hidden, false).await?;
        let down = Linear::load(loader, &name("feed_forward.w2"), hidden, inner, false).await?;
        let before_mixer = RmsNorm::load(loader, &name("operator_norm"), hidden, eps, 0.0).await?;
        let before_mlp = RmsNorm::load(loader, &name("ffn_norm"), hidden, eps, 0.0).await?;
        let [around_mixer, around_mlp] = [before_mixer, before_mlp].map(|norm| Residual { pre: Some(norm), ..Residual::default() });
        layers.push(Layer { mixer, around_mixer, mlp: GatedMlp::new(gate_up, down, Activation::Silu), around_mlp });
    }
    let norm = RmsNorm::load(loader, "model.embedding_norm", hidden, eps, 0.0).await?;
    let tied = config.flag("tie_embedding", config.flag("tie_word_embeddings", true)?)?;
    let head = if tied { Linear::tied(embed) } else { Linear::load(loader, "lm_head", vocab, hidden, false).await? };
    Ok(Lfm2 { embed, layers, norm, head, caches, convs, vocab, context: config.size("max_position_embeddings")? })
}

/// Maps to `q | k | v` and back, and the norms of queries and keys.
async fn maps(loader: &mut Loader<'_>, prefix: &str, hidden: usize, spec: Attention, eps: f32) -> Result<(Linear, Linear, [RmsNorm; 2])> {
    let name = |part: &str| format!("{prefix}.{part}");
    let (q, kv) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let qkv = [(&*name("q_proj"), q), (&*name("k_proj"), kv), (&*name("v_proj"), kv)];
    let qkv = Linear::stacked(loader, &qkv, hidden, false).await?;
    let out = Linear::load(loader, &name("out_proj"), hidden, q, false).await?;
    let q_norm = RmsNorm::load(loader, &name("q_layernorm"), spec.head_dim, eps, 0.0).await?;
    Ok((qkv, out, [q_norm, RmsNorm::load(loader, &name("k_layernorm"), spec.head_dim, eps, 0.0).await?]))
}

impl Network for Lfm2 {
    fn caches(&self) -> Vec<CacheSpec> {
        self.caches.clone()
    }

    fn convs(&self) -> Vec<ConvSpec> {
        self.convs.clone()
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn context(&self) -> usize {
        self.context
    }

    fn forward(&self, b: &mut dyn Backend, positions: Positions) -> Tensor {
        let mut x = b.embed(self.embed);
        for layer in &self.layers {
            x = match &layer.mixer {
                Mixer::Attention(attention) => layer.around_mixer.attention(b, attention, x),
                Mixer::Conv(conv) => conv.add_to(b, &layer.around_mixer, x),
            };
            x = layer.around_mlp.mlp(b, &layer.mlp, x);
            x = b.keep(x);
        }
        if positions == Positions::Last {
            x = b.last_row(x);
        }
        self.head.of_normed(b, Some(&self.norm), x)
    }
}
