use jiff::SignedDuration;

use super::text::WIDTH;
use super::*;
use crate::facts::{Key, KeyId};
use crate::policy::Policy;

#[test]
fn lengths_of_time_are_their_two_largest_units() {
    for (seconds, told) in [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (3660, "1h 1m"),
        (3601, "1h"),
        (90_000, "1d 1h"),
        (-5, "0s"),
    ] {
        assert_eq!(span(SignedDuration::from_secs(seconds)), told, "{seconds}");
    }
}

#[test]
fn paragraphs_fit_and_commands_stay_whole() {
    let mut out = String::new();
    let command = "`relaykey-rotate hosts waive mx1.example.com --reason \"down for repair\"`";
    put(
        &mut out,
        "  to do: ",
        "    ",
        &format!("start relaykey on mx1.example.com; if it will not come back, {command}; if it is gone, `x`"),
    );
    assert!(out.contains(command), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= WIDTH || line.contains(command)), "{out}");
    assert!(out.contains(&format!("{command};")), "a semicolon stays where it belongs: {out}");
}

mod look {
    //! A look in the middle of a rotation.

    use crate::facts::{
        CURRENT, Facts, Generation, Host, HostName, Key, KeyId, KeyStatus, LastUsed, PREVIOUS, Proved, Registered,
        Standing, Store, StoreKind, TookBack, Value, Version, VersionId, Waiver, WhyTakenBack,
    };
    use crate::plan::plan;
    use crate::policy::Policy;
    use crate::record::{ControlRecord, Lease, Published, Roster};
    use crate::run::Look;
    use jiff::{SignedDuration, Timestamp};

    pub const NEW: &str = "AKIANEWNEWNEWNEWNEWN";
    pub const OLD: &str = "AKIAOLDOLDOLDOLDOLDO";

    pub fn now() -> Timestamp {
        "2026-03-02T08:00:00Z".parse().unwrap()
    }

    pub fn host(name: &str, version: &str) -> Host {
        let key = if version == "v2" { NEW } else { OLD };
        Host {
            registered: Registered::Evidence,
            generation: Generation::V2,
            poll: Some(SignedDuration::from_mins(5)),
            heard: Some(now() - SignedDuration::from_mins(3)),
            alive_due: Some(now() + SignedDuration::from_hours(20)),
            standing: Some(Standing {
                version: VersionId::new(version),
                key: KeyId::new(key),
                at: now(),
                proof: Proved::True,
            }),
            ..Host::never_heard(HostName::new(name))
        }
    }

    pub fn with(fleet: Vec<Host>) -> Look {
        let key = |id: &str| Key {
            id: KeyId::new(id),
            status: KeyStatus::Active,
            created: now() - SignedDuration::from_hours(24),
            last_used: LastUsed::Never,
        };
        let version = |id: &str, label: &str, key: &str| Version {
            id: VersionId::new(id),
            created: now(),
            labels: vec![label.into()],
            value: Value::Login(KeyId::new(key)),
        };
        let mut record = ControlRecord::new("ses");
        record.fence = 1;
        record.lease =
            Some(Lease { holder: "me".into(), until: now() + SignedDuration::from_mins(5), ..Lease::default() });
        record.published = Some(Published {
            version: VersionId::new("v2"),
            key: KeyId::new(NEW),
            at: now() - SignedDuration::from_mins(10),
        });
        record.old = Some(KeyId::new(OLD));
        record.roster = Roster { expect: Some(fleet.len()), by: None, sealed_at: Some(now()), ..Roster::default() };
        let mut facts = Facts {
            me: "me".into(),
            user: crate::facts::IamUser::default(),
            keys: vec![key(OLD), key(NEW)],
            store: Store {
                kind: StoreKind::SecretsManager,
                versions: vec![version("v1", PREVIOUS, OLD), version("v2", CURRENT, NEW)],
            },
            place: crate::facts::KeyPlace::secret("a"),
            further: Vec::new(),
            behind: Vec::new(),
            outdated: Vec::new(),
            fleet,
            gone: Vec::new(),
            record,
            logins: Vec::new(),
            unstored: None,
            gaps: Vec::new(),
        };
        let policy = Policy::new(vec!["email-smtp.eu-west-1.amazonaws.com:587".into()]);
        facts.record = crate::record::look(&facts, &policy, now());
        let decision = plan(&facts, &policy, now());
        Look { facts, decision, faults: Vec::new(), busy: None, now: now() }
    }

