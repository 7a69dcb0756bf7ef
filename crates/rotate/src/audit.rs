//! The audit log of the control side: one line for each thing that is asked, begun and done, chained by hashes, written in one
//! transaction with the control record. No line has a secret: ids and words alone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::facts::{HostName, KeyId};
use crate::plan::{Action, Outcome};

/// One line of the audit log, each with the hash of the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    pub seq: u64,
    pub at: Timestamp,
    /// As STS names them.
    pub by: String,
    /// Of the process, as the lease names it.
    pub holder: String,
    pub event: AuditEvent,
    /// `deactivate`, `seal`.
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Replies of endpoints, a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
    /// SHA-256 of the line before, hexadecimal; empty for the first.
    pub previous: String,
    /// Of this line with an empty `hash`.
    pub hash: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditEvent {
    /// Somebody asked for it.
    Asked,
    /// It is about to be done.
    Begins,
    Done,
    Failed,
    /// Nobody knows what became of it.
    Unknown,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A line was changed, or does not follow the one before it.
    Changed { seq: u64 },
    /// A line is missing before this one.
    Missing { seq: u64 },
    /// The record knows of later lines.
    Cut { seq: u64, head: u64 },
}

/// Where the chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// How many lines there are.
    pub seq: u64,
    pub hash: String,
}

/// What a line says, before it has its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub event: AuditEvent,
    pub what: String,
    pub key: Option<KeyId>,
    pub version: Option<String>,
    pub host: Option<HostName>,
    pub more: Option<String>,
}

impl AuditEntry {
    pub fn new(event: AuditEvent, what: &str) -> Self {
        Self { event, what: what.into(), key: None, version: None, host: None, more: None }
    }

    pub fn key(mut self, key: &KeyId) -> Self {
        self.key = Some(key.clone());
        self
    }

    pub fn host(mut self, host: &HostName) -> Self {
        self.host = Some(host.clone());
        self
    }

    pub fn more(mut self, more: impl Into<String>) -> Self {
        self.more = Some(more.into()).filter(|more: &String| !more.is_empty());
        self
    }

    /// That this action is about to be done.
    pub fn begins(action: &Action) -> Self {
        let entry = |what: &str| Self::new(AuditEvent::Begins, what);
        let of = |what: &str, key: &KeyId| entry(what).key(key);
        let version = |entry: AuditEntry, version: &crate::facts::VersionId| AuditEntry {
            version: Some(version.as_str().into()),
            ..entry
        };
        match action {
            Action::Reactivate { key, host } => AuditEntry { host: host.clone(), ..of("reactivate", key) },
            Action::Republish { from, key } => version(of("republish", key), from),
            Action::Create => entry("create"),
            Action::Put { key, publishes } => of(if *publishes { "publish" } else { "put" }, key),
            Action::Forget { key, refused } => {
                of("forget", key).more(if *refused { "refused by the endpoints" } else { "" })
            }
            Action::LogIn { key, purpose } => of("log-in", key).more(match purpose {
                crate::plan::Purpose::Verify => "verify",
                crate::plan::Purpose::LastLogin => "last-login",
                crate::plan::Purpose::ProveDead => "prove-dead",
            }),
            Action::TakeOff { version: id, refused } => {
                AuditEntry { key: refused.clone(), ..version(entry("take-off"), id) }
            }
            Action::Label { version: id, label } => version(entry("label"), id).more(label),
            Action::Unlabel { version: id, label } => version(entry("unlabel"), id).more(label),
            Action::Promote { version: id, key, .. } => version(of("promote", key), id),
            Action::CopyTo { place, from, key, publishes } => {
                let what = if *publishes { "publish-at" } else { "copy-to" };
                version(of(what, key), from).more(place.to_string())
            }
            Action::PromoteAt { place, version: id, key, .. } => {
                version(of("promote-at", key), id).more(place.to_string())
            }
            Action::RecordPublished { version: id, key } => version(of("record-published", key), id),
            Action::Intend { key } => of("intend", key),
            Action::Deactivate { key, why } => of("deactivate", key).more(why_word(*why)),
            Action::RecordProvedDead { key } => of("proved-dead", key),
            Action::Delete { key, why } => of("delete", key).more(why_word(*why)),
        }
    }

