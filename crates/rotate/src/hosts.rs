//! Where hosts write, and where the control side keeps what is its own beside it: the control record, what people said of hosts,
//! and the audit log. Record, registry entry and audit line go in one transaction, under the condition that nobody wrote the
//! record in between.

pub mod parameter_store;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::parameter_store::Parameters;
use self::table::ReportsTable;
use crate::audit::{AuditLine, Head};
use crate::aws::{CallFailed, FailKind};
use crate::evidence::{Registry, Removed, Written, host_name};
use crate::facts::{HostName, Waiver};
use crate::record::{ControlRecord, Others, RegistrySize};
use relaykey_core::fault::{Class, Fault};
use relaykey_core::report::Report;

/// The control record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Counts the writes: each names the one it was made over.
    pub rev: u64,
    pub head: Head,
    pub record: ControlRecord,
    #[serde(flatten)]
    pub others: Others,
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
    /// The number of the last report of each installation that was there then, by its `host_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_reports: Option<BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiver: Option<Waiver>,
    /// The principal that owns the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Of a principal: several hosts may write under it.
    pub shared: bool,
    /// It stands on the roster: once heard of, it is missed when it vanishes. Here and not in the record, which has to stay small.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_roster: bool,
    /// Of a part of the list of the roster: the names in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<HostName>,
    /// What a later release wrote there and this one does not know: it stays.
    #[serde(flatten)]
    pub others: Others,
}

/// The entry of a principal has a name that no host has.
pub fn principal_entry(principal: &str) -> String {
    format!("={principal}")
}

/// The names on the roster stand in their entries, and once more in so many lists, each in an entry of its own: whoever loses one
/// entry is missed by name all the same.
const ROSTER_LISTS: u64 = 64;

/// The entry of a list has a name that no host has.
const ROSTER_LIST: &str = "!roster-";

/// The list that a name is in.
fn roster_list(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{ROSTER_LIST}{}", hash % ROSTER_LISTS)
}

fn is_roster_list(name: &str) -> bool {
    name.starts_with(ROSTER_LIST)
}

/// As an item that makes no sense is remembered when its host is removed: no installation has such an id.
fn unreadable_entry(at: Timestamp) -> String {
    format!("!{at}")
}

/// A report, and the item that holds it.
#[derive(Debug, Clone)]
pub struct Row {
    pub written: Written,
    pub item: (String, String),
}

/// An entry of the registry as it was read.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub entry: RegistryEntry,
    /// As it stands there.
    pub text: String,
}

/// An entry to be written, over the one that was read and over no other.
#[derive(Debug, Clone)]
pub struct EntryWrite {
    pub name: String,
    /// `None`: there was none.
    pub before: Option<String>,
    pub after: RegistryEntry,
}

/// Everything that was written about one credential.
#[derive(Debug, Clone, Default)]
pub struct Read {
    pub rows: Vec<Row>,
    /// By host name, or [`principal_entry`].
    pub entries: BTreeMap<String, Known>,
    /// Hosts whose item makes no sense, and when it was written: they are there, and have confirmed nothing.
    pub unreadable: Vec<(HostName, Timestamp)>,
}

