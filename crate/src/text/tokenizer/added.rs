//! What the added tokens take, in 64 bits, since an estimate may exceed what a browser can address: `tokenizers` keeps each of them six times, in four tables and an automaton that finds them in a text.

use tokenizers::{AddedToken, NormalizedString, Normalizer, NormalizerWrapper};

use crate::error::{Error, Result};

/// Bytes of a slot in the tables of a token's text, of its id, of its description by id, and of all descriptions.
const SLOT: u64 = 25 + 33 + 41 + 33;
/// Bytes of a token in lists: its description twice, and what sorts it.
const LISTED: u64 = 2 * size_of::<AddedToken>() as u64 + 44;
/// Bytes of a state of the automaton while it is made, but for those near its beginning, which have a place for each kind of byte.
const STATE: u64 = 88;
/// States so near the beginning have that.
const DENSE: usize = 3;
/// Bytes for the place of a byte of a normalised text, in a list that doubles as it grows.
const PLACE: u64 = 16;
/// Up to so many patterns all states have.
const MOST_DENSE: usize = 100;

/// The most bytes that `tokenizers` has live for `tokens`, or more than `most`. The normalizer makes a token's text at most `growth` times as long.
pub(super) fn bytes(tokens: &[AddedToken], normalizer: Option<&NormalizerWrapper>, growth: usize, most: u64) -> Result<u64> {
    let text: u64 = tokens.iter().map(|t| t.content.len() as u64).sum();
    let count = tokens.len() as u64;
    let slots = (count * 8 / 7 + 4).next_power_of_two();
    let mut all = slots * SLOT + count.next_power_of_two() * LISTED + 6 * text;
    let (mut plain, mut normalized) = (Vec::new(), Vec::new());
    for token in tokens {
        if !token.normalized {
            plain.push(token.content.as_bytes());
            continue;
        }
        let len = token.content.len() as u64;
        if all.saturating_add((3 * PLACE * len).saturating_mul(growth as u64)) > most {
            return Ok(u64::MAX);
        }
        let mut text = NormalizedString::from(token.content.as_str());
        let done = normalizer.map_or(Ok(()), |n| n.normalize(&mut text));
        done.map_err(|e| Error::InvalidFile(format!("tokenizer.json: added token {:?}: {e}", token.content)))?;
        let made = text.get().len() as u64;
        all += size_of::<NormalizedString>() as u64 + len + made + PLACE * made.max(4).next_power_of_two();
        normalized.push(text.get().as_bytes().to_vec());
    }
    let normalized = automaton(normalized.iter().map(Vec::as_slice).collect());
    Ok(all + automaton(plain) + normalized)
}

/// What an automaton of `patterns` takes.
fn automaton(mut patterns: Vec<&[u8]>) -> u64 {
    patterns.sort_unstable();
    let (mut states, mut near, mut bytes) = (1_u64, 1_u64, [false; 256]);
    let mut before: &[u8] = &[];
    for pattern in &patterns {
        // Texts that begin alike share states.
        let shared = pattern.iter().zip(before).take_while(|(a, b)| a == b).count();
        states += (pattern.len() - shared) as u64;
        near += pattern.len().min(DENSE).saturating_sub(shared) as u64;
        pattern.iter().for_each(|byte| bytes[usize::from(*byte)] = true);
        before = pattern;
    }
    // Each byte is a kind of its own, and so is what lies between two.
    let kinds = (2 * bytes.iter().filter(|used| **used).count() as u64 + 1).min(256).next_power_of_two();
    let dense = if patterns.len() <= MOST_DENSE { states } else { near };
    states * STATE + near * kinds * 12 + dense * kinds * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_exceed_what_32_bits_hold() {
        let long: String = (0..3_850_000).map(|i| char::from(b'!' + (i % 90) as u8)).collect();
        let token = |content: &str| AddedToken { content: content.into(), normalized: false, ..AddedToken::default() };
        assert!(bytes(&[token(&long)], None, 1, u64::MAX).unwrap() > 1 << 32);
        // An estimate of a text that a normalizer makes 4096 times as long: 3 * 2^32.
        let normalized = AddedToken { normalized: true, ..token(&"a".repeat(1 << 16)) };
        assert_eq!(bytes(&[normalized], None, 1 << 12, 1 << 30).unwrap(), u64::MAX);
    }
}
