//! `relaykey verify-proof`, the real program: reports of a real host, changed in every field, with every way to hand the
//! password over; typed codes; and what is no report, no password, no code. Python's hmac says the same.

use crate::lab::relaykey as lab;
use crate::lab::scratch::{self, Files as _};

use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use lab::{Host, Key, Program, REGION, RUN, Ran, Setup, keep_secret, proof_lines};
use relaykey::credential::Secret;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A key, the report of a host that uses it, and a file that holds what the verifier holds.
struct Lab {
    key: Key,
    report: Value,
    dir: TempDir,
}

impl Lab {
    /// A host that has adopted its credential, as `sync --json` tells it.
    fn new() -> Self {
        let key = Key::new();
        let host = Host::new("hash", &key);
        let source = host.publish(key.pair());
        host.configure(&Setup { source: &source, ..Setup::default() });
        host.start_postfix();
        let report = host.sync(&["--json"], 0).json()["credentials"][0]["report"].clone();
        assert_eq!(report["outcome"], "adopted", "{report:#}");
        Self { key, report, dir: scratch::private("proof") }
    }

    fn verify(&self, report: &Value, arguments: &[&str]) -> Ran {
        self.verify_with(self.key.password(), report.to_string().as_bytes(), arguments)
    }

    fn verify_with(&self, held: &str, document: &[u8], arguments: &[&str]) -> Ran {
        verify(&self.dir, held.as_bytes(), document, arguments)
    }
}

/// `verify-proof` with what the verifier holds in a file that is open as file descriptor 3.
fn verify(dir: &TempDir, held: &[u8], document: &[u8], arguments: &[&str]) -> Ran {
    let file = dir.path().join("held");
    fs::write(&file, held).expect("written");
    let all = [&["verify-proof", "--password-fd", "3"], arguments].concat();
    Program::start_with_descriptor(&all, &file, document).wait(RUN)
}

/// What Python makes of this: key and text as two arguments of a program of its own.
fn python(script: &str, held: &str, texts: &[impl Serialize]) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python");
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests' Python starts");
    let input = json!({"key": held, "texts": texts}).to_string();
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

const PROOF: &str = r#"
import base64, hmac, json, sys
i = json.load(sys.stdin)
text = "".join(t + "\n" for t in i["texts"])
print(base64.b64encode(hmac.new(i["key"].encode(), text.encode(), "sha256").digest()).decode())
"#;

const CODE: &str = r#"
import hmac, json, sys
i = json.load(sys.stdin)
text = "".join(t + "\n" for t in i["texts"])
n = int.from_bytes(hmac.new(i["key"].encode(), text.encode(), "sha256").digest()[:5], "big")
print("".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[n >> 5 * k & 31] for k in range(7, -1, -1)))
"#;

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

// ---------------------------------------------------------------- reports

#[test]
fn a_report_is_true_with_every_way_to_hold_the_password_and_python_agrees() {
    let lab = Lab::new();
    let (report, target) = (&lab.report, &lab.report["targets"][0]);
    assert_eq!(target["proof"], python(PROOF, lab.key.password(), &proof_lines(report, target)));

    // Over any other outcome relaykey makes none, whoever can.
    let mut other = report.clone();
    other["outcome"] = json!("withdrawn");
    other["targets"][0]["proof"] = json!(python(PROOF, lab.key.password(), &proof_lines(&other, target)));
    lab.verify(&other, &[]).expect(1).says(&["REFUSED: a report with outcome withdrawn has none"]);

    let password = lab.key.password().to_owned();
    for (held, flags) in [
        (password.clone(), &[][..]),
        (format!(" {password}\r\n"), &[]),
        (lab.key.pair(), &[]),
        (lab.key.json(), &[]),
        (lab.key.iam_json(), &[]),
        (lab.key.secret.clone(), &["--iam-secret"]),
    ] {
        let ran = lab.verify_with(&held, report.to_string().as_bytes(), flags);
        ran.expect(0).says(&["target main (us-east-1): true", "It does not show which host made it"]);
        // The sample in the documents ends as what is printed does.
        let last = ran.out.lines().skip_while(|line| !line.starts_with("This shows")).collect::<Vec<_>>().join("\n");
        assert!(
            !last.is_empty() && include_str!("../../docs/proof.md").contains(&format!("true\n{last}\n```")),
            "{last}"
        );
    }
    let version = text(&report["version"]);
    let expected = ["--host", "mx1.example.com", "--credential", "ses", "--expect-version", version];
    let told = lab.verify(report, &[&["--json"], &expected[..]].concat()).expect(0).json();
    assert_eq!((&told["schema"], &told["exit"]), (&json!("relaykey/verify-proof/v1"), &json!(0)));
    let judged = &told["reports"][0];
    assert_eq!((&judged["host_id"], &judged["version"]), (&report["host_id"], &report["version"]));
    let expected = json!({"name": "main", "region": REGION, "verdict": "true", "why": null, "remaining_old": []});
    assert_eq!((&judged["targets"][0], &judged["unexpected"]), (&expected, &json!([])));
}

