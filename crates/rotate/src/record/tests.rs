use jiff::SignedDuration;

use super::*;

fn now() -> Timestamp {
    "2026-03-02T08:00:00Z".parse().unwrap()
}

fn mins(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn policy() -> Policy {
    Policy::new(vec!["email-smtp.eu-west-1.amazonaws.com".into()])
}

fn key(id: &KeyId, status: KeyStatus) -> crate::facts::Key {
    crate::facts::Key { id: id.clone(), status, created: now(), last_used: crate::facts::LastUsed::Never }
}

fn created(at: Timestamp) -> crate::facts::Key {
    crate::facts::Key { created: at, ..key(&KeyId::new("AKIAIOSFODNN7EXAMPLE"), KeyStatus::Active) }
}

/// These keys, and an empty store.
fn facts(keys: Vec<crate::facts::Key>, record: &ControlRecord) -> Facts {
    Facts {
        me: "a".into(),
        user: crate::facts::IamUser::default(),
        keys,
        store: crate::facts::Store { kind: crate::facts::StoreKind::SecretsManager, versions: Vec::new() },
        place: crate::facts::KeyPlace::secret("a"),
        further: Vec::new(),
        behind: Vec::new(),
        outdated: Vec::new(),
        fleet: Vec::new(),
        gone: Vec::new(),
        record: record.clone(),
        logins: Vec::new(),
        unstored: None,
        gaps: Vec::new(),
    }
}

#[test]
fn one_at_a_time_holds_the_lease_and_each_holder_has_a_fence_of_its_own() {
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    assert_eq!(record.fence, 1);
    // Renewed by the same, under the same fence; not to be had by another.
    record.take("a", None, &policy(), now() + mins(4)).unwrap();
    assert_eq!(record.fence, 1);
    let busy = record.take("b", None, &policy(), now() + mins(8)).unwrap_err();
    assert_eq!((busy.0.holder.as_str(), busy.0.until), ("a", now() + mins(9)));
    record.take("b", None, &policy(), now() + mins(9)).unwrap();
    assert_eq!(record.fence, 2);
    // Whoever comes back after that is a new one, also the same.
    record.take("b", None, &policy(), now() + mins(20)).unwrap();
    assert_eq!(record.fence, 3);
}

#[test]
fn a_decision_that_is_old_or_whose_lease_is_nearly_over_is_dropped() {
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    let second = SignedDuration::from_secs(1);
    assert!(record.may_act("a", 1, now(), now() + mins(1) - second));
    assert!(!record.may_act("a", 1, now(), now() + mins(1)));
    // Decided late, done at once: the call could end after the lease.
    let late = now() + mins(4);
    assert!(record.may_act("a", 1, late - second, late - second));
    assert!(!record.may_act("a", 1, late, late));
    assert!(!record.may_act("b", 1, now(), now()));
    assert!(!record.may_act("a", 0, now(), now()));
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    let key = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    record.begin(&Action::Create, None, now());
    record.begin(&Action::Deactivate { key: key.clone(), why: crate::plan::WhyGone::Retired }, None, now());
    record.published = Some(Published { version: VersionId::new("v2"), key: key.clone(), at: now() });
    record.trouble = vec![HostTrouble { host: HostName::new("mx1"), key, at: now() }];
    let written = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<ControlRecord>(&written).unwrap(), record);
    assert!(written.starts_with(r#"{"schema":1,"credential":"ses","fence":1,"#), "{written}");
}

#[test]
fn back_off_grows_to_six_hours() {
    let mut record = ControlRecord::new("ses");
    let key = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    let waits: Vec<_> = (0..12)
        .map(|_| {
            record.back_off(&key, now());
            record.backoff.as_ref().unwrap().until.duration_since(now()).as_mins()
        })
        .collect();
    assert_eq!(waits, [15, 30, 60, 120, 240, 360, 360, 360, 360, 360, 360, 360]);
}

fn with_fleet(record: &ControlRecord, fleet: Vec<crate::facts::Host>) -> Facts {
    Facts {
        me: "a".into(),
        user: crate::facts::IamUser::default(),
        keys: Vec::new(),
        store: crate::facts::Store { kind: crate::facts::StoreKind::SecretsManager, versions: Vec::new() },
        place: crate::facts::KeyPlace::secret("a"),
        further: Vec::new(),
        behind: Vec::new(),
        outdated: Vec::new(),
        fleet,
        gone: Vec::new(),
        record: record.clone(),
        logins: Vec::new(),
        unstored: None,
        gaps: Vec::new(),
    }
}

fn host(name: &str) -> crate::facts::Host {
    crate::facts::Host { heard: Some(now()), ..crate::facts::Host::never_heard(HostName::new(name)) }
}

#[test]
fn a_long_dead_host_does_not_stand_in_for_one_that_is_to_come() {
    let mut record = ControlRecord::new("ses");
    record.roster.expect = Some(2);
    let sealed = |fleet| look(&with_fleet(&record, fleet), &policy(), now()).roster.sealed_at.is_some();
    let dead = crate::facts::Host { heard: Some(now() - mins(60 * 24 * 9)), ..host("mx0") };
    assert!(!sealed(vec![dead.clone(), host("mx1")]));
    assert!(sealed(vec![dead, host("mx1"), host("mx2")]));
}

#[test]
fn who_joins_a_sealed_roster_is_missed_like_the_others() {
    let names = |record: &ControlRecord| record.roster.names.iter().map(|n| n.as_str().to_owned()).collect::<Vec<_>>();
    let mut record = ControlRecord::new("ses");
    record.roster.expect = Some(2);
    assert!(names(&look(&with_fleet(&record, vec![host("mx1")]), &policy(), now())).is_empty(), "it is open");
    record = look(&with_fleet(&record, vec![host("mx2"), host("mx1")]), &policy(), now());
    assert_eq!(names(&record), ["mx1", "mx2"]);
    record = look(&with_fleet(&record, vec![host("mx3"), host("mx1"), host("mx2")]), &policy(), now());
    assert_eq!(names(&record), ["mx1", "mx2", "mx3"]);
    // Its item is gone, and it did not say so.
    let vanished = with_fleet(&record, vec![host("mx1"), host("mx2")]);
    record = look(&vanished, &policy(), now());
    assert_eq!(names(&record), ["mx1", "mx2", "mx3"]);
    let missed = crate::refusal::Refusal::HostUnconfirmed { host: HostName::new("mx3") };
    assert!(retire::fleet_stops(&Facts { record: record.clone(), ..vanished.clone() }, None, now()).contains(&missed));
    // Sealed again: whoever stood there does so still.
    record.roster = Roster { sealed_at: None, ..record.roster };
    record = look(&Facts { record, ..vanished.clone() }, &policy(), now());
    assert_eq!((names(&record).len(), record.roster.sealed_at.is_some()), (3, true));
    // It left, or a person removed it.
    record = look(&Facts { record, gone: vec![HostName::new("mx3")], ..vanished }, &policy(), now());
    assert_eq!(names(&record), ["mx1", "mx2"]);
}

#[test]
fn trouble_stands_until_the_host_confirms_anew() {
    let key = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    let mut record = ControlRecord::new("ses");
    record.trouble = vec![HostTrouble { host: HostName::new("mx1"), key: key.clone(), at: now() }];
    let stands = |host| look(&with_fleet(&record, vec![host]), &policy(), now()).trouble.len();
    // Its withdrawal was replaced by something else, and no confirmation is there.
    assert_eq!(stands(host("mx1")), 1);
    let proof = crate::facts::Proved::True;
    let standing = Some(crate::facts::Standing { version: VersionId::new("v2"), key, at: now(), proof });
    assert_eq!(stands(crate::facts::Host { standing, ..host("mx1") }), 0);
}

/// The call may still arrive: a look in between forgets nothing of it.
#[test]
fn a_deactivation_that_nobody_answered_stays_ours_for_a_minute() {
    let id = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    let mut record = ControlRecord::new("ses");
    record.begin(&Action::Deactivate { key: id.clone(), why: crate::plan::WhyGone::Leftover }, None, now());
    let facts = |status, record: &ControlRecord| facts(vec![key(&id, status)], record);
    let second = SignedDuration::from_secs(1);
    let seen = look(&facts(KeyStatus::Active, &record), &policy(), now() + mins(1) - second);
    assert!(look(&facts(KeyStatus::Inactive, &seen), &policy(), now() + mins(9)).deactivated_by_us(&id).is_some());
    let seen = look(&facts(KeyStatus::Active, &record), &policy(), now() + mins(1));
    assert!(seen.deactivated_by_us(&id).is_none(), "it did not arrive");
}

/// A key that a person makes hours later is theirs.
#[test]
fn a_create_that_nobody_answered_may_arrive_for_a_minute_however_often_is_looked() {
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    record.begin(&Action::Create, None, now());
    // As long as its call may go out.
    let lease = now() + SignedDuration::from_secs(65);
    // Killed there: it is as it was begun, and no look makes it longer.
    for minute in 1..20 {
        record.take("a", None, &policy(), now() + mins(minute)).unwrap();
        assert_eq!(record.creating[0].until, lease, "after {minute} min");
    }
    assert!(record.creating_now(now() + mins(2)).is_none() && !record.creating[0].fits(&created(now() + mins(2))));
    // A key that is held is renewed with the lease.
    let key = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    let mut made = record.clone();
    made.creating[0].until = now() + mins(21);
    made.creating[0].key = Some(key.clone());
    made.take("a", Some(&key), &policy(), now() + mins(20)).unwrap();
    assert_eq!(made.creating[0].until, now() + mins(25));
    // No answer: it ends with the time that a call takes.
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    record.begin(&Action::Create, None, now());
    record.done(&Action::Create, &Outcome::Unknown, &facts(Vec::new(), &record), &policy(), now());
    assert_eq!(record.creating[0].until, now() + mins(1));
    assert!(record.creating[0].fits(&created(now() + mins(1))));
    assert!(!record.creating[0].fits(&created(now() + mins(2))));
}

/// What a person switches off after that is theirs: nobody brings it back, and nobody deletes it.
#[test]
fn a_deactivation_that_failed_is_not_ours() {
    let id = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    let action = Action::Deactivate { key: id.clone(), why: crate::plan::WhyGone::Leftover };
    let facts = |status, record: &ControlRecord| facts(vec![key(&id, status)], record);
    let ended = |record: &mut ControlRecord, outcome, at| {
        record.begin(&action, None, at);
        assert!(record.deactivated_by_us(&id).is_some(), "written before the call");
        record.done(&action, &outcome, &facts(KeyStatus::Active, record), &policy(), at);
    };
    let mut record = ControlRecord::new("ses");
    ended(&mut record, Outcome::Failed, now());
    let seen = look(&facts(KeyStatus::Inactive, &record), &policy(), now() + mins(1));
    assert!(seen.deactivated_by_us(&id).is_none(), "a person did it");
    // One before it that nobody answered may still arrive.
    ended(&mut record, Outcome::Unknown, now());
    let second = now() + SignedDuration::from_secs(20);
    ended(&mut record, Outcome::Failed, second);
    let seen = look(&facts(KeyStatus::Inactive, &record), &policy(), now() + mins(9));
    assert_eq!(seen.deactivated_by_us(&id).map(|d| d.at), Some(now()));
    // Two that nobody answered: it lies dead since the later one at the latest.
    ended(&mut record, Outcome::Unknown, second);
    assert_eq!(record.deactivated_by_us(&id).map(|d| d.at), Some(second));
    // Done: known once, and since then.
    ended(&mut record, Outcome::Done, second);
    assert_eq!(record.deactivated, [Deactivated { key: id.clone(), at: second, unanswered: false }]);
}

/// IAM tells it as a use of the key: nobody else is to be blamed for it.
#[test]
fn a_login_that_one_endpoint_took_is_ours_and_one_without_an_answer_may_be() {
    use crate::facts::LoginReply::{self, Accepted, NoAnswer, Refused};
    let id = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    let action = Action::LogIn { key: id.clone(), purpose: Purpose::Verify };
    let login = |record: &mut ControlRecord, replies: &[LoginReply], at| {
        record.begin(&action, None, at);
        let outcome = Outcome::logged_in(replies);
        record.done(&action, &outcome, &facts(vec![key(&id, KeyStatus::Active)], record), &policy(), at);
        outcome
    };
    let at = |record: &ControlRecord| record.own_logins.first().map(|own| own.at.clone()).unwrap_or_default();
    let mut record = ControlRecord::new("ses");
    let outcome = login(&mut record, &[Accepted, Accepted], now());
    assert_eq!(outcome, Outcome::LoggedIn { accepted: true, used: Some(true) });
    // No use: what was the last is so still.
    let outcome = login(&mut record, &[Refused, Refused], now() + mins(10));
    assert_eq!((outcome, at(&record)), (Outcome::LoggedIn { accepted: false, used: Some(false) }, vec![now()]));
    // Perhaps: both may be the last.
    login(&mut record, &[Refused, NoAnswer], now() + mins(20));
    assert_eq!(at(&record), [now(), now() + mins(20)]);
    assert!(record.own_login(&id, now()) && record.own_login(&id, now() + mins(20)));
    // In one region of two.
    for (replies, minute) in [([Accepted, NoAnswer], 30), ([Refused, Accepted], 40)] {
        let outcome = login(&mut record, &replies, now() + mins(minute));
        assert_eq!(outcome, Outcome::LoggedIn { accepted: false, used: Some(true) });
        assert_eq!(at(&record), [now() + mins(minute)]);
    }
    // However long there is no answer, the record stays small, and the last that was accepted and the last hour are in it.
    for minute in 41..400 {
        login(&mut record, &[NoAnswer, NoAnswer], now() + mins(minute));
    }
    assert!(at(&record).len() <= OWN_LOGINS, "{:?}", at(&record));
    for minute in (340..400).chain([40]) {
        assert!(record.own_login(&id, now() + mins(minute)), "{minute}");
    }
}

/// By our own clock: a canary that dates its confirmation long ago soaks as long as any.
#[test]
fn the_soak_begins_when_we_see_that_every_canary_has_it() {
    use crate::facts::{Generation, Host, Proved, Standing, Value, Version};
    let policy = Policy { canary: Some("canary".into()), ..policy() };
    let (version, id) = (VersionId::new("v2"), KeyId::new("NEW"));
    let host = |proof| Host {
        generation: Generation::V2,
        heard: Some(now()),
        watches: vec!["canary".into()],
        standing: Some(Standing { version: version.clone(), key: id.clone(), at: now() - mins(600), proof }),
        ..Host::never_heard(HostName::new("mx1"))
    };
    let mut facts = facts(vec![key(&id, KeyStatus::Active)], &ControlRecord::new("ses"));
    let labels = vec![PENDING.to_owned(), "canary".to_owned()];
    facts.store.versions =
        vec![Version { id: version.clone(), created: now(), labels, value: Value::Login(id.clone()) }];
    let mut soak = |proof, minutes| {
        facts.fleet = vec![host(proof)];
        take_in(&mut facts, &policy, now() + mins(minutes));
        facts.record.soak.as_ref().map(|soak| soak.at)
    };
    assert_eq!(soak(Proved::True, 0), Some(now()));
    assert_eq!(soak(Proved::True, 5), Some(now()));
    assert_eq!(soak(Proved::False, 6), None);
    assert_eq!(soak(Proved::True, 7), Some(now() + mins(7)));
}

#[test]
fn a_further_place_is_known_by_what_it_was_seen_to_give() {
    use crate::facts::{Further, KeyPlace, Store, StoreKind, Value, Version};
    let id = KeyId::new("NEW");
    let mut record = ControlRecord::new("ses");
    record.published = Some(Published { version: VersionId::new("v2"), key: id.clone(), at: now() });
    let mut facts = facts(vec![key(&id, KeyStatus::Active)], &record);
    let gives = |key: &str| {
        let (id, value) = (VersionId::new("f1"), Value::Login(KeyId::new(key)));
        let versions = vec![Version { id, created: now(), labels: vec![CURRENT.into()], value }];
        Further {
            place: KeyPlace::secret("b"),
            store: Store { kind: StoreKind::SecretsManager, versions },
            needs_key: false,
        }
    };
    let moved = |facts: &mut Facts, key: &str| {
        facts.further = vec![gives(key)];
        take_in(facts, &policy(), now());
        retire::was_moved(&facts.record, &facts.further[0])
    };
    assert!(!moved(&mut facts, "OLD"), "it is behind");
    assert!(!moved(&mut facts, "NEW"));
    assert!(moved(&mut facts, "OLD"), "somebody moved it");
    facts.record.published.as_mut().unwrap().key = KeyId::new("NEXT");
    assert!(!moved(&mut facts, "NEW"), "the next one is published elsewhere");
    // A record of an earlier release has none of it.
    let text = serde_json::to_string(&ControlRecord::new("ses")).unwrap();
    assert!(!text.contains("places"));
}

/// Two of rotate.toml, which name other places, or in another order: what one knows the other does not strike.
#[test]
fn the_places_of_a_rotation_stay_until_a_person_removes_them() {
    use crate::facts::{Further, Gap, KeyPlace, Part, Store, StoreKind, Value, Version, WhyUnseen};
    let id = KeyId::new("NEW");
    let version = |id: &str, key: &str| {
        let (id, value) = (VersionId::new(id), Value::Login(KeyId::new(key)));
        Version { id, created: now(), labels: vec![CURRENT.into()], value }
    };
    let store = |id: &str, key: &str| Store { kind: StoreKind::SecretsManager, versions: vec![version(id, key)] };
    let mut facts = facts(vec![key(&id, KeyStatus::Active)], &ControlRecord::new("ses"));
    let b = |key| Further { place: KeyPlace::secret("b"), store: store("b1", key), needs_key: false };
    (facts.store, facts.further) = (store("a1", "NEW"), vec![b("NEW")]);
    let known = |facts: &Facts| {
        let told = facts.record.places.iter().map(|known| (known.place.name.clone(), known.gives.is_some()));
        told.collect::<Vec<_>>()
    };
    let of = |names: [(&str, bool); 2]| names.map(|(name, gives)| (name.to_owned(), gives)).to_vec();
    let look = |facts: &mut Facts, minutes| take_in(facts, &policy(), now() + mins(minutes));
    look(&mut facts, 0);
    assert_eq!(known(&facts), of([("a", true), ("b", true)]));
    // A place that cannot be read is one all the same; what it gave is not forgotten.
    facts.further.clear();
    facts.gaps = vec![Gap { part: Part::Further(KeyPlace::secret("b")), why: WhyUnseen::NoAnswer }];
    look(&mut facts, 1);
    assert_eq!((known(&facts), facts.dropped().count()), (of([("a", true), ("b", true)]), 0));
    // Left out of rotate.toml.
    facts.gaps.clear();
    facts.record.complete_at = Some(now());
    look(&mut facts, 2);
    let dropped: Vec<_> = facts.dropped().map(|known| known.place.name.as_str()).collect();
    assert_eq!((dropped, facts.record.complete_at), (vec!["b"], Some(now())), "whoever does not see it moves no clock");
    // Another one first: between two rotations that is taken, and within one it is not.
    facts.record.old = Some(id.clone());
    let published = facts.record.published.clone();
    facts.further = vec![Further { place: KeyPlace::secret("a"), ..b("NEW") }];
    (facts.place, facts.store) = (KeyPlace::secret("b"), store("b1", "NEW"));
    look(&mut facts, 3);
    assert_eq!((known(&facts), facts.first_before()), (of([("a", true), ("b", true)]), Some(&KeyPlace::secret("a"))));
    assert_eq!(facts.record.published, published, "its version is one of the first place");
    facts.record.old = None;
    look(&mut facts, 4);
    assert_eq!((known(&facts), facts.first_before()), (of([("b", true), ("a", true)]), None));
    // The first one is removed in the middle: the configured first one takes its place.
    facts.record.old = Some(id);
    facts.further.clear();
    (facts.place, facts.store) = (KeyPlace::secret("c"), store("c1", "NEW"));
    facts.record.complete_at = Some(now());
    look(&mut facts, 5);
    assert_eq!(facts.dropped().count(), 2);
    facts.record.remove_place("secret:::b", &KeyPlace::secret("c"));
    look(&mut facts, 6);
    assert_eq!((known(&facts), facts.first_before()), (of([("c", true), ("a", true)]), None));
    assert_eq!(facts.record.complete_at, None);
}

/// Whoever made it may store it as long as they hold the lease.
#[test]
fn a_key_that_was_made_is_kept_for_as_long_as_the_lease() {
    let key = KeyId::new("AKIAIOSFODNN7EXAMPLE");
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    record.begin(&Action::Create, None, now());
    record.done(&Action::Create, &Outcome::Created(key.clone()), &facts(Vec::new(), &record), &policy(), now());
    assert_eq!(record.creating, [Creating { at: now(), until: now() + mins(5), key: Some(key), before: None }]);
}

fn version(id: &str, key: &str, label: &str) -> crate::facts::Version {
    let (id, value) = (VersionId::new(id), crate::facts::Value::Login(KeyId::new(key)));
    crate::facts::Version { id, created: now(), labels: vec![label.into()], value }
}

/// These two keys, the first of which was published before the second.
fn with_two_keys(record: &ControlRecord) -> Facts {
    let keys = ["OLD", "NEW"].map(|id| key(&KeyId::new(id), KeyStatus::Active));
    let mut facts = facts(keys.to_vec(), record);
    facts.store.versions = vec![version("v1", "OLD", PREVIOUS), version("v2", "NEW", CURRENT)];
    facts
}

/// At the first look ever nobody has asked for a rotation: the other key is a person's.
#[test]
fn only_a_record_that_was_lost_takes_the_key_before_for_an_old_one() {
    let lost = ControlRecord::new("ses");
    let first = ControlRecord { is_first: true, ..lost.clone() };
    let old = |record| look(&with_two_keys(&record), &policy(), now());
    assert_eq!(old(lost).old, Some(KeyId::new("OLD")));
    let first = old(first);
    assert_eq!((first.old.clone(), first.published.is_some()), (None, true));
    let mut facts = with_two_keys(&first);
    facts.record.take("a", None, &policy(), now()).unwrap();
    let decision = crate::plan::plan(&facts, &policy(), now());
    let told: Vec<_> = decision.refusals.iter().map(crate::refusal::Refusal::class).collect();
    assert_eq!((decision.action, told), (None, vec!["unexplained-key"]));
}

/// A person gave hosts another key and deleted the published one: it is theirs that comes before the next.
#[test]
fn the_key_before_is_the_one_that_hosts_were_given() {
    let mut record = ControlRecord::new("ses");
    record.published = Some(Published { version: VersionId::new("v1"), key: KeyId::new("GONE"), at: now() });
    let publish = |keys: &[&str]| {
        let mut facts = with_two_keys(&record);
        facts.store.versions = vec![version("v2", "THEIRS", CURRENT), version("v3", "NEW", PENDING)];
        facts.keys = keys.iter().map(|id| key(&KeyId::new(*id), KeyStatus::Active)).collect();
        let action = Action::Promote { from: None, version: VersionId::new("v3"), key: KeyId::new("NEW") };
        let mut record = record.clone();
        record.done(&action, &Outcome::Done, &facts, &policy(), now());
        record.old
    };
    assert_eq!(publish(&["THEIRS", "NEW"]), Some(KeyId::new("THEIRS")));
    assert_eq!(publish(&["GONE", "NEW"]), Some(KeyId::new("GONE")));
    assert_eq!(publish(&["NEW"]), None);
}

/// A person vouched for that host; it is no reason to begin anew for ever.
#[test]
fn a_confirmation_that_is_dated_ahead_begins_no_clock_anew() {
    let standing = |minutes| crate::facts::Standing {
        version: VersionId::new("v2"),
        key: KeyId::new("NEW"),
        at: now() + mins(minutes),
        proof: crate::facts::Proved::True,
    };
    let of = |clock_ahead, minutes| {
        let host = crate::facts::Host { clock_ahead, standing: Some(standing(minutes)), ..host("mx1") };
        retire::confirmed_since(&with_fleet(&ControlRecord::new("ses"), vec![host]), now())
    };
    assert!(of(false, 1) && !of(false, -1));
    assert!(!of(true, 60 * 24 * 9));
}

/// What IAM lists may be ten minutes old.
#[test]
fn a_key_is_gone_when_it_was_not_listed_for_ten_minutes() {
    let old = KeyId::new("OLD");
    let mut record = ControlRecord::new("ses");
    (record.old, record.revoked) = (Some(old.clone()), Vec::new());
    record.deactivated = vec![Deactivated { key: old.clone(), at: now() - mins(90), unanswered: false }];
    record.creating =
        vec![Creating { at: now() - mins(900), until: now() - mins(895), key: Some(KeyId::new("LEFT")), before: None }];
    let seen = |record: &ControlRecord, ids: &[&str], minutes| {
        let keys = ids.iter().map(|id| key(&KeyId::new(*id), KeyStatus::Inactive)).collect();
        look(&facts(keys, record), &policy(), now() + mins(minutes))
    };
    let knows = |record: &ControlRecord| {
        (record.old.is_some(), record.deactivated_by_us(&old).is_some(), record.creating.len())
    };
    let mut once = seen(&record, &[], 0);
    assert_eq!(knows(&once), (true, true, 1));
    once = seen(&once, &[], 9);
    assert_eq!(knows(&once), (true, true, 1));
    // Listed again: it was an old list.
    let listed = seen(&once, &["OLD", "LEFT"], 9);
    assert_eq!((knows(&listed), listed.missing.len()), ((true, true, 1), 0));
    assert_eq!(knows(&seen(&listed, &[], 11)), (true, true, 1));
    assert_eq!(knows(&seen(&once, &[], 10)), (false, false, 0));
    // With the store unseen it is the same list.
    let mut blind = facts(Vec::new(), &once);
    blind.gaps = vec![crate::facts::Gap { part: Part::Store, why: crate::facts::WhyUnseen::NoAnswer }];
    assert_eq!(knows(&look(&blind, &policy(), now() + mins(9))), (true, true, 1));
}

/// For ten minutes it may be an old list; after that somebody switched it on again, and needs it.
#[test]
fn a_deactivated_key_that_is_active_again_is_somebodys_who_needs_it() {
    let old = KeyId::new("OLD");
    let action = Action::Deactivate { key: old.clone(), why: crate::plan::WhyGone::Retired };
    let mut record = ControlRecord::new("ses");
    (record.old, record.complete_at) = (Some(old.clone()), Some(now() - mins(9000)));
    record.intention = Some(Intention { key: old.clone(), at: now() - mins(2), logged_in: true });
    record.begin(&action, None, now());
    record.done(&action, &Outcome::Done, &facts(Vec::new(), &record), &policy(), now());
    let disowned = |record: &ControlRecord, status, minutes| {
        let mut facts = facts(vec![key(&old, status)], record);
        facts.gaps = vec![crate::facts::Gap { part: Part::Store, why: crate::facts::WhyUnseen::NoAnswer }];
        look(&facts, &policy(), now() + mins(minutes))
    };
    let late = disowned(&record, KeyStatus::Active, 9);
    assert_eq!((late.deactivated_by_us(&old).is_some(), late.complete_at.is_some()), (true, true));
    assert!(disowned(&late, KeyStatus::Inactive, 11).deactivated_by_us(&old).is_some(), "it was an old list");
    let anew = disowned(&record, KeyStatus::Active, 10);
    assert!(anew.deactivated_by_us(&old).is_none());
    assert_eq!((anew.complete_at, anew.intention.clone(), anew.switched_on), (None, None, vec![old.clone()]));
    // One that nobody answered, and that never was seen Inactive: its time begins anew, and nobody is known to need it.
    record.deactivated[0].unanswered = true;
    let anew = disowned(&record, KeyStatus::Active, 1);
    assert_eq!((anew.deactivated.len(), anew.complete_at, anew.switched_on.len()), (0, None, 0));
    let seen = disowned(&record, KeyStatus::Inactive, 0);
    assert!(!seen.deactivated[0].unanswered);
    assert_eq!(disowned(&seen, KeyStatus::Active, 10).switched_on, [old]);
    // One of an earlier release was answered.
    let before: Deactivated = serde_json::from_str(r#"{"key":"OLD","at":"2026-03-02T08:00:00Z"}"#).unwrap();
    assert!(!before.unanswered);
}

/// Somebody added a host to the configuration, and it has not reported yet.
#[test]
fn a_roster_that_was_sealed_with_fewer_than_are_expected_now_is_open_again() {
    let expects = |expected_hosts| Policy { expected_hosts, ..policy() };
    let fleet = |names: &[&str]| names.iter().map(|name| host(name)).collect::<Vec<_>>();
    let seen = |record: &ControlRecord, names: &[&str], expected| {
        look(&with_fleet(record, fleet(names)), &expects(expected), now()).roster
    };
    let with = |roster: Roster| ControlRecord { roster, ..ControlRecord::new("ses") };
    let two = with(seen(&ControlRecord::new("ses"), &["mx1", "mx2"], 2));
    assert_eq!((two.roster.sealed_at.is_some(), two.roster.sealed_with), (true, Some(2)));
    let raised = with(seen(&two, &["mx1", "mx2"], 3));
    assert_eq!(raised.roster.sealed_at, None);
    let told = retire::fleet_stops(&with_fleet(&raised, fleet(&["mx1", "mx2"])), None, now());
    let open =
        crate::refusal::Refusal::RosterOpen { heard: 2, counted: 2, expect: Some(3), sealed_with: Some(2), lost: 0 };
    assert!(told.contains(&open), "{told:?}");
    // The third one is there; or the number is put right; or a person says that there are two.
    assert_eq!(seen(&raised, &["mx1", "mx2", "mx3"], 3).sealed_with, Some(3));
    assert!(seen(&raised, &["mx1", "mx2"], 2).sealed_at.is_some());
    let said = Roster { expect: Some(2), names: raised.roster.names.clone(), ..Roster::default() };
    let said = with(seen(&with(said), &["mx1", "mx2"], 3));
    assert!(said.roster.sealed_at.is_some());
    assert!(seen(&said, &["mx1", "mx2"], 3).sealed_at.is_some(), "it was about what was configured then");
    assert_eq!(seen(&said, &["mx1", "mx2"], 4).sealed_at, None);
    // As an earlier release wrote it.
    let before = Roster { sealed_with: None, ..two.roster };
    assert!(seen(&with(before), &["mx1", "mx2"], 3).sealed_at.is_some());
}

/// A typo in `iam_user`, or credentials of another account: what is not there is not gone.
#[test]
fn the_keys_of_another_user_change_nothing() {
    let user = |name: &str, account: Option<&str>| IamUser { name: name.into(), account: account.map(Into::into) };
    let mut facts = with_two_keys(&ControlRecord::new("ses"));
    facts.user = user("ses-smtp", None);
    facts.record = look(&facts, &policy(), now());
    facts.user = user("SES-smtp", Some("111111111111"));
    facts.record = look(&facts, &policy(), now());
    assert_eq!(facts.record.user, Some(facts.user.clone()));
    facts.record.deactivated = vec![Deactivated { key: KeyId::new("OLD"), at: now(), unanswered: false }];
    facts.record.take("a", None, &policy(), now()).unwrap();
    let known = facts.record.clone();
    facts.keys = vec![key(&KeyId::new("THEIRS"), KeyStatus::Active)];
    for other in [user("ses-stmp", None), user("ses-smtp", Some("222222222222"))] {
        facts.user = other.clone();
        assert_eq!(look(&facts, &policy(), now() + mins(1)), known);
        assert_eq!(look(&facts, &policy(), now() + mins(100)), known);
        let decision = crate::plan::plan(&facts, &policy(), now());
        let told = crate::refusal::Refusal::WrongUser { user: known.user.clone().unwrap(), is: other };
        assert_eq!((decision.action, decision.refusals), (None, vec![told]));
    }
    // Whoever asks nobody who it is does not know the account, and it stays known.
    let mut facts = with_two_keys(&known);
    facts.user = user("ses-smtp", None);
    let seen = look(&facts, &policy(), now());
    assert_eq!(seen.user, Some(user("ses-smtp", Some("111111111111"))));
    // One who never saw the published key pins nothing.
    let mut first = with_two_keys(&ControlRecord::new("ses"));
    first.keys.clear();
    assert_eq!(look(&first, &policy(), now()).user, None);
}

/// Two releases look after one credential for a while: the earlier one takes nothing away from the later one.
#[test]
fn what_a_later_release_wrote_stays_in_what_is_written_over_it() {
    let mut record = serde_json::to_value(ControlRecord::new("ses")).unwrap();
    record["held_for_audit"] = serde_json::json!({"key": "OLD"});
    record["roster"]["counted_by"] = "site".into();
    let read: ControlRecord = serde_json::from_value(record.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), record);
    let entry = serde_json::json!({"listed": true, "removed": false, "shared": false, "site": "b"});
    let read: crate::hosts::RegistryEntry = serde_json::from_value(entry.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), entry);
    let kept = serde_json::json!({"rev": 3, "head": {"seq": 0, "hash": ""}, "record": record, "sealed": true});
    let read: crate::hosts::Kept = serde_json::from_value(kept.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), kept);
}

