//! What `tokenizers` takes from a file and later panics on, refused by name. Found by fuzzing; real files have none of it.

use serde_json::Value;

use crate::error::{Error, Result};

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
    let parts = ["processors", "decoders", "pretokenizers", "normalizers"].iter().filter_map(|list| part[*list].as_array());
    parts.flatten().try_for_each(self::part)
}

/// What is put around a text must be given, and there is no second text around a single one.
fn template(part: &Value) -> Result<()> {
    let bad = |what: String| Err(Error::InvalidFile(format!("tokenizer.json: TemplateProcessing {what}")));
    let tokens = &part["special_tokens"];
    for (list, second) in [("single", false), ("pair", true)] {
        for piece in part[list].as_array().into_iter().flatten() {
            match (piece["Sequence"]["id"].as_str(), piece["SpecialToken"]["id"].as_str()) {
                (_, Some(id)) if tokens[id].is_null() => return bad(format!("has no special token {id:?}")),
                (Some("B"), _) if !second => return bad("puts a second text around a single one".into()),
                _ => {}
            }
        }
    }
    let count = |token: &Value, list: &str| token[list].as_array().map_or(0, Vec::len);
    match tokens.as_object().into_iter().flatten().find(|(_, token)| count(token, "ids") != count(token, "tokens")) {
        Some((id, _)) => bad(format!("has not as many ids as tokens for {id:?}")),
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
        ] {
            let error = part(&bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
