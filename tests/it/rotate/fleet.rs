//! Hosts that forge, lag, leave, drift, share a name or say nothing: the old key lives for as long as any of them may need it.

use jiff::SignedDuration;
use relaykey::rollover::{Report, ReportOutcome};
use relaykey_rotate::evidence::Verdict;
use relaykey_rotate::facts::HostName;
use relaykey_rotate::plan::Action;
use relaykey_rotate::run::{Ask, Controller};
use serde_json::json;

use super::lab::{Kind, Lab, SimHost, TABLE, host, prove, words};
use crate::lab::isolated::isolated;

/// A rotation whose new key is published; hosts have the old one.
pub(super) struct Begun {
    pub lab: Lab,
    pub controller: Controller,
    pub hosts: Vec<SimHost>,
    pub old: String,
    /// The password of the old key.
    pub held: String,
}

pub(super) const DAY: i64 = 24 * 60;

pub(super) fn begun(hosts: usize, expect: usize) -> Begun {
    let lab = Lab::new(Kind::SecretsManager);
    let mut controller = lab.controller();
    let (_, old, held) = lab.published();
    let mut hosts: Vec<_> = (1..=hosts).map(|n| host(&format!("mx{n}"))).collect();
    hosts.iter_mut().for_each(|host| lab.takes(host));
    lab.settle(&mut controller);
    if expect > 0 {
        lab.ask(&mut controller, Ask::Seal { expect });
    }
    lab.ask(&mut controller, Ask::Run);
    let done = lab.settle(&mut controller);
    assert_eq!(words(&done), ["Create", "Put", "LogIn", "Promote"]);
    Begun { lab, controller, hosts, old, held }
}

impl Begun {
    pub fn take(&mut self, index: usize) {
        self.lab.takes(&mut self.hosts[index]);
    }

    pub fn take_all(&mut self) {
        (0..self.hosts.len()).for_each(|index| self.take(index));
    }

    pub fn pass(&self, minutes: i64) {
        self.lab.pass(SignedDuration::from_mins(minutes));
    }

    /// More than a day goes by, which is all that the clocks ask for, and the old key lives, for these reasons. (Without a sign of
    /// life a host is silent after eight.)
    #[track_caller]
    pub fn is_stopped_by(&mut self, classes: &[&str]) {
        let mut refusals = Vec::new();
        for _ in 0..3 {
            let turned = self.lab.tick(&mut self.controller);
            let refused = turned.look.decision.refusals.iter().map(|refusal| refusal.class());
            refusals = refused.filter(|class| *class != "grace").collect();
            self.pass(DAY * 10 / 24);
        }
        self.lab.settle(&mut self.controller);
        assert_eq!(refusals, classes);
        assert!(self.lab.is_live(&self.old));
    }

    /// Nothing stands in the way any more: two days later it is dead.
    #[track_caller]
    pub fn ends(&mut self) {
        for minutes in [0, DAY + 1, 2] {
            self.pass(minutes);
            self.lab.settle(&mut self.controller);
        }
        assert!(!self.lab.is_live(&self.old));
    }

    fn report(&mut self, index: usize, change: impl FnOnce(&mut Report)) {
        let (version, key, password) = self.lab.published();
        self.hosts[index].applied = Some((version, key));
        let mut report = self.lab.report(&mut self.hosts[index], ReportOutcome::Confirmed, &password);
        change(&mut report);
        prove(&mut report, &password);
        self.lab.writes(&self.hosts[index], &report);
    }

    pub fn ask(&mut self, what: Ask) {
        self.lab.ask(&mut self.controller, what);
    }
}

fn named(host: &str) -> HostName {
    HostName::new(host)
}

