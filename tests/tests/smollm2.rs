//! SmolLM2-135M-Instruct against f32 references made with transformers: logits, likelihoods, answers.

use openweights::{
    backend::{
        Backend, Precision,
        cpu::{Cpu, CpuOptions},
    },
    generate::{FinishReason, Params},
    ops::score,
    text::Message,
    weights,
};
use openweights_tests::{
    answer, cpu, gpu, greedy, ids, json, load, logits,
    real::{mean_kl, prompt_difference, text_difference},
    reference, smollm2_gguf,
};

fn model(backend: Box<dyn Backend>) -> openweights::engine::Model {
    load(&weights::open(&smollm2_gguf()).expect("the GGUF opens"), backend).expect("the model loads")
}

fn question() -> Vec<Message> {
    vec![Message { role: "user".into(), content: "What is the capital of France?".into() }]
}

#[test]
fn reference_backend_agrees_with_transformers() {
    let mut model = model(reference());
    let (chat, text) = (json("gguf/smollm2_chat.json"), json("gguf/smollm2_text.json"));
    let prompt = model.chat_prompt(&question(), None).expect("a prompt");
    assert_eq!(prompt, ids(&chat["input_ids"]));
    let difference = prompt_difference(&logits(&mut model, &prompt), &chat);
    let text = text_difference(&logits(&mut model, &ids(&text["ids"])), &text);
    println!("reference backend: chat logits within {difference:.6}, log-probabilities of a text within {text:.6}");
    assert!(difference < 0.001, "chat logits differ by {difference}");
    assert!(text < 0.001, "log-probabilities of a text differ by {text}");
}

#[test]
fn gpu_backend_is_close_to_the_reference() {
    let mut gpu_model = model(gpu());
    let chat = json("gguf/smollm2_chat.json");
    let prompt = ids(&chat["input_ids"]);
    let difference = prompt_difference(&logits(&mut gpu_model, &prompt), &chat);
    assert!(difference < 0.02, "chat logits differ by {difference}");

    let text = ids(&json("gguf/smollm2_text.json")["ids"]);
    let mean = mean_kl(&logits(&mut model(reference()), &text), &mut gpu_model, &text);
    println!("GPU backend: chat logits within {difference:.6}, mean KL {mean:.3e} on {} positions", text.len());
    assert!(mean < 0.0005, "mean KL is {mean}");
}

#[test]
fn cpu_backend_is_close_to_the_reference() {
    let text = ids(&json("gguf/smollm2_text.json")["ids"]);
    let exact = logits(&mut model(reference()), &text);
    let nll = |rows: &[Vec<f32>]| rows.iter().zip(&text[1..]).map(|(row, id)| -score::log_probability(row, *id)).sum::<f64>();
    for (precision, most) in [(Precision::Fast, 0.004), (Precision::Balanced, 0.0005), (Precision::Exact, 1e-6)] {
        let backend = Box::new(Cpu::new(CpuOptions { threads: Some(2), precision, ..CpuOptions::default() }));
        let ours = logits(&mut model(backend), &text);
        let kl: Vec<f64> = exact.iter().zip(&ours).map(|(p, q)| score::kl_divergence(p, q)).collect();
        let (mean, ratio) = (kl.iter().sum::<f64>() / kl.len() as f64, nll(&ours) / nll(&exact));
        println!(
            "CPU backend, activations rounded {precision:?}: mean KL {mean:.3e} on {} positions, likelihood {ratio:.5} of the reference's",
            kl.len()
        );
        assert!(mean < most, "{precision:?}: mean KL is {mean}");
        assert!((ratio - 1.0).abs() < 0.01, "mean negative log-likelihood is {ratio} of the reference's");
    }
}

#[test]
fn cpu_backend_answers() {
    answers(cpu());
}

/// The reference's answer, to its end token and past it; then the same question again, which reuses the conversation.
fn answers(backend: Box<dyn Backend>) {
    let chat = json("gguf/smollm2_chat.json");
    let (prompt, expected) = (ids(&chat["input_ids"]), ids(&chat["greedy_ids"]));
    let mut model = model(backend);
    assert_eq!(greedy(&mut model, &prompt, 16), expected);
    let end = expected.iter().position(|&id| id == 2).expect("an end token");
    let reply = answer(&mut model, prompt.clone(), Params::default()).expect("an answer");
    assert_eq!(reply.ids, expected[..=end]);
    assert_eq!(reply.text, "The capital of France is Paris.");
    assert_eq!(reply.reason, FinishReason::Stop);
    assert_eq!(reply.usage.reused_tokens, prompt.len() - 1);
    let stopped = Params { stop: vec!["France is".into()], reuse_prefix: false, ..Params::default() };
    let reply = answer(&mut model, prompt.clone(), stopped).expect("an answer");
    assert_eq!((reply.text.as_str(), reply.reason, reply.usage.reused_tokens), ("The capital of ", FinishReason::Stop, 0));
}

#[test]
fn reference_backend_answers() {
    answers(reference());
}

#[test]
fn gpu_backend_answers() {
    answers(gpu());
}
