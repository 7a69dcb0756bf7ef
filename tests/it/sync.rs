//! `relaykey sync`, the real program, against real Postfix, a real AWS API server and the SES stand-in.

mod regions;
mod searches;
mod taken;

use crate::lab::acl;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::Files as _;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use lab::{DELIVERY, Host, Key, Setup, Snapshot, fresh, keep_secret, let_a_start_be_later, next_second};
use postfix::Instance;
use serde_json::{Value, json};
use sha2::Sha256;

// ---------------------------------------------------------------- a rollover, from each source, with each kind of map

/// A host that uses the first key already and has adopted it; then the second one is published, and comes into use;
/// then the first one is deactivated, and mail still passes.
fn roll_over(map_type: &str, source: impl FnOnce(&Host, &Key) -> String, publish: impl FnOnce(&Host, &Key)) {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new(map_type, &old);
    let source = source(&host, &old);
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    assert_eq!(host.send(), old.id);
    host.sync(&[], 0).says(&["ses: adopted", &old.id]);

    host.standin.set_key(&new.id, &new.login.password);
    publish(&host, &new);
    let ran = host.sync(&[], 0);
    ran.says(&["ses: confirmed", &new.id, "235 Authentication successful."]);
    for _ in 0..3 {
        assert_eq!(host.send(), new.id, "a message after the rollover");
    }
    host.standin.deactivate(&old.id);
    assert_eq!(host.send(), new.id, "a message after the end of the old key");
    // Deferred mail would stay for minutes; what was sent is taken out a moment after the stand-in has it.
    host.postfix.queue_empty(Duration::from_secs(20));
    let refused = host.standin.logins().iter().filter(|login| !login.accepted).count();
    assert_eq!(refused, 0, "refused logins");
    host.sync(&[], 0).says(&["ses: up-to-date"]);
}

fn with_secrets_manager(map_type: &str) {
    let name = fresh("smtp");
    let source = |host: &Host, old: &Key| {
        moto::shared().secret(&name, &old.json());
        next_second();
        host.secret(&name)
    };
    roll_over(map_type, source, |_, new| {
        moto::shared().put(&name, &new.json(), &["AWSCURRENT"]);
    });
}

#[test]
fn hash_follows_secrets_manager() {
    with_secrets_manager("hash");
}

#[test]
fn btree_follows_secrets_manager() {
    with_secrets_manager("btree");
}

#[test]
fn lmdb_follows_secrets_manager() {
    with_secrets_manager("lmdb");
}

#[test]
fn cdb_follows_secrets_manager() {
    with_secrets_manager("cdb");
}

#[test]
fn texthash_follows_secrets_manager() {
    with_secrets_manager("texthash");
}

#[test]
fn parameter_store_is_followed() {
    let name = fresh("/ses/smtp");
    let source = |host: &Host, old: &Key| {
        moto::shared().parameter(&name, &old.pair());
        host.parameter(&name)
    };
    roll_over("lmdb", source, |_, new| {
        moto::shared().parameter(&name, &new.pair());
    });
}

#[test]
fn a_file_is_followed() {
    roll_over("hash", |host, old| host.publish(old.pair() + "\n"), |host, new| drop(host.publish(new.json())));
}

/// The source holds IAM access keys; the stand-in knows only the passwords that are derived from them.
#[test]
fn a_password_is_derived_from_an_access_key() {
    let name = fresh("iam");
    let source = |host: &Host, old: &Key| {
        moto::shared().secret(&name, &old.iam_json());
        next_second();
        host.secret(&name)
    };
    roll_over("cdb", source, |_, new| {
        moto::shared().put(&name, &new.iam_json(), &["AWSCURRENT"]);
    });
}

// ---------------------------------------------------------------- what SES refuses, and what is no credential

/// A host that has adopted this key, from a file source. Its Postfix runs.
fn settled(map_type: &str, key: &Key, setup: &Setup<'_>) -> Host {
    let host = Host::new(map_type, key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..*setup });
    host.start_postfix();
    host.adopts(setup.target);
    host
}

#[test]
fn a_key_that_ses_refuses_changes_nothing() {
    for map_type in ["hash", "texthash"] {
        let (old, bad) = (Key::new(), Key::new());
        let setup = Setup { smtp: "propagation = \"2s\"\nretry = \"200ms\"\n", ..Setup::default() };
        let host = settled(map_type, &old, &setup);
        let before = host.snapshot();
        host.publish(bad.json());

        // SES may not know the key yet: not wrong for good.
        let ran = host.sync(&["--wait", "0s"], 75);
        ran.says(&[
            "535 Authentication Credentials Invalid",
            "SES may not know a new key for some minutes",
            "localhost",
        ]);
        ran.says_not("confirmed").says_not("waiting");
        before.same_as(&host.snapshot());
        let ran = host.relaykey(&["status"]);
        ran.expect(0).says(&["ses: pending", "first refused", &bad.id, &old.id, "535"]);

        // It stays so: wrong for good, after `propagation` has passed.
        let ran = host.sync(&["--wait", "20s"], 1);
        ran.says(&[
            "535 Authentication Credentials Invalid",
            "fix: nothing was changed by it; check that the access key is active",
            "this mail relay is in region us-east-1, which the configuration names",
        ]);
        assert!(ran.err.matches("refused: 535").count() > 1, "tried once:\n{}", ran.err);
        before.same_as(&host.snapshot());
        host.relaykey(&["status"]).expect(0).says(&["ses: refused", "535", "fix"]);
        // The first refusal is remembered, so another run need not wait for `propagation` again.
        host.sync(&["--wait", "0s"], 1).says(&["refused the credential: 535"]);
        before.same_as(&host.snapshot());
        assert_eq!(host.send(), old.id);

        // The key becomes known after all.
        host.standin.set_key(&bad.id, &bad.login.password);
        host.sync(&[], 0).says(&["ses: confirmed", &bad.id]);
        assert_eq!(host.send(), bad.id);
    }
}

/// 535, 535, 235: the usual course with a new key.
#[test]
fn a_key_that_ses_does_not_know_yet_is_waited_for() {
    let (old, new) = (Key::new(), Key::new());
    let setup = Setup { smtp: "propagation = \"1m\"\nretry = \"100ms\"\n", ..Setup::default() };
    let host = settled("lmdb", &old, &setup);
    host.standin.set_key(&new.id, &new.login.password);
    host.standin.delay(&new.id, relaykey::standin::Delay::Refusals(2));
    host.publish(new.pair());
    host.sync(&[], 0).says(&["refused: 535", "235 Authentication successful.", "ses: confirmed"]);
    assert_eq!(host.send(), new.id);
}

/// Neither a file below the Postfix directory nor the state of what is applied changes, whatever the file source holds.
#[test]
fn each_wrong_payload_in_a_file_is_named_for_what_it_is() {
    let key = Key::new();
    let host = settled("hash", &key, &Setup::default());
    let before = host.snapshot();
    let applied = host.state("ses")["applied"].clone();
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let version_2 = BASE64.encode([[2_u8].as_slice(), &[7; 32]].concat());
    let other_version = BASE64.encode([[9_u8].as_slice(), &[7; 32]].concat());
    for text in [secret, &version_2, &other_version, "hunter2hunter2"] {
        keep_secret(text);
    }
    let iam = |more: Value| {
        let mut all = json!({"accessKeyId": key.id, "secretAccessKey": secret});
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        all.to_string()
    };
    let table: Vec<(Vec<u8>, &[&str])> = vec![
        (format!("ASIAIOSFODNN7EXAMPLE:{}", key.password()).into(), &["temporary credentials", "ASIA"]),
        (iam(json!({"accessKeyId": "ASIAIOSFODNN7EXAMPLE"})).into(), &["temporary credentials", "ASIA"]),
        (iam(json!({"sessionToken": "hunter2hunter2"})).into(), &["temporary credentials", "session token"]),
        (secret.into(), &["an AWS secret access key (40 characters) alone", "accessKeyId and secretAccessKey"]),
        (
            format!("{}:{secret}", key.id).into(),
            &["an AWS secret access key (40 characters), not an SES SMTP password", "relaykey derive"],
        ),
        (format!("{}:{version_2}", key.id).into(), &["withdrawn Version 2", "relaykey derive"]),
        (format!("{}:{other_version}", key.id).into(), &["no SES SMTP password"]),
        (format!("{}:hunter2hunter2", key.id).into(), &["no SES SMTP password"]),
        (
            json!({"accessKeyId": key.id, "secretAccessKey": &secret[1..]}).to_string().into(),
            &["the secret access key that is stored is none: it has another length than 40 characters"],
        ),
        (format!("\"{}\"", key.pair()).into(), &["stands in quotation marks"]),
        (format!("[localhost]:587 {}", key.pair()).into(), &["a line of a Postfix table", "store USER:PASSWORD alone"]),
        (format!("{}\n{}\n", key.pair(), key.pair()).into(), &["has 2 lines", "store one login"]),
        (json!({"username": key.id}).to_string().into(), &["has no key \"password\""]),
        (json!({"password": "hunter2hunter2"}).to_string().into(), &["has no key \"username\""]),
        (json!({"user": key.id, "pass": "hunter2hunter2"}).to_string().into(), &["username_key and password_key"]),
        (iam(json!({"username": "a", "password": "hunter2hunter2"})).into(), &["different things"]),
        (format!("{{\"username\": {:?}, ", key.id).into(), &["not valid JSON", "line 1"]),
        ("hunter2hunter2".into(), &["none of the forms", "USER:PASSWORD"]),
        (Vec::new(), &["is empty"]),
        (" \n\n".into(), &["is empty"]),
        ([key.pair().as_bytes(), b"\xff\xfe"].concat(), &["not UTF-8", "as text, not as binary"]),
        ([b"\x7fELF\x02\x01\x01\0".as_slice(), &[0x90; 2000]].concat(), &["not UTF-8"]),
        (vec![b'x'; 10_000_000], &["larger than 65536 bytes", "not a credential"]),
        (format!("{}:hunter2\0hunter2", key.id).into(), &["not printable ASCII", "position 8"]),
        (format!("{}:two words", key.id).into(), &["not printable ASCII", "blanks"]),
        (format!("{}:", key.id).into(), &["the password is empty"]),
    ];
    for (content, words) in table {
        host.publish(&content);
        let ran = host.sync(&[], 1);
        ran.says(words).says(&["fix: "]).says_not("as a new version").says_not("the other keys");
        before.same_as(&host.snapshot());
        assert_eq!(host.state("ses")["applied"], applied, "{words:?}");
    }

    // What is not even a file.
    let path = host.path("credential");
    fs::remove_file(&path).expect("removed");
    host.sync(&[], 1).says(&["does not exist", "fix: create it"]);
    fs::create_dir(&path).expect("made");
    host.sync(&[], 1).says(&["a directory, not a regular file"]);
    fs::remove_dir(&path).expect("removed");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).expect("mkfifo");
    host.sync(&[], 1).says(&["a FIFO, not a regular file"]);
    before.same_as(&host.snapshot());
    host.relaykey(&["status"]).expect(0).says(&["ses: failing", "a FIFO"]);

    // And then the source is right again.
    let new = Key::new();
    host.standin.set_key(&new.id, &new.login.password);
    fs::remove_file(&path).expect("removed");
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
}

/// A fleet's secret is not to be changed because one host's configuration names a key that it does not have.
#[test]
fn a_mistyped_name_of_a_key_is_told_with_its_line_and_the_secret_is_not_blamed() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(json!({"username": key.id, "password": key.password()}).to_string());
    for (name, half) in [("username_key", "user name"), ("password_key", "password")] {
        let source = format!("{source}{name} = \"u\"\n");
        host.configure(&Setup { source: &source, ..Setup::default() });
        let text = fs::read_to_string(host.path("config.toml")).expect("the configuration");
        let line = text.lines().position(|line| line.starts_with(name)).expect("the key") + 1;
        let fix = format!(
            "fix: correct `{name}`, line {line} of the configuration: it is the name of the key under which the {half} stands"
        );
        for command in ["sync", "check"] {
            let ran = host.relaykey(&[command]);
            ran.expect(1).says(&[&format!("the JSON secret has no key \"u\", which {name} names"), &fix]);
            ran.says_not("as a new version").says_not("publish").says_not("write the file anew");
        }
    }
}

/// Of a file, whatever it holds counts: also what this host has left behind.
#[test]
fn what_a_file_held_before_is_taken_again() {
    let keys = [Key::new(), Key::new()];
    let host = settled("hash", &keys[0], &Setup::default());
    host.standin.set_key(&keys[1].id, &keys[1].login.password);
    for key in [&keys[1], &keys[0], &keys[1], &keys[0]] {
        host.publish(key.pair());
        let earlier = std::time::SystemTime::now() - Duration::from_secs(7200);
        fs::File::options().append(true).open(host.path("credential")).expect("it").set_modified(earlier).expect("set");
        host.sync(&[], 0).says(&["ses: confirmed", &key.id]);
    }
    let readme = include_str!("../../README.md");
    assert!(readme.contains("not taken again by itself; of a `file`, whatever it holds counts"));
}

