//! What vanishes, lapses or is another's: hosts whose entry somebody deleted, hosts that leave, leases that nobody gave back, another
//! IAM user, and what somebody stages in between. Each is told by name, and no key dies for it.

use std::sync::Arc;

use jiff::SignedDuration;
use relaykey::rollover::{Report, ReportOutcome, rfc3339};
use relaykey_rotate::run::{Ask, Controller, Moment, Tick, Turned};
use serde_json::{Value, json};

use super::lab::{Kind, Lab, SECRET, SimHost, TABLE, host, words};
use crate::lab::isolated::isolated;

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn classes(turned: &Turned) -> Vec<&'static str> {
    turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect()
}

/// Two hosts with the first key, the roster sealed, and a new key published.
fn published(kind: Kind) -> (Lab, Controller, Vec<SimHost>) {
    let lab = Lab::new(kind);
    let mut controller = lab.controller();
    let mut hosts: Vec<_> = ["mx1", "mx2"].map(host).into();
    hosts.iter_mut().for_each(|host| lab.takes(host));
    lab.settle(&mut controller);
    lab.ask(&mut controller, Ask::Seal { expect: 2 });
    lab.settle(&mut controller);
    lab.ask(&mut controller, Ask::Run);
    lab.settle(&mut controller);
    (lab, controller, hosts)
}

fn delete(lab: &Lab, principal: &str, sort: &str) {
    let key = json!({"principal": {"S": principal}, "credential#host_id": {"S": sort}});
    lab.moto.call("DynamoDB_20120810.DeleteItem", json!({"TableName": TABLE, "Key": key}));
}

fn registry(lab: &Lab) -> Vec<String> {
    let scan = lab.moto.call("DynamoDB_20120810.Scan", json!({"TableName": TABLE}));
    let items = scan["Items"].as_array().expect("items").iter();
    let own = items.filter(|item| item["principal"]["S"] == "!registry/ses");
    own.map(|item| item["credential#host_id"]["S"].as_str().expect("a name").to_owned()).collect()
}

/// The lines of the audit log that say this.
fn told(lab: &Lab, controller: &mut Controller, what: &str) -> Vec<String> {
    let lines = lab.run_time.block_on(controller.history()).expect("a log");
    let lines = lines.into_iter().filter(|line| line.what == what);
    lines.map(|line| line.more.unwrap_or_default()).collect()
}

/// Days go by.
fn days_go_by(lab: &Lab, controller: &mut Controller) -> Turned {
    for time in [0, 24 * 60 + 1, 2, 3 * 24 * 60 + 1] {
        lab.pass(minutes(time));
        lab.settle(controller);
    }
    lab.tick(controller)
}

#[test]
fn a_host_whose_item_and_entry_vanish_keeps_the_old_key_alive_by_name() {
    isolated("rotate::vanished::a_host_whose_item_and_entry_vanish_keeps_the_old_key_alive_by_name", || {
        let (lab, mut controller, mut hosts) = published(Kind::SecretsManager);
        let old = lab.keys()[0].0.clone();
        lab.takes(&mut hosts[0]);
        delete(&lab, &hosts[1].principal, &format!("ses#{}", hosts[1].host_id));
        delete(&lab, "!registry/ses", "mx2");
        let turned = days_go_by(&lab, &mut controller);
        let refusals = &turned.look.decision.refusals;
        let named = refusals.iter().find(|refusal| refusal.host().is_some_and(|host| host.as_str() == "mx2"));
        let fix = named.unwrap_or_else(|| panic!("mx2 is missed: {refusals:?}")).fix();
        assert!(fix.contains("`relaykey-rotate hosts remove mx2`"), "{fix}");
        assert!(lab.is_live(&old));
        // The command helps.
        lab.ask(&mut controller, Ask::Remove { host: relaykey_rotate::facts::HostName::new("mx2") });
        days_go_by(&lab, &mut controller);
        assert!(!lab.is_live(&old));
    });
}

