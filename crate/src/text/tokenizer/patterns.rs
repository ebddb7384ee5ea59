//! What regular expressions take: a class of characters is a table of a thousand states, and so again each time that it is repeated
//! (`\p{L}{100}`: 14 MB). Estimated before they are compiled, from above.

use std::str::Chars;

use serde_json::Value;

/// Most bytes of all patterns together while they are compiled; published ones come to half.
pub(super) const MOST: usize = 6 << 20;

/// Bytes of an expression beside its parts, of a letter, of a class of few characters, and of one of Unicode's.
const EXPRESSION: usize = 10 << 10;
const LETTER: usize = 1 << 10;
const CLASS: usize = 8 << 10;
const UNICODE_CLASS: usize = 256 << 10;

/// What the patterns in a part of `tokenizer.json` take.
pub(super) fn bytes(part: &Value) -> usize {
    match part {
        Value::Array(parts) => parts.iter().map(bytes).fold(0, usize::saturating_add),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| match (key.as_str(), value) {
                ("Regex", Value::String(pattern)) => expression(pattern),
                ("String", Value::String(text)) => EXPRESSION + LETTER * text.len(),
                (_, other) => bytes(other),
            };
            members.iter().map(member).fold(0, usize::saturating_add)
        }
        _ => 0,
    }
}

/// What an expression takes. Repeated is the item before a count; before that of a group all that there is.
fn expression(pattern: &str) -> usize {
    let (mut all, mut item) = (EXPRESSION, 0);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '?' | '*' | '+' => all = all.saturating_add(LETTER),
            ')' => item = all,
            '{' => {
                item = item.saturating_mul(count(braces(&mut chars)));
                all = all.saturating_add(item);
            }
            _ => {
                item = match c {
                    '\\' => escape(&mut chars),
                    '[' => class(&mut chars),
                    '.' => CLASS,
                    other => LETTER * other.len_utf8(),
                };
                all = all.saturating_add(item);
            }
        }
    }
    all
}

/// What follows a backslash.
fn escape(chars: &mut Chars<'_>) -> usize {
    let letter = chars.next();
    if matches!(letter, Some('p' | 'P' | 'x' | 'u' | 'U')) && chars.as_str().starts_with('{') {
        braces(chars);
    }
    match letter {
        Some('p' | 'P' | 'w' | 'W' | 'd' | 'D' | 'b' | 'B' | 'X' | 'R') => UNICODE_CLASS,
        _ => CLASS,
    }
}

/// A class to its end; classes may be in it.
fn class(chars: &mut Chars<'_>) -> usize {
    let (mut depth, mut all) = (1, CLASS);
    while depth > 0 {
        match chars.next() {
            Some('\\') => all = all.max(escape(chars)) + LETTER,
            Some('[') => depth += 1,
            // The first one may be a letter, and then what follows is counted again.
            Some(']') => depth -= 1,
            Some(other) => all += LETTER * other.len_utf8(),
            None => break,
        }
    }
    all
}

/// Takes what is left of a pair of braces.
fn braces<'a>(chars: &mut Chars<'a>) -> &'a str {
    let rest = chars.as_str();
    let (inner, after) = rest.split_once('}').unwrap_or((rest, ""));
    *chars = after.chars();
    inner
}

/// The larger number of a count (`{3}`, `{1,3}`, `{2,}`).
fn count(braces: &str) -> usize {
    braces.split(',').filter_map(|n| n.trim_matches(['{', ' ']).parse().ok()).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_classes_are_dear() {
        let of = |pattern: &str| bytes(&json!([{"type": "Split", "pattern": {"Regex": pattern}}]));
        for cheap in [r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+", "a{1000}", "[一-龥]+", r"[^\r\n\p{L}\p{N}]?\p{L}+"] {
            assert!(of(cheap) < MOST / 2, "{cheap}: {}", of(cheap));
        }
        for dear in [
            r"\p{L}{100}",
            r"((\p{L}{5}){5}){5}",
            r"(?:a{100}){100}",
            r"\w{0,90}",
            r"[\w ]{90}",
            "((a{99999}){99999}){99999}",
            &"[[:word:]]".repeat(900),
        ] {
            assert!(of(dear) > MOST, "{dear}: {}", of(dear));
        }
        assert_eq!(bytes(&json!({"String": "ab", "other": 1})), EXPRESSION + 2 * LETTER);
    }
}