    /// One of each kind of trouble.
    pub fn troubled() -> Look {
        let mut forged = host("mx4.example.com", "v2");
        forged.standing.as_mut().expect("a confirmation").proof = Proved::False;
        let mut says = host("mx5.example.com", "v1");
        says.says =
            Some("postmap /etc/postfix/sasl_passwd failed: no space left on device, and a lot more of it".into());
        let mut took_back = host("mx6.example.com", "v2");
        took_back.took_back = Some(TookBack { why: WhyTakenBack::Withdrawn, keys: vec![KeyId::new(OLD)] });
        let mut waived = host("mx7.example.com", "v2");
        (waived.heard, waived.alive_due) = (Some(now() - SignedDuration::from_hours(200)), None);
        waived.waiver = Some(Waiver {
            reason: "down for repair".into(),
            by: "arn:aws:iam::111122223333:user/you".into(),
            until: now() + SignedDuration::from_hours(100),
        });
        with(vec![host("mx1.example.com", "v2"), host("mx2.example.com", "v1"), says, waived, took_back, forged])
    }
}

fn example() -> crate::config::Credential {
    crate::config::parse(crate::config::EXAMPLE).expect("the example").0.credentials.remove(0)
}

#[test]
fn only_hosts_that_are_not_done_are_shown_the_worst_first_in_their_own_words() {
    let look = look::troubled();
    let text = text(&example(), &look, None);
    let place = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words:?} in\n{text}"));
    assert!(place("mx4.example.com ") < place("mx6.example.com "), "{text}");
    assert!(place("mx6.example.com ") < place("mx5.example.com "), "{text}");
    assert!(place("mx5.example.com ") < place("mx2.example.com "), "{text}");
    assert!(!text.contains("mx1.example.com"), "who is done is not shown:\n{text}");
    let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flowing.contains("it says: postmap /etc/postfix/sasl_passwd failed: no space left"), "{text}");
    place("confirmed 1/6, 1 waived");
    place("down for repair");
    place("still on AKIAOLD");
    let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80 && !line.contains('`')).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn a_phase_has_its_clock_and_says_what_comes_then() {
    let look = look::with(vec![look::host("mx1", "v2"), look::host("mx2", "v1")]);
    let text = text(&example(), &look, None);
    for words in [
        "ses: published; waiting for hosts",
        "done  SES takes it, and it is published (10m ago)",
        "now   hosts confirm: confirmed 1/2",
        "then  nobody uses the old key any more (at least 1d)",
        "confirmed 1/2",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    // Who confirmed, and whom a person vouches for, are two things.
    let mut waived = look::troubled().facts.fleet.remove(3);
    waived.standing = None;
    assert_eq!(confirmed(&hosts(&look::with(vec![look::host("mx1", "v2"), waived]))), "confirmed 1/2, 1 waived");
    let all = look::with(vec![look::host("mx1", "v2")]);
    let lag = super::text(&example(), &all, None);
    assert!(lag.contains("now   nobody uses the old key any more (1d left, until 2026-03-03 08:00:00Z)"), "{lag}");
}

/// What was not looked at is neither zero nor over.
#[test]
fn what_could_not_be_looked_at_is_said_and_no_progress_is_made_up() {
    use crate::facts::{Gap, KeyPlace, Part, Store, StoreKind};
    let policy = Policy::new(vec!["email-smtp.eu-west-1.amazonaws.com:587".into()]);
    for (part, name) in [(Part::Keys, "the keys of IAM user"), (Part::Fleet, "the hosts' reports in")] {
        let mut look = look::with(vec![look::host("mx1", "v2"), look::host("mx2", "v1")]);
        look.facts.gaps.push(Gap { part: part.clone(), why: WhyUnseen::NoAnswer });
        if part == Part::Fleet {
            look.facts.fleet.clear();
        }
        look.decision = crate::plan::plan(&look.facts, &policy, look.now);
        let text = text(&example(), &look, None);
        assert!(text.contains(&format!("how far it is, is not known: no look at {name}")), "{text}");
        assert!(text.starts_with("ses: not everything could be looked at "), "{text}");
        assert!(!text.contains("  now   ") && !text.contains("  done  "), "{text}");
        let counts = part != Part::Fleet;
        assert_eq!((text.contains("confirmed "), progress(&look).contains("confirmed ")), (counts, counts), "{text}");
    }
    // Another place hides nothing of the rotation.
    let mut look = look::with(vec![look::host("mx1", "v2"), look::host("mx2", "v1")]);
    let place = |name: &str| KeyPlace { region: Some("us-east-1".into()), ..KeyPlace::secret(name) };
    let alone = text(&example(), &look, None);
    assert!(!alone.contains("  place "), "one place is that of the configuration: {alone}");
    look.facts.gaps.push(Gap { part: Part::Further(place("third")), why: WhyUnseen::NoAnswer });
    let store = Store { versions: look.facts.store.versions.clone(), kind: StoreKind::SecretsManager };
    look.facts.further = vec![crate::facts::Further { place: place("second"), store, needs_key: false }];
    let text = text(&example(), &look, None);
    let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        format!("place secret \"second\" in us-east-1: gives {}", look::NEW),
        "place secret \"third\" in us-east-1: could not be looked at".into(),
        "now hosts confirm: confirmed 1/2".into(),
    ] {
        assert!(flowing.contains(&words), "no {words:?} in\n{text}");
    }
    assert_eq!(text.matches("  place ").count(), 3, "{text}");
    let document = serde_json::to_value(Document::of(&example(), &look, false, Exit::People)).expect("a document");
    let keys: Vec<_> =
        document["places"].as_array().expect("places").iter().map(|place| place["key"].as_str()).collect();
    assert_eq!(keys, [Some(look::NEW), Some(look::NEW), None]);
}

