//! Checkpoints whose weights are packed by other people's schemes: recognised, and refused by name.

use safetensors::tensor::Dtype;
use serde_json::Value;

use crate::error::{Error, Result};

/// What to do instead.
const INSTEAD: &str = "choose the model's checkpoint in bf16, f16 or f32, or a GGUF of it";

/// Refuses a checkpoint whose `config.json` says that its weights are packed by another scheme. MXFP4 is gpt-oss's own, and read.
pub fn refuse(config: &Value) -> Result<()> {
    let present = |key: &str| config.get(key).filter(|value| !value.is_null());
    // compressed-tensors wrote the second once, MLX writes the third.
    let keys = ["quantization_config", "compression_config", "quantization"];
    let Some((key, said)) = keys.into_iter().find_map(|key| Some((key, present(key)?))) else { return Ok(()) };
    let method = said.get("quant_method").and_then(Value::as_str);
    if method == Some("mxfp4") {
        return Ok(());
    }
    let name = match (key, method) {
        (_, Some(method)) => of_method(method).to_owned(),
        ("quantization_config", None) if said.get("load_in_4bit").is_some() || said.get("load_in_8bit").is_some() => "bitsandbytes".into(),
        ("compression_config", None) => "compressed-tensors".into(),
        (_, None) if said.get("group_size").is_some() && said.get("bits").is_some() => "MLX".into(),
        _ => "an unnamed scheme".into(),
    };
    let stated = method.map_or_else(|| format!("{key:?}"), |method| format!("{key:?}: quant_method {method:?}"));
    Err(Error::UnsupportedFormat(format!(
        "config.json says that the weights are quantised by {name} ({stated}), which is not read: {INSTEAD}"
    )))
}

/// A scheme's name, from what `quant_method` calls it.
fn of_method(method: &str) -> &str {
    match method {
        "gptq" => "GPTQ",
        "awq" => "AWQ",
        "hqq" => "HQQ",
        "aqlm" => "AQLM",
        other => other,
    }
}

/// Why a tensor of this type is not read.
pub(super) fn refused_tensor(name: &str, dtype: Dtype, file: &str) -> Error {
    let part = name.rsplit('.').next().unwrap_or_default();
    let scheme = match part {
        "qweight" | "qzeros" | "g_idx" => Some("GPTQ or AWQ"),
        "weight_packed" | "weight_shape" | "weight_zero_point" => Some("compressed-tensors"),
        "absmax" | "quant_map" | "nested_absmax" | "SCB" => Some("bitsandbytes"),
        "weight" if dtype == Dtype::U8 || dtype == Dtype::I8 => Some("bitsandbytes, perhaps"),
        "weight" if dtype == Dtype::U32 => Some("MLX, perhaps"),
        _ if format!("{dtype:?}").starts_with("F8") => Some("fp8"),
        _ => None,
    };
    let by = scheme.map_or_else(String::new, |scheme| format!(", as of a checkpoint quantised by {scheme}"));
    Error::UnsupportedFormat(format!(
        "tensor {name:?} in {file:?} has type {dtype:?}{by}; F32, F16, BF16 and mxfp4's pairs are read: {INSTEAD}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemes_are_refused_by_name() {
        for (config, name) in [
            (json!({ "quantization_config": { "quant_method": "gptq", "bits": 4 } }), "GPTQ"),
            (json!({ "quantization_config": { "quant_method": "awq" } }), "AWQ"),
            (json!({ "quantization_config": { "quant_method": "compressed-tensors" } }), "compressed-tensors"),
            (json!({ "compression_config": { "format": "pack-quantized" } }), "compressed-tensors"),
            (json!({ "quantization_config": { "load_in_4bit": true } }), "bitsandbytes"),
            (json!({ "quantization_config": { "quant_method": "bitsandbytes" } }), "bitsandbytes"),
            (json!({ "quantization_config": { "quant_method": "fp8" } }), "fp8"),
            (json!({ "quantization": { "group_size": 64, "bits": 4 } }), "MLX"),
            (json!({ "quantization_config": {} }), "unnamed"),
        ] {
            let error = refuse(&config).unwrap_err();
            assert_eq!(error.code(), "unsupported_format");
            assert!(
                error.to_string().contains(&format!("quantised by {}", if name == "unnamed" { "an unnamed scheme" } else { name })),
                "{error}"
            );
        }
        refuse(&json!({ "quantization_config": null })).unwrap();
        refuse(&json!({ "quantization_config": { "quant_method": "mxfp4" } })).unwrap();
    }

    #[test]
    fn tensors_name_their_scheme() {
        let says = |name: &str, dtype| refused_tensor(name, dtype, "f").to_string();
        assert!(says("model.layers.0.mlp.up_proj.qweight", Dtype::I32).contains("GPTQ or AWQ"));
        assert!(says("a.weight", Dtype::F8_E4M3).contains("fp8"));
        assert!(says("a.weight_packed", Dtype::I32).contains("compressed-tensors"));
        assert!(says("a.weight.absmax", Dtype::U8).contains("bitsandbytes"));
        assert!(!says("a.rotary", Dtype::I64).contains("quantised"));
    }
}
