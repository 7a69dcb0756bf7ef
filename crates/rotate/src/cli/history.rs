//! `relaykey-rotate history`: what was done, when and by whom; with `--verify`, whether the log is as it was written.

use clap::Args;

use super::view::{SCHEMA, number, put, stamp};
use super::{Exit, Session, print_json, refused};
use crate::run::{AuditEvent, AuditLine, Broken};

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Say whether the log is as it was written: nothing changed, missing or cut off.
    #[arg(long)]
    verify: bool,
    /// Lines, the latest; 0: all that are kept.
    #[arg(long, value_name = "N", default_value = "50", value_parser = number_of_lines)]
    limit: usize,
}

/// The words of the standard library's own error are a programmer's.
fn number_of_lines(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number, as in --limit 50".to_owned())
}

pub async fn run(mut at: Session<'_>, args: &HistoryArgs) -> Exit {
    let read = match args.verify {
        true => at.controller.verify().await,
        false => at.controller.history().await.map(|lines| (lines, Vec::new())),
    };
    let (lines, broken) = match read {
        Ok(read) => read,
        Err(fault) => return refused(&fault),
    };
    let exit = if broken.is_empty() { Exit::Done } else { Exit::ForGood };
    let skip = if args.limit == 0 { 0 } else { lines.len().saturating_sub(args.limit) };
    if at.json {
        print_json(&serde_json::json!({
            "schema": SCHEMA,
            "credential": at.credential.name,
            "lines": &lines[skip..],
            "verified": args.verify.then(|| broken.iter().map(words).collect::<Vec<_>>()),
            "exit": exit.code(),
        }));
        return exit;
    }
    let mut out = String::new();
    for line in &lines[skip..] {
        put(&mut out, &format!("{}  ", stamp(line.at)), "    ", &told(line));
    }
    if lines.is_empty() {
        out += "nothing was done yet\n";
    }
    if args.verify {
        for one in &broken {
            put(&mut out, "the log does not hold: ", "    ", &words(one));
        }
        if broken.is_empty() {
            let lines = number(lines.len(), "line");
            out += &format!("the log holds: {lines}, each with the hash of the one before it\n");
        }
    }
    at.say(out.trim_end());
    exit
}

fn words(broken: &Broken) -> String {
    match broken {
        Broken::Changed { seq } => format!("line {seq} was changed"),
        Broken::Missing { seq } => format!("a line is missing before line {seq}"),
        Broken::Cut { seq, head } => format!("it ends with line {seq}, and the control record knows of line {head}"),
    }
}

fn told(line: &AuditLine) -> String {
    let event = match line.event {
        AuditEvent::Asked => "asked for",
        AuditEvent::Begins => "begins",
        AuditEvent::Done => "done",
        AuditEvent::Failed => "failed",
        AuditEvent::Unknown => "not known what became of it",
    };
    let mut words = format!("{}: {event}", line.what);
    let key = line.key.as_ref().map(|key| key.as_str());
    for more in key.into_iter().chain(line.host.as_ref().map(|host| host.as_str())) {
        words += &format!(", {more}");
    }
    if let Some(version) = &line.version {
        words += &format!(", version {version}");
    }
    if let Some(more) = &line.more {
        words += &format!(" ({more})");
    }
    words + &format!(", by {}", line.by)
}
