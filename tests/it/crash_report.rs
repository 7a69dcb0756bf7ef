//! Two hundred rollovers while every receiver of reports is down, the program killed at every point where it could be:
//! nothing that was confirmed is lost, nothing comes out of order, and in the end nothing is owed.
//!
//! `cargo test --features crash-at --test it crash_report::`, as root.
#![cfg(feature = "crash-at")]

use crate::lab::book;
use crate::lab::moto;
use crate::lab::points;
use crate::lab::relaykey as lab;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use book::Book;
use lab::{Host, Key, Program, Ran, Setup};
use serde_json::{Value, json};

const ROLLOVERS: usize = 200;
/// All of it, on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// `relaykey sync`, stopped just before its n-th mutating call.
fn sync_until(host: &Host, crash_at: Option<usize>, log: Option<&Path>) -> Ran {
    let config = host.path("config.toml");
    let at = crash_at.map(|n| n.to_string());
    let mut env = vec![("AWS_ACCESS_KEY_ID", host.aws_key.as_str()), ("AWS_SECRET_ACCESS_KEY", "of-no-importance")];
    env.extend(at.as_deref().map(|n| ("CRASH_AT", n)));
    env.extend(log.map(|path| ("CRASH_LOG", path.to_str().expect("UTF-8"))));
    Program::start(&["--config", config.to_str().expect("UTF-8"), "sync"], &env, b"").wait(lab::RUN)
}

/// What the parameter of this host holds.
fn parameter(path: &str) -> Option<Value> {
    let name = format!("{path}/ses/mx1.example.com");
    let answer = moto::shared().call("AmazonSSM.GetParameters", json!({"Names": [name]}));
    let text = answer["Parameters"][0]["Value"].as_str()?.to_owned();
    Some(serde_json::from_str(&text).expect("a report"))
}

fn owed(host: &Host, receiver: &str) -> usize {
    host.state("ses")["outbox"][receiver]["owed"].as_array().map_or(0, Vec::len)
}

#[test]
fn two_hundred_rollovers_with_every_receiver_down_and_kills_at_every_point() {
    let began = Instant::now();
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let book = Book::new();
    let path = format!("/{}", lab::fresh("two-hundred"));
    let fleet = format!(
        "[[report]]\nname = \"fleet\"\ntype = \"parameter-store\"\npath = {path:?}\nregion = {:?}\nendpoint_url = {:?}\n",
        moto::REGION,
        moto::shared().endpoint()
    );
    let (source, more) = (host.publish(first.pair()), book.receiver() + &fleet);
    // No reload for an indexed map: this is not about the mail server.
    host.configure(&Setup { source: &source, target: "reload = \"if-needed\"\n", more: &more, ..Setup::default() });
    book.set_down(true);
    let denied = json!({"kind": "error", "status": 400, "code": "AccessDeniedException", "message": "no", "count": 0});
    for action in ["GetParameter", "PutParameter"] {
        moto::shared().fault(&host.aws_key, action, denied.clone());
    }
    let publish = || {
        let key = Key::new();
        host.standin.set_key(&key.id, &key.login.password);
        host.publish(key.pair());
        key
    };

    // How many points there are: of a rollover whose reports are owed and do not arrive.
    sync_until(&host, None, None).expect(0);
    let log = host.path("calls");
    publish();
    sync_until(&host, None, Some(&log)).expect(0);
    let points = fs::read_to_string(&log).expect("a log").lines().count();
    assert!((20..ROLLOVERS).contains(&points), "{points} points");

    let mut confirmed = Vec::new();
    let seq_of = |host: &Host| host.state("ses")["report"]["seq"].as_u64().expect("a confirmation");
    confirmed.push(seq_of(&host));
    let mut kills = 0;
    let rollovers = points::rounds(ROLLOVERS);
    for n in 0..rollovers {
        let key = publish();
        let ran = sync_until(&host, Some(n * ROLLOVERS / rollovers % points + 1), None);
        kills += usize::from(ran.code == -1);
        assert!([-1, 0].contains(&ran.code), "{}", ran.err);
        // One that was killed between its commit and the end of the mail server's side is confirmed once more.
        if seq_of(&host) > *confirmed.last().expect("one") {
            confirmed.push(seq_of(&host));
        }
        sync_until(&host, None, None).expect(0);
        let report = host.state("ses")["report"].clone();
        assert_eq!(report["username"], key.id.as_str(), "rollover {n}");
        if seq_of(&host) > *confirmed.last().expect("one") {
            confirmed.push(seq_of(&host));
        }
        assert!(confirmed.len() >= n + 2, "rollover {n}: a number that is not larger, after {confirmed:?}");
        assert!(began.elapsed() < LIMIT, "rollover {n}: not done after {LIMIT:?}");
    }
    assert!(kills > rollovers / 2, "{kills} kills");
    assert_eq!((book.reports().len(), owed(&host, "fleet")), (0, 1), "the latest, where there is place for one");
    // The adoption is owed too.
    assert_eq!(owed(&host, "book"), confirmed.len() + 1);
    host.relaykey(&["status"]).expect(0).says(&["owed", "reports to book", "AccessDenied"]);
    let in_vain = began.elapsed();

    // They are up again, and the program is killed while it delivers.
    book.set_down(false);
    moto::shared().heal(&host.aws_key);
    for n in 1..=40 {
        assert!([-1, 0].contains(&sync_until(&host, Some(n), None).code));
    }
    sync_until(&host, None, None).expect(0);
    assert_eq!((owed(&host, "book"), owed(&host, "fleet")), (0, 0));
    let arrived = book.reports();
    let seqs: Vec<u64> = arrived.iter().map(|r| r["seq"].as_u64().expect("a number")).collect();
    assert!(seqs.is_sorted(), "out of order: {seqs:?}");
    let mut once = seqs.clone();
    once.dedup();
    let missing: Vec<&u64> = confirmed.iter().filter(|seq| !once.contains(seq)).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    assert_eq!(once.len(), confirmed.len() + 1);
    assert_eq!(arrived[0]["outcome"], "adopted");
    let latest = parameter(&path).expect("a report");
    assert_eq!(latest["seq"].as_u64(), confirmed.last().copied());
    assert_eq!(latest, *arrived.last().expect("one"));
    host.relaykey(&["history", "--verify"]).expect(0);
    println!(
        "{points} points, {kills} kills; {} reports in {} deliveries; {:.0} s while all were down, {:.0} s in all",
        once.len(),
        seqs.len(),
        in_vain.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
}
