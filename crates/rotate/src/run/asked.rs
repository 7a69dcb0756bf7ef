//! What people ask for, by way of any of the commands: written under the condition that nobody wrote the record in between, with a
//! line of the audit log that names who asked.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use relaykey_core::fault::{Class, Fault};

use super::{Controller, TRIES, contended};
use crate::audit::{AuditEntry, AuditEvent};
use crate::aws::{CallFailed, FailKind};
use crate::facts::{HostName, IamUser, KeyId, KeyPlace, KeyStatus, Waiver};
use crate::hosts::{EntryWrite, Kept, Read, RegistryEntry, ReportsPlace, Row, principal_entry};
use crate::plan::{Action, Outcome};
use crate::record::{ControlRecord, Roster, Wanted};

/// What people ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A rotation.
    Run,
    /// A rotation, also where the login of this key is published, which is not of the IAM user.
    RunOver {
        key: KeyId,
    },
    /// The roster is complete with so many distinct hosts. Again: the clocks of the old key begin anew.
    Seal {
        expect: usize,
    },
    Add {
        host: HostName,
    },
    Remove {
        host: HostName,
    },
    Waive {
        host: HostName,
        reason: String,
        until: Timestamp,
    },
    Unwaive {
        host: HostName,
    },
    /// Whoever writes under this name owns it, and several hosts may write under that principal. Where several write, `who` is the
    /// principal or the `host_id` of the one that is meant; what the others wrote under it is deleted.
    Accept {
        host: HostName,
        who: Option<String>,
    },
    /// A key that somebody deactivated, or that we did.
    Reactivate {
        key: KeyId,
    },
    /// No host reads this place any more, given by its word ([`KeyPlace::word`]): it is looked after no longer.
    RemovePlace {
        place: String,
    },
    /// The keys of this IAM user, to which the configuration leads, are rotated from now on.
    AcceptUser {
        name: String,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// It was so already.
    WasSo,
}

/// The longest that a waiver holds.
const WAIVED: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The least that a reason has.
const REASON: usize = 10;

impl Controller {
    /// What people ask for, under the fence and into the audit.
    pub async fn ask(&mut self, what: Ask) -> Result<Answer, Fault> {
        let by = self.caller().await?.arn;
        match what {
            Ask::Run | Ask::RunOver { .. } => {
                let over = match what {
                    Ask::RunOver { key } => Some(key),
                    _ => None,
                };
                let entry = AuditEntry::new(AuditEvent::Asked, "run");
                let entry = match &over {
                    Some(key) => entry.key(key).more("its login may be written over"),
                    None => entry,
                };
                self.change(entry, |record, now| {
                    let is_new = record.want.is_none();
                    record.want = Some(Wanted { by: by.clone(), at: now }).filter(|_| is_new).or(record.want.take());
                    let says_more = over.is_some() && over != record.over;
                    record.over = over.clone().or(record.over.take());
                    // Asked for again after SES did not take one: tried again at once.
                    let waited = record.backoff.as_mut().filter(|backoff| backoff.until > now);
                    let waits = waited.is_some();
                    if let Some(backoff) = waited {
                        backoff.until = now;
                    }
                    is_new || waits || says_more
                })
                .await
            }
            Ask::Seal { expect: 0 } => {
                Err(wrong("a roster of no hosts protects nothing", "say how many hosts there are"))
            }
            Ask::Seal { expect } => {
                let entry = AuditEntry::new(AuditEvent::Asked, "seal").more(format!("expects {expect}"));
                self.change(entry, |record, _| {
                    // Who stood on it and vanished is still missed.
                    let Roster { names, registry, others, .. } = std::mem::take(&mut record.roster);
                    let (expect, by) = (Some(expect), Some(by.clone()));
                    record.roster = Roster { expect, by, names, registry, others, ..Roster::default() };
                    record.complete_at = None;
                    record.intention = None;
                    true
                })
                .await
            }
            Ask::Add { host } => {
                let set = |_: &Read, entry: &mut RegistryEntry| {
                    (entry.listed, entry.removed, entry.removed_at) = (true, false, None);
                    entry.removed_reports = None;
                };
                self.register("add", &host, None, set).await
            }
            Ask::Remove { host } => {
                let now = self.hooks.now();
                let set = |read: &Read, entry: &mut RegistryEntry| removed(entry, now, read.reports_of(&host));
                self.register("remove", &host, None, set).await
            }
            Ask::Waive { host, reason, until } => {
                let now = self.hooks.now();
                if reason.trim().chars().count() < REASON {
                    return Err(wrong(
                        "the reason is too short to tell anybody anything",
                        "give it in ten characters or more",
                    ));
                }
                if until > now + WAIVED || until <= now {
                    return Err(wrong(
                        "a waiver ends within 90 days, and not in the past",
                        "name an earlier end, or a later one",
                    ));
                }
                let waiver = Waiver { reason: reason.clone(), by, until };
                let set = |_: &Read, entry: &mut RegistryEntry| entry.waiver = Some(waiver.clone());
                self.register("waive", &host, Some(reason), set).await
            }
            Ask::Unwaive { host } => {
                let set = |_: &Read, entry: &mut RegistryEntry| entry.waiver = None;
                self.register("unwaive", &host, None, set).await
            }
            Ask::Accept { host, who } => self.accept(&host, who.as_deref()).await,
            Ask::Reactivate { key } => self.reactivate(&key).await,
            Ask::RemovePlace { place } => self.remove_place(&place).await,
            Ask::AcceptUser { name } => self.accept_user(&name).await,
        }
    }

