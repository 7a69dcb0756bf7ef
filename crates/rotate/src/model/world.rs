//! One state of the model, packed small, and what a look sees of it.

use std::mem::take;

use jiff::{SignedDuration, Timestamp};

use crate::facts::{
    CURRENT, Facts, Further, Gap, Generation, Host, HostName, Key, KeyId, KeyPlace, KeyStatus, LastUsed, Lists, Login,
    LoginReply, PENDING, PREVIOUS, Part, Proved, Registered, Standing, Store, StoreKind, TookBack, Value, Version,
    VersionId, WhyTakenBack, WhyUnseen,
};
use crate::policy::{DeleteOld, Policy};
use crate::record::{
    Backoff, ControlRecord, Creating, Deactivated, HostTrouble, Intention, KnownPlace, Lease, Missing, OwnLogin,
    Promoting, ProvedDead, Published, Revoked, Roster, Soak, Wanted,
};

pub const KEYS: usize = 5;
pub const VERSIONS: usize = 10;
pub const HOSTS: usize = 3;
/// A version without value, and one whose key this user never had.
pub const EMPTY: i8 = -2;
pub const NOBODYS: i8 = -3;
pub const CANARY: &str = "canary";
pub const ENDPOINT: &str = "email-smtp.eu-west-1.amazonaws.com";

/// Labels: AWSCURRENT, AWSPENDING, AWSPREVIOUS, the canary's. -1: on none.
pub type Labels = [i8; 4];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Free,
    Active,
    Inactive,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Maker {
    First,
    Us,
    Person,
}

/// Who made a key not Active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hand {
    Nobody,
    Us,
    Person,
    /// A person's, while our own call about that key was under way: nobody can tell the two apart.
    Either,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyState {
    pub status: Status,
    pub maker: Maker,
    pub hand: Hand,
}

/// What a host last wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Report {
    None,
    Hello,
    Confirmed(i8),
    /// By somebody who does not hold the login.
    Forged(i8),
    /// With the key.
    Withdrawn(i8),
    Refused(i8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostState {
    /// The version in use; -1: not there yet.
    pub applied: i8,
    pub candidate: i8,
    pub report: Report,
    /// 0 well, 1 silent, 2 silent for long.
    pub silent: u8,
    pub others: i8,
    pub drifted: bool,
    /// Confirmed after it took something back, and not looked at since.
    pub anew: bool,
}

/// Keys being made: running, or over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Making {
    pub running: bool,
    pub key: i8,
    /// Keys that came to be in its time.
    pub made: u8,
}

/// The control record, with ages where it has times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rec {
    pub want: bool,
    /// The key, and whether it is over.
    pub backoff: Option<(i8, bool)>,
    pub creating: [Option<Making>; 2],
    /// Version (-1: not known yet) and key.
    pub promoting: Option<(i8, i8)>,
    pub published: Option<(i8, i8)>,
    pub old: i8,
    /// 0 not, 1 lately, 2 grace and lag are over.
    pub complete: u8,
    /// Key, settled, logged in.
    pub intention: Option<(i8, bool, bool)>,
    pub own: u8,
    pub deactivated: u8,
    /// Of these: days ago.
    pub long: u8,
    /// Of these: nobody knows yet that it came about.
    pub unanswered: u8,
    /// Keys that were brought back.
    pub switched_on: u8,
    /// Keys that are not there any more; and of these, for so long that it is known.
    pub missing: u8,
    pub gone: u8,
    pub dead: i8,
    pub expect: u8,
    pub sealed: bool,
    pub names: u8,
    pub trouble: [i8; HOSTS],
    /// The version at the canaries, and whether it is over.
    pub soak: Option<(i8, bool)>,
    pub revoked: u8,
    /// Of the second place: the published key that it was last seen to give; -1: none, -2: the place is not known.
    pub second: i8,
    /// 0 nobody, else the controller's number and one.
    pub holder: u8,
    pub lease: bool,
}

