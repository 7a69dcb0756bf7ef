//! One key, published in several places: in all of them or in none, whoever is killed in between; and the old key dies when every
//! place gives the new one and every host has proved it, wherever it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;
use relaykey_rotate::run::{Ask, Controller, Moment, Turned};
use serde_json::json;
use tokio::sync::Notify;

use super::lab::{Kind, Lab, PARAMETER, Reads, SECOND, SECRET, SimHost, USER, host, words};
use crate::lab::isolated::{KEY, isolated, isolated_within};
use crate::lab::moto::REGION;

const PLACES: [Reads; 3] = [Reads::First, Reads::Second, Reads::Parameter];

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn classes(turned: &Turned) -> Vec<&'static str> {
    turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect()
}

/// A host at each place, all with the first key; the roster is sealed.
fn three() -> (Lab, Controller, Vec<SimHost>) {
    let lab = Lab::new(Kind::ThreePlaces);
    let mut controller = lab.controller();
    let mut hosts: Vec<_> = ["mx1", "mx2", "mx3"].map(host).into();
    for (host, reads) in hosts.iter_mut().zip(PLACES) {
        host.reads = reads;
        lab.takes(host);
    }
    assert_eq!(words(&lab.settle(&mut controller)), [""; 0]);
    lab.ask(&mut controller, Ask::Seal { expect: 3 });
    (lab, controller, hosts)
}

fn keys(lab: &Lab) -> Vec<String> {
    PLACES.iter().map(|place| lab.published_at(*place).1).collect()
}

/// Days go by until the old key is gone.
#[track_caller]
fn ends(lab: &Lab, controller: &mut Controller) {
    for time in [0, 24 * 60 + 1, 2, 3 * 24 * 60 + 1] {
        lab.pass(minutes(time));
        lab.settle(controller);
    }
    assert_eq!(lab.keys().len(), 1);
}

#[test]
fn one_key_is_published_in_all_places_before_the_old_one_dies() {
    isolated("rotate::places::one_key_is_published_in_all_places_before_the_old_one_dies", || {
        let (lab, mut controller, mut hosts) = three();
        let old = lab.published().1;
        lab.ask(&mut controller, Ask::Run);
        let done = words(&lab.settle(&mut controller));
        assert_eq!(done, ["Create", "Put", "LogIn", "CopyTo", "Promote", "PromoteAt", "CopyTo"]);
        let new = lab.published().1;
        assert!(new != old && keys(&lab).iter().all(|key| *key == new), "{:?}", keys(&lab));
        // Each host counts with the version of the place that it reads, and with its proof alone.
        lab.takes(&mut hosts[0]);
        lab.takes(&mut hosts[1]);
        lab.pass(minutes(25 * 60));
        let turned = lab.tick(&mut controller);
        assert_eq!((words(&turned.done), classes(&turned)), (vec![], vec!["other-version"]));
        lab.takes(&mut hosts[2]);
        ends(&lab, &mut controller);
        assert!(!lab.is_live(&old));
        let (_, broken) = lab.run_time.block_on(controller.verify()).expect("a log");
        assert_eq!(broken, []);
    });
}

#[test]
fn where_one_place_cannot_take_the_key_none_gets_it() {
    isolated("rotate::places::where_one_place_cannot_take_the_key_none_gets_it", || {
        let (lab, mut controller, _) = three();
        let old = lab.published().1;
        lab.ask(&mut controller, Ask::Run);
        assert_eq!(words(&lab.tick(&mut controller).done), ["Create", "Put"]);
        // Somebody begins something in the second one.
        let theirs = lab.moto.put(SECOND, "no login at all", &["AWSPENDING"]);
        assert_eq!(words(&lab.tick(&mut controller).done), ["LogIn"]);
        let turned = lab.tick(&mut controller);
        assert_eq!((words(&turned.done), classes(&turned)), (vec![], vec!["pending-foreign"]));
        assert!(keys(&lab).iter().all(|key| *key == old), "{:?}", keys(&lab));
        let input = json!({"SecretId": SECOND, "VersionStage": "AWSPENDING", "RemoveFromVersionId": theirs});
        lab.moto.call("secretsmanager.UpdateSecretVersionStage", input);
        // What is left with a key that nobody has is in nobody's way.
        lab.moto.put(SECOND, "AKIAKEYOFNOBODYATALL:a-password-of-some-length", &["AWSPENDING"]);
        lab.pass(minutes(1));
        let done = words(&lab.settle(&mut controller));
        assert_eq!(done, ["LogIn", "CopyTo", "Promote", "PromoteAt", "CopyTo"]);
        assert!(keys(&lab).iter().all(|key| *key != old));
    });
}

