//! Prompt lookup: what followed when the latest tokens last occurred, in prompt or answer, is a guess at what follows now. A step that
//! checks several guesses costs less than as many steps, where they are mostly right; see [`Drafter::length`].

use web_time::Duration;

/// Latest tokens that must have occurred before, the better sign first.
const AGREE: [usize; 2] = [3, 2];
/// Most guesses that are checked at a time.
const MOST: usize = 8;
/// How fast averages follow what is new.
const RATE: f32 = 0.25;
/// A draft is expected to be so much faster than plain steps, or there is none.
const WORTH: f32 = 1.05;

/// Guesses, and how good they were.
#[derive(Debug)]
pub struct Drafter {
    /// Drafts whatever the odds: for tests.
    always: bool,
    /// Where guesses are copied from: what the answer is expected to be like, the prompt, the answer so far.
    tokens: Vec<u32>,
    /// Where the answer seems to be copied from: the place of the next token.
    source: Option<usize>,
    /// The part of guesses that were right, of late. Also guesses that no step was spent on count, so learning costs nothing.
    right: f32,
    /// A step of one token, milliseconds.
    single_ms: Option<f32>,
    /// What each further token adds to a step, as a part of a step of one.
    further: f32,
}

impl Drafter {
    /// Begins with `tokens`; their last is followed by the answer.
    pub fn new(always: bool, tokens: Vec<u32>) -> Drafter {
        Drafter { always, tokens, source: None, right: 0.0, single_ms: None, further: 0.4 }
    }

    /// The answer's next token: was it guessed?
    pub fn learn(&mut self, id: u32) {
        self.source = self.source.and_then(|source| {
            let hit = self.tokens.get(source) == Some(&id);
            self.right += RATE * (f32::from(u8::from(hit)) - self.right);
            hit.then_some(source + 1)
        });
        self.tokens.push(id);
        self.source = self.source.or_else(|| AGREE.iter().find_map(|n| occurrence(&self.tokens, *n)));
    }

    /// Looks at what a step of `rows` tokens took.
    pub fn time(&mut self, rows: usize, took: Duration) {
        let ms = took.as_secs_f32() * 1e3;
        match (rows, self.single_ms) {
            (0, _) => {}
            (1, None) => self.single_ms = Some(ms),
            (1, Some(single)) => self.single_ms = Some(single + RATE * (ms - single)),
            (_, None) => {}
            (_, Some(single)) => {
                let further = (ms / single - 1.0) / (rows - 1) as f32;
                self.further += RATE * (further.clamp(0.1, 1.5) - self.further);
            }
        }
    }

    /// What may follow: nothing where that is not worth a try, `most` tokens at most.
    pub fn draft(&self, most: usize) -> Vec<u32> {
        let Some(source) = self.source else { return Vec::new() };
        let length = if self.always { MOST } else { self.length() };
        // At its end the copy goes on with itself: a repetition.
        let copied = &self.tokens[source..];
        copied.iter().cycle().take(length.min(most)).copied().collect()
    }

    /// The best number of guesses `k` where each is right with probability `p`: a step of `1 + k` tokens, which takes `1 + k * further`
    /// plain steps, yields `1 + p + p^2 + ... + p^k` tokens.
    fn length(&self) -> usize {
        let (mut best, mut length) = (WORTH, 0);
        let (mut tokens, mut chance) = (1.0, 1.0);
        for k in 1..=MOST {
            chance *= self.right;
            tokens += chance;
            let faster = tokens / (1.0 + k as f32 * self.further);
            if faster > best {
                (best, length) = (faster, k);
            }
        }
        length
    }
}

/// The place after the latest earlier occurrence of the last `n` tokens.
fn occurrence(tokens: &[u32], n: usize) -> Option<usize> {
    let (_, last) = tokens.split_at_checked(tokens.len().checked_sub(n)?)?;
    let earlier = &tokens[..tokens.len() - 1];
    earlier.windows(n).rposition(|window| window == last).map(|start| start + n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A drafter that saw `tokens` one by one.
    fn saw(tokens: &[u32]) -> Drafter {
        let mut drafter = Drafter::new(false, Vec::new());
        tokens.iter().for_each(|id| drafter.learn(*id));
        drafter
    }

    #[test]
    fn what_followed_last_time_is_guessed() {
        let tokens = [7, 1, 2, 3, 4, 9, 1, 2, 3, 5, 6, 8, 1, 2, 3];
        assert_eq!(occurrence(&tokens, 3), Some(9), "the latest earlier occurrence");
        assert_eq!(occurrence(&tokens, 2), Some(9));
        assert_eq!(occurrence(&tokens[..8], 3), None);
        assert_eq!(occurrence(&[4, 4, 4], 2), Some(2), "an occurrence may overlap with the end");
        assert_eq!(occurrence(&[1], 2), None);
        let mut drafter = Drafter::new(true, tokens[..14].to_vec());
        drafter.learn(3);
        assert_eq!(drafter.draft(3), [5, 6, 8]);
        assert_eq!(drafter.draft(8), [5, 6, 8, 1, 2, 3, 5, 6], "past its end it repeats itself");
        assert!(drafter.draft(0).is_empty());
        drafter.learn(5);
        assert_eq!(drafter.source, Some(10), "a copy goes on where it was");
    }

    #[test]
    fn a_draft_needs_guesses_that_were_right() {
        let copied: Vec<u32> = (0..40).chain(0..20).collect();
        let drafter = saw(&copied);
        assert!(drafter.right > 0.9, "{}", drafter.right);
        assert!(drafter.draft(8).len() > 2);
        let fresh: Vec<u32> = (0..40).collect();
        assert!(saw(&fresh).draft(8).is_empty());
        // Each time the same two tokens, each time something else after them.
        let misleading: Vec<u32> = (10..40).flat_map(|n| [1, 2, n]).chain([1, 2]).collect();
        let drafter = saw(&misleading);
        assert!(drafter.source.is_some());
        assert!(drafter.draft(8).is_empty(), "{drafter:?}");
    }

    #[test]
    fn steps_that_grow_with_their_tokens_are_not_worth_it() {
        let mut drafter = saw(&(0..40).chain(0..20).collect::<Vec<u32>>());
        for _ in 0..20 {
            drafter.time(1, Duration::from_millis(10));
            drafter.time(5, Duration::from_millis(50));
        }
        assert!((drafter.further - 1.0).abs() < 0.01);
        assert!(drafter.draft(8).is_empty());
        for _ in 0..20 {
            drafter.time(9, Duration::from_millis(10));
        }
        assert_eq!(drafter.draft(8).len(), 8);
    }
}
