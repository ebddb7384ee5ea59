//! The tokenizer's models against those of Hugging Face's `tokenizers`: random vocabularies, merges, options and texts, the same ids or
//! errors at the same places.

use openweights::text::Tokenizer;
use openweights_tests::{rng::Rng, vocabularies::published};
use serde_json::{Value, json};

/// What tokens and texts are made of.
const CHARACTERS: [&str; 10] = ["a", "b", "c", "d", "é", "▁", "日", "\u{1F600}", " ", "#"];
const CASES: u64 = 600;
const TEXTS: usize = 12;

fn pick<'a, T>(rng: &mut Rng, list: &'a [T]) -> &'a T {
    &list[rng.below(list.len())]
}

fn chance(rng: &mut Rng, of: usize) -> bool {
    rng.below(of) == 0
}

fn text(rng: &mut Rng, most: usize) -> String {
    (0..rng.below(most + 1)).map(|_| *pick(rng, &CHARACTERS)).collect()
}

/// Characters but one or two, often bytes and an unknown token, then words.
fn tokens(rng: &mut Rng, prefix: &str, suffix: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for c in CHARACTERS {
        for token in [c.to_owned(), format!("{prefix}{c}"), format!("{c}{suffix}"), format!("{prefix}{c}{suffix}")] {
            if !chance(rng, 8) {
                tokens.push(token);
            }
        }
    }
    let bytes = rng.below(3);
    tokens.extend((0..=255_u8).filter(|_| bytes > 0 && (bytes > 1 || !chance(rng, 8))).map(|byte| format!("<0x{byte:02X}>")));
    tokens.push("<unk>".into());
    tokens.sort();
    tokens.dedup();
    tokens
}

/// A map in the text's order, where a token may be twice and ids may be any.
fn map(rng: &mut Rng, tokens: &[String]) -> String {
    let kind = rng.below(5);
    let mut ids: Vec<u32> = (0..tokens.len() as u32).collect();
    match kind {
        1 => (1..ids.len()).for_each(|i| ids.swap(i, rng.below(i + 1))),
        2 => ids.iter_mut().for_each(|id| *id = *id * 7919 + 3),
        3 => ids.iter_mut().for_each(|id| *id /= 1 + rng.below(2) as u32),
        _ => {}
    }
    let mut entries: Vec<_> = tokens.iter().zip(&ids).map(|(token, id)| format!("{}:{id}", json!(token))).collect();
    if chance(rng, 4) {
        let again = json!(pick(rng, tokens)).to_string();
        entries.push(format!("{again}:{}", rng.below(5000)));
    }
    format!("{{{}}}", entries.join(","))
}

fn byte_pairs(rng: &mut Rng) -> String {
    let prefix = if chance(rng, 4) { *pick(rng, &["##", "▁", ""]) } else { "" };
    let suffix = if chance(rng, 4) { *pick(rng, &["</w>", "b"]) } else { "" };
    let mut tokens = tokens(rng, prefix, suffix);
    let mut merges: Vec<[String; 2]> = Vec::new();
    for _ in 0..rng.below(60) {
        let (left, right) = (pick(rng, &tokens).clone(), pick(rng, &tokens).clone());
        let Some(rest) = right.strip_prefix(prefix).filter(|_| !left.starts_with('<') && !right.starts_with('<')) else { continue };
        let both = format!("{left}{rest}");
        if !tokens.contains(&both) {
            tokens.push(both);
        }
        merges.push([left, right]);
    }
    if !merges.is_empty() && chance(rng, 3) {
        merges.push(pick(rng, &merges).clone());
    }
    let wrong = chance(rng, 40);
    if wrong {
        merges.push(["a".into(), "missing".into()]);
    }
    let lines = chance(rng, 2) && !merges.concat().iter().any(|token| token.contains(' '));
    let mut lines_of: Vec<Value> = merges.iter().map(|pair| pair.join(" ").into()).collect();
    lines_of.insert(0, "#version: 0.2".into());
    let merges = if lines { json!(lines_of) } else { json!(merges) };
    let mut fields = vec![
        format!("\"vocab\":{}", map(rng, &tokens)),
        format!("\"merges\":{merges}"),
        format!("\"unk_token\":{}", pick(rng, &[Value::Null, "<unk>".into(), "<unk>".into(), "?".into()])),
        format!("\"dropout\":{}", pick(rng, &["null", "0.0"])),
    ];
    if !prefix.is_empty() {
        fields.push(format!("\"continuing_subword_prefix\":{}", json!(prefix)));
    }
    if !suffix.is_empty() {
        fields.push(format!("\"end_of_word_suffix\":{}", json!(suffix)));
    }
    for name in ["fuse_unk", "byte_fallback", "ignore_merges"] {
        fields.extend((!chance(rng, 3)).then(|| format!("\"{name}\":{}", pick(rng, &["true", "false"]))));
    }
    // Merges may come before the vocabulary, and the oldest files do not say what they are. Theirs then takes wrong ones for a list of words.
    (1..fields.len()).for_each(|i| fields.swap(i, rng.below(i + 1)));
    if wrong || !chance(rng, 4) {
        fields.insert(rng.below(fields.len()), "\"type\":\"BPE\"".into());
    }
    format!("{{{}}}", fields.join(","))
}

