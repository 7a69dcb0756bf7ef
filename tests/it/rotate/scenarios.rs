//! Scenarios of the contract that no other subject has: a clone, stale labels, a second rotation, AWSPENDING that somebody left, one
//! region of two, more hosts than Parameter Store is for. `docs/rotation-scenarios.md` lists all of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use relaykey::rollover::ReportOutcome;
use relaykey::standin::{Options, Standin};
use relaykey_rotate::run::{Ask, Moment, Tick, Turned};
use serde_json::{Value, json};

use super::fleet::{DAY, begun};
use super::lab::{Kind, Lab, SECRET, host, words};
use crate::lab::isolated::{KEY, isolated};
use crate::lab::moto::Moto;

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn classes(turned: &Turned) -> Vec<&'static str> {
    turned.look.decision.refusals.iter().map(|refusal| refusal.class()).collect()
}

/// What is said of a refusal of this class.
#[track_caller]
fn said(turned: &Turned, class: &str) -> String {
    let refusals = &turned.look.decision.refusals;
    let refusal = refusals.iter().find(|refusal| refusal.class() == class);
    refusal.unwrap_or_else(|| panic!("{class} is not among {refusals:?}")).words()
}

/// Its own item, with what it had before: a machine that was cloned, or brought back from a snapshot.
#[test]
fn a_clone_that_writes_anothers_item_is_that_host_with_what_it_says() {
    isolated("rotate::scenarios::a_clone_that_writes_anothers_item_is_that_host_with_what_it_says", || {
        let mut begun = begun(2, 2);
        let mut clone = begun.hosts[0].clone();
        begun.take_all();
        begun.lab.settle(&mut begun.controller);
        clone.seq = begun.hosts[0].seq + 10;
        let (of_before, held) = (clone.applied.clone(), begun.held.clone());
        let report = begun.lab.report(&mut clone, ReportOutcome::Confirmed, &held);
        begun.lab.writes(&clone, &report);
        begun.is_stopped_by(&["other-version"]);
        // It claims the new version, and has not got its password.
        clone.applied = begun.hosts[0].applied.clone();
        let report = begun.lab.report(&mut clone, ReportOutcome::Confirmed, &held);
        begun.lab.writes(&clone, &report);
        begun.is_stopped_by(&["proof-false"]);
        assert_ne!(of_before, clone.applied);
        begun.hosts[0].seq = clone.seq;
        begun.take(0);
        begun.ends();
    });
}

#[test]
fn a_last_use_that_iam_does_not_tell_is_no_silence() {
    isolated("rotate::scenarios::a_last_use_that_iam_does_not_tell_is_no_silence", || {
        let mut begun = begun(1, 1);
        begun.take_all();
        let denied = json!({"kind": "error", "count": 0, "status": 403, "code": "AccessDenied", "message": "no"});
        begun.lab.moto.fault(KEY, "GetAccessKeyLastUsed", denied);
        begun.is_stopped_by(&["last-used-unknown"]);
        begun.lab.moto.heal(KEY);
        begun.ends();
    });
}

