//! `relaykey run`, the real program, with a real Postfix and the SES stand-in: what wakes it, what it shows, how it ends.

use crate::lab::daemon as running;
use crate::lab::memory;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::Files as _;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use lab::{DELIVERY, Host, Key, Program, Setup, Snapshot, fresh, let_a_start_be_later, next_second};
use memory::memory_has;
use postfix::{Instance, free_port, wait_for};
use relaykey::standin::{self, Delay, Misbehavior, Standin};
use running::{AT_ONCE, Daemon, NEVER, OFTEN, SOON, counts, health, holds, passes_under, staged};
use rustix::process::Signal;
use serde_json::{Value, json};

// ---------------------------------------------------------------- wake-ups

/// How a new version is noticed, and how long each way took.
#[test]
fn each_way_of_noticing_a_new_version_gets_mail_under_it() {
    let keys: Vec<Key> = (0..6).map(|_| Key::new()).collect();
    let host = Host::new("hash", &keys[0]);
    host.start_postfix();
    let name = fresh("ways");
    moto::shared().secret(&name, &keys[0].json());
    let mut table = Vec::new();

    // A new version: known at SES, then published; from then on the time counts.
    let publish = |key: &Key| {
        host.standin.set_key(&key.id, &key.login.password);
        next_second();
        moto::shared().put(&name, &key.json(), &["AWSCURRENT"]);
        Instant::now()
    };
    let mail = |daemon: &Daemon<'_>, published: Instant, key: &Key| {
        daemon.applied(key);
        let applied = published.elapsed();
        passes_under(&host, key);
        (applied, published.elapsed())
    };

    let daemon = host.run(&Setup { source: &(host.secret(&name) + OFTEN), ..Setup::default() });
    let published = publish(&keys[1]);
    table.push(("timer (poll = 5s)", mail(&daemon, published, &keys[1])));
    daemon.ends(SOON);

    let daemon = host.run(&Setup { source: &(host.secret(&name) + NEVER), ..Setup::default() });
    let published = publish(&keys[2]);
    daemon.program.signal(Signal::HUP);
    table.push(("SIGHUP", mail(&daemon, published, &keys[2])));

    // A swap changes the table, which is looked at once and again: that must not be what notices the next version.
    let calm = |daemon: &Daemon<'_>| {
        wait_for("the looks that a swap causes to be over", SOON, || {
            let before = daemon.wakes();
            std::thread::sleep(Duration::from_millis(2500));
            (daemon.wakes() == before).then_some(())
        });
    };
    calm(&daemon);
    let published = publish(&keys[3]);
    let ran = host.sync(&[], 0);
    ran.says(&["ses: confirmed"]);
    table.push(("relaykey sync", mail(&daemon, published, &keys[3])));

    // The old key is revoked while the new one is there and not looked for: the first message tells.
    calm(&daemon);
    let published = publish(&keys[4]);
    host.standin.deactivate(&keys[3].id);
    host.postfix.inject_from("deferred@lab.invalid", 1);
    host.postfix.wait_for_log(&["status=deferred", "535"], DELIVERY);
    daemon.applied(&keys[4]);
    let applied = published.elapsed();
    host.postfix.flush();
    let found = |seen: &standin::StandinRecord| {
        seen.messages.iter().find(|m| m.from == "deferred@lab.invalid").map(|m| m.username.clone())
    };
    let under = host.standin.wait_for(DELIVERY, "the message that was deferred", found).expect("delivered");
    assert_eq!(under, keys[4].id);
    table.push(("mail log: 535", (applied, published.elapsed())));
    assert_eq!(daemon.wakes()["log-alarm"], 1);
    let causes: Vec<Value> = daemon.credential("ses")["history"].as_array().expect("a history").clone();
    let causes: Vec<&str> =
        causes.iter().filter(|r| r["what"] == "rollover").filter_map(|r| r["by"]["cause"].as_str()).collect();
    assert_eq!(causes, ["log-alarm", "operator", "signal", "timer"]);
    daemon.ends(SOON);

    // The same credential from a file, in which a new key stands.
    let other = Host::new("hash", &keys[0]);
    other.start_postfix();
    let daemon = other.run(&Setup { source: &(other.publish(keys[0].pair()) + NEVER), ..Setup::default() });
    other.standin.set_key(&keys[5].id, &keys[5].login.password);
    other.publish(keys[5].pair());
    let published = Instant::now();
    daemon.applied(&keys[5]);
    let applied = published.elapsed();
    passes_under(&other, &keys[5]);
    table.push(("file watch", (applied, published.elapsed())));
    daemon.ends(SOON);

    println!("noticed by           applied after   mail under the new key after");
    for (way, (applied, mail)) in &table {
        println!("{way:<20} {:>10.2} s {:>15.2} s", applied.as_secs_f64(), mail.as_secs_f64());
    }
    for (way, (applied, _)) in &table {
        let limit = if way.starts_with("timer") { 12 } else { 8 };
        assert!(*applied < Duration::from_secs(limit), "{way}: {applied:?}");
    }
}

#[test]
fn only_a_refusal_by_our_endpoint_makes_it_look() {
    let old = Key::new();
    let host = Host::new("hash", &old);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + NEVER), ..Setup::default() });
    let alarms = |status: &Value| counts(&status["credentials"][0]["live"]["counters"]["alarms"]);

    // SES is busy for a moment.
    host.standin.fault(Misbehavior::Reply454, 1);
    host.postfix.inject(1);
    daemon.shows("the 454 to be counted", SOON, |s| (alarms(s).get("temporary") == Some(&1)).then_some(()));
    // Another relay's words, as Postfix would write them down.
    let log = host.postfix.base.join("log/mail.log");
    let mut file = fs::File::options().append(true).open(&log).expect("the mail log");
    let line = "Nov 20 22:38:20 mx1 postfix/smtp[31870]: 61F7E9BE05A: to=<a@example.com>, relay=mail.example.net[192.0.2.1]:587, \
                delay=0.02, delays=0/0.01/0/0, dsn=4.7.8, status=deferred (SASL authentication failed; server \
                mail.example.net[192.0.2.1] said: 535 5.7.8 no)\n";
    file.write_all(line.as_bytes()).expect("written");
    host.postfix.flush();
    host.postfix.queue_empty(DELIVERY);
    // The policy lacks ses:SendRawEmail: the login is taken, the message is not.
    host.standin.deny_sending(&old.id);
    // Without a sender nobody is told of it, which would be refused as well.
    host.postfix.inject_from("", 1);
    let notice = daemon.shows("the 554 to be shown", SOON, |s| {
        s["credentials"][0]["notices"].as_array()?.iter().find(|n| n["class"] == "policy").cloned()
    });
    assert!(notice["what"].as_str().is_some_and(|w| w.contains("policy, not password")), "{notice}");
    assert!(notice["fix"].as_str().is_some_and(|w| w.contains("ses:SendRawEmail")), "{notice}");
    assert!(daemon.get("/").1.contains("policy, not password"), "the page");
    host.relaykey(&["status"]).says(&["policy, not password"]);
    assert_eq!(daemon.metric("relaykey_mail_log_alarms_total{credential=\"ses\",kind=\"policy\"}"), 1.0);

    // Lines are read in order, so that what is not counted by the time of the next one has been passed over.
    host.standin.deactivate(&old.id);
    host.postfix.inject(1);
    daemon.shows("the look for the 535", SOON, |s| {
        (counts(&s["credentials"][0]["live"]["counters"]["wakes"]).get("log-alarm") == Some(&1)).then_some(())
    });
    let counted = alarms(&daemon.status());
    assert_eq!(counted, [("policy", 1), ("refused", 1), ("temporary", 1)].map(|(k, n)| (k.to_owned(), n)).into());
    let wakes = daemon.wakes();
    assert_eq!(wakes, [("log-alarm", 1), ("start", 1)].map(|(k, n)| (k.to_owned(), n)).into(), "{wakes:?}");
    daemon.ends(AT_ONCE);
}

