//! Where a person decides or makes the change: the real program, a real Postfix, the SES stand-in. What waits is seen
//! everywhere, nothing goes before it may, and who let it go stands in the report and in the audit log.

use crate::lab::daemon as running;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use lab::{DELIVERY, Host, Key, Setup};
use postfix::{free_port, wait_for};
use relaykey::credential::Secret;
use relaykey::standin;
use running::{Daemon, NEVER, SOON, health, holds, passes_under};
use rustix::process::Signal;
use serde_json::Value;

/// A host whose table holds the first key, adopted, with these lines in its `[[credential]]` and its target.
fn host_with(map_type: &str, key: &Key, credential: &str, target: &str) -> Host {
    let host = Host::new(map_type, key);
    host.start_postfix();
    let source = host.publish(key.pair()) + NEVER;
    configure(&host, &source, credential, target);
    host
}

fn configure(host: &Host, source: &str, credential: &str, target: &str) {
    host.configure(&Setup { source, target, ..Setup::default() });
    add_to_credential(host, credential);
}

/// Puts lines below the name of the credential.
fn add_to_credential(host: &Host, lines: &str) {
    let path = host.path("config.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let text = text.replacen("name = \"ses\"\n", &format!("name = \"ses\"\n{lines}"), 1);
    fs::write(&path, text).expect("written");
}

/// Starts the daemon of a host whose source holds this key, with these lines in its `[[credential]]` and its target.
fn start_daemon<'a>(host: &'a Host, key: &Key, credential: &str, target: &str) -> Daemon<'a> {
    let source = host.publish(key.pair()) + NEVER;
    let port = free_port();
    host.configure(&Setup { source: &source, target, more: &health(port), ..Setup::default() });
    add_to_credential(host, credential);
    host.run_configured(port)
}

/// A new key that SES knows, published in the file of the source; its version as `sync --json` names it.
fn publish(host: &Host) -> Key {
    let key = Key::new();
    host.standin.set_key(&key.id, &key.login.password);
    host.publish(key.pair());
    key
}

fn applied(host: &Host) -> String {
    host.state("ses")["applied"]["username"].as_str().expect("applied").to_owned()
}

fn candidate(host: &Host) -> Value {
    host.state("ses")["candidate"].clone()
}

const MANUAL: &str = "mode = \"manual\"\n";

#[test]
fn what_is_held_is_shown_and_goes_when_somebody_approves_it() {
    let first = Key::new();
    let host = host_with("hash", &first, MANUAL, "");
    // Nothing is written for an adoption, so nobody needs to approve it.
    host.sync(&[], 0).says(&["ses: adopted"]);
    let second = publish(&host);
    let before = host.snapshot();

    let ran = host.sync(&[], 3);
    ran.says(&["ses: pending-approval", &second.id, "waits for approval", "relaykey approve ses --version"]);
    before.same_as(&host.snapshot());
    assert_eq!(host.send(), first.id);
    let held = candidate(&host);
    let version = held["version"].as_str().expect("a version").to_owned();
    assert!(held["held"]["since"].is_string() && held["approval"].is_null(), "{held}");
    let told = &host.state("ses")["told"];
    assert_eq!((&told["outcome"], &told["mode"]), (&"pending-approval".into(), &"manual".into()));
    assert!(told["error"]["words"].as_str().expect("words").contains(&format!("--version {version}")), "{told}");

    // It is verified once, and then waits: no login at every look.
    let logins = host.standin.logins().len();
    let again = host.relaykey(&["sync", "--json"]);
    again.expect(3);
    let document = again.json();
    let outcome = &document["credentials"][0];
    assert_eq!((&outcome["outcome"], &outcome["exit"]), (&"pending-approval".into(), &3.into()));
    assert_eq!(outcome["candidate"][0], version.as_str());
    assert!(host.standin.logins().len() <= logins + 1);
    let status = host.relaykey(&["status"]);
    status.expect(0).says(&["pending-approval", "relaykey approve ses --version", "relaykey reject ses", &second.id]);

    // By name or without, it is what waits that is approved.
    host.relaykey(&["approve", "ses", "--version", "another"]).expect(1).says(&["nothing was approved"]);
    before.same_as(&host.snapshot());
    let ran = host.relaykey(&["approve", "ses"]);
    ran.expect(0).says(&["ses: confirmed", &second.id]);
    assert_eq!(host.send(), second.id);
    let report = host.state("ses")["report"].clone();
    assert_eq!((&report["outcome"], &report["mode"]), (&"confirmed".into(), &"manual".into()));
    assert_eq!(report["approved_by"], "root");
    host.relaykey(&["history"]).expect(0).says(&["rollover", "approved by root", "waits"]);
    host.relaykey(&["history", "--verify"]).expect(0);
    // What is so already is no failure.
    let ran = host.relaykey(&["approve", "ses"]);
    ran.expect(0).says(&["nothing waits for approval", &second.id, "is the applied one, since", "relaykey status"]);
    assert_eq!(host.relaykey(&["approve", "ses", "--json"]).json()["credentials"][0]["outcome"], "up-to-date");
    // But another version than the one that is there was not approved.
    host.relaykey(&["approve", "ses", "--version", "another"]).expect(1).says(&["nothing was approved"]);
}

/// What `sync` leaves to a person, `check` names too.
#[test]
fn check_says_what_waits_for_a_person() {
    let first = Key::new();
    for (credential, target, says) in [
        (MANUAL, "", ["waits for approval", "fix: relaykey approve ses --version "]),
        ("", "write = false\n", ["does not hold version", "change it by hand: relaykey sync --dry-run"]),
    ] {
        let host = host_with("hash", &first, credential, target);
        host.sync(&[], 0);
        host.relaykey(&["check"]).expect(0);
        let second = publish(&host);
        let before = host.snapshot();
        // Before `sync` has seen it, and after.
        for _ in 0..2 {
            let ran = host.relaykey(&["check"]);
            ran.expect(3).says(&says).says(&["note ", "0 errors", &second.id]);
            assert_eq!(host.relaykey(&["check", "--json"]).json()["exit"], 3);
            host.sync(&[], 3);
        }
        before.same_as(&host.snapshot());
        if target.is_empty() {
            host.relaykey(&["approve", "ses"]).expect(0);
            host.relaykey(&["check"]).expect(0).says_not("waits for approval");
        }
    }
}

/// A run says what a person has to change where that stands in its way, and nothing of it once that is done: the same words
/// with the daemon and without.
#[test]
fn what_was_changed_by_hand_is_not_told_to_be_changed() {
    let first = Key::new();
    let host = host_with("hash", &first, "", "write = false\n");
    let ran = host.sync(&[], 0);
    ran.says(&["ses: adopted"]).says_not("would change");
    let second = publish(&host);
    let ran = host.sync(&[], 3);
    ran.says(&["fix: change it by hand", "  1. in "]).says_not("would change");
    assert_eq!(host.relaykey(&["sync", "--json"]).json()["credentials"][0]["preview"], serde_json::json!([]));
    // Nobody is asked to approve it, and relaykey would neither change anything nor reload.
    ran.says(&["ses: by-hand version "]).says_not("approv");
    let ran = host.sync(&["--dry-run"], 0);
    ran.says(&["target main is changed by hand (write = false), to:", "to change it by hand, as root:"]);
    ran.says_not("would change").says_not("would be reloaded");
    host.postfix.write_table(&format!("{} {}\n", host.hop(), second.pair()));
    host.postfix.postmap();
    let ran = host.sync(&[], 0);
    ran.says(&["ses: confirmed"]).says_not("would change").says_not("by hand");
}

