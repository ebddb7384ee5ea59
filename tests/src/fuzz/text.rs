//! Targets: `tokenizer.json` and chat templates.

use std::{collections::BTreeMap, rc::Rc};

use openweights::{
    Error, Result,
    text::{ChatTemplate, Message, RenderOptions, TextStream, Tokenizer},
};
use serde_json::{Value, json};

use super::{Target, long_json};
use crate::fixture;

const SAMPLE: &str = "Hello wörld, it's 12 345 o'clock<|im_end|>\n\n  日本 \u{1F600} [UNK] ab abc aab";

/// Reads the file, encodes a text, decodes it whole and token by token.
pub(super) fn use_tokenizer(json: &[u8]) -> Result<()> {
    let tokenizer = Rc::new(Tokenizer::from_json(json)?);
    for text in [SAMPLE, ""] {
        let ids = tokenizer.encode(text, true)?;
        tokenizer.decode(&ids, false)?;
        let mut stream = TextStream::new(tokenizer.clone(), true)?;
        ids.iter().try_for_each(|id| stream.push(*id).map(drop))?;
        stream.finish();
    }
    let some: Vec<u32> = (0..64).filter(|id| tokenizer.piece(*id).is_some()).collect();
    tokenizer.decode(&some, true).map(drop)
}

/// `tokenizer.json`.
pub const TOKENIZER_JSON: Target = Target {
    name: "tokenizer_json",
    run: use_tokenizer,
    seeds: || tokenizers().iter().map(|json| json.to_string().into_bytes()).collect(),
    heavy: heavy_tokenizers,
    stands_for: <[u8]>::len,
    words: &[
        "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":9}",
        "{\"type\":\"Fuse\"}",
        "{\"type\":\"ByteFallback\"}",
        "{\"type\":\"CTC\",\"pad_token\":\"a\",\"word_delimiter_token\":\"|\",\"cleanup\":true}",
        "{\"type\":\"BPEDecoder\",\"suffix\":\"\"}",
        "{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"always\",\"split\":true}",
        "{\"type\":\"FixedLength\",\"length\":0}",
        "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"a\"}",
        "{\"type\":\"UnicodeScripts\"}",
        "{\"type\":\"Punctuation\",\"behavior\":\"MergedWithNext\"}",
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a*)*\"},\"behavior\":\"Removed\",\"invert\":true}",
        "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\"},\"content\":\"xx\"}",
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"xx\"}",
        "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAAAA==\"}",
        "{\"type\":\"Prepend\",\"prepend\":\"\"}",
        "{\"type\":\"NFKC\"}",
        "{\"type\":\"StripAccents\"}",
        "\"unk_id\":7",
        "\"byte_fallback\":true",
        "\"dropout\":0.5",
        "\"max_input_chars_per_word\":",
        "\"stride\":",
        "\"length\":",
        "\\\\p{L}{900}",
        "(?=",
        "{1000}",
        "null",
        "[[",
        "{\"\":",
    ],
};

