//! What a receiver is told, from the first adoption to the departure: every outcome of a report, once, in order, and true.
//! The real program, a real Postfix, the SES stand-in.

use crate::lab::book;
use crate::lab::postfix;
use crate::lab::relaykey as lab;

use std::fs;

use book::Book;
use lab::{Host, Key, Setup};
use serde_json::Value;

/// A host that reports to a book; these lines stand in its `[[credential]]`.
fn host(key: &Key, credential: &str, target: &str) -> (Host, Book) {
    let host = Host::new("hash", key);
    host.start_postfix();
    let book = Book::new();
    let source = host.publish(key.pair());
    // Refused is refused: this is not about keys that SES learns of late.
    let smtp = "propagation = \"0s\"\n";
    host.configure(&Setup { source: &source, smtp, target, more: &book.receiver() });
    let path = host.path("config.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    fs::write(&path, text.replacen("name = \"ses\"\n", &format!("name = \"ses\"\n{credential}"), 1)).expect("written");
    (host, book)
}

fn publish(host: &Host) -> Key {
    let key = Key::new();
    host.standin.set_key(&key.id, &key.login.password);
    host.publish(key.pair());
    key
}

/// Changes the state file between two runs, as if time had passed.
fn edit_state(host: &Host, edit: impl FnOnce(&mut Value)) {
    let path = host.path("state/credentials/ses.json");
    let mut state = host.state("ses");
    edit(&mut state);
    fs::write(path, state.to_string()).expect("written");
}

/// What the book was given since `from`: outcomes and user names.
fn told(book: &Book, from: usize) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    book.reports()[from..].iter().map(|r| (text(&r["outcome"]), text(&r["username"]))).collect()
}

#[test]
fn from_the_adoption_to_the_departure() {
    let first = Key::new();
    let (host, book) = host(&first, "mode = \"manual\"\n", "");
    let said = |outcome: &str, key: &Key| (outcome.to_owned(), key.id.clone());
    host.sync(&[], 0);
    let second = publish(&host);
    host.sync(&[], 3);
    host.sync(&[], 3);
    host.relaykey(&["reject", "ses", "--reason", "not today"]).expect(0);
    host.sync(&[], 0);
    let third = publish(&host);
    host.sync(&[], 3);
    host.relaykey(&["approve", "ses"]).expect(0);
    // Somebody puts the old login back, and it stays there: the source has another candidate, which is not approved.
    let fourth = publish(&host);
    host.postfix.write_table(&format!("{} {}\n", host.hop(), first.pair()));
    host.postfix.postmap();
    host.sync(&[], 1);
    host.sync(&[], 1);
    host.relaykey(&["approve", "ses"]).expect(0);
    // A key that is bad for good.
    let bad = Key::new();
    host.publish(bad.pair());
    for _ in 0..3 {
        host.sync(&["--wait", "1s"], 1);
    }
    let mut expected = vec![
        said("adopted", &first),
        said("pending-approval", &second),
        said("rejected", &second),
        said("pending-approval", &third),
        said("confirmed", &third),
    ];
    let (pending, withdrawn) = (said("pending-approval", &fourth), said("withdrawn", &third));
    expected.extend([pending, withdrawn, said("confirmed", &fourth), said("failed", &bad)]);
    assert_eq!(told(&book, 0), expected);
    let reports = book.reports();
    let failed = reports.last().expect("one");
    assert_eq!(failed["error"]["class"], "refused");
    assert!(failed["error"]["words"].as_str().expect("words").contains("535"), "{failed}");
    assert_eq!(failed["previous_username"], fourth.id.as_str());
    assert_eq!((&reports[4]["approved_by"], &reports[4]["mode"]), (&"root".into(), &"manual".into()));
    assert!(reports.iter().all(|r| r["outcome"] == "confirmed" || r["approved_by"].is_null()));

    // A day later, with the failure still standing.
    let before = reports.len();
    edit_state(&host, |state| state["alive_due"] = "2026-01-01T00:00:00Z".into());
    host.sync(&["--wait", "1s"], 1);
    assert_eq!(told(&book, before), [said("alive", &fourth)]);
    let alive = book.reports().pop().expect("one");
    assert_eq!(alive["latest"], *failed, "what stands is in it, whole");
    assert_eq!((&failed["latest"], &failed["latest"]["outcome"]), (&reports[7], &"confirmed".into()));
    assert!(reports[6]["outcome"] == "withdrawn" && reports[6]["latest"].is_null());
    host.sync(&["--wait", "1s"], 1);
    assert_eq!(told(&book, before).len(), 1, "once a day");

    // It leaves, and what it does afterwards brings it back.
    host.relaykey(&["deregister"]).expect(0).says(&["ses: left"]);
    host.relaykey(&["status"]).expect(0).says(&["left      the hosts that share this key"]);
    edit_state(&host, |state| assert!(state["alive_due"].is_null()));
    host.sync(&["--wait", "1s"], 1);
    assert_eq!(told(&book, before + 1), [said("left", &fourth)]);
    host.publish(fourth.pair());
    host.relaykey(&["confirm", "ses"]).expect(0);
    assert_eq!(told(&book, before + 2), [said("confirmed", &fourth)]);
    assert!(host.state("ses")["left"].is_null());

    let all = book.reports();
    let numbers: Vec<u64> = all.iter().map(|r| r["seq"].as_u64().expect("a number")).collect();
    assert!(numbers.is_sorted() && numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    host.relaykey(&["history"]).expect(0).says(&["departure", "rejection", "confirmation", "waits"]);
    host.relaykey(&["history", "--verify"]).expect(0);
}

#[test]
fn a_failure_that_passes_is_not_reported_and_one_that_lasts_is_once() {
    let first = Key::new();
    let (host, book) = host(&first, "", "");
    host.sync(&[], 0);
    let second = publish(&host);
    // 454 says nothing about a password, and mostly passes.
    host.standin.fault(relaykey::standin::Misbehavior::Reply454, 3);
    host.sync(&["--wait", "0s"], 75);
    assert_eq!(told(&book, 1), []);
    edit_state(&host, |state| state["failing"][0]["since"] = "2026-01-01T00:00:00Z".into());
    host.sync(&["--wait", "0s"], 75);
    host.sync(&["--wait", "0s"], 75);
    assert_eq!(told(&book, 1), [("failed".to_owned(), second.id.clone())]);
    host.sync(&[], 0);
    assert_eq!(told(&book, 2), [("confirmed".to_owned(), second.id.clone())]);
    assert_eq!(host.state("ses")["failing"], serde_json::json!([]));
}

#[test]
fn sync_is_ended_while_a_slow_receiver_has_the_report_and_the_report_stays_owed() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let book = Book::new();
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, more: &book.slow_receiver(), ..Setup::default() });
    let sync = host.start(&["sync"]);
    postfix::wait_for("the program to have the report", lab::RUN, || book.is_busy().then_some(()));
    sync.terminate();
    // Not when the program has ended, which is after a minute.
    sync.wait(std::time::Duration::from_secs(10)).expect(0).says(&["ses: adopted", "still owed to book: 1 report"]);
    assert_eq!(host.state("ses")["outbox"]["book"]["owed"].as_array().map(Vec::len), Some(1));
}

