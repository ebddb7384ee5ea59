//! The architectures, a short file for each family.

use super::architecture::Architecture;

mod gemma;
mod gpt2;
mod gptneox;
mod granite;
mod llama;
mod olmo2;
mod phi;
mod qwen;
mod smollm3;

/// All that are read.
pub static ARCHITECTURES: &[&Architecture] = &[
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gpt2::GPT2,
    &gptneox::GPTNEOX,
    &granite::GRANITE,
    &llama::LLAMA,
    &olmo2::OLMO2,
    &phi::PHI2,
    &phi::PHI3,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &smollm3::SMOLLM3,
];