#[test]
fn a_registry_that_is_gone_opens_the_roster() {
    isolated("rotate::vanished::a_registry_that_is_gone_opens_the_roster", || {
        let (lab, mut controller, mut hosts) = published(Kind::SecretsManager);
        let old = lab.keys()[0].0.clone();
        lab.takes(&mut hosts[0]);
        delete(&lab, &hosts[1].principal, &format!("ses#{}", hosts[1].host_id));
        registry(&lab).iter().for_each(|name| delete(&lab, "!registry/ses", name));
        let turned = days_go_by(&lab, &mut controller);
        assert!(classes(&turned).contains(&"roster-open"), "{:?}", classes(&turned));
        assert!(lab.is_live(&old));
        // A person counts anew.
        lab.ask(&mut controller, Ask::Seal { expect: 1 });
        days_go_by(&lab, &mut controller);
        assert!(!lab.is_live(&old));
    });
}

#[test]
fn who_leaves_the_roster_stands_in_the_audit_log() {
    isolated("rotate::vanished::who_leaves_the_roster_stands_in_the_audit_log", || {
        for kind in [Kind::SecretsManager, Kind::ParameterStore] {
            let (lab, mut controller, mut hosts) = published(kind);
            let [one, two] = &mut hosts[..] else { panic!("two") };
            let password = lab.published().2;
            let left = lab.report(one, ReportOutcome::Left, &password);
            lab.writes(one, &left);
            lab.takes(two);
            let comes_and_goes = Report { lease_s: Some(60), ..lab.report(two, ReportOutcome::Alive, &password) };
            lab.writes(two, &comes_and_goes);
            lab.settle(&mut controller);
            lab.pass(minutes(3));
            lab.settle(&mut controller);
            lab.settle(&mut controller);
            let told = told(&lab, &mut controller, "left-the-roster");
            assert_eq!(told, ["mx1: it said so", "mx2: its lease ran out"]);
            let (_, broken) = lab.run_time.block_on(controller.verify()).expect("a log");
            assert_eq!(broken, []);
        }
    });
}

#[test]
fn a_lease_that_is_taken_over_stands_in_the_audit_log() {
    isolated("rotate::vanished::a_lease_that_is_taken_over_stands_in_the_audit_log", || {
        let lab = Lab::new(Kind::SecretsManager);
        let (mut one, mut two) = (lab.controller(), lab.controller());
        lab.tick(&mut one);
        lab.run_time.block_on(one.leave()).expect("given back");
        lab.tick(&mut two);
        lab.tick(&mut two);
        assert_eq!(told(&lab, &mut two, "take-over"), [""; 0], "it was given back");
        // Now it is killed.
        lab.pass(minutes(6));
        lab.tick(&mut one);
        let over = told(&lab, &mut one, "take-over");
        assert!(over.len() == 1 && over[0].contains("which ran out at"), "{over:?}");
        let who = lab.run_time.block_on(one.caller()).expect("STS").arn;
        assert!(over[0].contains(&who), "{over:?}");
    });
}

/// A clock that is years ahead, or a hand: nobody waits for that.
#[test]
fn a_lease_that_is_longer_than_any_is_said_and_taken_over() {
    isolated("rotate::vanished::a_lease_that_is_longer_than_any_is_said_and_taken_over", || {
        let lab = Lab::new(Kind::SecretsManager);
        let (mut one, mut two) = (lab.controller(), lab.controller());
        lab.tick(&mut one);
        assert!(matches!(lab.run_time.block_on(two.tick()), Ok(Tick::Busy(_))), "a lease is waited for");
        let until = |until: String| {
            let key = json!({"principal": {"S": "!control/ses"}, "credential#host_id": {"S": "ses"}});
            let got = lab.moto.call("DynamoDB_20120810.GetItem", json!({"TableName": TABLE, "Key": key}));
            let mut item = got["Item"].clone();
            let mut kept: Value = serde_json::from_str(item["record"]["S"].as_str().expect("a record")).expect("JSON");
            kept["record"]["lease"]["until"] = json!(until);
            item["record"]["S"] = json!(kept.to_string());
            lab.moto.call("DynamoDB_20120810.PutItem", json!({"TableName": TABLE, "Item": item}));
        };
        // What two clocks may be apart is believed.
        until(rfc3339(lab.now() + minutes(9)));
        assert!(matches!(lab.run_time.block_on(two.tick()), Ok(Tick::Busy(_))));
        until("2046-01-01T00:00:00Z".into());
        let look = lab.run_time.block_on(two.look()).expect("a look");
        assert!(look.busy.is_none() && look.faults[0].what.contains("2046-01-01"), "{:?}", look.faults);
        let turned = lab.tick(&mut two);
        assert!(turned.look.faults[0].what.contains("2046-01-01"), "{:?}", turned.look.faults);
        let over = told(&lab, &mut two, "take-over");
        assert!(over.len() == 1 && over[0].contains("2046-01-01"), "{over:?}");
    });
}

