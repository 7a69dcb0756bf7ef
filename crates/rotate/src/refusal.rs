//! What stands in the way, as values: each class of the contract once, with the ids that its words and its fix name. The words
//! are made in [`crate::words`] alone.

use jiff::{SignedDuration, Timestamp};

use crate::facts::{Gap, HostName, IamUser, KeyId, KeyPlace, Part, StoreKind, VersionId, WhyMissing, WhyUnseen};

/// What is known of the use of a key that nobody explains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KnownUse {
    Inactive,
    /// Everything was seen that would tell, and nothing tells of any.
    Nothing,
    /// By IAM, of late.
    Used {
        at: Timestamp,
        service: String,
    },
    Named {
        host: HostName,
    },
    /// Something was not seen that would tell.
    NotKnown,
}

/// Why a further place does not give the published key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtPlace {
    /// It has not been put there yet.
    Behind,
    /// It gave it, and somebody made another version AWSCURRENT.
    Moved,
    /// Somebody else's key is AWSPENDING there.
    PendingForeign,
    /// AWSPENDING has no value there yet, and is young: Secrets Manager's own.
    PendingEmpty,
    /// It is to hold a secret access key, and the first place an SMTP password alone, from which none can be made.
    NeedsKey,
    /// What it gives is no login of this IAM user's, and we never put anything there.
    NotOurs,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The published key is Inactive, and not by us (or the record of it is lost).
    DeactivatedByHand {
        key: KeyId,
    },
    /// We deactivated it, and somebody switched it on again: its clocks began anew.
    BroughtBack {
        key: KeyId,
    },
    NoHosts,
    /// `expect: None`: nobody sealed it. `counted`: those that are silent, or never wrote, too.
    RosterOpen {
        heard: usize,
        counted: usize,
        expect: Option<usize>,
        /// It was sealed with fewer, and `expected_hosts` was raised since then.
        sealed_with: Option<usize>,
        /// So many names of it are not known any more.
        lost: usize,
    },
    HostUnconfirmed {
        host: HostName,
    },
    HostSilent {
        host: HostName,
        since: Timestamp,
    },
    ProofFalse {
        host: HostName,
    },
    ProofMissing {
        host: HostName,
        why: WhyMissing,
    },
    AgentTooOld {
        host: HostName,
    },
    OtherVersion {
        host: HostName,
        version: VersionId,
        key: KeyId,
    },
    RemainingOld {
        host: HostName,
        entries: Vec<String>,
    },
    OldKeyElsewhere {
        host: HostName,
        key: KeyId,
    },
    /// Tables that could not be listed; none named: a list is shorter than its count.
    Incomplete {
        host: HostName,
        tables: Vec<String>,
    },
    Withdrawn {
        host: HostName,
    },
    NameTwice {
        host: HostName,
    },
    IdentityShared {
        host: HostName,
    },
    Clock {
        host: HostName,
    },
    OldKeyUsed {
        key: KeyId,
        at: Timestamp,
        service: String,
    },
    LastUsedUnknown {
        key: KeyId,
    },
    /// The time after the last confirmation is not over.
    Grace {
        until: Timestamp,
    },
    Observe {
        until: Timestamp,
    },
    CanaryNone {
        label: String,
    },
    CanaryFailed {
        host: HostName,
    },
    SesRefuses {
        key: KeyId,
    },
    RegionRefused {
        host: HostName,
        region: String,
    },
    TwoLiveKeys {
        keys: Vec<KeyId>,
    },
    UnexplainedKey {
        key: KeyId,
        used: KnownUse,
    },
    /// IAM does not list the published key, which we made just now.
    NotListed {
        key: KeyId,
        until: Timestamp,
    },
    /// AWS dates something later than it is by our clock.
    OurClock {
        behind: SignedDuration,
    },
    /// It was deactivated, and still logs in.
    NotDead {
        key: KeyId,
    },
    /// AWSCURRENT; of a parameter, its last value.
    LabelMoved {
        kind: StoreKind,
        current: Option<VersionId>,
    },
    /// Hosts read a place by a label that is on a version without the published key.
    LabelElsewhere {
        place: KeyPlace,
        label: String,
        version: VersionId,
        /// The published one of this place.
        current: VersionId,
    },
    PendingForeign {
        version: VersionId,
    },
    PendingEmpty {
        version: VersionId,
    },
    /// No version that can be read holds this key's login.
    VersionUnreadable {
        key: KeyId,
    },
    /// The published value names a key that this IAM user does not have, and that we never published; `None`: it is no login at all.
    ValueNotOurs {
        version: VersionId,
        key: Option<KeyId>,
    },
    /// A replica of the secret has not got what the secret has.
    ReplicaBehind {
        of: Part,
        region: String,
        failed: bool,
    },
    /// About a further place.
    NotEverywhere {
        place: KeyPlace,
        why: AtPlace,
    },
    /// A place of the rotation is not in the configuration any more.
    PlaceDropped {
        place: KeyPlace,
        /// What it was last seen to give.
        gives: Option<KeyId>,
    },
    /// The rotation began with this place as the first, and the configuration has another one first.
    PlaceOrder {
        first: KeyPlace,
    },
    KmsDenied {
        part: Part,
    },
    AccessDenied {
        part: Part,
    },
    Throttled,
    UserMissing,
    /// The published key is another user's than the configuration names.
    WrongUser {
        user: IamUser,
        is: IamUser,
    },
    SecretDeleting {
        part: Part,
    },
    /// The secret, or the table, is not there.
    NotFound {
        part: Part,
    },
    /// Nothing that makes sense came back in time.
    NoAnswer {
        part: Part,
    },
    Busy {
        holder: String,
        until: Timestamp,
    },
    RevokedKeyPublished {
        key: KeyId,
    },
    /// The action would leave a counted host without a live key.
    WouldCut {
        host: Option<HostName>,
        key: KeyId,
    },
}

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitsFor {
    /// It ends by itself: a clock, a holder, AWS.
    Time,
    /// Hosts, which come by themselves where nothing is wrong with them.
    Hosts,
    /// A person.
    Person,
}