/// Tokenizers of many tokens of each kind, as short as they can be, and with many added ones or long ones.
fn heavy_tokenizers() -> Vec<Vec<u8>> {
    let hex = |i: usize| format!("{i:x}");
    let of = |kind: usize, fields: &[(&str, Value)], added: Vec<Value>| {
        let mut json = tokenizers().remove(kind);
        fields.iter().for_each(|(field, value)| json["model"][*field] = value.clone());
        json["added_tokens"] = added.into();
        json.to_string().into_bytes()
    };
    // Every number but those of one digit is made of its first digit and the others.
    let merge = |text: String| json!([text[..1], text[1..]]);
    let merges = |n: usize| (16..n).map(hex).filter(|text| !text[1..].starts_with('0')).map(merge).collect::<Vec<_>>();
    let map = |n: usize, id: fn(usize) -> usize| (0..n).map(|i| (hex(i), id(i).into())).collect::<serde_json::Map<_, _>>();
    let specials = |n: usize, text: fn(usize) -> String| (0..n).map(|i| special((1 << 20) + i as u32, &text(i))).collect::<Vec<_>>();
    let pairs = |n: usize, added| of(0, &[("vocab", map(n, |i| i).into()), ("merges", merges(n).into())], added);
    let mut all: Vec<_> = [1000, 50_000, 250_000].map(|n| pairs(n, specials(n / 16, |i| format!("<{i:x}>")))).into();
    // Ids against the order of the file; the same merge again and again; no merges.
    all.push(of(0, &[("vocab", map(500_000, |i| 1_000_000 - 2 * i).into()), ("merges", json!([]))], vec![]));
    all.push(of(0, &[("merges", vec!["a b"; 1_000_000].into())], vec![]));
    all.push(of(3, &[("vocab", map(500_000, |i| i + 1).into()), ("unk_token", "0".into())], vec![]));
    all.push(of(5, &[("vocab", map(500_000, |_| 7).into()), ("unk_token", "0".into())], vec![]));
    all.push(of(4, &[("vocab", (0..400_000).map(|i| json!([hex(i), 0])).collect::<Vec<_>>().into())], vec![]));
    // Added tokens alone, with long texts that share nothing, and few of them: their automaton has a place for each byte everywhere.
    for (n, text) in [
        (20_000, (|i| format!("{i:x}")) as fn(usize) -> String),
        (80_000, |i| format!("{i:x}")),
        (5000, |i| format!("{:x}", i * 7_654_321).repeat(12)),
        (60, |i| (0..100).map(|j| char::from_u32(0x4e00 + (i * 997 + j * 331) as u32 % 20_000).unwrap_or('a')).collect()),
        (60, |i| (0..3000).map(|j| char::from_u32(0x4e00 + (i * 997 + j * 331) as u32 % 20_000).unwrap_or('a')).collect()),
        (1, |_| "a".repeat(3 << 20)),
    ] {
        all.push(of(0, &[], specials(n, text)));
        let normalized = specials(n, text).into_iter().map(|mut token| {
            token["normalized"] = true.into();
            token
        });
        all.push(of(2, &[], normalized.collect()));
    }
    let good = tokenizers().remove(0).to_string();
    let around = |part: &str| good.replace("\"normalizer\":null", &format!("\"normalizer\":{part}"));
    all.extend(long_json(around));
    let long = "x".repeat(2 << 20);
    all.push(around(&format!("{{\"type\":\"Prepend\",\"prepend\":\"{long}\"}}")).into_bytes());
    all.push(
        around(&format!("{{\"type\":\"Replace\",\"pattern\":{{\"String\":\"l\"}},\"content\":\"{}\"}}", &long[..900 << 10])).into_bytes(),
    );
    all.push(
        around(&format!("{{\"type\":\"Sequence\",\"normalizers\":[{}{{\"type\":\"NFC\"}}]}}", "{\"type\":\"ByteLevel\"},".repeat(40)))
            .into_bytes(),
    );
    all
}

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

/// One of each kind, as small as they can be.
fn tokenizers() -> Vec<Value> {
    let vocab = json!({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "Ġ": 5, "▁": 6, "<0x0A>": 7, "[UNK]": 8, "<|im_end|>": 9, "##a": 10, "l": 11, "o": 12});
    let around = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[UNK]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[UNK]": {"id": "[UNK]", "ids": [8], "tokens": ["[UNK]"]}}});
    let of = |normalizer: Value, pre: Value, post: Value, decoder: Value, model: Value| {
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(9, "<|im_end|>"), special(8, "[UNK]")],
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model})
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let bpe = json!({"type": "BPE", "dropout": null, "unk_token": "[UNK]", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
        "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": ["a b", ["ab", "c"]]});
    let split = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false}, bytes]});
    let spaces = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let pieces = json!({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let bert =
        json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true});
    let words = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab});
    let unigram =
        json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0], ["ab", -2.5]]});
    let level = json!({"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab});
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    vec![
        of(Value::Null, bytes.clone(), Value::Null, bytes.clone(), bpe.clone()),
        of(json!({"type": "NFC"}), split, around.clone(), bytes, bpe.clone()),
        of(spaces, Value::Null, around.clone(), pieces, bpe),
        of(bert, json!({"type": "BertPreTokenizer"}), around, json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), words),
        of(json!({"type": "NFKC"}), metaspace.clone(), Value::Null, metaspace, unigram),
        of(Value::Null, json!({"type": "Whitespace"}), Value::Null, Value::Null, level),
    ]
}