    /// What is known of the keys of the user before is forgotten: they are left as they are.
    async fn accept_user(&mut self, name: &str) -> Result<Answer, Fault> {
        let is = IamUser { name: self.keys.user().to_owned(), account: Some(self.caller().await?.account) };
        if !name.eq_ignore_ascii_case(&is.name) {
            let fix = "name that one; or set `iam_user` in rotate.toml first";
            return Err(wrong(&format!("rotate.toml leads to IAM user {is}"), fix));
        }
        // One that is not there, or whose keys cannot be seen, is accepted by mistake.
        self.keys.list().await.map_err(|failed| *failed.fault)?;
        let known = self.kept().await?.record.user;
        let Some(before) = known.filter(|user| user.is_another(&is)) else {
            return Ok(Answer::WasSo);
        };
        let entry = AuditEntry::new(AuditEvent::Asked, "accept-user").more(format!("{is}, instead of {before}"));
        self.change(entry, |record, _| {
            record.accept_user(is.clone());
            true
        })
        .await
    }

    /// A place that the configuration does not name any more leaves the rotation. What hosts have is looked at anew.
    async fn remove_place(&mut self, word: &str) -> Result<Answer, Fault> {
        let also = self.also.iter().map(|at| &at.place);
        let configured: Vec<KeyPlace> = std::iter::once(&self.first).chain(also).cloned().collect();
        if let Some(place) = configured.iter().find(|place| place.word() == word) {
            return Err(wrong(
                &format!("rotate.toml publishes in {place}"),
                "take its [[credential.publish]] out there first; another rotate.toml of this credential may name it too",
            ));
        }
        let known = self.kept().await?.record.places;
        let dropped = known.iter().map(|known| &known.place).filter(|place| !configured.contains(place));
        let dropped: Vec<String> = dropped.map(KeyPlace::word).collect();
        if !dropped.iter().any(|place| place == word) {
            let what = format!("this rotation has no place {word:?} that rotate.toml does not name");
            let fix = match dropped.is_empty() {
                true => "nothing: rotate.toml names all of them".to_owned(),
                false => format!("name one of: {}", dropped.join(", ")),
            };
            return Err(wrong(&what, &fix));
        }
        let entry = AuditEntry::new(AuditEvent::Asked, "remove-place").more(word.to_owned());
        let first = self.first.clone();
        self.change(entry, |record, _| {
            record.remove_place(word, &first);
            true
        })
        .await
    }

