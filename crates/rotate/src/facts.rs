//! What one look at the world gave: IAM's keys, the store's versions, what the hosts said, what logins of our own gave, and
//! our own record. [`crate::plan::plan`] sees nothing else.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record::{ControlRecord, KnownPlace};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// An IAM access key id: public.
    KeyId
);
id!(
    /// One version of the secret, as the store names it.
    VersionId
);
id!(
    /// A host's name.
    HostName
);

/// A place where the key is published, by the facts that tell it from any other: the same for everybody, however it is spelt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyPlace {
    pub kind: StoreKind,
    /// `None`: the configuration does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// As far as the configuration tells: of the ARN, of the role that is assumed there, or the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Without what an ARN has around it.
    pub name: String,
}

#[cfg(test)]
impl KeyPlace {
    /// Of tests.
    pub fn secret(name: &str) -> Self {
        Self { kind: StoreKind::SecretsManager, region: None, account: None, name: name.into() }
    }
}

impl KeyPlace {
    /// In one word, as commands take it: `secret:us-east-1::b`.
    pub fn word(&self) -> String {
        let given = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}:{}:{}:{}", self.kind.word(), given(&self.region), given(&self.account), self.name)
    }
}

impl StoreKind {
    fn word(self) -> &'static str {
        match self {
            StoreKind::SecretsManager => "secret",
            StoreKind::ParameterStore => "parameter",
        }
    }
}

/// As people name it: `secret "b" in us-east-1`.
impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind.word(), self.name)?;
        self.region.as_ref().map_or(Ok(()), |region| write!(f, " in {region}"))?;
        self.account.as_ref().map_or(Ok(()), |account| write!(f, " of {account}"))
    }
}

/// Whose keys they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct IamUser {
    pub name: String,
    /// As STS names it; `None`: it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl IamUser {
    /// As far as both are known; IAM tells no names apart by their case.
    pub fn is_another(&self, other: &IamUser) -> bool {
        let accounts = self.account.as_ref().zip(other.account.as_ref());
        !self.name.eq_ignore_ascii_case(&other.name) || accounts.is_some_and(|(one, another)| one != another)
    }
}

/// `"ses-smtp" of account 123456789012`.
impl fmt::Display for IamUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        self.account.as_ref().map_or(Ok(()), |account| write!(f, " of account {account}"))
    }
}

/// All that is known at one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Who looks: the holder of the lease, if it is to act.
    pub me: String,
    /// Whose keys were looked at: as the configuration has it.
    pub user: IamUser,
    /// Of the IAM user, in no order.
    pub keys: Vec<Key>,
    /// Where the key is published first.
    pub place: KeyPlace,
    /// What is there.
    pub store: Store,
    /// Where it is published too, as far as that was seen: a place that was not is a gap.
    pub further: Vec<Further>,
    /// Replicas of any of these secrets that do not have what the secret has.
    pub behind: Vec<Replica>,
    /// Every host that is counted: one that left or was removed is not among them.
    pub fleet: Vec<Host>,
    /// Hosts that said `left`, or that a person removed, since the roster was sealed.
    pub gone: Vec<HostName>,
    pub record: ControlRecord,
    pub logins: Vec<Login>,
    /// Places whose AWSPENDING was composed from another text than the one that is AWSCURRENT there now: published, it would take
    /// back what somebody wrote meanwhile.
    pub outdated: Vec<Part>,
    /// The new key whose secret this process holds, and that no version has yet.
    pub unstored: Option<KeyId>,
    /// What could not be looked at.
    pub gaps: Vec<Gap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyStatus {
    Active,
    Inactive,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LastUsed {
    Never,
    At { at: Timestamp, service: String, region: String },
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub id: KeyId,
    pub status: KeyStatus,
    pub created: Timestamp,
    pub last_used: LastUsed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// Labels, and compare-and-swap on them.
    SecretsManager,
    /// One value after the other: what is put is published.
    ParameterStore,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub kind: StoreKind,
    /// The oldest first.
    pub versions: Vec<Version>,
}

/// A secret's replica in another region, which is not in sync.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica {
    /// Of the first place, or of a further one.
    pub of: Part,
    pub region: String,
    /// Secrets Manager gave it up; else it is at it.
    pub failed: bool,
}

/// Another place with the same key: it follows the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Further {
    pub place: KeyPlace,
    pub store: Store,
    /// What is put there is to hold a secret access key, and the first place will have an SMTP password alone.
    pub needs_key: bool,
}