#[test]
fn whose_move_it_is_decides_about_the_exit() {
    let waiting = look::with(vec![look::host("mx1", "v2"), look::host("mx2", "v1")]);
    assert_eq!(Stand::of(&waiting), Stand::People);
    assert_eq!((Stand::of(&waiting).exit(), Stand::of(&waiting).exit_at_the_end()), (Exit::People, Exit::People));
    let lag = look::with(vec![look::host("mx1", "v2")]);
    assert_eq!(Stand::of(&lag), Stand::Time);
    assert_eq!((Stand::of(&lag).exit(), Stand::of(&lag).exit_at_the_end()), (Exit::Done, Exit::ForNow));
    let mut denied = look::with(vec![look::host("mx1", "v2")]);
    denied.facts.gaps.push(crate::facts::Gap { part: crate::facts::Part::Keys, why: WhyUnseen::AccessDenied });
    assert_eq!(Stand::of(&denied).exit(), Exit::ForGood);
    let mut busy = look::with(vec![look::host("mx1", "v2")]);
    busy.busy = busy.facts.record.lease.clone();
    assert_eq!(Stand::of(&busy).exit(), Exit::ForNow);
    assert!(!is_complete(&lag, DeleteOld::Never) && !is_complete(&lag, DeleteOld::AfterObserve));
}

