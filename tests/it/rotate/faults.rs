//! AWS, SES and the network in trouble: what cannot be seen or done is named, and nothing is done because of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use relaykey::standin::{Delay, Misbehavior};
use relaykey_rotate::plan::{Action, Outcome};
use relaykey_rotate::run::{Ask, Controller, Moment, Tick};
use serde_json::{Value, json};

use super::lab::{Kind, Lab, PARAMETER, SECRET, TABLE, USER, host, words};
use crate::lab::isolated::{KEY, isolated};

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn error(status: u16, code: &str) -> Value {
    json!({"kind": "error", "count": 0, "status": status, "code": code, "message": "not authorized: see kms"})
}

/// A look under this fault: nothing is done, and this is said.
#[track_caller]
fn is_refused(lab: &Lab, controller: &mut Controller, action: &str, fault: Value, class: &str) {
    lab.moto.fault(KEY, action, fault);
    let turned = lab.tick(controller);
    lab.moto.heal(KEY);
    let refusals: Vec<_> = turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect();
    assert_eq!((words(&turned.done), refusals), (vec![], vec![class]), "{action}");
    assert!(!turned.look.faults.is_empty(), "in AWS's own words");
}

#[test]
fn what_cannot_be_seen_is_named_and_nothing_is_done() {
    isolated("rotate::faults::what_cannot_be_seen_is_named_and_nothing_is_done", || {
        let lab = Lab::new(Kind::SecretsManager).impatient();
        let mut controller = lab.controller();
        let mut one = host("mx1");
        lab.takes(&mut one);
        lab.ask(&mut controller, Ask::Run);
        for (action, fault, class) in [
            ("ListAccessKeys", error(403, "AccessDenied"), "access-denied"),
            ("ListAccessKeys", error(404, "NoSuchEntity"), "user-missing"),
            ("GetAccessKeyLastUsed", error(400, "Throttling"), "throttled"),
            ("DescribeSecret", error(400, "ResourceNotFoundException"), "not-found"),
            ("GetSecretValue", error(400, "DecryptionFailure"), "kms-denied"),
            ("GetSecretValue", error(400, "AccessDeniedException"), "access-denied"),
            ("Scan", error(400, "ProvisionedThroughputExceededException"), "throttled"),
            ("Scan", error(500, "InternalServerError"), "no-answer"),
            ("Query", json!({"kind": "truncate", "count": 0}), "no-answer"),
            ("ListAccessKeys", json!({"kind": "hang", "count": 0, "seconds": 20}), "no-answer"),
        ] {
            is_refused(&lab, &mut controller, action, fault, class);
        }
        // A page that says there are more, and not where.
        let page = format!(
            "<ListAccessKeysResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><ListAccessKeysResult>\
             <UserName>{USER}</UserName><AccessKeyMetadata/><IsTruncated>true</IsTruncated></ListAccessKeysResult>\
             </ListAccessKeysResponse>"
        );
        let cut = json!({"kind": "answer", "count": 0, "status": 200, "type": "text/xml", "body": page});
        is_refused(&lab, &mut controller, "ListAccessKeys", cut, "no-answer");
        assert_eq!(lab.keys().len(), 1);
        assert_eq!(words(&lab.settle(&mut controller)), ["Create", "Put", "LogIn", "Promote"]);
    });
}

#[test]
fn a_call_that_fails_or_hangs_is_told_and_made_again() {
    isolated("rotate::faults::a_call_that_fails_or_hangs_is_told_and_made_again", || {
        let lab = Lab::new(Kind::SecretsManager).impatient();
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        lab.moto.fault(KEY, "CreateAccessKey", error(409, "LimitExceeded"));
        let turned = lab.tick(&mut controller);
        assert_eq!(words(&turned.done), ["Create failed"]);
        lab.moto.heal(KEY);
        // KMS does not let it be put: it stays in memory, and is put later.
        lab.moto.fault(KEY, "PutSecretValue", error(400, "EncryptionFailure"));
        let turned = lab.tick(&mut controller);
        assert_eq!(words(&turned.done), ["Create", "Put failed"]);
        assert!(turned.holds_key);
        lab.moto.heal(KEY);
        // Nobody knows what became of it: the same again is no second version.
        lab.moto.fault(KEY, "PutSecretValue", json!({"kind": "hang", "count": 0, "seconds": 20}));
        let began = Instant::now();
        assert_eq!(words(&lab.tick(&mut controller).done), ["Put unknown"]);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        lab.moto.heal(KEY);
        assert_eq!(words(&lab.settle(&mut controller)), ["Put", "LogIn", "Promote"]);
        let lines = lab.run_time.block_on(controller.history()).expect("a log");
        let failed: Vec<_> = lines
            .iter()
            .filter_map(|line| Some((line.what.as_str(), line.more.as_ref()?.contains("Failure"))))
            .collect();
        assert!(failed.contains(&("put", true)), "{failed:?}");
    });
}