/// Nothing that is waited for gives a mail server that nobody may reload the new login.
#[test]
fn nobody_waits_for_a_reload_that_is_never_done() {
    let first = Key::new();
    let host = host_with("texthash", &first, "", "reload = \"never\"\n");
    // What it has read is known of a start that comes after a look.
    host.sync(&["--wait", "0s"], 75);
    lab::let_a_start_be_later();
    host.postfix.stop();
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    let second = publish(&host);
    // It ends long before the time that it may wait for what fails for now; a run has a minute here.
    host.sync(&["--wait", "30m"], 75).says(&["reload = \"never\"", "fix: restart the mail server"]);
    let again = host.sync(&["--wait", "30m"], 75);
    again.says(&["was put there before, and is not confirmed yet"]).says_not("did not finish");
    lab::let_a_start_be_later();
    host.postfix.stop();
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: confirmed", &second.id]);
}

/// The host's configuration is not the usual one: a command that leaves it out is about files that are not there.
#[test]
fn what_is_printed_can_be_pasted_where_the_configuration_is_not_the_usual_one() {
    let first = Key::new();
    let host = host_with("hash", &first, MANUAL, "");
    let before = host.relaykey(&["status"]);
    host.sync(&[], 0);
    let second = publish(&host);
    let mut all = vec![before, host.sync(&[], 3)];
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["check"],
        &["approve", "ses", "--version", "another"],
        &["reject", "ses", "--version", "another", "--reason", "no"],
        &["sync", "--json"],
    ] {
        all.push(host.relaykey(arguments));
    }
    let ours = ["status", "sync", "approve", "reject", "confirm", "check", "history"];
    let named = format!(" --config {}", host.path("config.toml").display());
    let mut seen = 0;
    for ran in &all {
        for said in format!("{}\n{}", ran.out, ran.err).split("relaykey ").skip(1) {
            if ours.iter().any(|command| said.starts_with(command)) {
                assert!(said.lines().next().is_some_and(|line| line.contains(&named)), "relaykey {said}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 12, "{seen}");
    // In a report too: who reads it pastes it on this host.
    let told = host.state("ses")["told"]["error"]["words"].as_str().expect("words").to_owned();
    assert!(told.contains(&format!("{named}. To refuse it: relaykey reject")), "{told}");

    let status = host.relaykey(&["status"]).out;
    let approve = status.lines().find_map(|line| line.trim_start().strip_prefix("approve ")).expect("a command");
    let ran = pasted(approve);
    assert!(ran.status.success(), "{approve}: {ran:?}");
    assert_eq!(host.send(), second.id);
}

/// A command as a person pastes it into a shell, in another directory.
fn pasted(command: &str) -> std::process::Output {
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_relaykey")).parent().expect("a directory");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).env("PATH", path).env_remove("RELAYKEY_CONFIG").current_dir("/");
    shell.output().expect("a shell")
}

#[test]
fn what_is_rejected_stays_out_until_somebody_names_it() {
    let first = Key::new();
    let host = host_with("hash", &first, MANUAL, "");
    host.sync(&[], 0);
    host.relaykey(&["reject", "ses", "--reason", "too early"]).expect(1).says(&["nothing waits"]);
    let second = publish(&host);
    let before = host.snapshot();
    host.sync(&[], 3);
    let version = candidate(&host)["version"].as_str().expect("a version").to_owned();
    host.relaykey(&["reject", "ses"]).expect(2);
    host.relaykey(&["reject", "ses", "--reason", "  \n"]).expect(2).says(&["the reason is empty"]);
    host.relaykey(&["reject", "ses", "--version", "another", "--reason", "no"])
        .expect(1)
        .says(&["nothing was rejected"]);

    let ran = host.relaykey(&["reject", "ses", "--reason", "not in the change calendar"]);
    ran.expect(0).says(&[&format!("ses: rejected version {version} ({})\n", second.id)]);
    let ran = host.relaykey(&["sync", "--json"]);
    let outcome = &ran.json()["credentials"][0];
    assert_eq!((&outcome["outcome"], &outcome["candidate"][1]), (&"rejected".into(), &second.id.as_str().into()));
    assert_eq!(outcome["username"], first.id.as_str(), "the one in use is named as such");
    let told = host.state("ses")["told"].clone();
    assert_eq!((&told["outcome"], &told["version"]), (&"rejected".into(), &version.as_str().into()));
    assert!(told["error"]["words"].as_str().expect("words").contains("not in the change calendar"), "{told}");
    host.relaykey(&["history"]).expect(0).says(&["rejection", "not in the change calendar", "operator root"]);
    // It stays so, and the old one stays in use.
    for _ in 0..2 {
        host.sync(&[], 0).says(&["ses: rejected"]);
    }
    // A confirmation is of the newest version: that there was none is no success, and what is in use is said.
    let confirmed = host.state("ses")["report"].clone();
    host.relaykey(&["confirm", "ses"]).expect(3).says(&[
        "nothing was confirmed; in use is",
        &first.id,
        &format!("version {version} was rejected"),
        &format!("relaykey approve ses --version {version}"),
    ]);
    assert_eq!(host.state("ses")["report"], confirmed);
    before.same_as(&host.snapshot());
    assert_eq!(host.send(), first.id);
    host.relaykey(&["status"]).expect(0).says(&["rejected", "not in the change calendar"]);
    host.relaykey(&["approve", "ses"]).expect(1).says(&["was rejected by root", "relaykey approve ses --version"]);
    before.same_as(&host.snapshot());
    // The next one waits as any other.
    let third = publish(&host);
    host.sync(&[], 3).says(&[&third.id]);
    // And the rejected one is there again: still not by itself, but by its name.
    host.publish(second.pair());
    host.sync(&[], 0).says(&["ses: rejected"]);
    host.relaykey(&["approve", "ses", "--version", &version]).expect(0).says(&["ses: confirmed", &second.id]);
    assert_eq!(host.send(), second.id);
}

/// What becomes of a newer version than the one that is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newer {
    Waits,
    Rejected,
    Refused,
}

/// A restored backup of the table brings back the key before, while the source gives a newer version than the one that was
/// confirmed, which is not put into use: the one that was is fetched by its number, and put back.
#[test]
fn a_table_that_somebody_restored_is_put_right_while_a_newer_version_waits_or_is_rejected_or_refused() {
    for (kind, newer) in [
        ("secrets-manager", Newer::Waits),
        ("parameter-store", Newer::Rejected),
        ("secrets-manager", Newer::Rejected),
        ("parameter-store", Newer::Refused),
    ] {
        let first = Key::new();
        let host = Host::new("hash", &first);
        host.start_postfix();
        let (source, publish) = source_of(&host, kind, &first);
        host.configure(&Setup { source: &source, smtp: "propagation = \"0s\"\n", ..Setup::default() });
        if newer != Newer::Refused {
            add_to_credential(&host, MANUAL);
        }
        host.sync(&[], 0);
        let backup = fs::read_to_string(host.postfix.table()).expect("a table");
        let [second, third] = [Key::new(), Key::new()];
        host.standin.set_key(&second.id, &second.login.password);
        lab::next_second();
        publish(&second);
        if newer == Newer::Refused {
            host.sync(&[], 0);
        } else {
            host.standin.set_key(&third.id, &third.login.password);
            host.sync(&[], 3);
            host.relaykey(&["approve", "ses"]).expect(0);
        }
        lab::next_second();
        publish(&third);
        let exit = match newer {
            Newer::Waits | Newer::Rejected => 3,
            Newer::Refused => 1,
        };
        host.sync(&[], exit);
        let exit = if newer == Newer::Rejected { 0 } else { exit };
        if newer == Newer::Rejected {
            host.relaykey(&["reject", "ses", "--reason", "not now"]).expect(0);
        }
        let before = candidate(&host);

        Edit::InPlace.write(&host, &backup);
        host.postfix.postmap();
        // `check` ends as `sync` does, which puts it right.
        let before_it = host.snapshot();
        let gone = format!("no longer holds the login that this host had confirmed ({})", second.id);
        host.relaykey(&["check"]).expect(exit).says(&[
            "warning  ses: target main: ",
            &gone,
            "relaykey puts it back",
            "relaykey sync ses",
        ]);
        before_it.same_as(&host.snapshot());
        let ran = host.sync(&[], exit);
        ran.says(&["fetch-applied", &format!("({})", second.id)]).says_not("no longer holds the login");
        assert_eq!(host.send(), second.id, "{kind} {newer:?}");
        let state = host.state("ses");
        let report = &state["report"];
        assert_eq!(
            (&report["outcome"], &report["username"]),
            (&"confirmed".into(), &second.id.as_str().into()),
            "{report}"
        );
        assert_eq!((&state["withdrawn"], &applied(&host)), (&Value::Null, &second.id), "{kind} {newer:?}");
        for same in ["version", "username", "first_seen"] {
            assert_eq!(candidate(&host)[same], before[same], "{kind} {newer:?}");
        }
        let history = host.relaykey(&["history", "--json"]);
        history.expect(0);
        let history: Value = serde_json::from_str(&history.out).expect("JSON");
        let records = history["credentials"][0]["records"].as_array().expect("records");
        let healed = records.iter().find(|r| r["what"] == "heal").expect("a line of its own");
        assert_eq!(
            (&healed["username"], &healed["version"]),
            (&second.id.as_str().into(), &report["version"]),
            "{healed}"
        );
        // The reload was the one of what was put back.
        let mut since = records.iter().take_while(|r| r["what"] != "heal");
        assert!(!since.any(|r| r["what"] == "reload"), "{kind} {newer:?}: {records:?}");
        // Nothing is left to be done, and the newer one is as it was.
        host.relaykey(&["check"]).expect(exit).says_not("no longer holds the login");
        host.sync(&[], exit).says_not("fetch-applied");
        if newer == Newer::Refused {
            continue;
        }
        let version = before["version"].as_str().expect("a version");
        host.relaykey(&["approve", "ses", "--version", version]).expect(0).says(&["ses: confirmed"]);
        assert_eq!(host.send(), third.id);
    }
}

/// The second key was confirmed, the third waits for approval, and somebody has put the table of the first one back.
struct Restored {
    host: Host,
    first: Key,
    second: Key,
    third: Key,
    /// The third key's.
    version: String,
    /// The table with the first key, and the one with the second.
    backup: String,
    good: String,
}

fn restored_beside_a_version_that_waits(target: &str) -> Restored {
    let first = Key::new();
    let host = host_with("hash", &first, MANUAL, target);
    host.sync(&[], 0);
    let backup = fs::read_to_string(host.postfix.table()).expect("a table");
    let second = publish(&host);
    host.sync(&[], 3);
    host.relaykey(&["approve", "ses"]).expect(0);
    let good = fs::read_to_string(host.postfix.table()).expect("a table");
    let third = publish(&host);
    host.sync(&[], 3);
    let version = candidate(&host)["version"].as_str().expect("a version").to_owned();
    Edit::InPlace.write(&host, &backup);
    host.postfix.postmap();
    Restored { host, first, second, third, version, backup, good }
}

/// As above, and a file does not give the older key: relaykey has nothing at hand to put back, says so, and what to do, and no
/// command calls it a success.
#[test]
fn a_table_that_somebody_restored_and_that_cannot_be_put_right_is_no_success() {
    let Restored { host, first, second, third, version, backup, good } = restored_beside_a_version_that_waits("");
    let by_hand = format!("put the login of {} back by hand", second.id);
    let approve = format!("relaykey approve ses --version {version}");
    let gone = "no longer holds the login that this host had confirmed";
    host.relaykey(&["check"]).expect(1).says(&[gone, "could not be put back", &by_hand, &approve]);
    host.sync(&[], 1).says(&[gone, "could not be put back", &by_hand, &approve]);
    host.relaykey(&["check"]).expect(1).says(&[gone, &by_hand, &approve]);
    let history = host.relaykey(&["history"]);
    history.expect(0).says(&["drift", gone]);
    let state = host.state("ses");
    let told = &state["told"];
    assert_eq!((&told["outcome"], &told["another_login"]), (&"withdrawn".into(), &true.into()), "{told}");
    assert_eq!(told["in_use"], serde_json::json!([first.id]));
    host.relaykey(&["status"]).expect(0).says(&["ses: drift", "mail      may be failing", &by_hand, &approve]);
    host.relaykey(&["confirm", "ses"]).expect(3).says(&[&approve]).says_not("change it by hand");

    host.relaykey(&["reject", "ses", "--reason", "not now"]).expect(0);
    for _ in 0..2 {
        host.sync(&[], 1).says(&[gone, "was rejected", &by_hand, &approve]);
        host.relaykey(&["check"]).expect(1).says(&[gone, &by_hand, &approve]);
    }
    host.relaykey(&["status"]).expect(0).says(&["ses: drift", &by_hand, &approve]).says_not("looks again by itself");
    host.relaykey(&["history"]).expect(0).says(&["drift", "rejection"]);
    // It is done as it says: by hand, or by taking the other one.
    Edit::InPlace.write(&host, &good);
    host.postfix.postmap();
    host.sync(&[], 0).says(&["ses: rejected"]);
    Edit::InPlace.write(&host, &backup);
    host.postfix.postmap();
    host.sync(&[], 1);
    host.relaykey(&["approve", "ses", "--version", &version]).expect(0).says(&["ses: confirmed"]);
    assert_eq!(host.send(), third.id);
}

/// What `sync` puts back is a warning of `check`; what it leaves so, or cannot confirm, ends both alike.
#[test]
fn check_ends_as_sync_does_where_somebody_else_changed_the_login() {
    for (drift, is_stopped, exit, severity) in
        [("heal", false, 0, "warning"), ("report", false, 1, "error"), ("heal", true, 75, "error")]
    {
        let (first, stranger) = (Key::new(), Key::new());
        let host = Host::new("hash", &first);
        host.start_postfix();
        let source = host.publish(first.pair()) + NEVER;
        configure(&host, &source, "", &format!("drift = {drift:?}\nkeys = [{:?}]\n", host.hop()));
        host.sync(&[], 0);
        host.postfix.write_table(&format!("{} {}\n", host.hop(), stranger.pair()));
        host.postfix.postmap();
        if is_stopped {
            host.postfix.stop();
        }
        let before = host.snapshot();
        let expected = match is_stopped {
            true => "the mail server is not running",
            false => "no longer holds the login that",
        };
        let prefix = format!("{severity:<8} ses: target main: ");
        let checked = host.relaykey(&["check"]);
        checked.expect(exit);
        let is_said = |line: &str| line.starts_with(&prefix) && line.contains(expected);
        assert!(checked.out.lines().any(is_said), "{drift}: {}", checked.out);
        before.same_as(&host.snapshot());
        host.sync(&["--wait", "0s"], exit);
        host.relaykey(&["check"]).expect(exit);
        if exit == 0 {
            assert_eq!(host.send(), first.id);
            host.relaykey(&["check"]).expect(0).says_not("no longer holds the login");
        }
    }
}

/// Somebody has put the version that waits into one target already, which is theirs; what they changed in the other is put back.
/// Nothing is confirmed by that, and the audit log has a line for the table that was written.
#[test]
fn a_login_that_is_put_back_without_a_confirmation_has_its_line_in_the_audit_log() {
    let [first, second, stranger] = [Key::new(), Key::new(), Key::new()];
    let host = Host::new("hash", &first);
    let other = host.another("hash", &format!("{} {}\n", host.hop(), first.pair()));
    host.standin.set_key(&second.id, &second.login.password);
    let (source, publish) = source_of(&host, "parameter-store", &first);
    let setup = Setup { source: &source, ..Setup::default() };
    let keys = |name: &str| format!("name = {name:?}\nkeys = [{:?}]\n", host.hop());
    let (main_lines, other_lines) = (keys("main"), keys("other"));
    let targets = [(&host.postfix, main_lines.as_str()), (&other, other_lines.as_str())];
    host.write_config(&host.credential("ses", &setup, &targets));
    add_to_credential(&host, MANUAL);
    host.start_postfix();
    other.start();
    host.sync(&[], 0);
    lab::next_second();
    publish(&second);
    host.sync(&[], 3);
    host.postfix.write_table(&format!("{} {}\n", host.hop(), second.pair()));
    host.postfix.postmap();
    other.write_table(&format!("{} {}\n", host.hop(), stranger.pair()));
    other.postmap();

    host.relaykey(&["check"]).expect(3).says(&["warning  ses: target other: ", "relaykey puts it back"]);
    host.sync(&[], 3).says(&["fetch-applied"]);
    assert_eq!(lab::send(&host.standin, &other), first.id);
    assert_eq!(host.send(), second.id, "what somebody put in by hand is theirs");
    let history = host.relaykey(&["history", "--json"]).expect(0).json();
    let records = history["credentials"][0]["records"].as_array().expect("records").clone();
    let healed: Vec<&Value> = records.iter().filter(|r| r["what"] == "heal").collect();
    let [healed] = healed.as_slice() else { panic!("one line: {records:?}") };
    assert_eq!(
        (&healed["outcome"], &healed["username"], &healed["error"]["class"]),
        (&"done".into(), &first.id.as_str().into(), &"drift".into()),
        "{healed}"
    );
    let words = healed["error"]["words"].as_str().expect("words");
    assert!(words.contains("(target other), and it was put back; not confirmed"), "{words}");
    host.relaykey(&["history"]).expect(0).says(&["heal", "done", "not confirmed, because of another target"]);
    host.sync(&[], 3);
}

/// Where what a run has failed of is not what somebody else changed, a line of its own says that a confirmation is over.
#[test]
fn a_confirmation_that_is_taken_back_has_its_line_in_the_audit_log() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let source = host.publish(first.pair()) + NEVER;
    host.configure(&Setup { source: &source, smtp: "propagation = \"0s\"\n", ..Setup::default() });
    host.sync(&[], 0);
    let backup = fs::read_to_string(host.postfix.table()).expect("a table");
    let second = publish(&host);
    host.sync(&[], 0);
    host.publish(Key::new().pair());
    host.sync(&["--wait", "1s"], 1).says(&["535"]);
    Edit::InPlace.write(&host, &backup);
    host.postfix.postmap();
    host.sync(&["--wait", "1s"], 1).says(&["535", "no longer holds the login"]);
    assert_eq!(host.state("ses")["told"]["outcome"], "withdrawn");
    host.relaykey(&["history"]).expect(0).says(&[
        "refused",
        "withdrawal",
        "somebody else changed the login",
        &second.id,
    ]);
}

/// A version waits for approval, somebody else changed the login, and it is left so: every command says both, and none calls it
/// a success.
#[test]
fn what_somebody_else_changed_is_said_beside_a_version_that_waits() {
    let Restored { host, second, third, version, .. } = restored_beside_a_version_that_waits("drift = \"report\"\n");
    let approve = format!("relaykey approve ses --version {version}");
    let said = ["no longer holds the login that this host had confirmed", "is left so: drift = \"report\"", &approve];
    // Before `sync` has seen it, and after.
    for _ in 0..2 {
        host.relaykey(&["check"]).expect(1).says(&said);
        host.sync(&[], 1).says_not("fetch-applied").says(&said);
    }
    host.relaykey(&["history"]).expect(0).says(&["drift", "no longer holds", &second.id]);
    host.relaykey(&["status"]).expect(0).says(&["ses: drift", "mail      may be failing", &approve]);
    host.relaykey(&["approve", "ses"]).expect(0).says(&["ses: confirmed"]);
    assert_eq!(host.send(), third.id);
}

/// At a relay that is not SES, every login has the same user name.
#[test]
fn somebody_elses_login_of_the_same_user_name_is_not_taken_for_the_new_version() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    let table = |password: &str| {
        host.postfix.write_table(&format!("{} apikey:{password}\n", host.hop()));
        host.postfix.postmap();
    };
    let [one, two] = ["Pass1.of-this-relay", "Pass2.of-this-relay"];
    let accept = |password: &str| host.standin.set_key("apikey", &Secret::new(password.to_owned()));
    table(one);
    accept(one);
    host.start_postfix();
    let source = host.publish(format!("apikey:{one}")) + NEVER;
    configure(&host, &source, MANUAL, "");
    host.without_region();
    host.sync(&[], 0).says(&["ses: adopted"]);
    accept(two);
    host.publish(format!("apikey:{two}"));
    host.sync(&[], 3);

    table("somebody.elses");
    for reject in [false, true] {
        if reject {
            host.relaykey(&["reject", "ses", "--reason", "not now"]).expect(0);
        }
        host.sync(&[], 1).says(&["no longer holds the login that this host had confirmed"]);
        host.relaykey(&["check"]).expect(1);
        let status = host.relaykey(&["status"]);
        status.expect(0).says(&["ses: drift", "apikey with another password", "mail      may be failing"]);
        status.says_not("this is the new key").says_not("not affected");
        let told = host.state("ses")["told"].clone();
        assert!(reject || told["outcome"] == "withdrawn" && told["another_login"] == true, "{told}");
    }
    // The new version itself, put in by hand, is the new key.
    table(two);
    host.sync(&[], 0).says(&["ses: rejected"]);
    host.relaykey(&["status"]).expect(0).says(&["this is the new key, not confirmed yet"]);
}

