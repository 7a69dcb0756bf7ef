use super::*;
use crate::facts::{Gap, LastUsed, Store, StoreKind, TookBack, Value, Version, VersionId, WhyTakenBack, WhyUnseen};
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
    record.lease = Some(Lease { holder: "me".into(), until: now() + SignedDuration::from_mins(5), ..Lease::default() });
    let (version_id, new, old) = (VersionId::new("v2"), KeyId::new("NEW"), KeyId::new("OLD"));
    record.published = Some(Published { version: version_id, key: new, at: now() - days(20) });
    record.deactivated = vec![Deactivated { key: old.clone(), at: now() - days(10), unanswered: false }];
    record.old = Some(old);
    Facts {
        me: "me".into(),
        user: crate::facts::IamUser::default(),
        keys: vec![key("OLD", KeyStatus::Inactive), key("NEW", KeyStatus::Active)],
        store: Store {
            kind: StoreKind::SecretsManager,
            versions: vec![version("v1", "OLD", crate::facts::PREVIOUS), version("v2", "NEW", CURRENT)],
        },
        place: crate::facts::KeyPlace::secret("a"),
        further: Vec::new(),
        behind: Vec::new(),
        outdated: Vec::new(),
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
    facts.record.deactivated.clear();
    let (at, until) = (facts.keys[0].created, facts.keys[0].created + SignedDuration::from_mins(5));
    facts.record.creating = vec![crate::record::Creating { at, until, key: Some(KeyId::new("OLD")), before: None }];
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
    for lease in [
        None,
        Some(Lease { holder: "another".into(), until: now() + SignedDuration::from_mins(1), ..Lease::default() }),
    ] {
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
    classes.sort_unstable();
    classes.dedup();
    // As many as the contract has, those of what is not there, gives no answer, or follows late, and those of several places; and
    // what IAM does not list, and our own clock.
    assert_eq!(classes.len(), 51);
}

/// By a person, by a host's word, or by the label: the next looks do not deactivate it again, as if nothing had been.
#[test]
fn a_key_that_was_brought_back_has_all_its_time_again() {
    let mut facts = facts();
    let host = crate::facts::Host {
        waiver: Some(crate::facts::Waiver {
            reason: "on its way out".into(),
            by: "anna".into(),
            until: now() + days(60),
        }),
        ..crate::facts::Host::never_heard(HostName::new("mx1"))
    };
    facts.fleet = vec![host];
    facts.record.roster.sealed_at = Some(now() - days(30));
    facts.record.complete_at = Some(now() - days(15));
    facts.keys[0].status = KeyStatus::Active;
    let (old, host) = (KeyId::new("OLD"), None);
    let looked = |facts: &Facts, now| {
        let record = crate::record::look(facts, &policy(), now);
        let lease = Some(Lease { holder: "me".into(), until: now + SignedDuration::from_mins(5), ..Lease::default() });
        let facts = Facts { record: ControlRecord { lease, ..record }, ..facts.clone() };
        (plan(&facts, &policy(), now).action, facts)
    };
    // As it would go on: its clocks are over.
    let before = ControlRecord { deactivated: Vec::new(), ..facts.record.clone() };
    let before = Facts { record: before, ..facts.clone() };
    assert_eq!(looked(&before, now()).0, Some(Action::Intend { key: old.clone() }));
    let action = Action::Reactivate { key: old.clone(), host };
    facts.record.done(&action, &Outcome::Done, &facts.clone(), &policy(), now());
    assert!(facts.record.deactivated_by_us(&old).is_none());
    let (action, facts) = looked(&facts, now());
    assert_eq!((action, facts.record.complete_at), (None, Some(now())));
    assert_eq!(looked(&facts, now() + SignedDuration::from_hours(23)).0, None);
    assert_eq!(looked(&facts, now() + days(1)).0, Some(Action::Intend { key: old }));
}

/// A key of KMS that denies, and a host without a login: it gets the key back that it names. Nothing else is done.
#[test]
fn a_host_that_is_cut_off_does_not_wait_for_a_store_that_cannot_be_read() {
    let mut facts = facts();
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    let gap = |part| Gap { part, why: WhyUnseen::KmsDenied };
    facts.store.versions.clear();
    facts.gaps = vec![gap(Part::Store)];
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action, decision.reason), (None, Reason::Refused));
    says_cut_off(&mut facts);
    let decision = plan(&facts, &policy(), now());
    let host = Some(HostName::new("mx1"));
    assert_eq!(decision.action, Some(Action::Reactivate { key: KeyId::new("OLD"), host }));
    assert_eq!((decision.phase, decision.refusals), (Phase::Trouble, vec![Refusal::KmsDenied { part: Part::Store }]));
    assert_eq!(crate::checker::check(&plan(&facts, &policy(), now()), &facts, &policy(), now()), []);
    // Not if a person did that, who had brought it back before: also that was seen without the store.
    let mut by_hand = facts.clone();
    by_hand.keys[0].status = KeyStatus::Active;
    by_hand.record = crate::record::look(&by_hand, &policy(), now());
    by_hand.keys[0].status = KeyStatus::Inactive;
    assert_eq!(plan(&by_hand, &policy(), now()).action, None);
    for part in [Part::Keys, Part::Fleet] {
        let blind = Facts { gaps: vec![gap(Part::Store), gap(part)], ..facts.clone() };
        assert_eq!(plan(&blind, &policy(), now()).action, None);
    }
}

