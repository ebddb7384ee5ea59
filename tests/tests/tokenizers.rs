//! Tokenizers of eight real models on 94 awkward strings each, against Hugging Face's `tokenizers`: as published, and rebuilt
//! from GGUF metadata.

use std::{io::Read, path::PathBuf, rc::Rc};

use openweights::text::{TextStream, Tokenizer, gguf_tokenizer};
use openweights_tests::{
    fixture, gemma3_gguf, ids, json,
    vocabularies::{as_gguf, metadata, parsed, published},
};
use serde_json::Value;

fn cases(name: &str) -> Vec<Value> {
    let cases = json(&format!("tokenizers/{name}.json"))["cases"].as_array().expect("cases").clone();
    assert_eq!(cases.len(), 94);
    cases
}

/// Encodes and decodes every string; `leave_out` says which ones this tokenizer treats otherwise, and how many there are.
fn check(name: &str, tokenizer: Tokenizer, leave_out: impl Fn(&str) -> bool, left_out: usize) {
    let tokenizer = Rc::new(tokenizer);
    let mut checked = 0;
    for case in cases(name) {
        let text = case["text"].as_str().expect("a text");
        if leave_out(text) {
            continue;
        }
        checked += 1;
        let plain = tokenizer.encode(text, false).expect("it encodes");
        assert_eq!(plain, ids(&case["ids"]), "{name}: {text:?}");
        assert_eq!(tokenizer.encode(text, true).expect("it encodes"), ids(&case["ids_with_special"]), "{name}: {text:?}");
        for (skip, decoded) in [(false, &case["decoded"]), (true, &case["decoded_skip_special"])] {
            assert_eq!(tokenizer.decode(&plain, skip).expect("it decodes"), *decoded, "{name}: {text:?}");
            let mut stream = TextStream::new(Rc::clone(&tokenizer), skip).expect("it streams");
            let pieces: String = plain.iter().map(|id| stream.push(*id).expect("a known token")).collect();
            assert_eq!(pieces + &stream.finish(), *decoded, "{name}: {text:?}, streamed");
        }
    }
    assert_eq!(checked + left_out, 94, "{name}");
}

fn all(_: &str) -> bool {
    false
}

/// The tokenizer of `file` as published, then through GGUF metadata.
fn published_and_rebuilt(name: &str, file: &str, pre: Option<&str>, leave_out: impl Fn(&str) -> bool, left_out: usize) {
    let bytes = published(file);
    check(name, Tokenizer::from_json(&bytes).expect("it is read"), all, 0);
    let metadata = as_gguf(&serde_json::from_slice(&bytes).expect("JSON"), pre);
    let (rebuilt, _) = gguf_tokenizer::build(&metadata).expect("it is rebuilt");
    check(name, Tokenizer::from_json(&rebuilt).expect("it is read"), leave_out, left_out);
}

#[test]
fn llama3() {
    published_and_rebuilt("llama3_1", "llama3_1.json", Some("llama-bpe"), all, 0);
}

#[test]
fn qwen3() {
    // The publisher's file composes characters (NFC) first, which GGUF files have no word for.
    published_and_rebuilt("qwen3", "qwen3.json", Some("qwen2"), |text| text.contains(['\u{301}', '\u{308}']), 2);
}

#[test]
fn qwen25() {
    // Qwen 3's vocabulary but for the last four tokens; the golden is of a GGUF file, which composes no characters.
    let mut file: Value = serde_json::from_slice(&published("qwen3.json")).expect("JSON");
    file["added_tokens"].as_array_mut().expect("added tokens").retain(|token| token["id"].as_u64() < Some(151_665));
    let (rebuilt, _) = gguf_tokenizer::build(&as_gguf(&file, Some("qwen2"))).expect("it is rebuilt");
    check("qwen25coder", Tokenizer::from_json(&rebuilt).expect("it is read"), all, 0);
}

#[test]
fn gpt_oss() {
    published_and_rebuilt("gptoss", "gptoss.json", Some("gpt-4o"), all, 0);
}

#[test]
fn mistral() {
    published_and_rebuilt("mistral_v1", "llama2.json", None, all, 0);
}

