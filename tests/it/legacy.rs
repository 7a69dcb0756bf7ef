//! Hosts that ran relaykey 0.1.0 go on with this one: state files, journal, audit log and owed reports as that release
//! wrote them, in `tests/legacy/0.1.0`, one directory per case, and the login table beside them.
//!
//! They were recorded by that release itself, with `RELAYKEY_RECORD_WITH=PROGRAM cargo test --test it legacy:: -- --ignored`. What
//! differs from one run to the next (directories, the stand-in's port) stands in them as `@DIR@`, `@POSTFIX@` and `@PORT@`.
//! Each program sees a machine id of its own, since state is bound to one.

use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::Files as _;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Host, Key, Program, RUN, Ran, Setup, let_a_start_be_later};
use postfix::wait_for;
use relaykey::credential::{Login, Secret, ses_smtp_password};
use serde_json::Value;

/// The longest that anything here may take.
const SOON: Duration = Duration::from_secs(20);
const MACHINE: &str = "5e1219c7c4c5404aaa1f6d2a48adfda4\n";
/// Runs the program on a machine of this id, which is no cloud instance.
const ON_MACHINE: &str = r#"exec unshare --mount --propagation private sh -c '
    mount --bind "$0/machine-id" /etc/machine-id || exit 99
    for hidden in /sys/devices/virtual/dmi/id /var/lib/cloud; do
        [ ! -d $hidden ] || mount -t tmpfs none $hidden || exit 99
    done
    exec "$@"' "$0" "$@""#;

/// A host of one case, new or taken up where the old release left it.
struct Case {
    host: Host,
    name: &'static str,
}

/// What is special about a case.
#[derive(Clone, Copy, Default)]
struct Kind {
    map_type: &'static str,
    credential: &'static str,
    target: &'static str,
    more: &'static str,
}

/// `PROGRAM` is replaced by the path of the receiver's program.
const REPORT: &str = "[[report]]\nname = \"fleet\"\ntype = \"exec\"\ncommand = [\"PROGRAM\"]\n";

const APPLIED: (&str, Kind) = ("applied", Kind { map_type: "hash", credential: "", target: "", more: REPORT });
const HELD: (&str, Kind) = ("held", Kind { map_type: "lmdb", credential: "mode = \"manual\"\n", target: "", more: "" });
const REJECTED: (&str, Kind) =
    ("rejected", Kind { map_type: "hash", credential: "mode = \"manual\"\n", target: "", more: "" });
const BY_HAND: (&str, Kind) =
    ("by-hand", Kind { map_type: "hash", credential: "", target: "write = false\n", more: "" });
const KILLED: (&str, Kind) =
    ("killed", Kind { map_type: "hash", credential: "", target: "reload = [\"/usr/bin/sleep\", \"100\"]\n", more: "" });
const OWED: (&str, Kind) =
    ("reload-owed", Kind { map_type: "texthash", credential: "", target: "reload = \"never\"\n", more: "" });

/// A key that is the same in every run: live ids and versions of a file are made of it.
fn key(n: u8) -> Key {
    let (id, secret) = (format!("AKIALEGACY00000000{n:02}"), format!("{n:02}").repeat(20));
    let password = ses_smtp_password(&Secret::new(secret.clone()), lab::REGION);
    lab::keep_secret(&secret);
    lab::keep_secret(password.expose());
    let login = Login::new(id.clone(), password).expect("a login");
    Key { id, secret, login }
}

fn directory(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/legacy/0.1.0").join(case)
}

