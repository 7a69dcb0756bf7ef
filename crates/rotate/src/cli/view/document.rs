//! One look as a document, for programs.

use jiff::Timestamp;
use serde::Serialize;

use super::super::Exit;
use super::hosts::{HostView, hosts};
use super::{SCHEMA, is_complete, places, seals_now};
use crate::config::Credential;
use crate::facts::{HostName, Key, KeyId, KeyStatus, LastUsed};
use crate::plan::Phase;
use crate::record::Lease;
use crate::refusal::{Refusal, WaitsFor};
use crate::retire;
use crate::run::Look;

/// One look as a document.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    pub schema: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lab: bool,
    pub credential: &'a str,
    pub at: String,
    /// One word.
    pub phase: String,
    pub reason: String,
    pub action: Option<ActionView>,
    pub next: Option<String>,
    pub complete: bool,
    pub keys: Vec<KeyView<'a>>,
    pub published: Option<PublishedView<'a>>,
    /// Where hosts read it: the first place, then the others.
    pub places: Vec<PlaceDocument>,
    pub old: Option<&'a str>,
    pub wanted_by: Option<&'a str>,
    pub complete_at: Option<String>,
    pub roster: RosterView<'a>,
    pub confirmed: usize,
    /// Hosts that a person vouches for.
    pub waived: usize,
    /// The worst first.
    pub hosts: Vec<HostDocument<'a>>,
    pub refusals: Vec<RefusalView<'a>>,
    pub faults: Vec<FaultView<'a>>,
    pub busy: Option<BusyView<'a>>,
    pub exit: u8,
}

#[derive(Debug, Serialize)]
pub struct ActionView {
    pub action: &'static str,
    pub key: Option<String>,
    pub version: Option<String>,
    pub words: String,
}

impl ActionView {
    pub fn of(action: &crate::plan::Action) -> Self {
        Self {
            action: action.class(),
            key: action.key().map(|key| key.as_str().to_owned()),
            version: action.version().map(|version| version.as_str().to_owned()),
            words: action.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct KeyView<'a> {
    pub key: &'a str,
    pub active: bool,
    pub created: String,
    pub last_used: Option<String>,
    /// Where it was last used, or `never`, or `unknown`.
    pub last_used_by: &'a str,
}

#[derive(Debug, Serialize)]
pub struct PublishedView<'a> {
    pub key: &'a str,
    pub version: &'a str,
    pub at: String,
}

#[derive(Debug, Serialize)]
pub struct PlaceDocument {
    pub place: String,
    /// What it gives; none where it gives no login, or could not be looked at.
    pub key: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct RosterView<'a> {
    pub sealed_at: Option<String>,
    pub expect: Option<usize>,
    pub heard: usize,
    pub names: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct HostDocument<'a> {
    pub host: &'a str,
    /// Nothing stands in the way at this host.
    pub done: bool,
    pub verdict: &'static str,
    pub words: String,
    /// Its agent's own.
    pub says: Option<&'a str>,
    pub refusals: Vec<&'static str>,
    pub key: Option<&'a str>,
    pub heard: Option<String>,
    pub poll_s: Option<i64>,
    pub waived: bool,
}

#[derive(Debug, Serialize)]
pub struct RefusalView<'a> {
    pub class: &'static str,
    pub host: Option<&'a str>,
    /// `time`, `hosts` or `person`.
    pub waits_for: &'static str,
    pub what: String,
    pub fix: String,
}

#[derive(Debug, Serialize)]
pub struct FaultView<'a> {
    pub class: &'static str,
    pub temporary: bool,
    pub what: &'a str,
    pub fix: &'a str,
}

impl<'a> FaultView<'a> {
    pub fn of(fault: &'a relaykey::fault::Fault) -> Self {
        Self { class: fault.class.word(), temporary: fault.temporary, what: &fault.what, fix: &fault.fix }
    }
}

#[derive(Debug, Serialize)]
pub struct BusyView<'a> {
    pub holder: &'a str,
    pub who: Option<&'a str>,
    pub since: Option<String>,
    pub until: String,
}