#[test]
fn it_is_refused_with_any_signed_field_changed_for_another_host_or_version_and_with_another_password() {
    let lab = Lab::new();
    let good = &lab.report;
    let change = |report: &Value, pointer: &str, to: Value| {
        let mut other = report.clone();
        let place = other.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        assert_ne!(*place, to);
        *place = to;
        other
    };
    let seq = good["seq"].as_u64().expect("a number");
    for (pointer, to) in [
        ("/host_id", json!("5f0c2d9a7b6e4c3f8a1d0e9b2c7f6a54")),
        ("/host", json!("mx2.example.com")),
        ("/credential", json!("ses-2")),
        ("/version", json!("another")),
        ("/username", json!("AKIAANOTHER")),
        ("/targets/0/name", json!("other")),
        ("/targets/0/region", json!("eu-west-1")),
        ("/targets/0/region", json!(null)),
        ("/outcome", json!("confirmed")),
        ("/seq", json!(seq + 1)),
        ("/seq", json!(0)),
        ("/at", json!("2020-01-01T00:00:00Z")),
        ("/source", json!("arn:aws:ssm:us-east-1:111122223333:parameter/ses")),
        ("/targets/0/evidence/at", json!("2020-01-01T00:00:00Z")),
        ("/targets/0/remaining_old", json!(["[relay.example.com]:587"])),
        ("/schema", json!("relaykey/report/v1")),
    ] {
        let ran = lab.verify(&change(good, pointer, to), &[]);
        ran.expect(1).says(&[": FALSE: made with another password", "one of the fields it covers was changed"]);
        ran.says_not("This shows");
    }
    // What the proof does not cover is not vouched for, and it says so.
    let other_words = change(good, "/targets/0/evidence/reply", json!("250 whatever"));
    lab.verify(&other_words, &[]).expect(0).says(&["nor the report's other fields"]);

    let version = text(&good["version"]);
    for (arguments, words) in [
        (["--host", "mx2.example.com"], "REFUSED: it is of host mx1.example.com, and mx2.example.com was expected"),
        (["--credential", "other"], "REFUSED: it is of credential ses, and other was expected"),
        (["--expect-version", "v9"], &format!("REFUSED: it is of version {version}, and v9 was expected")),
    ] {
        lab.verify(good, &arguments).expect(1).says(&[words]);
        let told = lab.verify(good, &[&["--json"], &arguments[..]].concat()).expect(1).json();
        assert_eq!(told["reports"][0]["unexpected"].as_array().map(Vec::len), Some(1), "{told:#}");
    }

    let other = Key::new();
    let document = good.to_string().into_bytes();
    lab.verify_with(other.password(), &document, &[]).expect(1).says(&["FALSE"]);
    lab.verify_with(&other.secret, &document, &["--iam-secret"]).expect(1).says(&["FALSE"]);
    let whose = format!("what was given is the login of {}, and the report is about {}", other.id, lab.key.id);
    lab.verify_with(&other.pair(), &document, &[]).expect(1).says(&["not checked", &whose]);
    lab.verify_with(&lab.key.secret, &document, &[]).expect(1).says(&["not checked", "add --iam-secret"]);
    let forged = change(good, "/targets/0/proof", json!("c2hvcnQ="));
    lab.verify(&forged, &[]).expect(1).says(&["not checked", "32 bytes in base64"]);

    // Several at once: one that is false makes the whole false.
    let bad = change(good, "/host", json!("mx2.example.com"));
    let lines = format!("{good}\n{good}\n");
    lab.verify_with(lab.key.password(), lines.as_bytes(), &[]).expect(0);
    lab.verify(&json!([good, bad]), &[]).expect(1).says(&[": true", ": FALSE"]);
    // A sign of life has the proof in the report within it.
    let mut alive = change(good, "/outcome", json!("alive"));
    (alive["latest"], alive["seq"], alive["targets"]) = (good.clone(), json!(seq + 7), json!([]));
    let is_alive = format!(": alive, seq {}, ", seq + 7);
    let within =
        format!("\n  version {} ({}): adopted, seq {seq}, ", good["version"].as_str().expect("a text"), lab.key.id);
    lab.verify(&alive, &[]).expect(0).says(&[&is_alive, "the report in it:\n", &within, "\n    target ", ": true"]);
    let judged = &lab.verify(&alive, &["--json"]).json()["reports"][0];
    assert_eq!((&judged["outcome"], &judged["within"]["outcome"]), (&json!("adopted"), &json!("alive")), "{judged}");
    // Or further in, where something else was told in between; but not where the confirmation was taken back.
    for (outcome, code) in [("failed", 0), ("withdrawn", 1)] {
        let mut between = change(&alive, "/outcome", json!(outcome));
        between["seq"] = json!(seq + 5);
        let outer = change(&alive, "/latest", between);
        lab.verify(&outer, &[]).expect(code);
    }
    for (key, words) in [("/host_id", "host id \"mx9\""), ("/credential", "credential \"mx9\"")] {
        lab.verify(&change(&alive, key, json!("mx9")), &[]).expect(2).says(&[words, "says nothing of the former"]);
    }
    // A host that was given another name since then is the same one; what was proved, was proved under the name of then.
    let renamed = change(&alive, "/host", json!("mx9"));
    lab.verify(&renamed, &[]).expect(0);
    lab.verify(&renamed, &["--host", "mx9"]).expect(1);
    alive.as_object_mut().expect("an object").remove("latest");
    lab.verify(&alive, &[]).expect(1).says(&["no proof: a report with outcome alive has none"]);
}