#[test]
fn one_that_changed_meanwhile_is_not_approved() {
    let first = Key::new();
    let host = host_with("hash", &first, MANUAL, "");
    host.sync(&[], 0);
    publish(&host);
    host.sync(&[], 3);
    let seen = candidate(&host)["version"].as_str().expect("a version").to_owned();
    let third = publish(&host);
    let before = host.snapshot();
    for arguments in [&["approve", "ses"][..], &["approve", "ses", "--version", &seen]] {
        host.relaykey(arguments).expect(1).says(&["nothing was approved", "relaykey approve ses --version"]);
    }
    before.same_as(&host.snapshot());
    assert_eq!(applied(&host), first.id);
    // The newer one waits in its place.
    host.sync(&[], 3).says(&[&third.id]);
    host.relaykey(&["approve", "ses"]).expect(0).says(&["ses: confirmed", &third.id]);
    assert_eq!(host.send(), third.id);
}

#[test]
fn in_its_window_it_goes_by_itself() {
    let first = Key::new();
    // Open at noon, or at midnight: the one of the two that is twelve hours away.
    let now = jiff::Zoned::now();
    let window = if (6..18).contains(&now.hour()) { "daily 23:00-01:00" } else { "daily 11:00-13:00" };
    let host = host_with("hash", &first, &format!("{MANUAL}apply = {window:?}\n"), "");
    host.sync(&[], 0);
    let second = publish(&host);
    host.sync(&[], 3).says(&["waits for approval, or for"]);
    host.relaykey(&["status"]).expect(0).says(&["by itself", window]);
    let told = host.state("ses")["told"].clone();
    assert!(told["error"]["words"].as_str().expect("words").contains("goes into use by itself at"), "{told}");
    assert_eq!(host.send(), first.id);

    let minute = |offset: i64| {
        let at = now.saturating_add(jiff::SignedDuration::from_mins(offset));
        format!("{:02}:{:02}", at.hour(), at.minute())
    };
    let open = format!("apply = \"daily {}-{}\"", minute(-5), minute(55));
    let path = host.path("config.toml");
    let text = fs::read_to_string(&path).expect("a configuration").replace(&format!("apply = {window:?}"), &open);
    fs::write(&path, text).expect("written");
    host.sync(&[], 0).says(&["ses: confirmed", &second.id]);
    assert_eq!(host.state("ses")["report"]["approved_by"], open.as_str());
    assert_eq!(host.send(), second.id);
}