#[test]
fn a_key_whose_creation_nobody_answered_is_a_leftover_and_not_a_third_key() {
    isolated("rotate::faults::a_key_whose_creation_nobody_answered_is_a_leftover_and_not_a_third_key", || {
        let lab = Lab::new(Kind::SecretsManager);
        let made = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&made);
        // The process dies with the answer.
        let choke = move |action: &'static str, moment| {
            let dies = action == "iam:CreateAccessKey" && moment == Moment::After;
            if dies {
                seen.store(true, Ordering::Relaxed);
            }
            !dies
        };
        let mut dies = lab.controller_with(|_| {}, choke);
        lab.ask(&mut dies, Ask::Run);
        let over = lab.run_time.block_on(async { tokio::time::timeout(Duration::from_secs(5), dies.tick()).await });
        assert!(over.is_err() && made.load(Ordering::Relaxed));
        drop(dies);
        assert_eq!(lab.keys().len(), 2);
        let mut next = lab.controller();
        let busy = lab.run_time.block_on(next.tick()).expect("a turn");
        assert!(matches!(busy, Tick::Busy(_)), "{busy:?}");
        lab.pass(minutes(6));
        assert_eq!(words(&lab.settle(&mut next)), ["Deactivate"]);
        lab.pass(minutes(24 * 60 - 2));
        assert_eq!(words(&lab.settle(&mut next)), [""; 0]);
        lab.pass(minutes(3));
        assert_eq!(words(&lab.settle(&mut next)), ["Delete", "Create", "Put", "LogIn", "Promote"]);
    });
}

#[test]
fn a_key_of_a_persons_is_never_touched() {
    isolated("rotate::faults::a_key_of_a_persons_is_never_touched", || {
        let lab = Lab::new(Kind::SecretsManager);
        let theirs = lab.make_key();
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        for _ in 0..4 {
            let turned = lab.tick(&mut controller);
            let refusals: Vec<_> = turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect();
            assert_eq!((words(&turned.done), refusals), (vec![], vec!["two-live-keys", "unexplained-key"]));
            lab.pass(minutes(3 * 24 * 60));
        }
        assert!(lab.is_live(&theirs));
    });
}

#[test]
fn a_decision_that_has_grown_old_is_dropped_before_the_call() {
    isolated("rotate::faults::a_decision_that_has_grown_old_is_dropped_before_the_call", || {
        let lab = Arc::new(Lab::new(Kind::SecretsManager));
        let freezes = Arc::new(AtomicBool::new(false));
        let (frozen, at) = (Arc::clone(&freezes), Arc::downgrade(&lab));
        // The machine sleeps for a minute after what is about to be done was written.
        let choke = move |action: &'static str, moment| {
            if action == "dynamodb:TransactWriteItems" && moment == Moment::After && frozen.load(Ordering::Relaxed) {
                at.upgrade().expect("the lab").pass(SignedDuration::from_secs(61));
            }
            true
        };
        let mut controller = lab.controller_with(|_| {}, choke);
        lab.ask(&mut controller, Ask::Run);
        freezes.store(true, Ordering::Relaxed);
        let turned = lab.tick(&mut controller);
        assert!(matches!(turned.look.decision.action, Some(Action::Create)) && turned.done.is_empty());
        assert_eq!(lab.keys().len(), 1, "a program that was frozen does not wake up and act");
        freezes.store(false, Ordering::Relaxed);
        lab.pass(minutes(6));
        assert_eq!(words(&lab.settle(&mut controller)), ["Create", "Put", "LogIn", "Promote"]);
    });
}

