//! What may repeat without an end, such as notices of a log that somebody floods: told when it is new, then now and again with
//! how often it came meanwhile. Pure: the time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

/// So many different things are remembered; of a flood of ever new ones no more than these are told in one period.
const MOST: usize = 16;

/// Remembers what was told.
#[derive(Debug)]
pub struct Repeats {
    period: Duration,
    /// The one told longest ago first.
    told: VecDeque<Told>,
    /// Of things that were never told, as too many others were.
    untold: u64,
}

#[derive(Debug)]
struct Told {
    what: String,
    at: Duration,
    left_out: u64,
}

/// It is to be told; so many of the same were left out since it last was, and so many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tell {
    pub left_out: u64,
    pub others: u64,
}

impl Repeats {
    /// The same thing is told once in each period.
    pub const fn new(period: Duration) -> Self {
        Self { period, told: VecDeque::new(), untold: 0 }
    }

    /// Something happened `now`, by a clock that only goes forward; `None`: it was told a short while ago. What differs in
    /// its numbers alone is the same.
    pub fn happened(&mut self, what: &str, now: Duration) -> Option<Tell> {
        let what = without_numbers(what);
        let over = |told: &Told| now.saturating_sub(told.at) >= self.period;
        let mut left_out = 0;
        if let Some(known) = self.told.iter().position(|told| told.what == what) {
            if !over(&self.told[known]) {
                self.told[known].left_out += 1;
                return None;
            }
            left_out = self.told.remove(known).map_or(0, |told| told.left_out);
        } else if self.told.len() >= MOST {
            if !self.told.front().is_some_and(over) {
                self.untold += 1;
                return None;
            }
            self.untold += self.told.pop_front().map_or(0, |told| told.left_out);
        }
        self.told.push_back(Told { what, at: now, left_out: 0 });
        Some(Tell { left_out, others: std::mem::take(&mut self.untold) })
    }

    /// All that was left out and not told of, at the end.
    pub fn rest(&mut self) -> u64 {
        let left_out = self.told.iter_mut().map(|told| std::mem::take(&mut told.left_out)).sum::<u64>();
        left_out + std::mem::take(&mut self.untold)
    }
}

impl Tell {
    /// `" (and 153 more like it since)"`, or nothing.
    pub fn words(self) -> String {
        match (self.left_out, self.others) {
            (0, 0) => String::new(),
            (n, 0) => format!(" (and {n} more like it since it was last told)"),
            (0, n) => format!(" (and {n} others, which were left out)"),
            (n, m) => format!(" (and {n} more like it since it was last told, and {m} others)"),
        }
    }
}

/// A text in which each number is the same: sizes, ports, times, process ids. Not the digits of a name, such as a key's id.
pub fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        match !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
            true => out.extend(["#", &piece[word.len()..]]),
            false => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_is_told_once_and_then_with_how_often_it_came() {
        let mut repeats = Repeats::new(at(600));
        assert_eq!(repeats.happened("1045 bytes were passed over", at(0)), Some(Tell { left_out: 0, others: 0 }));
        for second in 1..155 {
            assert_eq!(repeats.happened(&format!("{} bytes were passed over", second * 77), at(second)), None);
        }
        assert!(repeats.happened("something else", at(155)).is_some());
        let told = repeats.happened("3 bytes were passed over", at(600)).expect("a period later");
        assert_eq!((told.left_out, told.words().as_str()), (154, " (and 154 more like it since it was last told)"));
        assert_eq!(
            (repeats.happened("4 bytes were passed over", at(601)), repeats.rest(), repeats.rest()),
            (None, 1, 0)
        );
    }

    #[test]
    fn numbers_are_numbers_and_names_are_names() {
        for (text, expected) in [
            ("127.0.0.1:34567: refused (os error 111)", "#.#.#.#:#: refused (os error #)"),
            ("AKIA2 is not AKIA3", "AKIA2 is not AKIA3"),
            ("12", "#"),
            ("", ""),
            ("é1 2é 3", "é1 2é #"),
        ] {
            assert_eq!(without_numbers(text), expected);
        }
    }

    #[test]
    fn ever_new_things_are_no_way_round() {
        let mut repeats = Repeats::new(at(600));
        let new = |n: u64| format!("unknown {}", "x".repeat(usize::try_from(n).unwrap()));
        let told: usize = (0..1000).filter(|n| repeats.happened(&new(*n), at(1)).is_some()).count();
        assert_eq!((told, repeats.told.len()), (MOST, MOST));
        let later = repeats.happened(&new(5000), at(601)).expect("a period later");
        assert_eq!(later, Tell { left_out: 0, others: 1000 - MOST as u64 });
    }
}