/// Waits until nothing has woken the first credential for three seconds; how often it was looked at by then.
#[track_caller]
fn settled(daemon: &Daemon<'_>) -> u64 {
    let total = || daemon.wakes().values().sum::<u64>();
    let (mut last, mut since) = (total(), Instant::now());
    wait_for("the daemon to settle", SOON, || {
        let now = total();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(3)).then_some(now)
    })
}

#[test]
fn drift_is_healed_by_the_file_watch_and_own_changes_wake_it_once_or_twice() {
    let (old, new, wrong) = (Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + NEVER), ..Setup::default() });
    let before = settled(&daemon);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.applied(&new);
    let after = settled(&daemon);
    assert!(after - before <= 3, "one rollover caused {} looks: {:?}", after - before, daemon.wakes());

    // Somebody's script writes another password into the table.
    let text = fs::read_to_string(host.postfix.table()).expect("a table");
    host.postfix.write_table(&text.replace(new.password(), wrong.password()));
    host.postfix.postmap();
    let changed = Instant::now();
    wait_for("the table to be put back", SOON, || holds(&host.postfix, &new).then_some(()));
    let healed = changed.elapsed();
    println!("healed after {:.2} s", healed.as_secs_f64());
    assert!(healed < Duration::from_secs(5), "{healed:?}");
    let record = daemon.shows("the heal in the history", SOON, |s| {
        Some(s["credentials"][0]["history"].as_array()?.first()?.clone()).filter(|r| r["what"] == "heal")
    });
    assert_eq!((&record["by"]["cause"], &record["outcome"]), (&json!("file-watch"), &json!("confirmed")), "{record}");
    assert!(record["by"]["detail"].as_str().is_some_and(|d| d.contains("sasl_passwd")), "{record}");
    let healed = settled(&daemon);
    assert_eq!(daemon.metric("relaykey_rollovers_total{credential=\"ses\",outcome=\"healed\"}"), 1.0);
    assert!(
        healed - after <= 6,
        "one heal, of a table changed in several steps, caused {} looks: {:?}",
        healed - after,
        daemon.wakes()
    );
    assert_eq!(host.send(), new.id);
    host.relaykey(&["history", "--verify"]).expect(0);
    daemon.agrees(None, "Everything is fine.", SOON);
    daemon.ends(AT_ONCE);
}

#[test]
fn who_asked_is_written_down() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + NEVER), ..Setup::default() });
    host.standin.set_key(&new.id, &new.login.password);
    // The file watch would take it as well: the one who asks must not come second.
    let config = host.path("config.toml");
    let arguments = ["--config", config.to_str().expect("UTF-8"), "sync", "--json"];
    host.standin.delay(&new.id, Delay::Refusals(1));
    host.publish(new.pair());
    let ran = Program::start(&arguments, &[("SUDO_USER", "alice\u{7}")], b"").wait(lab::RUN);
    ran.expect(0);
    let again = Program::start(&arguments, &[("SUDO_USER", "bob")], b"").wait(lab::RUN);
    again.expect(0);
    assert_eq!(again.json()["credentials"][0]["outcome"], "up-to-date");
    daemon.applied(&new);
    let history = daemon.credential("ses")["history"].clone();
    let by = |claimed: &str| {
        let records = history.as_array().expect("a list");
        records
            .iter()
            .find(|r| r["by"]["claimed"] == claimed)
            .unwrap_or_else(|| panic!("no {claimed} in {history:#}"))
            .clone()
    };
    for claimed in ["alice", "bob"] {
        let record = by(claimed);
        assert_eq!(record["by"]["cause"], "operator", "{record}");
        assert_eq!((&record["by"]["user"], &record["by"]["uid"]), (&json!("root"), &json!(0)), "{record}");
    }
    assert_eq!(by("bob")["what"], "no-change");
    host.relaykey(&["history", "--verify"]).expect(0);
    host.relaykey(&["history"]).expect(0).says(&["alice", "root"]);
    daemon.ends(AT_ONCE);
    host.relaykey(&["history", "--verify"]).expect(0);
}

// ---------------------------------------------------------------- readiness

#[test]
fn a_source_that_is_down_for_two_polls_is_not_ready_and_back_with_it() {
    let old = Key::new();
    let host = Host::new("hash", &old);
    host.start_postfix();
    let name = fresh("down");
    moto::shared().secret(&name, &old.json());
    let daemon = host.run(&Setup { source: &(host.secret(&name) + OFTEN), ..Setup::default() });
    daemon.agrees(None, "Everything is fine.", SOON);
    let began = Instant::now();
    let down = json!({"kind": "error", "status": 503, "code": "ServiceUnavailable", "message": "down", "count": 0});
    all_calls(&host, &down);
    // One poll without an answer is nothing yet.
    daemon.shows("a failed look", SOON, |s| s["credentials"][0]["failures"].as_array()?.first().map(|_| ()));
    assert_eq!(daemon.get("/readyz/ses").0, 200, "{:#}", daemon.status());
    daemon.agrees(Some("source-down"), "the source of the key does not answer", Duration::from_secs(30));
    assert!(began.elapsed() > Duration::from_secs(9), "too early: {:?}", began.elapsed());
    assert_eq!(host.send(), old.id);
    moto::shared().heal(&host.aws_key);
    daemon.program.signal(Signal::HUP);
    daemon.agrees(None, "Everything is fine.", SOON);
    daemon.ends(AT_ONCE);
}

/// Every call that looks or fetches goes this way.
fn all_calls(host: &Host, fault: &Value) {
    for action in ["GetSecretValue", "DescribeSecret", "ListSecretVersionIds", "BatchGetSecretValue"] {
        moto::shared().fault(&host.aws_key, action, fault.clone());
    }
}

#[test]
fn a_refused_candidate_is_not_ready_and_a_good_one_puts_it_right() {
    let (old, bad, good) = (Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let smtp = "propagation = \"2s\"\nretry = \"200ms\"\n";
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + OFTEN), smtp, ..Setup::default() });
    host.publish(bad.pair());
    daemon.agrees(Some("refused"), "the new key is refused by the mail relay", SOON);
    assert_eq!(host.send(), old.id);
    assert!(holds(&host.postfix, &old));
    host.standin.set_key(&good.id, &good.login.password);
    host.publish(good.pair());
    daemon.agrees(None, "Everything is fine.", SOON);
    assert_eq!(host.send(), good.id);
    daemon.ends(AT_ONCE);
}

#[test]
fn an_owed_reload_is_not_ready_until_the_mail_server_was_started_again() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("texthash", &old);
    host.start_postfix();
    let target = "reload = \"never\"";
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + OFTEN), target, ..Setup::default() });
    // What it has read is known of a start that comes after a look.
    daemon.agrees(Some("reload-owed"), "the mail server has not been reloaded", SOON);
    host.postfix.stop();
    let_a_start_be_later();
    host.postfix.start();
    daemon.agrees(None, "Everything is fine.", SOON);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.agrees(Some("reload-owed"), "the mail server has not been reloaded", SOON);
    host.postfix.stop();
    let_a_start_be_later();
    host.postfix.start();
    // The next poll sees it, whenever another attempt would have been due.
    daemon.agrees(None, "Everything is fine.", SOON);
    assert_eq!(host.send(), new.id);
    daemon.ends(AT_ONCE);
}

#[test]
fn with_a_stopped_mail_server_the_reload_is_owed_until_it_runs() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + OFTEN), ..Setup::default() });
    daemon.agrees(None, "Everything is fine.", SOON);
    host.postfix.stop();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    // The page says it once: what is in the files is in use when the mail server is started.
    daemon.agrees(Some("reload-owed"), "is in its files, and in use once it is started", SOON);
    host.postfix.start();
    daemon.agrees(None, "Everything is fine.", Duration::from_secs(40));
    assert_eq!(host.send(), new.id);
    daemon.ends(AT_ONCE);
}