#[test]
fn the_daemon_shows_what_waits_and_takes_the_answer() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let daemon = start_daemon(&host, &first, MANUAL, "");
    let second = publish(&host);
    daemon.shows("the new key to wait", SOON, |status| {
        (status["credentials"][0]["pending"]["for_approval"] == true).then_some(())
    });
    let (code, ready) = daemon.get("/readyz/ses");
    assert!(
        code == 503 && ready.contains("ses: pending-approval: ") && ready.contains("relaykey approve ses"),
        "{ready}"
    );
    assert_eq!(daemon.metric("relaykey_not_ready{credential=\"ses\",class=\"pending-approval\"}"), 1.0);
    let (_, page) = daemon.get("/");
    assert!(page.contains("relaykey approve ses"), "{page}");
    host.relaykey(&["status"]).expect(0).says(&["pending-approval", &second.id]);
    host.relaykey(&["sync"]).expect(3).says(&["pending-approval"]);
    assert_eq!(host.send(), first.id);

    let ran = host.relaykey(&["approve", "ses"]);
    ran.expect(0).says(&["ses: confirmed", &second.id]);
    passes_under(&host, &second);
    let (code, ready) = daemon.get("/readyz/ses");
    assert_eq!((code, ready.as_str()), (200, "ok\n"));
    let credential = daemon.credential("ses");
    assert_eq!(credential["report"]["approved_by"], "root");
    // Asked for in vain is answered, and leaves no trace among what stands in the way.
    host.relaykey(&["approve", "ses"]).expect(0).says(&["nothing waits for approval"]);
    host.relaykey(&["reject", "ses", "--reason", "no"]).expect(1).says(&["nothing waits"]);
    assert_eq!(daemon.get("/readyz/ses").0, 200);

    let third = publish(&host);
    daemon.shows("the next one to wait", SOON, |status| {
        (status["credentials"][0]["pending"]["username"] == third.id.as_str()
            && status["credentials"][0]["pending"]["for_approval"] == true)
            .then_some(())
    });
    host.relaykey(&["reject", "ses", "--reason", "not today"]).expect(0).says(&["ses: rejected"]);
    let (code, ready) = daemon.get("/readyz/ses");
    assert!(code == 503 && ready.contains("ses: rejected: ") && ready.contains("not today"), "{ready}");
    assert_eq!(host.send(), second.id);
    daemon.ends(SOON);
}