#[test]
fn without_hosts_and_without_a_roster_nothing_dies() {
    isolated("rotate::fleet::without_hosts_and_without_a_roster_nothing_dies", || {
        let mut none = begun(0, 0);
        none.is_stopped_by(&["no-hosts", "roster-open"]);
        // One of two confirms, and nobody has said that there are two.
        let mut open = begun(1, 0);
        open.take_all();
        open.is_stopped_by(&["roster-open"]);
        open.ask(Ask::Seal { expect: 2 });
        open.is_stopped_by(&["roster-open"]);
        let mut late = host("mx2");
        open.lab.takes(&mut late);
        open.ends();
    });
}

#[test]
fn what_is_forged_unproved_or_of_another_version_counts_for_nothing() {
    isolated("rotate::fleet::what_is_forged_unproved_or_of_another_version_counts_for_nothing", || {
        let mut begun = begun(1, 1);
        begun.is_stopped_by(&["other-version"]);
        let (version, key, _) = begun.lab.published();
        begun.hosts[0].applied = Some((version, key));
        let held = begun.held.clone();
        let forged = begun.lab.report(&mut begun.hosts[0], ReportOutcome::Confirmed, &held);
        begun.lab.writes(&begun.hosts[0], &forged);
        begun.is_stopped_by(&["proof-false"]);
        let mut unproved = begun.lab.report(&mut begun.hosts[0], ReportOutcome::Confirmed, &held);
        unproved.targets[0].proof = None;
        begun.lab.writes(&begun.hosts[0], &unproved);
        begun.is_stopped_by(&["proof-missing"]);
        // Two targets, one of them without proof.
        let password = begun.lab.published().2;
        let mut half = begun.lab.report(&mut begun.hosts[0], ReportOutcome::Confirmed, &password);
        half.targets.push(half.targets[0].clone());
        half.targets[1].name = "second".into();
        prove(&mut half, &password);
        half.targets[1].proof = None;
        begun.lab.writes(&begun.hosts[0], &half);
        begun.is_stopped_by(&["proof-missing"]);
        // Its lists, taken out of what was signed.
        begun.report(0, |report| report.targets[0].held.remaining_old = vec!["[relay]:587".into()]);
        begun.is_stopped_by(&["remaining-old"]);
        let mut cleaned = begun.lab.report(&mut begun.hosts[0], ReportOutcome::Confirmed, &password);
        cleaned.targets[0].held.remaining_old = vec!["[relay]:587".into()];
        prove(&mut cleaned, &password);
        cleaned.targets[0].held.remaining_old.clear();
        begun.lab.writes(&begun.hosts[0], &cleaned);
        begun.is_stopped_by(&["proof-false"]);
        begun.take_all();
        begun.ends();
    });
}

#[test]
fn an_agent_of_0_1_0_is_named_and_can_be_waived() {
    isolated("rotate::fleet::an_agent_of_0_1_0_is_named_and_can_be_waived", || {
        let mut begun = begun(2, 2);
        begun.take(0);
        begun.report(1, |report| report.schema = "relaykey/report/v1".into());
        begun.is_stopped_by(&["agent-too-old"]);
        let until = begun.lab.now() + SignedDuration::from_hours(24 * 30);
        let waive = |reason: &str| Ask::Waive { host: named("mx2"), reason: reason.into(), until };
        assert!(
            begun.lab.run_time.block_on(begun.controller.ask(waive("soon"))).is_err(),
            "that tells nobody anything"
        );
        begun.ask(waive("replaced next month, looked at by hand"));
        begun.ends();
        let lines = begun.lab.run_time.block_on(begun.controller.history()).expect("a log");
        let waived = lines.iter().find(|line| line.what == "waive").expect("a line");
        assert!(
            waived.by.starts_with("arn:aws:")
                && waived.more.as_deref() == Some("replaced next month, looked at by hand")
        );
    });
}

