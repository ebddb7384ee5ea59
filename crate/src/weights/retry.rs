//! How long to wait before another attempt, and when to give up.
//!
//! The wait doubles with each attempt that brought nothing; half of it is random, so that many who lost one server at one moment
//! do not come back at one moment. A server that says when to come back (`Retry-After`) decides, within a limit.

use super::network::{Failed, Network};
use crate::error::Result;

/// Attempts in a row that bring nothing, before giving up.
const ATTEMPTS: u32 = 5;
/// Longest wait before the second attempt; doubled before each further one.
const BACK_OFF_MS: f64 = 500.0;
/// Longest wait that a server may ask for.
const MOST_WAIT_MS: f64 = 60_000.0;

/// Attempts at one thing.
pub(super) struct Attempts<'a> {
    network: Network<'a>,
    failed: u32,
}

impl<'a> Attempts<'a> {
    pub fn new(network: Network<'a>) -> Attempts<'a> {
        Attempts { network, failed: 0 }
    }

    /// The attempt before this brought something: patience begins anew.
    pub fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits for the next attempt, or gives the error of the last one.
    pub async fn again(&mut self, failed: Failed) -> Result<()> {
        self.failed += 1;
        if !failed.again || self.failed >= ATTEMPTS {
            return Err(failed.error);
        }
        let wait = match failed.after_ms {
            Some(asked) => asked.clamp(0.0, MOST_WAIT_MS),
            None => BACK_OFF_MS * f64::from(1 << (self.failed - 1)) * (0.5 + 0.5 * jitter(self.network.clock.now_ms(), self.failed)),
        };
        self.network.sleep(wait).await
    }
}

/// A number from 0 to 1 that follows from the moment (splitmix64): no two clients fail at one microsecond of their clocks.
fn jitter(now_ms: f64, attempt: u32) -> f64 {
    let mut x = now_ms.to_bits().wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as f64 / u64::MAX as f64
}

/// Milliseconds from `now` (since 1970) to what `Retry-After` says: seconds, or a date. None where it is neither.
pub(super) fn retry_after_ms(text: &str, now: f64) -> Option<f64> {
    let text = text.trim();
    match text.parse::<u32>() {
        Ok(seconds) => Some(f64::from(seconds) * 1000.0),
        Err(_) => date_ms(text).map(|date| (date - now).max(0.0)),
    }
}

/// Milliseconds from 1970 to an HTTP date: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, IMF-fixdate).
fn date_ms(text: &str) -> Option<f64> {
    let mut words = text.split_once(", ")?.1.split([' ', ':']);
    let (day, month, year) = (number(words.next()?)?, words.next()?, number(words.next()?)?);
    let (hour, minute, second) = (number(words.next()?)?, number(words.next()?)?, number(words.next()?)?);
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"].iter().position(|m| *m == month)?;
    let possible = words.next() == Some("GMT") && (1..=31).contains(&day) && (1970..=9999).contains(&year) && hour < 24 && minute < 60;
    possible.then_some(())?;
    let days = days_before(year, month as i64 + 1) + day - 1;
    Some(((days * 24 + hour) * 3600 + minute * 60 + second) as f64 * 1000.0)
}

fn number(digits: &str) -> Option<i64> {
    (digits.len() <= 4 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Days from 1 January 1970 to the first of a month. Years begin in March, so that a leap day ends one.
fn days_before(year: i64, month: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after_ms("120", 5.0), Some(120_000.0));
        assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770_000.0), Some(7_000.0));
        assert_eq!(retry_after_ms("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_399_000.0), Some(1_000.0));
        assert_eq!(retry_after_ms("Thu, 01 Jan 1970 00:00:00 GMT", 7.0), Some(0.0), "a moment ago is now");
        for none in ["", "soon", "-1", "Sun, 06 Nov 1994", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "1e9"] {
            assert_eq!(retry_after_ms(none, 0.0), None, "{none}");
        }
    }

    #[test]
    fn jitter_is_spread_and_follows_from_the_moment() {
        let all: Vec<f64> = (0..1000).map(|i| jitter(f64::from(i) * 0.1, 1)).collect();
        assert!(all.iter().all(|x| (0.0..=1.0).contains(x)));
        assert!((all.iter().sum::<f64>() / 1000.0 - 0.5).abs() < 0.05);
        assert_eq!(jitter(3.0, 2), jitter(3.0, 2));
    }
}