/// Whoever wrote it had a clock that is far wrong, or wrote it by hand.
#[test]
fn a_lease_that_is_longer_than_any_holds_nobody_up() {
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    let believed = now() + policy().lease + CLOCKS_APART;
    record.lease.as_mut().unwrap().until = believed;
    assert!(record.take("b", None, &policy(), now()).is_err());
    record.lease.as_mut().unwrap().until = believed + SignedDuration::from_secs(1);
    let over = record.take("b", None, &policy(), now()).unwrap().expect("it is taken over");
    assert_eq!((over.why, over.lease.holder.as_str(), record.fence), (WhyTakenOver::TooLong, "a", 2));
    // One that ran out is told too; one's own is not.
    let over = record.take("c", None, &policy(), now() + mins(5)).unwrap().expect("it is taken over");
    assert_eq!((over.why, over.lease.holder.as_str()), (WhyTakenOver::RanOut, "b"));
    assert_eq!(record.take("c", None, &policy(), now() + mins(60)), Ok(None));
}

/// Its clock may be behind ours by as much as AWS allows: what was there before is known by its id.
#[test]
fn a_key_is_known_as_made_by_us_although_iams_clock_is_behind() {
    let mut record = ControlRecord::new("ses");
    let (before, new) = (KeyId::new("BEFORE"), KeyId::new("MADE"));
    record.begin(&Action::Create, None, now());
    record.saw(&[key(&before, KeyStatus::Active)]);
    let of = |id: &KeyId, at| crate::facts::Key { created: at, ..key(id, KeyStatus::Active) };
    let creating = &record.creating[0];
    assert!(creating.fits(&of(&new, now() - mins(4))) && !creating.fits(&of(&before, now() - mins(4))));
    assert!(!creating.fits(&of(&new, now() - mins(6))) && !creating.fits(&of(&new, now() + mins(2))));
    // As an earlier release began it.
    let earlier = Creating { before: None, ..creating.clone() };
    assert!(!earlier.fits(&of(&new, now() - mins(4))));
}

