//! `relaykey sync`, the real program, against real Postfix, a real AWS API server and the SES stand-in.

#[path = "lab/relaykey.rs"]
mod lab;
#[path = "lab/moto.rs"]
mod moto;
#[path = "lab/postfix.rs"]
mod postfix;

use lab::{Host, Key, Setup, fresh, next_second};

// ---------------------------------------------------------------- a rollover, from each source, with each kind of map

/// A host that uses the first key already and has adopted it; then the second one is published, and comes into use;
/// then the first one is deactivated, and mail still passes.
fn roll_over(map_type: &str, source: impl FnOnce(&Host, &Key) -> String, publish: impl FnOnce(&Host, &Key)) {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new(map_type, &old);
    let source = source(&host, &old);
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.postfix.start();
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
    assert!(host.postfix.queue().is_empty());
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
