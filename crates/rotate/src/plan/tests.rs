use super::*;
use crate::facts::{LastUsed, Store, StoreKind, TookBack, Value, Version, VersionId, WhyTakenBack};
use crate::record::{Deactivated, Lease, ProvedDead, Published, Revoked};

fn now() -> Timestamp {
    "2026-03-02T08:00:00Z".parse().unwrap()
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn key(id: &str, status: KeyStatus) -> Key {
    Key { id: KeyId::new(id), status, created: now() - days(40), last_used: LastUsed::Never }
}

fn version(id: &str, key: &str, label: &str) -> Version {
    let value = Value::Login(KeyId::new(key));
    Version { id: VersionId::new(id), created: now() - days(40), labels: vec![label.into()], value }
}

/// `NEW` is published, `OLD` Inactive, by us.
fn facts() -> Facts {
    let mut record = ControlRecord::new("ses");
    record.lease = Some(Lease { holder: "me".into(), until: now() + SignedDuration::from_mins(5) });
    let (version_id, new, old) = (VersionId::new("v2"), KeyId::new("NEW"), KeyId::new("OLD"));
    record.published = Some(Published { version: version_id, key: new, at: now() - days(20) });
    record.deactivated = vec![Deactivated { key: old.clone(), at: now() - days(10) }];
    record.old = Some(old);
    Facts {
        me: "me".into(),
        keys: vec![key("OLD", KeyStatus::Inactive), key("NEW", KeyStatus::Active)],
        store: Store {
            kind: StoreKind::SecretsManager,
            versions: vec![version("v1", "OLD", crate::facts::PREVIOUS), version("v2", "NEW", CURRENT)],
        },
        fleet: Vec::new(),
        gone: Vec::new(),
        record,
        logins: Vec::new(),
        unstored: None,
        gaps: Vec::new(),
    }
}

fn revoke(facts: &mut Facts, key: &str) {
    let (by, reason) = ("anna".into(), "leaked".into());
    facts.record.revoked.push(Revoked { key: KeyId::new(key), at: now() - days(9), by, reason });
}

fn policy() -> Policy {
    Policy::new(vec!["email-smtp.eu-west-1.amazonaws.com".into()])
}

fn classes(decision: &Decision) -> Vec<&'static str> {
    decision.refusals.iter().map(Refusal::class).collect()
}

fn says_cut_off(facts: &mut Facts) {
    let took_back = Some(TookBack { why: WhyTakenBack::AppliedRefused, keys: vec![KeyId::new("OLD")] });
    facts.fleet = vec![crate::facts::Host { took_back, ..crate::facts::Host::never_heard(HostName::new("mx1")) }];
}

#[test]
fn a_revoked_key_is_never_brought_back() {
    // By rule 1: it is published again, by whoever.
    let mut facts = facts();
    facts.store.versions[0].labels = vec![CURRENT.into()];
    facts.store.versions[1].labels.clear();
    let old = Action::Reactivate { key: KeyId::new("OLD"), host: None };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(old));
    revoke(&mut facts, "OLD");
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), decision.phase.clone()), (None, Phase::Revoked), "{decision:?}");
    assert_eq!(classes(&decision), ["revoked-key-published"]);
    // By rule 3: a host says that it needs it.
    let mut facts = self::facts();
    says_cut_off(&mut facts);
    let host = Some(HostName::new("mx1"));
    let old = Action::Reactivate { key: KeyId::new("OLD"), host };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(old));
    revoke(&mut facts, "OLD");
    let decision = plan(&facts, &policy(), now());
    assert!(!matches!(decision.action, Some(Action::Reactivate { .. })), "{decision:?}");
}

