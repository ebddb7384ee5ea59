//! What `tokenizers` takes from a file and later panics on, or makes a short text long with, refused by name. Found by fuzzing; real files
//! have none of it.

use serde_json::{Value, value::RawValue};

use crate::error::{Error, Result};
use crate::json::Count;

use super::patterns;

/// Most values of the parts around the vocabulary, and bytes: `tokenizers` keeps each several times while it reads. Real ones have below 1000,
/// and a third of the bytes.
const MOST_VALUES: usize = 1 << 14;
const MOST_BYTES: usize = 1 << 20;
/// How many times as long the parts may make a text. Real ones come to 100.
const MOST_GROWTH: usize = 1 << 12;
/// Most pieces of a template, and most tokens in place of each.
const MOST_PIECES: usize = 16;

/// Checks the sizes of the parts, and of their patterns, before they are read.
pub(super) fn size(parts: &[Option<&RawValue>]) -> Result<()> {
    let (mut values, mut bytes) = (0, 0);
    for part in parts.iter().flatten() {
        let count: Count = serde_json::from_str(part.get()).map_err(|e| Error::InvalidFile(format!("tokenizer.json: {e}")))?;
        (values, bytes) = (values + count.values, bytes + part.get().len());
    }
    if values > MOST_VALUES || bytes > MOST_BYTES {
        let message = format!(
            "tokenizer.json: {values} values in {bytes} bytes around the vocabulary; at most {MOST_VALUES} in {MOST_BYTES} are read"
        );
        return Err(Error::InvalidFile(message));
    }
    let mut regexes = 0_usize;
    for part in parts.iter().flatten() {
        let part: Value = serde_json::from_str(part.get()).map_err(|e| Error::InvalidFile(format!("tokenizer.json: {e}")))?;
        regexes = regexes.saturating_add(patterns::bytes(&part));
    }
    if regexes > patterns::MOST {
        let message = format!("tokenizer.json: its patterns may take {regexes} bytes; at most {} are allowed", patterns::MOST);
        return Err(Error::UnsupportedFormat(message));
    }
    Ok(())
}

/// How many times as long a part of `tokenizer.json` makes a text, at most.
pub(super) fn growth(part: &Value) -> Result<usize> {
    let len = |field: &str| part[field].as_str().map_or(0, str::len);
    let own = match part["type"].as_str() {
        Some("Replace") => match part["pattern"]["String"].as_str() {
            Some(pattern) if !pattern.is_empty() => len("content").div_ceil(pattern.len()).max(1),
            // There may be a match before every character.
            _ => len("content") + 1,
        },
        Some("Prepend") => len("prepend") + 1,
        Some("ByteLevel" | "BPEDecoder" | "CTC") => 2,
        Some("Precompiled") => longest_replacement(part),
        // Unicode's own bounds, in bytes of UTF-8.
        Some("NFKC" | "NFKD") => 11,
        Some("NFC" | "NFD") => 3,
        Some("Lowercase") => 2,
        // Spaces around ideographs, and NFD.
        Some("BertNormalizer") => 6,
        _ => 1,
    };
    let all = parts_of(part).try_fold(own, |all, part| Ok(all.saturating_mul(growth(part)?)))?;
    match all > MOST_GROWTH {
        true => Err(Error::UnsupportedFormat(format!(
            "tokenizer.json: texts would become {all} times as long; {MOST_GROWTH} times are allowed"
        ))),
        false => Ok(all),
    }
}

/// Bytes of the longest text that a compiled normalizer has for a character: texts that end in zeros, after a table with its length before it.
fn longest_replacement(part: &Value) -> usize {
    let map = base64::decode(part["precompiled_charsmap"].as_str().unwrap_or_default()).unwrap_or_default();
    let table = map.first_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
    let texts = map.get(4..).and_then(|rest| rest.get(table..)).unwrap_or_default();
    texts.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1)
}

fn parts_of(part: &Value) -> impl Iterator<Item = &Value> {
    ["processors", "decoders", "pretokenizers", "normalizers"].into_iter().filter_map(|list| part[list].as_array()).flatten()
}