    /// What became of it. `said`: replies of endpoints, AWS's words.
    pub fn ended(action: &Action, outcome: &Outcome, said: &str) -> Self {
        let mut entry = Self::begins(action);
        entry.event = match outcome {
            Outcome::Failed => AuditEvent::Failed,
            Outcome::Unknown => AuditEvent::Unknown,
            _ => AuditEvent::Done,
        };
        match outcome {
            Outcome::Created(key) => entry.key = Some(key.clone()),
            Outcome::Published(version) => entry.version = Some(version.as_str().into()),
            _ => {}
        }
        if !said.is_empty() {
            entry.more = Some(match entry.more {
                Some(more) => format!("{more}: {said}"),
                None => said.into(),
            });
        }
        entry
    }

    /// The line that follows this head.
    pub fn after(self, head: &Head, by: &str, holder: &str, at: Timestamp) -> AuditLine {
        let AuditEntry { event, what, key, version, host, more } = self;
        let mut line = AuditLine {
            seq: head.seq + 1,
            at,
            by: by.into(),
            holder: holder.into(),
            event,
            what,
            key,
            version,
            host,
            more,
            previous: head.hash.clone(),
            hash: String::new(),
        };
        line.hash = line.hashed();
        line
    }
}

fn why_word(why: crate::plan::WhyGone) -> &'static str {
    match why {
        crate::plan::WhyGone::Retired => "retired",
        crate::plan::WhyGone::Leftover => "leftover",
    }
}

impl AuditLine {
    fn hashed(&self) -> String {
        let bare = Self { hash: String::new(), ..self.clone() };
        let text = serde_json::to_string(&bare).expect("a line has only text keys");
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The head after this line.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.clone() }
    }
}

/// Everything that is wrong with a chain that should end at `head`. The first lines may be gone where the place keeps only so
/// many: then it begins with the first that is there.
pub fn verify(lines: &[AuditLine], head: &Head, whole: bool) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut before = Head::default();
    for (index, line) in lines.iter().enumerate() {
        if index == 0 && !whole {
            before = Head { seq: line.seq.saturating_sub(1), hash: line.previous.clone() };
        }
        if line.seq != before.seq + 1 {
            broken.push(Broken::Missing { seq: line.seq });
        } else if line.previous != before.hash {
            broken.push(Broken::Changed { seq: line.seq });
        }
        if line.hash != line.hashed() {
            broken.push(Broken::Changed { seq: line.seq });
        }
        before = line.head();
    }
    if before.seq < head.seq {
        broken.push(Broken::Cut { seq: before.seq, head: head.seq });
    } else if before.hash != head.hash {
        broken.push(Broken::Changed { seq: before.seq });
    }
    broken.dedup();
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: u64) -> (Vec<AuditLine>, Head) {
        let mut head = Head::default();
        let lines = (0..n).map(|i| {
            let entry = AuditEntry::new(AuditEvent::Done, "delete").key(&KeyId::new(format!("AKIA{i}")));
            let line = entry.after(&head, "arn:aws:iam::1:user/p", "c0", Timestamp::UNIX_EPOCH);
            head = line.head();
            line
        });
        let lines = lines.collect();
        (lines, head)
    }

    #[test]
    fn a_chain_that_was_changed_cut_or_thinned_is_told() {
        let (lines, head) = chain(4);
        assert_eq!(verify(&lines, &head, true), []);
        assert_eq!(verify(&lines[1..], &head, false), [], "the place keeps only so many");
        assert_eq!(verify(&lines[1..], &head, true), [Broken::Missing { seq: 2 }]);
        assert_eq!(verify(&lines[..3], &head, true), [Broken::Cut { seq: 3, head: 4 }]);
        let mut thinned = lines.clone();
        thinned.remove(1);
        assert_eq!(verify(&thinned, &head, true), [Broken::Missing { seq: 3 }]);
        let mut changed = lines.clone();
        changed[1].by = "somebody else".into();
        assert_eq!(verify(&changed, &head, true), [Broken::Changed { seq: 2 }]);
        changed[1].hash = changed[1].hashed();
        assert_eq!(verify(&changed, &head, true), [Broken::Changed { seq: 3 }]);
    }
}