/// The published key is gone, and the value that is left is refused.
#[test]
fn a_value_that_was_refused_is_not_published_again_and_a_new_key_waits_for_the_back_off() {
    let mut facts = facts();
    facts.keys = vec![key("OLD", KeyStatus::Active)];
    (facts.record.deactivated, facts.record.old) = (Vec::new(), None);
    let again = Action::Republish { from: VersionId::new("v1"), key: KeyId::new("OLD") };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(again.clone()));
    let backoff = |key: &str, attempts, minutes| {
        let until = now() + SignedDuration::from_mins(minutes);
        Some(crate::record::Backoff { key: KeyId::new(key), attempts, until })
    };
    facts.record.backoff = backoff("OLD", 1, 15);
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["ses-refuses"]), "{decision:?}");
    // A host that is cut off is heard meanwhile.
    let mut cut_off = facts.clone();
    says_cut_off(&mut cut_off);
    cut_off.keys.push(key("NEWEST", KeyStatus::Active));
    cut_off.keys[0].status = KeyStatus::Inactive;
    cut_off.record.deactivated = self::facts().record.deactivated;
    assert!(matches!(plan(&cut_off, &policy(), now()).action, Some(Action::Reactivate { .. })));
    // Over: a new one where there is place for it, else the same again.
    facts.record.backoff = backoff("OLD", 1, 0);
    assert_eq!(plan(&facts, &policy(), now()).action, Some(Action::Create));
    facts.keys.push(key("ANOTHER", KeyStatus::Active));
    assert_eq!(plan(&facts, &policy(), now()).action, Some(again.clone()));
    // Another one was refused: this is tried at once, and waits when two were.
    facts.record.backoff = backoff("ANOTHER", 1, 15);
    assert_eq!(plan(&facts, &policy(), now()).action, Some(again));
    facts.record.backoff = backoff("ANOTHER", 2, 15);
    assert_eq!(plan(&facts, &policy(), now()).action, None);
}

#[test]
fn a_host_that_is_cut_off_is_told_where_no_old_key_is_left() {
    let mut facts = facts();
    facts.keys.retain(|key| key.id.as_str() == "NEW");
    (facts.record.old, facts.record.deactivated) = (None, Vec::new());
    assert!(classes(&plan(&facts, &policy(), now())).is_empty());
    says_cut_off(&mut facts);
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action, classes(&plan(&facts, &policy(), now()))), (None, vec!["withdrawn"]));
}

#[test]
fn a_canary_that_is_waited_for_is_named() {
    let mut facts = facts();
    let policy = Policy { canary: Some("canary".into()), ..policy() };
    facts.keys = vec![key("NEW", KeyStatus::Active), key("NEXT", KeyStatus::Active)];
    (facts.record.old, facts.record.deactivated) = (None, Vec::new());
    let mut pending = version("v3", "NEXT", crate::facts::PENDING);
    pending.labels.push("canary".into());
    facts.store.versions.push(pending);
    let until = now() - days(1);
    let made = crate::record::Creating { at: until, until, key: Some(KeyId::new("NEXT")), before: None };
    facts.record.creating = vec![made];
    let login = |endpoint: &String| crate::facts::Login {
        key: KeyId::new("NEXT"),
        endpoint: endpoint.clone(),
        reply: LoginReply::Accepted,
        at: now(),
    };
    facts.logins = policy.endpoints.iter().map(login).collect();
    let host = crate::facts::Host {
        watches: vec!["canary".into()],
        heard: Some(now() - days(9)),
        alive_due: Some(now() - days(8)),
        ..crate::facts::Host::never_heard(HostName::new("mx1"))
    };
    facts.fleet = vec![host];
    let decision = plan(&facts, &policy, now());
    assert_eq!(decision.reason, Reason::CanaryWaits { confirmed: 0, of: 1 });
    let named: Vec<_> = decision.refusals.iter().filter_map(Refusal::host).map(HostName::as_str).collect();
    assert_eq!(named, ["mx1"], "{decision:?}");
    // Nobody can vouch for what was not tried.
    let until = now() + days(9);
    facts.fleet[0].waiver = Some(crate::facts::Waiver { reason: "down for repair".into(), by: "anna".into(), until });
    let decision = plan(&facts, &policy, now());
    assert_eq!(classes(&decision), ["host-unconfirmed"]);
}

/// IAM does not list it yet, or not any more: our own record says that it was made a moment ago.
#[test]
fn a_key_that_was_made_just_now_is_there_although_iam_does_not_list_it() {
    use crate::policy::LISTED_LATE;
    use crate::record::{Creating, Made, take_in};
    let new = KeyId::new("MADE");
    let mut facts = facts();
    facts.record.old = None;
    facts.keys.remove(0);
    facts.record.creating =
        vec![Creating { at: now(), until: now() + LISTED_LATE * 2, key: Some(new.clone()), before: None }];
    facts.record.made = vec![Made { key: new.clone(), at: now(), unlisted: false }];
    facts.record.lease.as_mut().unwrap().until = now() + LISTED_LATE * 2;
    facts.unstored = Some(new.clone());
    let at = |now| {
        let mut facts = facts.clone();
        take_in(&mut facts, &policy(), now);
        plan(&facts, &policy(), now).action
    };
    let second = SignedDuration::from_secs(1);
    assert_eq!(at(now() + LISTED_LATE - second), Some(Action::Put { key: new.clone(), publishes: false }));
    assert_eq!(at(now() + LISTED_LATE), Some(Action::Forget { key: new.clone(), refused: false }));
    // Published already: no other one is made in its place.
    facts.store.versions.push(version("v3", "MADE", CURRENT));
    facts.store.versions[1].labels.clear();
    facts.unstored = None;
    facts.record.published = Some(Published { version: VersionId::new("v3"), key: new.clone(), at: now() });
    let mut seen = facts.clone();
    take_in(&mut seen, &policy(), now());
    assert!(!matches!(plan(&seen, &policy(), now()).reason, Reason::PublishedKeyGone(_)));
}