#[test]
fn a_person_says_whose_keys_are_rotated_from_now_on() {
    isolated("rotate::vanished::a_person_says_whose_keys_are_rotated_from_now_on", || {
        let (lab, controller, mut hosts) = published(Kind::SecretsManager);
        drop(controller);
        lab.pass(minutes(6));
        let before = lab.keys();
        let keys = lab.moto.lab("iam", &json!({"user": "ses-other", "make": true}));
        assert_eq!(keys.as_array().map(Vec::len), Some(1));
        let mut other = lab.controller_with(|credential| credential.iam_user = "ses-other".into(), |_, _| true);
        let turned = lab.tick(&mut other);
        assert_eq!((words(&turned.done), classes(&turned)), (vec![], vec!["wrong-user"]));
        let fix = turned.look.decision.refusals[0].fix();
        assert!(fix.contains("`relaykey-rotate user accept ses-other`"), "{fix}");
        // One that rotate.toml does not lead to is nobody's choice.
        let another = Ask::AcceptUser { name: "ses-another".into() };
        assert!(lab.run_time.block_on(other.ask(another)).is_err());
        lab.ask(&mut other, Ask::AcceptUser { name: "ses-other".into() });
        let turned = lab.tick(&mut other);
        assert!(!classes(&turned).contains(&"wrong-user"), "{:?}", classes(&turned));
        // What hosts use is another user's now, and is written over by a person's word alone; none of its keys dies.
        lab.ask(&mut other, Ask::Run);
        assert!(classes(&lab.tick(&mut other)).contains(&"value-not-ours"));
        hosts.iter_mut().for_each(|host| lab.takes(host));
        days_go_by(&lab, &mut other);
        assert_eq!(lab.keys(), before);
        // And the first rotate.toml is the wrong one now.
        lab.run_time.block_on(other.leave()).expect("left");
        assert_eq!(classes(&lab.tick(&mut lab.controller())), ["wrong-user"]);
    });
}

#[test]
fn what_somebody_stages_while_a_key_is_made_stays() {
    isolated("rotate::vanished::what_somebody_stages_while_a_key_is_made_stays", || {
        let lab = Lab::new(Kind::SecretsManager);
        let moto = Arc::clone(&lab.moto);
        let stages = move |action: &'static str, moment| {
            if action == "iam:CreateAccessKey" && moment == Moment::After {
                let input = json!({
                    "SecretId": SECRET, "SecretString": "staged by another rotation", "VersionStages": ["AWSPENDING"],
                    "ClientRequestToken": "11111111-2222-3333-4444-555555555555",
                });
                moto.call("secretsmanager.PutSecretValue", input);
            }
            true
        };
        let mut controller = lab.controller_with(|_| {}, stages);
        lab.ask(&mut controller, Ask::Run);
        let turned = lab.tick(&mut controller);
        assert_eq!((words(&turned.done), classes(&turned)), (vec!["Create".to_owned()], vec!["pending-foreign"]));
        assert!(turned.holds_key);
        let staged = || {
            lab.moto.call("secretsmanager.DescribeSecret", json!({"SecretId": SECRET}))["VersionIdsToStages"]
            ["11111111-2222-3333-4444-555555555555"]
            .clone()
        };
        assert_eq!(staged(), json!(["AWSPENDING"]));
        // When that one is over, the key has its turn.
        lab.moto.call(
            "secretsmanager.UpdateSecretVersionStage",
            json!({"SecretId": SECRET, "VersionStage": "AWSPENDING", "RemoveFromVersionId": "11111111-2222-3333-4444-555555555555"}),
        );
        assert_eq!(words(&lab.settle(&mut controller)), ["Put", "LogIn", "Promote"]);
    });
}
