//! Every setting of every architecture's configuration, in both spellings: one that is not known is refused by name, before any weight.

use openweights::{engine, weights};
use openweights_tests::{fixture, json};
use serde_json::{Value, json};

/// Settings without effect on what is computed here.
const WITHOUT_EFFECT: &[&str] = &[
    // Names and types of files; token ids, which are no part of the network.
    "architectures",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    // Training.
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "classifier_dropout",
    "embd_pdrop",
    "hidden_dropout",
    "hidden_dropout_prob",
    "initializer_range",
    "output_router_logits",
    "resid_pdrop",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    // How others compute the same.
    "reorder_and_upcast_attn",
    "use_cache",
];

/// Settings that another one overrules, or that say what a window would be where there is none: unread in these.
const OVERRULED: &[(&str, &[&str])] = &[
    ("gemma2", &["hidden_act"]),
    ("gemma3_text", &["hidden_act", "_sliding_window_pattern"]),
    ("gpt2", &["n_ctx"]),
    ("gpt_neox", &["is_decoder"]),
    ("lfm2", &["full_attn_idxs"]),
    ("phi3", &["original_max_position_embeddings", "partial_rotary_factor"]),
    ("qwen2", &["max_window_layers", "sliding_window"]),
    ("qwen3", &["max_window_layers", "sliding_window"]),
    ("qwen3_moe", &["max_window_layers", "sliding_window"]),
    ("smollm3", &["max_window_layers", "sliding_window", "no_rope_layer_interval"]),
    ("bert", &["tie_word_embeddings"]),
];

/// Paths to every value within `value`, objects included.
fn paths(value: &Value, prefix: &str, out: &mut Vec<String>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{prefix}/{key}");
        paths(inner, &path, out);
        out.push(path);
    }
}

#[test]
fn an_unknown_value_of_any_setting_is_refused_by_name() {
    let (mut refused, mut accepted) = (0, Vec::new());
    for entry in
        std::fs::read_dir(fixture("tiny")).expect("the fixtures").map(|entry| entry.expect("an entry")).filter(|e| e.path().is_dir())
    {
        let name = entry.file_name().into_string().expect("a name");
        for spelling in ["config.json", "config.v5.json"] {
            let mut checkpoint = weights::open(&entry.path()).expect("the checkpoint opens");
            let config = json(&format!("tiny/{name}/{spelling}"));
            let (mut all, model) = (Vec::new(), config["model_type"].as_str().expect("model_type"));
            paths(&config, "", &mut all);
            for path in all {
                let key = path.rsplit('/').next().expect("a key");
                let overruled = OVERRULED.iter().any(|(of, keys)| *of == model && keys.contains(&key));
                // `type` is the older name of `rope_type`, which is beside it.
                if WITHOUT_EFFECT.contains(&key)
                    || overruled
                    || key == "type"
                    || name == "embeddinggemma_bidir" && key == "tie_word_embeddings"
                {
                    continue;
                }
                checkpoint.config = config.clone();
                *checkpoint.config.pointer_mut(&path).expect("it is there") = json!("frobnicated");
                match pollster::block_on(engine::check(&checkpoint)) {
                    Ok(()) => accepted.push(format!("{name}, {spelling}: {path}")),
                    Err(error) => {
                        refused += 1;
                        let text = error.to_string();
                        assert!(text.contains(key) || text.contains("frobnicated"), "{name}, {spelling}, {path}: {text}");
                        assert!(["unsupported_format", "invalid_file", "unsupported_architecture"].contains(&error.code()), "{text}");
                    }
                }
            }
        }
    }
    println!("{refused} bent settings were refused");
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
    assert!(refused > 800, "{refused}");
}