/// Tries of a login follow each other quickly: the second own one after 1.2 s, others after 6 s.
const QUICK: &str = "retry = \"200ms\"\n";

/// A daemon in manual mode on this source, with the first key adopted and a second one waiting.
fn with_one_that_waits<'a>(
    host: &'a Host,
    source: &str,
    credential: &str,
    publish: impl FnOnce(&Key),
) -> (Daemon<'a>, Key) {
    let port = free_port();
    host.configure(&Setup { source, smtp: QUICK, more: &health(port), ..Setup::default() });
    add_to_credential(host, credential);
    let daemon = host.run_configured(port);
    let second = Key::new();
    host.standin.set_key(&second.id, &second.login.password);
    lab::next_second();
    publish(&second);
    daemon.shows("the new key to wait", SOON, |status| {
        (status["credentials"][0]["pending"]["for_approval"] == true).then_some(())
    });
    (daemon, second)
}

/// What somebody who may write to the mail log, as every local user may through syslog, makes of it.
fn forge(host: &Host) {
    let line = "Nov 20 22:38:20 mx1 postfix/smtp[31870]: 61F7E9BE05A: SASL authentication failed; server localhost[127.0.0.1] \
                said: 535 Authentication Credentials Invalid\n";
    let log = host.postfix.base.join("log/mail.log");
    let mut file = fs::File::options().append(true).open(&log).expect("the mail log");
    file.write_all(line.as_bytes()).expect("written");
}

/// How often this key was tried.
fn logins(host: &Host, key: &Key) -> usize {
    host.standin.logins().iter().filter(|l| l.username == key.id).count()
}

/// The source's kind, its lines, and how a second value is published there.
fn source_of(host: &Host, kind: &str, first: &Key) -> (String, Box<dyn Fn(&Key)>) {
    let name = lab::fresh("dies");
    match kind {
        "secrets-manager" => {
            moto::shared().secret(&name, &first.json());
            let lines = host.secret(&name) + "poll = \"5s\"\n";
            (lines, Box::new(move |key| drop(moto::shared().put(&name, &key.json(), &["AWSCURRENT"]))))
        }
        _ => {
            moto::shared().parameter(&name, &first.json());
            let lines = host.parameter(&name) + "poll = \"5s\"\n";
            (lines, Box::new(move |key| _ = moto::shared().parameter(&name, &key.json())))
        }
    }
}

