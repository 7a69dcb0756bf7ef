//! What each mail server would really use.

use std::time::SystemTime;

use super::super::Exit;
use super::{Findings, held};
use crate::agent::{self, TriedEarlier};
use crate::apply::{self, Inspected, LiveEntry, Ours, Reply, Request, Running, TargetId};
use crate::config::{self, Finding, Severity};
use crate::fault::Class;
use crate::instruction::relaykey;
use crate::rollover::State;
use crate::source::EarlierVersions;
use crate::status::UNREAD_FIX;
use crate::wake::log;

/// What is said of a key that the mail server looks up and that holds a login which nobody here knows. `sync` takes it for
/// an error, unless it is that of the version that the source gives.
pub(super) struct Foreign {
    pub(super) about: String,
    pub(super) username: Option<String>,
    pub(super) finding: Finding,
}

/// A warning that `sync` may fail of: that is decided when it is known what the source gives, and is then said as an error alone.
pub(super) struct Undecided {
    pub(super) target: String,
    pub(super) finding: Finding,
    pub(super) matter: UndecidedMatter,
}

/// What an undecided warning is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UndecidedMatter {
    /// A line whose text is not what the mail server uses.
    TextNotInUse,
    /// The mail server does not run.
    Stopped,
}

/// What was seen, target by target, and what is to be said of it later.
#[derive(Default)]
pub(super) struct TargetsSeen {
    pub(super) targets: Vec<Option<Inspected>>,
    pub(super) foreign: Vec<Foreign>,
    pub(super) unknown: Vec<Unknown>,
    pub(super) undecided: Vec<Undecided>,
}

/// A key that gives a login which this host does not know; the source may.
pub(super) struct Unknown {
    pub(super) about: String,
    pub(super) place: String,
    pub(super) username: String,
}