/// What DescribeSecret and ListSecretVersionIds say now, to be said again later.
struct Stale(Vec<(&'static str, Value)>);

impl Stale {
    fn of_now(moto: &Moto) -> Self {
        let ask = |action: &'static str| {
            let input = json!({"SecretId": SECRET, "IncludeDeprecated": true});
            (action, moto.call(&format!("secretsmanager.{action}"), input))
        };
        Self(["DescribeSecret", "ListSecretVersionIds"].map(ask).into())
    }

    fn is_said(&self, moto: &Moto) {
        for (action, said) in &self.0 {
            let answer = json!({"kind": "answer", "count": 0, "status": 200, "body": said.to_string()});
            moto.fault(KEY, action, answer);
        }
    }
}

#[test]
fn labels_that_are_read_stale_promote_nothing_twice_and_let_no_key_die() {
    isolated("rotate::scenarios::labels_that_are_read_stale_promote_nothing_twice_and_let_no_key_die", || {
        let lab = Lab::new(Kind::SecretsManager);
        let old = lab.published().1;
        let mut one = host("mx1");
        lab.takes(&mut one);
        let mut person = lab.controller();
        lab.settle(&mut person);
        lab.ask(&mut person, Ask::Seal { expect: 1 });
        lab.ask(&mut person, Ask::Run);
        lab.run_time.block_on(person.leave()).expect("left");
        // It dies with the promotion, and before it is written down.
        let before = Arc::new(Mutex::new(None));
        let (keeps, moto) = (Arc::clone(&before), Arc::clone(&lab.moto));
        let choke = move |action: &'static str, moment| {
            if action != "secretsmanager:UpdateSecretVersionStage" {
                return true;
            }
            if moment == Moment::Before {
                keeps.lock().expect("whole").get_or_insert_with(|| Stale::of_now(&moto));
            }
            moment == Moment::Before
        };
        let mut dies = lab.controller_with(|_| {}, choke);
        assert_eq!(words(&lab.tick(&mut dies).done), ["Create", "Put"]);
        let ended = async { tokio::time::timeout(Duration::from_secs(5), dies.tick()).await };
        assert!(lab.run_time.block_on(ended).is_err());
        drop(dies);
        let new = lab.published().1;
        assert_ne!(new, old);

        let stale = before.lock().expect("whole").take().expect("it was looked at before");
        lab.pass(minutes(6));
        stale.is_said(&lab.moto);
        let mut next = lab.controller();
        let turned = lab.tick(&mut next);
        assert_eq!(words(&turned.done), ["LogIn", "Promote failed"], "AWSCURRENT is not where it was");
        lab.moto.heal(KEY);
        assert_eq!(words(&lab.settle(&mut next)), ["RecordPublished"]);
        // And later, when nothing else stands in the way of the old key's end.
        lab.takes(&mut one);
        lab.settle(&mut next);
        lab.pass(minutes(DAY + 1));
        stale.is_said(&lab.moto);
        let turned = lab.tick(&mut next);
        assert_eq!((words(&turned.done), lab.is_live(&old)), (vec![], true));
        assert!(said(&turned, "label-moved").starts_with("somebody else made version"), "{turned:?}");
        lab.moto.heal(KEY);
        for time in [0, DAY + 1, 2] {
            lab.pass(minutes(time));
            lab.settle(&mut next);
        }
        assert!(!lab.is_live(&old) && lab.is_live(&new));
    });
}

#[test]
fn a_second_rotation_waits_for_the_end_of_the_first() {
    isolated("rotate::scenarios::a_second_rotation_waits_for_the_end_of_the_first", || {
        let mut begun = begun(1, 1);
        let first = begun.lab.published().1;
        begun.ask(Ask::Run);
        let turned = begun.lab.tick(&mut begun.controller);
        assert_eq!((words(&turned.done), classes(&turned)), (vec![], vec!["other-version"]));
        begun.take_all();
        begun.ends();
        assert_eq!((begun.lab.published().1, begun.lab.keys().len()), (first.clone(), 2), "the old key is observed");
        begun.pass(3 * DAY);
        let done = words(&begun.lab.settle(&mut begun.controller));
        assert_eq!(done, ["Delete", "Create", "Put", "LogIn", "Promote"]);
        assert_eq!(begun.lab.keys().len(), 2);
        assert!(begun.lab.is_live(&first));
    });
}

