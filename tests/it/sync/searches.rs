//! What is in use is what the services of the mail server find, whichever of their tables gives it.

use super::*;

/// A host that has confirmed its second key.
fn confirmed(map_type: &str) -> (Host, Key) {
    let (old, new) = (Key::new(), Key::new());
    let host = settled(map_type, &old, &Setup::default());
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    host.sync(&[], 0).says(&["ses: confirmed"]);
    (host, new)
}

fn ours(host: &Host) -> String {
    host.postfix.table_id().as_str().to_owned()
}

#[test]
fn another_login_that_answers_first_is_what_is_in_use() {
    for maps in ["regexp:FILE, OURS", "unionmap:{texthash:FILE}, OURS"] {
        let (host, new) = confirmed("lmdb");
        let other = Key::new();
        host.standin.set_key(&other.id, &other.login.password);
        let (file, ours) = (host.path("first"), ours(&host));
        let line = match maps.starts_with("regexp") {
            true => format!("/./ {}\n", other.pair()),
            false => format!("{} {}\n", host.hop(), other.pair()),
        };
        fs::write(&file, line).expect("written");
        postfix::cool_down(&file);
        let set = maps.replace("FILE", file.to_str().expect("UTF-8")).replace("OURS", &ours);
        host.postfix.set("smtp_sasl_password_maps", &set);
        host.postfix.reload();
        assert_eq!(host.send(), other.id, "{maps}");
        let named = &maps[..maps.find(':').expect("a type")];
        host.sync(&[], 1).says(&[named, &other.id, "mail goes out with it"]);
        host.relaykey(&["check"]).expect(1).says(&[named, &other.id, "mail goes out with it"]);
        host.relaykey(&["status"]).expect(0).says(&["ses: drift", &other.id]).says_not("with another password");
        host.relaykey(&["history"]).expect(0).says(&["withdrawal"]);
        // And put right it is confirmed anew.
        host.postfix.set("smtp_sasl_password_maps", &ours);
        host.postfix.reload();
        host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
        assert_eq!(host.send(), new.id, "{maps}");
    }
}

#[test]
fn nothing_is_confirmed_where_a_login_table_cannot_be_read() {
    let (host, new) = confirmed("lmdb");
    let (none, ours) = (host.path("none"), ours(&host));
    let set = format!("{ours}, hash:{}", none.display());
    host.postfix.set("smtp_sasl_password_maps", &set);
    host.postfix.reload();
    let words = [none.to_str().expect("UTF-8"), "waits in the queue"];
    host.sync(&[], 1).says(&words);
    host.relaykey(&["check"]).expect(1).says(&words);
    host.relaykey(&["confirm", "ses"]).expect(1).says(&words);
    let third = Key::new();
    host.standin.set_key(&third.id, &third.login.password);
    host.publish(third.pair());
    host.sync(&[], 1).says(&words).says_not("confirmed,");
    let text = fs::read_to_string(host.postfix.table()).expect("readable");
    assert!(text.contains(&new.pair()), "it was changed");
    let status = host.relaykey(&["status", "--json"]).expect(0).json();
    assert_eq!(status["credentials"][0]["not_ready"][0]["class"], json!("failing"), "{status}");
    // Mended, it goes on.
    host.postfix.set("smtp_sasl_password_maps", &ours);
    host.postfix.reload();
    host.sync(&[], 0).says(&["ses: confirmed", &third.id]);
    assert_eq!(host.send(), third.id);
}