impl Case {
    /// A host whose table holds the first key, with the configuration of the case. Both keys are good at the stand-in.
    fn new((name, kind): (&'static str, Kind)) -> Self {
        let first = key(1);
        let host = Host::new(kind.map_type, &first);
        host.standin.set_key(&key(2).id, &key(2).login.password);
        host.dir.file("machine-id", MACHINE);
        // Where its user, who is not root, reaches it.
        let receiver = host.postfix.base.join("receiver");
        fs::write(&receiver, "#!/bin/sh\nexit 1\n").expect("written");
        fs::set_permissions(&receiver, fs::Permissions::from_mode(0o755)).expect("chmod");
        let source = host.publish(first.pair());
        let more = kind.more.replace("PROGRAM", receiver.to_str().expect("a path in UTF-8"));
        host.configure(&Setup { source: &source, target: kind.target, more: &more, ..Setup::default() });
        let text = fs::read_to_string(host.path("config.toml")).expect("a configuration");
        host.dir
            .file("config.toml", text.replacen("name = \"ses\"\n", &format!("name = \"ses\"\n{}", kind.credential), 1));
        Self { host, name }
    }

    /// Puts in place what the old release left: state and table text; the map is compiled from the table as it was before,
    /// where `map_of` says so.
    fn take_up((name, kind): (&'static str, Kind), map_of: MapOf) -> Self {
        let case = Self::new((name, kind));
        let from = directory(name);
        let text = case.expand(&fs::read_to_string(from.join("sasl_passwd")).expect("a recorded table"));
        if map_of == MapOf::Text {
            case.host.postfix.write_table(&text);
            if kind.map_type != "texthash" {
                case.host.postfix.postmap();
            }
        } else {
            // Killed between the two renames: the map is the one that was there.
            case.host.postfix.write_table(&text);
        }
        let state = case.host.path("state");
        copy(&from.join("state"), &state, &|bytes| match String::from_utf8(bytes.clone()) {
            Ok(text) => case.expand(&text).into_bytes(),
            Err(_) => bytes,
        });
        case.host.publish(key(2).pair());
        case
    }

    fn tokens(&self) -> [(String, &'static str); 3] {
        [
            (self.host.postfix.base.display().to_string(), "@POSTFIX@"),
            (self.host.dir.path().display().to_string(), "@DIR@"),
            (format!("localhost:{}", self.host.standin.starttls_port()), "localhost:@PORT@"),
        ]
    }

    fn expand(&self, text: &str) -> String {
        let expand = |line: &str| {
            let line = line.replace("[localhost]:@PORT@", &self.host.hop());
            self.tokens().iter().fold(line, |line, (real, token)| line.replace(token, real))
        };
        text.split_inclusive('\n').map(expand).collect()
    }

    /// A line of the audit log stays as it is, also where the state quotes it: a chain of hashes is made of them.
    fn shorten(&self, text: &str) -> String {
        let shorten = |line: &str| {
            if line.trim_start().starts_with(['{', '"']) && line.contains("prev") && line.contains("milliseconds") {
                return line.to_owned();
            }
            let line = line.replace(&self.host.hop(), "[localhost]:@PORT@");
            self.tokens().iter().fold(line, |line, (real, token)| line.replace(real, token))
        };
        text.split_inclusive('\n').map(shorten).collect()
    }

    fn record(&self) {
        let to = directory(self.name);
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).expect("a directory");
        let shorten = |bytes: Vec<u8>| match String::from_utf8(bytes.clone()) {
            Ok(text) => self.shorten(&text).into_bytes(),
            Err(_) => bytes,
        };
        copy(&self.host.path("state"), &to.join("state"), &shorten);
        let table = fs::read(self.host.postfix.table()).expect("a table");
        fs::write(to.join("sasl_passwd"), shorten(table)).expect("written");
    }

    fn start(&self, arguments: &[&str]) -> Program {
        let config = self.host.path("config.toml");
        let all = [&["--config", config.to_str().expect("a path in UTF-8")], arguments].concat();
        Program::start_in_shell(ON_MACHINE, self.host.dir.path(), &all, &[], b"")
    }

    #[track_caller]
    fn relaykey(&self, arguments: &[&str], code: i32) -> Ran {
        let ran = self.start(arguments).wait(RUN);
        ran.expect(code);
        ran
    }

    /// The recorded state of the credential.
    fn recorded(&self) -> Value {
        let text = fs::read_to_string(directory(self.name).join("state/credentials/ses.json")).expect("recorded");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The audit log that the old release began is whole, and goes on.
    fn log_goes_on(&self) {
        self.relaykey(&["history", "--verify"], 0);
        let before = self.recorded()["audit"]["number"].as_u64().expect("a number");
        assert!(self.host.state("ses")["audit"]["number"].as_u64() > Some(before), "no new line");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MapOf {
    Text,
    TableBefore,
}

/// Copies a tree of plain files and directories, with their modes and what `change` makes of their bytes.
fn copy(from: &Path, to: &Path, change: &dyn Fn(Vec<u8>) -> Vec<u8>) {
    fs::create_dir_all(to).expect("a directory");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("chmod");
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target, change);
        } else {
            fs::write(&target, change(fs::read(&path).expect("readable"))).expect("written");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("chmod");
        }
    }
}

/// Records all cases with the release that `RELAYKEY_RECORD_WITH` names.
#[test]
#[ignore = "makes the recorded files anew, with the old release"]
fn record() {
    assert!(std::env::var_os(lab::RECORD_WITH).is_some(), "{} names no program", lab::RECORD_WITH);

    let case = Case::new(APPLIED);
    case.host.postfix.start();
    case.relaykey(&["sync"], 0).says(&["adopted"]);
    case.host.publish(key(2).pair());
    case.relaykey(&["sync"], 0).says(&["confirmed"]);
    case.record();

    for (which, last) in [(HELD, None), (REJECTED, Some(["reject", "ses", "--reason", "not ours"]))] {
        let case = Case::new(which);
        case.host.postfix.start();
        case.relaykey(&["sync"], 0).says(&["adopted"]);
        case.host.publish(key(2).pair());
        case.relaykey(&["sync"], 3);
        if let Some(last) = last {
            case.relaykey(&last, 0);
        }
        case.record();
    }

    let case = Case::new(BY_HAND);
    case.host.postfix.start();
    case.relaykey(&["sync"], 0).says(&["adopted"]);
    case.host.publish(key(2).pair());
    case.relaykey(&["sync"], 3);
    case.record();

    let case = Case::new(KILLED);
    case.host.postfix.start();
    case.relaykey(&["sync"], 0).says(&["adopted"]);
    case.host.publish(key(2).pair());
    let program = case.start(&["sync"]);
    wait_for("the swap", SOON, || {
        let journal = fs::read_to_string(case.host.path("state/apply/journal.json")).unwrap_or_default();
        let text = fs::read_to_string(case.host.postfix.table()).expect("a table");
        (journal.contains("swapped") && text.contains(&key(2).id)).then_some(())
    });
    drop(program);
    case.record();

    let case = Case::new(OWED);
    case.host.start_postfix();
    case.relaykey(&["sync"], 0).says(&["adopted"]);
    case.host.publish(key(2).pair());
    case.relaykey(&["sync"], 75);
    case.record();
}

#[test]
fn what_was_confirmed_stands_and_what_is_owed_arrives_in_order() {
    let case = Case::take_up(APPLIED, MapOf::Text);
    case.host.postfix.start();
    let recorded = case.recorded();
    let owed = recorded["outbox"]["fleet"]["owed"].as_array().expect("a list").len();
    assert!(owed >= 2, "{recorded}");
    case.relaykey(&["status"], 0).says(&[&key(2).id]);

    // Arrives, and is written down one after the other.
    let (got, receiver) = (case.host.postfix.base.join("got"), case.host.postfix.base.join("receiver"));
    fs::write(&got, "").expect("written");
    fs::set_permissions(&got, fs::Permissions::from_mode(0o666)).expect("chmod");
    fs::write(&receiver, format!("#!/bin/sh\n{{ cat; echo; }} >> {}\n", got.display())).expect("written");
    let third = key(3);
    case.host.standin.set_key(&third.id, &third.login.password);
    case.host.publish(third.pair());
    case.relaykey(&["sync"], 0).says(&["confirmed", &third.id]);
    let got = fs::read_to_string(got).expect("reports");
    let reports: Vec<Value> = serde_json::Deserializer::from_str(&got).into_iter().map(|v| v.expect("JSON")).collect();
    let seqs: Vec<u64> = reports.iter().map(|r| r["seq"].as_u64().expect("a number")).collect();
    assert!(seqs.is_sorted() && seqs.len() > owed, "{seqs:?}");
    for (n, document) in recorded["outbox"]["fleet"]["owed"].as_array().expect("a list").iter().enumerate() {
        let report = document.get("report").unwrap_or(document);
        assert_eq!(reports[n]["id"], report["id"], "the one that was owed first comes first");
    }
    assert_eq!(reports.last().expect("a report")["username"], third.id.as_str());
    let applied = &case.host.state("ses")["applied"];
    assert_eq!(applied["previous_username"], key(2).id.as_str());
    assert_eq!(case.host.send(), third.id);
    case.log_goes_on();
}

#[test]
fn what_was_held_waits_and_is_approved() {
    let case = Case::take_up(HELD, MapOf::Text);
    case.host.postfix.start();
    case.relaykey(&["status"], 0).says(&["waits", &key(2).id]);
    case.relaykey(&["sync"], 3);
    assert_eq!(case.host.send(), key(1).id);
    case.relaykey(&["approve", "ses"], 0).says(&["confirmed"]);
    assert_eq!(case.host.send(), key(2).id);
    case.log_goes_on();
}

#[test]
fn what_was_rejected_stays_out() {
    let case = Case::take_up(REJECTED, MapOf::Text);
    case.host.postfix.start();
    let before = case.host.snapshot();
    case.relaykey(&["sync"], 0);
    before.same_as(&case.host.snapshot());
    assert_eq!(case.host.send(), key(1).id);
    case.relaykey(&["history", "--verify"], 0);
}

#[test]
fn what_waited_for_a_person_still_does() {
    let case = Case::take_up(BY_HAND, MapOf::Text);
    case.host.postfix.start();
    case.relaykey(&["status"], 0).says(&["postmap"]);
    let text = fs::read_to_string(case.host.postfix.table()).expect("a table");
    case.host.postfix.write_table(&text.replace(&key(1).pair(), &key(2).pair()));
    case.host.postfix.postmap();
    case.relaykey(&["sync"], 0).says(&["confirmed"]);
    assert_eq!(case.host.send(), key(2).id);
    case.log_goes_on();
}

#[test]
fn what_was_killed_in_the_middle_is_finished() {
    for map_of in [MapOf::Text, MapOf::TableBefore] {
        let case = Case::take_up(KILLED, map_of);
        let text = fs::read_to_string(case.host.path("config.toml")).expect("a configuration");
        case.host.dir.file("config.toml", text.replace("reload = [\"/usr/bin/sleep\", \"100\"]\n", ""));
        case.host.postfix.start();
        case.relaykey(&["sync"], 0).says(&["confirmed", &key(2).id]);
        assert_eq!(case.host.send(), key(2).id);
        case.log_goes_on();
    }
}

#[test]
fn a_reload_that_was_owed_is_still_owed_until_a_start() {
    let case = Case::take_up(OWED, MapOf::Text);
    // The boot that the journal names is over, so any start is after it; without a start it stays owed.
    case.relaykey(&["sync"], 75);
    let_a_start_be_later();
    case.host.postfix.start();
    case.relaykey(&["sync"], 0).says(&["confirmed"]);
    assert_eq!(case.host.send(), key(2).id);
    case.log_goes_on();
}

/// The words of others, with their line ends, as 0.1.0 kept them: a line that others begin could pass for one of ours.
#[test]
fn words_that_were_kept_with_line_ends_are_shown_on_one_line() {
    let case = Case::take_up(OWED, MapOf::Text);
    let file = case.host.path("state/credentials/ses.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&file).expect("a state")).expect("JSON");
    let told = |what: &str| format!("{what} one\n  error     {what} two\r\n{what} three");
    let failure = |what: &str| {
        serde_json::json!({
            "class": "io", "what": told(what), "fix": told(&format!("{what}-fix")), "temporary": true,
            "at": "2026-09-21T14:13:49.123456789Z",
        })
    };
    let retry = |what: &str| serde_json::json!({"attempts": 1, "next": null, "failure": failure(what)});
    state["source_retry"] = retry("source");
    state["targets"]["main"]["retry"] = retry("target");
    state["targets"]["main"]["reload_owed"]["why"] = told("owed").into();
    assert!(state["targets"]["main"]["reload_owed"]["since"].is_string(), "{state:#}");
    fs::write(&file, serde_json::to_vec_pretty(&state).expect("JSON")).expect("written");

    let status = case.relaykey(&["status"], 0);
    let document = case.relaykey(&["status", "--json"], 0).json();
    for what in ["source", "source-fix", "target", "target-fix", "owed"] {
        let joined = format!("{what} one | error     {what} two | {what} three");
        status.says(&[&joined]);
        assert!(document.to_string().contains(&joined), "{what}: {document:#}");
    }
    let begun = status.out.lines().find(|line| line.trim_start().starts_with("error     ") && line.contains(" two"));
    assert!(begun.is_none_or(|line| line.contains(" one | ")), "{}", status.out);
    // They are written so from now on.
    case.relaykey(&["sync", "--wait", "0s"], 75);
    assert!(!fs::read_to_string(&file).expect("a state").contains(" one\\n"));
}