impl Refusal {
    /// That a part of the world could not be looked at.
    pub fn of_a_gap(gap: &Gap) -> Self {
        let part = gap.part.clone();
        match gap.why {
            WhyUnseen::AccessDenied => Refusal::AccessDenied { part },
            WhyUnseen::KmsDenied => Refusal::KmsDenied { part },
            WhyUnseen::Throttled => Refusal::Throttled,
            WhyUnseen::UserMissing => Refusal::UserMissing,
            WhyUnseen::SecretDeleting => Refusal::SecretDeleting { part },
            WhyUnseen::NotFound => Refusal::NotFound { part },
            WhyUnseen::NoAnswer => Refusal::NoAnswer { part },
        }
    }

    /// The host it is about.
    pub fn host(&self) -> Option<&HostName> {
        use Refusal::*;
        match self {
            HostUnconfirmed { host }
            | HostSilent { host, .. }
            | ProofFalse { host }
            | ProofMissing { host, .. }
            | AgentTooOld { host }
            | OtherVersion { host, .. }
            | RemainingOld { host, .. }
            | OldKeyElsewhere { host, .. }
            | Incomplete { host, .. }
            | Withdrawn { host }
            | NameTwice { host }
            | IdentityShared { host }
            | Clock { host }
            | CanaryFailed { host }
            | RegionRefused { host, .. } => Some(host),
            WouldCut { host, .. } => host.as_ref(),
            _ => None,
        }
    }

    pub fn waits_for(&self) -> WaitsFor {
        use Refusal::*;
        match self {
            BroughtBack { .. }
            | Grace { .. }
            | Observe { .. }
            | Throttled
            | NoAnswer { .. }
            | Busy { .. }
            | NotListed { .. }
            | PendingEmpty { .. }
            | ReplicaBehind { failed: false, .. }
            | NotEverywhere { why: AtPlace::Behind | AtPlace::PendingEmpty, .. } => WaitsFor::Time,
            HostUnconfirmed { .. } | OtherVersion { .. } | Withdrawn { .. } | Clock { .. } => WaitsFor::Hosts,
            DeactivatedByHand { .. }
            | NoHosts
            | RosterOpen { .. }
            | HostSilent { .. }
            | ProofFalse { .. }
            | ProofMissing { .. }
            | AgentTooOld { .. }
            | RemainingOld { .. }
            | OldKeyElsewhere { .. }
            | Incomplete { .. }
            | NameTwice { .. }
            | IdentityShared { .. }
            | OldKeyUsed { .. }
            | LastUsedUnknown { .. }
            | CanaryNone { .. }
            | CanaryFailed { .. }
            | SesRefuses { .. }
            | RegionRefused { .. }
            | TwoLiveKeys { .. }
            | UnexplainedKey { .. }
            | OurClock { .. }
            | NotDead { .. }
            | LabelMoved { .. }
            | LabelElsewhere { .. }
            | PendingForeign { .. }
            | VersionUnreadable { .. }
            | ValueNotOurs { .. }
            | ReplicaBehind { failed: true, .. }
            | NotEverywhere { .. }
            | PlaceDropped { .. }
            | PlaceOrder { .. }
            | KmsDenied { .. }
            | AccessDenied { .. }
            | UserMissing
            | WrongUser { .. }
            | SecretDeleting { .. }
            | NotFound { .. }
            | RevokedKeyPublished { .. }
            | WouldCut { .. } => WaitsFor::Person,
        }
    }
}

#[cfg(test)]
impl Refusal {
    /// One of each, with made-up ids.
    pub fn one_of_each() -> Vec<Self> {
        Self::one_of_each_about(&HostName::new("mx1"))
    }

