//! Bends inputs: bits, lengths, numbers, words, pieces of other inputs.

use crate::rng::Rng;

/// Longest input that is bent further.
pub const LONGEST: usize = 512 << 10;
/// Length up to which a piece is repeated now and then, to find what takes many times its own memory.
const LONG: usize = 4 << 20;

/// `input` with one to eight changes; pieces come from `other` and from `words`.
pub fn mutated(rng: &mut Rng, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..1 << rng.below(4) {
        change(rng, &mut out, other, words);
        out.truncate(LONGEST);
    }
    if rng.below(4096) == 0 {
        let at = rng.below(out.len() + 1);
        let piece = out[at..at + (out.len() - at).min(1 + rng.below(64))].to_vec();
        let times = rng.below(LONG) / piece.len().max(1);
        put(&mut out, at, &piece.repeat(times));
    }
    out
}

fn change(rng: &mut Rng, out: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    let at = rng.below(out.len() + 1);
    match rng.below(10) {
        0 if at < out.len() => out[at] ^= 1 << rng.below(8),
        1 if at < out.len() => out[at] = rng.next() as u8,
        2 => out.truncate(at),
        3 => drop(out.splice(at..end(rng, out, at), [])),
        4 => {
            let piece = out[at..end(rng, out, at)].to_vec();
            put(out, at, &piece.repeat(1 + rng.below(3)));
        }
        5 => {
            let from = rng.below(other.len() + 1);
            let piece = &other[from..end(rng, other, from)];
            let to = end(rng, out, at);
            out.splice(at..to, piece.iter().copied());
        }
        6 => {
            let bytes = extreme(rng, out.len()).to_le_bytes();
            let width = [1, 2, 4, 8][rng.below(4)].min(out.len() - at);
            out[at..at + width].copy_from_slice(&bytes[..width]);
        }
        7 => number(rng, out, at),
        8 if !words.is_empty() => {
            let word = words[rng.below(words.len())];
            let to = if rng.below(2) == 0 { at } else { end(rng, out, at).min(at + word.len()) };
            out.splice(at..to, word.bytes());
        }
        9 if !words.is_empty() && rng.below(16) == 0 => {
            let word = words[rng.below(words.len())];
            put(out, at, word.repeat(1 << rng.below(15)).as_bytes());
        }
        _ => put(out, at, &[rng.next() as u8]),
    }
}

fn put(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    out.splice(at..at, bytes.iter().copied());
}

/// The end of a piece from `at` on; short ones are more frequent.
fn end(rng: &mut Rng, bytes: &[u8], at: usize) -> usize {
    let most = (bytes.len() - at).min(1 << rng.below(14));
    at + rng.below(most + 1)
}

/// A number at a border of something.
fn extreme(rng: &mut Rng, len: usize) -> u64 {
    let base = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 1 << 22, 0x7fff_ffff, 0xffff_ffff, 1 << 40, 1 << 62, 1 << 63, u64::MAX, len as u64];
    base[rng.below(base.len())].wrapping_add(rng.below(5) as u64).wrapping_sub(2)
}

/// The number in decimal digits that begins at `at` or after it becomes an extreme one.
fn number(rng: &mut Rng, out: &mut Vec<u8>, at: usize) {
    let Some(from) = out[at..].iter().position(u8::is_ascii_digit).map(|n| at + n) else { return };
    let to = out[from..].iter().position(|b| !b.is_ascii_digit()).map_or(out.len(), |n| from + n);
    let text = match rng.below(6) {
        0 => format!("-{}", rng.below(100)),
        1 => ["1e308", "-1e308", "1e-320", "0.0", "1e999", "0.5"][rng.below(6)].to_owned(),
        2 => rng.below(70).to_string(),
        _ => extreme(rng, out.len()).to_string(),
    };
    out.splice(from..to, text.bytes());
}