#[test]
fn drift_that_is_only_reported_is_not_ready_until_it_is_taken_back() {
    let (old, wrong) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let target = "drift = \"report\"";
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + NEVER), target, ..Setup::default() });
    daemon.agrees(None, "Everything is fine.", SOON);
    let text = fs::read_to_string(host.postfix.table()).expect("a table");
    host.postfix.write_table(&text.replace(old.password(), wrong.password()));
    host.postfix.postmap();
    daemon.agrees(Some("drift"), "somebody else changed the mail server", SOON);
    assert!(!holds(&host.postfix, &old), "it was to be left as it is");
    host.postfix.write_table(&text);
    host.postfix.postmap();
    daemon.agrees(None, "Everything is fine.", SOON);
    daemon.ends(AT_ONCE);
}

/// The daemon of a host whose reports go to Parameter Store, and are not taken there until it is healed; and their path.
fn reporting_in_vain<'a>(host: &'a Host, source: &str) -> (Daemon<'a>, String) {
    let path = format!("/{}", fresh("fleet"));
    let report = format!(
        "[[report]]\nname = \"fleet\"\ntype = \"parameter-store\"\npath = {path:?}\nregion = {:?}\nendpoint_url = {:?}\n",
        moto::REGION,
        moto::shared().endpoint()
    );
    let denied = json!({"kind": "error", "status": 500, "code": "InternalServerError", "message": "x", "count": 0});
    moto::shared().fault(&host.aws_key, "PutParameter", denied);
    (host.run(&Setup { source, more: &report, ..Setup::default() }), path)
}

#[test]
fn a_report_that_does_not_get_through_is_not_ready_until_it_has() {
    let old = Key::new();
    let host = Host::new("hash", &old);
    host.start_postfix();
    let (daemon, path) = reporting_in_vain(&host, &(host.publish(old.pair()) + OFTEN));
    // The first attempts of a fleet are spread; who asks need not wait for that.
    host.sync(&[], 0);
    daemon.agrees(Some("report-owed"), "a report of this host does not get through", SOON);
    assert_eq!(host.send(), old.id);
    moto::shared().heal(&host.aws_key);
    host.sync(&[], 0);
    daemon.agrees(None, "Everything is fine.", SOON);
    let name = format!("{path}/ses/mx1.example.com");
    let stored = moto::shared().call("AmazonSSM.GetParameter", json!({"Name": name, "WithDecryption": true}));
    let document: Value = serde_json::from_str(stored["Parameter"]["Value"].as_str().expect("a value")).expect("JSON");
    assert_eq!((&document["username"], &document["outcome"]), (&json!(old.id), &json!("adopted")));
    daemon.ends(AT_ONCE);
}

#[test]
fn a_change_that_does_not_last_is_not_tried_again_and_again() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    // Something puts the old table back whenever the mail server is reloaded.
    let (kept, script) = (host.path("kept"), host.path("reload"));
    fs::copy(host.postfix.table(), &kept).expect("copied");
    let (table, etc) = (host.postfix.table(), &host.postfix.config_dir);
    let lines = format!(
        "#!/bin/sh\ncp {kept:?} {table:?}\n/usr/sbin/postmap -c {etc:?} hash:{table:?}\n/usr/sbin/postfix -c {etc:?} reload\n"
    );
    executable(&script, &lines);
    let target = format!("reload = [{script:?}]");
    let source = host.publish(old.pair()) + NEVER;
    let daemon = host.run(&Setup { source: &source, target: &target, ..Setup::default() });
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    // Its own changes of the table cause looks, and no further attempts: those have their time.
    daemon.shows("the failure", SOON, |s| {
        s["credentials"][0]["failures"].as_array()?.iter().find(|f| f["class"] == "mismatch").map(|_| ())
    });
    settled(&daemon);
    let attempts = || host.standin.logins().iter().filter(|l| l.username == new.id).count();
    // Put in again three times, and then said.
    daemon.shows("that somebody else writes", SOON, |s| {
        s["credentials"][0]["failures"].as_array()?.iter().find(|f| f["class"] == "fought-over").map(|_| ())
    });
    settled(&daemon);
    let tried = attempts();
    assert!((2..=4).contains(&tried), "{tried} attempts: {:?}", daemon.wakes());
    host.postfix.write_table(&fs::read_to_string(&kept).expect("kept"));
    host.postfix.postmap();
    settled(&daemon);
    assert_eq!(attempts(), tried, "not because files change");
    host.relaykey(&["status"]).expect(0).says(&["in use", &old.id, "somebody else wrote to the table"]);
    wait_for("the old table to be back", SOON, || holds(&host.postfix, &old).then_some(()));
    // Nobody is in its way any more.
    executable(&script, &format!("#!/bin/sh\nexec /usr/sbin/postfix -c {etc:?} reload\n"));
    host.sync(&[], 0);
    daemon.agrees(None, "Everything is fine.", SOON);
    daemon.ends(AT_ONCE);
}

#[test]
fn one_write_between_the_swap_and_the_read_back_is_put_right_at_once() {
    for foreign in ["cat KEPT > TABLE", "cp KEPT TABLE.new && mv TABLE.new TABLE", "true"] {
        let (old, new, wrong) = (Key::new(), Key::new(), Key::new());
        let host = Host::new("hash", &old);
        host.start_postfix();
        // Once, when the mail server is reloaded, somebody writes another password for the new key, or compiles that.
        let (kept, once, script) = (host.path("kept"), host.path("once"), host.path("reload"));
        let (table, etc) = (host.postfix.table(), &host.postfix.config_dir);
        let text = format!("{} {}:{}\n", host.hop(), new.id, wrong.password());
        fs::write(&kept, text).expect("written");
        let foreign =
            foreign.replace("KEPT", &kept.display().to_string()).replace("TABLE", &table.display().to_string());
        // By hand: `postmap` of a text that is put back afterwards.
        let by_hand = format!(
            "cp {table:?} {table:?}.b; cat {kept:?} > {table:?}; postmap -c {etc:?} hash:{table:?}; cat {table:?}.b > {table:?}"
        );
        let write = match foreign.as_str() {
            "true" => by_hand,
            foreign => format!("{foreign}; /usr/sbin/postmap -c {etc:?} hash:{table:?}"),
        };
        let lines = format!(
            "#!/bin/sh\nif [ -e {once:?} ]; then\nrm {once:?}\n{write}\nfi\n/usr/sbin/postfix -c {etc:?} reload\n"
        );
        executable(&script, &lines);
        let target = format!("reload = [{script:?}]");
        let source = host.publish(old.pair()) + NEVER;
        let daemon = host.run(&Setup { source: &source, target: &target, ..Setup::default() });
        fs::write(&once, "").expect("written");
        host.standin.set_key(&new.id, &new.login.password);
        host.publish(new.pair());
        let began = Instant::now();
        // What is in use is what was looked up, and never what should be there.
        daemon.shows("that another login is in use", SOON, |s| {
            let c = &s["credentials"][0];
            (c["in_use"][0]["usernames"] == json!([new.id]) && c["applied"]["username"] == old.id.as_str())
                .then_some(())
        });
        daemon.applied(&new);
        println!("{foreign}: right after {:.2} s", began.elapsed().as_secs_f64());
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        assert!(holds(&host.postfix, &new));
        daemon.agrees(None, "Everything is fine.", SOON);
        assert_eq!(host.send(), new.id);
        assert_eq!(daemon.credential("ses")["in_use"][0]["holds"], "applied");
        daemon.ends(AT_ONCE);
    }
}

