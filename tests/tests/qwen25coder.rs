//! Qwen2.5-Coder-0.5B-Instruct Q4_K_M against f32 references made with transformers. The package that has the file states no licence,
//! so nothing fetches it: `OPENWEIGHTS_QWEN25CODER` names it where it is at hand (sha256 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32).

use std::path::PathBuf;

use openweights::{backend::Backend, engine::Model, text::Message, weights};
use openweights_tests::{
    gpu, greedy, ids, json, load, logits,
    real::{mean_kl, prompt_difference},
    reference,
};

fn model(backend: Box<dyn Backend>) -> Model {
    let path = std::env::var_os("OPENWEIGHTS_QWEN25CODER").map(PathBuf::from).expect("OPENWEIGHTS_QWEN25CODER");
    load(&weights::open(&path).expect("the GGUF opens"), backend).expect("the model loads")
}

#[test]
#[ignore = "needs a file whose package states no licence: name it in OPENWEIGHTS_QWEN25CODER"]
fn both_backends_agree_with_transformers() {
    let golden = json("gguf/qwen25coder05b.json");
    let (mut exact, mut gpu_model) = (model(reference()), model(gpu()));
    let messages = [Message { role: "user".into(), content: "What is the capital of France?".into() }];
    let prompt = exact.chat_prompt(&messages, None).expect("a prompt");
    assert_eq!(prompt, ids(&golden["input_ids"]));
    let [ours, theirs] = [&mut exact, &mut gpu_model].map(|model| prompt_difference(&logits(model, &prompt), &golden));
    let mean = mean_kl(&mut exact, &mut gpu_model, &prompt);
    println!("logits within {ours:.6} and {theirs:.6}, mean KL {mean:.3e} on {} positions", prompt.len());
    assert!(ours < 0.001 && theirs < 0.02 && mean < 0.0005, "{ours} {theirs} {mean}");
    assert_eq!(greedy(&mut exact, &prompt, 16), ids(&golden["greedy_ids"]));
    assert_eq!(greedy(&mut gpu_model, &prompt, 16), ids(&golden["greedy_ids"]));
}
