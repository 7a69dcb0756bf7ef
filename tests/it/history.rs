//! `relaykey history` of the real program: what it tells, that it finds what is not as it was written, that it changes
//! nothing, and that a log to which something is added meanwhile is not taken for a broken one.

use crate::lab::scratch;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use relaykey::audit::{By, Log, Record, RecordError, StepTime};
use relaykey::fault::Class;
use relaykey::rollover::State;
use relaykey::state::{Access, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A host that is only a configuration and a state directory.
struct Host(TempDir);

/// How a run of the program ended.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

impl Host {
    fn new(credentials: &[&str]) -> Self {
        let host = Self(scratch::private("history"));
        let mut text =
            format!("config_version = 1\n[host]\nname = \"mx1.example.com\"\nstate_dir = {:?}\n", host.state());
        for name in credentials {
            text += &format!(
                "[[credential]]\nname = {name:?}\n[credential.source]\ntype = \"file\"\npath = \"/run/credential\"\n\
                 [credential.smtp]\nendpoint = \"localhost\"\nregion = \"us-east-1\"\n[[credential.target]]\n\
                 type = \"postfix\"\nconfig_dir = \"/etc/postfix-{name}\"\n"
            );
        }
        fs::write(host.0.path().join("config.toml"), text).unwrap();
        host
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn history(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relaykey"));
        command.arg("--config").arg(self.0.path().join("config.toml")).arg("history").args(arguments);
        let output = command.output().expect("relaykey");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Everything below the directory.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut ahead, mut found) = (vec![self.0.path().to_owned()], BTreeMap::new());
        while let Some(dir) = ahead.pop() {
            for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    ahead.push(path);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }
}

/// Keeps the log of a credential as the agent does.
struct Keeper {
    store: Store,
    state: State,
    log: Log,
}

impl Keeper {
    fn new(dir: &Path, credential: &str, file_size: u64) -> Self {
        let store = Store::open(dir, Access::Write, Duration::ZERO).unwrap();
        let state = store.load(credential).unwrap().unwrap_or_else(|| State::new(credential));
        let mut log = Log::with_file_size(dir, credential, file_size);
        log.settle(&state.audit).unwrap();
        Self { store, state, log }
    }

    fn add(&mut self, record: Record) {
        let record = Record { credential: self.state.credential.clone(), ..record };
        self.state.audit = self.log.append(&self.state.audit, &record);
        self.store.save(&self.state).unwrap();
        self.log.settle(&self.state.audit).unwrap();
    }
}

fn record(seconds: i64) -> Record {
    let step = |step: &str, milliseconds| StepTime { step: step.into(), target: None, ok: true, milliseconds };
    Record {
        at: jiff::Timestamp::from_second(1_790_000_000 + seconds).unwrap(),
        credential: String::new(),
        by: By { cause: "timer".into(), user: None, uid: None, claimed: None, detail: None },
        what: "rollover".into(),
        version: Some(format!("v{seconds}")),
        username: Some("AKIANEW".into()),
        previous_username: Some("AKIAOLD".into()),
        steps: vec![step("fetch", 50), step("verify", 1_207)],
        outcome: "confirmed".into(),
        error: None,
        approved_by: None,
    }
}

/// Two credentials with three and two records.
fn two() -> Host {
    let host = Host::new(&["ses", "other"]);
    let mut ses = Keeper::new(&host.state(), "ses", 1 << 20);
    ses.add(Record { what: "adoption".into(), outcome: "adopted".into(), ..record(0) });
    let by = By {
        cause: "operator".into(),
        user: Some("root".into()),
        uid: Some(0),
        claimed: Some("alice".into()),
        detail: None,
    };
    let error =
        Some(RecordError { class: Class::Refused, words: "535 \u{1b}[2JAuthentication Credentials Invalid".into() });
    ses.add(Record { by, outcome: "failed".into(), error, ..record(20) });
    let by = By { detail: Some("/run/credential was replaced".into()), cause: "file-watch".into(), ..record(0).by };
    ses.add(Record { by, ..record(40) });
    drop(ses);
    let mut other = Keeper::new(&host.state(), "other", 1 << 20);
    other.add(record(10));
    other.add(Record { version: None, username: None, steps: Vec::new(), ..record(30) });
    host
}

#[test]
fn history_tells_one_line_per_record_the_latest_first() {
    let host = two();
    let before = host.files();
    let ran = host.history(&[]);
    let expected = "\
2026-09-21T14:14:00Z  ses    file-watch                   rollover  v40 (AKIANEW)  confirmed  1.257 s  [/run/credential was replaced]
2026-09-21T14:13:50Z  other  timer                        rollover  -              confirmed  0.000 s
2026-09-21T14:13:40Z  ses    operator root (says: alice)  rollover  v20 (AKIANEW)  failed     1.257 s  refused: 535  [2JAuthentication Credentials Invalid
2026-09-21T14:13:30Z  other  timer                        rollover  v10 (AKIANEW)  confirmed  1.257 s
2026-09-21T14:13:20Z  ses    timer                        adoption  v0 (AKIANEW)   adopted    1.257 s
";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), expected, ""));
    let told = |arguments: &[&str]| host.history(arguments).out.lines().count();
    assert_eq!((told(&["ses"]), told(&["other"]), told(&["other", "ses"])), (3, 2, 5));
    assert_eq!((told(&["--limit", "1"]), told(&["ses", "--limit", "2"]), told(&["--limit", "0"])), (2, 2, 5));

    let document = host.history(&["ses", "--json", "--limit", "1"]).json();
    assert_eq!(document["schema"], "relaykey/history/v1");
    let one = &document["credentials"][0];
    assert_eq!((&one["name"], &one["verdict"], &document["exit"]), (&json!("ses"), &Value::Null, &json!(0)));
    assert_eq!(one["records"].as_array().map(Vec::len), Some(1));
    let record = &one["records"][0];
    assert_eq!(
        (&record["n"], &record["version"], &record["by"]["cause"]),
        (&json!(3), &json!("v40"), &json!("file-watch"))
    );
    assert_eq!(record["prev"].as_str().map(str::len), Some(64));
    assert_eq!(host.files(), before, "it only reads");
}

#[test]
fn verify_gives_a_verdict_per_credential_and_ends_with_1_when_one_is_broken() {
    let host = two();
    let before = host.files();
    let ran = host.history(&["--verify"]);
    let fine =
        "ses: as it was written: records 1 to 3, in 1 file\nother: as it was written: records 1 to 2, in 1 file\n";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), fine, ""));

    let file = host.state().join("audit/ses.1.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"uid\":0", "\"uid\":1")).unwrap();
    let ran = host.history(&["--verify"]);
    let broken = format!("ses: BROKEN\n  {}:2: line 2 was changed\nother: as it was written", file.display());
    assert!(ran.code == Some(1) && ran.out.starts_with(&broken), "{:?} {}", ran.code, ran.out);
    assert!(ran.err.contains("fix: find out who changed the file"), "{}", ran.err);
    assert_eq!(host.history(&["other", "--verify"]).code, Some(0));
    assert_eq!(host.history(&["ses"]).out.lines().count(), 3, "what can be read is told all the same");
    let document = host.history(&["--verify", "--json"]);
    assert_eq!(document.code, Some(1));
    let document = document.json();
    let verdict = |n: usize| &document["credentials"][n]["verdict"];
    assert_eq!(
        (&verdict(0)["holds"], &verdict(1)["holds"], &document["exit"]),
        (&json!(false), &json!(true), &json!(1))
    );
    assert_eq!(verdict(0)["broken"][0]["line"], 2);
    assert_eq!(verdict(0)["broken"][0]["file"], json!(file));

    // The last line stands in the state too.
    fs::write(&file, text.lines().take(2).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let ran = host.history(&["ses", "--verify"]);
    let owed = "ses: as it was written: records 1 to 3, in 1 file; the last 1 in the state only, until the next run adds to the file\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), owed));
    fs::write(&file, text).unwrap();
    assert_eq!(host.files(), before, "it only reads");
}

