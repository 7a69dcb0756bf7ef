//! What a host gives to whoever counts hosts: that it is there, that it still uses what it confirmed, and that its login is
//! refused. The real program, a real Postfix, the SES stand-in, a real AWS API server on loopback.

use crate::lab::book;
use crate::lab::daemon as running;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::Files as _;

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use book::Book;
use lab::{Host, Key, Program, RUN, Setup};
use postfix::{free_port, wait_for};
use running::{NEVER, SOON, health};
use serde_json::{Value, json};

/// A table as the documentation makes it, and the `[[report]]` that goes there.
struct Table(String);

impl Table {
    fn new() -> Self {
        let name = lab::fresh("roster");
        let [partition, sort] = ["credential", "host"];
        moto::shared().call(
            "DynamoDB_20120810.CreateTable",
            json!({
                "TableName": name, "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [
                    {"AttributeName": partition, "AttributeType": "S"}, {"AttributeName": sort, "AttributeType": "S"},
                ],
                "KeySchema": [
                    {"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"},
                ],
            }),
        );
        Self(name)
    }

    fn receiver(&self) -> String {
        receiver(&self.0, &moto::shared().endpoint())
    }

    /// The reports that stand there.
    fn reports(&self) -> Vec<Value> {
        let found = moto::shared().call("DynamoDB_20120810.Scan", json!({"TableName": self.0}));
        let items = found["Items"].as_array().expect("a list");
        // The server makes an item attribute by attribute, and may be asked in between.
        let report = |item: &Value| serde_json::from_str(item["report"]["S"].as_str()?).ok();
        items.iter().filter_map(report).collect()
    }
}

fn receiver(table: &str, endpoint: &str) -> String {
    format!(
        "[[report]]\nname = \"fleet\"\ntype = \"dynamodb\"\ntable = {table:?}\nregion = {:?}\nendpoint_url = {endpoint:?}\n",
        moto::REGION
    )
}

#[test]
fn a_new_host_says_that_it_is_there_while_its_first_version_takes_long() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let table = Table::new();
    // A source that takes the connection and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = free_port();
    let at = silent.local_addr().expect("bound");
    let source = format!(
        "type = \"parameter-store\"\nparameter = \"/ses\"\nregion = {:?}\nendpoint_url = \"http://{at}\"\n{NEVER}",
        moto::REGION
    );
    let more = health(port) + &table.receiver();
    host.configure(&Setup { source: &source, more: &more, ..Setup::default() });
    // One that comes and goes.
    let config = std::fs::read_to_string(host.path("config.toml")).expect("read");
    host.dir.file("config.toml", config.replacen("[host]\n", "[host]\nlease = \"1h\"\n", 1));
    let daemon = running::Daemon { host: &host, program: host.start(&["run"]), port };
    let hello = wait_for("the host in the table", SOON, || table.reports().pop());
    let of = |name: &str| hello[name].as_str().expect("a text").to_owned();
    assert_eq!(
        [of("outcome"), of("host"), of("credential"), of("version"), of("username")],
        ["hello", "mx1.example.com", "ses", "", ""].map(str::to_owned)
    );
    assert_eq!((&hello["targets"], &hello["latest"], &hello["lease_s"]), (&json!([]), &Value::Null, &json!(3600)));
    let applied = daemon.shows("a run under way", SOON, |status| {
        let ses = &status["credentials"][0];
        ses["live"]["step"].is_string().then(|| ses["applied"].clone())
    });
    assert_eq!(applied, Value::Null);
    daemon.ends(SOON);
    // Once is enough: it goes on to what there is to say.
    let source = host.publish(key.pair()) + NEVER;
    host.configure(&Setup { source: &source, more: &more, ..Setup::default() });
    let daemon = host.run_configured(port);
    let adopted = wait_for("the adoption in the table", 2 * SOON, || {
        table.reports().pop().filter(|report| report["outcome"] != "hello")
    });
    assert_eq!(adopted["outcome"], "adopted", "{adopted}");
    daemon.ends(SOON);
}

#[test]
fn a_sign_of_life_proves_that_the_login_is_still_in_use() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let book = Book::new();
    host.configure(&Setup { source: &host.publish(key.pair()), more: &book.receiver(), ..Setup::default() });
    host.sync(&[], 0).says(&["ses: adopted"]);
    let a_day_later = || {
        let (path, mut state) = (host.path("state/credentials/ses.json"), host.state("ses"));
        state["alive_due"] = "2026-01-01T00:00:00Z".into();
        std::fs::write(path, state.to_string()).expect("written");
        host.sync(&[], 0);
        book.reports().pop().expect("a report")
    };
    let alive = a_day_later();
    let [adopted, _] = &book.reports()[..] else { panic!("{:?}", book.reports()) };
    assert_eq!((&alive["outcome"], &alive["latest"]), (&json!("alive"), adopted));
    let (now, then) = (&alive["targets"][0], &adopted["targets"][0]);
    for same in ["name", "map", "tables", "keys", "region", "evidence"] {
        assert_eq!(now[same], then[same], "{same}");
    }
    assert_ne!(now["proof"], then["proof"], "made over this report");
    let lines = lab::proof_lines(&alive, now).join("\n") + "\n";
    let made = hmac(key.password(), &lines);
    assert_eq!(now["proof"], made.as_str(), "{lines}");
    let verify = |key: &Key, document: &Value| {
        host.dir.file("held", key.password());
        let arguments = ["verify-proof", "--password-fd", "3"];
        Program::start_with_descriptor(&arguments, &host.path("held"), document.to_string().as_bytes()).wait(RUN)
    };
    verify(&key, &alive).expect(0).says(&["alive, seq "]);
    verify(&Key::new(), &alive).expect(1);
    let mut forged = alive.clone();
    forged["at"] = "2026-01-01T00:00:00Z".into();
    verify(&key, &forged).expect(1);
    // Somebody has changed what is there, and it stays: nothing is proved of that.
    host.configure(&Setup {
        source: &host.publish(key.pair()),
        target: "drift = \"report\"\n",
        more: &book.receiver(),
        ..Setup::default()
    });
    host.postfix.write_table(&format!("{} {}\n", host.hop(), Key::new().pair()));
    host.postfix.postmap();
    host.sync(&[], 1);
    assert_eq!(book.reports().pop().expect("one")["outcome"], "withdrawn");
}

