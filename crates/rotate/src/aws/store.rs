//! Where the key is published: what is there, and each thing that is done to it.

use std::collections::BTreeMap;

use relaykey_core::credential::{Payload, Secret};
use sha2::{Digest as _, Sha256};

use super::parameters::ParameterAt;
use super::secret::SecretAt;
use super::{CallFailed, payload};
use crate::facts::{CURRENT, KeyId, KeyPlace, Replica, Store, Value, VersionId};

/// One look at it. Values stay in memory, for as long as a look does.
pub struct Seen {
    pub store: Store,
    pub arn: String,
    pub values: BTreeMap<VersionId, Secret>,
    /// Replicas that are not in sync.
    pub behind: Vec<Replica>,
    /// The further places that could be looked at.
    pub further: Vec<(KeyPlace, Seen)>,
}

impl Seen {
    /// A version's login.
    pub fn payload(&self, version: &VersionId) -> Option<Payload> {
        payload::parse(self.values.get(version)?)
    }

    /// What hosts find there.
    pub fn current(&self) -> Option<&Secret> {
        self.values.get(&self.store.labelled(CURRENT)?.id)
    }

    /// The logins that any place gives under this id, with this user name. Ids of parameters are numbers, and the same everywhere:
    /// behind one of them each place may have a password of its own.
    pub fn logins_of(&self, version: &VersionId, key: &KeyId) -> impl Iterator<Item = Payload> {
        let places = std::iter::once(self).chain(self.further.iter().map(|(_, seen)| seen));
        places.filter_map(|seen| seen.payload(version).filter(|payload| payload.username() == key.as_str()))
    }

    /// What a text is, as a value of the store.
    pub fn value_of(text: Option<&Secret>) -> Value {
        let Some(text) = text.filter(|text| !text.expose().trim().is_empty()) else {
            return Value::Empty;
        };
        payload::parse(text).map_or(Value::Unreadable, |payload| Value::Login(KeyId::new(payload.username())))
    }
}

pub enum StoreAt {
    Secret(SecretAt),
    Parameter(ParameterAt),
}

impl StoreAt {
    /// `wanted`: a key whose value is looked for among versions without a label too.
    pub async fn look(&self, wanted: Option<&KeyId>) -> Result<Seen, CallFailed> {
        match self {
            Self::Secret(secret) => secret.look(wanted).await,
            Self::Parameter(parameter) => parameter.look().await,
        }
    }

    /// The id that a version put for this key will have, where the store lets us choose it.
    pub fn token(&self, seen: &Seen, key: &KeyId) -> Option<VersionId> {
        match self {
            Self::Secret(_) => Some(VersionId::new(token(&[&seen.arn, key.as_str()]))),
            Self::Parameter(_) => None,
        }
    }

    /// As [`Self::token`], for a value that is put again: the store ignores an id it knows.
    pub fn fresh_token(&self, seen: &Seen, key: &KeyId, fence: u64, now: jiff::Timestamp) -> Option<VersionId> {
        let (fence, now) = (fence.to_string(), now.to_string());
        match self {
            Self::Secret(_) => Some(VersionId::new(token(&[&seen.arn, key.as_str(), &fence, &now]))),
            Self::Parameter(_) => None,
        }
    }
}

/// A UUID (RFC 9562, version 8) by the SHA-256 of these names: the same for the same, so that a put that is repeated is one put.
fn token(names: &[&str]) -> String {
    let mut hash = Sha256::new();
    for name in names {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name.as_bytes());
    }
    let mut bytes: [u8; 16] = hash.finalize()[..16].try_into().expect("it has 32");
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_uuid_and_the_same_for_the_same() {
        let one = token(&["arn", "AKIA1"]);
        assert_eq!(one, token(&["arn", "AKIA1"]));
        assert_ne!(one, token(&["arn", "AKIA2"]));
        assert_ne!(token(&["ab", "c"]), token(&["a", "bc"]));
        assert_eq!((one.len(), one.as_bytes()[14]), (36, b'8'));
    }
}