#[test]
fn what_the_tables_hold_besides_is_proved_and_said() {
    let (old, key) = (Key::new(), Key::new());
    let host = Host::with("hash", |hop| {
        Some(format!("{hop} {}\nsales@example.com {}\n[other.example.com]:25 {}\n", key.pair(), old.pair(), old.pair()))
    });
    host.standin.set_key(&key.id, &key.login.password);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    let report = host.sync(&["--json"], 0).json()["credentials"][0]["report"].clone();
    let target = &report["targets"][0];
    assert_eq!((&target["others"][0]["id"], &target["others"][0]["count"]), (&json!(old.id), &json!(2)), "{target:#}");
    assert_eq!(target["proof"], python(PROOF, key.password(), &proof_lines(&report, target)));
    let dir = scratch::private("proof");
    let verify = |report: &Value| verify(&dir, key.password().as_bytes(), report.to_string().as_bytes(), &[]);
    let said = format!("another access key, {}, stands in 2 entries of the password tables: ", old.id);
    verify(&report).expect(0).says(&["target main (us-east-1): true", &said, "The control side will not retire it"]);
    // Whoever can write where reports go cannot take it out, nor say that there are more or fewer.
    for (field, to) in [("others", json!([])), ("others_count", json!(2)), ("incomplete", json!(["proxy:mysql:/x"]))] {
        let mut other = report.clone();
        other["targets"][0][field] = to;
        verify(&other).expect(1).says(&["FALSE"]);
    }
    // The host says the same to people.
    host.relaykey(&["status"]).says(&[&said]);
}

#[test]
fn a_weak_password_gets_no_proof_and_it_says_why() {
    let weak = "correct-horse-battery";
    keep_secret(weak);
    let host = Host::with("hash", |hop| Some(format!("{hop} relay:{weak}\n")));
    host.standin.set_key("relay", &Secret::new(weak.into()));
    let source = host.publish(format!("relay:{weak}"));
    host.configure(&Setup { source: &source, ..Setup::default() });
    // With a region it would be SES, where such a password is refused at once.
    host.without_region();
    host.start_postfix();
    let report = host.sync(&["--json"], 0).json()["credentials"][0]["report"].clone();
    let target = &report["targets"][0];
    assert_eq!(target["proof"], Value::Null);
    assert!(text(&target["no_proof"]).contains("not of SES's form"), "{target:#}");

    let dir = scratch::private("proof");
    let ran = verify(&dir, weak.as_bytes(), report.to_string().as_bytes(), &[]);
    ran.expect(1).says(&["target main: no proof: the password is not of SES's form", "help to guess it"]);
    // Nor is one believed that somebody made with it.
    let mut forged = report.clone();
    forged["targets"][0]["proof"] = json!(python(PROOF, weak, &["relaykey-proof-v1"]));
    verify(&dir, weak.as_bytes(), forged.to_string().as_bytes(), &[]).expect(1).says(&["not checked", "SES's form"]);
}

