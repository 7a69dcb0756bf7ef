//! Two regions of one IAM key: `relaykey sync`, against two stand-ins, each of which knows its own region's password alone.

use crate::lab::postfix::Instance;
use crate::lab::relaykey::{Host, Key, Setup, keep_secret};
use crate::lab::scratch::Files as _;

use std::fs;
use std::time::Duration;

use relaykey::credential::{Secret, ses_smtp_password};
use relaykey::standin::{Options, Standin};

/// The second region; the first one is the lab's.
const FURTHER: &str = "ap-south-1";

fn further_password(key: &Key) -> Secret {
    let password = ses_smtp_password(&Secret::new(key.secret.clone()), FURTHER);
    keep_secret(password.expose());
    password
}

struct Lab {
    host: Host,
    further: Standin,
}

impl Lab {
    /// Mail goes to the second region where the first one does not answer, and both logins of this key stand in one table.
    fn new(key: &Key, target: &str) -> Self {
        let further = Standin::start(Options::default()).expect("a second stand-in");
        let hop = format!("[127.0.0.1]:{}", further.starttls_port());
        let host = Host::with("hash", |first| Some(format!("{first} {}\n{hop} {}\n", key.pair(), Self::pair(key))));
        host.dir.file("ca.pem", format!("{}{}", host.standin.ca_pem(), further.ca_pem()));
        host.postfix.set("smtp_fallback_relay", &hop);
        host.standin.set_key(&key.id, &key.login.password);
        further.set_key(&key.id, &further_password(key));
        let smtp = format!(
            "propagation = \"0s\"\n[[credential.smtp.also]]\nendpoint = \"127.0.0.1\"\nport = {}\nregion = {FURTHER:?}\n",
            further.starttls_port()
        );
        let source = host.publish(key.iam_json());
        host.configure(&Setup { source: &source, smtp: &smtp, target, ..Setup::default() });
        host.start_postfix();
        host.adopts(target);
        Self { host, further }
    }

    fn pair(key: &Key) -> String {
        format!("{}:{}", key.id, further_password(key).expose())
    }

    fn table(&self) -> String {
        fs::read_to_string(self.host.postfix.table()).unwrap()
    }

    /// With the logins of this key.
    fn table_of(&self, key: &Key) -> String {
        let further = format!("[127.0.0.1]:{}", self.further.starttls_port());
        format!("{} {}\n{further} {}\n", self.host.hop(), key.pair(), Self::pair(key))
    }

    fn has_logged_in(standin: &Standin, key: &Key) -> Vec<bool> {
        standin.logins().iter().filter(|login| login.username == key.id).map(|login| login.accepted).collect()
    }
}

#[test]
fn both_endpoints_take_the_login_before_anything_is_changed() {
    let (old, new) = (Key::new(), Key::new());
    let Lab { host, further } = &Lab::new(&old, "");
    let lab = |key: &Key| Lab::has_logged_in(further, key);
    assert_eq!(lab(&old), [true], "the adoption has asked both");
    let before = host.snapshot();
    // The second region does not know the new key.
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.iam_json());
    host.sync(&["--wait", "0s"], 1).says(&["127.0.0.1 refused the credential"]).says_not("localhost refused");
    before.same_as(&host.snapshot());
    assert_eq!((Lab::has_logged_in(&host.standin, &new), lab(&new)), (vec![true], vec![false]));
    let check = host.relaykey(&["check"]);
    check.expect(1).says(&["127.0.0.1", "refused the credential"]);

    further.set_key(&new.id, &further_password(&new));
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    assert_eq!(host.send(), new.id);
    let state = host.state("ses");
    let told = &state["report"]["targets"][0];
    assert_eq!(
        (told["region"].as_str(), told["remaining_old"].as_array().map(Vec::len)),
        (Some(crate::lab::relaykey::REGION), Some(0))
    );
    // At rest: nothing is changed any more, and nobody logs in.
    let (settled, logins) = (host.snapshot(), (host.standin.logins().len(), further.logins().len()));
    host.sync(&[], 0).says(&["ses: up-to-date"]);
    settled.same_as(&host.snapshot());
    assert_eq!((host.standin.logins().len(), further.logins().len()), logins);
}

#[test]
fn what_hangs_in_one_region_is_said_and_changes_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new(&old, "");
    lab.host.standin.set_key(&new.id, &new.login.password);
    lab.host.publish(new.iam_json());
    let before = lab.host.snapshot();
    drop(lab.further);
    lab.host.sync(&["--wait", "0s"], 75).says(&["127.0.0.1: no login"]);
    before.same_as(&lab.host.snapshot());
    assert_eq!(Lab::has_logged_in(&lab.host.standin, &new), [true], "the other one was asked all the same");
}

#[test]
fn a_probe_goes_out_in_each_region() {
    let (old, new) = (Key::new(), Key::new());
    let Lab { host, further } = &Lab::new(&old, "");
    let path = host.path("config.toml");
    let probe = "probe = { from = \"postmaster@example.com\", to = \"success@simulator.amazonses.com\" }\n";
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("name = \"ses\"\n", &format!("name = \"ses\"\n{probe}"), 1)).unwrap();
    host.standin.set_key(&new.id, &new.login.password);
    further.set_key(&new.id, &further_password(&new));
    // The policy allows sending in the first region alone.
    further.deny_sending(&new.id);
    host.publish(new.iam_json());
    let before = host.snapshot();
    host.sync(&["--wait", "1s"], 1).says(&["127.0.0.1: ", "554"]);
    before.same_as(&host.snapshot());

    further.set_key(&new.id, &further_password(&new));
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    let probed = |standin: &Standin| {
        let messages = standin.messages();
        let probes: Vec<_> = messages.iter().filter(|m| m.from == "postmaster@example.com").collect();
        probes.last().map(|m| m.username.clone())
    };
    assert_eq!((probed(&host.standin), probed(further)), (Some(new.id.clone()), Some(new.id.clone())));
}

#[test]
fn a_person_is_told_which_password_goes_where() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new(&old, "write = false\n");
    lab.host.standin.set_key(&new.id, &new.login.password);
    lab.further.set_key(&new.id, &further_password(&new));
    lab.host.publish(new.iam_json());
    let first = format!("{} by {}:*** (the password for {})", lab.host.hop(), new.id, crate::lab::relaykey::REGION);
    let second = format!("[127.0.0.1]:{} by {}:*** (the password for {FURTHER})", lab.further.starttls_port(), new.id);
    lab.host.sync(&["--wait", "0s"], 3).says(&[&first, &second]);
    // The one in the place of the other.
    let swapped =
        format!("{} {}\n[127.0.0.1]:{} {}\n", lab.host.hop(), Lab::pair(&new), lab.further.starttls_port(), new.pair());
    by_hand(&lab.host.postfix, &swapped);
    lab.host.sync(&["--wait", "0s"], 3).says(&["and its password for ap-south-1"]);
    by_hand(&lab.host.postfix, &lab.table_of(&new));
    lab.host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    assert_eq!(lab.table(), lab.table_of(&new));
    lab.host.postfix.queue_empty(Duration::from_secs(20));
}

fn by_hand(postfix: &Instance, table: &str) {
    postfix.write_table(table);
    postfix.postmap();
}