/// What each mail server would really use, and its settings that make a rotation lose mail. Gives what was seen, target by
/// target, and what is to be said once it is known what the source gives.
pub(super) async fn targets(
    credential: &config::Credential,
    state: Option<&State>,
    ours: &Ours,
    (named, tried): (&EarlierVersions, &mut TriedEarlier),
    apply: &apply::Client,
    findings: &mut Findings,
) -> TargetsSeen {
    let name = Some(credential.name.as_str());
    let TargetsSeen { targets: mut all, mut foreign, mut unknown, mut undecided } = TargetsSeen::default();
    for target in &credential.targets {
        let about = format!("target {}", target.name);
        let look = |tried: &TriedEarlier| {
            let id = TargetId { credential: credential.name.clone(), target: target.name.clone() };
            apply.call(Request::Inspect {
                target: id,
                ours: agent::with_named(ours.clone(), named, &target.smtp, tried),
            })
        };
        let mut reply = look(tried);
        // As a run does it.
        if let Ok(Reply::Inspected(seen)) = &reply
            && seen.asks_for_proof
            && agent::try_earlier(tried, named, &target.smtp, &agent::host_name()).await
        {
            reply = look(tried);
        }
        match reply {
            Ok(Reply::Inspected(seen)) => {
                all.push(Some((*seen).clone()));
                for entry in seen.entries.iter().filter(|e| e.is_live_key) {
                    let place = format!("{} in {}", entry.key, entry.map);
                    match &entry.username {
                        Some(who) => match ours.shown(who, None) {
                            Some(who) => findings.good(name, &about, format!("{place} gives {who}")),
                            None => unknown.push(Unknown { about: about.clone(), place, username: who.clone() }),
                        },
                        // There is a finding about it.
                        None if seen.missing.contains(&entry.key) => {}
                        None => findings.add(
                            name,
                            &about,
                            Finding {
                                severity: Severity::Warning,
                                line: entry.line,
                                file: None,
                                what: format!(
                                    "{} in {} gives no usable login, so mail bounces or waits",
                                    entry.key, entry.map
                                ),
                                fix: match target.write {
                                    true if stands_in_the_way(entry, &seen.findings) => {
                                        "mend first what else is said of this target: until then relaykey puts nothing there".into()
                                    }
                                    true => format!("the next rollover puts one there: {}", relaykey("sync")),
                                    false => format!("put one there by hand: {} says how", relaykey("sync")),
                                },
                            },
                        ),
                    }
                }
                held::other_keys(&credential.name, &about, ours, &seen, findings);
                for finding in seen.findings {
                    // Where a person changes the table, it is part of the change until that is done.
                    let is_of = |e: &&LiveEntry| e.is_live_key && is_about(&finding, e);
                    let entry = seen.entries.iter().find(is_of).filter(|_| target.write);
                    match entry {
                        Some(entry) if finding.severity != Severity::Error && !is_ours(ours, entry) => {
                            let (about, username) = (about.clone(), entry.username.clone());
                            foreign.push(Foreign { about, username, finding });
                        }
                        Some(entry) if finding.severity == Severity::Warning && entry.live_id != entry.text_id => {
                            let (target, matter) = (target.name.clone(), UndecidedMatter::TextNotInUse);
                            undecided.push(Undecided { target, finding, matter });
                        }
                        _ => findings.add(name, &about, finding),
                    }
                }
                undecided.extend(seen.stopped.map(|finding| {
                    let (target, matter) = (target.name.clone(), UndecidedMatter::Stopped);
                    Undecided { target, finding, matter }
                }));
                let place = log::find(&target.log, seen.log.as_deref(), SystemTime::now());
                if let Some(finding) = place.ok().and_then(|place| place.unreadable()) {
                    findings.add(name, &about, finding);
                }
                for finding in seen.beside {
                    findings.add(name, &about, finding);
                }
                if let Some((finding, temporary)) = seen.hindrances.and_then(|hindrances| hindrances.not_lockable) {
                    findings.add_that(if temporary { Exit::ForNow } else { Exit::ForGood }, name, &about, finding);
                }
                if let Some(unread) = seen.unread.filter(|_| !target.reload.is_ours()) {
                    let (what, fix) = (unread.why, UNREAD_FIX.to_owned());
                    findings.add(
                        name,
                        &about,
                        Finding { severity: Severity::Warning, line: None, file: None, what, fix },
                    );
                }
                if let Some(owed) = seen.reload_owed {
                    // Nothing that `sync` does settles it, or what it did failed, and is done again.
                    let failed = state
                        .and_then(|state| state.targets.get(&target.name))
                        .filter(|target| target.reload_owed.is_some())
                        .and_then(|target| target.retry.failure.as_ref());
                    let stays = failed.is_some() || !target.reload.is_ours() || seen.running == Running::No;
                    findings.add_that(
                        if stays { Exit::ForNow } else { Exit::Done },
                        name,
                        &about,
                        Finding {
                            severity: if stays { Severity::Error } else { Severity::Warning },
                            line: None,
                            file: None,
                            what: format!("a reload is owed: {}", owed.why),
                            fix: match failed.filter(|failed| failed.class == Class::ReloadOwed) {
                                Some(failed) => failed.fix.clone(),
                                None => format!(
                                    "start or restart the mail server, which settles it; where `reload` is not \"never\": {}",
                                    relaykey("sync")
                                ),
                            },
                        },
                    );
                }
            }
            Ok(_) => unreachable!("Inspect is answered by Inspected"),
            Err(e) => {
                all.push(None);
                let ends = if e.temporary { Exit::ForNow } else { Exit::ForGood };
                let (file, line) = (e.file.clone(), e.line);
                let finding = Finding { severity: Severity::Error, line, file, what: e.what, fix: e.fix };
                findings.add_that(ends, name, &about, finding);
            }
        }
    }
    TargetsSeen { targets: all, foreign, unknown, undecided }
}

/// Does anything keep relaykey from putting a login in the place of an entry that holds none?
fn stands_in_the_way(entry: &LiveEntry, findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.severity == Severity::Error || f.severity == Severity::Warning && is_about(f, entry))
}

/// Is it said of the line of this entry?
fn is_about(finding: &Finding, entry: &LiveEntry) -> bool {
    finding.line.is_some() && (finding.file.as_ref(), finding.line) == (Some(&entry.file), entry.line)
}

fn is_ours(ours: &Ours, entry: &LiveEntry) -> bool {
    let Some(username) = &entry.username else { return false };
    [&ours.applied, &ours.previous].contains(&&Some(username.clone()))
        || ours.known.contains(username)
        || ours.named.contains(username)
}