    /// Changes the record. `change` says whether there is anything to be written.
    async fn change(
        &mut self,
        entry: AuditEntry,
        mut change: impl FnMut(&mut ControlRecord, Timestamp) -> bool,
    ) -> Result<Answer, Fault> {
        for _ in 0..TRIES {
            let mut kept = self.kept().await?;
            let mut record = kept.record.clone();
            // Who looks next is to do so at once.
            record.next = None;
            if !change(&mut record, self.hooks.now()) {
                return Ok(Answer::WasSo);
            }
            match self.write(&mut kept, record, Some(entry.clone()), None).await {
                Ok(()) => return Ok(Answer::Done),
                Err(failed) if failed.kind == FailKind::Conflict => {}
                Err(failed) => return Err(*failed.fault),
            }
        }
        Err(contended())
    }

    /// The record; where there is none yet, an empty one is written.
    async fn kept(&self) -> Result<Kept, Fault> {
        let fault = |failed: CallFailed| *failed.fault;
        if let Some(kept) = self.place.record().await.map_err(fault)? {
            return Ok(kept);
        }
        let first = self.first(ControlRecord::new(&self.credential)).await?;
        match self.place.write(None, &first, None, None).await {
            Ok(()) => Ok(first),
            Err(failed) if failed.kind == FailKind::Conflict => {
                self.place.record().await.map_err(fault)?.ok_or_else(contended)
            }
            Err(failed) => Err(*failed.fault),
        }
    }

    /// What is said of one host.
    async fn register(
        &mut self,
        what: &str,
        host: &HostName,
        more: Option<String>,
        set: impl Fn(&Read, &mut RegistryEntry),
    ) -> Result<Answer, Fault> {
        let entry = AuditEntry::new(AuditEvent::Asked, what).host(host).more(more.unwrap_or_default());
        self.entry(entry, host.as_str(), set).await
    }

    /// Changes one entry of the registry, under the condition of the record.
    async fn entry(
        &mut self,
        line: AuditEntry,
        name: &str,
        set: impl Fn(&Read, &mut RegistryEntry),
    ) -> Result<Answer, Fault> {
        for _ in 0..TRIES {
            let mut kept = self.kept().await?;
            let read = self.place.read().await.map_err(|failed| *failed.fault)?;
            let write: EntryWrite = read.changed(name, |entry| set(&read, entry));
            if write.after == read.entry(name) {
                return Ok(Answer::WasSo);
            }
            let record = ControlRecord { next: None, ..kept.record.clone() };
            match self.write(&mut kept, record, Some(line.clone()), Some(&write)).await {
                Ok(()) => return Ok(Answer::Done),
                Err(failed) if failed.kind == FailKind::Conflict => {}
                Err(failed) => return Err(*failed.fault),
            }
        }
        Err(contended())
    }

    async fn accept(&mut self, host: &HostName, who: Option<&str>) -> Result<Answer, Fault> {
        if let ReportsPlace::Parameters(_) = self.place {
            return Err(wrong(
                "in Parameter Store each report is a parameter of its own, and there is nothing to accept",
                "give each host a name of its own; what is left of one that is gone is a parameter with its name: delete that",
            ));
        }
        let fault = |failed: CallFailed| *failed.fault;
        let read: Read = self.place.read().await.map_err(fault)?;
        let mut rows: Vec<_> = read.rows.iter().filter(|row| row.written.report.host == host.as_str()).collect();
        // Which one wrote last is the hosts' own word, by their own clocks.
        let last = rows.swap_remove(candidate(host, &rows, who)?);
        let principal = last.written.principal.clone();
        let owns = |_: &Read, entry: &mut RegistryEntry| entry.owner = Some(principal.clone());
        let said = Some(format!("{}, instead of {} others", installation(last), rows.len()));
        let mut answer = self.register("accept", host, said, owns).await?;
        let others: Vec<_> = rows.iter().map(|row| row.item.clone()).collect();
        if !others.is_empty() {
            self.place.drop_items(&others).await.map_err(fault)?;
            answer = Answer::Done;
        }
        let writes_too = |row: &&crate::hosts::Row| row.written.principal == principal && row.item != last.item;
        if read.rows.iter().filter(|row| !others.contains(&row.item)).any(|row| writes_too(&row)) {
            let line =
                AuditEntry::new(AuditEvent::Asked, "accept-shared").host(host).more(format!("principal {principal}"));
            let shares = |_: &Read, entry: &mut RegistryEntry| entry.shared = true;
            if self.entry(line, &principal_entry(&principal), shares).await? == Answer::Done {
                answer = Answer::Done;
            }
        }
        Ok(answer)
    }