/// The same through AWS's own answers.
#[test]
fn each_wrong_payload_in_aws_is_named_for_what_it_is() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let before = host.snapshot();
    let aws = moto::shared();
    let binary = |bytes: &[u8]| {
        let name = fresh("binary");
        let input = json!({"Name": name, "SecretBinary": BASE64.encode(bytes)});
        aws.call("secretsmanager.CreateSecret", input);
        host.secret(&name)
    };
    let text = |value: &str| {
        let name = fresh("text");
        aws.secret(&name, value);
        host.secret(&name)
    };
    let parameter = |value: &str, kind: &str| {
        let name = fresh("/wrong");
        let input = json!({"Name": name, "Value": value, "Type": kind});
        aws.call("AmazonSSM.PutParameter", input);
        host.parameter(&name)
    };
    let empty = fresh("empty");
    aws.call("secretsmanager.CreateSecret", json!({"Name": empty}));
    let gone = fresh("gone");
    aws.secret(&gone, &key.pair());
    aws.call("secretsmanager.DeleteSecret", json!({"SecretId": gone, "RecoveryWindowInDays": 7}));
    let absent = fresh("absent");
    let table: Vec<(String, &[&str])> = vec![
        (binary(b"\x01\xff\xfe"), &["not UTF-8"]),
        (text(&json!({"username": key.id}).to_string()), &["has no key \"password\""]),
        (text("{\"username\":"), &["not valid JSON"]),
        (text(&json!({"accessKeyId": "ASIAIOSFODNN7EXAMPLE", "secretAccessKey": key.secret}).to_string()), &["ASIA"]),
        (text(&format!("{}:{}", key.id, key.secret)), &["an AWS secret access key (40 characters)"]),
        (text("  "), &["is empty"]),
        (parameter(&key.pair(), "String"), &["of type String", "unencrypted", "SecureString"]),
        (parameter("nothing of use", "SecureString"), &["none of the forms"]),
        (host.secret(&empty), &["AWSCURRENT"]),
        (host.secret(&gone), &["scheduled for deletion", "restore"]),
        (host.secret(&absent), &["does not exist", "region"]),
    ];
    for (source, words) in table {
        host.configure(&Setup { source: &source, ..Setup::default() });
        host.sync(&[], 1).says(words).says(&["fix: "]);
        before.same_as(&host.snapshot());
    }
}

// ---------------------------------------------------------------- what is not ours stays

/// What real `postmap -q` finds under each of these keys.
fn look_up(postfix: &Instance, keys: &[String]) -> BTreeMap<String, String> {
    let mut child = Command::new("/usr/sbin/postmap")
        .arg("-c")
        .arg(&postfix.config_dir)
        .args(["-q", "-", &format!("{}:{}", postfix.map_type, postfix.table().display())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("postmap");
    let mut input = child.stdin.take().expect("piped");
    let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("postmap ends");
    writer.join().expect("no panic").expect("postmap reads");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter_map(|line| line.split_once('\t')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Two relays, tabs, a comment first, sender lines, 5,000 entries, no final newline.
fn large_table(hop: &str, key: &Key) -> (String, Vec<String>) {
    let mut text = "# logins of the relays, kept by hand\n\n".to_owned();
    let mut keys = Vec::new();
    let mut add = |text: &mut String, key: String, blank: &str, value: &str| {
        *text += &format!("{key}{blank}{value}\n");
        keys.push(key);
    };
    add(&mut text, "[smtp.other.example]:587".into(), "\t\t", "other:its own password");
    for n in 0..2_500 {
        add(&mut text, format!("sender{n}@customer.example"), "\t", &format!("customer{n}:pw{n}"));
        if n % 500 == 0 {
            text += &format!("   # block {n}\n\n");
        }
    }
    add(&mut text, hop.into(), " \t  ", &key.pair());
    for n in 2_500..5_000 {
        add(&mut text, format!("[relay{n}.example]:2525"), "    ", &format!("user{n}:a b c {n}  "));
    }
    text += "# [localhost] is the one that is rotated\nlast.example\n\tlast:continued";
    keys.push("last.example".into());
    (text, keys)
}

#[test]
fn of_five_thousand_entries_only_ours_differs_afterwards() {
    for map_type in ["hash", "texthash"] {
        let (old, new) = (Key::new(), Key::new());
        let mut keys = Vec::new();
        let mut text = String::new();
        let host = Host::with(map_type, |hop| {
            (text, keys) = large_table(hop, &old);
            Some(text.clone())
        });
        assert!(keys.len() > 5_000 && !text.ends_with('\n'));
        for key in [&old, &new] {
            host.standin.set_key(&key.id, &key.login.password);
        }
        let source = host.publish(old.pair());
        host.configure(&Setup { source: &source, ..Setup::default() });
        host.start_postfix();
        host.sync(&[], 0).says(&["ses: adopted"]);
        let mut expected = look_up(&host.postfix, &keys);
        assert_eq!(expected.len(), keys.len(), "{map_type}: every key is found");
        assert_eq!(fs::read_to_string(host.postfix.table()).expect("readable"), text);

        host.publish(new.pair());
        host.sync(&[], 0).says(&["ses: confirmed"]);
        let after = fs::read_to_string(host.postfix.table()).expect("readable");
        assert!(after == text.replace(&old.pair(), &new.pair()), "{map_type}: more than one entry differs");
        expected.insert(host.hop(), new.pair());
        assert_eq!(look_up(&host.postfix, &keys), expected, "{map_type}");
        assert_eq!(host.send(), new.id);
    }
}

/// Sender lines with our user name are ours too; those of others, whatever they look like, are not.
#[test]
fn sender_lines_that_hold_our_key_follow_and_others_stay() {
    let (old, new) = (Key::new(), Key::new());
    let table = |hop: &str, key: &Key| {
        format!(
            "news@example.com\t{0}\nother@example.com\t{1}X:pw\n{hop} {0}\n\n@example.org {0}\nlocalhost.example {1}\n",
            key.pair(),
            old.id
        )
    };
    let host = Host::with("lmdb", |hop| Some(table(hop, &old)));
    for key in [&old, &new] {
        host.standin.set_key(&key.id, &key.login.password);
    }
    let source = host.publish(old.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.postfix.set("smtp_sender_dependent_authentication", "yes");
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!(fs::read_to_string(host.postfix.table()).expect("readable"), table(&host.hop(), &new));
    host.standin.deactivate(&old.id);
    host.postfix.inject_from("news@example.com", 1);
    host.postfix.queue_empty(DELIVERY);
    let sent = host.standin.messages();
    assert_eq!(sent.iter().map(|m| m.username.as_str()).collect::<Vec<_>>(), [new.id.as_str()]);
}

/// The kernel's form of an access list (acl(5), `linux/posix_acl_xattr.h`): the owner, user 1234 (may read), the group, the
/// mask, the others.
fn access_list() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    acl::acl(&[(1, 6, NOBODY), (2, 4, 1234), (4, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)])
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(1024);
    rustix::fs::getxattr(path, name, rustix::buffer::spare_capacity(&mut value)).ok()?;
    Some(value)
}

/// Text and map keep owner, mode, access list and attributes, and the symbolic link to the text stays a link.
#[test]
fn what_the_files_are_like_is_kept() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    let (table, map) = (host.postfix.table(), host.postfix.map());
    let real = host.postfix.config_dir.join("secrets").join("relays");
    fs::create_dir(real.parent().expect("a parent")).expect("made");
    fs::rename(&table, &real).expect("moved");
    std::os::unix::fs::symlink("secrets/relays", &table).expect("linked");
    for (path, uid, gid, mode) in [(&real, 1001, 1002, 0o640), (&map, 0, 1003, 0o440)] {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("chown");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        for (name, value) in [("user.note", &b"kept"[..]), ("security.test", b"label")] {
            rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).expect(name);
        }
    }
    let acl = "system.posix_acl_access";
    rustix::fs::setxattr(&real, acl, &access_list(), rustix::fs::XattrFlags::empty()).expect(acl);
    let source = host.publish(old.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    assert_eq!(host.send(), old.id);
    host.sync(&[], 0).says(&["ses: adopted"]);

    let like = |path: &Path| {
        let m = fs::metadata(path).expect("there");
        let attributes = [acl, "user.note", "security.test"].map(|name| attribute(path, name));
        (m.uid(), m.gid(), m.mode(), m.nlink(), attributes)
    };
    let before = [like(&real), like(&map)];
    assert_eq!(before[0].4[0], Some(access_list()));
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!([like(&real), like(&map)], before);
    assert_eq!(fs::read_link(&table).expect("still a link"), Path::new("secrets/relays"));
    assert!(fs::read_to_string(&real).expect("readable").contains(&new.pair()));
    assert_eq!(host.send(), new.id);
    let names = |dir: &Path| {
        let all = fs::read_dir(dir)
            .expect("readable")
            .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"));
        all.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(real.parent().expect("a parent")), ["relays".to_owned()].into());
    let expected = ["main.cf", "master.cf", "sasl_passwd", "sasl_passwd.db", "secrets"].map(str::to_owned);
    assert_eq!(names(&host.postfix.config_dir), expected.into(), "nothing staged is left");
}

/// No table at all: it is made, with the one entry, readable by root alone.
#[test]
fn a_missing_table_is_made() {
    for map_type in ["hash", "texthash"] {
        let key = Key::new();
        let host = Host::with(map_type, |_| None);
        host.standin.set_key(&key.id, &key.login.password);
        let source = host.publish(key.pair());
        host.configure(&Setup { source: &source, ..Setup::default() });
        host.start_postfix();
        host.sync(&[], 0).says(&["ses: confirmed"]);
        let text = fs::read_to_string(host.postfix.table()).expect("made");
        assert_eq!(text, format!("{} {}\n", host.hop(), key.pair()));
        for path in [host.postfix.table(), host.postfix.map()] {
            let m = fs::metadata(&path).expect("made");
            assert_eq!((m.mode() & 0o7777, m.uid(), m.gid()), (0o600, 0, 0), "{}", path.display());
        }
        assert_eq!(host.send(), key.id);
    }
}

// ---------------------------------------------------------------- day one, and the report

/// How often this Postfix was reloaded: what `postfix reload` notes in the mail log before it tells the master. The log is
/// written by a process of its own, so what is `expected` may come a moment later.
fn reloads(postfix: &Instance, expected: usize) -> usize {
    let count = || postfix.log().matches("refreshing the Postfix mail system").count();
    let limit = Instant::now() + Duration::from_secs(5);
    while count() < expected && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    count()
}

/// The proof as the report document's definition has it, made here from scratch.
fn proof_of(password: &str, report: &Value, target: &Value) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(password.as_bytes()).expect("a key of any length");
    lab::proof_lines(report, target).iter().for_each(|line| mac.update(format!("{line}\n").as_bytes()));
    BASE64.encode(mac.finalize().into_bytes())
}

/// Every field of the report document `relaykey/report/v2`, and no other.
#[track_caller]
fn complete(report: &Value, target_names: &[&str], password: &str) {
    let fields =
        |v: &Value| v.as_object().expect("an object").keys().cloned().collect::<std::collections::BTreeSet<_>>();
    let labels =
        report["source"].as_str().is_some_and(|source| source.contains(":secretsmanager:")).then_some("labels");
    let expected = [
        "schema",
        "id",
        "seq",
        "host_id",
        "host",
        "credential",
        "source",
        "version",
        "username",
        "previous_username",
        "at",
        "mode",
        "agent",
        "outcome",
        "targets",
        "error",
        "approved_by",
        "mail_server",
        "poll_s",
        "alive_due",
    ];
    let expected = expected.into_iter().chain(labels).map(str::to_owned).collect();
    assert_eq!(fields(report), expected, "{report:#}");
    assert_eq!(report["schema"], "relaykey/report/v2");
    let due: jiff::Timestamp = report["alive_due"].as_str().and_then(|due| due.parse().ok()).expect("RFC 3339");
    let made: jiff::Timestamp = report["at"].as_str().and_then(|at| at.parse().ok()).expect("RFC 3339");
    assert_eq!(due.duration_since(made).as_mins(), 26 * 60 + 24);
    assert!(report["id"].as_str().is_some_and(|id| !id.is_empty()));
    let host_id = report["host_id"].as_str().expect("a text");
    assert!(host_id.len() == 32 && host_id.bytes().all(|b| b.is_ascii_hexdigit()), "{host_id}");
    assert_eq!(report["host"], "mx1.example.com");
    assert_eq!(report["credential"], "ses");
    assert_eq!(report["mode"], "automatic");
    assert_eq!(report["agent"], concat!("relaykey/", env!("CARGO_PKG_VERSION")));
    assert_eq!((&report["error"], &report["approved_by"]), (&Value::Null, &Value::Null));
    // RFC 3339, Z, whole seconds; and of this minute.
    let at = report["at"].as_str().expect("a text");
    assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
    let now = jiff::Timestamp::now();
    let age = now.duration_since(at.parse().expect("RFC 3339"));
    assert!((0..90).contains(&age.as_secs()), "{at} is {age} ago");
    let seq = report["seq"].as_i64().expect("a number");
    assert!((now.as_millisecond() - seq).abs() < 90_000, "{seq} are not Unix milliseconds");

    let targets = report["targets"].as_array().expect("a list");
    assert_eq!(targets.iter().map(|t| t["name"].as_str().expect("a text")).collect::<Vec<_>>(), target_names);
    for target in targets {
        let expected = [
            "name",
            "kind",
            "map",
            "tables",
            "keys",
            "read_back",
            "remaining_old",
            "region",
            "evidence",
            "proof",
            "no_proof",
        ];
        assert!(target["tables"][0]["services"].as_array().is_some_and(|services| !services.is_empty()), "{target:#}");
        assert_eq!(fields(target), expected.map(str::to_owned).into(), "{target:#}");
        assert_eq!((&target["kind"], &target["region"]), (&json!("postfix"), &json!(lab::REGION)));
        assert_eq!((&target["remaining_old"], &target["no_proof"]), (&json!([]), &Value::Null));
        assert_eq!(fields(&target["evidence"]), ["endpoint", "reply", "at"].map(str::to_owned).into());
        assert_eq!(target["evidence"]["reply"], "235 Authentication successful.");
        let at = target["evidence"]["at"].as_str().expect("a text");
        assert!(at.len() == 20 && at.ends_with('Z'), "{at}: RFC 3339, Z, whole seconds");
        let tried: jiff::Timestamp = target["evidence"]["at"].as_str().and_then(|t| t.parse().ok()).expect("RFC 3339");
        assert!((0..90).contains(&now.duration_since(tried).as_secs()), "{tried}");
        assert_eq!(target["proof"], proof_of(password, report, target), "the proof of {}", target["name"]);
    }
}

#[test]
fn a_host_that_holds_the_current_credential_is_adopted() {
    // What Postfix has read of a map that somebody else made is known once it is reloaded.
    for (map_type, once) in [("hash", 1), ("lmdb", 1), ("texthash", 1)] {
        let key = Key::new();
        let host = Host::new(map_type, &key);
        let name = fresh("day-one");
        let (arn, version) = moto::shared().secret(&name, &key.json());
        let source = host.secret(&name);
        host.configure(&Setup { source: &source, ..Setup::default() });
        host.start_postfix();
        assert_eq!(host.send(), key.id);
        let before = host.snapshot();

        let ran = host.sync(&["--json"], 0);
        let document = ran.json();
        let told = &document["credentials"][0];
        assert_eq!(
            (
                &document["schema"],
                &document["exit"],
                &told["name"],
                &told["outcome"],
                &told["version"],
                &told["username"]
            ),
            (&json!("relaykey/sync/v1"), &json!(0), &json!("ses"), &json!("adopted"), &json!(version), &json!(key.id))
        );
        before.same_as(&host.snapshot());
        assert_eq!(reloads(&host.postfix, once), once);

        let state = host.state("ses");
        let report = &state["report"];
        assert_eq!(told["report"], *report);
        complete(report, &["main"], key.password());
        assert_eq!((&report["outcome"], &report["source"]), (&json!("adopted"), &json!(arn)));
        assert_eq!((&report["version"], &report["username"]), (&json!(version), &json!(key.id)));
        assert_eq!(report["previous_username"], Value::Null);
        let target = &report["targets"][0];
        assert_eq!(target["keys"], json!([host.hop()]));
        assert_eq!(target["map"], format!("{map_type}:{}", host.postfix.table().display()));
        assert!(target["read_back"].as_str().is_some_and(|how| how.starts_with("postmap -q")), "{target:#}");
        assert_eq!(target["evidence"]["endpoint"], host.hop().replace(['[', ']'], ""));
        // The one login at the stand-in besides that of the message.
        assert_eq!(host.standin.logins().iter().map(|l| l.accepted).collect::<Vec<_>>(), [true, true]);
        assert_eq!(host.standin.messages().len(), 1, "adoption sends no mail");

        // Again: nothing to do, no login, and the state says the same.
        host.sync(&[], 0).says(&["ses: up-to-date"]);
        assert_eq!(host.standin.logins().len(), 2);
        // But for the line of the audit log that says who asked, and when it was looked up for them.
        let the_same = |mut state: Value| {
            state["targets"]["main"]["in_use"]["at"].take();
            state.as_object_mut().expect("an object").remove("audit").and(Some(state))
        };
        assert_eq!(the_same(host.state("ses")), the_same(state));
        before.same_as(&host.snapshot());
        host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date", &version, &key.id, "adopted"]);
        // Nor is it reloaded for being asked again.
        host.relaykey(&["confirm", "ses"]).expect(0);
        assert_eq!(reloads(&host.postfix, once), once);
    }
}

/// A rollover's report says what came before; its seq goes on; and the state holds no secret in any form.
#[test]
fn the_report_of_a_rollover_is_complete() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    let first = host.state("ses")["report"].clone();
    complete(&first, &["main"], old.password());
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed"]);
    let report = host.state("ses")["report"].clone();
    complete(&report, &["main"], new.password());
    assert_eq!((&report["outcome"], &report["username"]), (&json!("confirmed"), &json!(new.id)));
    assert_eq!(report["previous_username"], json!(old.id));
    assert_eq!(report["source"], format!("file:{}", host.path("credential").display()));
    assert!(report["seq"].as_u64() > first["seq"].as_u64());
    assert_eq!(report["host_id"], first["host_id"]);
    assert_ne!(report["id"], first["id"]);
    let bare = proof_of(old.password(), &report, &report["targets"][0]);
    assert_ne!(report["targets"][0]["proof"], bare, "the proof tells one password from another");

    let state = host.path("state");
    let mut files = 0;
    let mut look = vec![state.clone()];
    while let Some(dir) = look.pop() {
        assert_eq!(fs::metadata(&dir).expect("there").mode() & 0o7777, 0o700, "{}", dir.display());
        for entry in fs::read_dir(&dir).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                look.push(path);
                continue;
            }
            files += 1;
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600, "{}", path.display());
            let bytes = fs::read(&path).expect("readable");
            for key in [&old, &new] {
                for text in [key.password().to_owned(), key.secret.clone(), BASE64.encode(key.password())] {
                    let found = bytes.windows(text.len()).any(|w| w == text.as_bytes());
                    assert!(!found, "a secret is in {}", path.display());
                }
            }
        }
    }
    assert!(files >= 4, "state, host, keys, journal");
}

