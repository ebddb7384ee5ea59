//! Qwen2.5-Coder-0.5B-Instruct Q4_K_M (biases, tied head, a real chat template) against f32 references made with transformers. The
//! package that has the file states no licence (and no model whose package does was found at the registries), so nothing fetches it:
//! `OPENWEIGHTS_QWEN25CODER` names it where it is at hand (491,400,064 bytes, sha256
//! 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32). As in `gemma3.rs`, "exact" means K-quants in f32.

use std::path::PathBuf;

use openweights::{
    backend::{Backend, Precision},
    engine::Model,
    generate::Params,
    text::Message,
    weights,
};
use openweights_tests::{
    answer, cpu_of, exact, gpu, greedy, ids, json, load, logits,
    real::{mean_kl, prompt_difference},
    reference,
};

fn gguf() -> PathBuf {
    std::env::var_os("OPENWEIGHTS_QWEN25CODER").map(PathBuf::from).expect("OPENWEIGHTS_QWEN25CODER")
}

fn model(backend: Box<dyn Backend>) -> Model {
    load(&weights::open(&gguf()).expect("the GGUF opens"), backend).expect("the model loads")
}

#[test]
#[ignore = "needs a file whose package states no licence: name it in OPENWEIGHTS_QWEN25CODER"]
fn every_backend_agrees_with_transformers() {
    let golden = json("gguf/qwen25coder05b.json");
    let mut exact = exact::model(&gguf());
    let messages = [Message { role: "user".into(), content: "What is the capital of France?".into() }];
    let prompt = exact.chat_prompt(&messages, None).expect("a prompt");
    assert_eq!(prompt, ids(&golden["input_ids"]));
    let exact_logits = logits(&mut exact, &prompt);
    let difference = prompt_difference(&exact_logits, &golden);
    println!("reference backend: logits within {difference:.6}");
    assert!(difference < 0.001, "logits differ by {difference}");
    assert_eq!(greedy(&mut exact, &prompt, 16), ids(&golden["greedy_ids"]));
    drop(exact);

    let backends = [
        ("reference", reference(), 0.0005),
        ("gpu", gpu(), 0.0005),
        ("cpu, exact", cpu_of(Precision::Exact), 0.0005),
        ("cpu, fast", cpu_of(Precision::Fast), 0.006),
    ];
    for (name, backend, most) in backends {
        let mut model = model(backend);
        let difference = prompt_difference(&logits(&mut model, &prompt), &golden);
        let mean = mean_kl(&exact_logits, &mut model, &prompt);
        println!("{name}: logits within {difference:.6}, mean KL {mean:.3e} on {} positions", prompt.len());
        assert!(mean < most, "{name}: mean KL is {mean}");
        assert_eq!(greedy(&mut model, &prompt, 16), ids(&golden["greedy_ids"]), "{name}");
        let reply = answer(&mut model, prompt.clone(), Params::default()).expect("an answer");
        assert_eq!(reply.text, "The capital of France is Paris.", "{name}");
    }
}