#[test]
fn it_is_over_when_nothing_is_missing_and_what_was_counted_is_told() {
    let complete = || {
        let mut look = look::with(vec![look::host("mx1", "v2")]);
        look.facts.record.old = None;
        look.facts.keys.retain(|key| key.id.as_str() == look::NEW);
        look
    };
    let look = complete();
    assert!(is_complete(&look, DeleteOld::AfterObserve));
    assert_eq!(over(&look), format!("done: {} is in use, and no other key is", look::NEW));
    // A host is cut off, and its key is gone.
    let mut cut_off = complete();
    let keys = vec![KeyId::new(look::OLD)];
    cut_off.facts.fleet[0].took_back =
        Some(crate::facts::TookBack { why: crate::facts::WhyTakenBack::AppliedRefused, keys });
    let policy = Policy::new(vec!["email-smtp.eu-west-1.amazonaws.com:587".into()]);
    cut_off.decision = crate::plan::plan(&cut_off.facts, &policy, cut_off.now);
    assert!(!is_complete(&cut_off, DeleteOld::AfterObserve));
    assert_eq!(Stand::of(&cut_off).exit(), Exit::People);
    // A person's own key beside it.
    let mut beside = complete();
    let other = Key { id: KeyId::new("AKIAOTHER"), status: KeyStatus::Inactive, ..beside.facts.keys[0].clone() };
    beside.facts.keys.push(other);
    assert_eq!(over(&beside), format!("done: {} is in use; AKIAOTHER is there too, inactive", look::NEW));
    // Another place does not give it.
    let mut behind = complete();
    let store = crate::facts::Store { kind: crate::facts::StoreKind::SecretsManager, versions: Vec::new() };
    behind.facts.further =
        vec![crate::facts::Further { place: crate::facts::KeyPlace::secret("b"), store, needs_key: false }];
    assert!(!is_complete(&behind, DeleteOld::AfterObserve));
    // What is published is not in use.
    let mut dead = complete();
    dead.facts.keys[0].status = KeyStatus::Inactive;
    assert!(!is_complete(&dead, DeleteOld::AfterObserve));
}

#[test]
fn programs_get_facts() {
    let look = look::troubled();
    let credential = example();
    let document = serde_json::to_value(Document::of(&credential, &look, false, Exit::People)).expect("a document");
    assert_eq!(document["schema"], "relaykey/rotate/v1");
    assert_eq!(document["lab"], serde_json::Value::Null, "outside of a lab nothing is said of it");
    assert_eq!((&document["confirmed"], &document["exit"]), (&1.into(), &3.into()));
    assert_eq!(document["hosts"][0]["verdict"], "proof-false");
    assert_eq!(document["hosts"][0]["done"], false);
    let classes: Vec<_> =
        document["refusals"].as_array().expect("refusals").iter().map(|r| r["class"].as_str()).collect();
    assert!(classes.contains(&Some("proof-false")) && classes.contains(&Some("withdrawn")), "{classes:?}");
}

/// The table of docs/rotation.md is what the program gives; `UPDATE_DOCS=1 cargo test -p relaykey-rotate exits` writes it.
#[test]
fn the_exits_of_the_documents_are_those_that_are_given() {
    let rows = [
        ("nothing is due", Stand::Done, false),
        ("there is something to do, and it can be done", Stand::Acts, false),
        ("a clock runs: grace, lag, observing", Stand::Time, false),
        ("hosts are waited for, or a person who has a say about them", Stand::People, false),
        (
            "it does not go on by waiting: AWS denies something, or a key or label is somebody else's",
            Stand::ForGood,
            false,
        ),
        ("AWS or an endpoint gives no answer", Stand::ForNow, false),
        ("somebody else is at work", Stand::ForNow, true),
    ];
    let mut table =
        "| | `plan`, `status`, `run --once` | `run`, at the end of `--wait` | `check` |\n|---|---|---|---|\n"
            .to_owned();
    for (what, stand, busy) in rows {
        let exits = [stand.exit(), stand.exit_at_the_end(), stand.exit_of_a_check(busy)].map(Exit::code);
        table += &format!("| {what} | {} | {} | {} |\n", exits[0], exits[1], exits[2]);
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rotation.md");
    let text = std::fs::read_to_string(&path).expect("docs/rotation.md");
    let (before, rest) = text.split_once("<!-- exits -->\n").expect("where it begins");
    let (written, after) = rest.split_once("<!-- end of exits -->").expect("where it ends");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}<!-- exits -->\n{table}<!-- end of exits -->{after}")).expect("written");
        return;
    }
    assert_eq!(written, table, "docs/rotation.md says otherwise");
}