/// A chat template, rendered with a short conversation.
pub const TEMPLATE: Target = Target {
    name: "template",
    run: |bytes| {
        let source = std::str::from_utf8(bytes).map_err(|e| Error::InvalidFile(format!("not UTF-8: {e}")))?;
        let template = ChatTemplate::new(source, BTreeMap::from([("bos_token", "<s>".to_owned())]))?;
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let messages = [message("system", "Be brief."), message("user", "Hi <you>"), message("assistant", "é"), message("user", "Why?")];
        template.render(&messages, RenderOptions { add_generation_prompt: true, now: Some(1_732_374_000) }).map(drop)
    },
    seeds: || {
        let small = [
            "{% for m in messages %}{{ m.role + ': ' + m['content'] | trim }}\n{% endfor %}{{ bos_token }}",
            "{% macro f(x, y=2) %}{{ x * y }}{% if x < 3 %}{{ f(x + 1) }}{% endif %}{% endmacro %}{{ f(1) }}",
            "{% set ns = namespace(a='x') %}{% for i in range(3) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a | length }}",
            "{{ 'a,b'.split(',') | join('-') | upper }}{{ [1, 2, 3][::-1] | tojson(indent=2) }}{{ strftime_now('%d %b') }}",
            "{{ '%s-%d' | format('a', 3) }}{{ 'abc' | replace('b', 'xx') | indent(4) | center(20) }}{{ {'a': 1} | dictsort }}",
            "{% for m in messages recursive %}{{ loop.index }}{% endfor %}{% filter upper %}{% set x %}y{% endset %}{{ x }}{% endfilter %}",
            "{{ messages | map(attribute='role') | list | batch(2) | list }}{{ range(9) | slice(3) | list }}{{ 2 ** 10 // 3 % 7 }}",
        ];
        let real = std::fs::read_dir(fixture("templates")).expect("tests/fixtures/templates");
        let real = real.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "jinja"));
        small.iter().map(|s| s.as_bytes().to_vec()).chain(real.map(|p| std::fs::read(p).expect("a template"))).collect()
    },
    heavy: Vec::new,
    stands_for: <[u8]>::len,
    words: &[
        "{{ ",
        " }}",
        "{% for i in range(99999) %}",
        "{% endfor %}",
        "{% if x %}",
        "{% endif %}",
        "{% set x = x ~ x %}",
        " * 99999999",
        "| center(999999999)",
        "| indent(999999999)",
        "range(10**9)",
        "| list",
        "| join(',')",
        "| replace('', 'xxxxxxxx')",
        ".ljust(999999999)",
        "[",
        "(",
        "{",
        "not ",
        "-",
        " ~ ",
        "| format(9)",
        "'%999999999d'",
        "| batch(1, 0)",
        "| slice(1000000000)",
        "| batch(1000000000, 1)",
        "| tojson(indent=999999999)",
        "** 99999999",
        "| sort",
        "| unique",
        "{% macro f() %}",
        "{% endmacro %}",
        "f()",
        "{% raw %}",
        "{% endraw %}",
        "{%- generation %}",
        "loop(messages)",
        "| split('')",
        "| wordwrap(1)",
    ],
};