    /// At once, also while somebody else is at work: it is the safe direction. Their lease is seized, and whoever called this
    /// gives it back when it is done ([`Controller::leave`]).
    async fn reactivate(&mut self, key: &KeyId) -> Result<Answer, Fault> {
        let Ok(mut kept) = self.take(true).await? else {
            return Err(contended());
        };
        if kept.record.is_revoked(key) {
            return Err(wrong(&format!("{key} was revoked, and stays dead"), "make a new key: `relaykey-rotate run`"));
        }
        let fault = |failed: CallFailed| *failed.fault;
        let keys = self.keys.list().await.map_err(fault)?;
        let known = keys.iter().find(|known| known.id == *key);
        match known.map(|known| known.status) {
            None => return Err(wrong(&format!("the IAM user has no key {key}"), "see `relaykey-rotate status`")),
            Some(KeyStatus::Active) => return Ok(Answer::WasSo),
            Some(KeyStatus::Inactive) => {}
        }
        let record = kept.record.clone();
        let asked = AuditEntry::new(AuditEvent::Asked, "reactivate").key(key);
        self.write(&mut kept, record, Some(asked), None).await.map_err(fault)?;
        let until = self.until((self.hooks.now(), self.hooks.boot()));
        self.keys.set(key, KeyStatus::Active, &until).await.map_err(fault)?;
        let action = Action::Reactivate { key: key.clone(), host: None };
        let mut record = kept.record.clone();
        record.brought_back(key);
        record.next = None;
        let entry = AuditEntry::ended(&action, &Outcome::Done, "");
        self.write(&mut kept, record, Some(entry), None).await.map_err(fault)?;
        Ok(Answer::Done)
    }
}

/// An installation that writes, by what tells it from another.
fn installation(row: &Row) -> String {
    let plain = |name: &str| relaykey_core::text::plain(name, 255);
    format!("principal {} with host_id {}", plain(&row.written.principal), plain(&row.written.report.host_id))
}

/// Which of those that write under this name is meant.
fn candidate(host: &HostName, rows: &[&Row], who: Option<&str>) -> Result<usize, Fault> {
    let is_meant = |row: &Row| who.is_none_or(|who| row.written.principal == who || row.written.report.host_id == who);
    let meant: Vec<usize> = (0..rows.len()).filter(|n| is_meant(rows[*n])).collect();
    let list = || rows.iter().map(|row| installation(row)).collect::<Vec<_>>().join("; ");
    let host = host.as_str();
    match meant.as_slice() {
        [one] => Ok(*one),
        _ if rows.is_empty() => {
            Err(wrong(&format!("no host of the name {host} has written"), "see `relaykey-rotate hosts list`"))
        }
        [] => Err(wrong(&format!("none of those that write as {host} is that one: {}", list()), "name one of them")),
        _ => Err(wrong(
            &format!("{} installations write as {host}: {}", rows.len(), list()),
            &format!(
                "find out which one is {host} (`relaykey status` on it says its host_id), and name it by that or by its principal: \
                 `relaykey-rotate hosts accept {} WHO`; what the others wrote is deleted",
                relaykey::host::trust::quoted(host)
            ),
        )),
    }
}

/// A removal strikes a host from the roster here, once: one that comes back after it is missed like any other.
fn removed(entry: &mut RegistryEntry, now: Timestamp, reports: BTreeMap<String, u64>) {
    *entry = RegistryEntry {
        removed: true,
        removed_at: Some(now),
        removed_reports: Some(reports),
        owner: entry.owner.take(),
        others: std::mem::take(&mut entry.others),
        ..RegistryEntry::default()
    };
}