/// Writes a program.
fn executable(path: &std::path::Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

// ---------------------------------------------------------------- the configuration

/// Waits until the document, `relaykey status` and the page show that the configuration was refused, or that it was not.
#[track_caller]
fn refused(daemon: &Daemon<'_>, words: Option<&[&str]>) {
    daemon.shows("the refusal, or its end", SOON, |s| {
        let refused = &s["daemon"]["config_refused"];
        match words {
            None => refused.is_null().then_some(()),
            Some(words) => {
                let said = refused.to_string();
                (refused.is_object() && words.iter().all(|w| said.contains(w))).then_some(())
            }
        }
    });
    let ran = daemon.host.relaykey(&["status"]);
    let (_, page) = daemon.get("/");
    let sentence = "The changed configuration was refused";
    match words {
        Some(words) => {
            ran.says(&["configuration: refused"]).says(words);
            assert!(page.contains(sentence) && page.contains(words[0]), "{page}");
        }
        None => {
            ran.says_not("configuration: refused");
            assert!(!page.contains(sentence), "{page}");
        }
    }
    assert_eq!(daemon.metric("relaykey_config_refused"), f64::from(words.is_some()));
}

#[test]
fn a_changed_configuration_is_taken_or_refused_with_its_line() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let table = fs::read_to_string(host.postfix.table()).expect("a table");
    let second = host.another("hash", &table);
    second.start();
    let port = free_port();
    let source = host.publish(old.pair());
    let write = |poll: &str, targets: &[(&Instance, &str)]| {
        let setup = Setup { source: &(source.clone() + poll), ..Setup::default() };
        host.write_config(&(host.credential("ses", &setup, targets) + &health(port)));
    };
    let (main, other) = ((&host.postfix, "name = \"main\""), (&second, "name = \"second\""));
    let config = host.path("config.toml");

    write(NEVER, &[main]);
    let daemon = host.run_configured(port);
    let since = daemon.status()["daemon"]["config_since"].clone();
    // It is told in whole seconds.
    next_second();

    // One target more, told by a signal: it is looked at, and from the next rollover on it has the key.
    write(NEVER, &[main, other]);
    daemon.program.signal(Signal::HUP);
    let since = daemon.shows("the new configuration", SOON, |s| {
        let now = &s["daemon"]["config_since"];
        (*now != since).then(|| now.clone())
    });
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.applied(&new);
    assert!(holds(&host.postfix, &new) && holds(&second, &new), "both targets");
    let report = daemon.credential("ses")["report"].clone();
    let names: Vec<&str> =
        report["targets"].as_array().expect("targets").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["main", "second"]);

    // A mistake, seen by the file watch alone: nothing changes but what is said.
    let good = fs::read_to_string(&config).expect("the configuration");
    let line = good.lines().position(|l| l.starts_with("poll")).expect("a poll") + 1;
    host.dir.file("config.toml", good.replace("poll =", "pol ="));
    let place = format!("{}:{line}", config.display());
    refused(&daemon, Some(&[&place, "poll"]));
    assert_eq!(daemon.status()["daemon"]["config_since"], since);
    daemon.agrees_apart_from_the_page();
    let by_signal = daemon.status()["daemon"]["config_refused"]["at"].clone();
    // Times are told in whole seconds.
    next_second();
    daemon.program.signal(Signal::HUP);
    daemon.shows("a refusal again", SOON, |s| (s["daemon"]["config_refused"]["at"] != by_signal).then_some(()));
    // Taken back.
    host.dir.file("config.toml", &good);
    refused(&daemon, None);
    assert_eq!(daemon.status()["daemon"]["config_since"], since, "it is the one in force");

    // What cannot change while it runs.
    host.dir.file("config.toml", good.replace("/state\"", "/elsewhere\""));
    daemon.program.signal(Signal::HUP);
    refused(&daemon, Some(&["state_dir", "systemctl restart"]));
    assert!(!host.path("elsewhere").exists());

    // A good one after that, by the file watch: another poll, and the second target no more.
    write(OFTEN, &[main]);
    refused(&daemon, None);
    daemon.shows("the other poll to be in force", SOON, |s| {
        let next: jiff::Timestamp = s["credentials"][0]["live"]["next_wake"].as_str()?.parse().ok()?;
        (next.duration_since(jiff::Timestamp::now()).as_secs() < 10).then_some(())
    });
    let timer = |s: &Value| counts(&s["credentials"][0]["live"]["counters"]["wakes"]).get("timer").copied();
    daemon.shows("a look by the timer", SOON, |s| timer(s).filter(|n| *n > 0));
    daemon.agrees(None, "Everything is fine.", SOON);
    daemon.ends(AT_ONCE);
}

impl Daemon<'_> {
    /// Ready, whatever the page puts first.
    #[track_caller]
    fn agrees_apart_from_the_page(&self) {
        self.agrees(None, "", SOON);
    }
}

// ---------------------------------------------------------------- the end, and the next start

/// What holds a rollover up, what to undo for the next start, and what the table holds when it was ended there.
struct Phase {
    name: &'static str,
    target: fn(&Host) -> String,
    hold: fn(&Host, &Key),
    /// It is there.
    reached: fn(&Host, &Value) -> bool,
    release: fn(&Host),
    holds_new: bool,
    limit: Duration,
}

fn doing(status: &Value, step: &str) -> bool {
    status["credentials"][0]["live"]["step"] == step
}

/// A `postmap` that takes its time to compile.
fn slow_postmap(host: &Host) {
    let programs = host.path("programs");
    fs::create_dir(&programs).expect("made");
    for program in ["postfix", "postconf", "postqueue", "postlog", "postsuper"] {
        std::os::unix::fs::symlink(PathBuf::from("/usr/sbin").join(program), programs.join(program)).expect("linked");
    }
    let text = "#!/bin/sh\ncase \"$*\" in *-q*) ;; *) sleep 1;; esac\nexec /usr/sbin/postmap \"$@\"\n";
    executable(&programs.join("postmap"), text);
    host.postfix.set("command_directory", programs.to_str().expect("UTF-8"));
}

/// A reload that takes its time.
fn slow_reload(host: &Host) -> String {
    let script = host.path("reload");
    let etc = &host.postfix.config_dir;
    executable(&script, &format!("#!/bin/sh\nsleep 1\nexec /usr/sbin/postfix -c {etc:?} reload\n"));
    format!("reload = [{script:?}]")
}

#[test]
fn told_to_end_in_the_middle_it_leaves_all_or_nothing_and_the_next_start_completes() {
    let none = |_: &Host| String::new();
    let nothing = |_: &Host| ();
    let phases = [
        Phase {
            name: "while the login gets no answer",
            target: none,
            hold: |host, _| host.standin.fault(Misbehavior::HangAtAuth, 1),
            reached: |host, s| {
                doing(s, "verify")
                    && host.standin.wait_for(SOON, "a connection", |seen| (seen.connections > 1).then_some(())).is_ok()
            },
            release: nothing,
            holds_new: false,
            limit: AT_ONCE,
        },
        Phase {
            name: "while it waits for SES to know the key",
            target: none,
            hold: |host, key| host.standin.delay(&key.id, Delay::Refusals(1)),
            reached: |_, s| s["credentials"][0]["pending"]["first_refused"].is_string(),
            release: nothing,
            holds_new: false,
            limit: AT_ONCE,
        },
        Phase {
            name: "while the map is compiled",
            target: none,
            hold: |host, _| slow_postmap(host),
            reached: |host, s| doing(s, "prepare") && !staged(&host.postfix).is_empty(),
            release: |host| host.postfix.set("command_directory", "/usr/sbin"),
            holds_new: false,
            limit: Duration::from_secs(5),
        },
        Phase {
            name: "while the mail server is reloaded",
            target: slow_reload,
            hold: |_, _| (),
            reached: |_, s| doing(s, "activate"),
            release: nothing,
            holds_new: true,
            limit: Duration::from_secs(5),
        },
    ];
    for phase in phases {
        println!("{}", phase.name);
        let (old, new) = (Key::new(), Key::new());
        let host = Host::new("hash", &old);
        host.start_postfix();
        let setup_target = (phase.target)(&host);
        let smtp = "retry = \"200ms\"\n";
        let source = host.publish(old.pair()) + NEVER;
        let setup = Setup { source: &source, target: &setup_target, smtp, more: "" };
        let daemon = host.run(&setup);
        host.standin.set_key(&new.id, &new.login.password);
        (phase.hold)(&host, &new);
        let held = Snapshot::of(&host.postfix.config_dir);
        host.publish(new.pair());
        daemon.shows(phase.name, SOON, |s| (phase.reached)(&host, s).then_some(()));
        daemon.ends(phase.limit);
        assert_eq!(staged(&host.postfix), Vec::<PathBuf>::new(), "{}", phase.name);
        assert_eq!(holds(&host.postfix, &new), phase.holds_new, "{}", phase.name);
        if !phase.holds_new {
            held.same_content_as(&Snapshot::of(&host.postfix.config_dir));
        }
        assert_eq!(host.state("ses")["applied"]["username"], json!(old.id), "{}", phase.name);
        host.relaykey(&["history", "--verify"]).expect(0);

        (phase.release)(&host);
        let daemon = host.run(&setup);
        daemon.applied(&new);
        passes_under(&host, &new);
        let report = daemon.credential("ses")["report"].clone();
        assert_eq!((&report["outcome"], &report["previous_username"]), (&json!("confirmed"), &json!(old.id)));
        assert_eq!(staged(&host.postfix), Vec::<PathBuf>::new());
        daemon.ends(AT_ONCE);
        host.relaykey(&["history", "--verify"]).expect(0);
    }
}