#[test]
fn who_is_at_work_is_named_and_since_when() {
    let mut look = look::with(vec![look::host("mx1", "v2")]);
    let lease = crate::record::Lease {
        holder: "0a1b".into(),
        until: look.now + SignedDuration::from_mins(5),
        who: Some("arn:aws:iam::111122223333:user/you (process 7 on admin1)".into()),
        since: Some(look.now - SignedDuration::from_mins(2)),
    };
    look.busy = Some(lease.clone());
    let text = text(&example(), &look, None);
    let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flowing.contains(
            "user/you (process 7 on admin1) is at work since 2026-03-02 07:58:00Z, until 2026-03-02 08:05:00Z"
        ),
        "{text}"
    );
    // One that a release without names wrote.
    let before = crate::record::Lease { who: None, since: None, ..lease };
    assert_eq!(at_work(&before), "0a1b is at work, until 2026-03-02 08:05:00Z at the latest");
    let read: crate::record::Lease =
        serde_json::from_str(r#"{"holder":"0a1b","until":"2026-03-02T08:05:00Z"}"#).expect("read");
    assert_eq!(read, before);
}

#[test]
fn a_roster_is_not_said_to_be_sealed_before_that_is_written() {
    let mut look = look::with(vec![look::host("mx1", "v2")]);
    // What a look found, and nobody wrote down yet.
    look.facts.record.roster.sealed_at = Some(look.now);
    assert!(text(&example(), &look, None).contains("sealed with the next look of a run"));
    let credential = example();
    let sealed = |look: &Look| {
        let document = serde_json::to_value(Document::of(&credential, look, false, Exit::Done)).expect("a document");
        document["roster"]["sealed_at"].clone()
    };
    assert_eq!(sealed(&look), serde_json::Value::Null);
    look.facts.record.roster.sealed_at = Some(look.now - SignedDuration::from_mins(1));
    assert!(!text(&example(), &look, None).contains("sealed with"));
    assert_eq!(sealed(&look), "2026-03-02T07:59:00Z");
}

#[test]
fn what_cannot_be_seen_is_said_once() {
    let mut look = look::with(vec![look::host("mx1", "v2")]);
    look.decision.refusals.push(Refusal::UserMissing);
    let names = |look: &Look| text(&example(), look, None).matches("does not exist").count();
    assert_eq!(names(&look), 1);
    let what = "IAM user \"ses-smtp\" does not exist for this account. AWS says: NoSuchEntity";
    look.faults.push(Fault::new(relaykey::fault::Class::NotFound, what, "check its name"));
    assert_eq!(names(&look), 1, "AWS's own words say it");
}

/// It may be gone: nobody takes it for one that is there, and no rotation is over with it.
#[test]
fn a_key_that_iam_does_not_list_is_shown_as_such() {
    let mut look = look::with(vec![look::host("mx1", "v2")]);
    look.facts.record.old = None;
    let made = crate::record::Made { key: KeyId::new(look::NEW), at: look::now(), unlisted: false };
    look.facts.record.made = vec![made];
    let line = |look: &Look| {
        let text = text(&example(), look, None);
        text.lines().find(|line| line.contains(look::NEW)).expect("its line").to_owned()
    };
    assert!(!line(&look).contains("not listed") && is_complete(&look, DeleteOld::AfterObserve));
    look.facts.record.made[0].unlisted = true;
    assert!(line(&look).contains("active, not listed by IAM"), "{}", line(&look));
    assert!(!is_complete(&look, DeleteOld::AfterObserve));
}

/// It vanished from where hosts report: no line of the hosts above names it.
#[test]
fn a_host_that_is_missed_and_not_there_is_named_while_a_run_waits() {
    let mut look = look::with(vec![look::host("mx1", "v2")]);
    look.facts.record.roster.names = ["mx1", "mx2"].map(crate::facts::HostName::new).into();
    let policy = Policy::new(vec!["email-smtp.eu-west-1.amazonaws.com:587".into()]);
    look.decision = crate::plan::plan(&look.facts, &policy, look.now);
    let said = progress(&look);
    assert!(said.contains("mx2 has not confirmed") && said.contains("hosts remove mx2"), "{said}");
}
