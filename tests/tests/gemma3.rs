//! Gemma 3 270M Q4_K_M, as its package has it: Q4_K, Q5_0, Q6_K and Q8_0 in one file, and a vocabulary of 262,144 tokens whose
//! embedding is larger than a binding at WebGPU's default limits. Against f32 references made with transformers.
//!
//! A package rounds the products of Q4_K's and Q6_K's two-level scales to f16, which moves logits by 0.008; so the reference backend is held to
//! 0.001 with those tensors in f32, and divergences are taken from its logits: they contain what the rounding costs.

use std::sync::LazyLock;

use openweights::{
    backend::{Backend, Precision},
    engine::Model,
    quant::Format,
    weights,
};
use openweights_tests::{
    cpu_of, exact, gemma3_gguf, gpu, greedy, ids, json, load, logits,
    real::{mean_kl, prompt_difference, text_difference},
    reference,
};

fn model(backend: Box<dyn Backend>) -> Model {
    load(&weights::open(&gemma3_gguf()).expect("the GGUF opens"), backend).expect("the model loads")
}

fn text() -> Vec<u32> {
    ids(&json("gguf/gemma3_270m_text.json")["ids"])
}

/// Exact logits of every position of the text: half a gigabyte, computed once.
static EXACT: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| logits(&mut exact::model(&gemma3_gguf()), &text()));

#[test]
fn the_file_mixes_formats() {
    let checkpoint = weights::open(&gemma3_gguf()).expect("the GGUF opens");
    let format = |name: &str| checkpoint.tensor(name).expect("a tensor").format;
    assert_eq!(format("model.embed_tokens.weight"), Format::Q8_0);
    assert_eq!(format("model.layers.0.self_attn.o_proj.weight"), Format::Q4K);
    assert_eq!(format("model.layers.0.self_attn.q_proj.weight"), Format::Q5_0);
    assert_eq!(format("model.layers.0.mlp.down_proj.weight"), Format::Q6K);
    assert_eq!(checkpoint.config["model_type"], "gemma3_text");
}

#[test]
fn reference_backend_agrees_with_transformers() {
    let (mut exact, golden) = (exact::model(&gemma3_gguf()), json("gguf/gemma3_270m.json"));
    let prompt = exact.encode(golden["text"].as_str().expect("a text"), true).expect("a prompt");
    assert_eq!(prompt, ids(&golden["input_ids"]));
    let difference = prompt_difference(&logits(&mut exact, &prompt), &golden);
    assert_eq!(greedy(&mut exact, &prompt, 16), ids(&golden["greedy_ids"]));
    let text = text_difference(&EXACT, &json("gguf/gemma3_270m_text.json"));
    println!("reference backend: logits within {difference:.6}, log-probabilities of a text within {text:.6}");
    assert!(difference < 0.001, "logits differ by {difference}");
    assert!(text < 0.001, "log-probabilities of a text differ by {text}");
}

#[test]
fn rounded_scales_cost_little() {
    let some = &EXACT[..64];
    let mean = mean_kl(some, &mut model(reference()), &text());
    println!("scales rounded to f16: mean KL {mean:.3e} on {} positions", some.len());
    assert!(mean < 0.0001, "rounding scales costs a mean KL of {mean}");
}

#[test]
fn gpu_backend_is_close_to_the_reference() {
    let (mut gpu_model, golden) = (model(gpu()), json("gguf/gemma3_270m.json"));
    let prompt = ids(&golden["input_ids"]);
    let difference = prompt_difference(&logits(&mut gpu_model, &prompt), &golden);
    assert!(difference < 0.02, "logits differ by {difference}");
    assert_eq!(greedy(&mut gpu_model, &prompt, 16), ids(&golden["greedy_ids"]));
    let mean = mean_kl(&EXACT, &mut gpu_model, &text());
    println!("GPU backend: logits within {difference:.6}, mean KL {mean:.3e} on {} positions", EXACT.len());
    assert!(mean < 0.0005, "mean KL is {mean}");
}

#[test]
fn cpu_backend_is_close_to_the_reference() {
    for (precision, most) in [(Precision::Exact, 0.0005), (Precision::Balanced, 0.006), (Precision::Fast, 0.006)] {
        let mean = mean_kl(&EXACT, &mut model(cpu_of(precision)), &text());
        println!("CPU backend, {precision:?}: mean KL {mean:.3e} on {} positions", EXACT.len());
        assert!(mean < most, "{precision:?}: mean KL is {mean}");
    }
}