/// Secrets Manager copies a secret to its replicas by itself; where it fails there, hosts of that region would be left behind.
#[test]
fn a_replica_that_is_not_in_sync_is_waited_for() {
    isolated("rotate::places::a_replica_that_is_not_in_sync_is_waited_for", || {
        let lab = Lab::new(Kind::SecretsManager);
        let old = lab.published().1;
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        assert_eq!(words(&lab.tick(&mut controller).done), ["Create", "Put"]);
        let answer = |status: &str| {
            let mut said = lab.moto.call("secretsmanager.DescribeSecret", json!({"SecretId": SECRET}));
            said["ReplicationStatus"] = json!([{"Region": "us-east-1", "Status": status}]);
            lab.moto.heal(KEY);
            let answer = json!({"kind": "answer", "count": 0, "status": 200, "body": said.to_string()});
            lab.moto.fault(KEY, "DescribeSecret", answer);
        };
        for (status, words_of_it) in [("InProgress", "is not in sync yet"), ("Failed", "failed")] {
            answer(status);
            lab.settle(&mut controller);
            let turned = lab.tick(&mut controller);
            assert_eq!((words(&turned.done), classes(&turned)), (vec![], vec!["replica-behind"]));
            assert!(turned.look.decision.refusals[0].words().contains(words_of_it));
            assert_eq!(lab.published().1, old);
        }
        answer("InSync");
        assert_eq!(words(&lab.tick(&mut controller).done).last().map(String::as_str), Some("Promote"));
        assert_ne!(lab.published().1, old);
    });
}

#[test]
fn a_further_place_of_somebody_elses_is_not_written_over() {
    isolated("rotate::places::a_further_place_of_somebody_elses_is_not_written_over", || {
        let lab = Lab::new(Kind::ThreePlaces);
        let old = lab.published().1;
        // Another user's login, before this program ever saw the place with one of its own.
        lab.moto.put(SECOND, "AKIAANOTHERUSERSKEY1:their-password-of-some-length", &["AWSCURRENT"]);
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        assert_eq!(words(&lab.settle(&mut controller)), [""; 0], "no key is made that could not be published");
        let turned = lab.tick(&mut controller);
        assert_eq!(classes(&turned), ["value-not-ours"]);
        assert_eq!([lab.published().1, lab.published_at(Reads::Parameter).1], [old.clone(), old.clone()]);
        // A person puts the login there that is published: it goes on.
        lab.moto.put(SECOND, &lab.pair(&old), &["AWSCURRENT"]);
        let done = words(&lab.settle(&mut controller));
        assert_eq!(done, ["Create", "Put", "LogIn", "CopyTo", "Promote", "PromoteAt", "CopyTo"]);
        assert!(keys(&lab).iter().all(|key| *key != old));
    });
}

#[test]
fn a_label_that_a_person_moves_in_a_further_place_is_told_and_the_old_key_lives() {
    isolated("rotate::places::a_label_that_a_person_moves_in_a_further_place_is_told_and_the_old_key_lives", || {
        let (lab, mut controller, mut hosts) = three();
        let (before, old, _) = lab.published_at(Reads::Second);
        lab.ask(&mut controller, Ask::Run);
        lab.settle(&mut controller);
        hosts.iter_mut().for_each(|host| lab.takes(host));
        lab.settle(&mut controller);
        let after = lab.published_at(Reads::Second).0;
        let moved = |from: &str, to: &str| {
            let input = json!({
                "SecretId": SECOND, "VersionStage": "AWSCURRENT", "RemoveFromVersionId": from, "MoveToVersionId": to,
            });
            lab.moto.call("secretsmanager.UpdateSecretVersionStage", input);
        };
        moved(&after, &before);
        lab.pass(minutes(2 * 24 * 60));
        let turned = lab.tick(&mut controller);
        assert_eq!((words(&turned.done), classes(&turned)), (vec![], vec!["label-moved", "would-cut"]));
        assert!(lab.is_live(&old));
        moved(&before, &after);
        for time in [0, 24 * 60 + 1, 2] {
            lab.pass(minutes(time));
            lab.settle(&mut controller);
        }
        assert!(!lab.is_live(&old));
        // Back to the dead key in this place alone: it lives again, at once.
        moved(&after, &before);
        assert_eq!(words(&lab.settle(&mut controller)), ["Reactivate"]);
        assert!(lab.is_live(&old));
    });
}