#[test]
fn a_host_that_leaves_is_removed_or_joins_midway() {
    isolated("rotate::fleet::a_host_that_leaves_is_removed_or_joins_midway", || {
        let mut begun = begun(3, 3);
        begun.take(0);
        begun.is_stopped_by(&["other-version", "other-version"]);
        let held = begun.held.clone();
        let left = begun.lab.report(&mut begun.hosts[1], ReportOutcome::Left, &held);
        begun.lab.writes(&begun.hosts[1], &left);
        begun.is_stopped_by(&["other-version"]);
        begun.ask(Ask::Remove { host: named("mx3") });
        // Comes with the old version, after the roster was sealed.
        let mut joins = host("mx4");
        joins.applied = begun.hosts[2].applied.clone();
        let hello = begun.lab.report(&mut joins, ReportOutcome::Confirmed, &held);
        begun.lab.writes(&joins, &hello);
        begun.is_stopped_by(&["other-version"]);
        begun.lab.takes(&mut joins);
        // One that a person named, and that has never written.
        begun.ask(Ask::Add { host: named("mx5") });
        begun.is_stopped_by(&["host-unconfirmed"]);
        begun.ask(Ask::Remove { host: named("mx5") });
        begun.ends();
    });
}

#[test]
fn a_host_that_drifts_back_keeps_the_old_key_or_gets_it_back() {
    isolated("rotate::fleet::a_host_that_drifts_back_keeps_the_old_key_or_gets_it_back", || {
        let mut begun = begun(2, 2);
        begun.take_all();
        begun.lab.settle(&mut begun.controller);
        let (old, held) = (begun.old.clone(), begun.held.clone());
        let drifted = |begun: &mut Begun| {
            let applied = begun.hosts[1].applied.clone();
            let mut report = begun.lab.report(&mut begun.hosts[1], ReportOutcome::Withdrawn, &held);
            report.in_use = Some(vec![old.clone()]);
            begun.lab.writes(&begun.hosts[1], &report);
            begun.hosts[1].applied = applied;
        };
        // Before the end of the old key.
        drifted(&mut begun);
        begun.is_stopped_by(&["withdrawn"]);
        begun.take(1);
        begun.ends();
        // After it.
        drifted(&mut begun);
        let done = begun.lab.settle(&mut begun.controller);
        assert_eq!(words(&done), ["Reactivate"]);
        assert!(begun.lab.is_live(&old));
        begun.is_stopped_by(&["withdrawn"]);
        begun.take(1);
        begun.ends();
    });
}

#[test]
fn two_under_one_name_and_one_name_for_two_are_told() {
    isolated("rotate::fleet::two_under_one_name_and_one_name_for_two_are_told", || {
        let mut begun = begun(2, 2);
        begun.take_all();
        begun.lab.settle(&mut begun.controller);
        // Another principal writes under the name of the first.
        let mut clone =
            SimHost { principal: "AROAEXAMPLE:other".into(), host_id: "f".repeat(32), ..begun.hosts[0].clone() };
        begun.pass(1);
        begun.lab.takes(&mut clone);
        begun.is_stopped_by(&["name-twice"]);
        // A person says which one it is: what each dates itself says nothing.
        begun.ask(Ask::Accept { host: named("mx1"), who: Some("AROAEXAMPLE:other".into()) });
        begun.lab.settle(&mut begun.controller);
        begun.hosts[0] = clone;
        // One principal for two hosts.
        begun.hosts[1].principal = begun.hosts[0].principal.clone();
        begun.hosts[1].host_id = "e".repeat(32);
        begun.take(1);
        begun.is_stopped_by(&["name-twice", "identity-shared", "identity-shared"]);
        begun.ask(Ask::Accept { host: named("mx2"), who: Some("e".repeat(32)) });
        begun.ends();
    });
}