/// Where what is put is published, a stored value that SES refuses has its turn once: then another one, or a new key.
#[test]
fn a_stored_value_that_ses_refuses_is_not_waited_for() {
    let mut facts = facts();
    facts.store.kind = StoreKind::ParameterStore;
    facts.record.deactivated.clear();
    facts.record.old = None;
    facts.keys = vec![key("OLD", KeyStatus::Active)];
    let (key, at) = (KeyId::new("OLD"), now());
    let endpoint = policy().endpoints.remove(0);
    facts.logins = vec![crate::facts::Login { key: key.clone(), endpoint, reply: LoginReply::Refused, at }];
    let decision = plan(&facts, &policy(), now());
    let action = Action::Forget { key, refused: true };
    assert_eq!(decision.action, Some(action.clone()));
    let seen = facts.clone();
    facts.record.done(&action, &Outcome::Done, &seen, &policy(), now());
    assert_eq!(plan(&facts, &policy(), now()).action, None);
    let later = now() + SignedDuration::from_mins(16);
    facts.record.lease.as_mut().unwrap().until = later + days(1);
    assert_eq!(plan(&facts, &policy(), later).action, Some(Action::Create));
}

/// That nothing uses a key is said only where all was seen that would tell.
#[test]
fn a_key_that_may_be_in_use_is_not_called_unused() {
    let used = |set: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        facts.record.old = None;
        facts.keys[0].status = KeyStatus::Active;
        set(&mut facts);
        let decision = plan(&facts, &policy(), now());
        let used = decision.refusals.into_iter().find_map(|refusal| match refusal {
            Refusal::UnexplainedKey { key, used } if key.as_str() == "OLD" => Some(used),
            _ => None,
        });
        used.expect("it is unexplained")
    };
    assert_eq!(used(&|_| {}), KnownUse::Nothing);
    let at = |days_ago| LastUsed::At { at: now() - days(days_ago), service: "ses".into(), region: "eu-west-1".into() };
    assert_eq!(
        used(&|facts| facts.keys[0].last_used = at(2)),
        KnownUse::Used { at: now() - days(2), service: "ses".into() }
    );
    assert_eq!(used(&|facts| facts.keys[0].last_used = at(200)), KnownUse::Nothing);
    assert_eq!(used(&|facts| facts.keys[0].last_used = LastUsed::Unknown), KnownUse::NotKnown);
    // IAM tells a day late.
    assert_eq!(used(&|facts| facts.keys[0].created = now() - SignedDuration::from_hours(1)), KnownUse::NotKnown);
    // What is published cannot be read, or nothing is: it may be this very key.
    assert_eq!(used(&|facts| facts.store.versions[0].value = Value::Unreadable), KnownUse::NotKnown);
    assert_eq!(used(&|facts| facts.store.versions.clear()), KnownUse::NotKnown);
    let host = HostName::new("mx1");
    let names = |facts: &mut Facts| {
        let mut named = crate::facts::Host::never_heard(HostName::new("mx1"));
        named.lists.others = vec![KeyId::new("OLD")];
        facts.fleet = vec![named];
    };
    assert_eq!(used(&names), KnownUse::Named { host });
    assert_eq!(used(&|facts| facts.keys[0].status = KeyStatus::Inactive), KnownUse::Inactive);
}

/// An endpoint that cannot be reached says nothing of the key.
#[test]
fn no_answer_is_not_called_a_refusal() {
    let mut facts = facts();
    let next = KeyId::new("NEXT");
    facts.record.old = None;
    facts.keys = vec![key("NEW", KeyStatus::Active), key("NEXT", KeyStatus::Active)];
    let until = now() + SignedDuration::from_mins(5);
    facts.record.creating.push(crate::record::Creating { at: now(), until, key: Some(next.clone()), before: None });
    facts.store.versions.push(Version { created: now(), ..version("v3", "NEXT", PENDING) });
    let endpoint = policy().endpoints.remove(0);
    let reason = |reply| {
        let login = crate::facts::Login { key: next.clone(), endpoint: endpoint.clone(), reply, at: now() };
        plan(&Facts { logins: vec![login], ..facts.clone() }, &policy(), now()).reason
    };
    let key = || next.clone();
    assert_eq!(
        reason(LoginReply::NoAnswer),
        Reason::Unanswered { key: key(), until: now() + SignedDuration::from_hours(1) }
    );
    assert_eq!(reason(LoginReply::Refused), Reason::Propagating { key: key(), until: now() + policy().propagation });
}

/// Where the same key is published too; it gives this key.
fn further(name: &str, kind: StoreKind, key: &str) -> crate::facts::Further {
    let versions = vec![version("f1", key, CURRENT)];
    crate::facts::Further {
        place: crate::facts::KeyPlace::secret(name),
        store: Store { kind, versions },
        needs_key: false,
    }
}

/// `NEXT` is AWSPENDING and accepted, `NEW` is published in two secrets and a parameter.
fn pending_in_three_places() -> Facts {
    let mut facts = facts();
    let next = KeyId::new("NEXT");
    facts.record.old = None;
    facts.keys = vec![key("NEW", KeyStatus::Active), key("NEXT", KeyStatus::Active)];
    let until = now() + SignedDuration::from_mins(5);
    facts.record.creating.push(crate::record::Creating { at: now(), until, key: Some(next.clone()), before: None });
    facts.store.versions.push(Version { created: now(), ..version("v3", "NEXT", PENDING) });
    let endpoint = policy().endpoints.remove(0);
    facts.logins = vec![crate::facts::Login { key: next, endpoint, reply: LoginReply::Accepted, at: now() }];
    facts.further =
        vec![further("b", StoreKind::SecretsManager, "NEW"), further("c", StoreKind::ParameterStore, "NEW")];
    facts
}

/// What the second place was last seen to give.
fn copied(key: &str) -> Vec<crate::record::KnownPlace> {
    let gives = |name, gives| crate::record::KnownPlace { place: place(name), gives };
    vec![gives("a", None), gives("b", Some(KeyId::new(key)))]
}

fn place(name: &str) -> crate::facts::KeyPlace {
    crate::facts::KeyPlace::secret(name)
}