/// Checks a part of `tokenizer.json` as it was understood, and the parts that it is made of.
pub(super) fn part(part: &Value) -> Result<()> {
    match part["type"].as_str() {
        Some("TemplateProcessing") => template(part)?,
        // It reads beyond the beginning of what is shorter.
        Some("Strip") if part["stop"].as_u64().is_some_and(|stop| stop > 0) => {
            return Err(Error::UnsupportedFormat(format!("tokenizer.json: decoder {part}: \"stop\" must be 0")));
        }
        _ => {}
    }
    parts_of(part).try_for_each(self::part)
}

/// What is put around a text must be given and short; there is no second text around a single one, and no text twice.
fn template(part: &Value) -> Result<()> {
    let bad = |what: String| Err(Error::InvalidFile(format!("tokenizer.json: TemplateProcessing {what}")));
    let tokens = &part["special_tokens"];
    for (list, second) in [("single", false), ("pair", true)] {
        let texts = part[list].as_array().into_iter().flatten().filter(|piece| !piece["Sequence"].is_null()).count();
        if texts > 1 + usize::from(second) || part[list].as_array().is_some_and(|pieces| pieces.len() > MOST_PIECES) {
            return bad(format!("repeats a text, or puts more than {MOST_PIECES} pieces together"));
        }
        for piece in part[list].as_array().into_iter().flatten() {
            match (piece["Sequence"]["id"].as_str(), piece["SpecialToken"]["id"].as_str()) {
                (_, Some(id)) if tokens[id].is_null() => return bad(format!("has no special token {id:?}")),
                (Some("B"), _) if !second => return bad("puts a second text around a single one".into()),
                _ => {}
            }
        }
    }
    let count = |token: &Value, list: &str| token[list].as_array().map_or(0, Vec::len);
    let wrong = |token: &Value| count(token, "ids") != count(token, "tokens") || count(token, "ids") > MOST_PIECES;
    match tokens.as_object().into_iter().flatten().find(|(_, token)| wrong(token)) {
        Some((id, _)) => bad(format!("has not as many ids as tokens for {id:?}, or more than {MOST_PIECES}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_panic_is_refused_wherever_it_is() {
        let template = |single: Value, tokens: Value| json!({"type": "Sequence", "processors": [{"type": "TemplateProcessing", "single": [single], "pair": [], "special_tokens": tokens}]});
        let (special, text) =
            (|id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}}), |id: &str| json!({"Sequence": {"id": id, "type_id": 0}}));
        let strip = |stop: u32| json!({"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": stop}]});
        let of = |ids: &[u32]| json!({"<s>": {"id": "<s>", "ids": ids, "tokens": ["<s>"]}});
        for good in [strip(0), template(text("A"), json!({})), template(special("<s>"), of(&[1])), Value::Null] {
            assert_eq!(part(&good), Ok(()), "{good}");
        }
        for (bad, says) in [
            (strip(1), "\"stop\" must be 0"),
            (template(text("B"), json!({})), "second text"),
            (template(special("</s>"), of(&[1])), "no special token \"</s>\""),
            (template(special("<s>"), of(&[1, 2])), "not as many ids"),
            (json!({"type": "TemplateProcessing", "single": [text("A"), text("A")]}), "repeats a text"),
        ] {
            let error = part(&bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_makes_a_text_long_is_refused() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let all = |parts: Vec<Value>| json!({"type": "Sequence", "normalizers": parts});
        let spaces = replace(json!({"String": " "}), "▁");
        let charsmap = base64::encode([&4_u32.to_le_bytes()[..], b"trieABC\0ABCDE\0"].concat());
        for (part, times) in [
            (Value::Null, 1),
            (spaces.clone(), 3),
            (replace(json!({"String": "``"}), "\""), 1),
            (replace(json!({"Regex": " {2,}"}), "▁"), 4),
            (json!({"type": "Precompiled", "precompiled_charsmap": charsmap}), 5),
            (json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}), 1),
            (all(vec![json!({"type": "Prepend", "prepend": "▁"}), spaces]), 12),
        ] {
            assert_eq!(growth(&part), Ok(times), "{part}");
        }
        let error = growth(&all(vec![json!({"type": "ByteLevel"}); 13])).unwrap_err().to_string();
        assert!(error.contains("8192 times as long"), "{error}");
    }
}