// ---------------------------------------------------------------- the mail server that is not told

#[test]
fn a_postfix_that_does_not_run_is_owed_its_reload() {
    for map_type in ["hash", "texthash"] {
        let (old, new) = (Key::new(), Key::new());
        let host = settled(map_type, &old, &Setup::default());
        let first = host.state("ses")["report"].clone();
        host.postfix.stop();
        host.standin.set_key(&new.id, &new.login.password);
        host.publish(new.pair());

        // `check` comes to the same end, before and after.
        let checked = |words: &[&str]| _ = host.relaykey(&["check", "ses"]).expect(75).says(words);
        checked(&["error ", "the mail server does not run", "start"]);
        let ran = host.sync(&["--wait", "0s"], 75);
        ran.says(&["not running", "fix: ", "start"]).says_not("ses: confirmed");
        checked(&["error ", "a reload is owed"]);
        let text = fs::read_to_string(host.postfix.table()).expect("readable");
        assert!(text.contains(&new.pair()), "the files are right");
        let found = look_up(&host.postfix, &[host.hop()]);
        assert_eq!(found.get(&host.hop()), Some(&new.pair()), "the map is right");
        let state = host.state("ses");
        assert_eq!((&state["report"], &state["applied"]["username"]), (&first, &json!(old.id)), "no confirmation");
        let status = host.relaykey(&["status"]);
        status.expect(0).says(&["ses: not-running", "owed      target main: a reload, since", "not running"]);
        let status = host.relaykey(&["status", "--json"]).json();
        assert_eq!(status["credentials"][0]["owed"][0]["target"], "main");
        // Again: still owed, and the files stay as they are.
        let before = host.snapshot();
        host.sync(&["--wait", "0s"], 75).says(&["not running"]);
        before.same_as(&host.snapshot());

        // A start after the swap settles it.
        let_a_start_be_later();
        host.postfix.start();
        host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
        before.same_as(&host.snapshot());
        assert_eq!(reloads(&host.postfix, 1), 1, "that of the adoption; it read the new files at its start");
        complete(&host.state("ses")["report"], &["main"], new.password());
        host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date"]).says_not("owed");
        host.standin.deactivate(&old.id);
        assert_eq!(host.send(), new.id);
    }
}

/// Nothing is new, and nothing goes out: that is said, whatever the credential is like, and through the daemon too.
#[test]
fn a_postfix_that_does_not_run_is_told_although_nothing_is_new() {
    let key = Key::new();
    let host = settled("hash", &key, &Setup::default());
    host.sync(&[], 0).says(&["ses: up-to-date"]).says_not("not running");
    host.postfix.stop();
    let start = format!("fix: start it (`postfix -c {} start`)", host.postfix.config_dir.display());
    let said =
        ["ses: up-to-date", "ses: the mail server is not running (target main): no mail goes out from it", &start];
    host.sync(&[], 0).says(&said);
    host.sync(&["--dry-run"], 0).says(&said[1..]);
    let document = host.relaykey(&["sync", "--json"]).expect(0).json();
    assert_eq!(document["credentials"][0]["not_running"]["targets"], json!(["main"]), "{document:#}");
    let daemon = host.start(&["run"]);
    let socket = host.path("run/control.sock");
    postfix::wait_for("the daemon", Duration::from_secs(20), || socket.exists().then_some(()));
    host.sync(&[], 0).says(&said);
    drop(daemon);
    // What a failure says is not said twice.
    let new = Key::new();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let ran = host.sync(&["--wait", "0s"], 75);
    assert_eq!(ran.err.matches("start it").count(), 1, "{ran:?}");
    host.start_postfix();
}

/// Nothing of ours runs at day one either: no confirmation that is not true.
#[test]
fn a_postfix_that_does_not_run_is_not_adopted() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    let before = host.snapshot();
    host.sync(&["--wait", "0s"], 75).says(&["not running"]).says_not("adopted version");
    before.same_as(&host.snapshot());
    assert_eq!(host.state("ses")["report"], Value::Null);
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
}

/// What each setting of `reload` does, for a map that Postfix notices by itself and for one that it does not.
#[test]
fn reload_does_what_it_says() {
    for (map_type, reload, adopted, done) in [
        ("hash", "\"always\"", 1, 2),
        ("hash", "\"if-needed\"", 1, 1),
        ("hash", "\"never\"", 0, 0),
        ("lmdb", "\"if-needed\"", 1, 1),
        ("texthash", "\"if-needed\"", 1, 2),
    ] {
        let (old, new) = (Key::new(), Key::new());
        let host = settled(map_type, &old, &Setup { target: &format!("reload = {reload}"), ..Setup::default() });
        assert_eq!(reloads(&host.postfix, adopted), adopted, "{map_type}, reload = {reload}: adoption");
        assert_eq!(host.send(), old.id);
        host.standin.set_key(&new.id, &new.login.password);
        host.publish(new.pair());
        host.sync(&[], 0).says(&["ses: confirmed"]);
        assert_eq!(reloads(&host.postfix, done), done, "{map_type}, reload = {reload}");
        for _ in 0..3 {
            assert_eq!(host.send(), new.id, "{map_type}, reload = {reload}");
        }
        host.sync(&[], 0).says(&["ses: up-to-date"]);
        assert_eq!(reloads(&host.postfix, done), done, "{map_type}, reload = {reload}: none without a change");
    }
}

/// A running smtp(8) may go on with the first of two maps of one second: what somebody else has put there is confirmed once
/// it is known to have been read.
#[test]
fn a_map_that_was_rewritten_in_place_is_confirmed_once_it_was_read() {
    for (map_type, target, done) in [
        ("hash", "reload = \"always\"", true),
        ("btree", "reload = \"if-needed\"", true),
        ("hash", "reload = \"never\"", false),
        ("hash", "write = false\nreload = \"if-needed\"", true),
        ("hash", "write = false\nreload = \"never\"", false),
    ] {
        let (old, new) = (Key::new(), Key::new());
        let host = settled(map_type, &old, &Setup { target, ..Setup::default() });
        assert_eq!(host.send(), old.id);
        let before = reloads(&host.postfix, usize::from(done));
        host.standin.set_key(&new.id, &new.login.password);
        host.publish(new.pair());
        let text = fs::read_to_string(host.postfix.table()).expect("readable").replace(&old.pair(), &new.pair());
        fs::write(host.postfix.table(), text).expect("written in place");
        host.postfix.postmap();
        if done {
            host.sync(&[], 0).says(&[&new.id]);
            assert_eq!(reloads(&host.postfix, before + 1), before + 1, "{map_type}, {target}");
            assert_eq!(host.state("ses")["applied"]["username"], json!(new.id));
            assert_eq!(host.send(), new.id, "{map_type}, {target}");
        } else {
            for _ in 0..2 {
                host.sync(&["--wait", "0s"], 75).says(&["reload = \"never\"", "settles"]);
                assert_eq!(host.state("ses")["applied"]["username"], json!(old.id), "{target}: no confirmation");
            }
            host.relaykey(&["confirm", "ses", "--wait", "0s"])
                .expect(75)
                .says_not("in use is")
                .says(&["nothing was confirmed; in the files is", &new.id]);
            host.postfix.stop();
            let_a_start_be_later();
            host.postfix.start();
            host.sync(&[], 0).says(&[&new.id]);
            assert_eq!(host.state("ses")["applied"]["username"], json!(new.id));
            assert_eq!(reloads(&host.postfix, before), before, "{map_type}, {target}");
        }
        host.relaykey(&["confirm", "ses"]).expect(0);
    }
}

#[test]
fn a_reload_that_is_needed_and_never_done_stays_owed() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("texthash", &old, &Setup { target: "reload = \"never\"", ..Setup::default() });
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    for _ in 0..2 {
        host.sync(&["--wait", "0s"], 75).says(&["reload = \"never\"", "settles"]);
        let status = host.relaykey(&["status"]);
        status.expect(0).says(&["ses: reload-owed", "target main: a reload, since"]);
        // What is in the files was not looked up before the swap, nor is it said to be in use.
        status.says_not(&format!("in place  {}", old.id)).says_not(&format!("in use    {}", new.id));
        host.relaykey(&["check", "ses"]).expect(75).says(&["a reload is owed"]);
        assert_eq!(reloads(&host.postfix, 0), 0);
    }
    assert_eq!(host.state("ses")["applied"]["username"], json!(old.id), "no confirmation");
    host.postfix.stop();
    let_a_start_be_later();
    host.postfix.start();
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!(host.send(), new.id);
}

