//! `relaykey history`: what was done here, from the audit log; with `--verify`, whether the log is as it was written.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Exit, complain, load, print_json, say, tell};
use crate::audit::{self, AuditError, AuditLine, By, Record, Verified};
use crate::config::Config;
use crate::host::HostError;
use crate::rollover::{AuditHead, rfc3339};
use crate::state::{Access, StateError, Store};
use crate::status::InSeconds;
use crate::text::line;

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Credentials to tell of; all, where none is named. One that is no longer configured may be named too.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Say whether each log is as it was written: nothing changed, missing, moved or cut off.
    #[arg(long)]
    verify: bool,
    /// Records per credential, the latest first; 0: all that are kept.
    #[arg(long, value_name = "N", default_value = "20", value_parser = number)]
    limit: usize,
}

/// The words of the standard library's own error are a programmer's.
fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number, as in --limit 20".to_owned())
}

const SCHEMA: &str = "relaykey/history/v1";
/// How often a log is looked at anew that changed while it was looked at: a running daemon adds to it.
const LOOKS: usize = 100;

/// What `history --json` prints.
#[derive(Serialize)]
struct HistoryDocument {
    schema: &'static str,
    credentials: Vec<History>,
    exit: u8,
}

#[derive(Serialize)]
struct History {
    name: String,
    /// The latest first.
    records: Vec<AuditLine>,
    /// With `--verify`.
    verdict: Option<ChainVerdict>,
}

#[derive(Serialize)]
struct ChainVerdict {
    holds: bool,
    lines: u64,
    /// Numbers of the oldest and the last line that are kept.
    first: u64,
    last: u64,
    files: usize,
    /// Lines that stand in the state only; the next run adds them to their file.
    owed: u64,
    broken: Vec<ChainFinding>,
}

#[derive(Serialize)]
struct ChainFinding {
    file: Option<String>,
    /// 0: the file as a whole.
    line: usize,
    what: String,
    fix: String,
}

/// Why a history cannot be told.
#[derive(Debug, thiserror::Error)]
enum HistoryError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Log(#[from] HostError),
}

impl HistoryError {
    fn fix(&self) -> String {
        match self {
            HistoryError::State(e) => e.fix(),
            HistoryError::Log(e) => e.fix(),
        }
    }
}

pub fn run(path: &Path, json: bool, args: &HistoryArgs) -> Exit {
    let config = match load(path, json) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let names = match choose(&config, &args.names) {
        Ok(names) => names,
        Err(exit) => return exit,
    };
    let histories: Result<Vec<History>, HistoryError> =
        names.into_iter().map(|name| tell_of(&config, name, args)).collect();
    let histories = match histories {
        Ok(histories) => histories,
        Err(e) => {
            complain(&e.to_string(), &e.fix());
            if json {
                let error = serde_json::json!({"what": e.to_string(), "fix": e.fix()});
                print_json(&serde_json::json!({
                    "schema": SCHEMA, "credentials": [], "error": error, "exit": Exit::ForGood.code(),
                }));
            }
            return Exit::ForGood;
        }
    };
    let holds = histories.iter().filter_map(|h| h.verdict.as_ref()).all(|verdict| verdict.holds);
    let exit = if holds { Exit::Done } else { Exit::ForGood };
    if json {
        let mut histories = histories;
        histories.iter_mut().for_each(|history| history.records.in_seconds());
        print_json(&HistoryDocument { schema: SCHEMA, credentials: histories, exit: exit.code() });
    } else if args.verify {
        histories.iter().for_each(judge);
    } else {
        list(histories);
    }
    exit
}

/// The names to tell of. A credential leaves the configuration, and its log stays.
fn choose(config: &Config, names: &[String]) -> Result<Vec<String>, Exit> {
    let configured = || config.credentials.iter().map(|c| c.name.clone());
    if names.is_empty() {
        return Ok(configured().collect());
    }
    for name in names {
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let known = is_name && (configured().any(|c| c == *name) || has_state(config, name));
        if !known {
            complain(
                &format!("there is no credential {name:?}, neither in the configuration nor in the state directory"),
                &format!("one of: {}", configured().collect::<Vec<_>>().join(", ")),
            );
            return Err(Exit::Usage);
        }
    }
    Ok(names.to_vec())
}

fn open(config: &Config) -> Result<Store, StateError> {
    Store::open(&config.host.state_dir, Access::Read, Duration::ZERO)
}

/// One that cannot be read is there, and is told of later.
fn has_state(config: &Config, name: &str) -> bool {
    open(config).and_then(|store| store.load(name)).map_or(true, |state| state.is_some())
}