fn words(rng: &mut Rng, pieces: bool) -> String {
    let mut tokens = tokens(rng, "##", "");
    for _ in 0..rng.below(40) {
        let token = if chance(rng, 2) { format!("##{}", text(rng, 4)) } else { text(rng, 4) };
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    let kind = if chance(rng, 4) {
        ""
    } else if pieces {
        "\"type\":\"WordPiece\","
    } else {
        "\"type\":\"WordLevel\","
    };
    let unknown = pick(rng, &["<unk>", "<unk>", "?"]);
    let rest = if pieces {
        format!(",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":{}", pick(rng, &[3, 8, 100]))
    } else {
        String::new()
    };
    format!("{{{kind}\"vocab\":{},\"unk_token\":\"{unknown}\"{rest}}}", map(rng, &tokens))
}

fn unigram(rng: &mut Rng) -> String {
    let mut tokens = tokens(rng, "▁", "");
    tokens.extend((0..rng.below(60)).map(|_| text(rng, 5)));
    (1..tokens.len()).for_each(|i| tokens.swap(i, rng.below(i + 1)));
    // Few different scores: many ways are equally good.
    let vocab: Vec<Value> = tokens.iter().map(|token| json!([token, *pick(rng, &[-1.0, -2.0, -2.5, -7.25, 3.0])])).collect();
    // Now and then none, or one too high.
    let most = tokens.len() + usize::from(chance(rng, 8));
    let unknown = if chance(rng, 8) { Value::Null } else { rng.below(most).into() };
    let mut model = json!({"unk_id": unknown, "vocab": vocab, "byte_fallback": chance(rng, 2)});
    if !chance(rng, 4) {
        model["type"] = "Unigram".into();
    }
    model.to_string()
}

/// A file around the model: added tokens, and how texts are split.
fn file(rng: &mut Rng, model: &str) -> String {
    let pre = pick(
        rng,
        &[
            Value::Null,
            Value::Null,
            json!({"type": "WhitespaceSplit"}),
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
        ],
    )
    .clone();
    let added: Vec<Value> = (0..rng.below(4))
        .map(|i| json!({"id": 9000 + i, "content": pick(rng, &["<unk>", "<s>", "ab", "éé", "日"]), "single_word": chance(rng, 4), "lstrip": chance(rng, 4),
            "rstrip": chance(rng, 4), "normalized": chance(rng, 2), "special": chance(rng, 2)}))
        .collect();
    format!(
        "{{\"version\":\"1.0\",\"added_tokens\":{},\"normalizer\":null,\"pre_tokenizer\":{pre},\"post_processor\":null,\"decoder\":{{\"type\":\"ByteFallback\"}},\"model\":{model}}}",
        json!(added)
    )
}

/// Compares two tokenizers of the same file; says whether there were any.
fn compare(rng: &mut Rng, json: &str) -> bool {
    let theirs = tokenizers::Tokenizer::from_bytes(json.as_bytes());
    let ours = Tokenizer::from_json(json.as_bytes());
    let (theirs, ours) = match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (Err(_), Err(_)) => return false,
        (theirs, ours) => panic!("{:?} and {:?}: {json}", theirs.err(), ours.err()),
    };
    assert_eq!(ours.vocab_size(), theirs.get_vocab_size(true), "{json}");
    let vocabulary = theirs.get_vocab(true);
    for (token, id) in &vocabulary {
        assert_eq!(ours.id(token), theirs.token_to_id(token), "{token:?}: {json}");
        // Of several tokens with one id theirs takes any.
        if vocabulary.values().filter(|other| *other == id).count() == 1 {
            assert_eq!(ours.piece(*id), theirs.id_to_token(*id), "{id}: {json}");
        }
    }
    for unknown in [4_999, 123_456, u32::MAX] {
        assert_eq!(ours.piece(unknown).is_some(), theirs.id_to_token(unknown).is_some(), "{unknown}: {json}");
    }
    for i in 0..TEXTS {
        let text = text(rng, if i == 0 { 300 } else { 24 });
        // Twice: what is kept of the first time is the second's.
        for _ in 0..2 {
            let (ours, theirs) = (ours.encode(&text, true), theirs.encode_fast(text.as_str(), true));
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs.get_ids(), "{text:?}: {json}"),
                (Err(_), Err(_)) => {}
                (ours, theirs) => panic!("{ours:?} and {theirs:?} of {text:?}: {json}"),
            }
        }
    }
    true
}

