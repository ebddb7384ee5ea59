//! Tokenizer, chat template and streaming, on SmolLM2's real metadata against references made with Hugging Face's libraries.

use std::{io::Read, rc::Rc};

use openweights::text::{ChatTemplate, Message, RenderOptions, TextStream, Tokenizer, gguf_tokenizer};
use openweights::weights::gguf::{self, Metadata, Parsed, Value};
use serde_json::json;

const STRINGS: &str = include_str!("../fixtures/tokenizers/smollm2.json");
const STRUCTURE: &str = include_str!("../fixtures/tokenizers/smollm2.structure.json");
const CHAT: &str = include_str!("../fixtures/gguf/smollm2_chat.json");

fn smollm2() -> (Vec<u8>, serde_json::Value) {
    gguf_tokenizer::build(&metadata()).unwrap()
}

fn ids(list: &serde_json::Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn cases() -> Vec<serde_json::Value> {
    let fixture: serde_json::Value = serde_json::from_str(STRINGS).unwrap();
    let cases = fixture["cases"].as_array().unwrap().clone();
    assert_eq!(cases.len(), 94);
    cases
}

#[test]
fn the_rebuilt_tokenizer_has_the_reference_s_structure() {
    let mut rebuilt: serde_json::Value = serde_json::from_slice(&smollm2().0).unwrap();
    let model = &mut rebuilt["model"];
    model["vocab"] = model["vocab"].as_object().unwrap().len().into();
    model["merges"] = model["merges"].as_array().unwrap().len().into();
    assert_eq!(rebuilt, serde_json::from_str::<serde_json::Value>(STRUCTURE).unwrap());
}

#[test]
fn awkward_strings_encode_and_decode_exactly() {
    let tokenizer = Rc::new(Tokenizer::from_json(&smollm2().0).unwrap());
    assert_eq!(tokenizer.vocab_size(), 49152);
    for case in cases() {
        let text = case["text"].as_str().unwrap();
        let plain = tokenizer.encode(text, false).unwrap();
        assert_eq!(plain, ids(&case["ids"]), "{text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids_with_special"]), "{text:?}");
        assert_eq!(tokenizer.decode(&plain, false).unwrap(), case["decoded"], "{text:?}");
        assert_eq!(tokenizer.decode(&plain, true).unwrap(), case["decoded_skip_special"], "{text:?}");
    }
}

#[test]
fn pieces_and_ids() {
    let tokenizer = Rc::new(Tokenizer::from_json(&smollm2().0).unwrap());
    assert_eq!(tokenizer.id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.piece(2).as_deref(), Some("<|im_end|>"));
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(905));
    assert_eq!(tokenizer.piece(905).as_deref(), Some("Ġworld"));
    assert_eq!(tokenizer.decode(&[905, 49152], false).unwrap_err().code(), "invalid_input");
    assert_eq!(Tokenizer::from_json(b"{}").err().unwrap().code(), "invalid_file");
}

#[test]
fn streams_what_decoding_at_once_gives() {
    let tokenizer = Rc::new(Tokenizer::from_json(&smollm2().0).unwrap());
    let stream = |ids: &[u32], skip: bool| {
        let mut stream = TextStream::new(Rc::clone(&tokenizer), skip).unwrap();
        let mut text = String::new();
        for &id in ids {
            let piece = stream.push(id).unwrap();
            assert!(tokenizer.decode(ids, skip).unwrap().starts_with(&(text.clone() + &piece)), "only final text comes out");
            text += &piece;
        }
        text + &stream.finish()
    };
    for case in cases() {
        let ids = ids(&case["ids"]);
        assert_eq!(stream(&ids, true), case["decoded_skip_special"], "{}", case["text"]);
        assert_eq!(stream(&ids, false), case["decoded"], "{}", case["text"]);
    }
    // Ids that no text encodes to: broken characters, cut by special tokens, and an unfinished one at the end.
    let mut state = 11u64;
    for _ in 0..300 {
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u32 % 300
        };
        let ids: Vec<u32> = (0..40).map(|_| random()).collect();
        for skip in [true, false] {
            assert_eq!(stream(&ids, skip), tokenizer.decode(&ids, skip).unwrap(), "{ids:?}");
        }
    }
    let mut one = TextStream::new(Rc::clone(&tokenizer), true).unwrap();
    assert_eq!(one.push(49152).unwrap_err().code(), "invalid_input");
}