impl Further {
    /// The key that hosts find there.
    pub fn key(&self) -> Option<&KeyId> {
        self.store.labelled(CURRENT)?.key()
    }

    /// There is nothing there that could be written over.
    pub fn gives_nothing(&self) -> bool {
        self.store.labelled(CURRENT).is_none_or(|current| current.value == Value::Empty)
    }
}

/// The labels that mean something to the store itself.
pub const CURRENT: &str = "AWSCURRENT";
pub const PENDING: &str = "AWSPENDING";
pub const PREVIOUS: &str = "AWSPREVIOUS";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub id: VersionId,
    pub created: Timestamp,
    pub labels: Vec<String>,
    pub value: Value,
}

/// What a version holds, read by the version's id: a read by label may be stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A login, with this user name.
    Login(KeyId),
    Empty,
    /// It could not be read, or is of no form that we know.
    Unreadable,
}

impl Version {
    /// The key inside, where it could be read.
    pub fn key(&self) -> Option<&KeyId> {
        match &self.value {
            Value::Login(key) => Some(key),
            Value::Empty | Value::Unreadable => None,
        }
    }

    pub fn carries(&self, label: &str) -> bool {
        self.labels.iter().any(|l| l == label)
    }
}

impl Store {
    pub fn labelled(&self, label: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.carries(label))
    }

    pub fn version(&self, id: &VersionId) -> Option<&Version> {
        self.versions.iter().find(|v| v.id == *id)
    }

    /// The newest version that holds this key's login.
    pub fn with_key(&self, key: &KeyId) -> Option<&Version> {
        self.versions.iter().rev().find(|v| v.key() == Some(key))
    }
}

/// What an endpoint said to a login of the controller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginReply {
    /// 235.
    Accepted,
    /// 535.
    Refused,
    /// Neither: 4xx, TLS, no connection.
    NoAnswer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub key: KeyId,
    pub endpoint: String,
    pub reply: LoginReply,
    pub at: Timestamp,
}

/// How a host came to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Registered {
    /// It reported.
    Evidence,
    /// A person named it, or it stood on the roster when that was sealed.
    Listed,
    Invited,
}

/// Which report document a host's agent writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// Without `others`, and its lists are not covered by the proof.
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: HostName,
    pub registered: Registered,
    pub waiver: Option<Waiver>,
    pub generation: Generation,
    /// Labels of versions that it takes.
    pub watches: Vec<String>,
    /// How often it asks the store; `None`: it does not say.
    pub poll: Option<SignedDuration>,
    /// When it was last heard of, by the clock of the place it wrote to; `None`: never.
    pub heard: Option<Timestamp>,
    /// When its next sign of life is due; `None`: it does not say.
    pub alive_due: Option<Timestamp>,
    /// Its clock is more than five minutes ahead of ours: what it dates is not believed.
    pub clock_ahead: bool,
    /// The confirmation that stands.
    pub standing: Option<Standing>,
    /// It took its confirmation back, and has not confirmed since.
    pub took_back: Option<TookBack>,
    /// The version that it could not take.
    pub failed: Option<VersionId>,
    /// What stands in its way, in its agent's own words: shown, and never gone by.
    pub says: Option<String>,
    /// The regions of the logins that it confirmed.
    pub regions: Vec<String>,
    /// One of them for which no login is configured here.
    pub region_refused: Option<String>,
    /// What its confirmation lists.
    pub lists: Lists,
    /// Another principal wrote under this name, and nobody accepted that.
    pub name_twice: bool,
    /// It writes under a principal that others write under too, and nobody accepted that.
    pub identity_shared: bool,
}

/// A confirmation, as far as it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub version: VersionId,
    pub key: KeyId,
    /// By the host's clock.
    pub at: Timestamp,
    pub proof: Proved,
}

/// What became of the proofs of all targets of one confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proved {
    /// Every target's.
    True,
    /// By the code that a person typed: weaker, and shown as such.
    ByCode,
    False,
    Missing(WhyMissing),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyMissing {
    /// It has not confirmed anything.
    NoConfirmation,
    /// A target came without proof, or there is no target.
    NoProof,
    /// The proof is of a kind that we cannot check.
    UnknownKind,
    /// The password that it is to be checked with cannot be read, or cannot be derived for its region.
    NoPassword,
    /// Its clock is ahead.
    Clock,
}