// ---------------------------------------------------------------- what is neither

/// A report that nobody made.
fn sample() -> Value {
    json!({
        "schema": "relaykey/report/v1", "id": "i", "seq": 1, "host_id": "h", "host": "mx1", "credential": "ses",
        "source": "s", "version": "v", "username": "AKIAEXAMPLE", "previous_username": null,
        "at": "2026-01-01T00:00:00Z", "mode": "automatic", "agent": "relaykey/test", "outcome": "confirmed",
        "targets": [{
            "name": "main", "kind": "postfix", "map": "hash:/etc/postfix/sasl_passwd", "keys": [], "read_back": "postmap -q",
            "remaining_old": [], "region": "us-east-1", "proof": null, "no_proof": "none was made",
            "evidence": {"endpoint": "e", "reply": "235", "at": "2026-01-01T00:00:00Z"},
        }],
        "error": null, "approved_by": null,
    })
}

#[test]
fn what_is_no_report_is_told_from_a_false_one() {
    let (dir, key) = (scratch::private("proof"), Key::new());
    let with = |field: &str, to: Value| {
        let mut report = sample();
        report[field] = to;
        report.to_string().into_bytes()
    };
    let without = |field: &str| {
        let mut report = sample();
        report.as_object_mut().expect("an object").remove(field);
        report.to_string().into_bytes()
    };
    let good = sample().to_string();
    verify(&dir, key.password().as_bytes(), good.as_bytes(), &[]).expect(1).says(&["no proof: none was made"]);
    let twice = good.replacen('{', "{\"host\":\"mx9\",", 1);
    let mut nul = good.clone().into_bytes();
    nul[20] = 0;
    let mut latin = good.clone().into_bytes();
    latin.push(0xe4);
    let cases: [(Vec<u8>, &str); 17] = [
        (b"".to_vec(), "there is no report on standard input"),
        (b" \n".to_vec(), "there is no report on standard input"),
        (b"[]".to_vec(), "there is no report on standard input"),
        (b"hello".to_vec(), "not JSON"),
        (b"7".to_vec(), "is no report"),
        (b"{}".to_vec(), "it has no \"schema\""),
        (good.as_bytes()[..good.len() / 2].to_vec(), "not JSON: EOF"),
        (nul, "not JSON"),
        (latin, "not UTF-8 text (byte"),
        (twice.into_bytes(), "duplicate field `host`"),
        (vec![b' '; 10_000_000], "more than 8388608 bytes"),
        (
            with("schema", json!("relaykey/report/v3")),
            "its schema is \"relaykey/report/v3\", not \"relaykey/report/v2\" or \"relaykey/report/v1\"",
        ),
        (with("schema", json!(1)), "is no report"),
        (with("seq", json!("1")), "is no report"),
        (with("host", json!("mx1\u{1b}[2J")), "a control character in host"),
        (without("host_id"), "missing field `host_id`"),
        (without("targets"), "missing field `targets`"),
    ];
    for (document, words) in cases {
        let ran = verify(&dir, key.password().as_bytes(), &document, &[]);
        ran.expect(2).says(&[words, "fix: "]).says_not("\u{1b}");
        let told = verify(&dir, key.password().as_bytes(), &document, &["--json"]).expect(2).json();
        assert_eq!((&told["exit"], told["error"]["what"].is_string()), (&json!(2), true), "{told:#}");
    }
    // What would move the cursor, or turn the line round, is shown as what it is.
    let shown = verify(&dir, key.password().as_bytes(), &with("username", json!("AKIA\u{202e}X")), &[]);
    shown.expect(1).says(&["AKIA\\u{202e}X"]).says_not("\u{202e}");
}

