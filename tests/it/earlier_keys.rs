//! Which access key ids are ours on a host without state, as the source names them; and an earlier key that root names with
//! `relaykey sync --previous`.

use crate::lab::daemon::{NEVER, SOON, health};
use crate::lab::moto;
use crate::lab::postfix::free_port;
use crate::lab::relaykey as lab;

use std::fs;
use std::path::Path;

use lab::{Host, Key, Ran, Setup, fresh, next_second};
use serde_json::{Value, json};

/// A host without state, whose table was rotated by hand and only in part: a line for a sender has the key before. The source
/// held that one first.
struct HalfRotated {
    host: Host,
    previous: Key,
    current: Key,
}

impl HalfRotated {
    /// `source`: lines of the configuration; `hold`: puts a key into the source.
    fn new(source: impl FnOnce(&Host) -> String, hold: impl Fn(&Key)) -> Self {
        let (previous, current) = (Key::new(), Key::new());
        let text = |hop: &str| Some(format!("{hop} {}\n@b.example {}\n", current.pair(), previous.pair()));
        let host = Host::with("hash", text);
        for key in [&previous, &current] {
            host.standin.set_key(&key.id, &key.login.password);
            hold(key);
            next_second();
        }
        let source = source(&host);
        host.configure(&Setup { source: &source, ..Setup::default() });
        host.start_postfix();
        Self { host, previous, current }
    }

    fn in_secrets_manager() -> Self {
        let name = fresh("earlier");
        moto::shared().secret(&name, "USER:PASSWORD");
        let hold = |key: &Key| drop(moto::shared().put(&name, &key.json(), &["AWSCURRENT"]));
        Self::new(|host| host.secret(&name), hold)
    }

    fn in_parameter_store() -> Self {
        let name = fresh("/earlier");
        Self::new(
            |host| host.parameter(&name),
            |key| {
                moto::shared().parameter(&name, &key.pair());
            },
        )
    }

    /// The actions that AWS was asked with this key, without the receiver's.
    fn asked(&self, aws_key: &str) -> Vec<String> {
        let calls = moto::shared().calls(aws_key);
        calls.iter().map(|call| call["action"].as_str().expect("an action").to_owned()).collect()
    }
}

/// No file below this directory has the text in it.
fn has_nowhere(dir: &Path, text: &str) {
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            has_nowhere(&path, text);
        } else if path.is_file() {
            let content = String::from_utf8_lossy(&fs::read(&path).expect("readable")).into_owned();
            assert!(!content.contains(text), "{} has a secret", path.display());
        }
    }
}

#[test]
fn a_host_without_state_moves_an_entry_with_the_key_that_the_source_held_before() {
    for half in [HalfRotated::in_secrets_manager(), HalfRotated::in_parameter_store()] {
        let HalfRotated { host, previous, current } = &half;
        host.relaykey(&["check"]).expect(0).says_not(&previous.id);
        host.sync(&[], 0).says(&["ses: confirmed", &current.id]);
        let table = table_of(host);
        assert!(table.contains(&format!("@b.example {}", current.pair())) && !table.contains(&previous.id), "{table}");
        // Of the version before nothing but its id stays.
        has_nowhere(host.dir.path(), previous.password());
        // With a state nobody is asked for it any more: a look costs what it costs.
        let before = half.asked(&host.aws_key).len();
        host.sync(&[], 0).says(&["ses: up-to-date"]);
        assert_eq!(half.asked(&host.aws_key).len() - before, 1);
    }
}

/// The key before has one password in the endpoint's region: a line with another one is another region's, and is not written over.
#[test]
fn an_entry_with_another_regions_password_of_the_key_before_is_named_and_left() {
    for half in [HalfRotated::in_secrets_manager(), HalfRotated::in_parameter_store()] {
        let HalfRotated { host, previous, current } = &half;
        let elsewhere = format!("{}:{}", previous.id, Key::new().password());
        let text = format!("{} {}\n@b.example {elsewhere}\n", host.hop(), current.pair());
        host.postfix.write_table(&text);
        host.postfix.postmap();
        let words = "\"@b.example\": it holds the same access key id";
        host.relaykey(&["check"]).expect(1).says(&[words]);
        // What was found there at the first look is no better known at the second.
        for _ in 0..2 {
            host.sync(&[], 1).says(&[words]);
            assert_eq!(table_of(host), text);
        }
        has_nowhere(&host.dir.path().join("state"), previous.password());
    }
}