#[test]
fn a_new_key_lies_ready_everywhere_before_it_is_published_anywhere() {
    let mut facts = pending_in_three_places();
    let next = || KeyId::new("NEXT");
    let copy = |name, publishes| {
        Some(Action::CopyTo { place: place(name), from: VersionId::new("v3"), key: next(), publishes })
    };
    assert_eq!(plan(&facts, &policy(), now()).action, copy("b", false));
    // One that cannot take it holds all of them back.
    facts.further[0].store.versions.push(Version { value: Value::Unreadable, ..version("f2", "", PENDING) });
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["pending-foreign"]), "{decision:?}");
    facts.further[0].store.versions[1].value = Value::Login(KeyId::new("GONE"));
    assert_eq!(plan(&facts, &policy(), now()).action, copy("b", false), "that is nobody's any more");
    facts.further[0].store.versions[1].value = Value::Login(next());
    let promote =
        Action::Promote { from: Some(VersionId::new("v2")), version: VersionId::new("v3"), key: KeyId::new("NEXT") };
    // A replica comes after it by itself, and is waited for.
    facts.behind = vec![crate::facts::Replica { of: Part::Store, region: "us-east-1".into(), failed: false }];
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["replica-behind"]), "{decision:?}");
    facts.behind.clear();
    assert_eq!(plan(&facts, &policy(), now()).action, Some(promote));
    // Published in the first place, and whoever did it was killed: the others follow.
    (facts.store.versions[1].labels, facts.store.versions[2].labels) = (Vec::new(), vec![CURRENT.into()]);
    let version_id = VersionId::new("v3");
    facts.record.published = Some(Published { version: version_id, key: next(), at: now() });
    facts.record.old = Some(KeyId::new("NEW"));
    let from = Some(VersionId::new("f1"));
    let promote = Action::PromoteAt { place: place("b"), from, version: VersionId::new("f2"), key: next() };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(promote));
    facts.further[0].store.versions.remove(0);
    facts.further[0].store.versions[0].labels = vec![CURRENT.into()];
    assert_eq!(plan(&facts, &policy(), now()).action, copy("c", true));
    facts.further[1].store.versions[0].value = Value::Login(next());
    assert_eq!(plan(&facts, &policy(), now()).action, None);
}

#[test]
fn what_a_further_place_gives_is_written_over_where_it_is_ours_alone() {
    let mut facts = facts();
    facts.further = vec![further("b", StoreKind::SecretsManager, "ANOTHER")];
    let decision = plan(&facts, &policy(), now());
    assert!(!matches!(decision.action, Some(Action::CopyTo { .. })), "{decision:?}");
    assert!(classes(&decision).contains(&"value-not-ours"));
    // Also where an earlier version of it has the published key.
    facts.further[0].store.versions.push(version("f0", "NEW", crate::facts::PREVIOUS));
    let decision = plan(&facts, &policy(), now());
    assert!(!matches!(decision.action, Some(Action::PromoteAt { .. })), "{decision:?}");
    facts.further[0].store.versions.pop();
    // An earlier key of this user, or nothing at all.
    facts.record.old = None;
    for value in [Value::Login(KeyId::new("OLD")), Value::Empty] {
        facts.keys[0].status = KeyStatus::Active;
        facts.further[0].store.versions[0].value = value;
        assert!(matches!(plan(&facts, &policy(), now()).action, Some(Action::CopyTo { publishes: false, .. })));
    }
    // It gave the published key: what it gives now, somebody chose.
    facts.further[0].store.versions[0].value = Value::Login(KeyId::new("OLD"));
    facts.record.places = copied("NEW");
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)[0]), (None, "label-moved"), "{decision:?}");
}

/// `NEXT` waits as AWSPENDING of the first place, and is verified.
fn pending_alone() -> Facts {
    let mut facts = pending_in_three_places();
    facts.further.clear();
    facts
}

/// What a person made AWSCURRENT while a new key waited there: another user's login in an emergency, an older key, bytes.
#[test]
fn what_a_person_published_while_a_key_waited_is_not_promoted_over() {
    let mut facts = pending_alone();
    assert!(matches!(plan(&facts, &policy(), now()).action, Some(Action::Promote { .. })));
    facts.store.versions[1].labels.clear();
    for value in [Value::Login(KeyId::new("ANOTHER")), Value::Login(KeyId::new("OLD")), Value::Unreadable] {
        let (mut facts, is_of_the_user) = (facts.clone(), value == Value::Login(KeyId::new("OLD")));
        facts.keys.extend(is_of_the_user.then(|| key("OLD", KeyStatus::Active)));
        facts.store.versions.push(Version { created: now(), value, ..version("v9", "", CURRENT) });
        let decision = plan(&facts, &policy(), now());
        assert_eq!((decision.action.as_ref(), classes(&decision)[0]), (None, "label-moved"), "{decision:?}");
        // Nor is ours published again over it, or another key made, where none waits.
        facts.store.versions.retain(|version| !version.carries(PENDING));
        facts.keys.retain(|key| key.id.as_str() != "NEXT");
        facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
        let decision = plan(&facts, &policy(), now());
        assert_eq!((decision.action.as_ref(), classes(&decision)[0]), (None, "label-moved"), "{decision:?}");
    }
    // An older value with a key of ours that is gone serves nobody.
    facts.store.versions.push(version("v9", "GONE", CURRENT));
    assert!(matches!(plan(&facts, &policy(), now()).action, Some(Action::Promote { .. })));
}

/// The same key, and another text beside it: what waits is composed anew, here and in a further place.
#[test]
fn what_was_composed_from_an_older_text_is_composed_anew() {
    let mut facts = pending_alone();
    facts.outdated = vec![Part::Store];
    let anew = Action::Republish { from: VersionId::new("v3"), key: KeyId::new("NEXT") };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(anew));
    let mut facts = pending_in_three_places();
    facts.further.truncate(1);
    facts.further[0].store.versions.push(Version { created: now(), ..version("f2", "NEXT", PENDING) });
    assert!(matches!(plan(&facts, &policy(), now()).action, Some(Action::Promote { .. })));
    facts.outdated = vec![Part::Further(place("b"))];
    assert!(matches!(plan(&facts, &policy(), now()).action, Some(Action::CopyTo { publishes: false, .. })));
}