/// Who only asks for a confirmation while Postfix is stopped changes nothing, and nothing is owed for it.
#[test]
fn a_confirmation_that_a_stopped_mail_server_keeps_from_coming_owes_no_reload() {
    for map_type in ["hash", "texthash"] {
        let key = Key::new();
        let host = settled(map_type, &key, &Setup::default());
        host.postfix.stop();
        let before = host.snapshot();
        let ran = host.relaykey(&["confirm", "ses", "--wait", "0s"]);
        ran.expect(75)
            .says(&["the mail server is not running", "postfix -c", "start"])
            .says(&["no reload is owed"])
            .says_not("postfix reload");
        host.snapshot().same_content_as(&before);
        assert_eq!(host.state("ses")["targets"]["main"]["reload_owed"], json!(null), "{map_type}");
        host.relaykey(&["status"]).expect(0).says(&["ses: not-running"]).says_not("reload");
        let_a_start_be_later();
        host.postfix.start();
        host.relaykey(&["confirm", "ses"]).expect(0).says(&["ses: confirmed"]);
    }
}

#[test]
fn a_reload_command_runs_as_it_is_written() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("texthash", &old);
    let ran = host.path("what ran");
    let script = host.dir.file(
        "reload it",
        format!(
            "#!/bin/sh\nprintf '%s|' \"$@\" >> '{}'\nexec /usr/sbin/postfix -c {} reload\n",
            ran.display(),
            host.postfix.config_dir.display()
        ),
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    let source = host.publish(old.pair());
    let command = format!("reload = [{script:?}, \"two words\", \"$HOME; `id`\"]");
    host.configure(&Setup { source: &source, target: &command, ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    assert_eq!(fs::read_to_string(&ran).expect("it ran"), "two words|$HOME; `id`|", "adoption reloads once");
    fs::remove_file(&ran).expect("removed");
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!(fs::read_to_string(&ran).expect("it ran"), "two words|$HOME; `id`|");
    assert_eq!(reloads(&host.postfix, 2), 2);
    assert_eq!(host.send(), new.id);

    // One that fails: the reload is owed, and done when it works again.
    let third = Key::new();
    host.standin.set_key(&third.id, &third.login.password);
    host.publish(third.pair());
    let fails = host.dir.file("fails", "#!/bin/sh\necho 'no permission to reload' >&2\nexit 7\n");
    fs::set_permissions(&fails, fs::Permissions::from_mode(0o755)).expect("chmod");
    let command = format!("reload = [{fails:?}]");
    host.configure(&Setup { source: &source, target: &command, ..Setup::default() });
    host.sync(&["--wait", "0s"], 75).says(&[
        "the reload failed",
        "exit status: 7",
        "no permission to reload",
        "correct `reload` in the configuration, then: relaykey sync",
    ]);
    // What failed is done again: `check` ends as that would, and says the same about it.
    host.relaykey(&["check", "ses"]).expect(75).says(&[
        "error ",
        "a reload is owed",
        "exit status: 7",
        "fix: correct `reload` in the configuration, then: relaykey sync",
    ]);
    // Another reason since.
    fs::write(&fails, "#!/bin/sh\nexit 8\n").expect("written");
    host.sync(&["--wait", "0s"], 75).says(&["exit status: 8"]);
    let status = host.relaykey(&["status"]).expect(0).out.clone();
    let owed: Vec<&str> = status.lines().filter(|line| line.starts_with("  owed")).collect();
    assert!(owed.len() == 1 && owed[0].contains("exit status: 8"), "{status}");
    host.sync(&["--wait", "0s"], 75).says(&["the reload failed"]);
    host.relaykey(&["status"]).expect(0).says(&["ses: reload-owed"]);
    // A program that is not there: nothing more is put in place, and all say so.
    let fourth = Key::new();
    host.standin.set_key(&fourth.id, &fourth.login.password);
    host.publish(fourth.pair());
    let nothing = host.path("nothing-there");
    let install = format!("fix: install {}, or write its full path", nothing.display());
    host.configure(&Setup { source: &source, target: &format!("reload = [{nothing:?}]"), ..Setup::default() });
    let before = host.snapshot();
    host.relaykey(&["check", "ses"]).expect(1).says(&["error ", "so that nothing is put in place", &install]);
    host.sync(&["--wait", "0s"], 1).says(&["so that nothing is put in place", &install]);
    before.same_as(&host.snapshot());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.sync(&[], 0).says(&["ses: confirmed", &fourth.id]);
    assert!(reloads(&host.postfix, 3) >= 3);
    assert_eq!(host.send(), fourth.id);
}

/// What somebody left half-edited must not be put into effect by our reload.
#[test]
fn a_half_edited_configuration_is_not_activated() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let good = fs::read_to_string(host.postfix.main_cf()).expect("readable");
    host.postfix.set("daemon_directory", "/nonexistent");
    let ran = host.sync(&["--wait", "0s"], 75);
    ran.says(&["`postfix check` fails, so no reload is done", "its reason is in", "fix: "]);
    assert_eq!(reloads(&host.postfix, 1), 1, "that of the adoption");
    assert_eq!(host.send(), new.id, "the files are in place, and the map is noticed without a reload");
    fs::write(host.postfix.main_cf(), good).expect("written");
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!((reloads(&host.postfix, 2), host.send()), (2, new.id));
}

/// Nothing is touched where Postfix's own programs cannot read the configuration.
#[test]
fn an_unreadable_configuration_changes_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let master_cf = host.postfix.config_dir.join("master.cf");
    let good = fs::read_to_string(&master_cf).expect("readable");
    fs::write(&master_cf, format!("{good}half a line of somebody who went to lunch\n")).expect("written");
    let before = host.snapshot();
    for wait in ["0s", "2s"] {
        let ran = host.sync(&["--wait", wait], 75);
        ran.says(&["postconf cannot read the configuration", "invalid type field", "it is tried again"]);
        ran.says_not(host.postfix.main_cf().to_str().expect("UTF-8"));
        before.same_as(&host.snapshot());
    }
    host.relaykey(&["status"]).expect(0).says(&["ses: failing", "postconf cannot read", "pending"]);
    // One that waits goes on soon after it is whole again: seconds, and no quarter of an hour.
    let waiting = host.start(&["sync", "--wait", "3m"]);
    std::thread::sleep(Duration::from_secs(2));
    fs::write(&master_cf, good).expect("written");
    waiting.wait(Duration::from_secs(180)).expect(0).says(&["ses: confirmed"]);
}

// ---------------------------------------------------------------- several targets

/// Makes a directory or file immutable (chattr(1)) until dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: &Path) -> Self {
        let done = Command::new("/usr/bin/chattr").arg("+i").arg(path).status().expect("chattr");
        assert!(done.success(), "chattr +i {}: a file system without this flag", path.display());
        Self(path.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("/usr/bin/chattr").arg("-i").arg(&self.0).status();
    }
}

/// One host with two Postfix instances that use the same credential and have adopted it.
fn two_targets(key: &Key) -> (Host, Instance) {
    let host = Host::new("hash", key);
    let second = host.another("lmdb", &format!("# the second\n{} {}\n", host.hop(), key.pair()));
    let source = host.publish(key.pair());
    let setup = Setup { source: &source, ..Setup::default() };
    let targets = [(&host.postfix, "name = \"main\""), (&second, "name = \"second\"")];
    host.write_config(&host.credential("ses", &setup, &targets));
    host.start_postfix();
    second.start();
    host.sync(&[], 0).says(&["ses: adopted"]);
    complete(&host.state("ses")["report"], &["main", "second"], key.password());
    (host, second)
}

/// Runs into trouble with the second target; the first one is on the new key, nothing is confirmed; then all is well again.
fn one_of_two(code: i32, words: &[&str], trouble: impl FnOnce(&Instance) -> Box<dyn FnOnce(&Instance)>) {
    let (old, new) = (Key::new(), Key::new());
    let (host, second) = two_targets(&old);
    let first = host.state("ses")["report"].clone();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let repair = trouble(&second);
    let before = Snapshot::of(&second.config_dir);

    let ran = host.sync(&["--wait", "0s"], code);
    ran.says(words).says(&["ses second: ", "fix: "]).says_not("ses: confirmed");
    assert_eq!(host.send(), new.id, "the other target is on the candidate");
    assert_eq!(look_up(&second, &[host.hop()]).get(&host.hop()), Some(&old.pair()));
    before.same_as(&Snapshot::of(&second.config_dir));
    let state = host.state("ses");
    assert_eq!((&state["report"], &state["applied"]["username"]), (&first, &json!(old.id)), "no confirmation");
    assert_eq!(state["candidate"]["username"], json!(new.id));
    host.relaykey(&["status"]).expect(0).says(&["pending", &new.id, "error"]);
    // The one that is done stays so while the other is tried again.
    let done = host.snapshot();
    host.sync(&["--wait", "0s"], code).says(words);
    done.same_as(&host.snapshot());
    assert_eq!(reloads(&host.postfix, 2), 2, "at the adoption, and once for the new key");

    repair(&second);
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    complete(&host.state("ses")["report"], &["main", "second"], new.password());
    assert_eq!(host.send(), new.id);
    assert_eq!(lab::send(&host.standin, &second), new.id);
    host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date"]).says_not("error");
}

#[test]
fn a_target_that_cannot_be_written_does_not_hold_up_the_other() {
    one_of_two(1, &["Operation not permitted", "lsattr"], |second| {
        let immutable = Immutable::new(&second.config_dir);
        Box::new(move |_| drop(immutable))
    });
}

#[test]
fn a_target_with_an_ambiguous_table_does_not_hold_up_the_other() {
    one_of_two(1, &["sasl_passwd:3: "], |second| {
        let good = fs::read_to_string(second.table()).expect("readable");
        // A login on two lines.
        let (before, password) = good.rsplit_once(':').expect("an entry");
        second.write_table(&format!("{before}:\n {password}"));
        Box::new(move |second| {
            second.write_table(&good);
            second.postmap();
        })
    });
}

/// Another program that follows the same rules holds the second directory for longer than is waited for it.
#[test]
fn a_target_with_a_table_under_lock_does_not_hold_up_the_other() {
    let (old, new) = (Key::new(), Key::new());
    let (host, second) = two_targets(&old);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let directory = relaykey::host::Directory::open(&second.config_dir).expect("opened");
    let lock = directory.lock(Duration::ZERO).expect("locked");
    let before = Snapshot::of(&second.config_dir);
    let holder = format!("process {}", std::process::id());
    host.sync(&["--wait", "0s"], 75).says(&["ses second: ", "is locked by", &holder]).says_not("ses: confirmed");
    before.same_as(&Snapshot::of(&second.config_dir));
    assert_eq!(host.send(), new.id);
    drop(lock);
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!(lab::send(&host.standin, &second), new.id);
}

#[test]
fn a_target_that_does_not_run_does_not_hold_up_the_other() {
    let (old, new) = (Key::new(), Key::new());
    let (host, second) = two_targets(&old);
    second.stop();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&["--wait", "0s"], 75).says(&["ses second: ", "not running"]).says_not("ses: confirmed");
    assert_eq!(host.send(), new.id);
    assert_eq!(look_up(&second, &[host.hop()]).get(&host.hop()), Some(&new.pair()));
    let_a_start_be_later();
    second.start();
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!(lab::send(&host.standin, &second), new.id);
    // That of the adoption; it read the new files at its start.
    assert_eq!((reloads(&host.postfix, 2), reloads(&second, 1)), (2, 1));
}

// ---------------------------------------------------------------- old answers, and no answers

/// A host on a secret of the AWS API server whose first version it has adopted and whose second it has confirmed.
fn with_two_versions(old: &Key, new: &Key) -> (Host, String, [String; 2]) {
    let host = Host::new("hash", old);
    host.standin.set_key(&new.id, &new.login.password);
    let name = fresh("versions");
    let (_, first) = moto::shared().secret(&name, &old.json());
    let source = host.secret(&name);
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    next_second();
    let second = moto::shared().put(&name, &new.json(), &["AWSCURRENT"]);
    host.sync(&[], 0).says(&["ses: confirmed"]);
    (host, name, [first, second])
}

fn move_current(name: &str, from: &str, to: &str) {
    let input = json!({
        "SecretId": name, "VersionStage": "AWSCURRENT", "RemoveFromVersionId": from, "MoveToVersionId": to,
    });
    moto::shared().call("secretsmanager.UpdateSecretVersionStage", input);
}

/// What the last `sync` failed at is told without a daemon too, as text and as a document.
fn says_left_behind(host: &Host, version: &str) {
    let what = format!("the source gives version {version} again, which this host has left behind");
    let fix = format!("relaykey sync ses --accept-version {version}");
    host.relaykey(&["status"]).expect(0).says(&["ses: failing", &what, &fix]);
    let status: Value = serde_json::from_str(&host.relaykey(&["status", "--json"]).expect(0).out).expect("JSON");
    let ses = &status["credentials"][0];
    assert_eq!((ses["state"].as_str(), ses["failures"][0]["what"].as_str()), (Some("failing"), Some(what.as_str())));
    let classes: Vec<_> = ses["not_ready"].as_array().expect("a list").iter().map(|n| n["class"].clone()).collect();
    assert_eq!(classes, ["left-behind"]);
}