#[test]
fn gemma2() {
    // Of 40 spaces SentencePiece, and so GGUF files, take the longest run first; the publisher's merges come to 16 and 24.
    published_and_rebuilt("gemma2", "gemini.json", None, |text| text == " ".repeat(40), 1);
}

#[test]
fn gemma3() {
    published_and_rebuilt("gemma3", "gemma3.json", None, all, 0);
}

#[test]
fn gemma3_from_the_real_gguf() {
    let (rebuilt, config) = gguf_tokenizer::build(&metadata(&gemma3_gguf())).expect("it is rebuilt");
    check("gemma3", Tokenizer::from_json(&rebuilt).expect("it is read"), all, 0);
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&"<bos>".into(), &"<eos>".into()));
}

#[test]
#[ignore = "needs Qwen2.5-Coder-0.5B-Instruct Q4_K_M, whose package states no licence: name the file in OPENWEIGHTS_QWEN25CODER"]
fn qwen2_from_the_real_gguf() {
    let path = std::env::var_os("OPENWEIGHTS_QWEN25CODER").map(PathBuf::from).expect("OPENWEIGHTS_QWEN25CODER");
    let (rebuilt, _) = gguf_tokenizer::build(&metadata(&path)).expect("it is rebuilt");
    check("qwen25coder", Tokenizer::from_json(&rebuilt).expect("it is read"), all, 0);
}

/// Compares with llama.cpp's own test vectors: texts, and their ids by Hugging Face's tokenizer.
fn check_vectors(name: &str, tokenizer: &Tokenizer, texts: &str, expected: &str) {
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let expected: Vec<&str> = expected.lines().collect();
    // The list of texts ends with a separator.
    assert!(texts.len() - 1 <= expected.len() && expected.len() > 40, "{name}: {} texts, {} lines", texts.len(), expected.len());
    for (text, expected) in texts.iter().zip(expected) {
        let expected: Vec<u32> = expected.split_whitespace().map(|id| id.parse().expect("an id")).collect();
        assert_eq!(tokenizer.encode(text, false).expect("it encodes"), expected, "{name}: {text:?}");
    }
}

#[test]
fn bert_from_a_gguf_vocabulary() {
    let mut bytes = Vec::new();
    let packed = std::fs::File::open(fixture("tokenizers/bert-bge.gguf.gz")).expect("the fixture");
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("it unpacks");
    let (rebuilt, config) = gguf_tokenizer::build(&parsed(&bytes, bytes.len() as u64)).expect("it is rebuilt");
    let tokenizer = Tokenizer::from_json(&rebuilt).expect("it is read");
    let read = |file: &str| std::fs::read_to_string(fixture(file)).expect("the fixture");
    check_vectors("bert-bge", &tokenizer, &read("tokenizers/bert-bge.inp"), &read("tokenizers/bert-bge.out"));
    assert_eq!(tokenizer.encode("Hello world", true).expect("it encodes"), [101, 7592, 2088, 102]);
    assert_eq!(tokenizer.piece(2075).as_deref(), Some("##ing"));
    assert_eq!((&config["cls_token"], &config["sep_token"]), (&"[CLS]".into(), &"[SEP]".into()));
}

#[test]
#[ignore = "needs the ggml-vocab-*.gguf of llama.cpp's models folder: name it in OPENWEIGHTS_GGML_VOCABS"]
fn llama_cpps_own_vectors() {
    let directory = std::env::var_os("OPENWEIGHTS_GGML_VOCABS").map(PathBuf::from).expect("OPENWEIGHTS_GGML_VOCABS");
    for name in ["deepseek-coder", "gpt-2", "llama-bpe", "llama-spm", "mpt", "qwen2", "refact", "starcoder"] {
        let path = directory.join(format!("ggml-vocab-{name}.gguf"));
        let (rebuilt, _) = gguf_tokenizer::build(&metadata(&path)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let read = |suffix: &str| std::fs::read_to_string(format!("{}.{suffix}", path.display())).expect("the vectors");
        check_vectors(name, &Tokenizer::from_json(&rebuilt).expect("it is read"), &read("inp"), &read("out"));
        println!("{name}: ok");
    }
}
