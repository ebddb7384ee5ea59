//! The architectures, a short file for each family.

use super::architecture::Architecture;

mod bert;
mod gemma;
mod gpt2;
mod gpt_oss;
mod gptneox;
mod granite;
mod lfm2;
mod llama;
mod olmo2;
mod phi;
mod qwen;
mod smollm3;

/// All that are read.
pub static ARCHITECTURES: &[&Architecture] = &[
    &bert::BERT,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gemma::GEMMA_EMBEDDING,
    &gpt2::GPT2,
    &gpt_oss::GPT_OSS,
    &gptneox::GPTNEOX,
    &granite::GRANITE,
    &lfm2::LFM2,
    &llama::LLAMA,
    &llama::MIXTRAL,
    &olmo2::OLMO2,
    &phi::PHI2,
    &phi::PHI3,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3MOE,
    &smollm3::SMOLLM3,
];
