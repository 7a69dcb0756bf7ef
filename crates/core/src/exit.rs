//! How a program of relaykey ends, as its exit code tells it: the same for all of them.

/// Exit codes, the best first: over several credentials the worst wins.
///
/// | code | meaning |
/// |---|---|
/// | 0 | done, nothing to do, or only reports owed |
/// | 1 | failed, or refused, for good |
/// | 2 | usage or configuration |
/// | 3 | waits for a person, or for hosts |
/// | 75 | failed for now, not over yet, a reload is owed, or somebody else is at work |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Nothing is left to do.
    Done,
    /// A person is to act, or hosts are.
    People,
    /// Another run may help.
    ForNow,
    /// Another run helps only once somebody has changed something.
    ForGood,
    /// What was asked for is not understood.
    Usage,
}

impl Exit {
    /// The code that the program ends with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::ForGood => 1,
            Exit::Usage => 2,
            Exit::People => 3,
            Exit::ForNow => 75,
        }
    }

    /// The exit that a code stands for.
    pub fn of(code: u8) -> Self {
        let all = [Exit::Done, Exit::People, Exit::ForNow, Exit::ForGood, Exit::Usage];
        all.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::ForGood)
    }
}