impl<'a> BusyView<'a> {
    fn of(lease: &'a Lease) -> Self {
        let (who, since) = (lease.who.as_deref(), lease.since.map(rfc3339));
        Self { holder: &lease.holder, who, since, until: rfc3339(lease.until) }
    }
}

/// RFC 3339, whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.0}")
}

impl<'a> Document<'a> {
    pub fn of(credential: &'a Credential, look: &'a Look, lab: bool, exit: Exit) -> Self {
        let (facts, record, decision) = (&look.facts, &look.facts.record, &look.decision);
        let hosts = hosts(look);
        let key = |key: &'a Key| KeyView {
            key: key.id.as_str(),
            active: key.status == KeyStatus::Active,
            created: rfc3339(key.created),
            last_used: match &key.last_used {
                LastUsed::At { at, .. } => Some(rfc3339(*at)),
                LastUsed::Never | LastUsed::Unknown => None,
            },
            last_used_by: match &key.last_used {
                LastUsed::At { service, .. } => service,
                LastUsed::Never => "never",
                LastUsed::Unknown => "unknown",
            },
        };
        let place = |place: &super::places::PlaceView<'_>| PlaceDocument {
            place: place.place.clone(),
            key: place.key().map(|key| key.as_str().to_owned()),
        };
        let phase = match &decision.phase {
            Phase::Stuck(_) => "stuck".to_owned(),
            other => other.to_string(),
        };
        Self {
            schema: SCHEMA,
            lab,
            credential: &credential.name,
            at: rfc3339(look.now),
            phase,
            reason: decision.reason.to_string(),
            action: decision.action.as_ref().map(ActionView::of),
            next: decision.next.map(rfc3339),
            complete: is_complete(look, credential.policy.delete),
            keys: facts.keys.iter().map(key).collect(),
            published: record.published.as_ref().map(|published| PublishedView {
                key: published.key.as_str(),
                version: published.version.as_str(),
                at: rfc3339(published.at),
            }),
            places: places(look).iter().map(place).collect(),
            old: record.old.as_ref().map(KeyId::as_str),
            wanted_by: record.want.as_ref().map(|want| want.by.as_str()),
            complete_at: record.complete_at.map(rfc3339),
            roster: RosterView {
                sealed_at: record.roster.sealed_at.filter(|_| !seals_now(look)).map(rfc3339),
                expect: record.roster.expect,
                heard: retire::heard_of(facts, look.now),
                names: record.roster.names.iter().map(HostName::as_str).collect(),
            },
            confirmed: hosts.iter().filter(|host| host.is_confirmed()).count(),
            waived: hosts.iter().filter(|host| host.is_done() && !host.is_confirmed()).count(),
            hosts: hosts.iter().map(host_document).collect(),
            refusals: decision.refusals.iter().map(RefusalView::of).collect(),
            faults: look.faults.iter().map(FaultView::of).collect(),
            busy: look.busy.as_ref().map(BusyView::of),
            exit: exit.code(),
        }
    }
}

fn host_document<'a>(view: &HostView<'a>) -> HostDocument<'a> {
    let host = view.host;
    HostDocument {
        host: host.name.as_str(),
        done: view.is_done(),
        verdict: view.verdict.class(),
        words: if view.is_done() { view.verdict.to_string() } else { view.words() },
        says: host.says.as_deref(),
        refusals: view.stops.iter().map(Refusal::class).collect(),
        key: host.standing.as_ref().map(|standing| standing.key.as_str()),
        heard: host.heard.map(rfc3339),
        poll_s: host.poll.map(|poll| poll.as_secs()),
        waived: view.waived,
    }
}

impl<'a> RefusalView<'a> {
    pub fn of(refusal: &'a Refusal) -> Self {
        let waits_for = match refusal.waits_for() {
            WaitsFor::Time => "time",
            WaitsFor::Hosts => "hosts",
            WaitsFor::Person => "person",
        };
        let host = refusal.host().map(HostName::as_str);
        Self { class: refusal.class(), host, waits_for, what: refusal.words(), fix: refusal.fix() }
    }
}