#[test]
fn a_version_that_was_left_behind_is_not_taken_by_itself() {
    let (old, new) = (Key::new(), Key::new());
    let (host, name, [first, second]) = with_two_versions(&old, &new);
    move_current(&name, &second, &first);
    let before = host.snapshot();
    let state = host.state("ses");
    for _ in 0..2 {
        let ran = host.sync(&[], 1);
        ran.says(&[&format!("version {first} again, which this host has left behind"), "as a new version"]);
        ran.says(&[&format!("relaykey sync ses --accept-version {first}")]);
        before.same_as(&host.snapshot());
        assert_eq!(host.state("ses")["applied"], state["applied"]);
        says_left_behind(&host, &first);
    }
    assert_eq!(host.send(), new.id);
    // A version that is not what the source gives is not taken on a person's word.
    host.sync(&["ses", "--accept-version", &second], 1).says(&[&format!("current version is {first}, not {second}")]);
    before.same_as(&host.snapshot());
    says_left_behind(&host, &first);
    // The source gives again what this host has: it is over.
    move_current(&name, &first, &second);
    host.sync(&[], 0).says(&["ses: up-to-date"]);
    host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date"]);
    assert_eq!(host.state("ses")["not_taken"], Value::Null);
    move_current(&name, &second, &first);
    host.sync(&[], 1);
    says_left_behind(&host, &first);

    host.sync(&["ses", "--accept-version", &first], 0).says(&["ses: confirmed", &first, &old.id]);
    assert_eq!(host.send(), old.id);
    host.sync(&[], 0).says(&["ses: up-to-date"]);
    // Now the other one is what was left behind.
    move_current(&name, &first, &second);
    host.sync(&[], 1).says(&[&format!("version {second} again, which this host has left behind")]);
}

#[test]
fn a_label_that_is_moved_back_is_not_followed_by_itself() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("texthash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    let name = fresh("/label");
    let aws = moto::shared();
    let label = |version: i64| {
        let input = json!({"Name": name, "ParameterVersion": version, "Labels": ["live"]});
        aws.call("AmazonSSM.LabelParameterVersion", input);
    };
    let first = aws.parameter(&name, &old.pair());
    label(first);
    let source = host.parameter(&name) + "label = \"live\"\n";
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    let second = aws.parameter(&name, &new.pair());
    host.sync(&[], 0).says(&["ses: up-to-date"]);
    label(second);
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    label(first);
    let before = host.snapshot();
    host.sync(&[], 1).says(&["which this host has left behind", &format!("--accept-version {first}")]);
    before.same_as(&host.snapshot());
    host.sync(&["ses", "--accept-version", &first.to_string()], 0).says(&["ses: confirmed", &old.id]);
    assert_eq!(host.send(), old.id);
}

/// An older version that this host never had may be meant, or a stale answer: a second read, a minute later, must agree.
#[test]
fn a_version_that_is_not_newer_waits_for_a_second_read() {
    let (never, old) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.standin.set_key(&never.id, &never.login.password);
    let name = fresh("stale");
    let (_, first) = moto::shared().secret(&name, &never.json());
    next_second();
    let second = moto::shared().put(&name, &old.json(), &["AWSCURRENT"]);
    let source = host.secret(&name);
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted", &second]);
    move_current(&name, &second, &first);
    let before = host.snapshot();
    let accept = format!("sync ses --accept-version {first}");
    host.sync(&["--wait", "0s"], 75).says(&["second read must agree", "  fix: ", &accept]);
    before.same_as(&host.snapshot());
    let failure = host.sync(&["--wait", "0s", "--json"], 75).json()["credentials"][0]["failures"][0].clone();
    assert_eq!(failure["class"], "not-newer", "{failure:#}");
    host.relaykey(&["status"]).expect(0).says(&["ses: pending", &first, "second read must agree", &accept]);
    assert_eq!(host.send(), old.id);
    // The answer was stale after all.
    move_current(&name, &first, &second);
    host.sync(&["--wait", "0s"], 0).says(&["ses: up-to-date"]);
    host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date"]).says_not("pending");
    // Or it is meant, and a person says so.
    move_current(&name, &second, &first);
    host.sync(&["ses", "--accept-version", &first, "--wait", "0s"], 0).says(&["ses: confirmed", &never.id]);
    assert_eq!(host.send(), never.id);
}

/// Deleted and made again: another secret under the same name, whose versions count anew.
#[test]
fn a_recreated_secret_is_a_new_one() {
    let (old, new) = (Key::new(), Key::new());
    let (host, name, _) = with_two_versions(&old, &new);
    let third = Key::new();
    host.standin.set_key(&third.id, &third.login.password);
    moto::shared().call("secretsmanager.DeleteSecret", json!({"SecretId": name, "ForceDeleteWithoutRecovery": true}));
    let before = host.snapshot();
    host.sync(&["--wait", "0s"], 1).says(&["does not exist"]);
    before.same_as(&host.snapshot());
    let (arn, version) = moto::shared().secret(&name, &third.json());
    host.sync(&["--wait", "0s"], 0).says(&["ses: confirmed", &version]);
    assert_eq!(host.state("ses")["source"]["arn"], json!(arn));
    assert_eq!(host.send(), third.id);
}

#[test]
fn a_file_that_is_put_back_is_taken() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    for key in [&new, &old, &new] {
        host.publish(key.pair());
        host.sync(&["--wait", "0s"], 0).says(&["ses: confirmed", &key.id]);
        assert_eq!(host.send(), key.id);
    }
}

#[test]
fn a_source_that_is_down_changes_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let (host, name, _) = with_two_versions(&old, &new);
    let before = host.snapshot();
    let applied = host.state("ses")["applied"].clone();
    let unchanged = |ran: &lab::Ran| {
        ran.says(&["fix: "]);
        before.same_as(&host.snapshot());
        assert_eq!(host.state("ses")["applied"], applied, "{}", ran.what);
    };
    let third = Key::new();
    host.standin.set_key(&third.id, &third.login.password);
    next_second();
    moto::shared().put(&name, &third.json(), &["AWSCURRENT"]);

    let nobody = format!("http://127.0.0.1:{}", postfix::free_port());
    let source = host.secret(&name).replace(&moto::shared().endpoint(), &nobody);
    host.configure(&Setup { source: &source, ..Setup::default() });
    unchanged(host.sync(&["--wait", "0s"], 75).says(&["Connection refused"]));
    host.relaykey(&["status"]).expect(0).says(&["ses: source-down", "not before"]);

    let source = host.secret(&name);
    host.configure(&Setup { source: &source, ..Setup::default() });
    let faults = [
        (
            json!({"kind": "error", "status": 500, "code": "InternalServiceError", "message": "oh no", "count": -1}),
            75,
            "oh no",
        ),
        (
            json!({"kind": "error", "status": 400, "code": "ThrottlingException", "message": "slower", "count": -1}),
            75,
            "slower",
        ),
        (json!({"kind": "truncate", "count": -1}), 75, ""),
        (
            json!({"kind": "error", "status": 400, "code": "AccessDeniedException", "message": "not authorized", "count": -1}),
            1,
            "secretsmanager:GetSecretValue",
        ),
    ];
    for (fault, code, words) in faults {
        // With a key of its own each, because the fault stays.
        let key = Key::new().id;
        moto::shared().fault(&key, "GetSecretValue", fault);
        let ran = host.start_as(&key, &["sync", "--wait", "0s"]).wait(lab::RUN);
        ran.expect(code).says(&[words]);
        unchanged(&ran);
    }
    assert_eq!(host.send(), new.id);
    host.sync(&[], 0).says(&["ses: confirmed", &third.id]);
}

// ---------------------------------------------------------------- drift

/// Somebody's configuration management puts the old table back, text and map.
fn put_back(postfix: &Instance, text: &str) {
    postfix.write_table(text);
    postfix.postmap();
}

#[test]
fn drift_is_healed_as_often_as_a_person_asks() {
    for map_type in ["hash", "texthash"] {
        let (old, new) = (Key::new(), Key::new());
        let host = settled(map_type, &old, &Setup::default());
        let text = fs::read_to_string(host.postfix.table()).expect("readable");
        host.standin.set_key(&new.id, &new.login.password);
        host.publish(new.pair());
        host.sync(&[], 0).says(&["ses: confirmed"]);
        let right = fs::read_to_string(host.postfix.table()).expect("readable");
        for _ in 0..3 {
            put_back(&host.postfix, &text);
            host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
            assert_eq!(fs::read_to_string(host.postfix.table()).expect("readable"), right);
            assert_eq!(host.send(), new.id);
        }
        put_back(&host.postfix, &text);
        let before = host.snapshot();
        // Who only confirms changes nothing.
        host.relaykey(&["confirm", "ses"]).expect(3).says(&[
            "the mail server (target main) no longer holds the login that relaykey put there",
            "; then have it put back: relaykey sync ses",
        ]);
        before.same_as(&host.snapshot());
        // However often it was put back: who asks has it. And `check` knows.
        host.relaykey(&["check"]).expect(0);
        host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
        assert_eq!(fs::read_to_string(host.postfix.table()).expect("readable"), right);
        // A new version is put in place all the same.
        let third = Key::new();
        host.standin.set_key(&third.id, &third.login.password);
        host.publish(third.pair());
        host.sync(&[], 0).says(&["ses: confirmed", &third.id]);
        assert_eq!(host.send(), third.id);
    }
}

/// The state directory, as a backup would have it; puts it back when it is called.
fn backed_up(host: &Host) -> impl Fn() + use<> {
    let (state, kept) = (host.path("state"), host.path("state.backup"));
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp").success());
    };
    copy(&state, &kept);
    move || copy(&kept, &state)
}

/// The command that is printed for a file of the state directory that is damaged is pasted, and mends it.
#[test]
fn a_damaged_file_of_the_state_directory_is_moved_aside_by_the_command_that_is_printed() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.configure(&Setup { source: &host.publish(key.pair()), ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    let before = host.snapshot();
    // The key of a `file` source's versions: what is in use counts as another version, and nothing is written for it.
    for (file, moved_to, then) in
        [("key", "key.broken", "ses: confirmed"), ("credentials/ses.json", "ses.broken", "ses: adopted")]
    {
        let path = host.path("state").join(file);
        fs::OpenOptions::new().write(true).open(&path).expect("opened").set_len(16).expect("cut");
        let said = host.sync(&[], 1).err.clone();
        let fix =
            said.lines().find(|line| line.contains(": m") && line.contains("mv ")).unwrap_or_else(|| panic!("{said}"));
        let command = &fix[fix.find(": mkdir").or(fix.find(": mv")).expect("a command") + 2..];
        let command = command.split(';').next().expect("a part");
        let ran = Command::new("sh").args(["-euc", command]).status().expect("sh");
        assert!(ran.success(), "{command}");
        assert!(host.path("state").join(moved_to).exists(), "{command}");
        host.sync(&[], 0).says(&[then]);
        assert!(host.snapshot() == before, "the table is as it was");
    }
}

/// A backup of the state directory was put back: the table is ahead of it.
#[test]
fn a_state_older_than_the_table_goes_forward() {
    for map_type in ["hash", "texthash"] {
        for aws in [false, true] {
            let (first, second, third) = (Key::new(), Key::new(), Key::new());
            let host = Host::new(map_type, &first);
            let name = fresh("backup");
            let source = match aws {
                true => {
                    moto::shared().secret(&name, &first.json());
                    host.secret(&name)
                }
                false => host.publish(first.pair()),
            };
            let publish = |key: &Key| {
                host.standin.set_key(&key.id, &key.login.password);
                if aws {
                    next_second();
                    moto::shared().put(&name, &key.json(), &["AWSCURRENT"]);
                } else {
                    host.publish(key.pair());
                }
            };
            host.configure(&Setup { source: &source, ..Setup::default() });
            host.start_postfix();
            host.sync(&[], 0).says(&["ses: adopted"]);
            let put_back = backed_up(&host);
            publish(&second);
            host.sync(&[], 0).says(&["ses: confirmed", &second.id]);

            // The source's current version is in place: nothing is written.
            put_back();
            let before = host.snapshot();
            host.sync(&[], 0).says(&[&second.id]);
            before.same_content_as(&host.snapshot());
            assert_eq!(host.state("ses")["applied"]["username"], second.id);
            host.sync(&[], 0).says(&["ses: up-to-date"]);

            // The source has gone on: what is in the table is of a version that this state never saw.
            put_back();
            publish(&third);
            let before = host.snapshot();
            let ran = host.sync(&[], 1);
            let take =
                format!("as after a backup was put back, take it as that: `relaykey sync ses --previous {}", second.id);
            let list = format!(
                "If it is to hold the credential's login from now on, whosever it is, list {:?} in",
                host.hop()
            );
            ran.says(&[&second.id, &first.id, "fix: ", &take, &list]);
            before.same_content_as(&host.snapshot());
            assert_eq!(host.send(), second.id);
            // Its advice, followed.
            host.configure(&Setup {
                source: &source,
                target: &format!("keys = [{:?}]\n", host.hop()),
                ..Setup::default()
            });
            host.sync(&[], 0).says(&["ses: confirmed", &third.id]);
            assert_eq!(host.send(), third.id);
            // It may be taken out again.
            host.configure(&Setup { source: &source, ..Setup::default() });
            host.sync(&[], 0).says(&["ses: up-to-date"]);
        }
    }
}

#[test]
fn drift_is_only_reported_where_that_is_asked_for() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("lmdb", &old, &Setup { target: "drift = \"report\"", ..Setup::default() });
    let text = fs::read_to_string(host.postfix.table()).expect("readable");
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed"]);
    put_back(&host.postfix, &text);
    let before = host.snapshot();
    for _ in 0..2 {
        host.sync(&[], 1).says(&[
            "the mail server (target main) no longer holds the login that relaykey put there",
            "drift = \"report\"",
            &format!("; then put the login of {} back by hand. relaykey sees it and confirms it anew", new.id),
        ]);
        before.same_as(&host.snapshot());
    }
    host.relaykey(&["status"]).expect(0).says(&["ses: drift"]);
    // Put right by hand: nothing is wrong any more, and what was withdrawn is confirmed anew.
    put_back(&host.postfix, &text.replace(&old.pair(), &new.pair()));
    host.sync(&[], 0).says(&["ses: confirmed"]);
    host.sync(&[], 0).says(&["ses: up-to-date"]);
    host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date"]).says_not("drift");
}