/// The version before has no password that SES takes: its id is known, and what its password does not tell is said.
#[test]
fn an_earlier_version_without_a_password_of_ses_is_a_note() {
    let name = fresh("earlier");
    moto::shared().secret(&name, "USER:PASSWORD");
    let is_first = std::cell::Cell::new(true);
    let hold = |key: &Key| {
        let value = match is_first.replace(false) {
            true => json!({"username": key.id, "password": "not-derived-from-any-key"}).to_string(),
            false => key.json(),
        };
        drop(moto::shared().put(&name, &value, &["AWSCURRENT"]));
    };
    let half = HalfRotated::new(|host| host.secret(&name), hold);
    let HalfRotated { host, previous, current } = &half;
    let says = format!("the earlier key {} has no password for", previous.id);
    host.relaykey(&["check"]).expect(0).says(&[&says]).says_not("not-derived-from-any-key");
    host.sync(&[], 0).says(&["ses: confirmed", &current.id]);
    assert!(!table_of(host).contains(&previous.id));
}

/// The key before cannot be read: what is not known is left and nothing fails of it.
#[test]
fn an_earlier_version_that_cannot_be_read_is_a_note() {
    let error = |code: &str, message: &str| json!({"kind": "error", "status": 400, "code": code, "message": message});
    let denied = || error("AccessDeniedException", "not authorized");
    let throttled = || error("ThrottlingException", "slower");
    let hang = || json!({"kind": "hang", "seconds": 60});
    let (secret, parameter) = (("GetSecretValue", "AWSPREVIOUS"), ("GetParameter", ":1\""));
    type Case<'a> = (fn() -> HalfRotated, (&'a str, &'a str), Value, &'a str);
    let cases: [Case<'_>; 5] = [
        (HalfRotated::in_secrets_manager, secret, denied(), "allow secretsmanager:GetSecretValue"),
        (HalfRotated::in_parameter_store, parameter, denied(), "allow ssm:GetParameter"),
        (HalfRotated::in_secrets_manager, secret, throttled(), "slower"),
        (HalfRotated::in_parameter_store, parameter, throttled(), "slower"),
        (HalfRotated::in_secrets_manager, secret, hang(), "no answer in time"),
    ];
    for (make, (action, only), mut fault, words) in cases {
        let half = make();
        let HalfRotated { host, previous, current } = &half;
        (fault["only"], fault["count"]) = (only.into(), 0.into());
        let key = Key::new().id;
        moto::shared().fault(&key, action, fault);
        let run = |arguments: &[&str]| -> Ran { host.start_as(&key, arguments).wait(lab::RUN) };
        let check = run(&["check"]);
        check.expect(0).says(&["note     ses: source: the access key id of", words]);
        run(&["sync"]).expect(0).says(&["ses: adopted", &current.id]).says_not(words);
        assert!(table_of(host).contains(&format!("@b.example {}", previous.pair())));
    }
}

fn table_of(host: &Host) -> String {
    fs::read_to_string(host.postfix.table()).expect("readable")
}

/// A host that has confirmed a key, and in whose table somebody has put one that it does not know, as with a backup.
fn with_a_stranger(port: u16) -> (Host, Key, Key) {
    let (key, stranger) = (Key::new(), Key::new());
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &(source + NEVER), more: &health(port), ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    host.standin.set_key(&stranger.id, &stranger.login.password);
    host.postfix.write_table(&format!("{} {}\n", host.hop(), stranger.pair()));
    host.postfix.postmap();
    (host, key, stranger)
}