fn wrong(what: &str, fix: &str) -> Fault {
    Fault::new(Class::Configuration, what, fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::Known;

    #[test]
    fn a_removal_strikes_a_host_from_the_roster_once() {
        let mut entry = RegistryEntry { on_roster: true, owner: Some("p".into()), ..RegistryEntry::default() };
        let at = |at: &str| at.parse::<Timestamp>().unwrap();
        removed(&mut entry, at("2026-03-02T08:00:00Z"), BTreeMap::new());
        assert!(!entry.on_roster && entry.owner.as_deref() == Some("p"));
        // It came back, and something else is said of it.
        entry.on_roster = true;
        let text = serde_json::to_string(&entry).unwrap();
        let read = Read { entries: [("mx1".to_owned(), Known { entry, text })].into(), ..Read::default() };
        assert!(read.changed("mx1", |entry| entry.shared = true).after.on_roster);
        assert!(read.roster().iter().eq(&[HostName::new("mx1")]));
    }

    #[test]
    fn what_the_roster_gains_and_loses_is_written_and_nothing_else() {
        let known = |on_roster| {
            let entry = RegistryEntry { on_roster, owner: Some("p".into()), ..RegistryEntry::default() };
            Known { text: serde_json::to_string(&entry).unwrap(), entry }
        };
        let entries = [("left", known(true)), ("mx1", known(true)), ("mx2", known(false))];
        let entries = entries.map(|(name, known)| (name.to_owned(), known));
        let read = Read { entries: entries.clone().into(), ..Read::default() };
        let names = ["mx1", "mx2", "mx3"].map(HostName::new);
        let writes = read.to_roster(&names);
        let (lists, writes): (Vec<_>, Vec<_>) = writes.into_iter().partition(|write| write.name.starts_with('!'));
        let listed: std::collections::BTreeSet<_> = lists.iter().flat_map(|write| &write.after.names).collect();
        assert!(listed.into_iter().eq(&names));
        let told: Vec<_> = writes.iter().map(|w| (w.name.as_str(), w.after.on_roster, w.before.is_some())).collect();
        assert_eq!(told, [("mx2", true, true), ("mx3", true, false), ("left", false, true)]);
        assert!(writes.iter().all(|w| w.before.is_none() || w.after.owner.is_some()), "what is known else stays");
    }

    /// By its clock a host dates itself: nobody is taken for it by that.
    #[test]
    fn who_is_accepted_is_named_where_several_write() {
        let row = |principal: &str, host_id: &str, at: &str| {
            let report = serde_json::from_value(serde_json::json!({
                "schema": "relaykey/report/v2", "id": "r1", "source": "s", "version": "v", "username": "u", "mode": "automatic", "credential": "ses", "host": "mx1", "host_id": host_id, "seq": 1, "at": at,
                "agent": "relaykey", "outcome": "hello", "targets": [], "error": null, "approved_by": null, "previous_username": null,
            }));
            let at = at.parse::<Timestamp>().unwrap();
            let item = (principal.to_owned(), format!("ses#{host_id}"));
            let written = crate::evidence::Written {
                principal: principal.into(),
                item: item.clone(),
                at,
                report: report.expect("a report"),
            };
            Row { written, item }
        };
        let host = HostName::new("mx1");
        let (ours, forged) =
            (row("AROA:i-1", "id1", "2026-03-02T08:00:00Z"), row("AIDA9", "id9", "2099-01-01T00:00:00Z"));
        let rows = [&ours, &forged];
        let refused = candidate(&host, &rows, None).unwrap_err();
        assert!(refused.what.contains("AROA:i-1") && refused.what.contains("id9"), "{refused:?}");
        assert_eq!(candidate(&host, &rows, Some("id1")).unwrap(), 0);
        assert_eq!(candidate(&host, &rows, Some("AIDA9")).unwrap(), 1);
        assert!(candidate(&host, &rows, Some("id7")).is_err() && candidate(&host, &[], None).is_err());
        assert_eq!(candidate(&host, &[&ours], None).unwrap(), 0);
    }
}