/// Half-done work of others: the text edited and not compiled; the map deleted, emptied, or older than the text; the entry
/// taken out, and put twice.
#[test]
fn what_others_left_half_done_is_healed() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed"]);
    let right = fs::read_to_string(host.postfix.table()).expect("readable");
    let forget_heals = || {
        let path = host.path("state/credentials/ses.json");
        let mut state = host.state("ses");
        state["targets"]["main"]["heals"] = json!([]);
        fs::write(&path, state.to_string()).expect("written");
    };
    let map = host.postfix.map();
    let table: [(&str, &dyn Fn()); 5] = [
        ("the text has the old login, the map the new one", &|| {
            host.postfix.write_table(&right.replace(&new.pair(), &old.pair()));
        }),
        ("the map is gone", &|| fs::remove_file(&map).expect("removed")),
        ("the map is empty", &|| fs::write(&map, "").expect("written")),
        ("the map is rubbish", &|| fs::write(&map, [7; 20_000]).expect("written")),
        ("the entry is gone", &|| {
            host.postfix.write_table("# nothing here\n");
            host.postfix.postmap();
        }),
    ];
    for (what, harm) in table {
        harm();
        let ran = host.sync(&[], 0);
        ran.says(&["ses: confirmed"]);
        let text = fs::read_to_string(host.postfix.table()).expect("readable");
        assert!(text.contains(&format!("{} {}\n", host.hop(), new.pair())), "{what}");
        assert_eq!(look_up(&host.postfix, &[host.hop()]).get(&host.hop()), Some(&new.pair()), "{what}");
        assert_eq!(host.send(), new.id, "{what}");
        forget_heals();
    }
}

// ---------------------------------------------------------------- dry runs, locks, signals, exit codes

#[test]
fn a_dry_run_shows_the_change_and_changes_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    let source = host.publish(new.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    // Before the first run: not even a state directory is made.
    let before = (host.snapshot(), Snapshot::of(host.dir.path()));
    let ran = host.sync(&["--dry-run"], 0);
    let masked = format!("sasl_passwd:2: {} {}:*** -> {}:***", host.hop(), old.id, new.id);
    ran.says(&["ses: target main would change:", &masked, "ses: dry-run", &new.id]);
    let document = host.sync(&["--dry-run", "--json"], 0).json();
    let preview = &document["credentials"][0]["preview"][0];
    assert_eq!((&preview["target"], &preview["reload"]), (&json!("main"), &json!(true)), "{document:#}");
    assert!(preview["change"][0].as_str().is_some_and(|line| line.ends_with(&masked)), "{document:#}");
    assert_eq!(document["credentials"][0]["outcome"], "dry-run");
    before.0.same_as(&host.snapshot());
    before.1.same_as(&Snapshot::of(host.dir.path()));
    assert!(!host.path("state").exists() && reloads(&host.postfix, 0) == 0);
    // The candidate was tried all the same: one that is refused is told.
    assert!(host.standin.logins().iter().all(|login| login.username == new.id && login.accepted));
    host.standin.deactivate(&new.id);
    host.sync(&["--dry-run", "--wait", "0s"], 75).says(&["535"]);
    host.standin.activate(&new.id);

    // And with state.
    host.sync(&[], 0).says(&["ses: confirmed"]);
    let third = Key::new();
    host.standin.set_key(&third.id, &third.login.password);
    host.publish(third.pair());
    let before = (host.snapshot(), Snapshot::of(host.dir.path()));
    host.sync(&["--dry-run"], 0).says(&[&format!("{}:*** -> {}:***", new.id, third.id)]);
    before.0.same_as(&host.snapshot());
    before.1.same_as(&Snapshot::of(host.dir.path()));
    host.publish(new.pair());
    host.sync(&["--dry-run"], 0).says(&["ses: up-to-date"]);
}

#[test]
fn a_second_relaykey_waits_and_then_names_the_first_and_sigterm_ends_it() {
    let (old, new) = (Key::new(), Key::new());
    let setup = Setup { smtp: "propagation = \"10m\"\nretry = \"1s\"\n", ..Setup::default() };
    let host = settled("hash", &old, &setup);
    let before = host.snapshot();
    host.publish(new.pair());
    let first = host.start(&["sync", "--wait", "5m"]);
    let refused =
        |seen: &relaykey::standin::StandinRecord| seen.logins.iter().filter(|l| !l.accepted).nth(1).map(|_| ());
    host.standin.wait_for(lab::RUN, "the second refusal", refused).expect("it waits and tries again");

    let ran = host.sync(&["--wait", "0s"], 75);
    ran.says(&["is locked by process", &first.id().to_string(), "relaykey", "fix: wait until that process is done"]);
    let began = Instant::now();
    host.sync(&["--wait", "1s"], 75).says(&["waited 1 s"]);
    assert!(began.elapsed() >= Duration::from_secs(1));
    // What only looks is not held up.
    host.relaykey(&["status"]).expect(0).says(&["ses: pending"]);
    host.sync(&["--dry-run", "--wait", "0s"], 75).says(&["535"]);

    first.terminate();
    let ran = first.wait(lab::RUN);
    ran.expect(75).says(&["ses: interrupted"]);
    before.same_as(&host.snapshot());
    host.standin.set_key(&new.id, &new.login.password);
    host.sync(&["--wait", "0s"], 0).says(&["ses: confirmed"]);
    assert_eq!(host.send(), new.id);
}

#[test]
fn over_several_credentials_the_worst_exit_code_wins() {
    let (old, new, bad) = (Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    let other = host.another("hash", &format!("{} {}\n", host.hop(), old.pair()));
    host.start_postfix();
    other.start();
    let file = |name: &str, key: &Key| {
        let path = host.dir.file(name, key.pair());
        format!("type = \"file\"\npath = {path:?}\n")
    };
    let (good_source, bad_source) = (file("good", &new), file("bad", &bad));
    let good = Setup { source: &good_source, ..Setup::default() };
    let bad = Setup { source: &bad_source, smtp: "propagation = \"10m\"\n", ..Setup::default() };
    let bad_for_good = Setup { smtp: "propagation = \"0s\"\n", ..bad };
    let write = |bad: &Setup<'_>| {
        let all = host.credential("bad", bad, &[(&other, "name = \"other\"")])
            + &host.credential("good", &good, &[(&host.postfix, "name = \"main\"")]);
        host.write_config(&all);
    };

    write(&bad);
    host.sync(&["--wait", "0s"], 75).says(&["bad: failed-for-now", "good: confirmed", "535"]);
    assert_eq!(host.send(), new.id, "one credential does not hold up the other");
    host.sync(&["good"], 0).says(&["good: up-to-date"]).says_not("bad:");
    write(&bad_for_good);
    let ran = host.sync(&["--json"], 1);
    let document = ran.json();
    let told = |n: usize, field: &str| document["credentials"][n][field].clone();
    assert_eq!((told(0, "name"), told(0, "outcome"), told(0, "exit")), (json!("bad"), json!("failed"), json!(1)));
    assert_eq!((told(1, "name"), told(1, "outcome"), told(1, "exit")), (json!("good"), json!("up-to-date"), json!(0)));
    assert_eq!(document["exit"], json!(1));
    assert_eq!(told(0, "failures")[0]["class"], "refused");
    assert_eq!(lab::send(&host.standin, &other), old.id);

    host.sync(&["nobody"], 2).says(&["no credential \"nobody\"", "fix: one of: bad, good"]);
    host.sync(&["good", "nobody"], 2);
    host.sync(&["--accept-version", "x"], 2).says(&["--accept-version is about one credential"]);
    host.sync(&["--wait", "soon"], 2).says(&["write 30s, 2m, 1h"]);
    host.sync(&["--wait", "-1s"], 2);
    host.sync(&["--no-such-option"], 2);
}

/// What stands between this host and the login, and is not the credential's fault.
#[test]
fn trouble_on_the_way_does_not_blame_the_credential() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    let source = host.publish(new.pair());
    let before = host.snapshot();
    let stranger = relaykey::standin::Standin::start(relaykey::standin::Options::default()).expect("another stand-in");
    let other_ca = host.dir.file("other.pem", stranger.ca_pem());
    let broken_ca = host.dir.file("broken.pem", "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n");
    let table = [
        (format!("ca_file = {other_ca:?}\n"), 1, "certificate", "ca_file"),
        (format!("ca_file = {broken_ca:?}\n"), 1, "broken.pem", "fix: "),
        ("ca_file = \"/nonexistent/ca.pem\"\n".to_owned(), 1, "/nonexistent/ca.pem", "fix: "),
    ];
    for (smtp, code, words, more) in table {
        host.configure(&Setup { source: &source, smtp: &smtp, ..Setup::default() });
        let ran = host.sync(&["--wait", "0s"], code);
        ran.says(&[words, more]).says_not("access key is active").says_not("refused the credential");
        before.same_as(&host.snapshot());
        assert_eq!(host.state("ses")["targets"]["main"]["first_refused"], Value::Null);
    }
    host.configure(&Setup { source: &source, smtp: "timeout = \"1s\"\n", ..Setup::default() });
    for (fault, words) in [
        (relaykey::standin::Misbehavior::Reply454, "454 Temporary authentication failure"),
        (relaykey::standin::Misbehavior::DropAtConnect, "closed the connection"),
        (relaykey::standin::Misbehavior::HangAtAuth, "gave up after 1s"),
        (relaykey::standin::Misbehavior::DropAfterAuth, "closed the connection"),
    ] {
        host.standin.fault(fault, 1);
        let ran = host.sync(&["--wait", "0s"], 75);
        ran.says(&[words, "fix: "]).says_not("access key is active").says_not("refused the credential");
        before.same_as(&host.snapshot());
        assert_eq!(host.state("ses")["targets"]["main"]["first_refused"], Value::Null, "{fault:?}");
    }
    // A server that quotes what it was sent: 535, and not a byte of the password.
    host.standin.fault(relaykey::standin::Misbehavior::EchoAuth, 1);
    host.sync(&["--wait", "0s"], 75).says(&["535"]);
    assert_eq!(host.send(), old.id);
    host.sync(&["--wait", "0s"], 0).says(&["ses: confirmed"]);
}

// ---------------------------------------------------------------- under load