/// It is a leftover at once, and nobody waits for it.
#[test]
fn a_key_that_ses_refused_is_not_being_made_any_more() {
    let new = KeyId::new("MADE");
    let made = || {
        let mut record = ControlRecord::new("ses");
        record.take("a", None, &policy(), now()).unwrap();
        record.begin(&Action::Create, None, now());
        record.done(
            &Action::Create,
            &Outcome::Created(new.clone()),
            &facts(Vec::new(), &record.clone()),
            &policy(),
            now(),
        );
        assert!(record.creating_now(now()).is_some());
        record
    };
    let off = Action::TakeOff { version: VersionId::new("v3"), refused: Some(new.clone()) };
    for given_up in [off, Action::Forget { key: new.clone(), refused: true }] {
        let mut record = made();
        record.done(&given_up, &Outcome::Done, &facts(Vec::new(), &record.clone()), &policy(), now());
        assert_eq!(record.creating_now(now()), None, "{given_up:?}");
    }
    // Taken off for another reason, it may be put again.
    let mut record = made();
    let off = Action::TakeOff { version: VersionId::new("v3"), refused: None };
    record.done(&off, &Outcome::Done, &facts(Vec::new(), &record.clone()), &policy(), now());
    assert!(record.creating_now(now()).is_some());
}

