//! Reports to a DynamoDB table, with the real SDK against a local AWS API server: what is written when, what is never
//! replaced, and what is said when it is not.

use crate::lab::isolated;
use crate::lab::moto;
use crate::lab::sample;

use std::time::{Duration, Instant};

use isolated::{KEY, isolated};
use jiff::{SignedDuration, Timestamp};
use moto::{Moto, REGION};
use relaykey::aws::{Http, Limits};
use relaykey::config::{self, Aws, ReceiverKind, TableKeys};
use relaykey::fault::{Class, Fault};
use relaykey::report::dynamodb::SILENT;
use relaykey::report::{self, Receiver, Whose};
use relaykey::rollover::{Report, rfc3339};
use serde_json::{Value, json};

/// The longest one delivery may take here.
const DELIVERY: Duration = Duration::from_secs(20);
const TABLE: &str = "relaykey";
const US: &str = "5f0c2d9a7b6e4c3f8a1d0e9b2c7f6a54";
const THEM: &str = "00000000000000000000000000000bad";

struct Lab {
    moto: Moto,
    receiver: Box<dyn Receiver>,
    run_time: tokio::runtime::Runtime,
}

impl Lab {
    /// With a table as the documentation makes it.
    fn new() -> Self {
        let lab = Self::without_table();
        lab.make_table(&[("credential", "HASH", "S"), ("host", "RANGE", "S")]);
        lab
    }

    fn without_table() -> Self {
        let moto = Moto::start();
        Self {
            receiver: receiver(&moto, Limits::default(), TableKeys::ByHost),
            run_time: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time"),
            moto,
        }
    }

    fn make_table(&self, key: &[(&str, &str, &str)]) {
        let attribute = |(name, _, kind): &(&str, &str, &str)| json!({"AttributeName": name, "AttributeType": kind});
        let part = |(name, part, _): &(&str, &str, &str)| json!({"AttributeName": name, "KeyType": part});
        self.call(
            "CreateTable",
            json!({
                "TableName": TABLE,
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": key.iter().map(attribute).collect::<Vec<_>>(),
                "KeySchema": key.iter().map(part).collect::<Vec<_>>(),
            }),
        );
    }

    fn call(&self, action: &str, input: Value) -> Value {
        self.moto.call(&format!("DynamoDB_20120810.{action}"), input)
    }

    fn deliver(&self, report: &Report) -> Result<(), Fault> {
        let attempt = async { tokio::time::timeout(DELIVERY, self.receiver.deliver(report)).await };
        self.run_time.block_on(attempt).expect("a delivery ends in time")
    }

    #[track_caller]
    fn arrives(&self, report: &Report) {
        self.deliver(report).expect("delivered");
        assert_eq!(self.stored(), *report);
    }

    #[track_caller]
    fn refused(&self, report: &Report, class: &str, temporary: bool) -> Fault {
        let e = self.deliver(report).expect_err("not delivered");
        assert_eq!((e.class.word(), e.temporary), (class, temporary), "{e:?}");
        e
    }

    fn check(&self, host_id: &str) -> Result<String, Fault> {
        self.check_as(host_id, false)
    }

    fn check_as(&self, host_id: &str, is_passing: bool) -> Result<String, Fault> {
        let whose =
            Whose { credential: "ses".into(), host: "mx1.example.com".into(), host_id: host_id.into(), is_passing };
        let check = async { tokio::time::timeout(DELIVERY, self.receiver.check(&whose)).await };
        self.run_time.block_on(check).expect("a check ends in time")
    }

    fn item(&self) -> Value {
        self.call("GetItem", json!({"TableName": TABLE, "Key": key()}))["Item"].take()
    }

    /// The report that the item holds.
    fn stored(&self) -> Report {
        serde_json::from_str(self.item()["report"]["S"].as_str().expect("a text")).expect("a report")
    }

    /// As if the item had been written this long ago.
    fn age(&self, age: SignedDuration) {
        let written = Timestamp::now().checked_sub(age).expect("a time");
        self.call(
            "UpdateItem",
            json!({
                "TableName": TABLE,
                "Key": key(),
                "UpdateExpression": "SET written = :written",
                "ExpressionAttributeValues": {":written": {"S": rfc3339(written)}},
            }),
        );
    }

    fn fault(&self, action: &str, fault: Value) {
        self.moto.fault(KEY, action, fault);
    }

    fn calls(&self, action: &str) -> usize {
        self.moto.calls(KEY).iter().filter(|call| call["action"] == action && call["about"] == TABLE).count()
    }
}