/// No key is made for a place that holds another user's login, unless a person names that.
#[test]
fn what_the_first_place_gives_is_written_over_where_it_is_ours_or_named() {
    let mut facts = facts();
    (facts.record.published, facts.record.old) = (None, None);
    facts.keys.clear();
    facts.store.versions = vec![version("v1", "ANOTHER", CURRENT)];
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["value-not-ours"]), "{decision:?}");
    assert!(decision.refusals[0].fix().contains("run --yes-overwrite ANOTHER`"), "{decision:?}");
    for (said, made) in [("SOMEBODY", None), ("ANOTHER", Some(Action::Create))] {
        facts.record.over = Some(KeyId::new(said));
        assert_eq!(plan(&facts, &policy(), now()).action, made, "{said}");
    }
    facts.store.versions[0].value = Value::Unreadable;
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["value-not-ours"]), "{decision:?}");
}

#[test]
fn a_key_that_any_place_gives_does_not_die_and_comes_back() {
    let mut facts = facts();
    facts.further = vec![further("b", StoreKind::SecretsManager, "OLD")];
    let back = Action::Reactivate { key: KeyId::new("OLD"), host: None };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(back));
    facts.keys[0].status = KeyStatus::Active;
    facts.record.deactivated.clear();
    let stops = crate::retire::stops(&facts, &facts.keys[0], now());
    let classes: Vec<_> = stops.iter().map(Refusal::class).collect();
    assert!(classes.contains(&"not-everywhere") && classes.contains(&"would-cut"), "{classes:?}");
    assert!(!crate::retire::is_complete(&facts, now()));
}

/// It gave the new key's version before, or nothing can be put there: whoever starts in that region gets the old key.
#[test]
fn an_old_key_that_a_replica_still_gives_does_not_die() {
    let mut facts = facts();
    facts.keys[0].status = KeyStatus::Active;
    facts.behind = vec![crate::facts::Replica { of: Part::Store, region: "us-east-1".into(), failed: true }];
    let stops = crate::retire::stops(&facts, &facts.keys[0], now());
    assert!(stops.iter().any(|stop| stop.class() == "replica-behind"), "{stops:?}");
    facts.behind.clear();
    let stops = crate::retire::stops(&facts, &facts.keys[0], now());
    assert!(stops.iter().all(|stop| stop.class() != "replica-behind"), "{stops:?}");
}

/// The key there is not this user's: it is followed where we left it, and not where a person put it.
#[test]
fn what_a_person_put_in_a_further_place_during_a_rotation_stays() {
    let mut facts = pending_in_three_places();
    facts.further[0].store.versions.push(Version { created: now(), ..version("f2", "NEXT", PENDING) });
    facts.further[0].store.versions[0].value = Value::Login(KeyId::new("ANOTHER"));
    facts.record.places = copied("NEW");
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["value-not-ours"]), "{decision:?}");
    // What we left there, of a key that is gone by now.
    facts.record.places = copied("ANOTHER");
    assert!(matches!(plan(&facts, &policy(), now()).action, Some(Action::Promote { .. })));
    // Put there after the first place was published.
    (facts.store.versions[1].labels, facts.store.versions[2].labels) = (Vec::new(), vec![CURRENT.into()]);
    facts.record.published = Some(Published { version: VersionId::new("v3"), key: KeyId::new("NEXT"), at: now() });
    facts.record.old = Some(KeyId::new("NEW"));
    facts.record.places = copied("NEW");
    facts.further.truncate(1);
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)[0]), (None, "value-not-ours"), "{decision:?}");
}

/// Deleted, and made anew without a value: nothing is written over.
#[test]
fn a_further_place_that_was_emptied_gets_the_published_key() {
    let mut facts = facts();
    facts.record.places = copied("NEW");
    for kind in [StoreKind::SecretsManager, StoreKind::ParameterStore] {
        facts.further = vec![further("b", kind, "")];
        facts.further[0].store.versions.clear();
        let decision = plan(&facts, &policy(), now());
        assert!(matches!(decision.action, Some(Action::CopyTo { publishes: true, .. })), "{decision:?}");
    }
}

/// All hosts are cut off: the first place is not left without a login for the sake of another one.
#[test]
fn where_the_published_key_is_dead_no_place_waits_for_another() {
    let mut facts = pending_in_three_places();
    facts.behind = vec![crate::facts::Replica { of: Part::Store, region: "us-east-1".into(), failed: true }];
    facts.further[0].store.versions.push(Version { value: Value::Unreadable, ..version("f2", "", PENDING) });
    facts.record.places = copied("NEW");
    assert_eq!(plan(&facts, &policy(), now()).action, None);
    for keys in
        [vec![key("NEXT", KeyStatus::Active)], vec![key("NEW", KeyStatus::Inactive), key("NEXT", KeyStatus::Active)]]
    {
        facts.keys = keys;
        let decision = plan(&facts, &policy(), now());
        assert!(matches!(decision.action, Some(Action::Promote { .. })), "{decision:?}");
        assert!(classes(&decision).contains(&"pending-foreign") && classes(&decision).contains(&"replica-behind"));
    }
    // A person switched the stolen one off, and asks for another.
    facts.keys = vec![key("NEW", KeyStatus::Inactive)];
    facts.store.versions.pop();
    facts.record.creating.clear();
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    assert_eq!(plan(&facts, &policy(), now()).action, Some(Action::Create));
    facts.keys[0].status = KeyStatus::Active;
    assert_eq!(plan(&facts, &policy(), now()).action, None);
}

fn gap(part: Part) -> Gap {
    Gap { part, why: WhyUnseen::AccessDenied }
}

fn unseen(name: &str) -> Gap {
    gap(Part::Further(place(name)))
}