#[test]
fn a_forged_line_of_the_mail_log_lets_nothing_go() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let (source, publish) = source_of(&host, "secrets-manager", &first);
    let (daemon, second) =
        with_one_that_waits(&host, &source, &format!("{MANUAL}if_applied_dies = \"apply\"\n"), publish);
    let before = host.snapshot();
    let (tried, began) = (logins(&host, &first), Instant::now());
    let own = daemon.shows("a login of our own", SOON, |status| {
        forge(&host);
        Some(status["credentials"][0]["own_login"].clone()).filter(|own| own["result"] == "accepted")
    });
    assert_eq!(own["endpoint"], "localhost", "{own}");
    while began.elapsed() < Duration::from_secs(10) {
        forge(&host);
        std::thread::sleep(Duration::from_millis(100));
    }
    let more = logins(&host, &first) - tried;
    assert!((1..=3).contains(&more), "a flood of lines caused {more} logins");
    before.same_as(&host.snapshot());
    let credential = daemon.credential("ses");
    assert_eq!(
        (&credential["applied"]["username"], &credential["pending"]["for_approval"]),
        (&first.id.as_str().into(), &true.into())
    );
    assert!(credential["applied_refused"].is_null(), "{credential}");
    let (_, ready) = daemon.get("/readyz/ses");
    assert!(!ready.contains("applied-refused"), "{ready}");
    // The hint is told as what it is.
    host.relaykey(&["status"]).expect(0).says(&["login of our own is accepted", "or the line is not Postfix's"]);
    assert!(daemon.get("/").1.contains("is accepted"), "the page");
    assert_eq!(daemon.metric("relaykey_applied_refused{credential=\"ses\"}"), 0.0);
    assert_eq!(host.send(), first.id);
    host.relaykey(&["approve", "ses"]).expect(0).says(&["ses: confirmed", &second.id]);
    daemon.ends(SOON);
}

#[test]
fn when_the_login_in_use_dies_the_held_one_goes_if_it_was_said_so() {
    for (kind, setting, goes) in
        [("secrets-manager", "apply", true), ("parameter-store", "apply", true), ("parameter-store", "wait", false)]
    {
        let first = Key::new();
        let host = Host::new("hash", &first);
        host.start_postfix();
        let (source, publish) = source_of(&host, kind, &first);
        let (daemon, second) =
            with_one_that_waits(&host, &source, &format!("{MANUAL}if_applied_dies = {setting:?}\n"), publish);
        let tried = logins(&host, &first);
        host.standin.deactivate(&first.id);
        host.postfix.inject_from("dead@lab.invalid", 1);
        host.postfix.wait_for_log(&["status=deferred", "535"], DELIVERY);
        // Two logins of our own, some time apart, and a look that others put off.
        let in_time = 3 * SOON;
        if goes {
            daemon.shows("the held key in use", in_time, |status| {
                (status["credentials"][0]["applied"]["username"] == second.id.as_str()).then_some(())
            });
            host.postfix.flush();
            let found = |seen: &standin::StandinRecord| {
                seen.messages.iter().find(|m| m.from == "dead@lab.invalid").map(|m| m.username.clone())
            };
            let under = host.standin.wait_for(DELIVERY, "the message that was held back", found).expect("delivered");
            assert_eq!(under, second.id);
            let by = daemon.credential("ses")["report"]["approved_by"].as_str().expect("somebody").to_owned();
            let proved =
                format!("if_applied_dies = \"apply\": localhost refused two logins of our own with {}, at ", first.id);
            assert!(by.starts_with(&proved), "{by}");
            host.relaykey(&["history"]).expect(0).says(&[&proved]);
            // Postfix itself was refused as well.
            assert!(logins(&host, &first) >= tried + 3, "{} {tried}", logins(&host, &first));
        } else {
            let credential = daemon.shows("that the key in use is refused", in_time, |status| {
                Some(status["credentials"][0].clone()).filter(|c| c["applied_refused"].is_object())
            });
            assert_eq!(credential["applied"]["username"], first.id.as_str());
            assert_eq!(credential["pending"]["for_approval"], true);
            daemon.agrees(Some("applied-refused"), "refuses the key in use", SOON);
            assert_eq!(daemon.metric("relaykey_applied_refused{credential=\"ses\"}"), 1.0);
            host.relaykey(&["status"]).expect(0).says(&["applied-refused", &first.id]);
            // `sync` as well, whatever it came to.
            host.sync(&["--wait", "0s"], 3).says(&[
                "ses: pending-approval",
                "refuses the key in use",
                "fix: put the new key",
            ]);
            // Taken again, it is over.
            host.standin.activate(&first.id);
            daemon.shows("that it is taken again", SOON, |status| {
                status["credentials"][0]["applied_refused"].is_null().then_some(())
            });
        }
        daemon.ends(SOON);
    }
}

/// With no newer version there is nothing to do for relaykey, and that is no reason to end well in silence.
#[test]
fn sync_says_that_the_key_in_use_is_refused() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let source = host.publish(first.pair()) + NEVER;
    let port = free_port();
    host.configure(&Setup { source: &source, smtp: QUICK, more: &health(port), ..Setup::default() });
    let daemon = host.run_configured(port);
    host.sync(&[], 0);
    host.standin.deactivate(&first.id);
    host.postfix.inject_from("dead@lab.invalid", 1);
    host.postfix.wait_for_log(&["status=deferred", "535"], DELIVERY);
    daemon.shows("that the key in use is refused", 3 * SOON, |status| {
        // The log is followed since the daemon has found it: it is refused once more.
        host.postfix.flush();
        status["credentials"][0]["applied_refused"].is_object().then_some(())
    });
    host.relaykey(&["check"]).expect(1);
    for _ in 0..2 {
        host.sync(&["--wait", "0s"], 1).says(&["ses: failed", "refuses the key in use", "fix: activate the key again"]);
    }
    host.standin.activate(&first.id);
    // Taken again: what was reported as refused is confirmed anew.
    host.sync(&[], 0).says(&["ses: confirmed"]).says_not("refuses");
    daemon.ends(SOON);
}

#[test]
fn where_the_source_does_not_give_the_key_in_use_nothing_is_proved_and_that_is_said() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let source = host.publish(first.pair()) + NEVER;
    let (daemon, second) =
        with_one_that_waits(&host, &source, &format!("{MANUAL}if_applied_dies = \"apply\"\n"), |key| {
            host.publish(key.pair());
        });
    let told = host.state("ses")["told"]["error"]["words"].as_str().expect("words").to_owned();
    assert!(told.contains("does not go into use by itself"), "{told}");
    let (before, tried) = (host.snapshot(), logins(&host, &first));
    host.standin.deactivate(&first.id);
    host.postfix.inject_from("dead@lab.invalid", 1);
    daemon.shows("that nothing can be proved", SOON, |status| {
        (status["credentials"][0]["own_login"]["result"] == "not-given").then_some(())
    });
    before.same_as(&host.snapshot());
    host.relaykey(&["status"]).expect(0).says(&["cannot be tried", "holds another version than this host uses"]);
    let credential = daemon.credential("ses");
    assert_eq!(
        (&credential["pending"]["for_approval"], &credential["pending"]["if_applied_dies"]),
        (&true.into(), &false.into())
    );
    assert!(logins(&host, &first) <= tried + 1, "only Postfix tried");
    host.relaykey(&["check", "--offline"]).says(&["if_applied_dies = \"apply\"", "a file gives one version only"]);
    host.relaykey(&["approve", "ses"]).expect(0).says(&["ses: confirmed", &second.id]);
    daemon.ends(SOON);
}

