//! Guesses checked many at a time: the tokens are those of plain steps, on every backend, greedy and drawn, and what was processed
//! for a wrong guess leaves no trace.

use openweights::{
    backend::{
        Backend, Sampling,
        gpu::{Gpu, GpuOptions},
    },
    engine::Model,
    generate::{FinishReason, Params, Speculation},
    text::Message,
    weights,
};
use openweights_tests::{Answer, answer, cpu, fixture, gpu, ids, json, load, load_for, logits, reference, smollm2_gguf};

/// Full attention; sliding windows, alone and between full layers; convolution states; experts; attention sinks; parallel blocks.
const TINY: [&str; 9] = ["llama_plain", "mistral_swa", "qwen2_swa", "gemma3", "lfm2_conv", "mixtral_moe", "gpt_oss", "phi", "smollm3_nope"];

fn run(model: &mut Model, prompt: &[u32], params: &Params, speculation: Speculation) -> Answer {
    let params = Params { speculation, ..params.clone() };
    answer(model, prompt.to_vec(), params).expect("an answer")
}

/// Answers with guesses that are partly right, and without; then what comes after them, where what a wrong guess left behind would show.
fn same_tokens(backend: fn() -> Box<dyn Backend>) {
    let drawn = |seed| Sampling { temperature: 0.7, top_p: 0.9, seed, ..Sampling::default() };
    for name in TINY {
        let checkpoint = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
        let golden = json(&format!("tiny/{name}/golden.json"));
        let prompt = ids(&golden["input_ids"]);
        let (mut guessing, mut plain) = (load_for(&checkpoint, backend(), None).unwrap(), load_for(&checkpoint, backend(), None).unwrap());
        let (mut drafted, mut accepted) = (0, 0);
        for (length, tokens, sampling) in [
            (prompt.len(), 30, Sampling::default()),
            (prompt.len(), 28, drawn(1)),
            (prompt.len() - 3, 1, drawn(2)),
            (prompt.len() - 2, 24, drawn(3)),
        ] {
            let params = Params { max_tokens: Some(tokens), ignore_eos: true, sampling, ..Params::default() };
            let expected = run(&mut plain, &prompt[..length], &params, Speculation::Off);
            // Every ninth of the expected tokens is another one: drafts are right to their end, to some point, or not at all.
            let prediction = expected.ids.iter().enumerate().map(|(i, id)| if i % 9 == 8 { id ^ 1 } else { *id }).collect();
            let actual = run(&mut guessing, &prompt[..length], &Params { prediction, ..params.clone() }, Speculation::Always);
            assert_eq!(actual.ids, expected.ids, "{name}: {tokens} tokens, {sampling:?}");
            assert_eq!(actual.ids.len(), tokens);
            assert_eq!(actual.reason, FinishReason::Length);
            assert_eq!(expected.usage.drafted_tokens, 0);
            drafted += actual.usage.drafted_tokens;
            accepted += actual.usage.accepted_tokens;
            let whole = [&prompt[..length], &actual.ids[..]].concat();
            let one = Params { max_tokens: Some(3), ignore_eos: true, ..Params::default() };
            let (after, expected) = (run(&mut guessing, &whole, &one, Speculation::Off), run(&mut plain, &whole, &one, Speculation::Off));
            assert_eq!(after.ids, expected.ids, "{name}: after {tokens} tokens");
            assert_eq!(after.usage.reused_tokens, whole.len() - 1, "{name}: all but the last token is still there");
        }
        println!("{name}: {accepted} of {drafted} guesses right");
        assert!(accepted > 20 && drafted > accepted, "{name}: some guesses are right, some wrong");
    }
}

#[test]
fn tokens_are_the_same_on_the_reference_backend() {
    same_tokens(reference);
}

#[test]
fn tokens_are_the_same_on_the_processor() {
    same_tokens(cpu);
}

#[test]
fn tokens_are_the_same_on_a_gpu() {
    same_tokens(gpu);
}

#[test]
fn tokens_are_the_same_where_steps_run_ahead_otherwise() {
    same_tokens(|| {
        let options = GpuOptions { software: Some(false), ..GpuOptions::default() };
        Box::new(pollster::block_on(Gpu::new(options)).expect("an adapter"))
    });
}