/// Rules 1 and 2, and what a dead key asks for, go by what was seen.
#[test]
fn a_place_that_cannot_be_read_keeps_nobody_from_an_emergency_in_another() {
    let mut inactive = facts();
    inactive.gaps = vec![unseen("b")];
    inactive.keys = vec![key("NEW", KeyStatus::Inactive)];
    inactive.record.deactivated = vec![Deactivated { key: KeyId::new("NEW"), at: now() - days(1), unanswered: false }];
    let decision = plan(&inactive, &policy(), now());
    let back = Action::Reactivate { key: KeyId::new("NEW"), host: None };
    assert_eq!((decision.action.as_ref(), classes(&decision)), (Some(&back), vec!["access-denied"]));
    // The first place is the one that cannot be read.
    let mut first = inactive.clone();
    first.gaps = vec![gap(Part::Store)];
    first.store.versions.clear();
    first.further = vec![further("b", StoreKind::SecretsManager, "NEW")];
    assert_eq!(plan(&first, &policy(), now()).action, Some(back.clone()));
    first.gaps.push(gap(Part::Fleet));
    assert_eq!(plan(&first, &policy(), now()).action, Some(back), "nor is anything else asked for it");
    // Gone altogether: another one is made, and published where that can be.
    let mut gone = inactive.clone();
    gone.record.old = None;
    gone.keys.clear();
    assert_eq!(plan(&gone, &policy(), now()).action, Some(Action::Create));
    let mut pending = pending_in_three_places();
    (pending.keys, pending.gaps) = (vec![key("NEXT", KeyStatus::Active)], vec![unseen("b"), unseen("c")]);
    pending.further.clear();
    let decision = plan(&pending, &policy(), now());
    assert!(matches!(decision.action, Some(Action::Promote { .. })), "{decision:?}");
}

/// Whatever is no emergency waits for it.
#[test]
fn while_a_place_cannot_be_read_no_key_is_made_published_or_retired() {
    let mut facts = self::facts();
    (facts.record.old, facts.gaps) = (None, vec![unseen("b")]);
    facts.keys = vec![key("NEW", KeyStatus::Active)];
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    assert_eq!(plan(&facts, &policy(), now()).action, None);
    let mut pending = pending_in_three_places();
    pending.further.remove(0);
    assert!(matches!(plan(&pending, &policy(), now()).action, Some(Action::Promote { .. })));
    pending.gaps = vec![unseen("b")];
    let decision = plan(&pending, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["access-denied"]), "{decision:?}");
    let mut old = self::facts();
    old.keys[0].status = KeyStatus::Active;
    let stops = |facts: &Facts| {
        crate::retire::stops(facts, &facts.keys[0], now()).iter().map(Refusal::class).collect::<Vec<_>>()
    };
    assert!(!stops(&old).contains(&"access-denied"));
    old.gaps = vec![unseen("b")];
    assert!(stops(&old).contains(&"access-denied") && !stops(&old).contains(&"would-cut"));
    old.record.places = copied("OLD");
    assert!(stops(&old).contains(&"would-cut"), "the place was seen to give it");
    // Nor is one cleared away that may be given there.
    let mut leftover = self::facts();
    leftover.record.old = None;
    leftover.keys = vec![key("NEW", KeyStatus::Active), key("NEXT", KeyStatus::Active)];
    let (at, until) = (now() - days(2), now() - days(2) + SignedDuration::from_mins(5));
    leftover.record.creating.push(crate::record::Creating { at, until, key: Some(KeyId::new("NEXT")), before: None });
    assert!(matches!(plan(&leftover, &policy(), now()).action, Some(Action::Deactivate { .. })));
    leftover.gaps = vec![unseen("b")];
    assert_eq!(plan(&leftover, &policy(), now()).action, None);
}

/// Another rotate.toml does not name it, or this one does not any more.
#[test]
fn a_place_of_the_rotation_that_is_not_configured_keeps_the_old_key_alive() {
    let mut facts = self::facts();
    facts.keys[0].status = KeyStatus::Active;
    let all = |facts: &Facts| {
        crate::retire::stops(facts, &facts.keys[0], now()).iter().map(Refusal::class).collect::<Vec<_>>()
    };
    facts.record.places = copied("OLD");
    facts.record.places.truncate(1);
    assert!(!all(&facts).contains(&"place-dropped"));
    facts.record.places = copied("OLD");
    assert!(all(&facts).contains(&"place-dropped") && all(&facts).contains(&"would-cut"), "{:?}", all(&facts));
    assert!(!crate::retire::is_complete(&facts, now()));
    // No other key is made meanwhile, nor published; and it is told whatever is done.
    facts.record.old = None;
    facts.keys.remove(0);
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["place-dropped"]));
    let mut pending = pending_in_three_places();
    pending.further.clear();
    pending.record.places = copied("NEW");
    let decision = plan(&pending, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["place-dropped"]));
    // An emergency does not wait for it.
    facts.keys.clear();
    assert_eq!(plan(&facts, &policy(), now()).action, Some(Action::Create));
    // With the places in another order, an id of the one is none of the other.
    let mut order = self::facts();
    order.keys[0].status = KeyStatus::Active;
    order.further = vec![further("b", StoreKind::SecretsManager, "NEW")];
    order.record.places = copied("NEW");
    assert!(!all(&order).contains(&"place-order"));
    order.record.places.reverse();
    assert!(all(&order).contains(&"place-order"));
}

/// A place that holds a key can get none from an SMTP password: no key is made for it.
#[test]
fn no_key_is_made_that_a_place_could_not_hold() {
    let mut facts = facts();
    facts.record.old = None;
    facts.keys = vec![key("NEW", KeyStatus::Active)];
    facts.further = vec![further("b", StoreKind::SecretsManager, "NEW")];
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    assert_eq!(plan(&facts, &policy(), now()).action, Some(Action::Create));
    facts.further[0].needs_key = true;
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["needs-key"]));
}