pub const LOST: Rec = Rec {
    want: false,
    backoff: None,
    creating: [None; 2],
    promoting: None,
    published: None,
    old: -1,
    complete: 0,
    intention: None,
    own: 0,
    deactivated: 0,
    long: 0,
    unanswered: 0,
    switched_on: 0,
    missing: 0,
    gone: 0,
    dead: -1,
    expect: 0,
    sealed: false,
    names: 0,
    trouble: [-1; HOSTS],
    soak: None,
    revoked: 0,
    second: -2,
    holder: 0,
    lease: false,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    Reactivate {
        key: i8,
        host: i8,
    },
    Republish {
        from: i8,
        key: i8,
    },
    Create,
    Put {
        key: i8,
        publishes: bool,
    },
    Forget {
        key: i8,
        refused: bool,
    },
    LastLogin {
        key: i8,
    },
    TakeOff {
        version: i8,
        refused: i8,
    },
    Label {
        version: i8,
    },
    Unlabel {
        version: i8,
    },
    Promote {
        from: i8,
        version: i8,
        key: i8,
    },
    RecordPublished {
        version: i8,
        key: i8,
    },
    Intend {
        key: i8,
    },
    Deactivate {
        key: i8,
        leftover: bool,
    },
    RecordDead {
        key: i8,
    },
    Delete {
        key: i8,
        leftover: bool,
    },
    /// To the second place.
    CopyTo {
        from: i8,
        key: i8,
    },
    /// In the second place, from one key to another.
    PromoteAt {
        from: i8,
        key: i8,
    },
}