impl Read {
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        for (name, Known { entry, .. }) in &self.entries {
            if let Some(principal) = name.strip_prefix('=') {
                if entry.shared {
                    registry.shared.push(principal.to_owned());
                }
                continue;
            }
            if is_roster_list(name) {
                continue;
            }
            let host = HostName::new(name);
            if entry.listed {
                registry.listed.push(host.clone());
            }
            if entry.removed {
                let at = entry.removed_at.unwrap_or(Timestamp::MIN);
                registry.removed.insert(host.clone(), Removed { at, reports: entry.removed_reports.clone() });
            }
            registry.waivers.extend(entry.waiver.clone().map(|waiver| (host.clone(), waiver)));
            registry.owners.extend(entry.owner.clone().map(|owner| (host, owner)));
        }
        let mut listed: BTreeSet<HostName> = registry.listed.iter().cloned().collect();
        for (host, at) in &self.unreadable {
            let removed = registry.removed.get(host).is_some_and(|removed| {
                // What dates itself later than it was removed is the same as then.
                let there = |reports: &BTreeMap<String, u64>| reports.contains_key(&unreadable_entry(*at));
                *at <= removed.at || removed.reports.as_ref().is_some_and(there)
            });
            if !removed && listed.insert(host.clone()) {
                registry.listed.push(host.clone());
            }
        }
        registry
    }

    pub fn entry(&self, name: &str) -> RegistryEntry {
        self.entries.get(name).map(|known| known.entry.clone()).unwrap_or_default()
    }

    /// An entry, changed.
    pub fn changed(&self, name: &str, change: impl FnOnce(&mut RegistryEntry)) -> EntryWrite {
        let mut after = self.entry(name);
        change(&mut after);
        let before = self.entries.get(name).map(|known| known.text.clone());
        EntryWrite { name: name.to_owned(), before, after }
    }

    /// Who stands on the roster: by its entry; or by a list alone, where its entry is gone, or was begun anew since then. Whoever was
    /// removed stands there no longer, whatever the list says.
    pub fn roster(&self) -> BTreeSet<HostName> {
        let by_entry = self.entries.iter().filter(|(_, known)| known.entry.on_roster);
        let by_entry = by_entry.map(|(name, _)| HostName::new(name));
        by_entry.chain(self.listed_on_roster().filter(|name| !self.entry(name.as_str()).removed).cloned()).collect()
    }

    fn listed_on_roster(&self) -> impl Iterator<Item = &HostName> {
        let lists = self.entries.iter().filter(|(name, _)| is_roster_list(name));
        lists.flat_map(|(_, known)| &known.entry.names)
    }

    /// How much of it there is: nothing that stands there is ever deleted by us.
    pub fn size(&self) -> RegistrySize {
        let lists = self.entries.keys().filter(|name| is_roster_list(name)).count();
        RegistrySize { entries: self.entries.len() - lists, lists }
    }

    /// What has to be written so that these stand on the roster, and no others.
    pub fn to_roster(&self, names: &[HostName]) -> Vec<EntryWrite> {
        let wanted: BTreeSet<&str> = names.iter().map(HostName::as_str).collect();
        let stands = |name: &str| self.entries.get(name).is_some_and(|known| known.entry.on_roster);
        let come = wanted.iter().filter(|name| !stands(name));
        let come = come.map(|name| self.changed(name, |entry| entry.on_roster = true));
        let go = self.entries.keys().filter(|name| stands(name) && !wanted.contains(name.as_str()));
        let entries = come.chain(go.map(|name| self.changed(name, |entry| entry.on_roster = false)));
        let mut lists: BTreeMap<String, Vec<HostName>> = BTreeMap::new();
        for name in self.entries.keys().filter(|name| is_roster_list(name)) {
            lists.entry(name.clone()).or_default();
        }
        for name in &wanted {
            lists.entry(roster_list(name)).or_default().push(HostName::new(*name));
        }
        let lists = lists.into_iter().filter(|(list, names)| self.entry(list).names != *names);
        let lists = lists.map(|(list, names)| self.changed(&list, |entry| entry.names = names));
        entries.chain(lists).collect()
    }

    /// The number of the last report of each installation that writes under this name.
    pub fn reports_of(&self, host: &HostName) -> BTreeMap<String, u64> {
        let mut last = BTreeMap::new();
        for row in self.rows.iter().filter(|row| host_name(&row.written.report.host) == *host) {
            let seq: &mut u64 = last.entry(row.written.report.host_id.clone()).or_default();
            *seq = row.written.report.seq.max(*seq);
        }
        let unreadable = self.unreadable.iter().filter(|(name, _)| name == host);
        last.extend(unreadable.map(|(_, at)| (unreadable_entry(*at), 0)));
        last
    }

    /// Hosts whose name nobody owns yet, with the principal that wrote it first, as far as the rows tell.
    pub fn unowned(&self) -> Vec<(HostName, String)> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.written.at);
        let (mut unowned, mut seen) = (Vec::new(), BTreeSet::new());
        for row in rows {
            let host = host_name(&row.written.report.host);
            let owned = self.entries.get(host.as_str()).is_some_and(|known| known.entry.owner.is_some());
            if !owned && seen.insert(host.clone()) {
                unowned.push((host, row.written.principal.clone()));
            }
        }
        unowned
    }
}

pub enum ReportsPlace {
    Table(ReportsTable),
    Parameters(Parameters),
}

impl ReportsPlace {
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
        entry: Option<&EntryWrite>,
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