/// What the source gives is no login: nothing that is said of it is said of the version in use.
#[test]
fn a_secret_that_is_no_login_is_not_blamed_on_the_version_in_use() {
    let first = Key::new();
    let (host, book) = host(&first, "", "");
    host.sync(&[], 0);
    let applied = host.state("ses")["applied"]["version"].as_str().expect("a version").to_owned();
    host.publish("none of the forms");
    host.sync(&["--wait", "1s"], 1);
    let failed = book.reports().pop().expect("one");
    assert_eq!((&failed["outcome"], &failed["error"]["class"]), (&"failed".into(), &"payload".into()));
    assert_eq!((&failed["version"], &failed["username"]), (&"".into(), &"".into()), "{failed}");
    assert_eq!(failed["previous_username"], first.id.as_str(), "{failed}");
    let ran = host.relaykey(&["history"]);
    ran.expect(0);
    let line = ran.out.lines().find(|line| line.contains("payload")).expect("its line");
    assert!(!line.contains(&applied) && !line.contains(&first.id), "{line}");
}

/// Two credentials of one mail server, each with a line of its own in one table: by one `sync` without a daemon.
#[test]
fn who_names_what_another_one_then_exchanges_is_looked_at_once_more() {
    let (old, other) = (Key::new(), Key::new());
    let host = Host::with("hash", |hop| Some(format!("@b.example {}\n{hop} {}\n", other.pair(), old.pair())));
    host.standin.set_key(&other.id, &other.login.password);
    host.standin.set_key(&old.id, &old.login.password);
    host.postfix.set("smtp_sender_dependent_authentication", "yes");
    host.start_postfix();
    let book = Book::new();
    let credential = |name: &str, source: &str, key: &str| {
        let setup = Setup { source, smtp: "propagation = \"0s\"\n", ..Setup::default() };
        host.credential(name, &setup, &[(&host.postfix, &format!("keys = [{key:?}]"))])
    };
    let source = host.publish(other.pair());
    fs::rename(host.path("credential"), host.path("team-b")).expect("renamed");
    let team_b = credential("team-b", &source.replace("/credential\"", "/team-b\""), "@b.example");
    let ses = credential("ses", &host.publish(old.pair()), &host.hop());
    host.write_config(&(ses + &team_b + &book.receiver()));
    host.sync(&[], 0).says(&["ses: adopted", "team-b: adopted"]);
    assert_eq!(book.reports().len(), 2, "nobody has exchanged anything: nobody is looked at twice");

    let new = publish(&host);
    let document = host.sync(&["--json"], 0).json();
    let outcomes: Vec<_> = document["credentials"].as_array().expect("a list").iter().map(|c| &c["outcome"]).collect();
    assert_eq!(outcomes, ["confirmed", "confirmed"]);
    let reports = book.reports();
    let last = |name: &str| reports.iter().rfind(|report| report["credential"] == name).expect("a report");
    let others = |name: &str| last(name)["targets"][0]["others"].clone();
    let named = |list: Value| list.as_array().expect("a list").iter().map(|key| key["id"].clone()).collect::<Vec<_>>();
    assert_eq!(named(others("team-b")), [new.id.as_str()], "the old key is named no more");
    assert_eq!(named(others("ses")), [other.id.as_str()]);
}