/// A message every 20 ms while the key is changed five times, the old one dying a second after each: none is lost, none
/// bounces, none comes twice.
#[test]
fn no_message_is_lost_while_keys_change_under_load() {
    let mut old = Key::new();
    let host = Arc::new(settled("hash", &old, &Setup::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let injector = std::thread::spawn({
        let (host, stop) = (Arc::clone(&host), Arc::clone(&stop));
        move || {
            let mut next = Instant::now();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                host.postfix.inject_from(&format!("load{sent}@lab.invalid"), 1);
                sent += 1;
                next += Duration::from_millis(20);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            sent
        }
    });
    let mut users = vec![old.id.clone()];
    for _ in 0..5 {
        let new = Key::new();
        host.standin.set_key(&new.id, &new.login.password);
        host.publish(new.pair());
        let ran = host.relaykey(&["sync"]);
        if ran.code != 0 {
            stop.store(true, Ordering::Relaxed);
        }
        ran.expect(0).says(&["ses: confirmed"]);
        // What is tested is that a second is enough.
        std::thread::sleep(Duration::from_secs(1));
        host.standin.deactivate(&old.id);
        users.push(new.id.clone());
        old = new;
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let sent: usize = injector.join().expect("every message was taken by Postfix");
    host.postfix.queue_empty(DELIVERY);

    let messages = host.standin.messages();
    let mut arrived: Vec<usize> = messages
        .iter()
        .map(|m| {
            m.from.trim_start_matches("load").trim_end_matches("@lab.invalid").parse().expect("one of ours, no bounce")
        })
        .collect();
    arrived.sort_unstable();
    assert_eq!(arrived, (0..sent).collect::<Vec<_>>(), "lost or doubled");
    let log = host.postfix.log();
    for word in ["status=bounced", "status=deferred", "SASL authentication failed", "status=expired"] {
        assert_eq!(log.matches(word).count(), 0, "{word} in the mail log");
    }
    assert!(sent > 50, "only {sent} messages: no load");
    for user in &users {
        assert!(messages.iter().any(|m| m.username == *user), "no message under {user}");
    }
    assert_eq!(messages.last().map(|m| m.username.as_str()), users.last().map(String::as_str));
    println!("{sent} messages under {} keys: none lost, bounced, deferred or doubled", users.len());
}

/// The signal that the kernel sends with it would end the program without a word.
#[test]
fn a_limit_of_file_sizes_is_an_error_with_its_fix() {
    let key = Key::new();
    let host = Host::with("hash", |hop| {
        Some(format!("{}{hop} {}\n", "# a comment that is long enough\n".repeat(200), key.pair()))
    });
    host.standin.set_key(&key.id, &key.login.password);
    host.start_postfix();
    let new = Key::new();
    host.standin.set_key(&new.id, &new.login.password);
    host.configure(&Setup { source: &host.publish(new.pair()), ..Setup::default() });
    let before = host.snapshot();
    let config = host.path("config.toml");
    let arguments = ["--config", config.to_str().expect("text"), "sync"];
    // In units of 512 bytes.
    let limited =
        lab::Program::start_in_shell("ulimit -f 8; exec \"$@\"", &config, &arguments, &[], b"").wait(lab::RUN);
    assert!(limited.code > 0, "{limited:?}");
    limited.says(&["File too large", "ulimit -f", "LimitFSIZE="]);
    before.same_content_as(&host.snapshot());
    host.sync(&[], 0);
}

/// A program that is started with SIGCHLD ignored has children that cannot be waited for.
#[test]
fn who_starts_it_with_children_ignored_changes_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let config = host.path("config.toml");
    let arguments = ["--config", config.to_str().expect("text"), "sync"];
    let ran = lab::Program::start_in_shell("trap '' CHLD; exec \"$@\"", &config, &arguments, &[], b"").wait(lab::RUN);
    ran.expect(0).says(&["ses: confirmed", &new.id]);
}

/// The unit is not started again after 2: that is for what stays so until somebody mends it.
#[test]
fn a_moments_trouble_with_the_configuration_is_no_mistake_in_it() {
    let key = Key::new();
    let host = settled("hash", &key, &Setup::default());
    let config = host.path("config.toml");
    let reads = |error: &str, command: &str| {
        let inject = format!("inject=read:error={error}");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", "trace=read", "-e", &inject, "-P"]).arg(&config);
        strace.arg(env!("CARGO_BIN_EXE_relaykey")).arg("--config").arg(&config).arg(command);
        let output = strace.output().expect("strace");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("the configuration cannot be read"), "{error}: {said}");
        output.status.code()
    };
    for error in ["EIO", "ENOMEM", "ESTALE", "ENFILE"] {
        assert_eq!(reads(error, "run"), Some(75), "{error}");
    }
    assert_eq!(reads("EIO", "sync"), Some(75));
    assert_eq!(reads("EIO", "check"), Some(75));
    let turning = host.path("turning.toml");
    std::os::unix::fs::symlink(&turning, &turning).expect("a link to itself");
    let arguments = ["--config", turning.to_str().expect("text"), "run"];
    lab::Program::start_in_shell("exec \"$@\"", &config, &arguments, &[], b"").wait(lab::RUN).expect(2);
}

// ---------------------------------------------------------------- what is left of earlier keys

/// Entries that `keys` leaves out go on holding the keys of several rotations: each is named, until it is gone.
#[test]
fn what_is_left_of_every_earlier_key_is_named() {
    let keys: Vec<Key> = (0..4).map(|_| Key::new()).collect();
    let host = Host::new("hash", &keys[0]);
    let hop = host.hop();
    let entry = |who: &str, key: &Key| format!("{who}@example.com {}\n", key.pair());
    host.postfix.write_table(&format!("{hop} {}\n{}", keys[0].pair(), entry("first", &keys[0])));
    let (source, target) = (host.publish(keys[0].pair()), format!("keys = [{hop:?}]\n"));
    host.configure(&Setup { source: &source, target: &target, ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    let remaining = |host: &Host| host.state("ses")["report"]["targets"][0]["remaining_old"].clone();
    assert_eq!(remaining(&host), json!([]), "it holds the key in use");
    let next = |key: &Key| {
        host.standin.set_key(&key.id, &key.login.password);
        host.publish(key.pair());
        host.sync(&[], 0).says(&["ses: confirmed", &key.id]);
    };
    next(&keys[1]);
    assert_eq!(remaining(&host), json!(["first@example.com"]));
    // The second key finds its way into an entry that is left out as well, and then comes the third.
    let table = fs::read_to_string(host.postfix.table()).expect("readable");
    host.postfix.write_table(&(table + &entry("second", &keys[1])));
    host.postfix.postmap();
    next(&keys[2]);
    assert_eq!(remaining(&host), json!(["first@example.com", "second@example.com"]));
    next(&keys[3]);
    assert_eq!(remaining(&host), json!(["first@example.com", "second@example.com"]));
    let table = fs::read_to_string(host.postfix.table()).expect("readable");
    host.postfix.write_table(&table.replace(&entry("first", &keys[0]), ""));
    host.postfix.postmap();
    host.relaykey(&["confirm", "ses"]).expect(0);
    assert_eq!(remaining(&host), json!(["second@example.com"]));
    // An entry that is left out and holds the key in use is no old one.
    let table = fs::read_to_string(host.postfix.table()).expect("readable");
    host.postfix.write_table(&(table + &entry("newest", &keys[3])));
    host.postfix.postmap();
    host.relaykey(&["confirm", "ses"]).expect(0);
    assert_eq!(remaining(&host), json!(["second@example.com"]));
}

/// What a person put in use by hand is nobody's version here: what still holds it after the rollover is named all the same, by its
/// login where its user name is others' too. So is what holds a version that was offered here and never applied.
#[test]
fn what_was_in_use_or_offered_and_never_applied_is_named_where_it_is_left() {
    let keys: Vec<Key> = (0..4).map(|_| Key::new()).collect();
    let [old, by_hand, offered, new] = [&keys[0], &keys[1], &keys[2], &keys[3]];
    let smtp = "propagation = \"1s\"\nretry = \"100ms\"\n";
    let host = Host::new("hash", old);
    let (hop, source) = (host.hop(), host.publish(old.pair()));
    let target = format!("keys = [{hop:?}]\n");
    host.configure(&Setup { source: &source, smtp, target: &target, ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    let remaining = |host: &Host| host.state("ses")["report"]["targets"][0]["remaining_old"].clone();
    // Another person's key under the relay, and under a sender; and one of a version that the endpoint does not take.
    host.standin.set_key(&by_hand.id, &by_hand.login.password);
    let table = |relay: &str| {
        let others = "[other.example]:25 other:otherpassword\n";
        format!("{hop} {relay}\nme@example.com {}\nyou@example.com {}\n{others}", by_hand.pair(), offered.pair())
    };
    host.publish(offered.pair());
    assert_ne!(host.relaykey(&["sync", "--wait", "0s"]).code, 0, "it is refused");
    host.postfix.write_table(&table(&by_hand.pair()));
    host.postfix.postmap();
    host.postfix.reload();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    assert_eq!(remaining(&host), json!(["me@example.com", "you@example.com"]));

    // Where a user name tells nothing, the login does: it was in use, and another relay's of the same name was not.
    host.without_region();
    let (first, second) = ("smtpuser:first-password-of-all", "smtpuser:second-password-of-all");
    host.standin.set_key("smtpuser", &relaykey::credential::Secret::new("second-password-of-all".to_owned()));
    host.postfix
        .write_table(&format!("{hop} {first}\nme@example.com {first}\n[other.example]:25 smtpuser:otherpassword\n"));
    host.postfix.postmap();
    host.publish(second);
    host.sync(&[], 0).says(&["ses: confirmed"]);
    assert_eq!(remaining(&host), json!(["me@example.com"]));
}

// ---------------------------------------------------------------- a source that is no AWS

/// A parameter store of somebody else's: this version, modified then, with this content.
fn answers(host: &Host, version: i64, modified: i64, content: &str) {
    let arn = format!("arn:aws:ssm:{}:123456789012:parameter/odd", moto::REGION);
    answers_of(host, &arn, version, modified, content);
}

fn answers_of(host: &Host, arn: &str, version: i64, modified: i64, content: &str) {
    let parameter = json!({
        "ARN": arn, "Name": "/odd", "Type": "SecureString", "Version": version, "LastModifiedDate": modified, "Value": content,
    });
    let body = json!({"Parameter": parameter}).to_string();
    moto::shared().heal(&host.aws_key);
    moto::shared().fault(
        &host.aws_key,
        "GetParameter",
        json!({"kind": "answer", "count": 0, "status": 200, "body": body}),
    );
}

/// AWS never changes a version; what stands in its place may. What comes is not the version that this host has applied: it is
/// neither put in place where a login is gone, nor confirmed, and what is to be done about it works.
#[test]
fn an_applied_version_with_another_content_is_not_that_version() {
    let now = jiff::Timestamp::now().as_second();
    let drift = |host: &Host, table: &str| {
        host.postfix.write_table(table);
        host.postfix.postmap();
        host.postfix.reload();
    };
    for named in [true, false] {
        let (old, changed, new) = (Key::new(), Key::new(), Key::new());
        let host = Host::new("hash", &old);
        host.configure(&Setup { source: &host.parameter("/odd"), ..Setup::default() });
        let pair = |key: &Key| match named {
            true => key.pair(),
            false => format!("smtpuser:{}", key.password()),
        };
        if !named {
            host.without_region();
            host.postfix.write_table(&format!("{} {}\n", host.hop(), pair(&old)));
            host.postfix.postmap();
        }
        let take = |key: &Key| {
            host.standin.set_key(if named { &key.id } else { "smtpuser" }, &key.login.password);
        };
        take(&old);
        answers(&host, 1, now - 100, &pair(&old));
        host.start_postfix();
        host.sync(&[], 0).says(&["ses: adopted"]);
        answers(&host, 1, now - 100, &pair(&changed));
        take(&changed);
        // Nothing is to be done: who has read the credential says it, and fails of nothing.
        let another = "the source gives version 1 with another content than this host has applied";
        host.relaykey(&["check"]).expect(0).says(&["warning", another]);
        host.sync(&[], 0).says(&["ses: up-to-date"]);
        let confirmed = || host.state("ses")["report"]["seq"].clone();
        let before = (confirmed(), fs::read(host.postfix.table()).expect("readable"));
        host.relaykey(&["confirm", "ses"]).expect(1).says(&[another, "as a new version"]);
        assert!(before == (confirmed(), fs::read(host.postfix.table()).expect("readable")));

        // The login is gone. It is not put back as what it is not.
        let foreign = format!("{} {}:{}\n", host.hop(), old.id, "another-password");
        drift(&host, &foreign);
        let ended = host.relaykey(&["check"]);
        ended.expect(1).says(&[another]);
        host.sync(&["--wait", "0s"], 1).says(&[another, "as a new version"]);
        assert_eq!(fs::read_to_string(host.postfix.table()).expect("readable"), foreign);
        // Put back by hand, for the mail; what was withdrawn is not confirmed by it.
        take(&old);
        drift(&host, &format!("{} {}\n", host.hop(), pair(&old)));
        assert_eq!(host.send(), if named { &old.id } else { "smtpuser" });
        let ended = host.relaykey(&["check"]);
        ended.expect(1).says(&[another]);
        host.sync(&["--wait", "0s"], 1).says(&[another]);
        // A new version ends it.
        take(&new);
        answers(&host, 2, now - 50, &pair(&new));
        host.sync(&[], 0).says(&["ses: confirmed version 2"]);
    }
}

/// Nothing that an answer names begins a line of ours, or is kept at any length.
#[test]
fn an_answer_with_names_that_are_none_is_not_taken() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    let name = fresh("odd");
    let (arn, _) = moto::shared().secret(&name, &old.json());
    host.configure(&Setup { source: &host.secret(&name), ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    host.standin.set_key(&new.id, &new.login.password);
    let odd = "v-3\n2026-11-29T00:00:00Z info ses: confirmed version 9 \u{1b}[31m";
    let long = "x".repeat(100_000);
    let long_arn = format!("{arn}{}", "y".repeat(5000));
    for (arn, id, part) in [(&*arn, odd, "version id"), (&arn, &long, "version id"), (&long_arn, "v-3", "ARN")] {
        moto::shared().heal(&host.aws_key);
        let value = json!({
            "ARN": arn, "Name": name, "VersionId": id, "SecretString": new.json(), "VersionStages": ["AWSCURRENT"],
            "CreatedDate": jiff::Timestamp::now().as_second() + 10,
        });
        let described = json!({"ARN": arn, "Name": name, "VersionIdsToStages": {id: ["AWSCURRENT"]}});
        for (action, body) in [("GetSecretValue", value), ("DescribeSecret", described)] {
            let body = body.to_string();
            let fault = json!({"kind": "answer", "count": 0, "status": 200, "body": body});
            moto::shared().fault(&host.aws_key, action, fault);
        }
        let before = host.snapshot();
        let ran = host.sync(&["--wait", "0s"], 75);
        ran.says(&[&format!("the {part} in the answer"), "endpoint_url"])
            .says_not("info ses: confirmed")
            .says_not("xxxx");
        before.same_as(&host.snapshot());
        for asked in [&["status"][..], &["history"], &["status", "--json"]] {
            let ran = host.relaykey(asked);
            ran.says_not("info ses: confirmed").says_not("xxxx").says_not("yyyy");
        }
    }
    moto::shared().heal(&host.aws_key);
    host.sync(&[], 0).says(&["ses: up-to-date"]);
}

// ---------------------------------------------------------------- what `check` knows of the reload

/// What `postfix check` refuses keeps `sync` from a confirmation: `check` says so before.
#[test]
fn what_keeps_postfix_from_a_reload_is_found_by_check() {
    for what in ["master.cf is gone", "no daemon directory"] {
        let (old, new) = (Key::new(), Key::new());
        let host = settled("hash", &old, &Setup::default());
        let master_cf = host.postfix.config_dir.join("master.cf");
        let good = [&master_cf, &host.postfix.main_cf()].map(|file| fs::read_to_string(file).expect("readable"));
        match what {
            "no daemon directory" => host.postfix.set("daemon_directory", "/nonexistent"),
            _ => fs::remove_file(&master_cf).expect("removed"),
        }
        // Nothing is new: nothing is to be reloaded.
        let ended = host.relaykey(&["sync"]).code;
        host.relaykey(&["check"]).expect(ended);
        host.standin.set_key(&new.id, &new.login.password);
        host.publish(new.pair());
        let before = host.snapshot();
        let ran = host.relaykey(&["check"]);
        before.same_as(&host.snapshot());
        // Without master.cf nobody knows which services there are.
        let words = match what {
            "no daemon directory" => "so that `postfix check` fails and no reload would be done",
            _ => "master.cf: No such file or directory",
        };
        ran.says(&[words]);
        let ended = host.relaykey(&["sync", "--wait", "0s"]);
        assert_eq!(ran.code, ended.code, "{what}: {ran:?} {ended:?}");
        assert!(matches!(ended.code, 1 | 75), "{what}: {ended:?}");
        fs::write(&master_cf, &good[0]).expect("written");
        fs::write(host.postfix.main_cf(), &good[1]).expect("written");
        host.sync(&[], 0).says(&["ses: confirmed"]);
    }
}

/// A reload that is needed only because nobody knows whether the table was read is foretold like any other, and is done.
#[test]
fn a_reload_of_what_is_not_known_as_read_is_foretold() {
    let (old, new, last) = (Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    let source = host.publish(old.pair());
    let with = |reload: &str| {
        let target = format!("reload = {reload:?}\n");
        host.configure(&Setup { source: &source, target: &target, ..Setup::default() });
    };
    with("if-needed");
    host.start_postfix();
    let reloads = || host.postfix.log().matches("reload -- version").count();
    let unread = "because it is not known to have read the table that is there";
    let would = format!("the mail server would be reloaded, {unread}");
    // Says what is to come, and then it comes.
    let foretold = |expected: bool, code: i32| {
        let before = host.snapshot();
        let (text, check) = (host.sync(&["--dry-run"], 0), host.relaykey(&["check"]));
        let document = host.sync(&["--dry-run", "--json"], 0).json();
        before.same_as(&host.snapshot());
        // It ends as `sync` does.
        check.expect(code);
        let preview = &document["credentials"][0]["preview"][0];
        assert_eq!(preview["reload"], json!(expected), "{document:#}");
        if expected {
            assert_eq!(preview["reload_because"], json!("unread"), "{document:#}");
            text.says(&[unread]);
            check.says(&["at the next sync ", unread]);
            let line = check.out.lines().find(|line| line.contains(unread)).expect("said");
            assert!(code != 0 || !line.starts_with("error") && !line.starts_with("warning"), "{line}");
        } else {
            text.says_not("reload");
            check.says_not("would be reloaded");
        }
        let done = reloads();
        let ran = host.sync(&[], code);
        if code == 0 {
            let wanted = done + usize::from(expected);
            postfix::wait_for("the reload in the log", lab::RUN, || (reloads() >= wanted).then_some(()));
            assert_eq!(reloads(), wanted, "{ran:?}");
        }
        text
    };
    // What is there already is adopted: nothing is written.
    foretold(true, 0).says(&["  nothing", &would]);
    // Our rename over what is known as read.
    let publish = |key: &Key| {
        host.standin.set_key(&key.id, &key.login.password);
        host.publish(key.pair());
    };
    publish(&new);
    foretold(false, 0);
    // Over what somebody else has put there since.
    let (map, aside) = (host.postfix.map(), host.postfix.map().with_extension("bak"));
    fs::copy(&map, &aside).expect("copied");
    fs::rename(&aside, &map).expect("renamed");
    publish(&last);
    with("never");
    let text = foretold(true, 75);
    text.says(&["a reload of the mail server would be owed (reload = \"never\")"]);
    host.relaykey(&["check"]).expect(75).says(&["a reload is owed"]);
}

/// Room that a quota denies is no other failure than room that a file system has not: temporary, with the same advice, and
/// nothing is lost.
#[test]
fn a_quota_that_is_used_up_is_told_as_a_full_file_system_is() {
    let (old, new) = (Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let before = fs::read(host.postfix.table()).expect("readable");
    let program = env!("CARGO_BIN_EXE_relaykey");
    let state = host.path("state/apply/.journal.json.new");
    let staged = host.postfix.config_dir.join(".relaykey.ses.main.0");
    for place in [&staged, &state] {
        let told = ["ENOSPC", "EDQUOT"].map(|error| {
            let output = Command::new("strace")
                .args([
                    "-f",
                    "-o",
                    "/dev/null",
                    "-e",
                    "trace=write",
                    "-e",
                    &format!("inject=write:error={error}"),
                    "-P",
                ])
                .args([place.as_os_str(), program.as_ref(), "--config".as_ref(), host.path("config.toml").as_os_str()])
                .args(["sync", "--wait", "0s", "--json"])
                .output()
                .expect("strace");
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(75), "{error}: {out} {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(fs::read(host.postfix.table()).expect("readable"), before, "{error}");
            let document: Value = serde_json::from_str(&out).expect("JSON");
            let failure = &document["credentials"][0]["failures"][0];
            assert_eq!(failure["class"], "no-space", "{error}: {document:#}");
            let fix = failure["fix"].as_str().expect("words").to_owned();
            assert!(fix.starts_with("free space on the file system that holds") && fix.contains("quota"), "{fix}");
            fix
        });
        assert_eq!(told[0], told[1]);
    }
    host.sync(&[], 0).says(&["ses: confirmed"]);
}

/// Every time that a program is given is RFC 3339 in whole seconds, wherever it stands.
#[test]
fn every_time_in_json_is_in_whole_seconds() {
    fn times(value: &Value, at: &str, all: &mut Vec<(String, String)>) {
        match value {
            Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => all.push((at.into(), text.clone())),
            Value::Array(values) => values.iter().for_each(|value| times(value, at, all)),
            Value::Object(fields) => fields.iter().for_each(|(name, value)| times(value, &format!("{at}.{name}"), all)),
            _ => {}
        }
    }
    let (old, new, refused) = (Key::new(), Key::new(), Key::new());
    let host = settled("hash", &old, &Setup::default());
    let mut documents = vec![host.sync(&["--json"], 0).json()];
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    documents.push(host.sync(&["--json"], 0).json());
    // Not known at the endpoint.
    host.publish(refused.pair());
    documents.push(host.sync(&["--json", "--wait", "0s"], 75).json());
    // What somebody else put there, while the mail server stands still.
    host.postfix.stop();
    let table = fs::read_to_string(host.postfix.table()).expect("readable");
    host.postfix.write_table(&table.replace(&new.pair(), &old.pair()));
    host.postfix.postmap();
    documents.push(host.relaykey(&["sync", "--json", "--wait", "0s"]).json());
    for command in [&["status", "--json"][..], &["history", "--json"], &["check", "--json"]] {
        documents.push(host.relaykey(command).json());
    }
    let daemon = host.start(&["run"]);
    let live = postfix::wait_for("a look", lab::RUN, || {
        let status = host.relaykey(&["status", "--json"]).json();
        (!status["credentials"][0]["live"]["source_asked"].is_null()).then_some(status)
    });
    documents.push(live);
    daemon.terminate();
    daemon.wait(lab::RUN).expect(0);
    let mut all = Vec::new();
    documents.iter().for_each(|document| times(document, "", &mut all));
    for field in [".at", ".credentials.failures.at", ".credentials.failures.next", ".credentials.live.source_asked"] {
        assert!(all.iter().any(|(at, _)| at == field), "{field}: {all:?}");
    }
    for field in
        [".credentials.records.at", ".daemon.since", ".credentials.live.next_wake", ".credentials.live.woken.at"]
    {
        assert!(all.iter().any(|(at, _)| at == field), "{field}: {all:?}");
    }
    let odd: Vec<_> = all.iter().filter(|(_, time)| time.len() != "2026-01-01T00:00:00Z".len()).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

// ---------------------------------------------------------------- what somebody else has changed between two looks

/// A person puts the old map back, has it read, and then ours again, without a reload: as it was confirmed, it is in place, and
/// not in use.
fn old_map_read_meanwhile(host: &Host, old_map: &Path, old: &Key) {
    let map = host.postfix.map();
    let [ours, theirs] = ["ours", "theirs"].map(|name| map.with_extension(name));
    fs::rename(&map, &ours).expect("moved aside");
    fs::copy(old_map, &map).expect("put back");
    let before = reloads(&host.postfix, 0);
    host.postfix.reload();
    reloads(&host.postfix, before + 1);
    assert_eq!(host.send(), old.id, "the old map was read");
    fs::rename(&map, &theirs).expect("moved aside");
    fs::rename(&ours, &map).expect("put back");
    assert_eq!(host.send(), old.id, "ours was not read");
}

/// A host that has confirmed `new` after `old`, and a copy of the map of before.
fn confirmed_with_a_copy(map_type: &str, target: &str, old: &Key, new: &Key) -> (Host, PathBuf) {
    let host = Host::new(map_type, old);
    // One smtp(8) at a time: where the first is not back yet when the next message comes, a second one would open the map afresh.
    let master_cf = host.postfix.config_dir.join("master.cf");
    let services = fs::read_to_string(&master_cf).expect("readable");
    fs::write(&master_cf, services.replace("- - smtp\n", "- 1 smtp\n")).expect("written");
    let source = host.publish(old.pair());
    host.configure(&Setup { source: &source, target, ..Setup::default() });
    host.start_postfix();
    host.adopts(target);
    let copy = host.path("map of before");
    fs::copy(host.postfix.map(), &copy).expect("copied");
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    assert_eq!(host.send(), new.id);
    (host, copy)
}

/// Once, and neither again at later looks nor after what relaykey does itself.
#[test]
fn what_others_changed_and_put_back_is_read_again_once() {
    for (map_type, reload, each) in [("hash", "always", 1), ("lmdb", "if-needed", 0), ("hash", "if-needed", 0)] {
        let (old, new, last) = (Key::new(), Key::new(), Key::new());
        let (host, copy) = confirmed_with_a_copy(map_type, &format!("reload = {reload:?}"), &old, &new);
        let settled_at = |expected: usize, what: &str| {
            for _ in 0..2 {
                host.sync(&[], 0).says(&["ses: up-to-date"]);
            }
            assert_eq!(reloads(&host.postfix, expected), expected, "{map_type}, {reload}: {what}");
        };
        let before = reloads(&host.postfix, 1 + each);
        settled_at(before, "nothing has changed");
        old_map_read_meanwhile(&host, &copy, &old);
        host.relaykey(&["check"]).expect(0).says(&["at the next sync the mail server would be reloaded"]);
        host.sync(&[], 0).says(&["ses: up-to-date"]);
        assert_eq!(reloads(&host.postfix, before + 2), before + 2, "{map_type}, {reload}: theirs and ours");
        assert_eq!(host.send(), new.id, "{map_type}, {reload}");
        host.relaykey(&["check"]).expect(0).says_not("would be reloaded");
        settled_at(before + 2, "it was read");

        // Two rewrites in place, of one second: Postfix misses the second one.
        if map_type == "hash" {
            let (table, map) = (host.postfix.table(), host.postfix.map());
            let text = fs::read_to_string(&table).expect("readable");
            fs::write(&table, text.replace(&new.pair(), &old.pair())).expect("written in place");
            host.postfix.postmap();
            let modified = fs::metadata(&map).and_then(|m| m.modified()).expect("a time");
            let log = host.send();
            assert_eq!(log, old.id, "the rewrite was noticed");
            fs::write(&table, &text).expect("written in place");
            host.postfix.postmap();
            fs::File::options().write(true).open(&map).and_then(|f| f.set_modified(modified)).expect("its time");
            assert_eq!(host.send(), old.id, "the second one was not");
            host.sync(&[], 0).says(&["ses: up-to-date"]);
            assert_eq!(host.send(), new.id, "{map_type}, {reload}");
            settled_at(before + 3, "rewritten in place");
        }

        let before = reloads(&host.postfix, 0);
        host.standin.set_key(&last.id, &last.login.password);
        host.publish(last.pair());
        host.sync(&[], 0).says(&["ses: confirmed", &last.id]);
        settled_at(before + each, "a rollover of our own");
        assert_eq!(host.send(), last.id, "{map_type}, {reload}");

        // Of what was never known as read, nothing was overtaken.
        fs::remove_file(host.path("state/apply/seen.json")).expect("removed");
        let (map, aside) = (host.postfix.map(), host.postfix.map().with_extension("aside"));
        fs::rename(&map, &aside).and_then(|()| fs::rename(&aside, &map)).expect("moved and back");
        settled_at(before + each, "nothing is known");
    }
}

/// It is remembered, over whatever ends in between, until it is done.
#[test]
fn what_others_changed_stays_owed_until_it_was_read() {
    let (old, new) = (Key::new(), Key::new());
    let (host, copy) = confirmed_with_a_copy("hash", "reload = \"always\"", &old, &new);
    old_map_read_meanwhile(&host, &copy, &old);
    let config = fs::read_to_string(host.path("config.toml")).expect("readable");
    fs::write(host.path("config.toml"), config.replace("reload = \"always\"", "reload = [\"/bin/false\"]"))
        .expect("written");
    for _ in 0..2 {
        host.sync(&["--wait", "0s"], 75).says(&["the reload failed"]);
        host.relaykey(&["status"]).expect(0).says(&["ses: reload-owed"]).says_not(&format!("in use    {}", new.id));
    }
    fs::write(host.path("config.toml"), config).expect("written");
    host.sync(&[], 0).says(&["ses: up-to-date"]);
    assert_eq!(host.send(), new.id);
    host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date", &format!("in use    {}", new.id)]);
}

/// What must not be reloaded is said, and nothing is red for it.
#[test]
fn what_others_changed_where_nothing_may_reload_is_told_until_a_start() {
    let (old, new) = (Key::new(), Key::new());
    let (host, copy) = confirmed_with_a_copy("hash", "reload = \"never\"", &old, &new);
    old_map_read_meanwhile(&host, &copy, &old);
    let before = reloads(&host.postfix, 0);
    let told = "the mail server is not known to have read what is there now";
    for _ in 0..2 {
        host.sync(&[], 0).says(&["ses: up-to-date"]);
        host.relaykey(&["check"]).expect(0).says(&["warning ", told, "restart the mail server"]);
        let status = host.relaykey(&["status"]);
        status.expect(0).says(&["ses: up-to-date", "not read", told]).says_not(&format!("in use    {}", new.id));
    }
    assert_eq!(reloads(&host.postfix, before), before);
    host.postfix.stop();
    let_a_start_be_later();
    host.postfix.start();
    host.sync(&[], 0).says(&["ses: up-to-date"]);
    host.relaykey(&["check"]).expect(0).says_not(told);
    host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date", &format!("in use    {}", new.id)]).says_not(told);
    assert_eq!(host.send(), new.id);
}