/// The command that a refusal prints for an earlier key, as it is pasted.
fn printed(ran: &Ran, id: &str) -> Vec<String> {
    let said = format!("{}{}", ran.out, ran.err);
    let commands = said.split('`').filter(|part| part.starts_with("relaykey ") && part.contains("--previous"));
    let all: Vec<&str> = commands.collect();
    let command = all.first().unwrap_or_else(|| panic!("no command:\n{said}"));
    assert!(command.contains(&format!(" --previous {id}")), "{said}");
    command.split(' ').skip(1).map(str::to_owned).collect()
}

/// The last records of the audit log, the latest first: what, user name, who.
fn records(host: &Host) -> Vec<(String, Option<String>, Option<u64>, Option<String>)> {
    let document = host.relaykey(&["history", "--json"]).json();
    let records = document["credentials"][0]["records"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let told = records.iter().map(|r| {
        (text(&r["what"]).unwrap_or_default(), text(&r["username"]), r["by"]["uid"].as_u64(), text(&r["by"]["claimed"]))
    });
    told.collect()
}

#[test]
fn root_takes_an_earlier_key_with_the_command_that_the_refusal_prints() {
    for through_the_daemon in [false, true] {
        let port = free_port();
        let (host, key, stranger) = with_a_stranger(port);
        let daemon = through_the_daemon.then(|| host.run_configured(port));
        let refused = host.sync(&["--wait", "0s"], 1);
        refused.says(&["holds the login of", &stranger.id, &format!("if {} is an earlier key", stranger.id)]);
        let table = table_of(&host);
        assert!(table.contains(&stranger.id), "nothing is written before somebody says whose it is");
        let command = printed(&refused, &stranger.id);
        if !through_the_daemon {
            assert_eq!(printed(&host.relaykey(&["check"]), &stranger.id), command);
        }

        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        host.relaykey(&command).expect(0).says(&["ses: confirmed", &key.id]);
        assert_eq!(table_of(&host), format!("{} {}\n", host.hop(), key.pair()));
        assert_eq!(host.send(), key.id);
        let named = records(&host).into_iter().find(|(what, ..)| what == "earlier-key");
        assert_eq!(named, Some(("earlier-key".into(), Some(stranger.id.clone()), Some(0), None)));
        // It is remembered: put back once more, it is replaced without a word from anybody.
        host.postfix.write_table(&table);
        host.postfix.postmap();
        let again = host.sync(&[], 0);
        if let Some(daemon) = daemon {
            // Which watches the table, and may have been quicker.
            daemon.ends(SOON);
        } else {
            again.says(&["ses: confirmed"]);
        }
        assert_eq!(host.send(), key.id);
    }
}

#[test]
fn an_earlier_key_is_one_id_of_one_credential() {
    let (host, _, stranger) = with_a_stranger(free_port());
    let (before, password) = (host.snapshot(), Key::new());
    let id = stranger.id.as_str();
    for (arguments, words) in [
        (&["sync", "--previous", id][..], "name it: relaykey"),
        (&["sync", "ses", "other", "--previous", id], "name it: relaykey"),
        (&["sync", "ses", "--previous", password.password()], "has not the form of an access key id"),
        (&["sync", "ses", "--previous", ""], "has not the form of an access key id"),
        (&["sync", "ses", "--previous", "joe"], "has not the form of an access key id"),
        (&["sync", "ses", "--previous", "AKIA"], "has not the form of an access key id"),
        (&["sync", "ses", "--previous", id, "--dry-run"], "--dry-run"),
    ] {
        host.relaykey(arguments).expect(2).says(&[words]);
    }
    before.same_as(&host.snapshot());
    assert!(records(&host).iter().all(|(what, ..)| what != "earlier-key"));
    host.sync(&["--wait", "0s"], 1);
}

/// That there is no version before the first is no trouble.
#[test]
fn the_first_version_has_none_before_it() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let name = fresh("first");
    moto::shared().secret(&name, &key.json());
    host.configure(&Setup { source: &host.secret(&name), ..Setup::default() });
    host.start_postfix();
    let check = host.relaykey(&["check"]);
    check.expect(0).says(&["the version labelled AWSPREVIOUS is not there, so that no key before is known by it\n"]);
    check.says_not("cannot be read");
}
