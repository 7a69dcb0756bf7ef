//! The numbers that the rules go by: how often, how long, how late. All are settings; none can be set below what makes it
//! worth anything.

use jiff::SignedDuration;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

const fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// A decision that is older is dropped: a program that was frozen must not wake up and act.
pub const DECISION_HOLDS: SignedDuration = secs(MINUTE);
/// An action is made only with more than this left of the lease, so that no decision outlives it.
pub const LEASE_MARGIN: SignedDuration = secs(MINUTE);
/// How far the clocks of two machines may be apart that AWS both serves: it takes no call that is dated further off.
pub const CLOCKS_APART: SignedDuration = secs(5 * MINUTE);
/// What IAM lists may be so old: a key that was made since is not in it, and one that was deactivated since is Active.
pub const LISTED_LATE: SignedDuration = secs(10 * MINUTE);
/// AWSPENDING without a value is Secrets Manager's own for so long.
pub const EMPTY_PENDING: SignedDuration = secs(20 * MINUTE);
/// An endpoint that gives no answer for so long refuses.
pub const UNANSWERED: SignedDuration = secs(HOUR);
/// A deactivated key that logs in after so long is told.
pub const NOT_DEAD: SignedDuration = secs(15 * MINUTE);
/// A leftover that we deactivated is deleted this long after, if it is still unused.
pub const LEFTOVER: SignedDuration = secs(DAY);
/// A key that was not used for so long is said to be unused: some mail is sent once in three months.
pub const UNUSED: SignedDuration = secs(100 * DAY);
/// How late a sign of life may be.
pub const SILENT: SignedDuration = secs(DAY);
/// How far apart our login and its time in IAM may be, and how long a session may go on after it.
pub const USE_SLACK: SignedDuration = secs(5 * MINUTE);
/// What an agent that does not say how often it asks may take.
pub const UNKNOWN_POLL: SignedDuration = secs(HOUR);
/// The first and the longest time between two tries with keys that SES did not take.
pub const BACKOFF: (SignedDuration, SignedDuration) = (secs(15 * MINUTE), secs(6 * HOUR));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOld {
    AfterObserve,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How old a key may become.
    pub every: SignedDuration,
    /// How long SES may refuse a new key.
    pub propagation: SignedDuration,
    pub canary_soak: SignedDuration,
    /// The least time between the last confirmation and the end of the old key.
    pub grace: SignedDuration,
    /// How long IAM may take to tell of a use.
    pub last_use_lag: SignedDuration,
    /// How long the old key lies deactivated before it is deleted.
    pub observe: SignedDuration,
    pub delete: DeleteOld,
    /// Seals the roster when so many hosts were heard of; 0: a person seals it.
    pub expected_hosts: usize,
    /// The label that canary hosts watch.
    pub canary: Option<String>,
    /// Where a login has to be accepted: configured, never out of a report.
    pub endpoints: Vec<String>,
    /// Of the holder of the fence.
    pub lease: SignedDuration,
    /// Between the intention and the deactivation.
    pub settle: SignedDuration,
    /// What twice the longest poll gets on top of it, to become a grace.
    pub poll_slack: SignedDuration,
    /// The longest time between two looks.
    pub reconcile: SignedDuration,
    /// How old what IAM lists may be.
    pub listed_late: SignedDuration,
}

/// A setting below what makes it worth anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` is {is:#}, and less than {least:#} is no protection")]
pub struct TooShort {
    pub setting: &'static str,
    pub is: SignedDuration,
    pub least: SignedDuration,
}

impl Policy {
    /// The defaults, with these endpoints.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            every: secs(90 * DAY),
            propagation: secs(10 * MINUTE),
            canary_soak: secs(10 * MINUTE),
            grace: secs(10 * MINUTE),
            last_use_lag: secs(DAY),
            observe: secs(3 * DAY),
            delete: DeleteOld::AfterObserve,
            expected_hosts: 0,
            canary: None,
            endpoints,
            lease: secs(5 * MINUTE),
            settle: secs(MINUTE),
            poll_slack: secs(30),
            reconcile: secs(DAY),
            listed_late: LISTED_LATE,
        }
    }

    /// For a lab, where nothing depends on any key: what is not set follows the shortest that is.
    #[must_use]
    pub fn in_a_lab(self) -> Self {
        let all = [self.propagation, self.canary_soak, self.grace, self.last_use_lag, self.observe];
        let shortest = all.into_iter().min().expect("there are some");
        Self {
            settle: self.settle.min(shortest),
            poll_slack: self.poll_slack.min(shortest),
            reconcile: self.reconcile.min(shortest),
            listed_late: self.listed_late.min(shortest),
            ..self
        }
    }

    /// Every setting that is too short.
    pub fn too_short(&self) -> Vec<TooShort> {
        let all = [
            ("every", self.every, secs(DAY)),
            // SES answers 535 for up to two minutes after a key was made.
            ("propagation", self.propagation, secs(2 * MINUTE)),
            // Open SMTP sessions keep the old login for five minutes.
            ("grace", self.grace, secs(10 * MINUTE)),
            ("last_use_lag", self.last_use_lag, secs(DAY)),
            ("observe", self.observe, secs(HOUR)),
            ("settle", self.settle, DECISION_HOLDS),
            ("lease", self.lease, secs(3 * MINUTE)),
        ];
        let short = all.into_iter().filter(|(_, is, least)| is < least);
        short.map(|(setting, is, least)| TooShort { setting, is, least }).collect()
    }

    /// The grace that a fleet needs whose slowest host asks this often.
    pub fn grace_for(&self, longest_poll: SignedDuration) -> SignedDuration {
        self.grace.max(longest_poll * 2 + self.poll_slack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_long_enough_and_what_is_shorter_is_named() {
        let policy = Policy::new(Vec::new());
        assert_eq!(policy.too_short(), []);
        let short = Policy { grace: secs(9 * MINUTE), observe: secs(59 * MINUTE), ..policy };
        let named: Vec<_> = short.too_short().iter().map(|short| short.setting).collect();
        assert_eq!(named, ["grace", "observe"]);
    }

    #[test]
    fn grace_is_twice_the_longest_poll_and_never_less_than_what_is_set() {
        let policy = Policy::new(Vec::new());
        assert_eq!(policy.grace_for(secs(5 * MINUTE)), secs(10 * MINUTE + 30));
        assert_eq!(policy.grace_for(secs(MINUTE)), secs(10 * MINUTE));
        assert_eq!(policy.grace_for(UNKNOWN_POLL), secs(2 * HOUR + 30));
    }
}
