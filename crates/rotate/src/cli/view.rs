//! One look, as people see it and as programs read it. Facts in, text or a document out: nothing here asks anybody.

mod document;
mod hosts;
mod places;
mod text;

use relaykey::fault::Fault;

use super::Exit;
use crate::facts::{Gap, KeyStatus, PENDING, Part, WhyUnseen};
use crate::plan::{Outcome, Phase};
use crate::policy::DeleteOld;
use crate::refusal::{Refusal, WaitsFor};
use crate::retire;
use crate::run::{Look, Turned};

pub use self::document::{ActionView, Document, FaultView, RefusalView, rfc3339};
pub use self::hosts::{HostView, confirmed, hosts};
pub use self::places::{PlaceView, places};
pub use self::text::{
    at_work, hosts_reported, last_login, number, over, progress, put, span, stamp, text, unpublished,
};

/// Of every document on standard output.
pub const SCHEMA: &str = "relaykey/rotate/v1";

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Nothing is due.
    Done,
    /// There is something to do, and it can be done.
    Acts,
    /// A clock runs.
    Time,
    /// Hosts, or people who have a say about them.
    People,
    /// It does not go on by waiting.
    ForGood,
    /// Somebody else is at work, or AWS did not answer.
    ForNow,
}

impl Stand {
    pub fn of(look: &Look) -> Self {
        let decision = &look.decision;
        // What one further place hides keeps nobody from an emergency in another.
        let told = |gap: &&Gap| decision.action.is_none() || !matches!(gap.part, Part::Further(_));
        let unseen = |why: &[WhyUnseen]| look.facts.gaps.iter().filter(told).any(|gap| why.contains(&gap.why));
        if unseen(&[WhyUnseen::AccessDenied, WhyUnseen::KmsDenied, WhyUnseen::UserMissing, WhyUnseen::SecretDeleting]) {
            return Stand::ForGood;
        }
        if look.busy.is_some() || unseen(&[WhyUnseen::Throttled]) {
            return Stand::ForNow;
        }
        if decision.action.is_some() {
            return Stand::Acts;
        }
        if let Some(fault) = look.faults.first() {
            return if fault.temporary { Stand::ForNow } else { Stand::ForGood };
        }
        let waits = |what| decision.refusals.iter().any(|refusal| refusal.waits_for() == what);
        match &decision.phase {
            Phase::Stuck(refusal) if !is_of_the_fleet(refusal) => Stand::ForGood,
            Phase::Stuck(_) => Stand::People,
            _ if waits(WaitsFor::Person) || waits(WaitsFor::Hosts) => Stand::People,
            Phase::Idle => Stand::Done,
            _ if is_complete(look, DeleteOld::Never) && !waits(WaitsFor::Time) => Stand::Done,
            _ => Stand::Time,
        }
    }

    /// Of a turn: what was decided and was not done speaks for itself.
    pub fn after(turned: &Turned) -> Self {
        match undone(turned) {
            Some(fault) if fault.temporary => Stand::ForNow,
            Some(_) => Stand::ForGood,
            None => Stand::of(&turned.look),
        }
    }

    /// Of a command that ends at once: what is waited for is no failure, unless it is people.
    pub fn exit(self) -> Exit {
        match self {
            Stand::Done | Stand::Acts | Stand::Time => Exit::Done,
            Stand::People => Exit::People,
            Stand::ForGood => Exit::ForGood,
            Stand::ForNow => Exit::ForNow,
        }
    }

    /// Of a check: whoever only waits, or whose work somebody else does, is in order.
    pub fn exit_of_a_check(self, busy: bool) -> Exit {
        match self {
            Stand::ForGood => Exit::ForGood,
            Stand::ForNow if !busy => Exit::ForNow,
            _ => Exit::Done,
        }
    }

    /// Of a rotation that is not complete when the time to wait for it is over.
    pub fn exit_at_the_end(self) -> Exit {
        match self {
            Stand::Acts | Stand::Time => Exit::ForNow,
            other => other.exit(),
        }
    }
}

/// Why what was decided was not done: its call failed, nobody knows what became of it, or it was dropped.
pub fn undone(turned: &Turned) -> Option<&Fault> {
    let last = turned.done.last();
    let failed = matches!(last, Some((_, Outcome::Failed | Outcome::Unknown)));
    let dropped = turned.look.decision.action.is_some() && turned.look.decision.action.as_ref() != last.map(|(a, _)| a);
    turned.look.faults.last().filter(|_| failed || dropped || !turned.wrote)
}

/// Is it about a host, or about which hosts there are?
fn is_of_the_fleet(refusal: &Refusal) -> bool {
    let fleet = matches!(refusal, Refusal::NoHosts | Refusal::RosterOpen { .. } | Refusal::OldKeyUsed { .. });
    fleet || refusal.host().is_some() && !matches!(refusal, Refusal::RegionRefused { .. } | Refusal::WouldCut { .. })
}

/// Is the last rotation over? The old key is gone, what is published is in use, and no host is cut off.
pub fn is_complete(look: &Look, delete: DeleteOld) -> bool {
    let (facts, record) = (&look.facts, &look.facts.record);
    let pending = facts.store.labelled(PENDING).is_some_and(|pending| !pending.carries(crate::facts::CURRENT));
    let begun = record.want.is_some() || facts.unstored.is_some() || pending || record.creating_now(look.now).is_some();
    let published = record.published.as_ref();
    let lives = published.is_some_and(|published| facts.status(&published.key) == Some(KeyStatus::Active));
    let lives = lives && published.is_none_or(|published| record.unlisted(&published.key).is_none());
    let lives = lives && retire::published_is_current(facts) && retire::further_stops(facts).is_empty();
    let cut_off = !record.trouble.is_empty() || facts.fleet.iter().any(|host| host.took_back.is_some());
    lives && old_is_gone(look, delete) && !begun && !cut_off
}

/// Is nothing left to be done about an old key? It is deleted; or, where keys are not deleted, deactivated and proved dead.
pub fn old_is_gone(look: &Look, delete: DeleteOld) -> bool {
    let (facts, record) = (&look.facts, &look.facts.record);
    match &record.old {
        None => true,
        Some(old) => {
            let dead = record.proved_dead.as_ref().is_some_and(|dead| dead.key == *old);
            delete == DeleteOld::Never && dead && facts.status(old) == Some(KeyStatus::Inactive)
        }
    }
}

/// The roster is sealed by what this look saw, and nobody has written that down yet.
pub fn seals_now(look: &Look) -> bool {
    look.facts.record.roster.sealed_at == Some(look.now)
}

/// That something cannot be seen: AWS's own words say it too, and why.
pub fn is_of_a_gap(refusal: &Refusal) -> bool {
    use Refusal::{AccessDenied, KmsDenied, NotFound, SecretDeleting, UserMissing};
    matches!(refusal, AccessDenied { .. } | KmsDenied { .. } | NotFound { .. } | SecretDeleting { .. } | UserMissing)
}

#[cfg(test)]
mod tests;
