//! Stop strings: where one occurs, the text ends before it, however tokens cut it.

use crate::error::{Error, Result};

/// Ends a text before the first of several strings. Text that may be the beginning of one is held back until it is clear.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

/// What may be shown after a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Text that certainly is part of the answer.
    pub text: String,
    /// Whether a stop string is complete: the answer ends with `text`.
    pub stopped: bool,
}

impl StopStrings {
    /// Stops at the first of `stops` to be complete; none is fine, an empty string is not.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::InvalidInput("a stop string is empty".into()));
        }
        Ok(Self { stops, ..Self::default() })
    }

    /// Adds `text`. After a stop nothing comes out any more.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.stopped {
            return Stopped { text: String::new(), stopped: true };
        }
        self.held.push_str(text);
        self.stopped = match self.first_stop() {
            Some(start) => {
                self.held.truncate(start);
                true
            }
            None => false,
        };
        let keep = if self.stopped { self.held.len() } else { self.possible_start() };
        Stopped { text: self.held.drain(..keep).collect(), stopped: self.stopped }
    }

    /// The text ended without a stop: what was held back is part of it.
    pub fn finish(self) -> String {
        self.held
    }

    /// Where the stop begins that is complete first; of two that end together, the longer one. Which one that is does
    /// not depend on how the text was cut into pushes.
    fn first_stop(&self) -> Option<usize> {
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)));
        found.min().map(|(_, start)| start)
    }

    /// Where the rest of the text is the beginning of a stop; the text's length if it is not.
    fn possible_start(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let is_start = |at: &usize| self.held.is_char_boundary(*at) && self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        (from..self.held.len()).find(is_start).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pushes: &[&str]) -> (String, bool) {
        let mut stop = StopStrings::new(stops.iter().map(|s| s.to_string()).collect()).unwrap();
        let mut text = String::new();
        for push in pushes {
            let step = stop.push(push);
            text.push_str(&step.text);
            if step.stopped {
                return (text, true);
            }
        }
        (text + &stop.finish(), false)
    }

    #[test]
    fn a_stop_may_span_pushes() {
        assert_eq!(run(&["\nUser:"], &["Hi", "\n", "Us", "er", ": x"]), ("Hi".into(), true));
        assert_eq!(run(&["\nUser:"], &["Hi\nUsed"]), ("Hi\nUsed".into(), false));
        assert_eq!(run(&["é€"], &["caf", "é", "€"]), ("caf".into(), true));
        assert_eq!(run(&[], &["any", "thing"]), ("anything".into(), false));
        assert_eq!(StopStrings::new(vec![String::new()]).unwrap_err().code(), "invalid_input");
    }

    #[test]
    fn only_what_may_be_a_stop_is_held_back() {
        let mut stop = StopStrings::new(vec!["aab".into()]).unwrap();
        assert_eq!(stop.push("xaa").text, "x");
        assert_eq!(stop.push("a").text, "a");
        assert_eq!(stop.push("b"), Stopped { text: String::new(), stopped: true });
        assert_eq!(stop.push("more"), Stopped { text: String::new(), stopped: true });
    }

    /// The definition, over the whole text and every position.
    fn naive(stops: &[&str], text: &str) -> (String, bool) {
        for end in 0..=text.len() {
            let start = stops.iter().filter(|s| text.as_bytes()[..end].ends_with(s.as_bytes())).map(|s| end - s.len()).min();
            if let Some(start) = start {
                return (text[..start].to_string(), true);
            }
        }
        (text.to_string(), false)
    }

    #[test]
    fn agrees_with_the_definition_however_the_text_is_cut() {
        let mut state = 7u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let letters = ["a", "b", "é", "€"];
        let mut stopped = 0;
        for _ in 0..5000 {
            let mut word = |longest: usize| (0..1 + random(longest)).map(|_| letters[random(4)]).collect::<String>();
            let stops = [word(4), word(3), word(5)];
            let pushes: Vec<String> = (0..8).map(|_| word(3)).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).take(1 + random(3)).collect();
            let pushes: Vec<&str> = pushes.iter().map(String::as_str).collect();
            let expected = naive(&stops, &pushes.concat());
            stopped += usize::from(expected.1);
            assert_eq!(run(&stops, &pushes), expected, "{stops:?} in {pushes:?}");
        }
        assert!((500..4990).contains(&stopped), "{stopped} of 5000 texts have a stop: the test tries both ways");
    }
}