#[test]
fn awspending_that_somebody_left_is_named_waited_for_or_taken_off() {
    isolated("rotate::scenarios::awspending_that_somebody_left_is_named_waited_for_or_taken_off", || {
        let lab = Lab::new(Kind::SecretsManager);
        let mut controller = lab.controller();
        let mut one = host("mx1");
        lab.takes(&mut one);
        lab.settle(&mut controller);
        let before = lab.published();
        // Without a value, as Secrets Manager begins a rotation: it has twenty minutes.
        lab.moto.lab("empty", &json!({"secret": SECRET, "version": "11111111-2222-3333-4444-555555555555"}));
        lab.ask(&mut controller, Ask::Run);
        let turned = lab.tick(&mut controller);
        assert_eq!(words(&turned.done), [""; 0]);
        let reason = turned.look.decision.reason.to_string();
        assert!(reason.starts_with("AWSPENDING has no value; it is left alone until"), "{reason}");
        lab.pass(minutes(21));
        let turned = lab.tick(&mut controller);
        assert_eq!(words(&turned.done), ["TakeOff"]);
        assert!(said(&turned, "pending-empty").ends_with("was AWSPENDING for 20 minutes without a value"));
        // Of a key that this user does not have: a rotation that failed, or another user's.
        lab.moto.put(SECRET, "AKIAKEYOFNOBODYATALL:a-password-of-some-length", &["AWSPENDING"]);
        assert_eq!(words(&lab.tick(&mut controller).done), ["TakeOff"]);
        // What is no login at all.
        let version = lab.moto.put(SECRET, "no login at all", &["AWSPENDING"]);
        let turned = lab.tick(&mut controller);
        assert_eq!((words(&turned.done), lab.keys().len()), (vec![], 1));
        assert_eq!(said(&turned, "pending-foreign"), format!("somebody else made version {version} AWSPENDING"));
        // Of a live key that somebody else made.
        let theirs = lab.make_key();
        let version = lab.moto.put(SECRET, &lab.pair(&theirs), &["AWSPENDING"]);
        let turned = lab.tick(&mut controller);
        assert_eq!((words(&turned.done), lab.published()), (vec![], before.clone()));
        assert_eq!(said(&turned, "pending-foreign"), format!("somebody else made version {version} AWSPENDING"));
        lab.pass(minutes(DAY));
        lab.settle(&mut controller);
        assert!(lab.is_live(&theirs) && lab.published() == before);
    });
}

#[test]
fn awspending_that_we_left_is_gone_on_with_by_the_next() {
    isolated("rotate::scenarios::awspending_that_we_left_is_gone_on_with_by_the_next", || {
        let lab = Lab::new(Kind::SecretsManager);
        let mut dies = lab.controller_with(|_| {}, |action, _| !action.ends_with("AUTH"));
        lab.ask(&mut dies, Ask::Run);
        assert_eq!(words(&lab.tick(&mut dies).done), ["Create", "Put"]);
        let ended = async { tokio::time::timeout(Duration::from_secs(5), dies.tick()).await };
        assert!(lab.run_time.block_on(ended).is_err(), "it dies before it knows whether SES takes the key");
        drop(dies);
        let mut next = lab.controller();
        let busy = lab.run_time.block_on(next.tick()).expect("a turn");
        assert!(matches!(busy, Tick::Busy(_)), "{busy:?}");
        lab.pass(minutes(6));
        assert_eq!(words(&lab.settle(&mut next)), ["LogIn", "Promote"]);
        assert_eq!(lab.keys().len(), 2);
    });
}

/// Taken in one region of two is not taken: mail of the other region's hosts would stop.
#[test]
fn a_key_that_one_region_of_two_does_not_take_is_not_published() {
    isolated("rotate::scenarios::a_key_that_one_region_of_two_does_not_take_is_not_published", || {
        let second = Arc::new(Standin::start(Options::default()).expect("a stand-in"));
        let lab = Lab::with_also(&second, "us-east-1");
        let old = lab.published().1;
        let mut controller = lab.controller();
        lab.ask(&mut controller, Ask::Run);
        let turned = lab.tick(&mut controller);
        assert_eq!(words(&turned.done), ["Create", "Put"]);
        // The other region knows the first key alone.
        assert_eq!(words(&lab.tick(&mut controller).done), ["LogIn refused"]);
        lab.pass(minutes(11));
        let done = lab.tick(&mut controller);
        assert_eq!(
            (words(&done.done), lab.published().1),
            (vec!["LogIn refused".into(), "TakeOff".into()], old.clone())
        );
        let refused = said(&done, "ses-refuses");
        assert!(
            refused.starts_with("the login with ") && refused.ends_with(" was refused, or got no answer"),
            "{refused}"
        );
        let lines = lab.run_time.block_on(controller.history()).expect("a log");
        let told = lines.iter().filter(|line| line.what == "log-in").filter_map(|line| line.more.as_deref());
        let of_both = told.filter(|more| more.contains("235") && more.contains("535")).count();
        assert!(of_both > 0, "the log says which one: {lines:#?}");
        // A day later the next one is tried, and now that region has learned of it.
        assert_eq!(words(&lab.settle(&mut controller)), ["Deactivate"]);
        lab.pass(minutes(DAY + 1));
        assert_eq!(words(&lab.settle(&mut controller)), ["Delete", "Create", "Put", "LogIn refused"]);
        assert_eq!(lab.published().1, old);
        lab.knows(&second, "us-east-1");
        lab.pass(minutes(1));
        lab.settle(&mut controller);
        assert_ne!(lab.published().1, old);
    });
}

