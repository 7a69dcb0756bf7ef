//! A machine that is copied with its state directory, the real program on both: each in a mount and host-name namespace
//! of its own, with a machine id of its own. The original owes a report; the copy must not send it, and adopts anew.

use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::Files as _;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lab::{Host, Key, Program, RUN, Ran, Setup, fresh};
use postfix::wait_for;
use serde_json::{Value, json};

/// The longest that the daemon may take to do something here.
const SOON: Duration = Duration::from_secs(20);
const MACHINE_A: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4\n";
const MACHINE_B: &str = "b77e19c7c4c5404aaa1f6d2a48adfdb5\n";
/// Runs the program on the machine whose description is in the directory `$0`.
const ON_MACHINE: &str = r#"exec unshare --mount --uts --propagation private sh -c '
    mount --bind "$0/machine-id" /etc/machine-id && hostname "$(cat "$0/name")" || exit 99
    if [ -e "$0/read-only" ]; then
        mount --bind "$(cat "$0/read-only")" "$(cat "$0/read-only")" &&
        mount -o remount,bind,ro "$(cat "$0/read-only")" || exit 99
    fi
    exec "$@"' "$0" "$@""#;

/// One machine that shares the host's Postfix, with a state directory and rights at AWS of its own.
struct Machine {
    dir: PathBuf,
    config: PathBuf,
    state: PathBuf,
    aws_key: String,
}

impl Machine {
    /// The configuration of the host, with these directories in place of its own, and no name: the machine's own counts.
    fn new(host: &Host, what: &str, machine_id: &str) -> Self {
        let dir = host.path(what);
        fs::create_dir(&dir).expect("a directory");
        fs::write(dir.join("machine-id"), machine_id).expect("written");
        fs::write(dir.join("name"), format!("{what}.example.com\n")).expect("written");
        let text = fs::read_to_string(host.path("config.toml")).expect("a configuration");
        let text = text
            .replace("name = \"mx1.example.com\"\n", "")
            .replace(&format!("{:?}", host.path("state")), &format!("{:?}", dir.join("state")))
            .replace(&format!("{:?}", host.path("run")), &format!("{:?}", dir.join("run")));
        let config = host.dir.file(&format!("{what}/config.toml"), &text);
        let state = dir.join("state");
        Self { dir, config, state, aws_key: Key::new().id }
    }

    fn copy_state_of(&self, other: &Machine) {
        let status = Command::new("cp").arg("-a").arg(&other.state).arg(&self.state).status().expect("cp runs");
        assert!(status.success());
    }

    fn start(&self, arguments: &[&str]) -> Program {
        let config = self.config.to_str().expect("a path in UTF-8");
        let all = [&["--config", config], arguments].concat();
        let env = [("AWS_ACCESS_KEY_ID", self.aws_key.as_str()), ("AWS_SECRET_ACCESS_KEY", "of-no-importance")];
        Program::start_in_shell(ON_MACHINE, &self.dir, &all, &env, b"")
    }

    /// The daemon, once it can be asked.
    fn daemon(&self) -> Program {
        let socket = self.dir.join("run/control.sock");
        assert!(!socket.exists(), "left by the one before");
        let daemon = self.start(&["run"]);
        wait_for("the daemon's socket", SOON, || socket.exists().then_some(()));
        daemon
    }

    fn relaykey(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).wait(RUN)
    }

    fn json(&self, file: &str) -> Value {
        let path = self.state.join(file);
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&text).expect("JSON")
    }

    fn credential(&self) -> Value {
        self.json("credentials/ses.json")
    }

    fn host_id(&self) -> String {
        self.json("host.json")["host_id"].as_str().expect("a text").to_owned()
    }

    fn owed(&self) -> usize {
        self.credential()["outbox"]["fleet"]["owed"].as_array().expect("a list").len()
    }

    /// How often it has put something into Parameter Store, or tried to.
    fn puts(&self) -> usize {
        let calls = moto::shared().calls(&self.aws_key);
        calls.iter().filter(|call| call["action"] == "PutParameter").count()
    }

    fn is_denied(&self) {
        let denied = json!({"kind": "error", "status": 500, "code": "InternalServerError", "message": "x", "count": 0});
        moto::shared().fault(&self.aws_key, "PutParameter", denied);
    }
}