/// What a host says when what it confirmed holds no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TookBack {
    pub why: WhyTakenBack,
    /// The keys it names as those it logs in with.
    pub keys: Vec<KeyId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyTakenBack {
    /// Somebody put something else there.
    Withdrawn,
    /// SES refuses the login in use.
    AppliedRefused,
}

/// The lists of a confirmation. Each is whole, or says how many it left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lists {
    /// Entries under a key of ours that still hold an earlier login.
    pub remaining_old: Vec<String>,
    /// Every other access key id that its login tables hold.
    pub others: Vec<KeyId>,
    /// The keys that its mail servers were found to log in with since it confirmed: proved by nothing, and a warning all the same.
    pub in_use: Vec<KeyId>,
    /// Login tables that could not be listed.
    pub incomplete: Vec<String>,
    /// A list is shorter than the count that precedes it: it hides what is asked.
    pub shortened: bool,
}

/// A person's word that a host need not be heard of, and need not prove: never that it may keep the old key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    pub reason: String,
    /// Who, as STS names them.
    pub by: String,
    pub until: Timestamp,
}

/// A part of the world that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gap {
    pub part: Part,
    pub why: WhyUnseen,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    Keys,
    /// The first place.
    Store,
    Further(KeyPlace),
    Fleet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyUnseen {
    AccessDenied,
    KmsDenied,
    Throttled,
    /// The IAM user is not there.
    UserMissing,
    /// The secret is scheduled for deletion.
    SecretDeleting,
    /// The secret, or the table, is not there.
    NotFound,
    /// It did not answer in time, or with nothing that makes sense.
    NoAnswer,
}

impl Host {
    /// The keys that it needs back if they are dead: those it took its confirmation back for; and, where none stands, whatever it
    /// logs in with.
    pub fn needs_back(&self) -> impl Iterator<Item = &KeyId> {
        let in_use = self.lists.in_use.iter().filter(|_| self.standing.is_none());
        self.took_back.iter().flat_map(|took| &took.keys).chain(in_use)
    }
}

impl Facts {
    pub fn key(&self, id: &KeyId) -> Option<&Key> {
        self.keys.iter().find(|k| k.id == *id)
    }

    pub fn status(&self, id: &KeyId) -> Option<KeyStatus> {
        self.key(id).map(|k| k.status)
    }

    /// The user that this rotation is about, where other keys were looked at.
    pub fn user_before(&self) -> Option<&IamUser> {
        self.record.user.as_ref().filter(|user| user.is_another(&self.user))
    }

    /// Further places that could not be looked at.
    pub fn unseen_places(&self) -> impl Iterator<Item = &KeyPlace> {
        self.gaps.iter().filter_map(|gap| match &gap.part {
            Part::Further(place) => Some(place),
            Part::Keys | Part::Store | Part::Fleet => None,
        })
    }

    /// Every place that the configuration names.
    pub fn configured(&self) -> impl Iterator<Item = &KeyPlace> {
        let further = self.further.iter().map(|further| &further.place);
        std::iter::once(&self.place).chain(further).chain(self.unseen_places())
    }

    /// Places of the rotation that the configuration does not name any more: what they give now, nobody sees.
    pub fn dropped(&self) -> impl Iterator<Item = &KnownPlace> {
        self.record.places.iter().filter(|known| self.configured().all(|place| *place != known.place))
    }

    /// Nothing is under way that began with one place as the first.
    pub fn is_between_rotations(&self) -> bool {
        let record = &self.record;
        let pending = self.store.labelled(PENDING).is_some_and(|pending| !pending.carries(CURRENT));
        record.old.is_none() && record.creating.is_empty() && record.promoting.is_none() && !pending
    }

    /// The place that this rotation began with as the first, where the configuration has another one first now.
    pub fn first_before(&self) -> Option<&KeyPlace> {
        let first = self.record.places.first().map(|known| &known.place);
        first.filter(|first| **first != self.place && !self.is_between_rotations())
    }

    /// Were all places of the rotation looked at, and in their order?
    pub fn sees_all_places(&self) -> bool {
        self.unseen_places().next().is_none() && self.dropped().next().is_none() && self.first_before().is_none()
    }

    /// The places that were not looked at, and were last seen to give this key.
    pub fn may_be_given(&self, key: &KeyId) -> bool {
        let unseen = |known: &&KnownPlace| self.unseen_places().any(|place| *place == known.place);
        let known = self.record.places.iter().filter(unseen).chain(self.dropped());
        let mut gives = known.filter_map(|known| known.gives.as_ref());
        gives.any(|given| given == key)
    }
}