#[test]
fn told_to_end_while_the_source_hangs_it_ends_at_once() {
    let old = Key::new();
    let host = Host::new("hash", &old);
    let name = fresh("hang");
    moto::shared().secret(&name, &old.json());
    all_calls(&host, &json!({"kind": "hang", "seconds": 60, "count": 0}));
    let port = free_port();
    let source = host.secret(&name) + NEVER;
    host.configure(&Setup { source: &source, more: &health(port), ..Setup::default() });
    let daemon = Daemon { host: &host, program: host.start(&["run"]), port };
    // A host without state asks for earlier key ids first, to know whose the entries are.
    wait_for("the question to arrive", SOON, || (!moto::shared().calls(&host.aws_key).is_empty()).then_some(()));
    // Who asks for something meanwhile is told that nothing came of it.
    let asked = UnixStream::connect(host.path("run/control.sock")).expect("the daemon listens");
    asked.set_read_timeout(Some(SOON)).expect("a time-out");
    let request =
        json!({"relaykey": 1, "command": "sync", "names": [], "accept_version": null, "wait_seconds": 60}).to_string();
    (&asked).write_all(format!("{request}\n").as_bytes()).expect("sent");
    let mut lines = BufReader::new(asked).lines();
    let mut line = || serde_json::from_str::<Value>(&lines.next().expect("a line").expect("in time")).expect("JSON");
    assert_eq!(line(), json!({"taken": true}));
    daemon.ends(AT_ONCE);
    assert_eq!(line()["error"]["temporary"], true);
}

#[test]
fn it_waits_for_a_sync_that_holds_the_state_and_can_be_told_to_end_meanwhile() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let source = host.publish(old.pair()) + NEVER;
    let port = free_port();
    let smtp = "retry = \"200ms\"\n";
    host.configure(&Setup { source: &source, smtp, more: &health(port), ..Setup::default() });
    host.sync(&[], 0);
    // Waits in the middle, until SES knows the key.
    host.publish(new.pair());
    let sync = host.start(&["sync"]);
    let asked = |seen: &standin::StandinRecord| seen.logins.iter().any(|l| l.username == new.id).then_some(());
    host.standin.wait_for(SOON, "the sync to log in", asked).expect("it does");
    let waits = |daemon: &Daemon<'_>| {
        // It has opened the directory to lock it, and nothing to listen at.
        let at = format!("/proc/{}/status", daemon.program.id());
        wait_for("the daemon to catch SIGTERM", SOON, || {
            let status = fs::read_to_string(&at).ok()?;
            let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"))?.trim().to_owned();
            (u64::from_str_radix(&caught, 16).ok()? & (1 << 14) != 0).then_some(())
        });
        assert!(daemon.ask("/livez").is_err(), "it runs beside a sync");
    };
    let daemon = Daemon { host: &host, program: host.start(&["run"]), port };
    waits(&daemon);
    daemon.ends(AT_ONCE);
    let daemon = Daemon { host: &host, program: host.start(&["run"]), port };
    waits(&daemon);
    host.standin.set_key(&new.id, &new.login.password);
    sync.wait(lab::RUN).expect(0);
    daemon.looked();
    daemon.agrees(None, "Everything is fine.", SOON);
    daemon.ends(AT_ONCE);
}

/// A daemon is never done: who comes second need not wait a minute to hear that.
#[test]
fn a_second_daemon_says_at_once_that_the_first_one_runs() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let source = host.publish(key.pair()) + NEVER;
    let port = free_port();
    host.configure(&Setup { source: &source, more: &health(port), ..Setup::default() });
    let daemon = Daemon { host: &host, program: host.start(&["run"]), port };
    daemon.looked();
    let second = host.start(&["run"]);
    // It waits a minute for the lock.
    std::thread::sleep(Duration::from_secs(3));
    second.terminate();
    let said = second.wait(SOON);
    let first = format!("is locked by the relaykey daemon, process {}", daemon.program.id());
    said.expect(0).says(&[&first, "` says what that daemon is at", "systemctl stop relaykey"]);
    daemon.ends(AT_ONCE);
}

/// `kill -9`.
fn killed(daemon: Daemon<'_>) {
    daemon.program.signal(Signal::KILL);
    assert_eq!(daemon.program.wait(SOON).code, -1);
}

#[test]
fn killed_in_the_middle_the_next_one_goes_on_and_replaces_the_socket() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let target = slow_reload(&host);
    let source = host.publish(old.pair()) + NEVER;
    let setup = Setup { source: &source, target: &target, ..Setup::default() };
    let daemon = host.run(&setup);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.shows("the reload", SOON, |s| doing(s, "activate").then_some(()));
    killed(daemon);
    let socket = host.path("run/control.sock");
    assert!(socket.exists(), "nobody removed it");
    host.relaykey(&["status"]).expect(0).says(&["no daemon answers"]);

    let daemon = host.run(&setup);
    daemon.applied(&new);
    passes_under(&host, &new);
    daemon.agrees(None, "Everything is fine.", SOON);
    let history = daemon.credential("ses")["history"].clone();
    let done: Vec<&str> = history.as_array().expect("a list").iter().filter_map(|r| r["what"].as_str()).collect();
    assert_eq!(done, ["rollover", "adoption"], "{history:#}");
    let seq = daemon.credential("ses")["report"]["seq"].clone();
    killed(daemon);

    // Killed when nothing was under way: nothing is done again.
    let daemon = host.run(&setup);
    assert_eq!(daemon.credential("ses")["report"]["seq"], seq);
    let again = daemon.credential("ses")["history"].as_array().map(Vec::len);
    assert_eq!(again, Some(2), "{:#}", daemon.status());
    host.relaykey(&["history", "--verify"]).expect(0);
    daemon.ends(AT_ONCE);
    assert!(!socket.exists(), "it leaves no socket behind");
}