/// It withdrew, and what it said next does not tell of it any more.
#[test]
fn a_host_without_confirmation_that_logs_in_with_a_dead_key_gets_it_back() {
    let mut facts = facts();
    let mut host = crate::facts::Host::never_heard(HostName::new("mx1"));
    host.lists.in_use = vec![KeyId::new("OLD")];
    facts.fleet = vec![host];
    let host = Some(HostName::new("mx1"));
    let old = Action::Reactivate { key: KeyId::new("OLD"), host };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(old));
    // What it confirmed stands: it may have been looked at before.
    let (version, key) = (VersionId::new("v2"), KeyId::new("NEW"));
    let standing = crate::facts::Standing { version, key, at: now(), proof: crate::facts::Proved::True };
    facts.fleet[0].standing = Some(standing);
    assert!(!matches!(plan(&facts, &policy(), now()).action, Some(Action::Reactivate { .. })));
}

#[test]
fn a_key_of_ours_that_a_host_reports_in_use_is_no_leftover() {
    let mut facts = facts();
    facts.record.old = None;
    facts.store.versions.remove(0);
    facts.keys[0].status = KeyStatus::Active;
    let (at, until) = (facts.keys[0].created, facts.keys[0].created + SignedDuration::from_mins(5));
    facts.record.creating = vec![crate::record::Creating { at, until, key: Some(KeyId::new("OLD")) }];
    facts.fleet = vec![crate::facts::Host::never_heard(HostName::new("mx1"))];
    let cleared = Action::Deactivate { key: KeyId::new("OLD"), why: WhyGone::Leftover };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(cleared));
    facts.fleet[0].lists.in_use = vec![KeyId::new("OLD")];
    assert_eq!(plan(&facts, &policy(), now()).action, None);
}

#[test]
fn a_revoked_key_counts_as_deactivated_by_us() {
    let mut facts = facts();
    facts.record.deactivated.clear();
    assert!(classes(&plan(&facts, &policy(), now())).contains(&"deactivated-by-hand"));
    revoke(&mut facts, "OLD");
    let decision = plan(&facts, &policy(), now());
    let expected = Action::LogIn { key: KeyId::new("OLD"), purpose: Purpose::ProveDead };
    assert_eq!(decision.action, Some(expected));
    facts.record.proved_dead = Some(ProvedDead { key: KeyId::new("OLD"), at: now(), endpoints: Vec::new() });
    assert!(!classes(&plan(&facts, &policy(), now())).contains(&"deactivated-by-hand"));
}

#[test]
fn an_active_revoked_key_holds_everything_else() {
    let mut facts = facts();
    facts.keys[0].status = KeyStatus::Active;
    facts.record.deactivated.clear();
    revoke(&mut facts, "OLD");
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action, decision.reason), (None, Reason::Refused));
}

#[test]
fn without_the_lease_or_with_the_keys_unseen_nothing_is_done() {
    let mut facts = facts();
    says_cut_off(&mut facts);
    assert!(plan(&facts, &policy(), now()).action.is_some());
    let gap = Gap { part: Part::Keys, why: WhyUnseen::AccessDenied };
    let blind = Facts { gaps: vec![gap], ..facts.clone() };
    let decision = plan(&blind, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["access-denied"]));
    for lease in [None, Some(Lease { holder: "another".into(), until: now() + SignedDuration::from_mins(1) })] {
        facts.record.lease = lease;
        let decision = plan(&facts, &policy(), now());
        assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["busy"]));
    }
}

#[test]
fn every_refusal_has_words_and_a_fix() {
    let all = Refusal::one_of_each();
    let mut classes: Vec<_> = all.iter().map(Refusal::class).collect();
    for refusal in &all {
        let (words, fix) = (refusal.words(), refusal.fix());
        assert!(words.len() > 15 && fix.len() > 15, "{refusal:?}: {words} {fix}");
        // What is pasted is whole: backquotes come in pairs, and no place is left to be filled in.
        assert_eq!(fix.matches('`').count() % 2, 0, "{fix}");
        for command in fix.split('`').skip(1).step_by(2) {
            assert!(!command.contains(['<', '>', '…']), "{command}");
        }
    }
    classes.dedup();
    // As many as the contract has, and those of what is not there, and gives no answer.
    assert_eq!(classes.len(), 42);
    classes.sort_unstable();
    classes.dedup();
    assert_eq!(classes.len(), 42);
}