    /// The same, where they are about a host about this one.
    #[cfg(test)]
    pub fn one_of_each_about(host: &HostName) -> Vec<Self> {
        use Refusal::*;
        let now = || Timestamp::from_second(1_772_438_400).expect("a time");
        let (key, version) = (KeyId::new("AKIA1"), VersionId::new("v1"));
        let h = || host.clone();
        let k = || key.clone();
        let place = || KeyPlace {
            kind: StoreKind::SecretsManager,
            region: Some("us-east-1".into()),
            account: None,
            name: "SESSendSecret".into(),
        };
        let further = || Part::Further(place());
        let user = |name: &str| IamUser { name: name.into(), account: Some("123456789012".into()) };
        vec![
            DeactivatedByHand { key: k() },
            BroughtBack { key: k() },
            NoHosts,
            RosterOpen { heard: 0, counted: 0, expect: None, sealed_with: None, lost: 0 },
            RosterOpen { heard: 2, counted: 2, expect: None, sealed_with: None, lost: 0 },
            RosterOpen { heard: 2, counted: 2, expect: Some(3), sealed_with: None, lost: 0 },
            RosterOpen { heard: 2, counted: 2, expect: Some(3), sealed_with: Some(2), lost: 0 },
            RosterOpen { heard: 1, counted: 3, expect: Some(3), sealed_with: None, lost: 0 },
            RosterOpen { heard: 2, counted: 2, expect: None, sealed_with: None, lost: 3 },
            HostUnconfirmed { host: h() },
            HostSilent { host: h(), since: now() },
            ProofFalse { host: h() },
            ProofMissing { host: h(), why: WhyMissing::NoProof },
            AgentTooOld { host: h() },
            OtherVersion { host: h(), version: version.clone(), key: k() },
            RemainingOld { host: h(), entries: vec!["[a]:587".into()] },
            OldKeyElsewhere { host: h(), key: k() },
            Incomplete { host: h(), tables: vec!["mysql:a".into()] },
            Incomplete { host: h(), tables: Vec::new() },
            Withdrawn { host: h() },
            NameTwice { host: h() },
            IdentityShared { host: h() },
            Clock { host: h() },
            OldKeyUsed { key: k(), at: now(), service: "ses".into() },
            LastUsedUnknown { key: k() },
            Grace { until: now() },
            Observe { until: now() },
            CanaryNone { label: "canary".into() },
            CanaryFailed { host: h() },
            SesRefuses { key: k() },
            RegionRefused { host: h(), region: "us-east-1".into() },
            TwoLiveKeys { keys: vec![k(), KeyId::new("AKIA2")] },
            UnexplainedKey { key: k(), used: KnownUse::Nothing },
            UnexplainedKey { key: k(), used: KnownUse::Used { at: now(), service: "ses".into() } },
            UnexplainedKey { key: k(), used: KnownUse::NotKnown },
            UnexplainedKey { key: k(), used: KnownUse::Inactive },
            NotListed { key: k(), until: now() },
            OurClock { behind: SignedDuration::from_mins(8) },
            NotDead { key: k() },
            LabelMoved { kind: StoreKind::SecretsManager, current: Some(version.clone()) },
            LabelMoved { kind: StoreKind::SecretsManager, current: None },
            LabelMoved { kind: StoreKind::ParameterStore, current: Some(VersionId::new("7")) },
            LabelElsewhere {
                place: KeyPlace { kind: StoreKind::ParameterStore, name: "/ses/smtp".into(), ..place() },
                label: "prod".into(),
                version: VersionId::new("6"),
                current: VersionId::new("7"),
            },
            LabelElsewhere {
                place: place(),
                label: "prod".into(),
                version: version.clone(),
                current: VersionId::new("v2"),
            },
            PendingForeign { version: version.clone() },
            PendingEmpty { version: version.clone() },
            VersionUnreadable { key: k() },
            ValueNotOurs { version: version.clone(), key: Some(k()) },
            ValueNotOurs { version, key: None },
            ReplicaBehind { of: Part::Store, region: "us-west-2".into(), failed: false },
            ReplicaBehind { of: further(), region: "us-west-2".into(), failed: true },
            NotEverywhere { place: place(), why: AtPlace::Behind },
            NotEverywhere { place: place(), why: AtPlace::Moved },
            NotEverywhere { place: place(), why: AtPlace::PendingForeign },
            NotEverywhere { place: place(), why: AtPlace::PendingEmpty },
            NotEverywhere { place: place(), why: AtPlace::NeedsKey },
            NotEverywhere { place: place(), why: AtPlace::NotOurs },
            PlaceDropped { place: place(), gives: Some(k()) },
            PlaceDropped { place: place(), gives: None },
            PlaceOrder { first: place() },
            KmsDenied { part: Part::Store },
            AccessDenied { part: Part::Fleet },
            Throttled,
            NoAnswer { part: Part::Store },
            NotFound { part: Part::Store },
            UserMissing,
            WrongUser { user: user("ses-smtp"), is: user("ses-stmp") },
            SecretDeleting { part: Part::Store },
            SecretDeleting { part: further() },
            Busy { holder: "c".into(), until: now() },
            RevokedKeyPublished { key: k() },
            WouldCut { host: Some(h()), key: k() },
            WouldCut { host: None, key: k() },
        ]
    }
}