/// Killed in the reload; and before the next start comes a key that the mail relay refuses. What is in place is this host's
/// own doing, and everything says so.
#[test]
fn killed_in_the_middle_and_overtaken_by_a_bad_key_it_says_what_is_in_use() {
    let (old, new, bad, good) = (Key::new(), Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let (script, asked) = (host.path("reload"), host.path("asked"));
    let etc = &host.postfix.config_dir;
    executable(&script, &format!("#!/bin/sh\necho >> {asked:?}\nsleep 1\nexec /usr/sbin/postfix -c {etc:?} reload\n"));
    let target = format!("reload = [{script:?}]");
    let source = host.publish(old.pair()) + OFTEN;
    let smtp = "propagation = \"1s\"\nretry = \"200ms\"\n";
    let setup = Setup { source: &source, target: &target, smtp, ..Setup::default() };
    let daemon = host.run(&setup);
    daemon.applied(&old);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.shows("the reload", SOON, |s| doing(s, "activate").then_some(()));
    killed(daemon);
    let reloads = || fs::read_to_string(&asked).map_or(0, |text| text.lines().count());
    let before = reloads();

    host.publish(bad.pair());
    let daemon = host.run(&setup);
    daemon.agrees(Some("refused"), "the new key is refused by the mail relay", SOON);
    let c = daemon.credential("ses");
    assert_eq!((&c["in_use"][0]["holds"], &c["in_use"][0]["usernames"]), (&json!("begun"), &json!([new.id])), "{c:#}");
    let classes: Vec<&str> = c["not_ready"].as_array().unwrap().iter().filter_map(|n| n["class"].as_str()).collect();
    assert!(classes.contains(&"superseded") && !classes.contains(&"drift"), "{c:#}");
    // The reload that the killed run left is done, whatever becomes of the bad key.
    assert_eq!((reloads(), c["owed"].as_array().map(Vec::len)), (before + 1, Some(0)), "{c:#}");
    let shown = host.relaykey(&["status"]);
    shown.says(&[&new.id, "relaykey put it there", "and never confirmed it", &format!("goes on with {}", new.id)]);
    shown.says_not("somebody else").says_not("another login");
    let (_, page) = daemon.get("/");
    assert!(page.contains("put there by relaykey and never confirmed") && !page.contains("somebody else"), "{page}");
    // What is reported: the confirmation is taken back, and the key in use is the one that was found.
    let state = host.state("ses");
    let told = &state["told"];
    assert_eq!((&told["outcome"], &told["username"]), (&json!("failed"), &json!(bad.id)), "{told:#}");
    assert_eq!((&told["in_use"], &told["latest"]), (&json!([new.id]), &Value::Null), "{told:#}");
    let line = c["history"].as_array().unwrap().iter().find(|r| r["outcome"] == "superseded").expect("it has its line");
    assert_eq!((&line["what"], &line["username"]), (&json!("rollover"), &json!(new.id)), "{line:#}");
    assert_eq!(host.send(), new.id);

    host.standin.set_key(&good.id, &good.login.password);
    host.publish(good.pair());
    daemon.agrees(None, "Everything is fine.", SOON);
    let c = daemon.credential("ses");
    assert_eq!(c["applied"]["previous_username"], json!(new.id), "it took over from what was in use");
    assert_eq!(host.send(), good.id);
    host.relaykey(&["history", "--verify"]).expect(0);
    daemon.ends(AT_ONCE);
}

/// Killed in the reload; and before the next start the target is renamed, and a bad key comes.
#[test]
fn killed_in_the_middle_and_renamed_it_knows_what_it_put_there() {
    let (old, new, bad, good) = (Key::new(), Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let target = slow_reload(&host);
    let source = host.publish(old.pair()) + OFTEN;
    let smtp = "propagation = \"1s\"\nretry = \"200ms\"\n";
    let setup = Setup { source: &source, target: &target, smtp, ..Setup::default() };
    let daemon = host.run(&setup);
    daemon.applied(&old);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.shows("the reload", SOON, |s| doing(s, "activate").then_some(()));
    let port = daemon.port;
    killed(daemon);
    host.publish(bad.pair());
    let config = host.path("config.toml");
    let text = fs::read_to_string(&config).expect("readable").replace("name = \"main\"", "name = \"renamed\"");
    fs::write(&config, text).expect("written");
    host.relaykey(&["check", "--offline"]).says_not("which Postfix tries for the endpoint, holds the login");
    let daemon = host.run_configured(port);
    daemon.agrees(Some("refused"), "the new key is refused by the mail relay", SOON);
    let c = daemon.credential("ses");
    assert_eq!((&c["in_use"][0]["holds"], &c["in_use"][0]["usernames"]), (&json!("begun"), &json!([new.id])), "{c:#}");
    assert_eq!(c["owed"], json!([]), "its reload is done: {c:#}");
    host.standin.set_key(&good.id, &good.login.password);
    host.publish(good.pair());
    daemon.agrees(None, "Everything is fine.", SOON);
    let c = daemon.credential("ses");
    assert_eq!((&c["applied"]["previous_username"], host.send()), (&json!(new.id), good.id.clone()), "{c:#}");
    let journal = fs::read_to_string(host.path("state/apply/journal.json")).expect("readable");
    assert!(!journal.contains("swapped"), "nothing is left of it: {journal}");
    daemon.ends(AT_ONCE);
}

// ---------------------------------------------------------------- what stays in memory

#[test]
fn idle_after_a_rollover_no_secret_is_in_memory() {
    let (old, new) = (Key::new(), Key::new());
    // One from Secrets Manager as an IAM key, one from a file as it is.
    let host = Host::new("hash", &old);
    host.start_postfix();
    let name = fresh("memory");
    moto::shared().secret(&name, &old.iam_json());
    let smtp = "timeout = \"2s\"\n";
    let daemon = host.run(&Setup { source: &(host.secret(&name) + OFTEN), smtp, ..Setup::default() });
    host.standin.set_key(&new.id, &new.login.password);
    next_second();
    moto::shared().put(&name, &new.iam_json(), &["AWSCURRENT"]);
    host.standin.fault(Misbehavior::HangAtAuth, 1);
    // The search sees secrets: that of a rollover that is open.
    let pid = daemon.program.id();
    daemon.program.signal(Signal::HUP);
    wait_for("the secret in memory", SOON, || memory_has(pid, new.password()).then_some(()));
    host.sync(&[], 0);
    daemon.applied(&new);
    passes_under(&host, &new);
    let timer = || daemon.wakes().get("timer").copied().unwrap_or(0);
    let polls = timer();
    wait_for("two polls", SOON, || (timer() >= polls + 2).then_some(()));
    wait_for("the daemon to be idle", SOON, || daemon.credential("ses")["live"]["step"].is_null().then_some(()));
    nothing_of(pid, &[&old, &new]);
    daemon.ends(AT_ONCE);
}

#[test]
fn idle_after_a_rollover_from_a_file_no_secret_is_in_memory() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("lmdb", &old);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &(host.publish(old.pair()) + OFTEN), ..Setup::default() });
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.json());
    daemon.applied(&new);
    passes_under(&host, &new);
    let timer = || daemon.wakes().get("timer").copied().unwrap_or(0);
    let polls = timer();
    wait_for("a poll", SOON, || (timer() > polls).then_some(()));
    wait_for("the daemon to be idle", SOON, || daemon.credential("ses")["live"]["step"].is_null().then_some(()));
    nothing_of(daemon.program.id(), &[&old, &new]);
    daemon.ends(AT_ONCE);
}

/// Neither secrets of these keys nor forms of them are in the memory of this process.
#[track_caller]
fn nothing_of(pid: u32, keys: &[&Key]) {
    let mut found = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let plain = BASE64.encode(format!("\0{}\0{}", key.id, key.password()));
        let login = BASE64.encode(key.password());
        for (what, text) in [
            ("password", key.password()),
            ("IAM secret key", &key.secret),
            ("second half of the password", &key.password()[22..]),
            ("second half of the IAM secret key", &key.secret[20..]),
            ("AUTH PLAIN", &plain),
            ("AUTH LOGIN", &login),
        ] {
            if memory_has(pid, text) {
                found.push(format!("the {what} of key {n}"));
            }
        }
    }
    assert!(found.is_empty(), "in memory: {found:?}");
}

// ---------------------------------------------------------------- many credentials