/// Secrets Manager makes it so at the start of a rotation: it is nobody else's, and passes.
#[test]
fn a_young_empty_awspending_of_a_further_place_is_waited_for() {
    let mut facts = pending_in_three_places();
    let empty = |created| Version { value: Value::Empty, created, ..version("f2", "", PENDING) };
    facts.further[0].store.versions.push(empty(now() - SignedDuration::from_mins(1)));
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.as_ref(), classes(&decision)), (None, vec!["pending-empty"]));
    assert_eq!(decision.refusals[0].waits_for(), WaitsFor::Time);
    facts.further[0].store.versions[1] = empty(now() - SignedDuration::from_mins(21));
    assert!(matches!(plan(&facts, &policy(), now()).action, Some(Action::CopyTo { publishes: false, .. })));
}

/// Hosts may read a parameter by a label: a put moves none, and whoever moves it is told, as with a secret.
#[test]
fn a_label_of_a_parameter_that_is_not_on_the_published_key_keeps_the_old_one_alive() {
    let mut facts = facts();
    facts.keys[0].status = KeyStatus::Active;
    facts.further = vec![further("c", StoreKind::ParameterStore, "NEW")];
    facts.further[0].place.kind = StoreKind::ParameterStore;
    facts.further[0].store.versions.insert(0, version("f0", "OLD", "prod"));
    let told = |facts: &Facts| {
        let stops = crate::retire::stops(facts, &facts.keys[0], now());
        stops.into_iter().filter(|stop| matches!(stop, Refusal::LabelElsewhere { .. })).collect::<Vec<_>>()
    };
    assert_eq!(told(&facts), [], "nobody reads by it");
    let host = crate::facts::Host::never_heard(HostName::new("mx1"));
    facts.fleet = vec![crate::facts::Host { watches: vec!["prod".into()], ..host }];
    let stops = told(&facts);
    let fix = "`aws ssm label-parameter-version --name c --parameter-version f1 --labels prod`";
    assert_eq!((stops.len(), stops[0].class(), stops[0].fix().as_str()), (1, "label-moved", fix));
    assert!(!crate::retire::is_complete(&facts, now()));
    facts.further[0].store.versions[0].labels.clear();
    facts.further[0].store.versions[1].labels.push("prod".into());
    assert_eq!(told(&facts), []);
    // What is put is published: nobody moves AWSCURRENT there.
    let put = Refusal::LabelMoved { kind: StoreKind::ParameterStore, current: Some(VersionId::new("3")) };
    assert!(put.words().contains("put version 3 of the parameter") && !put.fix().contains("AWSCURRENT"));
}

/// Whose the key is that hosts are given now, a person says first.
#[test]
fn no_key_is_made_where_somebody_moved_the_label() {
    let mut facts = facts();
    facts.record.want = Some(crate::record::Wanted { by: "anna".into(), at: now() });
    (facts.record.old, facts.record.deactivated) = (None, Vec::new());
    facts.keys = vec![key("NEW", KeyStatus::Active)];
    assert_eq!(plan(&facts, &policy(), now()).action, Some(Action::Create));
    facts.keys = vec![key("THEIRS", KeyStatus::Active)];
    facts.store.versions = vec![version("v3", "THEIRS", CURRENT)];
    let decision = plan(&facts, &policy(), now());
    assert_eq!(decision.action, None);
    assert!(classes(&decision).contains(&"label-moved"), "{decision:?}");
}

/// It had all the time that it needed, and no clock began anew: it is not deactivated a second time on an old list.
#[test]
fn a_key_that_is_listed_as_active_after_it_was_deactivated_is_left_alone() {
    let mut facts = facts();
    let until = now() + days(60);
    let waiver = Some(crate::facts::Waiver { reason: "on its way out".into(), by: "anna".into(), until });
    facts.fleet = vec![crate::facts::Host { waiver, ..crate::facts::Host::never_heard(HostName::new("mx1")) }];
    facts.record.roster.sealed_at = Some(now() - days(30));
    facts.record.complete_at = Some(now() - days(15));
    let (old, at) = (KeyId::new("OLD"), now() - days(2));
    facts.record.intention = Some(crate::record::Intention { key: old.clone(), at, logged_in: true });
    facts.keys[0].status = KeyStatus::Active;
    let minutes = SignedDuration::from_mins;
    facts.record.deactivated[0].at = now() - minutes(9);
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action, decision.reason), (None, Reason::Settles { until: now() + minutes(1) }));
    // Nobody answered the call: it is made again.
    facts.record.deactivated[0].unanswered = true;
    let again = Action::Deactivate { key: old.clone(), why: WhyGone::Retired };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(again));
    // Somebody brought it back: that is told for as long as its clocks run.
    (facts.record.deactivated, facts.record.switched_on) = (Vec::new(), vec![old.clone()]);
    facts.record.complete_at = Some(now() - minutes(60));
    assert_eq!(classes(&plan(&facts, &policy(), now())), ["brought-back", "grace"]);
    // A leftover is none any more.
    (facts.record.old, facts.record.intention) = (None, None);
    facts.store.versions.remove(0);
    let (at, until) = (facts.keys[0].created, facts.keys[0].created + minutes(5));
    facts.record.creating = vec![crate::record::Creating { at, until, key: Some(old.clone()), before: None }];
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.clone(), classes(&decision)), (None, vec!["unexplained-key"]));
    facts.record.switched_on.clear();
    let cleared = Action::Deactivate { key: old, why: WhyGone::Leftover };
    assert_eq!(plan(&facts, &policy(), now()).action, Some(cleared));
}

/// No command is printed that deletes what a host misses.
#[test]
fn an_inactive_key_that_a_host_names_is_named_and_not_called_inactive() {
    let mut facts = facts();
    (facts.record.old, facts.record.deactivated) = (None, Vec::new());
    says_cut_off(&mut facts);
    let used = KnownUse::Named { host: HostName::new("mx1") };
    let told = Refusal::UnexplainedKey { key: KeyId::new("OLD"), used };
    let decision = plan(&facts, &policy(), now());
    assert!(decision.refusals.contains(&told), "{decision:?}");
}

