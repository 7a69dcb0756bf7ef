//! The hosts of one look, each with what stands in its way.

use crate::evidence::{Verdict, verdict};
use crate::facts::{Host, KeyId};
use crate::refusal::Refusal;
use crate::retire;
use crate::run::Look;

/// One host, and what stands in its way.
pub struct HostView<'a> {
    pub host: &'a Host,
    pub verdict: Verdict,
    /// The key that it is to have.
    published: Option<&'a KeyId>,
    pub stops: Vec<Refusal>,
    pub waived: bool,
}

impl HostView<'_> {
    pub fn is_done(&self) -> bool {
        self.stops.is_empty()
    }

    /// It has the new key, and says so itself. Else a person vouches for it, where nothing stands in its way.
    pub fn is_confirmed(&self) -> bool {
        self.is_done() && matches!(self.verdict, Verdict::True { .. })
    }

    /// More than that it has not come to the new key yet.
    pub fn is_in_trouble(&self) -> bool {
        let waits = |stop: &Refusal| matches!(stop, Refusal::OtherVersion { .. } | Refusal::HostUnconfirmed { .. });
        self.host.says.is_some() || !self.stops.iter().all(waits)
    }

    /// The worse, the lower.
    fn rank(&self) -> u32 {
        let worst = |refusal: &Refusal| match refusal {
            Refusal::ProofFalse { .. } => 0,
            Refusal::Withdrawn { .. } => 1,
            Refusal::NameTwice { .. } | Refusal::IdentityShared { .. } => 2,
            Refusal::OldKeyElsewhere { .. } | Refusal::RemainingOld { .. } | Refusal::Incomplete { .. } => 3,
            Refusal::HostSilent { .. } => 4,
            Refusal::Clock { .. } | Refusal::AgentTooOld { .. } | Refusal::ProofMissing { .. } => 5,
            _ => 6,
        };
        let trouble = u32::from(self.host.says.is_none() && self.host.failed.is_none());
        self.stops.iter().map(|refusal| 2 * worst(refusal) + trouble).min().unwrap_or(u32::MAX)
    }

    /// What is wrong with it, in its agent's own words where it has any.
    pub fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        for stop in &self.stops {
            let said = match stop {
                // The host's name stands in front.
                Refusal::ProofFalse { .. } => "its proof was not made with the new key: forged, or a fault".into(),
                // Which version matters only where the key is the same.
                Refusal::OtherVersion { key, .. } if Some(key) != self.published => format!("still on {key}"),
                Refusal::HostUnconfirmed { .. } | Refusal::OtherVersion { .. } | Refusal::HostSilent { .. } => {
                    self.verdict.to_string()
                }
                other => other.words().trim_start_matches(self.host.name.as_str()).trim_start().to_owned(),
            };
            words.push(said);
        }
        if let Some(says) = &self.host.says {
            words.push(format!("it says: {says}"));
        }
        words.join("; ")
    }
}

/// Every host, the worst first.
pub fn hosts(look: &Look) -> Vec<HostView<'_>> {
    let record = &look.facts.record;
    let mut hosts: Vec<HostView> = look.facts.fleet.iter().map(|host| host_view(look, host)).collect();
    hosts.sort_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| a.host.name.cmp(&b.host.name)));
    debug_assert!(hosts.len() == look.facts.fleet.len() || record.published.is_none());
    hosts
}

fn host_view<'a>(look: &'a Look, host: &'a Host) -> HostView<'a> {
    let record = &look.facts.record;
    let waived = host.waiver.as_ref().is_some_and(|waiver| waiver.until > look.now);
    match &record.published {
        Some(published) => {
            let old = record.old.as_ref();
            let stops = retire::stops_of(host, &published.version, &published.key, old, look.now);
            let verdict = verdict(host, &published.version, &published.key, look.now);
            HostView { host, verdict, published: Some(&published.key), stops, waived }
        }
        None => {
            let stops = vec![Refusal::HostUnconfirmed { host: host.name.clone() }];
            let verdict = match host.heard {
                Some(_) => Verdict::Unconfirmed,
                None => Verdict::NeverHeard,
            };
            HostView { host, verdict, published: None, stops, waived }
        }
    }
}

/// `confirmed n/m`, and how many others a person vouches for.
pub fn confirmed(hosts: &[HostView]) -> String {
    let confirmed = hosts.iter().filter(|host| host.is_confirmed()).count();
    let waived = hosts.iter().filter(|host| host.is_done() && !host.is_confirmed()).count();
    let waived = if waived > 0 { format!(", {waived} waived") } else { String::new() };
    format!("confirmed {confirmed}/{}{waived}", hosts.len())
}