/// The mail log hints at it, two logins of relaykey's own prove it; then it is told, and taken back, until it is taken again.
#[test]
fn that_the_login_in_use_is_refused_is_told_and_its_end_confirmed() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let book = Book::new();
    let port = free_port();
    let source = host.publish(key.pair()) + NEVER;
    let more = health(port) + &book.receiver();
    let smtp = "retry = \"1s\"\npropagation = \"0s\"\n";
    host.configure(&Setup { source: &source, smtp, more: &more, ..Setup::default() });
    let daemon = host.run_configured(port);
    let reported = |outcome: &str, limit| {
        wait_for(outcome, limit, || book.reports().pop().filter(|report| report["outcome"] == outcome))
    };
    reported("adopted", SOON);
    host.standin.deactivate(&key.id);
    host.postfix.inject_from("dead@lab.invalid", 1);
    host.postfix.wait_for_log(&["status=deferred", "535"], lab::DELIVERY);
    daemon.shows("that the key in use is refused", 3 * SOON, |status| {
        // The log is followed since the daemon has found it: it is refused once more.
        host.postfix.flush();
        status["credentials"][0]["applied_refused"].is_object().then_some(())
    });
    let told = reported("applied-refused", SOON);
    let refused = daemon.credential("ses")["applied_refused"].clone();
    let words = told["error"]["what"].as_str().expect("words");
    let begins = format!(
        "localhost refuses the key in use, {}, since {}: 535 ",
        key.id,
        refused["since"].as_str().expect("a time")
    );
    assert!(words.starts_with(&begins), "{words}\n{begins}");
    assert_eq!(
        (&told["error"]["class"], &told["username"], &told["in_use"], &told["latest"], &told["targets"]),
        (&json!("applied-refused"), &json!(key.id), &json!([key.id]), &Value::Null, &json!([]))
    );
    daemon.agrees(Some("applied-refused"), "refuses the key in use", SOON);
    // What comes after it in a place of one document does not hide it.
    host.publish(Key::new().pair());
    let failed = reported("failed", SOON);
    assert_eq!(failed["latest"], told);
    host.publish(key.pair());
    host.standin.activate(&key.id);
    host.sync(&[], 0).says(&["ses: confirmed"]);
    let confirmed = reported("confirmed", SOON);
    assert_eq!((&confirmed["username"], &host.state("ses")["refused"]), (&json!(key.id), &Value::Null));
    assert!(confirmed["targets"][0]["proof"].is_string(), "{confirmed}");
    let outcomes: Vec<Value> = book.reports().iter().map(|report| report["outcome"].clone()).collect();
    assert_eq!(outcomes, ["adopted", "applied-refused", "failed", "confirmed"]);
    daemon.agrees(None, "", SOON);
    daemon.ends(SOON);
}

fn hmac(password: &str, text: &str) -> String {
    let script = "import base64, hmac, sys; p, t = sys.stdin.buffer.read().split(b'\\n', 1); \
                  print(base64.b64encode(hmac.new(p, t, 'sha256').digest()).decode(), end='')";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    write!(child.stdin.take().expect("piped"), "{password}\n{text}").expect("written");
    String::from_utf8(child.wait_with_output().expect("it ends").stdout).expect("text")
}

#[test]
fn where_the_table_gives_no_answer_the_first_version_does_not_wait_for_it() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let endpoint = format!("http://127.0.0.1:{}", silent.local_addr().expect("bound").port());
    let port = free_port();
    let source = host.publish(key.pair()) + NEVER;
    let more = health(port) + &receiver("relaykey", &endpoint);
    host.configure(&Setup { source: &source, more: &more, ..Setup::default() });
    let daemon = running::Daemon { host: &host, program: host.start(&["run"]), port };
    daemon.applied(&key);
    let owed = daemon.shows("what is owed", SOON, |status| {
        Some(status["credentials"][0]["reports_owed"].clone()).filter(|owed| owed[0]["count"] == 1)
    });
    assert_eq!(owed[0]["receiver"], "fleet", "{owed}");
    let state = host.state("ses");
    assert_eq!(state["outbox"]["fleet"]["owed"][0]["outcome"], "adopted", "{}", state["outbox"]);
    daemon.ends(SOON);
}