/// The same of a secret: no promotion moves a label of somebody's own.
#[test]
fn a_label_of_a_secret_that_is_not_on_the_published_key_keeps_the_old_one_alive() {
    let mut facts = facts();
    facts.keys[0].status = KeyStatus::Active;
    facts.store.versions[0].labels.push("prod".into());
    let told = |facts: &Facts| {
        let stops = crate::retire::stops(facts, &facts.keys[0], now());
        stops.into_iter().filter(|stop| matches!(stop, Refusal::LabelElsewhere { .. })).collect::<Vec<_>>()
    };
    assert_eq!(told(&facts), [], "nobody reads by it");
    let host = crate::facts::Host::never_heard(HostName::new("mx1"));
    facts.fleet = vec![crate::facts::Host { watches: vec!["prod".into(), PENDING.into()], ..host }];
    let stops = told(&facts);
    let fix = "`aws secretsmanager update-secret-version-stage --secret-id a --version-stage prod --remove-from-version-id v1 \
               --move-to-version-id v2`";
    assert_eq!((stops.len(), stops[0].class(), stops[0].fix().as_str()), (1, "label-moved", fix));
    assert!(!crate::retire::is_complete(&facts, now()));
    // What is tried at canary hosts is on its way.
    facts.store.versions[0].labels = vec!["prod".into(), PENDING.into()];
    assert_eq!(told(&facts), []);
    facts.store.versions[0].labels.clear();
    facts.store.versions[1].labels.push("prod".into());
    assert_eq!(told(&facts), []);
}

/// The new key is held meanwhile: what somebody stages keeps its label.
#[test]
fn a_put_takes_no_label_off_what_somebody_staged_since() {
    let mut facts = facts();
    let new = KeyId::new("MADE");
    facts.record.old = None;
    facts.keys = vec![key("NEW", KeyStatus::Active), key("MADE", KeyStatus::Active)];
    let until = now() + SignedDuration::from_mins(5);
    facts.record.creating = vec![crate::record::Creating { at: now(), until, key: Some(new.clone()), before: None }];
    facts.unstored = Some(new.clone());
    let put = Some(Action::Put { key: new, publishes: false });
    assert_eq!(plan(&facts, &policy(), now()).action, put);
    facts.store.versions.push(Version { value: Value::Unreadable, ..version("v9", "", PENDING) });
    let decision = plan(&facts, &policy(), now());
    assert_eq!((decision.action.clone(), classes(&decision)), (None, vec!["pending-foreign"]));
    // Nobody answered our own put: it is made again, under its token.
    facts.store.versions[2] = version("v9", "MADE", PENDING);
    assert_eq!(plan(&facts, &policy(), now()).action, put);
}

/// Everybody has moved, all clocks are over, and the intention stands.
fn about_to_go() -> Facts {
    let mut facts = facts();
    let until = now() + days(60);
    let waiver = Some(crate::facts::Waiver { reason: "on its way out".into(), by: "anna".into(), until });
    facts.fleet = vec![crate::facts::Host { waiver, ..crate::facts::Host::never_heard(HostName::new("mx1")) }];
    facts.record.roster.sealed_at = Some(now() - days(30));
    facts.record.complete_at = Some(now() - days(15));
    let (old, at) = (KeyId::new("OLD"), now() - days(2));
    facts.record.intention = Some(crate::record::Intention { key: old, at, logged_in: true });
    facts.record.deactivated.clear();
    facts.keys[0].status = KeyStatus::Active;
    facts
}

/// A person may have deleted it a moment after it was published: then the old one is all that hosts have.
#[test]
fn no_key_dies_while_iam_does_not_list_the_published_one() {
    use crate::policy::LISTED_LATE;
    use crate::record::{Made, take_in};
    let mut facts = about_to_go();
    let old = KeyId::new("OLD");
    let gone = Some(Action::Deactivate { key: old, why: WhyGone::Retired });
    assert_eq!(plan(&facts, &policy(), now()).action, gone);
    let new = KeyId::new("NEW");
    facts.record.made = vec![Made { key: new.clone(), at: now(), unlisted: false }];
    let listed = facts.clone();
    facts.keys.pop();
    take_in(&mut facts, &policy(), now());
    let decision = plan(&facts, &policy(), now());
    let told = Refusal::NotListed { key: new.clone(), until: now() + LISTED_LATE };
    assert!(decision.action.is_none() && decision.refusals.contains(&told), "{decision:?}");
    assert_eq!(facts.record.unlisted(&new), Some(now() + LISTED_LATE));
    // It is listed: nothing is said of it.
    facts = Facts { record: facts.record, ..listed };
    take_in(&mut facts, &policy(), now());
    assert_eq!(facts.record.unlisted(&new), None);
}

/// By a clock that is behind nobody can tell what was before and what after: that is said, and no other use of the key.
#[test]
fn a_clock_that_is_behind_that_of_aws_is_told_and_no_key_dies() {
    let minutes = SignedDuration::from_mins;
    let used = |at| {
        let mut facts = about_to_go();
        facts.keys[0].last_used = LastUsed::At { at, service: "ses".into(), region: "eu-west-1".into() };
        let decision = plan(&facts, &policy(), now());
        (decision.action.is_some(), classes(&decision))
    };
    assert_eq!(used(now() - days(16)), (true, vec![]));
    assert_eq!(used(now() - days(1)), (false, vec!["old-key-used"]));
    assert_eq!(used(now() + minutes(8)), (false, vec!["our-clock"]));
    // What AWS made later than now says it too.
    let mut facts = about_to_go();
    facts.store.versions[1].created = now() + minutes(3);
    assert_eq!(classes(&plan(&facts, &policy(), now())), ["our-clock"]);
    facts.store.versions[1].created = now() + minutes(1);
    assert_eq!(classes(&plan(&facts, &policy(), now())), [""; 0]);
}