/// A person's word is written between our look and what we are about to do: ours is dropped, theirs stays.
#[test]
fn whoever_writes_in_between_is_not_written_over() {
    isolated("rotate::faults::whoever_writes_in_between_is_not_written_over", || {
        let lab = Lab::new(Kind::SecretsManager);
        let mut person = lab.controller();
        lab.ask(&mut person, Ask::Run);
        let moto = Arc::clone(&lab.moto);
        let writes = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&writes);
        let choke = move |action: &'static str, moment| {
            if action == "iam:ListAccessKeys" && moment == Moment::After && armed.swap(false, Ordering::Relaxed) {
                let key = json!({"principal": {"S": "!control/ses"}, "credential#host_id": {"S": "ses"}});
                let item =
                    moto.call("DynamoDB_20120810.GetItem", json!({"TableName": TABLE, "Key": key}))["Item"].clone();
                let mut kept: Value =
                    serde_json::from_str(item["record"]["S"].as_str().expect("a text")).expect("JSON");
                kept["record"]["roster"]["expect"] = json!(7);
                kept["rev"] = json!(kept["rev"].as_u64().expect("a number") + 1);
                let mut item = item;
                item["rev"] = json!({"N": kept["rev"].to_string()});
                item["record"] = json!({"S": kept.to_string()});
                moto.call("DynamoDB_20120810.PutItem", json!({"TableName": TABLE, "Item": item}));
            }
            true
        };
        let mut controller = lab.controller_with(|_| {}, choke);
        writes.store(true, Ordering::Relaxed);
        let turned = lab.tick(&mut controller);
        assert!(matches!(turned.look.decision.action, Some(Action::Create)));
        assert_eq!((turned.done.len(), lab.keys().len()), (0, 1), "nothing is done that was not written before");
        // Somebody else holds the lease.
        let other = lab.run_time.block_on(person.tick()).expect("a turn");
        assert!(matches!(other, Tick::Busy(_)), "{other:?}");
        assert_eq!(words(&lab.settle(&mut controller)), ["Create", "Put", "LogIn", "Promote"]);
        let look = lab.run_time.block_on(person.look()).expect("a look");
        assert_eq!(look.facts.record.roster.expect, Some(7));
        // It is given back, and the next one need not wait.
        lab.run_time.block_on(controller.leave()).expect("left");
        assert_eq!(words(&lab.settle(&mut person)), [""; 0]);
    });
}

#[test]
fn an_empty_secret_gets_its_first_version_only_when_the_key_logs_in() {
    isolated("rotate::faults::an_empty_secret_gets_its_first_version_only_when_the_key_logs_in", || {
        let lab = Lab::empty(Kind::SecretsManager, "");
        lab.moto.call("secretsmanager.CreateSecret", json!({"Name": SECRET}));
        let first = lab.make_key();
        lab.moto.lab("iam", &json!({"user": USER}));
        let mut controller = lab.controller_with(
            |credential| credential.publish[0].form = relaykey_rotate::config::Form::Pair,
            |_, _| true,
        );
        lab.ask(&mut controller, Ask::Run);
        // SES does not answer as it should: nothing is put.
        lab.standin.fault(Misbehavior::Reply454, 1);
        assert_eq!(words(&lab.tick(&mut controller).done)[..1], ["Create".to_owned()]);
        let versions = lab.moto.call("secretsmanager.DescribeSecret", json!({"SecretId": SECRET}));
        assert_eq!(versions["VersionIdsToStages"].as_object().map_or(0, serde_json::Map::len), 0, "{versions}");
        lab.pass(minutes(1));
        assert_eq!(words(&lab.settle(&mut controller)), ["LogIn", "Put"]);
        let published = lab.published().1;
        assert!(published != first && lab.is_live(&published));
    });
}

#[test]
fn a_key_that_ses_never_takes_is_taken_off_and_cleared_away() {
    isolated("rotate::faults::a_key_that_ses_never_takes_is_taken_off_and_cleared_away", || {
        let lab = Lab::new(Kind::SecretsManager);
        let old = lab.published().1;
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        let standin = Arc::clone(&lab.standin);
        let delayed = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&delayed);
        let was = old.clone();
        let mut controller = {
            drop(controller);
            lab.controller_with(
                |_| {},
                move |action, moment| {
                    if action == "smtp:AUTH" && moment == Moment::Before && !known.swap(true, Ordering::Relaxed) {
                        let keys = standin.logins();
                        assert!(keys.iter().all(|login| login.username == was));
                    }
                    true
                },
            )
        };
        assert_eq!(words(&lab.tick(&mut controller).done), ["Create", "Put"]);
        let new = lab.keys().into_iter().find(|(id, _)| *id != old).expect("a new key").0;
        // Known to the stand-in, and refused for good.
        lab.standin.set_key(&new, &relaykey::credential::Secret::new("x".into()));
        lab.standin.delay(&new, Delay::Refusals(100));
        assert_eq!(words(&lab.tick(&mut controller).done), ["LogIn refused"]);
        lab.pass(minutes(11));
        assert_eq!(words(&lab.settle(&mut controller)), ["LogIn refused", "TakeOff", "Deactivate"]);
        assert_eq!(lab.published().1, old);
        lab.pass(minutes(24 * 60 + 1));
        let done = words(&lab.settle(&mut controller));
        assert_eq!(done[..2], ["Delete".to_owned(), "Create".to_owned()], "{done:?}");
    });
}