/// A second place, by the keys in it: hosts that read it confirm with what the first one calls the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Second {
    pub gives: i8,
    /// AWSPENDING; -1: none.
    pub staged: i8,
    /// It cannot be read now.
    pub unseen: bool,
    /// The second controller's rotate.toml leaves it out.
    pub left_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Begin,
    Call,
    /// What the call gave: a key or a version, or -1; `true`: it failed.
    Done(i8, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Doing {
    pub act: Act,
    pub stage: Stage,
    /// Decided more than a minute ago.
    pub old: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Controller {
    pub doing: Option<Doing>,
    /// The new key whose secret it holds.
    pub memory: i8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub keys: [KeyState; KEYS],
    /// Which key each holds.
    pub versions: [i8; VERSIONS],
    pub count: u8,
    pub labels: Labels,
    /// What a stale read still gives.
    pub stale: Option<Labels>,
    /// AWSPENDING has stood for more than an hour.
    pub pending_long: bool,
    /// Keys that SES takes.
    pub ses: u8,
    /// Keys that a host has used.
    pub used: u8,
    pub rec: Rec,
    pub hosts: [HostState; HOSTS],
    /// The key of the user that nobody knows of.
    pub user: i8,
    /// The old key was used since the fleet is complete: 3 lately, 4 as IAM tells.
    pub last_use: u8,
    pub controllers: [Controller; 2],
    /// How often each misdeed may still happen.
    pub left: [u8; 24],
    pub canary_failed: i8,
    /// The old key's last login was refused, not a minute ago.
    pub login_refused: bool,
    pub second: Option<Second>,
    /// The key that a person switched on again, as long as no clock began anew since; -1: none.
    pub needed: i8,
}

pub const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const fn mins(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}
const DAYS: i64 = 24 * 60;

pub fn ago(minutes: i64) -> Timestamp {
    NOW - mins(minutes)
}

pub fn key_id(key: i8) -> KeyId {
    KeyId::new(["K0", "K1", "K2", "K3", "K4"][key as usize])
}

pub fn version_id(version: i8) -> VersionId {
    VersionId::new(["v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9"][version as usize])
}

pub fn host_name(host: usize) -> HostName {
    HostName::new(["h0", "h1", "h2"][host])
}

pub fn second_place() -> KeyPlace {
    KeyPlace::secret("b")
}

/// The second place's own ids are those of the keys.
pub fn second_id(key: i8) -> VersionId {
    VersionId::new(["s0", "s1", "s2", "s3", "s4"][key as usize])
}

impl Second {
    fn seen(self) -> Further {
        let version = |key: i8, label: &str| Version {
            id: second_id(key),
            created: ago(1),
            labels: vec![label.to_owned()],
            value: Value::Login(key_id(key)),
        };
        let staged = (self.staged >= 0 && self.staged != self.gives).then(|| version(self.staged, PENDING));
        let versions = std::iter::once(version(self.gives, CURRENT)).chain(staged).collect();
        Further { place: second_place(), store: Store { kind: StoreKind::SecretsManager, versions }, needs_key: false }
    }
}

pub fn number(id: &str) -> i8 {
    id[1..].parse().expect("an id of the model")
}

pub fn bit(mask: u8, at: i8) -> bool {
    at >= 0 && mask >> at & 1 == 1
}

pub fn me(controller: usize) -> String {
    format!("c{controller}")
}

impl World {
    pub fn status(&self, key: i8) -> Status {
        if key < 0 { Status::Free } else { self.keys[key as usize].status }
    }

    pub fn exists(&self, key: i8) -> bool {
        matches!(self.status(key), Status::Active | Status::Inactive)
    }

    pub fn live(&self, key: i8) -> bool {
        self.status(key) == Status::Active
    }

    pub fn hand(&self, key: i8) -> Hand {
        self.keys[key as usize].hand
    }

    /// The key in a version.
    pub fn key_of(&self, version: i8) -> i8 {
        if version < 0 { -1 } else { self.versions[version as usize].max(-1) }
    }

    pub fn number_of_keys(&self) -> usize {
        self.keys.iter().filter(|k| matches!(k.status, Status::Active | Status::Inactive)).count()
    }

    /// What controller `i` sees, with these labels.
    pub fn facts(&self, labels: &Labels, i: usize, parameter_store: bool) -> Facts {
        let keys = (0..KEYS as i8).filter(|k| self.exists(*k));
        let keys = keys.map(|k| Key {
            id: key_id(k),
            status: if self.live(k) { KeyStatus::Active } else { KeyStatus::Inactive },
            created: self.created(k),
            last_used: self.last_used(k),
        });
        let version = |v: usize| {
            let on = |label: usize| labels[label] == v as i8;
            let names = [(0, CURRENT), (1, PENDING), (2, PREVIOUS), (3, CANARY)];
            let names = names.into_iter().filter(|(at, _)| on(*at) && !(parameter_store && *at == 2));
            let pending_for = if self.pending_long { 90 } else { 1 };
            Version {
                id: version_id(v as i8),
                created: if on(1) { ago(pending_for) } else { ago(40 * DAYS) },
                labels: names.map(|(_, name)| name.to_owned()).collect(),
                value: match self.versions[v] {
                    EMPTY => Value::Empty,
                    NOBODYS => Value::Login(KeyId::new("K9")),
                    key => Value::Login(key_id(key)),
                },
            }
        };
        let refused = (self.login_refused && self.rec.old >= 0).then(|| Login {
            key: key_id(self.rec.old),
            endpoint: ENDPOINT.into(),
            reply: LoginReply::Refused,
            at: NOW,
        });
        let second = self.second.filter(|second| !(second.left_out && i == 1));
        let unseen = second.filter(|second| second.unseen);
        let part = || Part::Further(second_place());
        Facts {
            me: me(i),
            user: crate::facts::IamUser::default(),
            keys: keys.collect(),
            store: Store {
                kind: if parameter_store { StoreKind::ParameterStore } else { StoreKind::SecretsManager },
                versions: (0..usize::from(self.count)).map(version).collect(),
            },
            place: crate::facts::KeyPlace::secret("a"),
            further: second.filter(|second| !second.unseen).map(Second::seen).into_iter().collect(),
            behind: Vec::new(),
            outdated: Vec::new(),
            fleet: (0..HOSTS).filter_map(|j| self.host(j)).collect(),
            gone: Vec::new(),
            record: self.record(),
            logins: refused.into_iter().collect(),
            unstored: Some(self.controllers[i].memory).filter(|k| *k >= 0).map(key_id),
            gaps: unseen.map(|_| Gap { part: part(), why: WhyUnseen::NoAnswer }).into_iter().collect(),
        }
    }

    /// The version that the first place has of what the second one gives; -1: none.
    pub fn given_by_second(&self) -> i8 {
        let gives = self.second.map_or(-1, |second| second.gives);
        let versions = &self.versions[..usize::from(self.count)];
        versions.iter().rposition(|key| *key == gives && gives >= 0).map_or(-1, |version| version as i8)
    }

    fn created(&self, key: i8) -> Timestamp {
        let slot = self.rec.creating.iter().position(|making| making.is_some_and(|m| bit(m.made, key)));
        match slot.and_then(|slot| Some((slot, self.rec.creating[slot]?))) {
            Some((slot, making)) => making_at(slot, making.running, self.pending_long) + SignedDuration::from_secs(1),
            None => ago(100 * DAYS),
        }
    }

    fn last_used(&self, key: i8) -> LastUsed {
        let at = |at| LastUsed::At { at, service: "ses".into(), region: "eu-west-1".into() };
        let complete = self.rec.complete_at();
        match complete.filter(|_| key == self.rec.old && self.last_use == 4) {
            Some(complete) => at(complete + mins(60)),
            None if bit(self.rec.own, key) => at(NOW),
            None if bit(self.used, key) => at(ago(30 * DAYS)),
            None => LastUsed::Never,
        }
    }

    fn host(&self, j: usize) -> Option<Host> {
        let state = &self.hosts[j];
        let standing = |version: i8, proof: Proved| Standing {
            version: version_id(version),
            key: key_id(self.key_of(version)),
            at: if state.anew { NOW } else { ago(35 * DAYS) },
            proof,
        };
        let took = |why, key: i8| Some(TookBack { why, keys: vec![key_id(key)] });
        let (standing, took_back) = match state.report {
            Report::None => return None,
            Report::Hello => (None, None),
            Report::Confirmed(version) => (Some(standing(version, Proved::True)), None),
            Report::Forged(version) => (Some(standing(version, Proved::False)), None),
            Report::Withdrawn(key) => (None, took(WhyTakenBack::Withdrawn, key)),
            Report::Refused(key) => (None, took(WhyTakenBack::AppliedRefused, key)),
        };
        let watches = if j == 0 { vec![CANARY.to_owned()] } else { Vec::new() };
        Some(Host {
            registered: Registered::Evidence,
            generation: Generation::V2,
            watches,
            poll: Some(mins(5)),
            heard: Some(if state.silent == 2 { ago(9 * DAYS) } else { ago(30) }),
            standing,
            took_back,
            failed: (j == 0 && self.canary_failed >= 0).then(|| version_id(self.canary_failed)),
            lists: Lists {
                others: (state.others >= 0).then(|| key_id(state.others)).into_iter().collect(),
                ..Lists::default()
            },
            ..Host::never_heard(host_name(j))
        })
    }

    /// The control record as it would be read.
    pub fn record(&self) -> ControlRecord {
        let rec = &self.rec;
        let key = |k: i8| (k >= 0).then(|| key_id(k));
        let keys = |mask: u8| (0..KEYS as i8).filter(move |k| bit(mask, *k));
        let making = |(slot, making): (usize, &Option<Making>)| {
            let making = (*making)?;
            let at = making_at(slot, making.running, self.pending_long);
            let until = if making.running { NOW + mins(3) } else { at + mins(5) };
            Some(Creating { at, until, key: key(making.key), before: None })
        };
        let names = (0..HOSTS).filter(|j| bit(rec.names, *j as i8)).map(host_name).collect();
        let lease = (rec.holder > 0).then(|| Lease {
            holder: me(usize::from(rec.holder) - 1),
            until: if rec.lease { NOW + mins(3) } else { ago(1) },
            ..Lease::default()
        });
        let trouble = (0..HOSTS).filter(|j| rec.trouble[*j] >= 0);
        ControlRecord {
            fence: rec.holder.into(),
            lease,
            want: rec.want.then(|| Wanted { by: "p".into(), at: ago(60) }),
            backoff: rec.backoff.map(|(key, over)| Backoff {
                key: key_id(key),
                attempts: 1,
                until: if over { ago(1) } else { NOW + mins(10) },
            }),
            creating: rec.creating.iter().enumerate().filter_map(making).collect(),
            promoting: rec.promoting.map(|(version, key)| Promoting {
                version: (version >= 0).then(|| version_id(version)),
                key: key_id(key),
            }),
            published: rec.published.map(|(version, key)| Published {
                version: version_id(version),
                key: key_id(key),
                at: ago(25 * DAYS),
            }),
            old: key(rec.old),
            complete_at: rec.complete_at(),
            intention: rec.intention.map(|(key, settled, logged_in)| Intention {
                key: key_id(key),
                at: if settled { ago(2) } else { NOW },
                logged_in,
            }),
            soak: rec
                .soak
                .map(|(version, over)| Soak { version: version_id(version), at: if over { ago(15) } else { NOW } }),
            own_logins: keys(rec.own).map(|k| OwnLogin { key: key_id(k), at: vec![NOW] }).collect(),
            deactivated: keys(rec.deactivated)
                .map(|k| Deactivated {
                    key: key_id(k),
                    at: if bit(rec.long, k) { ago(5 * DAYS) } else { ago(1) },
                    unanswered: bit(rec.unanswered, k),
                })
                .collect(),
            switched_on: keys(rec.switched_on).map(key_id).collect(),
            missing: keys(rec.missing)
                .map(|k| Missing { key: key_id(k), since: if bit(rec.gone, k) { ago(60) } else { ago(1) } })
                .collect(),
            proved_dead: key(rec.dead).map(|key| ProvedDead { key, at: ago(1), endpoints: Vec::new() }),
            roster: Roster {
                expect: (rec.expect > 0).then_some(rec.expect.into()),
                by: None,
                sealed_at: rec.sealed.then(|| ago(50 * DAYS)),
                names,
                ..Roster::default()
            },
            trouble: trouble
                .map(|j| HostTrouble { host: host_name(j), key: key_id(rec.trouble[j]), at: ago(1) })
                .collect(),
            revoked: keys(rec.revoked)
                .map(|k| Revoked { key: key_id(k), at: ago(5), by: String::new(), reason: String::new() })
                .collect(),
            places: match rec.second {
                -2 => Vec::new(),
                gives => vec![
                    KnownPlace { place: KeyPlace::secret("a"), gives: None },
                    KnownPlace { place: second_place(), gives: key(gives) },
                ],
            },
            ..ControlRecord::new("ses")
        }
    }

    /// Keeps what was written into the record.
    pub fn keep(&mut self, record: &ControlRecord) {
        let before = take_creating(&mut self.rec);
        let mask = |ids: &mut dyn Iterator<Item = &KeyId>| ids.fold(0_u8, |mask, id| mask | 1 << number(id.as_str()));
        let key = |key: &Option<KeyId>| key.as_ref().map_or(-1, |key| number(key.as_str()));
        let mut creating = [None; 2];
        assert!(record.creating.len() <= 2, "{:?}", record.creating);
        for (slot, one) in record.creating.iter().enumerate() {
            let known = before.iter().enumerate().find_map(|(slot, making)| {
                making.filter(|making| making_at(slot, making.running, self.pending_long) == one.at)
            });
            creating[slot] = Some(Making {
                running: one.until > NOW,
                key: key(&one.key),
                made: known.map_or(0, |making| making.made),
            });
        }
        let complete = match record.complete_at {
            None => 0,
            Some(at) if at < ago(2 * DAYS) => 2,
            Some(_) => 1,
        };
        if record.complete_at != self.rec.complete_at() {
            self.last_use = 0;
            self.needed = -1;
        }
        let names = record.roster.names.iter().fold(0, |mask, name| mask | 1 << number(name.as_str()));
        let mut trouble = [-1; HOSTS];
        for one in &record.trouble {
            trouble[number(one.host.as_str()) as usize] = number(one.key.as_str());
        }
        let long = record.deactivated.iter().filter(|d| d.at < ago(DAYS));
        self.rec = Rec {
            want: record.want.is_some(),
            backoff: record.backoff.as_ref().map(|backoff| (number(backoff.key.as_str()), backoff.until <= NOW)),
            creating,
            promoting: record.promoting.as_ref().map(|promoting| {
                let version = promoting.version.as_ref().map_or(-1, |version| number(version.as_str()));
                (version, number(promoting.key.as_str()))
            }),
            published: record.published.as_ref().map(|p| (number(p.version.as_str()), number(p.key.as_str()))),
            old: key(&record.old),
            complete,
            intention: record
                .intention
                .as_ref()
                .map(|intention| (number(intention.key.as_str()), intention.at < NOW, intention.logged_in)),
            own: mask(&mut record.own_logins.iter().map(|own| &own.key)),
            deactivated: mask(&mut record.deactivated.iter().map(|d| &d.key)),
            long: mask(&mut long.map(|d| &d.key)),
            unanswered: mask(&mut record.deactivated.iter().filter(|d| d.unanswered).map(|d| &d.key)),
            switched_on: mask(&mut record.switched_on.iter()),
            missing: mask(&mut record.missing.iter().map(|m| &m.key)),
            gone: mask(&mut record.missing.iter().filter(|m| m.since < ago(30)).map(|m| &m.key)),
            dead: record.proved_dead.as_ref().map_or(-1, |dead| number(dead.key.as_str())),
            expect: record.roster.expect.unwrap_or(0) as u8,
            sealed: record.roster.sealed_at.is_some(),
            names,
            trouble,
            soak: record.soak.as_ref().map(|soak| (number(soak.version.as_str()), soak.at < NOW)),
            revoked: mask(&mut record.revoked.iter().map(|r| &r.key)),
            second: record
                .places
                .iter()
                .find(|known| known.place == second_place())
                .map_or(-2, |known| key(&known.gives)),
            holder: record.lease.as_ref().map_or(0, |lease| number(&lease.holder) as u8 + 1),
            lease: record.lease.as_ref().is_some_and(|lease| lease.until > NOW),
        };
    }
}

fn take_creating(rec: &mut Rec) -> [Option<Making>; 2] {
    take(&mut rec.creating)
}

/// Each begins at a time of its own, so that a key's age tells which one it belongs to.
fn making_at(slot: usize, running: bool, long: bool) -> Timestamp {
    let slot = slot as i64;
    if running && long {
        ago(90 + slot)
    } else if running {
        NOW - SignedDuration::from_secs(10 * slot)
    } else {
        ago(2 * DAYS + 60 * slot)
    }
}

impl Rec {
    pub fn complete_at(&self) -> Option<Timestamp> {
        match self.complete {
            0 => None,
            1 => Some(ago(3)),
            _ => Some(ago(20 * DAYS)),
        }
    }

    /// Is a key being made within its lease?
    pub fn making(&mut self) -> Option<&mut Making> {
        self.creating.iter_mut().flatten().find(|making| making.running)
    }
}

pub fn policy(canary: bool, never: bool) -> Policy {
    Policy {
        every: mins(10_000 * DAYS),
        canary: canary.then(|| CANARY.to_owned()),
        delete: if never { DeleteOld::Never } else { DeleteOld::AfterObserve },
        ..Policy::new(vec![ENDPOINT.to_owned()])
    }
}