#[test]
fn more_hosts_than_parameter_store_is_for_are_refused_and_told_to_take_a_table() {
    isolated("rotate::scenarios::more_hosts_than_parameter_store_is_for_are_refused_and_told_to_take_a_table", || {
        let lab = Lab::new(Kind::ParameterStore);
        let old = lab.published().1;
        let mut controller = lab.controller();
        let mut template = host("mx");
        lab.takes(&mut template);
        lab.settle(&mut controller);
        let (version, key, password) = lab.published();
        for number in 2..=500 {
            let mut one = host(&format!("mx{number}"));
            one.applied = Some((version.clone(), key.clone()));
            let report = lab.report(&mut one, ReportOutcome::Confirmed, &password);
            lab.writes(&one, &report);
        }
        let turned = lab.tick(&mut controller);
        assert_eq!((turned.look.facts.fleet.len(), turned.look.faults.len()), (500, 0));
        lab.takes(&mut host("one-too-many"));
        lab.ask(&mut controller, Ask::Run);
        let turned = lab.tick(&mut controller);
        assert!(words(&turned.done).is_empty() && lab.published().1 == old);
        let fault = turned.look.faults.iter().find(|fault| fault.what.contains("more than 500"));
        let fault = fault.unwrap_or_else(|| panic!("{:#?}", turned.look.faults));
        assert!(fault.what.contains("\"/relaykey/ses\"") && fault.fix.contains("type = \"dynamodb\""), "{fault:#?}");
        // One that is gone makes room.
        lab.moto.call("AmazonSSM.DeleteParameter", json!({"Name": "/relaykey/ses/mx500"}));
        let turned = lab.tick(&mut controller);
        assert_eq!(turned.look.faults, []);
    });
}

/// Every test, set-up, scenario and refusal that the table names is there.
#[test]
fn the_table_of_scenarios_names_what_there_is() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (table, setups, words) = (
        read("docs/rotation-scenarios.md"),
        read("crates/rotate/src/model/setups.rs"),
        read("crates/rotate/src/words.rs"),
    );
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let quoted =
        |cell: &str, mark: char| -> Vec<String> { cell.split(mark).skip(1).step_by(2).map(str::to_owned).collect() };
    for row in &rows {
        let [_, _, _, model, tests, says, _] = row[..] else { panic!("{row:?}") };
        for setup in quoted(model, '"') {
            assert!(setups.contains(&format!("(\"{setup}\"")) || setups.contains(&format!("\"{setup}\",")), "{setup}");
        }
        for scenario in quoted(model, '`') {
            read(&format!("crates/rotate/tests/scenarios/{scenario}"));
        }
        for test in quoted(tests, '`') {
            let (module, name) = test.rsplit_once("::").expect("a module");
            let source = read(&format!("tests/it/{}.rs", module.replace("::", "/")));
            assert!(source.contains(&format!("fn {name}(")), "{test}");
        }
        for class in quoted(says, '`') {
            assert!(words.contains(&format!("=> \"{class}\",")), "{class}");
        }
    }
    let numbers: Vec<u32> = rows.iter().filter_map(|row| row[1].parse().ok()).collect();
    assert_eq!(numbers, (1..=29).collect::<Vec<_>>());
}