    /// Remembers who owns the names that nobody owns yet.
    pub async fn pin(&self, read: &mut Read) -> Result<(), CallFailed> {
        // The name of the parameter is the host's: nobody else's report can stand there.
        let Self::Table(_) = self else { return Ok(()) };
        let owned = read.unowned().into_iter();
        let writes = owned.map(|(host, owner)| read.changed(host.as_str(), |entry| entry.owner = Some(owner)));
        let writes: Vec<EntryWrite> = writes.collect();
        self.write_entries(&writes).await?;
        for write in writes {
            read.entries.insert(write.name, Known { text: json(&write.after), entry: write.after });
        }
        Ok(())
    }

    /// Writes entries of the registry that nobody wrote in between: what a person says of a host is never written over.
    ///
    /// # Errors
    /// `Conflict`: somebody did. Those before it may be written.
    pub async fn write_entries(&self, writes: &[EntryWrite]) -> Result<(), CallFailed> {
        match self {
            Self::Table(table) => table.write_entries(writes).await,
            Self::Parameters(parameters) => parameters.write_entries(writes).await,
        }
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

/// A report, or nothing. Of it what evidence is made of: ten thousand of them are held at once.
fn report(text: &str) -> Option<Report> {
    let mut report = serde_json::from_str::<Report>(text).ok()?;
    lighten(&mut report);
    Some(report)
}

fn lighten(report: &mut Report) {
    (report.id, report.agent) = Default::default();
    (report.previous_username, report.approved_by, report.version_in_use, report.waiting) = Default::default();
    for target in &mut report.targets {
        (target.kind, target.map, target.read_back, target.no_proof) = Default::default();
        (target.keys, target.tables) = Default::default();
        (target.evidence.endpoint, target.evidence.reply) = Default::default();
    }
    if let Some(latest) = &mut report.latest {
        lighten(latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It dates itself: what is there when its host is removed is gone with that, whatever its date.
    #[test]
    fn an_item_without_sense_can_be_removed_whatever_its_date() {
        let at = |at: &str| at.parse::<Timestamp>().unwrap();
        let host = HostName::new("mx9");
        let mut read = Read { unreadable: vec![(host.clone(), at("2099-01-01T00:00:00Z"))], ..Read::default() };
        assert_eq!(read.registry().listed.first(), Some(&host));
        let (removed_at, removed_reports) = (Some(at("2026-03-02T08:00:00Z")), Some(read.reports_of(&host)));
        let entry = RegistryEntry { removed: true, removed_at, removed_reports, ..RegistryEntry::default() };
        read.entries.insert("mx9".into(), Known { text: json(&entry), entry });
        assert!(read.registry().listed.is_empty());
        // Written anew, it is somebody.
        read.unreadable = vec![(host.clone(), at("2099-01-02T00:00:00Z"))];
        assert_eq!(read.registry().listed, [host]);
    }

    /// Its entry was deleted, and its item with it: a list still has its name. By a person's word it is not missed.
    #[test]
    fn a_name_on_the_roster_is_known_although_its_entry_is_gone() {
        let names = ["mx1", "mx2"].map(HostName::new);
        let mut read = Read::default();
        let take = |read: &mut Read, names: &[HostName]| {
            let writes = read.to_roster(names);
            for EntryWrite { name, after, .. } in writes {
                read.entries.insert(name, Known { text: json(&after), entry: after });
            }
        };
        take(&mut read, &names);
        assert!(read.roster().iter().eq(&names));
        assert!(read.to_roster(&names).is_empty() && read.registry().listed.is_empty());
        let whole = read.size();
        let before = read.entries.remove("mx2").unwrap();
        assert!(read.roster().iter().eq(&names));
        assert_eq!(read.size(), RegistrySize { entries: whole.entries - 1, ..whole });
        // Something else is said of it meanwhile.
        let write = read.changed("mx2", |entry| entry.owner = Some("p".into()));
        read.entries.insert("mx2".into(), Known { text: json(&write.after), entry: write.after });
        assert!(read.roster().iter().eq(&names));
        let write = read.changed("mx2", |entry| entry.removed = true);
        read.entries.insert("mx2".into(), Known { text: json(&write.after), entry: write.after });
        assert!(read.roster().iter().eq(&names[..1]));
        // It left, and the list is lost instead: each stands for the other.
        read.entries.insert("mx2".into(), before);
        take(&mut read, &names[..1]);
        assert!(read.roster().iter().eq(&names[..1]));
        read.entries.retain(|name, _| !is_roster_list(name));
        assert!(read.roster().iter().eq(&names[..1]));
    }
}