#[test]
fn a_parameter_keeps_its_key_its_tier_and_its_description() {
    isolated("rotate::faults::a_parameter_keeps_its_key_its_tier_and_its_description", || {
        let lab = Lab::empty(Kind::ParameterStore, "");
        let login = {
            let key = lab.make_key();
            lab.pair(&key)
        };
        let input = json!({
            "Name": PARAMETER, "Value": login, "Type": "SecureString", "KeyId": "alias/ours", "Tier": "Advanced",
            "Description": "the relay's login", "AllowedPattern": "^AKIA.*", "DataType": "text",
        });
        lab.moto.call("AmazonSSM.PutParameter", input);
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        assert_eq!(words(&lab.settle(&mut controller)), ["Create", "LogIn", "Put"]);
        let filter = json!({"ParameterFilters": [{"Key": "Name", "Values": [PARAMETER]}]});
        let kept = lab.moto.call("AmazonSSM.DescribeParameters", filter)["Parameters"][0].clone();
        for (name, value) in [
            ("Version", json!(2)),
            ("KeyId", json!("alias/ours")),
            ("Tier", json!("Advanced")),
            ("Description", json!("the relay's login")),
            ("AllowedPattern", json!("^AKIA.*")),
            ("DataType", json!("text")),
        ] {
            assert_eq!(kept[name], value, "{name}: {kept}");
        }
    });
}

#[test]
fn a_record_that_is_lost_costs_time_and_no_key() {
    isolated("rotate::faults::a_record_that_is_lost_costs_time_and_no_key", || {
        let lab = Lab::new(Kind::SecretsManager);
        let mut controller = lab.controller();
        let old = lab.published().1;
        let mut one = host("mx1");
        lab.takes(&mut one);
        lab.settle(&mut controller);
        lab.ask(&mut controller, Ask::Seal { expect: 1 });
        lab.ask(&mut controller, Ask::Run);
        lab.settle(&mut controller);
        lab.takes(&mut one);
        lab.settle(&mut controller);
        let lose = |lab: &Lab| {
            let key = json!({"principal": {"S": "!control/ses"}, "credential#host_id": {"S": "ses"}});
            lab.moto.call("DynamoDB_20120810.DeleteItem", json!({"TableName": TABLE, "Key": key}));
        };
        lose(&lab);
        lab.pass(minutes(3 * 24 * 60));
        lab.settle(&mut controller);
        assert!(lab.is_live(&old), "the roster has to be sealed again");
        lab.ask(&mut controller, Ask::Seal { expect: 1 });
        for time in [0, 24 * 60 + 1, 2] {
            lab.pass(minutes(time));
            lab.settle(&mut controller);
        }
        assert!(!lab.is_live(&old), "then it goes on");
        // Lost while the old key lies dead: nobody knows by whose hand.
        lose(&lab);
        lab.pass(minutes(5 * 24 * 60));
        let turned = lab.tick(&mut controller);
        let classes: Vec<_> = turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect();
        assert!(classes.contains(&"deactivated-by-hand"), "{classes:?}");
        assert_eq!(lab.keys().len(), 2);
        assert!(!turned.done.iter().any(|(_, outcome)| *outcome == Outcome::Failed));
        let (_, broken) = lab.run_time.block_on(controller.verify()).expect("a log");
        assert_eq!(broken, [], "the chain goes on where it was");
    });
}