fn check(seed: u64, model: impl Fn(&mut Rng) -> String) {
    let mut good = 0;
    for case in 0..CASES {
        let mut rng = Rng::new(seed + case);
        let model = model(&mut rng);
        let json = file(&mut rng, &model);
        good += u64::from(compare(&mut rng, &json));
    }
    // Some are errors, for both.
    assert!(good > CASES * 3 / 4 && good <= CASES, "{good} of {CASES}");
}

#[test]
fn byte_pairs_are_merged_as_tokenizers_does() {
    check(1000, byte_pairs);
}

#[test]
fn word_pieces_are_found_as_tokenizers_does() {
    check(3000, |rng| words(rng, true));
}

#[test]
fn words_are_found_as_tokenizers_does() {
    check(5000, |rng| words(rng, false));
}

#[test]
fn unigrams_are_chosen_as_tokenizers_does() {
    check(7000, unigram);
}

/// Sizes of published vocabularies, at their most: multilingual BERT, XLM-RoBERTa, and a language model with tens of thousands of tokens for sound.
#[test]
fn no_vocabulary_of_a_usual_size_is_refused() {
    let read = |model: Value| {
        let json = json!({"version": "1.0", "model": model}).to_string();
        Tokenizer::from_json(json.as_bytes()).expect("it is read").vocab_size()
    };
    let word = |i: usize| format!("{}{:x}", if i.is_multiple_of(3) { "##" } else { "" }, i * 2_654_435_761 % (1 << 32));
    let map = |n: usize| (0..n).map(|i| (word(i), i.into())).collect::<serde_json::Map<_, _>>();
    let pieces = json!({"type": "WordPiece", "unk_token": "0", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": map(120_000)});
    assert_eq!(read(pieces), 120_000);
    assert_eq!(read(json!({"type": "WordLevel", "unk_token": "0", "vocab": map(500_000)})), 500_000);
    let scored: Vec<_> = (0..250_000).map(|i| json!([word(i), -(i as f64) / 1e4])).collect();
    assert_eq!(read(json!({"type": "Unigram", "unk_id": 3, "vocab": scored})), 250_000);
    for special in [true, false] {
        let mut file: Value = serde_json::from_slice(&published("llama3_1.json")).expect("JSON");
        let added = file["added_tokens"].as_array_mut().expect("added tokens");
        let size = 128_000 + added.len();
        let token = |i: usize| {
            json!({"id": 128_256 + i, "content": format!("<custom_token_{i}>"), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": !special, "special": special})
        };
        added.extend((0..28_672).map(token));
        let read = Tokenizer::from_json(file.to_string().as_bytes()).expect("it is read");
        assert_eq!(read.vocab_size(), size + 28_672);
    }
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let pairs = |field: &str, value: Value| {
        let mut model = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]});
        model[field] = value;
        Tokenizer::from_json(json!({"version": "1.0", "model": model}).to_string().as_bytes()).err().map(|e| (e.code(), e.to_string()))
    };
    assert_eq!(pairs("dropout", json!(0.0)), None);
    for (field, value, code, says) in [
        ("dropout", json!(0.1), "unsupported_format", "\"dropout\" is 0.1"),
        ("type", json!("Klingon"), "unsupported_format", "Klingon"),
        ("merges", json!(["a c"]), "invalid_file", "\"c\", which is not in the vocabulary"),
        ("merges", json!(["a b c"]), "invalid_file", "not of two tokens"),
        ("merges", json!([["a"]]), "invalid_file", "less than two tokens"),
        ("merges", Value::Null, "invalid_file", "without \"merges\""),
        ("vocab", json!({"a": -1}), "invalid_file", "\"vocab\""),
        ("continuing_subword_prefix", json!("aaaa"), "invalid_file", "shorter than the prefix"),
        ("end_of_word_suffix", json!("a".repeat(100)), "invalid_file", "100 bytes"),
    ] {
        let (was, message) = pairs(field, value).expect("an error");
        assert!(was == code && message.contains(says), "{field}: {was}: {message}");
    }
}

#[test]
fn a_unigram_token_of_any_length_is_refused() {
    let read = |length: usize| {
        let model = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["a".repeat(length), -1.0]]});
        Tokenizer::from_json(json!({"version": "1.0", "model": model}).to_string().as_bytes()).map(drop)
    };
    assert_eq!(read(1024), Ok(()));
    assert_eq!(read(1025).expect_err("it is too long").code(), "unsupported_format");
}

#[test]
fn a_long_word_takes_no_square_of_its_length() {
    let vocab: serde_json::Map<_, _> = (0..12).map(|i| ("a".repeat(1 << i), i.into())).collect();
    let merges: Vec<_> = (0..11).map(|i| json!(["a".repeat(1 << i), "a".repeat(1 << i)])).collect();
    let json = json!({"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": merges}}).to_string();
    let tokenizer = Tokenizer::from_json(json.as_bytes()).expect("it is read");
    let ids = tokenizer.encode(&"a".repeat(1 << 20), false).expect("it encodes");
    assert_eq!(ids, vec![11; 1 << 9]);
}