fn receiver(moto: &Moto, limits: Limits, keys: TableKeys) -> Box<dyn Receiver> {
    let aws = Aws { region: Some(REGION.into()), endpoint_url: Some(moto.endpoint()), ..Aws::default() };
    let kind = ReceiverKind::DynamoDb { table: TABLE.into(), keys, aws };
    let configured = config::ReceiverConfig { name: "fleet".into(), kind, credentials: None, spread: None };
    let http = Http::new(moto.ca_pem().as_bytes()).with_limits(limits);
    report::open(&configured, &http).expect("opened")
}

fn key() -> Value {
    json!({"credential": {"S": "ses"}, "host": {"S": "mx1.example.com"}})
}

#[test]
fn a_report_becomes_one_item_with_its_main_fields() {
    isolated("dynamodb::a_report_becomes_one_item_with_its_main_fields", || {
        let lab = Lab::new();
        assert_eq!(lab.receiver.describe(), "DynamoDB table relaykey in eu-west-1");
        let before = lab.check(US).expect("fits");
        assert!(before.contains("table \"relaykey\" fits") && before.contains("UpdateItem) is not tried"), "{before}");
        let report = sample::report(US, 1_800_000_000_001);
        lab.arrives(&report);
        let mut item = lab.item();
        let written = item["written"]["S"].take();
        let written: Timestamp = written.as_str().expect("a text").parse().expect("a time");
        assert!(Timestamp::now().duration_since(written).abs() < SignedDuration::from_secs(60), "{written}");
        let mut expected = json!({
            "credential": {"S": "ses"},
            "host": {"S": "mx1.example.com"},
            "schema": {"S": "relaykey/report/v1"},
            "host_id": {"S": US},
            "host_id_since": {"S": "2027-01-15T08:00:00Z"},
            "seq": {"N": "1800000000001"},
            "at": {"S": "2027-01-15T08:00:00Z"},
            "written": {"S": null},
            "outcome": {"S": "confirmed"},
            "version": {"S": "version-1800000000001"},
            "username": {"S": "AKIAIOSFODNN7EXAMPLE"},
            "report": {"S": serde_json::to_string(&report).expect("JSON")},
        });
        assert_eq!(item, expected);
        let after = lab.check(US).expect("fits");
        assert!(after.contains("report number 1800000000001"), "{after}");

        // A later one replaces it; what somebody else noted in the item stays.
        lab.call(
            "UpdateItem",
            json!({"TableName": TABLE, "Key": key(), "UpdateExpression": "SET note = :note",
                   "ExpressionAttributeValues": {":note": {"S": "rack 7"}}}),
        );
        let later = Report { at: "2027-02-15T08:00:00Z".into(), ..sample::report(US, 1_800_000_000_002) };
        lab.arrives(&later);
        let item = lab.item();
        expected["seq"]["N"] = "1800000000002".into();
        for (name, value) in [("seq", "1800000000002"), ("at", "2027-02-15T08:00:00Z")] {
            let kind = if name == "seq" { "N" } else { "S" };
            assert_eq!(item[name][kind], value, "{name}");
        }
        assert_eq!(
            (&item["host_id_since"]["S"], &item["note"]["S"]),
            (&json!("2027-01-15T08:00:00Z"), &json!("rack 7"))
        );
        // Without a user name or version, as when a source never answered.
        let bare = Report { version: String::new(), username: String::new(), ..sample::report(US, 1_800_000_000_003) };
        lab.arrives(&bare);
    });
}

#[test]
fn the_same_report_does_no_harm_and_an_earlier_one_never_wins() {
    isolated("dynamodb::the_same_report_does_no_harm_and_an_earlier_one_never_wins", || {
        let lab = Lab::new();
        lab.arrives(&sample::report(US, 5));
        let item = lab.item();
        assert_eq!(lab.deliver(&sample::report(US, 5)), Ok(()));
        assert_eq!(lab.item(), item, "it was there: nothing is written again");
        let e = lab.refused(&sample::report(US, 4), "newer-there", false);
        assert!(
            e.what.contains("number 5 there, 4 here")
                && e.fix.contains("`aws dynamodb delete-item")
                && e.fix.ends_with('`'),
            "{e:?}"
        );
        assert_eq!(lab.item(), item);
        lab.arrives(&sample::report(US, 6));
        // Numbers are compared as numbers.
        lab.arrives(&sample::report(US, 10));

        // Written, and the answer breaks off: when it is tried again, it is there.
        lab.fault("UpdateItem", json!({"kind": "truncate"}));
        let lost = lab.deliver(&sample::report(US, 11));
        assert!(lost.is_ok() || lost.as_ref().is_err_and(|e| e.temporary), "{lost:?}");
        lab.arrives(&sample::report(US, 11));
    });
}