/// Before and after each call that changes a place, one rotation after the other.
#[test]
fn whoever_is_killed_between_two_places_is_followed_by_one_who_goes_on() {
    isolated_within("rotate::places::whoever_is_killed_between_two_places_is_followed_by_one_who_goes_on", 400, || {
        let (lab, mut controller, mut hosts) = three();
        lab.run_time.block_on(controller.leave()).expect("left");
        let mut kills = 0;
        for fatal in 0.. {
            let (seen, died) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (count, end, killed) = (Arc::clone(&seen), Arc::clone(&died), Arc::new(Notify::new()));
            let notify = Arc::clone(&killed);
            let choke = move |action: &'static str, _: Moment| {
                let changes = ["PutSecretValue", "UpdateSecretVersionStage", "PutParameter"];
                if !changes.iter().any(|change| action.ends_with(change)) {
                    return true;
                }
                let dies = count.fetch_add(1, Ordering::Relaxed) == fatal;
                if dies {
                    end.fetch_add(1, Ordering::Relaxed);
                    notify.notify_one();
                }
                !dies
            };
            let mut dies = lab.controller_with(|_| {}, choke);
            let old = lab.published().1;
            lab.ask(&mut dies, Ask::Run);
            lab.run_time.block_on(async {
                for _ in 0..10 {
                    tokio::select! {
                        turned = dies.tick() => drop(turned.expect("a turn")),
                        () = killed.notified() => break,
                    }
                }
            });
            drop(dies);
            let killed = died.load(Ordering::Relaxed) > 0;
            kills += usize::from(killed);
            let mut next = lab.controller();
            // A key that was not stored yet is cleared away first, which takes a day.
            for time in [6, 24 * 60 + 1] {
                lab.pass(minutes(time));
                lab.settle(&mut next);
                let (now, keys) = (lab.published().1, keys(&lab));
                assert!(keys.iter().all(|key| *key == now), "killed at {fatal}: {keys:?}");
            }
            assert_ne!(lab.published().1, old, "killed at {fatal}");
            hosts.iter_mut().for_each(|host| lab.takes(host));
            ends(&lab, &mut next);
            lab.run_time.block_on(next.leave()).expect("left");
            if !killed {
                break;
            }
        }
        // One put and two moves in each secret, with AWSPENDING, and one put in the parameter; before and after each.
        assert!(kills >= 12, "{kills}");
    });
}

/// Its key is deleted by somebody, and the second place is scheduled for deletion: the first one is not left without a login for it.
#[test]
fn an_emergency_is_acted_on_although_another_place_cannot_be_read() {
    isolated("rotate::places::an_emergency_is_acted_on_although_another_place_cannot_be_read", || {
        let (lab, mut controller, _) = three();
        let old = lab.published().1;
        lab.moto.call("secretsmanager.DeleteSecret", json!({"SecretId": SECOND, "RecoveryWindowInDays": 7}));
        lab.ask(&mut controller, Ask::Run);
        let turned = lab.tick(&mut controller);
        assert_eq!(
            (words(&turned.done), classes(&turned)),
            (vec![], vec!["secret-deleting"]),
            "nothing is due so much"
        );
        let fix = turned.look.decision.refusals[0].fix();
        assert!(fix.contains(&format!("--secret-id {SECOND} ")), "of the place that is meant: {fix}");
        lab.moto.lab("iam", &json!({"user": USER, "delete": old}));
        let done = words(&lab.settle(&mut controller));
        assert_eq!(done, ["Create", "Put", "LogIn", "Promote", "CopyTo"]);
        let new = lab.published().1;
        assert!(new != old && lab.published_at(Reads::Parameter).1 == new);
        lab.moto.call("secretsmanager.RestoreSecret", json!({"SecretId": SECOND}));
        assert_eq!(words(&lab.settle(&mut controller)), ["CopyTo", "PromoteAt"]);
        assert_eq!(keys(&lab), [new.clone(), new.clone(), new]);
    });
}

/// The first place has an SMTP password, and the second one an IAM key: that is known before there is a new key.
#[test]
fn no_key_is_made_for_a_place_that_could_not_hold_it() {
    isolated("rotate::places::no_key_is_made_for_a_place_that_could_not_hold_it", || {
        let (lab, mut controller, _) = three();
        let old = lab.published().1;
        let as_key = json!({"accessKeyId": old, "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"});
        lab.moto.put(SECOND, &as_key.to_string(), &["AWSCURRENT"]);
        lab.ask(&mut controller, Ask::Run);
        let turned = lab.tick(&mut controller);
        assert_eq!((words(&turned.done), classes(&turned)), (vec![], vec!["needs-key"]));
        assert_eq!(lab.keys().len(), 1);
        lab.run_time.block_on(controller.leave()).expect("left");
        let as_pair = |credential: &mut relaykey_rotate::config::Credential| {
            credential.publish[1].form = relaykey_rotate::config::Form::Pair;
        };
        let mut controller = lab.controller_with(as_pair, |_, _| true);
        assert_eq!(words(&lab.settle(&mut controller))[..2], ["Create", "Put"]);
        assert!(keys(&lab).iter().all(|key| *key != old));
    });
}