/// Every record of `relaykey history`, the latest first: what and outcome.
fn history(machine: &Machine) -> Vec<(String, String)> {
    let told = machine.relaykey(&["history", "--json"]).expect(0).json();
    let records = told["credentials"][0]["records"].as_array().expect("a list").clone();
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    records.iter().map(|r| (text(&r["what"]), text(&r["outcome"]))).collect()
}

/// The report that is at the place of this machine.
fn reported(path: &str, what: &str) -> Option<Value> {
    let names = json!({"Names": [format!("{path}/ses/{what}.example.com")], "WithDecryption": true});
    let found = moto::shared().call("AmazonSSM.GetParameters", names);
    serde_json::from_str(found["Parameters"][0]["Value"].as_str()?).ok()
}

/// A host that has adopted one credential and rolled over to another, and whose report does not get through.
fn original(key: &Key) -> (Host, Machine, String) {
    let old = Key::new();
    let host = Host::new("hash", &old);
    let path = format!("/{}", fresh("clone"));
    let report = format!(
        "[[report]]\nname = \"fleet\"\ntype = \"parameter-store\"\npath = {path:?}\nregion = {:?}\nendpoint_url = {:?}\n",
        moto::REGION,
        moto::shared().endpoint()
    );
    let source = host.publish(old.pair());
    host.configure(&Setup { source: &source, more: &report, ..Setup::default() });
    host.start_postfix();
    let machine = Machine::new(&host, "original", MACHINE_A);
    machine.is_denied();
    machine.relaykey(&["sync"]).expect(0).says(&["ses: adopted", "stays owed"]);
    host.standin.set_key(&key.id, &key.login.password);
    host.publish(key.pair());
    machine.relaykey(&["sync"]).expect(0).says(&["ses: confirmed", "stays owed"]);
    assert_eq!((machine.owed(), machine.credential()["host_id"].as_str()), (1, Some(machine.host_id().as_str())));
    (host, machine, path)
}

