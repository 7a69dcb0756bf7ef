//! What a check tries beyond a look: a login with what is published, and those rights that a request can ask for which is never
//! done. It writes nothing.

use std::collections::BTreeSet;

use relaykey_core::fault::Fault;

use super::{Controller, Look};
use crate::audit::Head;
use crate::aws::store::{Seen, StoreAt};
use crate::aws::{CallFailed, FailKind, Until, logins};
use crate::facts::{CURRENT, KeyId, KeyStatus, LoginReply, Part, VersionId};
use crate::hosts::{Kept, ReportsPlace};
use crate::policy::DECISION_HOLDS;
use crate::record::{ControlRecord, Others};

/// What a check found.
pub struct Checked {
    pub look: Look,
    /// What each endpoint said to the published login; `None`: there is none that can be read.
    pub login: Option<PublishedLogin>,
    pub rights: Vec<Right>,
    /// Rights that could not be asked for without changing something.
    pub untried: Vec<&'static str>,
    /// Credentials that hosts report about at this place; asked where none reports about this one.
    pub others: BTreeSet<String>,
}

/// A login with what is published.
pub struct PublishedLogin {
    pub key: KeyId,
    /// By endpoint, in its words.
    pub replies: Vec<(LoginReply, String)>,
    /// Why there was no answer, where there was none.
    pub faults: Vec<Fault>,
}

/// A right, and what became of asking for it.
pub struct Right {
    pub action: &'static str,
    /// Denied, or not known.
    pub fault: Option<Fault>,
}

/// No user has a key of this id, so that nothing can be done to it.
const NOBODYS_KEY: &str = "AKIARELAYKEYCHECK000";
/// No version has this id, and none this label.
const NO_VERSION: &str = "00000000-0000-4000-8000-000000000000";
const NO_LABEL: &str = "relaykey-check";

impl Controller {
    /// Looks at everything, logs in with what is published, and asks for rights with requests that are never done.
    pub async fn check(&mut self) -> Result<Checked, Fault> {
        let (look, seen) = self.seen().await?;
        let login = self.published_login(&look, seen.as_ref()).await;
        let (rights, untried) = self.rights(&look).await;
        let reports = !look.facts.fleet.is_empty() || look.facts.gaps.iter().any(|gap| gap.part == Part::Fleet);
        let others = if reports { Ok(BTreeSet::new()) } else { self.place.credentials().await };
        // It only helps to find a misspelt name.
        Ok(Checked { look, login, rights, untried, others: others.unwrap_or_default() })
    }

    async fn published_login(&self, look: &Look, seen: Option<&Seen>) -> Option<PublishedLogin> {
        let current = look.facts.store.labelled(CURRENT)?;
        let (key, payload) = (current.key()?.clone(), seen?.payload(&current.id)?);
        let hello = relaykey::agent::host_name();
        let replies = logins::log_in(&self.smtp, &key, &payload, &hello, &self.hooks).await;
        let said = replies.logins.into_iter().map(|login| login.reply).zip(replies.said).collect();
        Some(PublishedLogin { key, replies: said, faults: replies.faults })
    }

    async fn rights(&self, look: &Look) -> (Vec<Right>, Vec<&'static str>) {
        let unseen = |part| look.facts.gaps.iter().any(|gap| gap.part == part);
        let mut untried = vec!["iam:CreateAccessKey"];
        let nobodys = KeyId::new(NOBODYS_KEY);
        let until = Until::new(&self.hooks, self.hooks.boot() + DECISION_HOLDS.unsigned_abs());
        let keys = async {
            let mut rights = Vec::new();
            if !unseen(Part::Keys) {
                rights.push(right("iam:UpdateAccessKey", self.keys.set(&nobodys, KeyStatus::Inactive, &until).await));
                rights.push(right("iam:DeleteAccessKey", self.keys.delete(&nobodys, &until).await));
            }
            rights
        };
        let further = look.facts.further.iter().filter_map(|seen| {
            let at = self.also.iter().find(|at| at.place == seen.place)?;
            Some((&at.store, &seen.store))
        });
        let first = Some((&self.store, &look.facts.store)).filter(|_| !unseen(Part::Store));
        let stores: Vec<_> = first.into_iter().chain(further).collect();
        let store = async {
            let mut rights = Vec::new();
            for (store, facts) in &stores {
                match store {
                    StoreAt::Secret(secret) => {
                        let asked = secret.label(NO_LABEL, Some(&VersionId::new(NO_VERSION)), None, &until).await;
                        rights.push(right("secretsmanager:UpdateSecretVersionStage", asked));
                    }
                    // One that is not there would be made.
                    StoreAt::Parameter(_) if facts.versions.is_empty() => {}
                    StoreAt::Parameter(at) => rights.push(right("ssm:PutParameter", at.ask_to_put().await)),
                }
            }
            rights
        };
        let place = async {
            match &self.place {
                ReportsPlace::Table(_) if !unseen(Part::Fleet) => {
                    // Over a record that nobody ever wrote.
                    let record = ControlRecord::new(&self.credential);
                    let never = Kept { rev: u64::MAX, head: Head::default(), record, others: Others::new() };
                    Some(right("dynamodb:PutItem", self.place.write(Some(&never), &never, None, None).await))
                }
                _ => None,
            }
        };
        for (store, facts) in &stores {
            let untried_there = match store {
                StoreAt::Secret(_) => Some("secretsmanager:PutSecretValue"),
                StoreAt::Parameter(_) => Some("ssm:PutParameter").filter(|_| facts.versions.is_empty()),
            };
            untried.extend(untried_there.filter(|action| !untried.contains(action)));
        }
        match &self.place {
            ReportsPlace::Table(_) => untried.push("dynamodb:BatchWriteItem"),
            ReportsPlace::Parameters(_) => untried.push("ssm:PutParameter for the control record"),
        }
        let (keys, store, place) = tokio::join!(keys, store, place);
        (keys.into_iter().chain(store).chain(place).collect(), untried)
    }
}

/// Whoever may not do it is told so before anything else is looked at; what comes else is that it makes no sense.
fn right<T>(action: &'static str, asked: Result<T, CallFailed>) -> Right {
    let fault = asked.err().filter(|failed| {
        !matches!(
            failed.kind,
            FailKind::NotFound | FailKind::Refused | FailKind::Conflict | FailKind::LogAhead | FailKind::LimitExceeded
        )
    });
    Right { action, fault: fault.map(|failed| *failed.fault) }
}
