//! What is decided, and what became of it, as values: the action, its reason, the phase; and the outcome of its call.

use jiff::Timestamp;

use crate::evidence::Verdict;
use crate::facts::{HostName, KeyId, KeyPlace, LoginReply, VersionId};
use crate::refusal::Refusal;

/// One thing to do, about ids out of the facts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// `host`: which host's report asks for it.
    Reactivate {
        key: KeyId,
        host: Option<HostName>,
    },
    /// The value of this version is put as a new version, under a new token: the store ignores one it knows.
    Republish {
        from: VersionId,
        key: KeyId,
    },
    Create,
    /// The new key, from memory. `publishes`: what is put is published with that.
    Put {
        key: KeyId,
        publishes: bool,
    },
    /// The secret of the new key is dropped from memory. `refused`: because SES does not take this key, which may also be one that
    /// is stored; that is written down, and it is not tried again at once.
    Forget {
        key: KeyId,
        refused: bool,
    },
    /// At every configured endpoint, with the value of the newest version that holds this key, or from memory.
    LogIn {
        key: KeyId,
        purpose: Purpose,
    },
    /// AWSPENDING. `refused`: because SES does not take this key.
    TakeOff {
        version: VersionId,
        refused: Option<KeyId>,
    },
    Label {
        version: VersionId,
        label: String,
    },
    Unlabel {
        version: VersionId,
        label: String,
    },
    /// Only if AWSCURRENT still is what it was.
    Promote {
        from: Option<VersionId>,
        version: VersionId,
        key: KeyId,
    },
    /// The login of this version of the first place is put in another one, under AWSPENDING. `publishes`: what is put there is
    /// published with that.
    CopyTo {
        place: KeyPlace,
        from: VersionId,
        key: KeyId,
        publishes: bool,
    },
    /// As [`Action::Promote`], in another place.
    PromoteAt {
        place: KeyPlace,
        from: Option<VersionId>,
        version: VersionId,
        key: KeyId,
    },
    /// It was promoted, and nobody lived to write that down.
    RecordPublished {
        version: VersionId,
        key: KeyId,
    },
    /// The old key is about to be deactivated: everything is looked at again first.
    Intend {
        key: KeyId,
    },
    Deactivate {
        key: KeyId,
        why: WhyGone,
    },
    RecordProvedDead {
        key: KeyId,
    },
    Delete {
        key: KeyId,
        why: WhyGone,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Is the new key known to SES?
    Verify,
    /// Does the old key still log in? What must turn into a refusal was an acceptance.
    LastLogin,
    /// Is the deactivated key dead?
    ProveDead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyGone {
    /// The old key, by rules 10 and 11.
    Retired,
    /// We made it, and nothing came of it.
    Leftover,
}

/// What became of an action's call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    Done,
    /// Definitely not done.
    Failed,
    /// Nobody knows: no answer came. The next look sees.
    Unknown,
    Created(KeyId),
    /// What was put is AWSCURRENT.
    Published(VersionId),
    /// `accepted`: at every endpoint. `used`: at one at least, so that it is a use of the key; `None`: nobody knows.
    LoggedIn {
        accepted: bool,
        used: Option<bool>,
    },
}

impl Outcome {
    /// What the endpoints' replies come to, of which there are some.
    pub fn logged_in(replies: &[LoginReply]) -> Self {
        let accepted = |reply: &LoginReply| *reply == LoginReply::Accepted;
        let used = match () {
            () if replies.iter().any(accepted) => Some(true),
            () if replies.contains(&LoginReply::NoAnswer) => None,
            () => Some(false),
        };
        Outcome::LoggedIn { accepted: replies.iter().all(accepted), used }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Idle,
    Creating,
    Pending,
    Canary,
    Waiting,
    Grace,
    Lag,
    Retiring,
    Observing,
    Trouble,
    Revoked,
    Stuck(Refusal),
}

/// Why this is done, or nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// 1
    PublishedKeyInactive(KeyId),
    /// 2
    PublishedKeyGone(KeyId),
    /// 3
    HostCutOff(HostName, KeyId),
    /// 5: it may still be stored.
    NotStored(KeyId),
    /// 5: whoever makes it holds the lease.
    BeingMade {
        until: Timestamp,
    },
    LeaseOver(KeyId),
    /// 6
    ToVerify(KeyId),
    Propagating {
        key: KeyId,
        until: Timestamp,
    },
    /// 6: neither accepted nor refused.
    Unanswered {
        key: KeyId,
        until: Timestamp,
    },
    NotTaken(KeyId),
    /// 6a
    EmptyPending {
        until: Timestamp,
    },
    EmptyPendingOld,
    /// 6b
    PendingDead(VersionId),
    /// 7
    Canary(String),
    CanaryWaits {
        confirmed: usize,
        of: usize,
    },
    CanarySoaks {
        until: Timestamp,
    },
    /// 7a
    /// It is to be there before it is published anywhere, or it is published elsewhere already.
    NotEverywhere(KeyPlace),
    Verified(VersionId),
    PromotedBefore(VersionId),
    /// What is AWSCURRENT was written anew since this version was composed.
    Outdated(VersionId),
    CanaryOver(VersionId),
    /// 8
    OldEnough {
        since: Timestamp,
    },
    Asked {
        by: String,
    },
    MakesRoom(KeyId),
    /// 10
    Confirmed {
        until: Timestamp,
    },
    AllQuiet(KeyId),
    Settles {
        until: Timestamp,
    },
    LastLogin(KeyId),
    Retires(KeyId),
    /// 10a
    MustDie(KeyId),
    StillAlive(KeyId),
    IsDead(KeyId),
    /// 11
    Observed(KeyId),
    Observing {
        until: Timestamp,
    },
    /// 9
    Leftover(KeyId),
    LeftoverLies {
        key: KeyId,
        until: Timestamp,
    },
    /// 12: the refusals say it.
    Refused,
    NothingDue {
        until: Option<Timestamp>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub phase: Phase,
    pub action: Option<Action>,
    pub reason: Reason,
    /// When to look again.
    pub next: Option<Timestamp>,
    pub refusals: Vec<Refusal>,
    pub hosts: Vec<(HostName, Verdict)>,
}

impl Reason {
    /// The time that is waited for.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Reason::BeingMade { until }
            | Reason::Propagating { until, .. }
            | Reason::Unanswered { until, .. }
            | Reason::EmptyPending { until }
            | Reason::CanarySoaks { until }
            | Reason::Confirmed { until }
            | Reason::Settles { until }
            | Reason::Observing { until }
            | Reason::LeftoverLies { until, .. } => Some(*until),
            Reason::NothingDue { until } => *until,
            _ => None,
        }
    }
}