#[test]
fn clocks_others_and_uses_of_the_old_key_stand_in_its_way() {
    isolated("rotate::fleet::clocks_others_and_uses_of_the_old_key_stand_in_its_way", || {
        let mut begun = begun(1, 1);
        let ahead = begun.lab.now() + SignedDuration::from_hours(24 * 30);
        begun.report(0, |report| report.at = relaykey::rollover::rfc3339(ahead));
        begun.is_stopped_by(&["clock"]);
        let old = begun.old.clone();
        begun.report(0, |report| {
            let held = json!([{"id": old, "count": 1}]);
            report.targets[0].held.others = serde_json::from_value(held).expect("a list");
        });
        begun.is_stopped_by(&["old-key-elsewhere"]);
        begun.report(0, |report| report.targets[0].held.incomplete = vec!["mysql:/etc/postfix/sasl".into()]);
        begun.is_stopped_by(&["incomplete"]);
        begun.take_all();
        begun.lab.settle(&mut begun.controller);
        // Somebody whom nobody knows of, at another service, after everybody has confirmed.
        begun.pass(60);
        begun.lab.used(&old, begun.lab.now(), "s3");
        begun.is_stopped_by(&["old-key-used"]);
        begun.ask(Ask::Seal { expect: 1 });
        begun.ends();
    });
}

#[test]
fn a_report_that_makes_no_sense_is_a_host_that_has_confirmed_nothing() {
    isolated("rotate::fleet::a_report_that_makes_no_sense_is_a_host_that_has_confirmed_nothing", || {
        let mut begun = begun(1, 1);
        begun.take_all();
        let item = json!({
            "principal": {"S": "AROAEXAMPLE:mx9"}, "credential#host_id": {"S": "ses#9"},
            "host": {"S": "mx9"}, "report": {"S": "{"},
        });
        begun.lab.moto.call("DynamoDB_20120810.PutItem", json!({"TableName": TABLE, "Item": item}));
        begun.is_stopped_by(&["host-unconfirmed"]);
    });
}

/// A table of 0.1.0, whose keys are credential and host: read, so that a fleet can move.
#[test]
fn a_table_with_the_keys_of_0_1_0_is_read() {
    isolated("rotate::fleet::a_table_with_the_keys_of_0_1_0_is_read", || {
        let lab = Lab::new(Kind::SecretsManager);
        let (version, key, password) = lab.published();
        lab.make_table("earlier", &[("credential", "HASH"), ("host", "RANGE")]);
        let write = |host: &mut SimHost, schema: &str| {
            host.applied = Some((version.clone(), key.clone()));
            let mut report = lab.report(host, ReportOutcome::Confirmed, &password);
            report.schema = schema.into();
            prove(&mut report, &password);
            let mut item = lab.item(host, &report);
            item["credential"] = json!({"S": "ses"});
            item["host"] = json!({"S": host.name});
            lab.moto.call("DynamoDB_20120810.PutItem", json!({"TableName": "earlier", "Item": item}));
        };
        write(&mut host("mx1"), "relaykey/report/v1");
        write(&mut host("mx2"), "relaykey/report/v2");
        let earlier = |credential: &mut relaykey_rotate::config::Credential| {
            if let relaykey_rotate::config::EvidenceConfig::DynamoDb { table, .. } = &mut credential.evidence {
                *table = "earlier".into();
            }
        };
        let mut controller = lab.controller_with(earlier, |_, _| true);
        lab.settle(&mut controller);
        lab.ask(&mut controller, Ask::Seal { expect: 2 });
        let hosts = lab.tick(&mut controller).look.decision.hosts;
        let verdicts: Vec<_> = hosts.iter().map(|(name, verdict)| (name.as_str(), verdict.clone())).collect();
        assert_eq!(verdicts, [("mx1", Verdict::TooOld), ("mx2", Verdict::True { by_code: false })]);
        let (lines, broken) = lab.run_time.block_on(controller.verify()).expect("a log");
        assert_eq!((lines.len(), broken), (1, vec![]));
    });
}

