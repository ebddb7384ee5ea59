//! Tests on every backend.

use std::path::PathBuf;

/// SmolLM2-135M-Instruct Q4_1 as published: `OPENWEIGHTS_SMOLLM2`, or `.cache/` of the workspace, where the scripts put it.
pub fn smollm2_gguf() -> PathBuf {
    let cached = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("OPENWEIGHTS_SMOLLM2").map_or_else(|| cached.into(), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run scripts/setup, or set OPENWEIGHTS_SMOLLM2", path.display());
    path
}