fn tell_of(config: &Config, name: String, args: &HistoryArgs) -> Result<History, HistoryError> {
    let dir = &config.host.state_dir;
    let store = open(config)?;
    let head = || -> Result<AuditHead, StateError> { Ok(store.load(&name)?.map(|s| s.audit).unwrap_or_default()) };
    let mut now = head()?;
    let mut judged = args.verify.then(|| audit::verify(dir, &name, &now));
    for _ in 1..LOOKS {
        if !matches!(judged, Some(Err(_))) {
            break;
        }
        // The daemon may have added to the log between the look at its head and the look at its files.
        let later = head()?;
        if later == now {
            break;
        }
        now = later;
        judged = Some(audit::verify(dir, &name, &now));
    }
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let records = audit::lines(dir, &name, &now, limit)?;
    Ok(History { name, records, verdict: judged.map(ChainVerdict::from) })
}

impl From<Result<Verified, Vec<AuditError>>> for ChainVerdict {
    fn from(judged: Result<Verified, Vec<AuditError>>) -> Self {
        let (verified, wrong) = match judged {
            Ok(verified) => (verified, Vec::new()),
            Err(wrong) => (Verified::default(), wrong),
        };
        let finding = |e: &AuditError| match e {
            AuditError::Broken(b) => ChainFinding {
                file: Some(b.file.display().to_string()),
                line: b.line,
                what: b.what.clone(),
                fix: e.fix(),
            },
            AuditError::Host(h) => ChainFinding {
                file: h.path().map(|path| path.display().to_string()),
                line: 0,
                what: h.to_string(),
                fix: e.fix(),
            },
        };
        let Verified { lines, first, last, files, owed } = verified;
        ChainVerdict {
            holds: wrong.is_empty(),
            lines,
            first,
            last,
            files,
            owed,
            broken: wrong.iter().map(finding).collect(),
        }
    }
}

/// One verdict per credential, and one line per break.
fn judge(history: &History) {
    let Some(verdict) = &history.verdict else { return };
    let name = &history.name;
    if !verdict.holds {
        say(&format!("{name}: BROKEN"));
        let mut fix = "";
        for finding in &verdict.broken {
            let place = match (&finding.file, finding.line) {
                (Some(file), 0) => format!("{file}: "),
                (Some(file), line) => format!("{file}:{line}: "),
                (None, _) => String::new(),
            };
            say(&line(&format!("  {place}{}", finding.what)));
            if fix != finding.fix {
                fix = &finding.fix;
                tell(&format!("  fix: {fix}"));
            }
        }
        return;
    }
    if verdict.lines == 0 {
        say(&format!("{name}: nothing was recorded yet"));
        return;
    }
    let files = if verdict.files == 1 { "1 file".to_owned() } else { format!("{} files", verdict.files) };
    let owed = match verdict.owed {
        0 => String::new(),
        owed => format!("; the last {owed} in the state only, until the next run adds to the file"),
    };
    say(&format!("{name}: as it was written: records {} to {}, in {files}{owed}", verdict.first, verdict.last));
}

/// One line per record of all credentials, the latest first.
fn list(histories: Vec<History>) {
    let mut records: Vec<Record> = histories.into_iter().flat_map(|h| h.records).map(|line| line.record).collect();
    // Stable: within a credential the log's order counts, whatever the clock did.
    records.sort_by_key(|record| std::cmp::Reverse(record.at));
    if records.is_empty() {
        tell("nothing was recorded yet");
        return;
    }
    let rows: Vec<[String; 6]> = records.iter().map(row).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for (row, record) in rows.iter().zip(&records) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect::<String>();
        say(line(&format!("{cells}{}", took(record))).trim_end());
    }
}

/// When, which, who, what, version and user name, outcome.
fn row(record: &Record) -> [String; 6] {
    let version = match (&record.version, &record.username) {
        (Some(version), Some(username)) => format!("{version} ({username})"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => "-".into(),
    };
    [
        rfc3339(record.at),
        record.credential.clone(),
        who(&record.by),
        record.what.word().to_owned(),
        version,
        record.outcome.word().to_owned(),
    ]
}

fn who(by: &By) -> String {
    match by.uid {
        Some(_) => format!("{} {by}", by.cause),
        None => by.cause.word().to_owned(),
    }
}

/// How long it took in all, what woke it, and what stood in the way.
fn took(record: &Record) -> String {
    let milliseconds = record.steps.iter().fold(0_u64, |sum, step| sum.saturating_add(step.milliseconds));
    let mut text = format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000);
    if let Some(error) = &record.error {
        text.push_str(&format!("  {}: {}", error.class, error.words));
    }
    if let Some(approved_by) = &record.approved_by {
        text.push_str(&format!("  approved by {approved_by}"));
    }
    if let Some(detail) = &record.by.detail {
        text.push_str(&format!("  [{detail}]"));
    }
    text
}