// ---------------------------------------------------------------- changed by hand

/// How a person changes the table.
#[derive(Debug, Clone, Copy)]
enum Edit {
    /// An editor that writes another file and renames it over.
    Replaced,
    /// One that writes into the file.
    InPlace,
}

impl Edit {
    fn write(self, host: &Host, text: &str) {
        let table = host.postfix.table();
        match self {
            Edit::Replaced => {
                let other = table.with_extension("edited");
                fs::write(&other, text).expect("written");
                fs::rename(&other, &table).expect("renamed");
            }
            Edit::InPlace => {
                let mut file = fs::File::options().write(true).truncate(true).open(&table).expect("opened");
                file.write_all(text.as_bytes()).expect("written");
            }
        }
    }
}

#[test]
fn a_host_that_is_changed_by_hand_is_confirmed_by_itself() {
    for (map_type, edit) in
        [("hash", Edit::Replaced), ("hash", Edit::InPlace), ("lmdb", Edit::Replaced), ("lmdb", Edit::InPlace)]
    {
        let first = Key::new();
        let host = Host::new(map_type, &first);
        host.start_postfix();
        let daemon = start_daemon(&host, &first, "", "write = false\n");
        let before = host.snapshot();
        let second = publish(&host);
        daemon.shows("what a person is to do", SOON, |status| {
            let pending = &status["credentials"][0]["pending"];
            (pending["changes"][0]["by_hand"] == true && status["credentials"][0]["state"] == "by-hand").then_some(())
        });
        let (code, ready) = daemon.get("/readyz/ses");
        assert!(code == 503 && ready.contains("ses: by-hand: "), "{ready}");
        host.relaykey(&["status"]).expect(0).says(&["by hand", "postmap", &second.id]);
        before.same_as(&host.snapshot());

        // The text alone changes nothing for the mail server, and is explained.
        edit.write(&host, &format!("# by hand\n{} {}\n", host.hop(), second.pair()));
        daemon.shows("that the map was not rebuilt", SOON, |status| {
            let text = status["credentials"][0]["pending"]["changes"][0]["differences"].to_string();
            text.contains("postmap").then_some(())
        });
        host.postfix.postmap();
        let done = Instant::now();
        daemon.applied(&second);
        let took = done.elapsed();
        println!("{map_type} {edit:?}: confirmed {:.2} s after postmap", took.as_secs_f64());
        let report = daemon.credential("ses")["report"].clone();
        assert_eq!((&report["outcome"], &report["username"]), (&"confirmed".into(), &second.id.as_str().into()));
        passes_under(&host, &second);
        assert!(holds(&host.postfix, &second));
        assert_eq!(daemon.get("/readyz/ses").0, 200);
        daemon.ends(SOON);
    }
}

#[test]
fn a_wrong_edit_is_explained() {
    let first = Key::new();
    let host = host_with("hash", &first, "", "write = false\n");
    host.sync(&[], 0).says(&["ses: adopted"]);
    let second = publish(&host);
    let ran = host.sync(&[], 3);
    ran.says(&["ses: by-hand", "write = false", &second.id]);
    let hop = host.hop();
    let third = Key::new();
    let table = |key: &str, pair: &str| format!("# by hand\n{key} {pair}\n");
    for (text, map, says) in [
        (table(&hop, &second.pair()), false, &["not rebuilt", "postmap"][..]),
        (table(&hop, &third.pair()), true, &[&*third.id]),
        (table(&hop, &format!("{}:{}", second.id, third.password())), true, &["another password"]),
        (
            format!("{hop} {}\n{} {}\n", first.pair(), hop.replace(['[', ']'], ""), second.pair()),
            true,
            &["looks", &*hop],
        ),
    ] {
        Edit::Replaced.write(&host, &text);
        if map {
            host.postfix.postmap();
        }
        let before = host.snapshot();
        host.sync(&[], 3).says(says);
        host.relaykey(&["confirm", "ses"]).expect(3).says(says);
        before.same_as(&host.snapshot());
    }
    Edit::Replaced.write(&host, &table(&hop, &second.pair()));
    host.postfix.postmap();
    let before = host.snapshot();
    host.relaykey(&["confirm", "ses"]).expect(0).says(&["ses: confirmed", &second.id]);
    before.same_as(&host.snapshot());
    assert_eq!(host.send(), second.id);
}

#[test]
fn confirm_reads_back_and_never_writes() {
    let first = Key::new();
    let host = host_with("hash", &first, "", "");
    host.sync(&[], 0);
    let adopted = host.state("ses")["report"].clone();
    let before = host.snapshot();
    // Asked again, it says it again, with a later number.
    host.relaykey(&["confirm", "ses"]).expect(0).says(&["ses: confirmed", &first.id]);
    let confirmed = host.state("ses")["report"].clone();
    assert_eq!(confirmed["outcome"], "confirmed");
    assert!(confirmed["seq"].as_u64() > adopted["seq"].as_u64());
    before.same_as(&host.snapshot());
    // Even where it could write, it does not.
    let second = publish(&host);
    let ran = host.relaykey(&["confirm", "ses"]);
    ran.expect(3).says(&["only confirms", &second.id]);
    before.same_as(&host.snapshot());
    assert_eq!(host.state("ses")["report"]["seq"], confirmed["seq"]);
    host.sync(&[], 0).says(&["ses: confirmed", &second.id]);
}

#[test]
fn a_confirmation_that_somebody_undoes_is_withdrawn_and_made_anew() {
    let first = Key::new();
    let host = host_with("hash", &first, "", "write = false\n");
    host.sync(&[], 0);
    let report = host.state("ses")["report"].clone();
    let other = Key::new();
    let good = fs::read_to_string(host.postfix.table()).expect("a table");
    // The same user name, so that the entry is still ours.
    Edit::InPlace.write(&host, &format!("{} {}:{}\n", host.hop(), first.id, other.password()));
    host.postfix.postmap();
    // Nothing has failed: a person has to act.
    let ran = host.sync(&[], 3);
    ran.says(&[
        "ses: by-hand",
        "no longer holds the login that this host had confirmed",
        "write = false",
        &format!("put the login of {} back by hand", first.id),
    ]);
    ran.says_not("relaykey put");
    let state = host.state("ses");
    assert_eq!((&state["told"]["outcome"], &state["told"]["username"]), (&"withdrawn".into(), &report["username"]));
    assert!(state["withdrawn"].is_string());
    let seq = state["told"]["seq"].clone();
    host.sync(&["--dry-run"], 3);
    host.relaykey(&["confirm", "ses"]).expect(3);
    assert_eq!(host.relaykey(&["sync", "--json"]).expect(3).json()["credentials"][0]["outcome"], "by-hand");
    assert_eq!(host.state("ses")["told"]["seq"], seq, "said once");
    host.relaykey(&["history"]).expect(0).says(&["drift"]);
    let said = host.relaykey(&["status"]);
    said.expect(0).says(&["ses: drift", "withdrawn", "this host had confirmed"]).says_not("relaykey had put");

    Edit::InPlace.write(&host, &good);
    host.postfix.postmap();
    host.sync(&[], 0).says(&["ses: confirmed"]);
    let state = host.state("ses");
    assert_eq!((&state["report"]["outcome"], &state["withdrawn"]), (&"confirmed".into(), &Value::Null));
    assert!(state["report"]["seq"].as_u64() > seq.as_u64());
    host.sync(&[], 0).says(&["ses: up-to-date"]);
}

