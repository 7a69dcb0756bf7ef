//! The set-ups: what may happen in each, and how often.

use super::world::{
    Controller, HOSTS, Hand, HostState, KEYS, KeyState, LOST, Maker, Making, Rec, Report, Second, Status, VERSIONS,
    World,
};

/// Misdeeds and mishaps that happen at most so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// A rotation is asked for.
    Want,
    Crash,
    Silent,
    Join,
    Drift,
    /// A confirmation without proof.
    ForgeConfirmed,
    ForgeRefused,
    /// A host's tables hold the old key elsewhere.
    Others,
    PersonDeactivates,
    /// A person switches a key on again that we deactivated.
    PersonActivates,
    PersonDeletes,
    PersonMovesLabel,
    PersonCreates,
    PersonCreatesInactive,
    /// A person stages a version: see [`Options::staged`].
    Stage,
    CanaryFails,
    LoseRecord,
    /// A person edits the secret: another version with the same key.
    Edit,
    /// SES does not answer.
    Outage,
    Reseal,
    /// The second place cannot be read for a while.
    PlaceUnseen,
    /// A person makes the second place give another key.
    PersonMovesSecond,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staged {
    Empty,
    KeyOfNobody,
    SameKey,
    OldKey,
    KeyOfAPerson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondPlace {
    /// Every rotate.toml names it; the second host reads it.
    Named,
    /// The second controller's leaves it out.
    LeftOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    First,
    /// A whole rotation lies behind.
    Second,
    /// The old key is deactivated and dead.
    Observing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Fleet,
    Controllers,
    Persons,
    Publishing,
    Record,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub hosts: usize,
    pub controllers: usize,
    /// Label reads may be stale.
    pub stale: bool,
    /// Time goes on in steps of one minute too: a decision's age and the lease are apart.
    pub minutes: bool,
    pub unreported: bool,
    pub ses_never: bool,
    pub canary: bool,
    pub never_deletes: bool,
    pub parameter_store: bool,
    /// The key is published in a second place too.
    pub second: Option<SecondPlace>,
    /// Hosts that have the old key use it.
    pub busy: bool,
    /// Something that does not report uses the key.
    pub unknown_user: bool,
    /// A person may move it.
    pub user_is_moved: bool,
    pub staged: Option<Staged>,
    pub start: Start,
    pub may: Vec<(May, u8)>,
}

impl Options {
    pub fn of(hosts: usize, may: &[(May, u8)]) -> Self {
        let mut all = vec![(May::Want, 1)];
        all.retain(|(want, _)| may.iter().all(|(other, _)| other != want));
        all.extend(may);
        Self {
            hosts,
            controllers: 1,
            stale: false,
            minutes: false,
            unreported: false,
            ses_never: false,
            canary: false,
            never_deletes: false,
            parameter_store: false,
            second: None,
            busy: false,
            unknown_user: false,
            user_is_moved: false,
            staged: None,
            start: Start::First,
            may: all,
        }
    }

    pub fn has(&self, may: May) -> bool {
        self.may.iter().any(|(one, often)| *one == may && *often > 0)
    }

    /// Which walk it belongs to.
    pub fn group(&self) -> Group {
        use May::*;
        let has = |all: &[May]| all.iter().any(|may| self.has(*may));
        let by_hand = [
            PersonDeactivates,
            PersonActivates,
            PersonDeletes,
            PersonMovesLabel,
            PersonMovesSecond,
            PersonCreates,
            PersonCreatesInactive,
        ];
        match () {
            () if has(&by_hand) || has(&[Stage, Edit]) => Group::Persons,
            () if has(&[LoseRecord]) => Group::Record,
            () if self.ses_never || self.canary || self.parameter_store || self.second.is_some() || has(&[Outage]) => {
                Group::Publishing
            }
            () if self.controllers > 1 || has(&[Crash]) => Group::Controllers,
            () => Group::Fleet,
        }
    }

    /// It may come to a point where a person is needed. Nowhere else may it.
    pub fn may_need_a_person(&self) -> bool {
        let of_hosts =
            self.hosts == 0 || self.unknown_user || self.busy || self.has(May::CanaryFails) || self.ses_never;
        of_hosts || matches!(self.group(), Group::Persons | Group::Record)
    }

    pub fn start(&self) -> World {
        let key = |status, maker| KeyState { status, maker, hand: Hand::Nobody };
        let free = key(Status::Free, Maker::Us);
        let report = if self.unreported { Report::None } else { Report::Confirmed(0) };
        let host = HostState { applied: 0, candidate: -1, report, silent: 0, others: -1, drifted: false, anew: false };
        let nobody = HostState { applied: -1, report: Report::None, ..host };
        let mut hosts = [nobody; HOSTS];
        hosts[..self.hosts].fill(host);
        let mut left = [0; 24];
        for (may, often) in &self.may {
            left[*may as usize] = *often;
        }
        let mut keys = [free; KEYS];
        keys[0] = key(Status::Active, Maker::First);
        let mut world = World {
            keys,
            versions: [0; VERSIONS],
            count: 1,
            labels: [0, -1, -1, -1],
            stale: None,
            pending_long: false,
            ses: 1,
            used: 1,
            rec: Rec {
                published: Some((0, 0)),
                expect: self.hosts as u8,
                // A place that nobody ever told the record of is nobody's to know.
                second: if self.second.is_some() { 0 } else { -2 },
                ..LOST
            },
            hosts,
            user: if self.unknown_user { 0 } else { -1 },
            last_use: 0,
            controllers: [Controller { doing: None, memory: -1 }; 2],
            left,
            needed: -1,
            canary_failed: -1,
            login_refused: false,
            second: self.second.map(|second| Second {
                gives: i8::from(self.start != Start::First),
                staged: -1,
                unseen: false,
                left_out: second == SecondPlace::LeftOut,
            }),
        };
        if self.start != Start::First {
            let first = if self.start == Start::Second { Status::Gone } else { Status::Inactive };
            world.keys[0] = KeyState { hand: Hand::Us, ..key(first, Maker::First) };
            world.keys[1] = key(Status::Active, Maker::Us);
            (world.versions[1], world.count, world.labels) = (1, 2, [1, -1, 0, -1]);
            (world.used, world.ses, world.rec.published) = (3, 2, Some((1, 1)));
            for host in &mut world.hosts[..self.hosts] {
                (host.applied, host.report) = (1, Report::Confirmed(1));
            }
        }
        if self.start == Start::Observing {
            let (old, dead) = (0, 0);
            world.rec = Rec { old, dead, complete: 2, own: 1, deactivated: 1, ..world.rec };
        }
        world
    }
}

/// A key is being made that nobody knows the outcome of.
pub fn unknown_outcome(making: &Making) -> bool {
    making.running && making.key < 0
}

/// Name, whether it belongs to the short walk, and what may happen.
pub fn setups() -> Vec<(&'static str, bool, Options)> {
    use May::*;
    let of = Options::of;
    let two = |options: Options| Options { controllers: 2, minutes: true, ..options };
    vec![
        ("no host", true, of(0, &[(Crash, 1)])),
        ("plain", true, of(2, &[])),
        ("killed", true, of(2, &[(Crash, 1)])),
        ("killed, stale labels", false, Options { stale: true, ..of(2, &[(Crash, 1)]) }),
        ("two controllers", true, two(of(1, &[]))),
        ("two controllers, stale labels", false, Options { stale: true, ..two(of(1, &[])) }),
        ("two controllers, killed", false, two(of(1, &[(Crash, 1)]))),
        ("two controllers, killed twice", false, two(of(1, &[(Crash, 2)]))),
        ("two controllers, drift", false, two(of(1, &[(Drift, 1), (Crash, 1)]))),
        ("second rotation", false, Options { start: Start::Second, ..of(2, &[(Crash, 1)]) }),
        ("two rotations, killed", false, of(1, &[(Want, 2), (Crash, 1)])),
        ("silent", true, of(2, &[(Silent, 1)])),
        ("never reported", true, Options { unreported: true, ..of(2, &[]) }),
        ("joins", true, of(1, &[(Join, 1)])),
        ("joins, stale labels", false, Options { stale: true, ..of(1, &[(Join, 1)]) }),
        ("drift", true, of(2, &[(Drift, 1)])),
        ("drift, busy", false, Options { busy: true, ..of(1, &[(Drift, 1)]) }),
        ("drift, killed", false, of(1, &[(Drift, 1), (Crash, 1)])),
        ("drift twice", false, of(1, &[(Drift, 2)])),
        ("forged confirmation", true, of(2, &[(ForgeConfirmed, 1), (Silent, 1)])),
        ("forged refusal", true, of(2, &[(ForgeRefused, 1)])),
        ("forged refusal, busy", false, Options { busy: true, ..of(2, &[(ForgeRefused, 1)]) }),
        ("unknown user", true, Options { unknown_user: true, ..of(2, &[]) }),
        (
            "unknown user, moved, sealed again",
            true,
            Options { unknown_user: true, user_is_moved: true, ..of(1, &[(Reseal, 1)]) },
        ),
        ("others", true, of(1, &[(Others, 1)])),
        ("person deactivates", true, of(2, &[(PersonDeactivates, 1)])),
        ("person deactivates, killed", false, of(1, &[(PersonDeactivates, 1), (Crash, 1)])),
        ("person deactivates, drift", false, of(1, &[(PersonDeactivates, 1), (Drift, 1)])),
        ("person deactivates, forged refusal", true, of(1, &[(PersonDeactivates, 1), (ForgeRefused, 1)])),
        (
            "person activates, observing",
            true,
            Options { start: Start::Observing, ..of(1, &[(Want, 0), (PersonActivates, 1)]) },
        ),
        ("person activates", false, of(1, &[(PersonActivates, 1)])),
        ("person activates a leftover", true, of(1, &[(PersonActivates, 1), (Crash, 1)])),
        ("person deletes", true, of(1, &[(PersonDeletes, 1)])),
        ("person deletes, two hosts", false, of(2, &[(PersonDeletes, 1)])),
        ("person deletes, killed", false, of(1, &[(PersonDeletes, 1), (Crash, 1)])),
        ("person moves a label", true, of(2, &[(PersonMovesLabel, 1)])),
        (
            "person moves a label, killed, stale labels",
            false,
            Options { stale: true, ..of(1, &[(PersonMovesLabel, 1), (Crash, 1)]) },
        ),
        ("person moves a label and deactivates", false, of(1, &[(PersonMovesLabel, 1), (PersonDeactivates, 1)])),
        ("person creates a key", true, of(2, &[(PersonCreates, 1)])),
        ("person creates a key, killed", true, of(1, &[(PersonCreates, 1), (Crash, 1)])),
        ("person creates an inactive key", false, of(2, &[(PersonCreatesInactive, 1)])),
        ("SES never", true, Options { ses_never: true, ..of(1, &[]) }),
        ("SES never, killed", false, Options { ses_never: true, ..of(1, &[(Crash, 1)]) }),
        ("SES is out", true, of(1, &[(Outage, 1)])),
        ("staged: empty", true, Options { staged: Some(Staged::Empty), ..of(1, &[(Stage, 1), (Crash, 1)]) }),
        ("staged: nobody's", true, Options { staged: Some(Staged::KeyOfNobody), ..of(1, &[(Stage, 1), (Crash, 1)]) }),
        ("staged: the same key", true, Options { staged: Some(Staged::SameKey), ..of(1, &[(Stage, 1)]) }),
        ("staged: the old key", true, Options { staged: Some(Staged::OldKey), ..of(1, &[(Stage, 1)]) }),
        (
            "staged: the old key, SES is out",
            false,
            Options { staged: Some(Staged::OldKey), ..of(1, &[(Stage, 1), (Outage, 1)]) },
        ),
        ("staged: a person's key", true, Options { staged: Some(Staged::KeyOfAPerson), ..of(1, &[(Stage, 1)]) }),
        ("secret edited", true, of(1, &[(Edit, 1)])),
        ("secret edited, record lost", false, of(1, &[(Edit, 1), (LoseRecord, 1)])),
        ("canary", true, Options { canary: true, ..of(2, &[]) }),
        ("canary fails", true, Options { canary: true, ..of(2, &[(CanaryFails, 1)]) }),
        ("canary, person deactivates", false, Options { canary: true, ..of(2, &[(PersonDeactivates, 1)]) }),
        ("record lost", true, of(2, &[(LoseRecord, 1)])),
        ("record lost when idle", true, Options { start: Start::Second, ..of(1, &[(LoseRecord, 1)]) }),
        ("record lost, killed", false, of(1, &[(LoseRecord, 1), (Crash, 1)])),
        ("record lost, person deactivates", false, of(1, &[(LoseRecord, 1), (PersonDeactivates, 1)])),
        ("record lost, drift", false, of(1, &[(LoseRecord, 1), (Drift, 1)])),
        ("observing, drift", true, Options { start: Start::Observing, ..of(2, &[(Want, 0), (Drift, 1)]) }),
        ("parameter store", true, Options { parameter_store: true, ..of(2, &[]) }),
        ("parameter store, killed", true, Options { parameter_store: true, ..of(1, &[(Crash, 1)]) }),
        ("parameter store, SES never", false, Options { parameter_store: true, ses_never: true, ..of(1, &[]) }),
        ("parameter store, drift", false, Options { parameter_store: true, ..of(1, &[(Drift, 1)]) }),
        ("parameter store, record lost", false, Options { parameter_store: true, ..of(1, &[(LoseRecord, 1)]) }),
        ("parameter store, person deletes", false, Options { parameter_store: true, ..of(1, &[(PersonDeletes, 1)]) }),
        ("drift and silence", false, of(2, &[(Drift, 1), (Silent, 1)])),
        ("forged refusal and a label moved", false, of(1, &[(ForgeRefused, 1), (PersonMovesLabel, 1)])),
        ("record lost and a key deleted", false, of(1, &[(LoseRecord, 1), (PersonDeletes, 1)])),
        ("record lost and a label moved", false, of(1, &[(LoseRecord, 1), (PersonMovesLabel, 1)])),
        ("joins and drifts", false, of(1, &[(Join, 1), (Drift, 1)])),
        ("two places", true, Options { second: Some(SecondPlace::Named), ..of(2, &[]) }),
        ("two places, killed", true, Options { second: Some(SecondPlace::Named), ..of(2, &[(Crash, 1)]) }),
        (
            "two places, one is not seen",
            true,
            Options { second: Some(SecondPlace::Named), ..of(2, &[(PlaceUnseen, 1)]) },
        ),
        (
            "two places, one is not seen, a person deletes",
            true,
            Options { second: Some(SecondPlace::Named), ..of(1, &[(PlaceUnseen, 1), (PersonDeletes, 1)]) },
        ),
        ("two places, record lost", true, Options { second: Some(SecondPlace::Named), ..of(2, &[(LoseRecord, 1)]) }),
        (
            "two places, a person moves the second",
            true,
            Options { second: Some(SecondPlace::Named), ..of(2, &[(PersonMovesSecond, 1)]) },
        ),
        (
            "two controllers, one leaves a place out",
            true,
            Options { second: Some(SecondPlace::LeftOut), controllers: 2, ..of(1, &[]) },
        ),
        (
            "two controllers, one leaves a place out, killed",
            false,
            two(Options { second: Some(SecondPlace::LeftOut), ..of(1, &[(Crash, 1)]) }),
        ),
        ("never deletes, two rotations", true, Options { never_deletes: true, ..of(1, &[(Want, 2)]) }),
    ]
}