/// Two at work whose rotate.toml name other places: the one that does not see a place lets no key die that this gives.
#[test]
fn a_place_that_one_rotate_toml_leaves_out_keeps_the_old_key_alive() {
    isolated("rotate::places::a_place_that_one_rotate_toml_leaves_out_keeps_the_old_key_alive", || {
        let (lab, mut controller, mut hosts) = three();
        let old = lab.published().1;
        lab.ask(&mut controller, Ask::Run);
        lab.settle(&mut controller);
        hosts.iter_mut().for_each(|host| lab.takes(host));
        lab.settle(&mut controller);
        lab.run_time.block_on(controller.leave()).expect("left");
        // The parameter is left out; and somebody puts the old login there again.
        let mut other = lab.controller_with(|credential| credential.publish.truncate(2), |_, _| true);
        let before = lab.pair(&old);
        let input = json!({"Name": PARAMETER, "Value": before, "Type": "SecureString", "Overwrite": true});
        lab.moto.call("AmazonSSM.PutParameter", input);
        for _ in 0..3 {
            lab.pass(minutes(2 * 24 * 60));
            let turned = lab.tick(&mut other);
            let told = classes(&turned);
            assert_eq!((words(&turned.done), told.contains(&"place-dropped")), (vec![], true), "{told:?}");
        }
        assert!(lab.is_live(&old));
        // Nor does a rotation begin that this place would not follow.
        let name = format!("parameter:{REGION}::{PARAMETER}");
        let remove = |place: &str| Ask::RemovePlace { place: place.to_owned() };
        let refused = |place: &str, other: &mut Controller| {
            lab.run_time.block_on(other.ask(remove(place))).expect_err("not removed").what
        };
        assert!(refused("secret:::another", &mut other).contains("has no place"));
        let configured = format!("secret:{REGION}::{SECRET}");
        assert!(refused(&configured, &mut other).contains("rotate.toml publishes in"));
        // A person says that nobody reads it any more.
        lab.ask(&mut other, remove(&name));
        hosts[2].reads = Reads::First;
        hosts.iter_mut().for_each(|host| lab.takes(host));
        ends(&lab, &mut other);
        assert!(!lab.is_live(&old));
    });
}

/// A put has no condition in Parameter Store: by the numbers it is told that somebody else put a value at the same time.
#[test]
fn whoever_puts_a_parameter_at_the_same_time_is_told() {
    isolated_within("rotate::places::whoever_puts_a_parameter_at_the_same_time_is_told", 200, || {
        let cases = [
            ("ssm:DescribeParameters", Moment::Before, "nothing was put"),
            ("ssm:PutParameter", Moment::Before, "was written over"),
            ("ssm:PutParameter", Moment::After, "just after"),
        ];
        for (action, when, told) in cases {
            let (lab, mut controller, _) = three();
            lab.run_time.block_on(controller.leave()).expect("left");
            let old = lab.published().1;
            let theirs = format!("{old}:a-password-that-a-person-put-there");
            let (moto, once) = (Arc::clone(&lab.moto), AtomicUsize::new(0));
            let choke = move |called: &'static str, moment: Moment| {
                if called == action && moment == when && once.fetch_add(1, Ordering::Relaxed) == 0 {
                    let input = json!({"Name": PARAMETER, "Value": theirs, "Type": "SecureString", "Overwrite": true});
                    moto.call("AmazonSSM.PutParameter", input);
                }
                true
            };
            let mut controller = lab.controller_with(|_| {}, choke);
            lab.ask(&mut controller, Ask::Run);
            let (mut done, mut faults, mut told_last) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..10 {
                let turned = lab.tick(&mut controller);
                done.extend(words(&turned.done));
                told_last = classes(&turned);
                faults.extend(turned.look.faults.into_iter().map(|fault| fault.what));
            }
            assert!(faults.iter().any(|what| what.contains(told)), "{action} {when:?}: {faults:?}");
            let failed = done.contains(&"CopyTo failed".to_owned());
            assert_eq!(failed, told == "nothing was put", "{action} {when:?}: {done:?}");
            let new = lab.published().1;
            // Theirs holds the user's old key: it is followed, unless it came after ours. Then it is a person's choice, and is told.
            let at = lab.published_at(Reads::Parameter).1;
            assert_eq!(at == new, told != "just after", "{action} {when:?}: {done:?}");
            assert_eq!(told_last.contains(&"label-moved"), told == "just after", "{action} {when:?}: {told_last:?}");
            assert!(lab.is_live(&old));
        }
    });
}
