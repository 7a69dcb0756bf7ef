//! `relaykey run`, the real program, with a real Postfix and the SES stand-in: what wakes it, what it shows, how it ends.

#[path = "lab/relaykey.rs"]
mod lab;
#[path = "lab/moto.rs"]
mod moto;
#[path = "lab/postfix.rs"]
mod postfix;

use std::time::{Duration, Instant};

use lab::{Host, Key, Program, Setup};
use postfix::wait_for;

/// The longest that the daemon may take to do what it was woken for.
const SOON: Duration = Duration::from_secs(20);

impl Host {
    /// Starts the daemon and waits until its first look is done.
    fn daemon(&self) -> Program {
        let program = self.start(&["run"]);
        wait_for("the first look of the daemon", SOON, || {
            self.path("state").join("credentials/ses.json").exists().then(|| self.state("ses"))?["applied"]
                .is_object()
                .then_some(())
        });
        program
    }

    /// Waits until this key is the applied one.
    fn applied(&self, key: &Key) -> Duration {
        let began = Instant::now();
        wait_for("the new key to be applied", SOON, || {
            (self.state("ses")["applied"]["username"] == key.id.as_str()).then_some(())
        });
        began.elapsed()
    }
}

#[test]
fn sighup_looks_at_once() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    host.configure(&Setup { source: &host.publish(old.pair()), ..Setup::default() });
    let daemon = host.daemon();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.signal(rustix::process::Signal::HUP);
    host.applied(&new);
    assert_eq!(host.send(), new.id);
    daemon.terminate();
    let ran = daemon.wait(SOON);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn a_state_that_cannot_be_written_is_said_and_what_was_applied_is_not_forgotten() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    host.configure(&Setup { source: &host.publish(key.pair()), ..Setup::default() });
    let daemon = host.daemon();
    let status = || -> serde_json::Value {
        let ran = host.relaykey(&["status", "--json"]);
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}{}", ran.out, ran.err))
    };
    let ses = |status: serde_json::Value| status["credentials"][0].clone();
    wait_for("the daemon to be content", SOON, || (ses(status())["state"] == "up-to-date").then_some(()));
    let (there, away) = (host.path("state/credentials"), host.path("state/credentials.away"));
    std::fs::rename(&there, &away).expect("moved");
    std::fs::write(&there, "no directory").expect("written");
    daemon.signal(rustix::process::Signal::HUP);
    let failing = wait_for("the state to be missed", SOON, || {
        let ses = ses(status());
        (ses["state"] == "failing").then_some(ses)
    });
    assert_eq!(failing["applied"]["username"], key.id.as_str(), "{failing:#}");
    assert_eq!(failing["failures"][0]["class"], "state", "{failing:#}");
    std::fs::remove_file(&there).expect("removed");
    std::fs::rename(&away, &there).expect("moved");
    daemon.signal(rustix::process::Signal::HUP);
    wait_for("the daemon to be content again", SOON, || (ses(status())["state"] == "up-to-date").then_some(()));
    daemon.terminate();
    assert_eq!(daemon.wait(SOON).code, 0);
}

#[test]
fn a_mended_configuration_is_tried_at_once() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let source = host.publish(key.pair());
    let wrong = format!("ca_file = {:?}\n", host.path("absent.pem"));
    host.configure(&Setup { source: &source, smtp: &wrong, ..Setup::default() });
    let daemon = host.start(&["run"]);
    // Not for the moment: it would be tried again in a minute and a half at the earliest.
    wait_for("the look to fail", SOON, || {
        let there = host.path("state").join("credentials/ses.json").exists();
        (there && host.state("ses")["targets"]["main"]["retry"]["failure"].is_object()).then_some(())
    });
    let failure = host.state("ses")["targets"]["main"]["retry"]["failure"].clone();
    assert_eq!(failure["temporary"], false, "{failure:#}");
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.applied(&key);
    daemon.terminate();
    assert_eq!(daemon.wait(SOON).code, 0);
}

#[test]
fn drift_that_is_healed_is_counted_as_that() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    host.configure(&Setup { source: &host.publish(key.pair()), ..Setup::default() });
    let daemon = host.daemon();
    let counted = || -> serde_json::Value {
        let ran = host.relaykey(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        status["credentials"][0]["live"]["counters"]["rollovers"].clone()
    };
    wait_for("the adoption", SOON, || (counted()["adopted"] == 1).then_some(()));
    let table = host.postfix.config_dir.join("sasl_passwd");
    let text = std::fs::read_to_string(&table).expect("a table");
    std::fs::write(&table, text.replace(key.password(), "something-else")).expect("written");
    daemon.signal(rustix::process::Signal::HUP);
    let counts = wait_for("the heal", SOON, || Some(counted()).filter(|counts| counts["healed"].is_u64()));
    assert_eq!(counts, serde_json::json!({"adopted": 1, "healed": 1}));
    daemon.terminate();
    assert_eq!(daemon.wait(SOON).code, 0);
}

#[test]
fn between_two_attempts_the_tables_are_not_locked() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    host.configure(&Setup { source: &host.publish(old.pair()), target: "reload = \"never\"", ..Setup::default() });
    let daemon = host.daemon();
    host.postfix.stop();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    wait_for("the mail server to be missed", SOON, || {
        (host.state("ses")["targets"]["main"]["retry"]["failure"]["class"] == "reload-owed").then_some(())
    });
    let directory = std::fs::File::open(&host.postfix.config_dir).expect("a directory");
    let free = || rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok();
    wait_for("the lock of the table's directory", SOON, free);
    drop(directory);
    // The next attempt finds what was swapped in, and goes on from there.
    host.postfix.start();
    daemon.signal(rustix::process::Signal::HUP);
    host.applied(&new);
    daemon.terminate();
    assert_eq!(daemon.wait(SOON).code, 0);
}