/// Entries and lists hold the same names: who stood in both is not known any more.
#[test]
fn a_roster_whose_registry_is_gone_is_sealed_no_longer() {
    let size = |entries, lists| RegistrySize { entries, lists };
    let sealed = || {
        let registry = Some(size(3, 2));
        Roster { expect: Some(3), sealed_at: Some(now()), sealed_with: Some(3), registry, ..Roster::default() }
    };
    let stands = |registry| {
        let mut roster = sealed();
        roster.sees(registry);
        (roster.sealed_at.is_some(), roster.lost)
    };
    assert_eq!(stands(size(3, 2)), (true, None));
    assert_eq!(stands(size(4, 2)), (true, None));
    assert_eq!(stands(size(2, 2)), (true, None), "the lists know who it was");
    assert_eq!(stands(size(3, 1)), (true, None), "the entries know who it was");
    assert_eq!(stands(size(2, 1)), (false, Some(1)));
    assert_eq!(stands(size(0, 0)), (false, Some(3)));
    // A number of the configuration was about all of them: it does not seal what is left.
    let mut record = ControlRecord { roster: sealed(), ..ControlRecord::new("ses") };
    record.roster.sees(size(0, 0));
    let expects = Policy { expected_hosts: 1, ..policy() };
    let seen = look(&with_fleet(&record, vec![host("mx1")]), &expects, now());
    assert_eq!(seen.roster.sealed_at, None);
    let told = retire::fleet_stops(&with_fleet(&seen, vec![host("mx1")]), None, now());
    let open = |refusal: &crate::refusal::Refusal| {
        matches!(refusal, crate::refusal::Refusal::RosterOpen { lost: 3, expect: None, .. })
    };
    assert!(told.iter().any(open), "{told:?}");
}

/// A person's word: what is known of the other user's keys is forgotten, and who the hosts are is not.
#[test]
fn another_user_is_accepted_with_the_hosts_and_without_the_keys() {
    let user = |name: &str| IamUser { name: name.into(), account: None };
    let mut record = ControlRecord::new("ses");
    record.take("a", None, &policy(), now()).unwrap();
    record.user = Some(user("ses-smtp"));
    record.old = Some(KeyId::new("OLD"));
    record.deactivated = vec![Deactivated { key: KeyId::new("OLD"), at: now(), unanswered: false }];
    record.roster.names = vec![HostName::new("mx1")];
    record.roster.sealed_at = Some(now());
    let before = record.clone();
    record.accept_user(user("ses-other"));
    let roster = Roster { names: before.roster.names.clone(), ..Roster::default() };
    let expected = ControlRecord {
        user: Some(user("ses-other")),
        is_first: true,
        fence: before.fence,
        lease: before.lease,
        roster,
        ..ControlRecord::new("ses")
    };
    assert_eq!(record, expected);
}
