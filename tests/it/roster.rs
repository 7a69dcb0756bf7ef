//! What a host gives to whoever counts hosts: that it is there, that it still uses what it confirmed, and that its login is
//! refused. The real program, a real Postfix, the SES stand-in, a real AWS API server on loopback.

use crate::lab::daemon as running;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::Files as _;

use std::net::{Ipv4Addr, TcpListener};

use lab::{Host, Key, Setup};
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
        let report = |item: &Value| serde_json::from_str(item["report"]["S"].as_str().expect("a text")).expect("JSON");
        items.iter().map(report).collect()
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
    // An endpoint that takes the connection and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = free_port();
    let target = format!("port = {}\n", silent.local_addr().expect("bound").port());
    let source = host.publish(key.pair()) + NEVER;
    let (smtp, more) = ("timeout = \"60s\"\n", health(port) + &table.receiver());
    host.configure(&Setup { source: &source, smtp, target: &target, more: &more });
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
    let status = daemon.credential("ses");
    assert_eq!((&status["live"]["step"], &status["applied"]), (&json!("verify"), &Value::Null), "{status}");
    daemon.ends(SOON);
    // Once is enough: it goes on to what there is to say.
    host.configure(&Setup { source: &source, more: &more, ..Setup::default() });
    let daemon = host.run_configured(port);
    let adopted = wait_for("the adoption in the table", 2 * SOON, || {
        table.reports().pop().filter(|report| report["outcome"] != "hello")
    });
    assert_eq!(adopted["outcome"], "adopted", "{adopted}");
    daemon.ends(SOON);
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
        Some(status["credentials"][0]["reports_owed"].clone()).filter(|owed| owed[0]["owed"] == 1)
    });
    assert_eq!(owed[0]["receiver"], "fleet", "{owed}");
    let state = host.state("ses");
    assert_eq!(state["outbox"]["fleet"]["owed"][0]["outcome"], "adopted", "{}", state["outbox"]);
    daemon.ends(SOON);
}