#[test]
fn of_two_machines_with_one_name_neither_hides_the_other() {
    isolated("dynamodb::of_two_machines_with_one_name_neither_hides_the_other", || {
        let lab = Lab::new();
        lab.arrives(&sample::report(THEM, 900));
        let item = lab.item();
        // The numbers of the two have nothing to do with each other.
        for seq in [1, 900, 1000] {
            let e = lab.refused(&sample::report(US, seq), "occupied", false);
            assert!(e.what.contains(THEM) && e.what.contains(US) && e.what.contains("(confirmed)"), "{e:?}");
            assert!(e.fix.contains("[host]") && e.fix.contains("delete-item"), "{e:?}");
        }
        let e = lab.check(US).expect_err("occupied");
        assert!(e.class == Class::Occupied && e.what.contains(THEM), "{e:?}");
        assert_eq!(lab.item(), item);

        lab.age(SILENT - SignedDuration::from_mins(1));
        lab.refused(&sample::report(US, 1), "occupied", false);
        // Silent for too long: taken over, and both can be seen.
        lab.age(SILENT + SignedDuration::from_mins(1));
        let said = lab.check(US).expect("free");
        assert!(said.contains("will be taken over") && said.contains(THEM), "{said}");
        lab.arrives(&sample::report(US, 1));
        let holders = |item: &Value| {
            ["host_id", "previous_host_id"].map(|name| item[name]["S"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(holders(&lab.item()), [US, THEM]);
        lab.arrives(&sample::report(US, 2));
        assert_eq!(holders(&lab.item()), [US, THEM], "later reports keep it");
        // The other is back: it is the one that is told now.
        let e = lab.refused(&sample::report(THEM, 901), "occupied", false);
        assert!(e.what.contains(US), "{e:?}");

        // One that has left makes room at once.
        let left = Report { outcome: "left".into(), at: "2027-03-01T08:00:00Z".into(), ..sample::report(US, 3) };
        lab.arrives(&left);
        lab.arrives(&Report { at: "2027-03-01T09:00:00Z".into(), ..sample::report(THEM, 902) });
        assert_eq!(holders(&lab.item()), [THEM, US]);
        assert_eq!(lab.item()["host_id_since"]["S"], "2027-03-01T09:00:00Z");
    });
}

#[test]
fn what_is_no_report_is_left_as_it_is() {
    isolated("dynamodb::what_is_no_report_is_left_as_it_is", || {
        let lab = Lab::new();
        let mut item = key();
        item["password"] = json!({"S": "hunter2"});
        lab.call("PutItem", json!({"TableName": TABLE, "Item": item}));
        for e in [lab.refused(&sample::report(US, 1), "occupied", false), lab.check(US).expect_err("occupied")] {
            assert!(!format!("{e:?}").contains("hunter2") && e.what.contains("no report of relaykey"), "{e:?}");
        }
        assert_eq!(lab.item(), item);
    });
}

#[test]
fn a_table_that_is_missing_or_has_another_key_is_told_with_the_command_that_makes_it() {
    isolated("dynamodb::a_table_that_is_missing_or_has_another_key_is_told_with_the_command_that_makes_it", || {
        let lab = Lab::without_table();
        for e in [lab.refused(&sample::report(US, 1), "configuration", false), lab.check(US).expect_err("no table")] {
            assert!(e.what.contains("no such table") && e.what.contains("\"relaykey\" in eu-west-1"), "{e:?}");
            let command = "aws dynamodb create-table --table-name relaykey --region eu-west-1 --billing-mode PAY_PER_REQUEST \
                           --attribute-definitions AttributeName=credential,AttributeType=S AttributeName=host,AttributeType=S \
                           --key-schema AttributeName=credential,KeyType=HASH AttributeName=host,KeyType=RANGE";
            assert!(e.fix.contains(&format!("`{command}`; or correct")), "{}", e.fix);
        }
        let other_keys = [
            vec![("id", "HASH", "S")],
            vec![("credential", "HASH", "S")],
            vec![("credential", "HASH", "S"), ("seq", "RANGE", "N")],
        ];
        for key in other_keys {
            lab.make_table(&key);
            for e in
                [lab.refused(&sample::report(US, 1), "configuration", false), lab.check(US).expect_err("another key")]
            {
                assert!(e.what.contains("another key") && e.fix.contains("sort key is `host`"), "{key:?}: {e:?}");
            }
            lab.call("DeleteTable", json!({"TableName": TABLE}));
        }
        lab.make_table(&[("credential", "HASH", "S"), ("host", "RANGE", "S")]);
        lab.arrives(&sample::report(US, 1));
        // Gone while it is used.
        lab.call("DeleteTable", json!({"TableName": TABLE}));
        lab.refused(&sample::report(US, 2), "configuration", false);
    });
}

#[test]
fn aws_refuses_and_is_slow() {
    isolated("dynamodb::aws_refuses_and_is_slow", || {
        let mut lab = Lab::new();
        for code in ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"] {
            lab.fault(
                "UpdateItem",
                json!({"kind": "error", "status": 400, "code": code, "message": "slow", "count": 0}),
            );
            let e = lab.refused(&sample::report(US, 1), "throttled", true);
            assert!(e.fix.contains("update-table") && e.what.contains(code), "{e:?}");
            lab.moto.heal(KEY);
        }
        lab.fault("UpdateItem", json!({"kind": "error", "status": 500, "code": "InternalServerError", "count": 0}));
        lab.refused(&sample::report(US, 1), "service", true);
        lab.moto.heal(KEY);
        for action in ["UpdateItem", "GetItem"] {
            lab.fault(
                action,
                json!({"kind": "error", "status": 400, "code": "AccessDeniedException", "count": 0,
                "message": "User: arn:aws:iam::123456789012:role/mx is not authorized"}),
            );
        }
        let e = lab.refused(&sample::report(US, 1), "access-denied", false);
        let resource = format!("arn:aws:dynamodb:{REGION}:*:table/relaykey");
        assert_eq!(e.fix, format!("allow dynamodb:UpdateItem on {resource} for arn:aws:iam::123456789012:role/mx"));
        let e = lab.check(US).expect_err("denied");
        assert!(e.fix.starts_with(&format!("allow dynamodb:GetItem on {resource}")), "{}", e.fix);
        assert!(e.fix.ends_with("not tried without a report"), "{}", e.fix);
        lab.moto.heal(KEY);
        assert_eq!(lab.calls("PutItem"), 0);

        let hasty = Limits { attempt: Duration::from_secs(1), operation: Duration::from_secs(1), ..Limits::default() };
        lab.receiver = receiver(&lab.moto, hasty, TableKeys::ByHost);
        lab.fault("UpdateItem", json!({"kind": "hang", "seconds": 8, "count": 0}));
        let began = Instant::now();
        lab.refused(&sample::report(US, 1), "network", true);
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        lab.moto.heal(KEY);
        lab.arrives(&sample::report(US, 1));
    });
}

// ---------------------------------------------------------------- layout 2

/// A table of layout 2, and a receiver that goes there.
fn lab_of_principals(keys: TableKeys) -> Lab {
    let mut lab = Lab::without_table();
    lab.make_table(&[("principal", "HASH", "S"), ("credential#host_id", "RANGE", "S")]);
    lab.receiver = receiver(&lab.moto, Limits::default(), keys);
    lab
}

impl Lab {
    /// Everything in the table: principal, sort key, host, number.
    fn items(&self) -> Vec<[String; 4]> {
        let found = self.call("Scan", json!({"TableName": TABLE}));
        let items = found["Items"].as_array().expect("a list");
        let text = |item: &Value, name: &str, kind: &str| item[name][kind].as_str().expect("a text").to_owned();
        let told = |item: &Value| {
            let keys = [text(item, "principal", "S"), text(item, "credential#host_id", "S")];
            let [principal, sort] = keys;
            [principal, sort, text(item, "host", "S"), text(item, "seq", "N")]
        };
        let mut all: Vec<_> = items.iter().map(told).collect();
        all.sort();
        all
    }

    fn asked_sts(&self) -> usize {
        self.moto.calls(KEY).iter().filter(|call| call["action"] == "GetCallerIdentity").count()
    }
}

#[test]
fn by_principal_each_installation_has_an_item_under_the_identity_that_aws_knows() {
    isolated("dynamodb::by_principal_each_installation_has_an_item_under_the_identity_that_aws_knows", || {
        let lab = lab_of_principals(TableKeys::ByUserId);
        let said = lab.check(US).expect("fits");
        assert!(said.contains(&format!("ses#{US}")) && said.contains("is not there yet"), "{said}");
        lab.deliver(&sample::report(US, 5)).expect("delivered");
        let [item] = &lab.items()[..] else { panic!("{:?}", lab.items()) };
        let user_id = item[0].clone();
        assert!(!user_id.is_empty() && !user_id.contains("arn:"), "{user_id}");
        assert_eq!(item[1..], [format!("ses#{US}"), "mx1.example.com".into(), "5".into()]);
        // An earlier one never wins, the same is there, a later one replaces it.
        let e = lab.refused(&sample::report(US, 4), "newer-there", false);
        assert!(
            e.fix.contains(&format!(r#"--key '{{"credential#host_id":{{"S":"ses#{US}"}},"principal":"#)),
            "{}",
            e.fix
        );
        lab.deliver(&sample::report(US, 5)).expect("it is there");
        lab.deliver(&sample::report(US, 6)).expect("delivered");
        // Another installation under the same name has an item of its own: who counts hosts sees both.
        lab.deliver(&sample::report(THEM, 1)).expect("delivered");
        let of = |id: &str, seq: &str| [user_id.clone(), format!("ses#{id}"), "mx1.example.com".into(), seq.into()];
        assert_eq!(lab.items(), [of(THEM, "1"), of(US, "6")]);
        assert_eq!(lab.asked_sts(), 1, "once, for all of these");
    });
}

#[test]
fn where_aws_denies_the_write_it_is_asked_anew_which_identity_that_is() {
    isolated("dynamodb::where_aws_denies_the_write_it_is_asked_anew_which_identity_that_is", || {
        let mut lab = lab_of_principals(TableKeys::ByUserId);
        lab.deliver(&sample::report(US, 1)).expect("delivered");
        let denied =
            json!({"kind": "error", "status": 400, "code": "AccessDeniedException", "count": 0, "message": "no"});
        lab.fault("UpdateItem", denied);
        lab.refused(&sample::report(US, 2), "access-denied", false);
        assert_eq!(lab.asked_sts(), 2, "it is the same one: nothing else is tried");
        lab.moto.heal(KEY);
        lab.deliver(&sample::report(US, 2)).expect("delivered");
        // STS refuses, or gives no answer: the attempt fails, in time, and nothing is written under a guess.
        let hasty = Limits { attempt: Duration::from_secs(1), operation: Duration::from_secs(1), ..Limits::default() };
        lab.receiver = receiver(&lab.moto, hasty, TableKeys::ByUserId);
        lab.fault("GetCallerIdentity", json!({"kind": "hang", "seconds": 8, "count": 0}));
        lab.refused(&sample::report(US, 3), "network", true);
        assert_eq!(lab.items()[0][3], "2");
        lab.moto.heal(KEY);
        lab.deliver(&sample::report(US, 3)).expect("delivered");
    });
}

#[test]
fn a_source_identity_is_what_was_configured_and_sts_is_not_asked() {
    isolated("dynamodb::a_source_identity_is_what_was_configured_and_sts_is_not_asked", || {
        let lab = lab_of_principals(TableKeys::BySourceIdentity("mx1".into()));
        lab.deliver(&sample::report(US, 1)).expect("delivered");
        assert_eq!((lab.items()[0][0].as_str(), lab.asked_sts()), ("mx1", 0));
    });
}

/// An id that the first run makes anew is not shown as if it stayed.
#[test]
fn the_item_of_a_host_without_an_id_of_its_own_is_named_without_one() {
    isolated("dynamodb::the_item_of_a_host_without_an_id_of_its_own_is_named_without_one", || {
        let lab = lab_of_principals(TableKeys::ByUserId);
        let said = lab.check_as("0123456789abcdef", true).expect("it fits");
        assert!(said.contains("ses#(a new host id)") && said.contains("will be made"), "{said}");
        assert!(!said.contains("0123456789abcdef"), "{said}");
        assert!(lab.check("0123456789abcdef").expect("it fits").contains("ses#0123456789abcdef"));
    });
}

#[test]
fn a_table_of_the_other_layout_is_told_with_the_setting_for_it() {
    isolated("dynamodb::a_table_of_the_other_layout_is_told_with_the_setting_for_it", || {
        let of_hosts = Lab::new();
        for (lab, keys, setting) in [
            (of_hosts, TableKeys::ByUserId, "the keys `credential` and `host`, set layout = 1"),
            (
                lab_of_principals(TableKeys::ByHost),
                TableKeys::ByHost,
                "the keys `principal` and `credential#host_id`, set layout = 2",
            ),
        ] {
            let lab = Lab { receiver: receiver(&lab.moto, Limits::default(), keys), ..lab };
            let e = lab.refused(&sample::report(US, 1), "configuration", false);
            assert!(e.fix.contains(setting), "{}", e.fix);
        }
    });
}