#[test]
fn a_source_and_an_endpoint_that_hang_hold_up_no_other_credential() {
    const HEALTHY: usize = 8;
    let name = |i: usize| format!("c{i}");
    let keys = || -> Vec<Key> { (0..HEALTHY + 2).map(|_| Key::new()).collect() };
    let first = keys();
    // Ten next hops in one table; the last two credentials are the ones that will hang.
    let hop = |i: usize| format!("[c{i}.relay.invalid]:587");
    let table: String = first.iter().enumerate().map(|(i, key)| format!("{} {}\n", hop(i), key.pair())).collect();
    let host = Host::with("hash", |_| Some(table));
    let hops: Vec<String> = (0..first.len()).map(hop).collect();
    host.postfix.set("relayhost", &hops.join(", "));
    host.start_postfix();
    let silent = Standin::start(standin::Options::default()).expect("an SES stand-in");
    host.dir.file("silent.pem", silent.ca_pem());
    let (source_hangs, endpoint_hangs) = (HEALTHY, HEALTHY + 1);
    let secret = fresh("ten");
    moto::shared().secret(&secret, &first[source_hangs].json());
    let write = |i: usize, key: &Key| {
        for at in [&host.standin, &silent] {
            at.set_key(&key.id, &key.login.password);
        }
        let (path, fresh) = (host.path(&name(i)), host.path("fresh"));
        if i == source_hangs {
            moto::shared().put(&secret, &key.json(), &["AWSCURRENT"]);
            return;
        }
        fs::write(&fresh, key.pair()).expect("written");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::rename(&fresh, &path).expect("renamed");
    };
    let mut config = String::new();
    for (i, key) in first.iter().enumerate() {
        if i != source_hangs {
            write(i, key);
        }
        host.standin.set_key(&key.id, &key.login.password);
        let source = match i {
            i if i == source_hangs => host.secret(&secret),
            i => format!("type = \"file\"\npath = {:?}\n", host.path(&name(i))),
        };
        let target = format!("keys = [{:?}]\nreload = \"if-needed\"\ndrift = \"report\"", hop(i));
        let smtp = format!("endpoint_aliases = [\"c{i}.relay.invalid\"]\n");
        let setup = Setup { source: &(source + NEVER), smtp: &smtp, ..Setup::default() };
        let mut lines = host.credential(&name(i), &setup, &[(&host.postfix, &target)]);
        if i == endpoint_hangs {
            let port = |standin: &Standin| format!("port = {}\n", standin.starttls_port());
            lines = lines.replace(&port(&host.standin), &port(&silent)).replace("ca.pem", "silent.pem");
        }
        config += &lines;
    }
    let port = free_port();
    host.write_config(&(config + &health(port)));
    let daemon = host.run_configured(port);
    let round = |keys: &[Key], of: usize| {
        next_second();
        keys.iter().enumerate().for_each(|(i, key)| write(i, key));
        let published = Instant::now();
        daemon.program.signal(Signal::HUP);
        daemon.shows("the new keys to be applied", lab::RUN, |s| {
            let all = s["credentials"].as_array()?.iter().zip(keys).take(of);
            all.fold(true, |so_far, (c, key)| so_far && c["applied"]["username"] == key.id.as_str()).then_some(())
        });
        published.elapsed()
    };
    let (second, third) = (keys(), keys());
    let healthy = round(&second, HEALTHY + 2);
    all_calls(&host, &json!({"kind": "hang", "seconds": 60, "count": 0}));
    silent.fault(Misbehavior::HangAtBanner, 1000);
    let beside = round(&third, HEALTHY);
    println!(
        "ten healthy credentials: {:.2} s; eight beside two that hang: {:.2} s",
        healthy.as_secs_f64(),
        beside.as_secs_f64()
    );
    let steps = daemon.status();
    for (i, step) in [(source_hangs, "fetch"), (endpoint_hangs, "verify")] {
        assert_eq!(steps["credentials"][i]["live"]["step"], step, "it was to hang: {:#}", steps["credentials"][i]);
        assert_eq!(steps["credentials"][i]["applied"]["username"], second[i].id.as_str());
    }
    assert!(beside < healthy * 3 / 2 + Duration::from_secs(2), "{beside:?} beside two that hang, {healthy:?} without");
    daemon.ends(AT_ONCE);
}

#[test]
fn a_state_that_cannot_be_written_is_said_and_what_was_applied_is_not_forgotten() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &host.publish(key.pair()), ..Setup::default() });
    let (there, away) = (host.path("state/credentials"), host.path("state/credentials.away"));
    std::fs::rename(&there, &away).expect("moved");
    std::fs::write(&there, "no directory").expect("written");
    daemon.program.signal(rustix::process::Signal::HUP);
    let failing = daemon.shows("the state to be missed", SOON, |status| {
        let ses = &status["credentials"][0];
        (ses["state"] == "failing").then(|| ses.clone())
    });
    assert_eq!(failing["applied"]["username"], key.id.as_str(), "{failing:#}");
    assert_eq!(failing["failures"][0]["class"], "state", "{failing:#}");
    std::fs::remove_file(&there).expect("removed");
    std::fs::rename(&away, &there).expect("moved");
    daemon.program.signal(rustix::process::Signal::HUP);
    daemon.shows("the daemon to be content again", SOON, |status| {
        (status["credentials"][0]["state"] == "up-to-date").then_some(())
    });
    daemon.ends(SOON);
}

/// `rm -rf` of the state directory under the daemon: what is owed is sent all the same, no second daemon gets in, and it is said.
#[test]
fn a_state_directory_that_is_removed_is_made_anew_and_nothing_owed_is_lost() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let (daemon, path) = reporting_in_vain(&host, &(host.publish(old.pair()) + NEVER));
    let (host_id, version) =
        (host.state("ses")["host_id"].clone(), host.state("ses")["applied"]["id"]["version"].clone());

    fs::remove_dir_all(host.path("state")).expect("removed");
    // Nothing has to be done, and yet what was there is there again.
    host.sync(&["--wait", "0s"], 0).says(&["ses: up-to-date"]);
    let state = host.state("ses");
    assert_eq!((&state["host_id"], &state["applied"]["id"]["version"]), (&host_id, &version));
    assert_eq!(state["outbox"]["fleet"]["owed"].as_array().map(Vec::len), Some(1), "{state:#}");
    for directory in ["state", "state/credentials"] {
        assert_eq!(fs::metadata(host.path(directory)).expect("there").permissions().mode() & 0o7777, 0o700);
    }
    // No second one decides for this host.
    let config = fs::read_to_string(host.path("config.toml")).expect("readable");
    let second = config.replace(&format!("{:?}", host.path("run")), &format!("{:?}", host.path("run2")));
    let second = host.dir.file("second.toml", second.split("[health]").next().expect("a part"));
    let second = second.to_str().expect("UTF-8");
    let ran = lab::Program::start(&["--config", second, "sync", "--wait", "0s"], &[], b"").wait(lab::RUN);
    ran.expect(75).says(&[&format!("process {}", daemon.program.id())]);

    // A rollover afterwards, and all of it arrives.
    fs::remove_dir_all(host.path("state")).expect("removed");
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.applied(&new);
    assert_eq!(host.state("ses")["applied"]["username"], new.id.as_str());
    moto::shared().heal(&host.aws_key);
    host.sync(&[], 0);
    let name = format!("{path}/ses/mx1.example.com");
    wait_for("the report to arrive", SOON, || {
        host.state("ses")["outbox"]["fleet"]["owed"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    let stored = moto::shared().call("AmazonSSM.GetParameter", json!({"Name": name, "WithDecryption": true}));
    let stored = stored["Parameter"]["Value"].as_str().expect("a value").to_owned();
    let document: Value = serde_json::from_str(&stored).expect("JSON");
    assert_eq!((&document["host_id"], &document["outcome"]), (&host_id, &json!("confirmed")));
    daemon.program.terminate();
    let ran = daemon.program.wait(SOON);
    ran.says(&["was removed while relaykey ran; it was made anew, with the state of ses"]);
}

/// Without its socket nobody could ask the daemon, and every command would decide beside it.
#[test]
fn a_control_socket_that_is_removed_is_made_anew() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &(host.publish(key.pair()) + NEVER), ..Setup::default() });
    daemon.applied(&key);
    let (run, socket) = (host.path("run"), host.path("run/control.sock"));
    let answers = || {
        wait_for("the daemon to be asked", SOON, || {
            host.relaykey(&["status", "--json"]).json()["daemon"].is_object().then_some(())
        });
        assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o7777, 0o600);
    };
    answers();
    fs::remove_file(&socket).expect("removed");
    answers();
    fs::remove_dir_all(&run).expect("removed");
    daemon.program.signal(Signal::HUP);
    answers();
    fs::remove_file(&socket).expect("removed");
    fs::write(&socket, "of somebody").expect("written");
    fs::remove_file(&socket).expect("removed");
    answers();
    let ran = daemon.ends(SOON);
    assert!(!socket.exists(), "its file goes with it");
    ran.says(&["control.sock was removed while relaykey ran; it was made anew"]);
}