#[test]
fn a_label_that_a_person_moves_is_told_before_and_healed_after() {
    isolated("rotate::fleet::a_label_that_a_person_moves_is_told_before_and_healed_after", || {
        let mut begun = begun(1, 1);
        let (old_version, _) = begun.hosts[0].applied.clone().expect("applied");
        begun.take_all();
        begun.lab.settle(&mut begun.controller);
        let new_version = begun.lab.published().0;
        let moved = |begun: &Begun, from: &str, to: &str| {
            let input = json!({
                "SecretId": super::lab::SECRET, "VersionStage": "AWSCURRENT",
                "RemoveFromVersionId": from, "MoveToVersionId": to,
            });
            begun.lab.moto.call("secretsmanager.UpdateSecretVersionStage", input);
        };
        moved(&begun, &new_version, &old_version);
        begun.pass(2 * DAY);
        let turned = begun.lab.tick(&mut begun.controller);
        assert!(turned.look.decision.refusals.iter().any(|refusal| refusal.class() == "label-moved"));
        begun.pass(2 * DAY);
        begun.lab.settle(&mut begun.controller);
        assert!(begun.lab.is_live(&begun.old));
        moved(&begun, &old_version, &new_version);
        begun.ends();
        // Back to the dead key, as AWSCURRENT: it lives again, at once.
        moved(&begun, &new_version, &old_version);
        let done = begun.lab.settle(&mut begun.controller);
        assert!(matches!(&done[0].0, Action::Reactivate { key, .. } if key.as_str() == begun.old));
        assert!(begun.lab.is_live(&begun.old));
    });
}

/// Each name in an entry of its own: the record has room for none of a hundred thousand.
#[test]
fn who_stands_on_the_roster_is_missed_and_no_record_has_to_hold_all_names() {
    isolated("rotate::fleet::who_stands_on_the_roster_is_missed_and_no_record_has_to_hold_all_names", || {
        let mut begun = begun(2, 2);
        begun.take_all();
        begun.lab.settle(&mut begun.controller);
        let of = |partition: &str, sort: &str| {
            let key = json!({"principal": {"S": partition}, "credential#host_id": {"S": sort}});
            begun.lab.moto.call("DynamoDB_20120810.GetItem", json!({"TableName": TABLE, "Key": key})).to_string()
        };
        assert!(of("!registry/ses", "mx2").contains("on_roster"));
        assert!(!of("!control/ses", "ses").contains("mx2"));
        // Its item is gone, and it has not left.
        let item = json!({"principal": {"S": begun.hosts[1].principal}, "credential#host_id": {"S": format!("ses#{}", begun.hosts[1].host_id)}});
        begun.lab.moto.call("DynamoDB_20120810.DeleteItem", json!({"TableName": TABLE, "Key": item}));
        begun.is_stopped_by(&["host-unconfirmed"]);
        // Whoever looks next has to know it too.
        begun.controller = begun.lab.controller();
        begun.lab.pass(SignedDuration::from_mins(6));
        begun.is_stopped_by(&["host-unconfirmed"]);
        begun.ask(Ask::Remove { host: named("mx2") });
        begun.ends();
    });
}

#[test]
fn no_key_is_made_for_a_region_where_it_would_not_be_tried() {
    isolated("rotate::fleet::no_key_is_made_for_a_region_where_it_would_not_be_tried", || {
        let lab = Lab::new(Kind::SecretsManager);
        let mut controller = lab.controller();
        let mut one = host("mx1");
        lab.takes(&mut one);
        let password = lab.published().2;
        let mut report = lab.report(&mut one, ReportOutcome::Confirmed, &password);
        report.targets[0].region = Some("us-east-1".into());
        lab.writes(&one, &report);
        lab.settle(&mut controller);
        lab.ask(&mut controller, Ask::Run);
        let turned = lab.tick(&mut controller);
        let refusals: Vec<_> = turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect();
        assert_eq!((words(&turned.done), refusals), (vec![], vec!["region-refused"]));
        lab.takes(&mut one);
        assert_eq!(words(&lab.settle(&mut controller)), ["Create", "Put", "LogIn", "Promote"]);
    });
}