#[test]
fn what_is_no_password_is_told_and_never_shown() {
    let (dir, key) = (scratch::private("proof"), Key::new());
    let report = sample().to_string().into_bytes();
    let marker = "NOTTOBESHOWN";
    keep_secret(marker);
    let long = vec![b'N'; 10_000_000];
    let cases: [(&[u8], &str); 8] = [
        (b"", "the password is empty"),
        (b" \n", "the password is empty"),
        (b"NOTTOBESHOWN NOTTOBESHOWN", "blanks, control characters or several lines"),
        (b"NOTTOBESHOWN\0", "blanks, control characters or several lines"),
        (b"NOTTOBESHOWN\xff", "not UTF-8"),
        (b"{\"username\": \"NOTTOBESHOWN\"", "not valid JSON"),
        (b"AKIAIOSFODNN7EXAMPLE", "that is an access key id"),
        (&long, "more than 65536 bytes"),
    ];
    for (held, words) in cases {
        verify(&dir, held, &report, &[]).expect(2).says(&[words, "fix: "]);
    }
    let start = |line: &str, given: &Path, arguments: &[&str]| {
        Program::start_in_shell(line, given, arguments, &[], &report).wait(RUN)
    };
    let plain = ["verify-proof", "--password-fd", "9"];
    start("exec \"$@\"", dir.path(), &plain).expect(2).says(&["file descriptor 9 is not open", "9<FILE"]);
    start("exec \"$@\" 9< \"$0\"", dir.path(), &plain)
        .expect(2)
        .says(&["cannot read file descriptor 9: Is a directory"]);
    let stdin = start("exec \"$@\"", dir.path(), &["verify-proof", "--password-fd", "0"]);
    stdin.expect(2).says(&["standard input is where the report comes from"]);
    // No terminal to ask at.
    let none = start("exec setsid --wait \"$@\"", dir.path(), &["verify-proof"]);
    none.expect(2).says(&["cannot ask at the terminal", "--password-fd 3"]);
    // A pipe is as good as a file.
    let piped = format!("printf %s '{}' | \"$@\" --password-fd 4 4<&0 < \"$0\"", "x".repeat(44));
    start(&piped, &dir.file("report.json", sample().to_string()), &["verify-proof"]).expect(1).says(&["no proof"]);
    drop(key);
}

// ---------------------------------------------------------------- codes

#[test]
fn a_typed_code_is_checked_leniently_in_spelling_and_strictly_in_everything_else() {
    let (dir, key) = (scratch::private("proof"), Key::new());
    let code = python(CODE, key.password(), &["relaykey-code-v1", "mx1.example.com", "ses", "v1", ""]);
    let invited = python(CODE, key.password(), &["relaykey-code-v1", "mx1.example.com", "ses", "v1", "n-42"]);
    let about = ["--host", "mx1.example.com", "--credential", "ses", "--version", "v1"];
    let check = |held: &str, typed: &str, more: &[&str], stdin: &[u8]| {
        verify(&dir, held.as_bytes(), stdin, &[&["--code", typed], &about[..], more].concat())
    };
    let password = key.password();
    let lower = format!("{} {}", &code[..4], &code[4..]).to_lowercase().replace('1', "l").replace('0', "o");
    for typed in [code.as_str(), &format!("{}-{}", &code[..4], &code[4..]), &lower] {
        check(password, typed, &[], b"").expect(0).says(&["credential ses, version v1: true", "It does not show who"]);
    }
    check(password, &invited, &["--nonce", "n-42"], b"").expect(0);
    check(&key.secret, &code, &["--iam-secret", "--region", REGION], b"").expect(0);
    check(&key.iam_json(), &code, &["--region", REGION], b"").expect(0);
    check(&key.pair(), "-", &[], format!("{code}\n").as_bytes()).expect(0);
    let told = check(password, &code, &["--json"], b"").expect(0).json();
    assert_eq!((&told["code"]["verdict"], &told["code"]["host"]), (&json!("true"), &json!("mx1.example.com")));

    check(password, &code, &["--nonce", "n-42"], b"").expect(1).says(&["FALSE"]);
    check(password, &invited, &[], b"").expect(1).says(&["FALSE"]);
    check(Key::new().password(), &code, &[], b"").expect(1).says(&["FALSE"]);
    for (at, other) in [(1, "mx2.example.com"), (3, "ses-2"), (5, "v2")] {
        let mut about = about;
        about[at] = other;
        verify(&dir, password.as_bytes(), b"", &[&["--code", &code][..], &about].concat()).expect(1).says(&["FALSE"]);
    }
    check(password, &code[..7], &[], b"").expect(1).says(&["8 letters and digits, and this has 7"]);
    check(password, "UUUU-UUUU", &[], b"").expect(1).says(&["'U' is in no code"]);
    // A program has one try.
    check(password, "-", &[], format!("00000000\n{code}\n").as_bytes()).expect(1);
    check("correct-horse", &code, &[], b"").expect(1).says(&["not checked", "SES's form"]);
    check(&key.secret, &code, &["--iam-secret"], b"").expect(2).says(&["without a region", "--region REGION"]);
    verify(&dir, password.as_bytes(), b"", &["--code", &code]).expect(2).says(&["--host", "--expect-version"]);
}