/// Half-way through the change that was asked for it is that change, and nobody's interference.
#[test]
fn a_change_by_hand_that_is_under_way_is_no_drift() {
    let first = Key::new();
    let host = host_with("hash", &first, "", "write = false\n");
    host.sync(&[], 0);
    let second = publish(&host);
    host.sync(&[], 3);
    // The right user name, and not yet the right password; the one of a third key; no entry at all.
    let third = Key::new();
    for text in [
        format!("{} {}:{}\n", host.hop(), first.id, third.password()),
        format!("{} {}\n", host.hop(), third.pair()),
        "# nothing yet\n".to_owned(),
    ] {
        Edit::InPlace.write(&host, &text);
        host.postfix.postmap();
        host.sync(&[], 3).says(&["ses: by-hand", &second.id]);
        let said = host.relaykey(&["status"]);
        said.expect(0).says(&[
            "ses: by-hand (new key waits for a change by hand)",
            "this host had confirmed",
            "withdrawn",
        ]);
        said.says_not("drift").says_not("somebody else").says_not("relaykey had put");
        let status = host.relaykey(&["status", "--json"]).expect(0).json();
        let classes = status["credentials"][0]["not_ready"].as_array().expect("a list").iter();
        assert!(classes.clone().all(|n| n["class"] != "drift"), "{status:#}");
    }
    Edit::InPlace.write(&host, &format!("{} {}\n", host.hop(), second.pair()));
    host.postfix.postmap();
    host.sync(&[], 0).says(&["ses: confirmed", &second.id]);
}

/// A person does exactly what was asked for, and the next version was published before relaykey looked again.
#[test]
fn a_change_by_hand_that_another_version_overtook_is_known() {
    let first = Key::new();
    let host = host_with("hash", &first, "", "write = false\n");
    host.sync(&[], 0);
    let second = publish(&host);
    host.sync(&[], 3);
    let by_hand = |key: &Key| {
        Edit::Replaced.write(&host, &format!("{} {}\n", host.hop(), key.pair()));
        host.postfix.postmap();
    };
    by_hand(&second);
    let third = publish(&host);
    let ran = host.sync(&[], 3);
    ran.says(&["ses: by-hand", &third.id]).says_not("somebody else").says_not("no longer holds");
    let said = host.relaykey(&["status"]);
    said.expect(0).says(&[&second.id, "put there by hand, as relaykey had asked"]);
    said.says_not("somebody else").says_not("another login").says_not("drift");
    let state = host.state("ses");
    assert!(state["withdrawn"].is_string(), "{state:#}");
    host.relaykey(&["history"])
        .expect(0)
        .says(&["superseded", "was put in place by hand, as asked, and never confirmed"]);
    by_hand(&third);
    host.sync(&[], 0).says(&["ses: confirmed", &third.id]);
    assert_eq!(host.state("ses")["report"]["previous_username"], second.id.as_str());
}

/// What is in use was never confirmed, and the next version waits for a person: nothing goes on by itself, and `check` knows.
#[test]
fn check_knows_of_a_version_in_use_that_only_an_approval_takes_away() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let (script, etc) = (host.path("reload"), &host.postfix.config_dir);
    fs::write(&script, format!("#!/bin/sh\nsleep 1\nexec /usr/sbin/postfix -c {etc:?} reload\n")).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    let daemon = start_daemon(&host, &first, MANUAL, &format!("reload = [{script:?}]\n"));
    // The adoption has a reload of its own.
    daemon.applied(&first);
    let second = publish(&host);
    daemon.shows("what waits", SOON, |s| (s["credentials"][0]["state"] == "pending-approval").then_some(()));
    let approving = host.start(&["approve", "ses"]);
    daemon.shows("the reload", SOON, |s| (s["credentials"][0]["live"]["step"] == "activate").then_some(()));
    daemon.program.signal(Signal::KILL);
    daemon.program.wait(SOON);
    approving.wait(SOON);
    // Only what waits is no trouble: that is how a new version begins.
    let third = publish(&host);
    let ended = host.sync(&[], 3);
    ended.says(&[&third.id]);
    let ran = host.relaykey(&["check"]);
    ran.expect(3).says(&[
        &second.id,
        "never confirmed",
        &third.id,
        "waits for approval",
        "relaykey approve ses --version",
    ]);
    assert_eq!(host.send(), second.id);
    host.relaykey(&["approve", "ses"]).expect(0).says(&["ses: confirmed", &third.id]);
    host.relaykey(&["check"]).expect(0);
    // While what is in use is confirmed, a version that waits is only named; `check` ends as `sync` does.
    let fourth = publish(&host);
    host.sync(&[], 3);
    host.relaykey(&["check"]).expect(3).says(&[&fourth.id, "waits for approval", "0 errors"]);
}

// ---------------------------------------------------------------- the probe

#[test]
fn a_key_that_may_not_send_is_found_out_before_anything_changes() {
    let first = Key::new();
    let probe = "probe = { from = \"postmaster@example.com\", to = \"success@simulator.amazonses.com\" }\n";
    let host = host_with("hash", &first, probe, "");
    host.sync(&[], 0).says(&["ses: adopted"]);
    let second = publish(&host);
    host.standin.deny_sending(&second.id);
    let before = host.snapshot();
    let ran = host.sync(&["--wait", "1s"], 1);
    ran.says(&["554", "ses:SendRawEmail"]);
    before.same_as(&host.snapshot());
    assert_eq!((applied(&host), host.send()), (first.id.clone(), first.id.clone()));
    let state = host.state("ses");
    assert_eq!((&state["told"]["outcome"], &state["told"]["error"]["class"]), (&"failed".into(), &"policy".into()));
    // A look that changes nothing sends nothing either.
    let sent = || host.standin.messages().iter().filter(|m| m.from == "postmaster@example.com").count();
    // One went out with the adoption: that the login in use may send is proved as well.
    assert_eq!(sent(), 1);
    host.sync(&["--dry-run"], 0);
    // Nor does `check`, which knows what the one before came to.
    host.relaykey(&["check"]).expect(1).says(&["error ", "554", "ses:SendRawEmail"]);
    assert_eq!(sent(), 1);

    host.standin.set_key(&second.id, &second.login.password);
    host.sync(&[], 0).says(&["ses: confirmed", &second.id]);
    let seen = host.standin.messages();
    let probes: Vec<_> = seen.iter().filter(|m| m.from == "postmaster@example.com").collect();
    assert_eq!(probes.len(), 2);
    assert_eq!((&probes[1].username, &probes[1].to), (&second.id, &vec!["success@simulator.amazonses.com".to_owned()]));
    wait_for("the message under the new key", DELIVERY, || (host.send() == second.id).then_some(()));
}
