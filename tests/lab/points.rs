//! Which of all the points at which a program can be stopped are tried in this run.
//!
//! All of them, unless `RELAYKEY_CRASH_SHARE` is such as `2/6`: then every sixth, counted from 0, and the points that
//! matter most. `tests/run` takes another share each day, `tests/run long` takes all.

/// Is the `n`-th point tried? Those of `always` are, whatever the share.
pub fn is_tried(n: usize, always: &[usize]) -> bool {
    always.contains(&n) || share().is_none_or(|(first, of)| n % of == first)
}

/// How many rounds of a series that has no points of its own: a share of them, where only a share is tried.
pub fn rounds(all: usize) -> usize {
    share().map_or(all, |(_, of)| all.div_ceil(of))
}

/// For the line that a series prints: nothing where all were tried.
pub fn told() -> String {
    share().map(|(first, of)| format!(" (of these, share {first} of {of})")).unwrap_or_default()
}

fn share() -> Option<(usize, usize)> {
    let set = std::env::var("RELAYKEY_CRASH_SHARE").ok()?;
    let share = set.split_once('/').and_then(|(first, of)| Some((first.parse().ok()?, of.parse().ok()?)));
    let share = share.filter(|(first, of)| first < of);
    Some(share.unwrap_or_else(|| panic!("RELAYKEY_CRASH_SHARE is {set:?}, and not such as 2/6, from 0/6 on")))
}