#[test]
fn the_chat_template_gives_the_reference_s_prompt() {
    let (json, config) = smollm2();
    let template = ChatTemplate::from_config(&config).unwrap().unwrap();
    let chat: serde_json::Value = serde_json::from_str(CHAT).unwrap();
    let messages = [Message { role: "user".into(), content: "What is the capital of France?".into() }];
    let options = RenderOptions { add_generation_prompt: true, now: None };
    let prompt = template.render(&messages, options).unwrap();
    assert_eq!(prompt, chat["text"]);
    assert_eq!(Tokenizer::from_json(&json).unwrap().encode(&prompt, false).unwrap(), ids(&chat["input_ids"]));
    assert_eq!(template.render(&[], options).unwrap_err().code(), "invalid_input");
}

#[test]
fn the_config_names_the_special_tokens() {
    let (_, mut config) = smollm2();
    assert!(config.as_object_mut().unwrap().remove("chat_template").unwrap().as_str().unwrap().contains("SmolLM"));
    let expected = json!({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false, "clean_up_tokenization_spaces": false,
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|im_end|>"});
    assert_eq!(config, expected);
}

#[test]
fn what_cannot_be_rebuilt_is_refused_by_name() {
    let with = |key: &str, value: Option<Value>| {
        let mut changed = Metadata::default();
        let tiny = [
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.pre", Value::String("smollm".into())),
            ("tokenizer.ggml.tokens", Value::Strings(["a", "b", "ab", "<s>"].into_iter().collect())),
            ("tokenizer.ggml.token_type", Value::Integers(vec![1, 1, 1, 3])),
            ("tokenizer.ggml.merges", Value::Strings(["a b"].into_iter().collect())),
            ("tokenizer.ggml.bos_token_id", Value::Integer(3)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ];
        for (name, default) in tiny {
            match (name == key, &value) {
                (true, None) => {}
                (true, Some(value)) => drop(changed.insert(name, value.clone())),
                (false, _) => drop(changed.insert(name, default)),
            }
        }
        gguf_tokenizer::build(&changed)
    };
    let (json, _) = with("", None).unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    assert_eq!((tokenizer.encode("abb", true).unwrap(), tokenizer.encode("<s>ab", false).unwrap()), (vec![3, 2, 1], vec![3, 2]));

    let text = |s: &str| Some(Value::String(s.into()));
    let strings = |list: &[&str]| Some(Value::Strings(list.iter().map(|s| s.to_string()).collect()));
    for (key, value, code, says) in [
        ("tokenizer.ggml.pre", text("klingon"), "unsupported_format", "klingon"),
        ("tokenizer.ggml.pre", None, "unsupported_format", "tokenizer.ggml.pre"),
        ("tokenizer.ggml.model", text("t5"), "unsupported_format", "t5"),
        ("tokenizer.ggml.tokens", None, "invalid_file", "tokens"),
        ("tokenizer.ggml.tokens", strings(&["a", "b", "a", "<s>"]), "invalid_file", "tokens 0 and 2"),
        ("tokenizer.ggml.token_type", Some(Value::Integers(vec![1])), "invalid_file", "1 token types"),
        ("tokenizer.ggml.merges", strings(&["a b c"]), "invalid_file", "a b c"),
        ("tokenizer.ggml.merges", None, "invalid_file", "merges"),
        ("tokenizer.ggml.bos_token_id", Some(Value::Integer(4)), "invalid_file", "4"),
    ] {
        let error = with(key, value).unwrap_err();
        assert_eq!(error.code(), code, "{key}: {error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_message_has_a_role_and_a_content_only() {
    let read = |message: serde_json::Value| serde_json::from_value::<Message>(message);
    assert_eq!(read(json!({"role": "user", "content": "x"})).unwrap(), Message { role: "user".into(), content: "x".into() });
    for field in ["name", "tool_calls", "tool_call_id"] {
        let error = read(json!({"role": "user", "content": "x", field: "y"})).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

/// The metadata of the real file.
fn metadata() -> Metadata {
    let mut file = std::fs::File::open(openweights_tests::smollm2_gguf()).unwrap();
    let len = file.metadata().unwrap().len();
    let mut prefix = vec![0; 8 << 20];
    file.read_exact(&mut prefix).unwrap();
    match gguf::parse(&prefix, len).unwrap() {
        Parsed::Header(header) => header.metadata,
        Parsed::NeedMore(bytes) => panic!("the header has {bytes} bytes"),
    }
}