// ---------------------------------------------------------------- a terminal

/// The program at a terminal of its own, and a person at it.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: mpsc::Receiver<u8>,
    seen: String,
}

impl Terminal {
    fn new(arguments: &[&str], stdin: Option<&PathBuf>) -> Self {
        let quoted: Vec<String> = arguments.iter().map(|a| format!("'{a}'")).collect();
        let from = stdin.map(|path| format!(" < '{}'", path.display())).unwrap_or_default();
        let line = format!("'{}' {}{from}", env!("CARGO_BIN_EXE_relaykey"), quoted.join(" "));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent"), ("SHELL", "/bin/sh")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script starts");
        let (tell, screen) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || out.bytes().map_while(Result::ok).try_for_each(|byte| tell.send(byte)));
        let keys = child.stdin.take().expect("piped");
        Self { child, keys, screen, seen: String::new() }
    }

    /// Waits until this text was shown `times` times.
    fn shows(&mut self, text: &str, times: usize) {
        let until = Instant::now() + RUN;
        while self.seen.matches(text).count() < times {
            let left = until.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(byte) => self.seen.push(char::from(byte)),
                Err(_) => panic!("{text:?} was not shown {times} times:\n{}", self.seen),
            }
        }
    }

    fn types(&mut self, text: &str) {
        writeln!(self.keys, "{text}").expect("it runs");
    }

    /// Its exit code and everything that was shown.
    fn ends(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + RUN;
        while let Ok(byte) = self.screen.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.seen.push(char::from(byte));
        }
        assert!(Instant::now() < until, "it did not end:\n{}", self.seen);
        (self.child.wait().expect("a child").code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn at_a_terminal_the_password_is_asked_for_and_not_shown_and_a_code_may_be_tried_five_times() {
    let (dir, key) = (scratch::private("proof"), Key::new());
    let mut report = sample();
    let texts = [
        "relaykey-proof-v1",
        "h",
        "mx1",
        "ses",
        "v",
        &key.id,
        "main",
        REGION,
        "confirmed",
        "1",
        "2026-01-01T00:00:00Z",
    ];
    report["username"] = json!(key.id);
    report["targets"][0]["proof"] = json!(python(PROOF, key.password(), &texts));
    let file = dir.file("report.json", report.to_string());
    let mut terminal = Terminal::new(&["verify-proof"], Some(&file));
    terminal.shows("SMTP password: ", 1);
    terminal.types(key.password());
    let (code, seen) = terminal.ends();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("target main (us-east-1): true") && !seen.contains(key.password()), "{seen}");

    let code = python(CODE, key.password(), &["relaykey-code-v1", "mx1", "ses", "v", ""]);
    let about = ["verify-proof", "--host", "mx1", "--credential", "ses", "--version", "v", "--code"];
    for good_at in [5, 6] {
        let mut terminal = Terminal::new(&about, None);
        terminal.shows("SMTP password: ", 1);
        terminal.types(key.password());
        for number in 1..=5 {
            terminal.shows("Code: ", number);
            terminal.types(if number == good_at { &code } else { "00000-000" });
        }
        let (exit, seen) = terminal.ends();
        assert_eq!(exit, Some(if good_at == 5 { 0 } else { 1 }), "{seen}");
        assert!(seen.contains("tries left: 1") && !seen.contains(key.password()), "{seen}");
    }
}
