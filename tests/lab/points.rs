//! Which of all the points at which a program can be stopped are tried in this run.
//!
//! All of them, unless `RELAYKEY_CRASH_THIRD` is 0, 1 or 2: then one third, beginning there, and the points that matter most.
//! `tests/run` takes another third each day, `tests/run long` takes all.

/// Is the `n`-th point tried? Those of `always` are, whatever the third.
pub fn is_tried(n: usize, always: &[usize]) -> bool {
    always.contains(&n) || third().is_none_or(|third| n % 3 == third)
}

/// How many rounds of a series that has no points of its own: a third of them, where only thirds are tried.
pub fn rounds(all: usize) -> usize {
    if third().is_some() { all.div_ceil(3) } else { all }
}

/// For the line that a series prints: nothing where all were tried.
pub fn told() -> String {
    third().map(|third| format!(" (of these, the third that begins at {third})")).unwrap_or_default()
}

fn third() -> Option<usize> {
    let set = std::env::var("RELAYKEY_CRASH_THIRD").ok()?;
    let third = set.parse().ok().filter(|third| *third < 3);
    Some(third.unwrap_or_else(|| panic!("RELAYKEY_CRASH_THIRD is {set:?}, and not 0, 1 or 2")))
}