fn smollm2() -> Model {
    load(&weights::open(&smollm2_gguf()).expect("the GGUF opens"), cpu()).expect("the model loads")
}

fn ask(model: &Model, content: &str) -> Vec<u32> {
    model.chat_prompt(&[Message { role: "user".into(), content: content.into() }], None).expect("a prompt")
}

const CODE: &str = "Rename the variable `total` to `sum`. Answer with the whole program only.\n\n```python\ndef average(numbers):\n    total = 0\n    \
    for number in numbers:\n        total = total + number\n    return total / len(numbers)\n\ndef largest(numbers):\n    best = numbers[0]\n    \
    for number in numbers:\n        if number > best:\n            best = number\n    return best\n```\n";

#[test]
fn a_real_model_says_the_same_with_guesses() {
    let mut model = smollm2();
    let prompts = [ask(&model, CODE), ask(&model, "What is the capital of France?"), ask(&model, "Write a poem about the sea.")];
    for (prompt, sampling) in
        prompts.iter().zip([0.0, 0.0, 0.8]).map(|(p, temperature)| (p, Sampling { temperature, seed: 5, ..Sampling::default() }))
    {
        let params = Params { max_tokens: Some(120), sampling, ..Params::default() };
        let plain = run(&mut model, prompt, &params, Speculation::Off);
        for speculation in [Speculation::Auto, Speculation::Always] {
            let guessed = run(&mut model, prompt, &params, speculation);
            println!("{speculation:?}: {} of {} guesses right", guessed.usage.accepted_tokens, guessed.usage.drafted_tokens);
            assert_eq!((&guessed.ids, &guessed.text, guessed.reason), (&plain.ids, &plain.text, plain.reason));
        }
    }
    let params = Params { max_tokens: Some(120), ..Params::default() };
    let edited = run(&mut model, &prompts[0], &params, Speculation::Always);
    assert!(edited.usage.accepted_tokens * 2 > edited.usage.completion_tokens, "edited code is mostly copied: {:?}", edited.usage);
    // A stop string and a limit, in the midst of what one step has found.
    let stopped = Params { stop: vec!["number in".into()], ..params.clone() };
    let (a, b) = (run(&mut model, &prompts[0], &stopped, Speculation::Off), run(&mut model, &prompts[0], &stopped, Speculation::Always));
    assert_eq!((&a.ids, &a.text, a.reason), (&b.ids, &b.text, b.reason));
    assert_eq!(b.reason, FinishReason::Stop);
    for most in 20..30 {
        let limited = Params { max_tokens: Some(most), ..params.clone() };
        assert_eq!(run(&mut model, &prompts[0], &limited, Speculation::Always).ids, edited.ids[..most]);
    }
}

#[test]
fn a_step_of_several_tokens_sees_what_steps_of_one_see() {
    // Sums may be joined in another order, no more than that.
    let mut model = smollm2();
    let text = ask(&model, CODE);
    model.set_prefill_chunk(1);
    let one = logits(&mut model, &text);
    model.set_prefill_chunk(9);
    let nine = logits(&mut model, &text);
    let difference = one.iter().zip(&nine).map(|(a, b)| openweights_tests::largest_difference(a, b)).fold(0.0, f32::max);
    let equal = one.iter().zip(&nine).filter(|(a, b)| a == b).count();
    println!("largest difference of a logit {difference:e}; {equal} of {} positions bit-identical", one.len());
    assert!(difference < 0.01, "{difference}");
}

#[test]
fn penalties_go_token_by_token() {
    let mut model = smollm2();
    let prompt = ask(&model, CODE);
    let sampling = Sampling { repetition_penalty: 1.1, ..Sampling::default() };
    let params = Params { max_tokens: Some(20), sampling, ..Params::default() };
    let reply = run(&mut model, &prompt, &params, Speculation::Always);
    assert_eq!(reply.usage.drafted_tokens, 0);
    assert_eq!(reply.ids, run(&mut model, &prompt, &params, Speculation::Off).ids);
}