#[test]
fn a_copy_is_an_installation_of_its_own_and_the_original_is_not_touched() {
    let key = Key::new();
    let (host, original, path) = original(&key);
    let copy = Machine::new(&host, "copy", MACHINE_B);
    copy.copy_state_of(&original);
    let before = lab::Snapshot::of(&original.state);
    let (tables, seq) = (host.snapshot(), original.credential()["seq"].as_u64().expect("a number"));
    let original_id = original.host_id();

    // One that only looks tells it, and changes nothing.
    let copied = lab::Snapshot::of(&copy.state);
    let told = copy.relaykey(&["status", "--json"]).expect(0).json();
    assert_eq!(told["clone_of"]["host_id"], original_id);
    copy.relaykey(&["sync", "--dry-run"]).expect(0);
    copied.same_as(&lab::Snapshot::of(&copy.state));

    let ran = copy.relaykey(&["sync"]);
    ran.expect(0).says(&["ses: adopted", "reported to fleet"]);
    ran.says(&[
        &format!("this is a copy of the installation {original_id}, on another machine"),
        "the report that it owed is not sent from here, and the credential is adopted anew",
        "fix: nothing, if this machine was made from the other one",
    ]);
    tables.same_as(&host.snapshot());
    let (identity, state) = (copy.json("host.json"), copy.credential());
    let id = copy.host_id();
    assert_ne!(id, original_id);
    assert_eq!(
        (&identity["clone_of"]["host_id"], &identity["name"]),
        (&json!(original_id), &json!("copy.example.com"))
    );
    assert_eq!((copy.owed(), &state["host_id"], &state["applied"]["outcome"]), (0, &json!(id), &json!("adopted")));
    assert!(state["seq"].as_u64() > Some(seq), "numbers go on");
    // The one report that went out is its own.
    let report = reported(&path, "copy").expect("a report");
    assert_eq!((&report["host_id"], &report["outcome"]), (&json!(id), &json!("adopted")));
    assert_eq!((&report["host"], &report["seq"]), (&json!("copy.example.com"), &state["seq"]));
    assert_eq!((copy.puts(), reported(&path, "original")), (1, None));

    // It is to be seen.
    let notice = format!("this installation is a copy of {original_id}, noticed ");
    copy.relaykey(&["status"]).expect(0).says(&[&notice, "ses: up-to-date"]);
    assert_eq!(history(&copy)[..2], [("adoption".into(), "adopted".into()), ("clone".into(), "done".into())]);
    copy.relaykey(&["history"]).expect(0).says(&["clone: this is a copy of the installation"]);
    copy.relaykey(&["history", "--verify"]).expect(0).says(&["as it was written"]);

    // Once.
    copy.relaykey(&["sync"]).expect(0).says(&["ses: up-to-date"]).says_not("copy");
    assert_eq!((copy.host_id(), copy.puts()), (id, 1));
    assert_eq!(history(&copy).iter().filter(|(what, _)| what == "clone").count(), 1);

    // The original, on its own machine, goes on as if nothing had been; what it owes it delivers.
    before.same_as(&lab::Snapshot::of(&original.state));
    original.relaykey(&["status"]).expect(0).says_not("copy");
    moto::shared().heal(&original.aws_key);
    original.relaykey(&["sync"]).expect(0).says(&["ses: up-to-date", "reported to fleet"]).says_not("copy");
    let report = reported(&path, "original").expect("a report");
    assert_eq!((&report["host_id"], &report["outcome"]), (&json!(original_id), &json!("confirmed")));
    assert_eq!((original.host_id(), original.credential()["report"]["seq"].as_u64()), (original_id, Some(seq)));
    assert!(history(&original).iter().all(|(what, _)| what != "clone"));
}

#[test]
fn a_copied_daemon_sends_nothing_of_the_originals_even_while_it_cannot_write_its_state() {
    let key = Key::new();
    let (host, original, path) = original(&key);
    let copy = Machine::new(&host, "copy", MACHINE_B);
    copy.copy_state_of(&original);
    // What is owed is due at once.
    let file = copy.state.join("credentials/ses.json");
    let mut state = copy.credential();
    state["outbox"]["fleet"]["retry"]["next"] = Value::Null;
    fs::write(&file, state.to_string()).expect("written");

    let read_only = copy.dir.join("read-only");
    fs::write(&read_only, copy.state.join("credentials").to_str().expect("UTF-8")).expect("written");
    let daemon = copy.daemon();
    // Between two of these it attends to what is owed.
    for _ in 0..4 {
        copy.relaykey(&["sync", "--wait", "0s"]).says(&["Read-only file system"]);
    }
    daemon.terminate();
    daemon.wait(SOON).expect(0);
    assert_eq!((copy.puts(), copy.owed()), (0, 1));

    fs::remove_file(&read_only).expect("there");
    let daemon = copy.daemon();
    let report = wait_for("the copy's own report", SOON, || {
        // The first attempts of a fleet are spread; who asks need not wait for that.
        copy.relaykey(&["sync"]);
        reported(&path, "copy").filter(|report| report["outcome"] != "hello")
    });
    assert_eq!((&report["host_id"], &report["outcome"]), (&json!(copy.host_id()), &json!("adopted")));
    let told = copy.relaykey(&["status", "--json"]).expect(0).json();
    assert!(told["daemon"].is_object(), "{told:#}");
    assert_eq!(told["clone_of"]["host_id"], original.host_id());
    copy.relaykey(&["status"]).expect(0).says(&["this installation is a copy of"]);
    daemon.terminate();
    daemon.wait(SOON).expect(0);
    // That it is there, and what it found.
    assert_eq!((copy.puts(), reported(&path, "original")), (2, None));
}