/// IAM is eventually consistent: a listing may lack a key that was made a moment ago.
#[test]
fn a_key_that_iam_lists_late_is_stored_and_published_all_the_same() {
    isolated("rotate::faults::a_key_that_iam_lists_late_is_stored_and_published_all_the_same", || {
        let lab = Lab::new(Kind::SecretsManager);
        let old = lab.published().1;
        let created = (lab.now() - minutes(60)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let listing = format!(
            "<ListAccessKeysResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><ListAccessKeysResult>\
             <UserName>{USER}</UserName><AccessKeyMetadata><member><UserName>{USER}</UserName><AccessKeyId>{old}\
             </AccessKeyId><Status>Active</Status><CreateDate>{created}</CreateDate></member></AccessKeyMetadata>\
             <IsTruncated>false</IsTruncated></ListAccessKeysResult></ListAccessKeysResponse>"
        );
        let moto = Arc::clone(&lab.moto);
        let late = move |action: &'static str, moment| {
            if action == "iam:CreateAccessKey" && moment == Moment::After {
                let answer = json!({"kind": "answer", "count": 0, "status": 200, "type": "text/xml", "body": listing});
                moto.fault(KEY, "ListAccessKeys", answer);
            }
            true
        };
        let mut controller = lab.controller_with(|_| {}, late);
        lab.ask(&mut controller, Ask::Run);
        assert_eq!(words(&lab.settle(&mut controller)), ["Create", "Put", "LogIn", "Promote"]);
        lab.moto.heal(KEY);
        assert_eq!(words(&lab.settle(&mut controller)), [""; 0]);
        assert_eq!(lab.keys().len(), 2);
    });
}

/// The SDK repeats a call that failed: not when what was decided has grown old meanwhile.
#[test]
fn no_attempt_is_made_when_the_decision_has_grown_old() {
    isolated("rotate::faults::no_attempt_is_made_when_the_decision_has_grown_old", || {
        let lab = Arc::new(Lab::new(Kind::SecretsManager));
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        // The first attempt hangs, and then its connection closes.
        lab.moto.fault(KEY, "PutSecretValue", json!({"kind": "hang", "count": 1, "seconds": 3}));
        let puts = |lab: &Lab| lab.moto.calls(KEY).iter().filter(|call| call["action"] == "PutSecretValue").count();
        let at = Arc::clone(&lab);
        let sleeps = std::thread::spawn(move || {
            while puts(&at) == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            at.pass(SignedDuration::from_secs(61));
        });
        assert_eq!(words(&lab.tick(&mut controller).done), ["Create", "Put unknown"]);
        sleeps.join().expect("time has passed");
        assert_eq!(puts(&lab), 1);
        assert_eq!(words(&lab.settle(&mut controller)), ["Put", "LogIn", "Promote"]);
    });
}

/// Between our look and our note of who owns a name, a person says something of the host.
#[test]
fn what_a_person_says_of_a_host_is_not_written_over_by_whoever_looks() {
    isolated("rotate::faults::what_a_person_says_of_a_host_is_not_written_over_by_whoever_looks", || {
        let lab = Lab::new(Kind::SecretsManager);
        let mut one = host("mx1");
        lab.takes(&mut one);
        let key = json!({"principal": {"S": "!registry/ses"}, "credential#host_id": {"S": "mx1"}});
        let entry = |moto: &crate::lab::moto::Moto| -> Value {
            let got = moto.call("DynamoDB_20120810.GetItem", json!({"TableName": TABLE, "Key": key}));
            serde_json::from_str(got["Item"]["entry"]["S"].as_str().unwrap_or("{}")).expect("JSON")
        };
        let said = json!({"listed": true, "removed": false, "shared": false}).to_string();
        let mut item = key.clone();
        item["entry"] = json!({"S": said});
        let (moto, writes) = (Arc::clone(&lab.moto), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let choke = move |action: &'static str, moment| {
            // The first is the lease, the second is about the name.
            if action == "dynamodb:TransactWriteItems"
                && moment == Moment::Before
                && writes.fetch_add(1, Ordering::Relaxed) == 1
            {
                moto.call("DynamoDB_20120810.PutItem", json!({"TableName": TABLE, "Item": item}));
            }
            true
        };
        let mut controller = lab.controller_with(|_| {}, choke);
        let turned = lab.tick(&mut controller);
        let refusals: Vec<_> = turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect();
        assert!(refusals.contains(&"no-answer") && turned.look.faults.iter().all(|fault| fault.temporary));
        assert_eq!(entry(&lab.moto)["listed"], true);
        lab.tick(&mut controller);
        assert_eq!((&entry(&lab.moto)["listed"], &entry(&lab.moto)["owner"]), (&json!(true), &json!(one.principal)));
    });
}