/// The state directory is moved away, and the run directory is another one: no lock in either is in the way.
#[test]
fn no_second_one_decides_where_neither_directory_is_there() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let daemon = host.run(&Setup { source: &(host.publish(key.pair()) + NEVER), ..Setup::default() });
    daemon.applied(&key);
    fs::rename(host.path("state"), host.path("away")).expect("renamed");
    let config = fs::read_to_string(host.path("config.toml")).expect("readable");
    let second = config.replace(&format!("{:?}", host.path("run")), &format!("{:?}", host.path("run2")));
    let second = host.dir.file("second.toml", second.split("[health]").next().expect("a part"));
    let second = second.to_str().expect("UTF-8");
    let run = |words: &[&str]| lab::Program::start(&[&["--config", second], words].concat(), &[], b"").wait(lab::RUN);
    let process = format!("process {}", daemon.program.id());
    run(&["sync", "--wait", "0s"]).expect(75).says(&["is locked by the relaykey daemon", &process]);
    assert!(!host.path("state").exists(), "it has begun one of its own");
    run(&["check"]).says(&["a relaykey daemon runs", &process, "it cannot be asked", "systemctl reload relaykey"]);
    // The daemon goes on.
    host.sync(&[], 0);
    assert!(host.path("state/credentials/ses.json").exists());
    daemon.ends(SOON);
}

#[test]
fn a_mended_configuration_is_tried_at_once() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let source = host.publish(key.pair());
    let wrong = format!("ca_file = {:?}\n", host.path("absent.pem"));
    let daemon = host.run(&Setup { source: &source, smtp: &wrong, ..Setup::default() });
    // Not for the moment: it would be tried again in a minute and a half at the earliest.
    let failure = host.state("ses")["targets"]["main"]["retry"]["failure"].clone();
    assert_eq!(failure["temporary"], false, "{failure:#}");
    host.configure(&Setup { source: &source, more: &health(daemon.port), ..Setup::default() });
    daemon.applied(&key);
    daemon.ends(SOON);
}

#[test]
fn between_two_attempts_the_tables_are_not_locked() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("lmdb", &old);
    host.start_postfix();
    let daemon =
        host.run(&Setup { source: &host.publish(old.pair()), target: "reload = \"if-needed\"", ..Setup::default() });
    host.postfix.stop();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    wait_for("the mail server to be missed", SOON, || {
        (host.state("ses")["targets"]["main"]["retry"]["failure"]["class"] == "not-running").then_some(())
    });
    let directory = relaykey::host::Directory::open(&host.postfix.config_dir).expect("a directory");
    wait_for("the lock of the table's directory", SOON, || directory.lock(Duration::ZERO).ok());
    // The next attempt finds what was swapped in, and goes on from there.
    host.postfix.start();
    daemon.program.signal(rustix::process::Signal::HUP);
    daemon.applied(&new);
    daemon.ends(SOON);
}

/// Any local user can listen at a port from 1024 on.
#[test]
fn a_health_place_that_somebody_else_has_holds_up_no_rollover() {
    let (old, new, newest) = (Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let theirs = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = theirs.local_addr().expect("an address").port();
    let own = free_port();
    let place = format!("127.0.0.1:{port}");
    let places = |own: u16| format!("[health]\nlisten = [\"127.0.0.1:{own}\", {place:?}]\n");
    let source = host.publish(old.pair());
    host.configure(&Setup { source: &source, more: &places(own), ..Setup::default() });
    host.relaykey(&["check"]).expect(0).says(&[
        "warning  health: ",
        &place,
        "is tried again",
        "relaykey.socket",
        "ss -ltnp",
    ]);

    // It starts, looks and rotates.
    let mut daemon = host.run_configured(own);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.applied(&new);
    let failed = &daemon.status()["daemon"]["not_listening"];
    assert!(failed[0]["what"].as_str().is_some_and(|what| what.contains(&place)), "{failed:#}");
    assert!(failed[0]["fix"].as_str().is_some_and(|fix| fix.contains("ss -ltnp")), "{failed:#}");
    host.relaykey(&["status"]).expect(0).says(&[&place, "ss -ltnp", "is tried again"]);
    assert!(daemon.get("/").1.contains(&place));
    host.relaykey(&["check"]).expect(0).says(&["warning  health: ", &place]);

    // SIGHUP takes all else of a new configuration.
    let other = free_port();
    host.configure(&Setup { source: &(source + OFTEN), more: &places(other), ..Setup::default() });
    daemon.program.signal(Signal::HUP);
    daemon.port = other;
    daemon.shows("the new configuration", SOON, |status| {
        (status["daemon"]["config_refused"].is_null() && status["daemon"]["not_listening"][0].is_object()).then_some(())
    });
    daemon.looked();
    host.standin.set_key(&newest.id, &newest.login.password);
    host.publish(newest.pair());
    daemon.applied(&newest);

    // As soon as the place is free it is listened at.
    drop(theirs);
    daemon.port = port;
    daemon.shows("the place that was taken", SOON * 2, |status| {
        status["daemon"]["not_listening"].is_null().then_some(())
    });
    daemon.port = other;
    assert_eq!(daemon.get("/livez").0, 200);
    host.relaykey(&["check"]).expect(0).says_not("health");
    let ran = daemon.ends(SOON);
    ran.says(&[&format!("the health endpoint cannot listen at {place}"), "ss -ltnp", &format!("health at {place}")]);
}

/// A daemon that hangs rotates nothing, and a log that nobody can follow tells of no refused login.
#[test]
fn check_names_a_daemon_that_hangs_and_a_log_that_cannot_be_followed() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let log = host.path("log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &log, rustix::fs::Mode::RUSR).expect("mkfifo");
    let source = host.publish(key.pair()) + NEVER;
    let daemon = host.run(&Setup { source: &source, target: &format!("log = {log:?}"), ..Setup::default() });
    daemon.applied(&key);
    host.relaykey(&["check"]).expect(0).says(&["warning", &log.display().to_string(), "it is not a regular file"]);
    daemon.program.signal(Signal::STOP);
    host.relaykey(&["check"]).expect(75).says(&[
        "error    daemon: the relaykey daemon (process ",
        "said nothing for 10 s",
        "and restart it",
    ]);
    daemon.program.signal(Signal::CONT);
    daemon.looked();
    host.relaykey(&["check"]).expect(0).says_not("daemon: ");
    daemon.ends(AT_ONCE);
}

/// What lies at the path of a Unix socket is somebody's mistake, and as little a reason not to rotate.
#[test]
fn without_any_place_to_listen_at_it_runs_all_the_same_and_sighup_tries_again() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let path = host.path("health.sock");
    fs::write(&path, "precious").expect("written");
    let more = format!("[health]\nlisten = [{path:?}]\n");
    host.configure(&Setup { source: &host.publish(key.pair()), more: &more, ..Setup::default() });
    let program = host.start(&["run"]);
    let status = || host.relaykey(&["status", "--json"]).json();
    let lists = |status: &Value| status["daemon"]["not_listening"][0]["what"].is_string();
    wait_for("a status that says so", SOON, || {
        let status = status();
        (lists(&status) && status["credentials"][0]["applied"]["username"] == key.id.as_str()).then_some(())
    });
    host.relaykey(&["check"]).expect(0).says(&["warning  health: ", "no socket"]);
    fs::remove_file(&path).expect("removed");
    program.signal(Signal::HUP);
    wait_for("the place to be listened at", SOON, || UnixStream::connect(&path).ok());
    wait_for("a status without it", SOON, || (!lists(&status())).then_some(()));
    program.terminate();
    program.wait(lab::RUN).expect(0).says(&[&format!("health at {}", path.display())]);
    assert!(!path.exists(), "it goes with the daemon");
}