#[test]
fn names_that_are_none_and_states_that_cannot_be_read_are_told() {
    let host = two();
    for name in ["nobody", "../ses", "", "SES", "ses.1"] {
        let ran = host.history(&[name]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{name}");
        assert!(ran.err.contains("fix: one of: ses, other"), "{}", ran.err);
    }
    let empty = Host::new(&["ses"]);
    let ran = empty.history(&[]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", "nothing was recorded yet\n"));
    let ran = empty.history(&["--verify"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "ses: nothing was recorded yet\n"));
    assert_eq!(empty.history(&["--json"]).json()["credentials"][0]["records"], json!([]));
    assert!(!empty.state().exists());

    // One that is configured no longer.
    let gone = Host::new(&["new"]);
    Keeper::new(&gone.state(), "old", 1 << 20).add(record(0));
    assert_eq!(gone.history(&["old"]).out.lines().count(), 1);
    assert_eq!(gone.history(&["old", "--verify"]).code, Some(0));

    fs::write(host.state().join("credentials/ses.json"), "{").unwrap();
    let ran = host.history(&["--verify"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("ses.json:1: ") && ran.err.contains("fix: "), "{}", ran.err);
    let document = host.history(&["--verify", "--json"]).json();
    assert!(document["error"]["what"].as_str().is_some_and(|what| what.contains("ses.json:1: ")), "{document}");
}

/// A file that was tampered with may hold anything, and a terminal is not to act on it.
#[test]
fn control_characters_do_not_reach_the_terminal() {
    let host = two();
    let file = host.state().join("audit/ses.1.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("AKIANEW", "\\u001b]0;owned\\u0007")).unwrap();
    for arguments in [&["ses"][..], &["ses", "--verify"]] {
        let ran = host.history(arguments);
        assert_eq!(ran.code, Some(i32::from(arguments.len() > 1)));
        let control = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
        assert!(!control(&ran.out) && !control(&ran.err), "{:?}", ran.out);
    }
}

/// It holds no lock: a daemon adds lines, begins files and drops others while it looks.
#[test]
fn a_log_that_grows_meanwhile_is_not_taken_for_a_broken_one() {
    let host = Host::new(&["ses"]);
    let mut keeper = Keeper::new(&host.state(), "ses", 3_000);
    keeper.add(record(0));
    let stop = AtomicBool::new(false);
    let added = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                keeper.add(record(added.fetch_add(1, Ordering::Relaxed).into()));
            }
        });
        // Until it was dropped from more often than there are files, and looked at often enough.
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut looks = 0;
        let done = loop {
            let ran = host.history(&["--verify", "--json"]);
            if ran.code != Some(0) {
                break Err(format!("{:?}\n{}{}", ran.code, ran.out, ran.err));
            }
            looks += 1;
            if looks >= 40 && added.load(Ordering::Relaxed) > 100 {
                break Ok(());
            }
            if Instant::now() > deadline {
                break Err(format!("waited for 40 looks at 100 records, had {looks} at {added:?}"));
            }
        };
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|what: String| panic!("{what}"));
    });
}
