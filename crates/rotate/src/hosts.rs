//! Where hosts write, and where the control side keeps what is its own beside it: the control record, what people said of hosts,
//! and the audit log. Record, registry entry and audit line go in one transaction, under the condition that nobody wrote the
//! record in between.

pub mod parameter_store;
pub mod table;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::parameter_store::Parameters;
use self::table::Table;
use crate::audit::{AuditLine, Head};
use crate::aws::{CallFailed, FailKind};
use crate::evidence::{Registry, Written};
use crate::facts::{HostName, Waiver};
use crate::record::ControlRecord;
use relaykey_core::fault::{Class, Fault};
use relaykey_core::report::Report;
use relaykey_core::text;

/// The control record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Counts the writes: each names the one it was made over.
    pub rev: u64,
    pub head: Head,
    pub record: ControlRecord,
}

/// What people said about one host, or of one principal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryEntry {
    pub listed: bool,
    pub removed: bool,
    /// When it was: what is written later counts again. `None` with `removed`: not known, so that all that is there counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiver: Option<Waiver>,
    /// The principal that owns the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Of a principal: several hosts may write under it.
    pub shared: bool,
}

/// The entry of a principal has a name that no host has.
pub fn principal_entry(principal: &str) -> String {
    format!("={principal}")
}

/// A report, and the item that holds it.
#[derive(Debug, Clone)]
pub struct Row {
    pub written: Written,
    pub item: (String, String),
}

/// Everything that was written about one credential.
#[derive(Debug, Clone, Default)]
pub struct Read {
    pub rows: Vec<Row>,
    /// By host name, or [`principal_entry`].
    pub entries: Vec<(String, RegistryEntry)>,
    /// Hosts whose item makes no sense, and when it was written: they are there, and have confirmed nothing.
    pub unreadable: Vec<(HostName, Timestamp)>,
}

impl Read {
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        for (name, entry) in &self.entries {
            if let Some(principal) = name.strip_prefix('=') {
                if entry.shared {
                    registry.shared.push(principal.to_owned());
                }
                continue;
            }
            let host = HostName::new(name);
            if entry.listed {
                registry.listed.push(host.clone());
            }
            if entry.removed {
                registry.removed.insert(host.clone(), entry.removed_at.unwrap_or(Timestamp::MIN));
            }
            registry.waivers.extend(entry.waiver.clone().map(|waiver| (host.clone(), waiver)));
            registry.owners.extend(entry.owner.clone().map(|owner| (host, owner)));
        }
        for (host, at) in &self.unreadable {
            let removed = registry.removed.get(host).is_some_and(|removed| at <= removed);
            if !removed && !registry.listed.contains(host) {
                registry.listed.push(host.clone());
            }
        }
        registry
    }

    pub fn entry(&self, name: &str) -> RegistryEntry {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, entry)| entry.clone()).unwrap_or_default()
    }

    /// Hosts whose name nobody owns yet, with the principal that wrote it first, as far as the rows tell.
    pub fn unowned(&self) -> Vec<(HostName, String)> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.written.at);
        let mut unowned: Vec<(HostName, String)> = Vec::new();
        for row in rows {
            let host = HostName::new(text::plain(&row.written.report.host, 255));
            let known = self.entries.iter().any(|(name, entry)| name == host.as_str() && entry.owner.is_some());
            if !known && unowned.iter().all(|(name, _)| *name != host) {
                unowned.push((host, row.written.principal.clone()));
            }
        }
        unowned
    }
}

pub enum Place {
    Table(Table),
    Parameters(Parameters),
}

impl Place {
    /// `None`: there is none yet, or it was lost.
    pub async fn record(&self) -> Result<Option<Kept>, CallFailed> {
        match self {
            Self::Table(table) => table.record().await,
            Self::Parameters(parameters) => parameters.record().await,
        }
    }

    /// Writes the record over the one that was read, with a line of the audit log and an entry of the registry where there are any.
    ///
    /// # Errors
    /// `Conflict`: somebody wrote it in between, and nothing was written.
    pub async fn write(
        &self,
        before: Option<&Kept>,
        after: &Kept,
        line: Option<&AuditLine>,
        entry: Option<(&str, &RegistryEntry)>,
    ) -> Result<(), CallFailed> {
        match self {
            Self::Table(table) => match table.write(before, after, line, entry).await {
                // It may have been ourselves, where an answer was lost and the call repeated.
                Err(failed) if failed.kind == FailKind::Conflict && self.record().await?.as_ref() == Some(after) => {
                    Ok(())
                }
                result => result,
            },
            Self::Parameters(parameters) => parameters.write(before, after, line, entry).await,
        }
    }

    pub async fn read(&self) -> Result<Read, CallFailed> {
        match self {
            Self::Table(table) => table.read().await,
            Self::Parameters(parameters) => parameters.read().await,
        }
    }

    /// The credentials that hosts report about here, as far as one page or a few tell.
    pub async fn credentials(&self) -> Result<BTreeSet<String>, CallFailed> {
        match self {
            Self::Table(table) => table.credentials().await,
            Self::Parameters(parameters) => parameters.credentials().await,
        }
    }

    /// Remembers who owns these names.
    pub async fn pin(&self, read: &mut Read, owners: Vec<(HostName, String)>) -> Result<(), CallFailed> {
        let mut entries = Vec::new();
        for (host, owner) in owners {
            let entry = RegistryEntry { owner: Some(owner), ..read.entry(host.as_str()) };
            entries.push((host.as_str().to_owned(), entry));
        }
        match self {
            Self::Table(table) => table.pin(&entries).await?,
            // The name of the parameter is the host's: nobody else's report can stand there.
            Self::Parameters(_) => {}
        }
        let told = |name: &String| entries.iter().any(|(known, _)| known == name);
        read.entries.retain(|(name, _)| !told(name));
        read.entries.extend(entries);
        Ok(())
    }

    /// Deletes items of hosts.
    pub async fn drop_items(&self, items: &[(String, String)]) -> Result<(), CallFailed> {
        match self {
            Self::Table(table) => table.drop_items(items).await,
            Self::Parameters(_) => Ok(()),
        }
    }

    /// The first line first; and whether the place keeps all of them.
    pub async fn audit(&self) -> Result<(Vec<AuditLine>, bool), CallFailed> {
        match self {
            Self::Table(table) => Ok((table.audit().await?, true)),
            Self::Parameters(parameters) => Ok((parameters.audit().await?, false)),
        }
    }
}

/// A document of ours, as it stands there.
fn ours<T: for<'de> Deserialize<'de>>(text: &str, about: &str) -> Result<T, CallFailed> {
    serde_json::from_str(text).map_err(|_| {
        let what = format!("{about} is not what relaykey-rotate writes");
        let fix = "delete it if nobody knows it: what it held is learned anew, which takes time, and the roster has to be sealed \
                   again; or use the version of relaykey-rotate that wrote it";
        CallFailed { kind: FailKind::Refused, fault: Box::new(Fault::new(Class::State, what, fix)) }
    })
}

fn json<T: Serialize>(document: &T) -> String {
    serde_json::to_string(document).expect("it has only text keys")
}

/// A report, or nothing.
fn report(text: &str) -> Option<Report> {
    serde_json::from_str::<Report>(text).ok()
}
