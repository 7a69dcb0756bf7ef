//! `relaykey sync`: a rollover now, in this process.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{Exit, complain, load, print_json, runtime, say, tell};
use crate::agent::{self, Agent, End, Ended, Event, Run};
use crate::apply;
use crate::config::{self, Config};
use crate::rollover::{Failure, Outcome, Report, Step, Wake};
use crate::state::{Access, StateError, Store};
use crate::status::words;

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Credentials to look at; all, where none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show what would change, masked, after logging in with the candidate; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Take this version although it is one that this host left behind, or not newer than the applied one.
    #[arg(long, value_name = "VERSION")]
    accept_version: Option<String>,
    /// How long to wait for what fails for now, such as a key that SES does not know yet: 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text.parse().map_err(|_| "not a duration: write 30s, 2m, 1h".to_owned())?;
    Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())
}

const SCHEMA: &str = "relaykey/sync/v1";

/// What `sync --json` prints.
#[derive(Serialize)]
struct Document {
    schema: &'static str,
    credentials: Vec<Outcomes>,
    exit: u8,
}

#[derive(Serialize)]
struct Outcomes {
    name: String,
    /// `adopted`, `confirmed`, `up-to-date`, `dry-run`, `failed-for-now`, `failed`, `interrupted`.
    outcome: &'static str,
    /// Why it ended here.
    reason: String,
    version: Option<String>,
    username: Option<String>,
    failures: Vec<TargetFailure>,
    steps: Vec<StepTime>,
    preview: Vec<Preview>,
    report: Option<Report>,
    exit: u8,
}

#[derive(Serialize)]
struct TargetFailure {
    target: Option<String>,
    #[serde(flatten)]
    failure: Failure,
}

#[derive(Serialize)]
struct StepTime {
    step: &'static str,
    target: Option<String>,
    ok: bool,
    milliseconds: u128,
}

#[derive(Serialize)]
struct Preview {
    target: String,
    change: Vec<String>,
    reload: bool,
}

pub fn run(path: &Path, json: bool, args: &SyncArgs) -> Exit {
    let config = match load(path, json) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let chosen = match choose(&config, &args.names) {
        Ok(chosen) => chosen,
        Err(exit) => return exit,
    };
    if args.accept_version.is_some() && chosen.len() != 1 {
        complain("--accept-version is about one credential", "name it: relaykey sync NAME --accept-version VERSION");
        return Exit::Usage;
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let outcomes = match runtime.block_on(sync(&config, &chosen, json, args)) {
        Ok(outcomes) => outcomes,
        Err(e) => {
            let (temporary, fix) = match &e {
                Trouble::State(e) => (e.is_temporary(), e.fix()),
                Trouble::Trust(e) => (e.is_temporary(), e.fix()),
            };
            let exit = if temporary { Exit::ForNow } else { Exit::ForGood };
            complain(&e.to_string(), &fix);
            if json {
                let error = serde_json::json!({"what": e.to_string(), "fix": fix, "temporary": temporary});
                print_json(&serde_json::json!({
                    "schema": SCHEMA, "credentials": [], "error": error, "exit": exit.code(),
                }));
            }
            return exit;
        }
    };
    let exit = outcomes.iter().map(|(_, exit)| *exit).max().unwrap_or(Exit::Done);
    if json {
        let credentials = outcomes.into_iter().map(|(o, _)| o).collect();
        print_json(&Document { schema: SCHEMA, credentials, exit: exit.code() });
    }
    exit
}

/// What ends a sync before any credential is looked at.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trust(#[from] crate::tls::TrustError),
}

fn choose<'a>(config: &'a Config, names: &[String]) -> Result<Vec<&'a config::Credential>, Exit> {
    if names.is_empty() {
        return Ok(config.credentials.iter().collect());
    }
    let find = |name: &String| {
        config.credentials.iter().find(|c| c.name == *name).ok_or_else(|| {
            let known: Vec<&str> = config.credentials.iter().map(|c| c.name.as_str()).collect();
            complain(
                &format!("the configuration has no credential {name:?}"),
                &format!("one of: {}", known.join(", ")),
            );
            Exit::Usage
        })
    };
    names.iter().map(find).collect()
}

async fn sync(
    config: &Config,
    chosen: &[&config::Credential],
    json: bool,
    args: &SyncArgs,
) -> Result<Vec<(Outcomes, Exit)>, Trouble> {
    let http = agent::http(config)?;
    let (access, server) = match args.dry_run {
        true => (Access::Read, apply::Server::looking(config)),
        false => (Access::Write, apply::Server::new(config)),
    };
    let mut store = Store::open(&config.host.state_dir, access, args.wait)?;
    let agent = Agent {
        config,
        apply: apply::Client::in_process(server),
        identity: store.identity(config.host.name.as_deref(), agent::host_name)?,
        http,
    };
    let mut stop = stop_on_signal();
    let mut all = Vec::new();
    for credential in chosen {
        let mut steps = Vec::new();
        let mut preview = Vec::new();
        let mut observer = |event: Event<'_>| {
            if !json {
                progress(credential, &event);
            }
            match event {
                Event::Begins { .. } => {}
                Event::Ended { step, outcome, took } => steps.push(StepTime {
                    step: step.word(),
                    target: target_name(credential, step).map(str::to_owned),
                    ok: !matches!(
                        outcome,
                        Outcome::Failed(_) | Outcome::Refused { .. } | Outcome::Mismatch(_) | Outcome::ReloadOwed(_)
                    ),
                    milliseconds: took.as_millis(),
                }),
                Event::Preview { target, diff, reload } => {
                    preview.push(Preview { target: target.to_owned(), change: diff.to_vec(), reload });
                }
            }
        };
        let wake = Wake { accept_version: args.accept_version.clone(), dry_run: args.dry_run };
        let deadline = Instant::now() + args.wait;
        let run = Run { credential, wake, deadline, observer: &mut observer };
        let ended = match agent.run(run, &mut store, &mut stop).await {
            Ok(ended) => ended,
            // This one cannot go on; the others can.
            Err(e) => Ended::broken(&credential.name, &e),
        };
        let (word, exit) = judge(&ended, args.dry_run);
        if !json {
            conclude(credential, &ended, word, args.dry_run, &preview);
        }
        let interrupted = ended.end == End::Interrupted;
        all.push((outcomes(credential, ended, word, exit, steps, preview), exit));
        if interrupted {
            break;
        }
    }
    Ok(all)
}

fn judge(ended: &Ended, dry_run: bool) -> (&'static str, Exit) {
    match ended.end {
        End::Done(Some(completion)) => (completion.word(), Exit::Done),
        End::Done(None) if dry_run && ended.state.candidate.is_some() => ("dry-run", Exit::Done),
        End::Done(None) => ("up-to-date", Exit::Done),
        End::ForNow => ("failed-for-now", Exit::ForNow),
        End::ForGood => ("failed", Exit::ForGood),
        End::Interrupted => ("interrupted", Exit::ForNow),
    }
}

fn outcomes(
    credential: &config::Credential,
    ended: Ended,
    outcome: &'static str,
    exit: Exit,
    steps: Vec<StepTime>,
    preview: Vec<Preview>,
) -> Outcomes {
    let done = matches!(ended.end, End::Done(Some(_)));
    Outcomes {
        name: credential.name.clone(),
        outcome,
        reason: ended.reason.to_string(),
        version: ended.state.applied.as_ref().map(|a| a.id.version.clone()),
        username: ended.state.applied.as_ref().map(|a| a.username.clone()),
        failures: ended.failures.into_iter().map(|(target, failure)| TargetFailure { target, failure }).collect(),
        steps,
        preview,
        report: if done { ended.state.report } else { None },
        exit: exit.code(),
    }
}

fn target_name<'a>(credential: &'a config::Credential, step: &Step) -> Option<&'a str> {
    step.target().map(|i| credential.targets[i].name.as_str())
}

/// One line per step, on standard error, as it happens.
fn progress(credential: &config::Credential, event: &Event<'_>) {
    let name = &credential.name;
    match event {
        Event::Begins { step: Step::Wait { until }, reason } => {
            let left = until.duration_since(jiff::Timestamp::now());
            if left.as_millis() > 0 {
                let left = if left.as_secs() > 0 { words(left) } else { "a moment".to_owned() };
                tell(&format!("{name}: waiting {left} ({reason})"));
            }
        }
        Event::Begins { .. } | Event::Preview { .. } | Event::Ended { step: Step::Wait { .. }, .. } => {}
        Event::Ended { step, outcome, took } => {
            let target = target_name(credential, step).map(|t| format!(" {t}")).unwrap_or_default();
            let text = match outcome {
                Outcome::Inspected(i) => match (&i.username, &i.swapped) {
                    (_, Some(version)) => format!("version {version} was swapped in by a run that did not finish"),
                    (Some(username), None) => format!("uses {username}"),
                    (None, None) => "has no entry yet".into(),
                },
                Outcome::Fetched(f) => format!("version {} ({})", f.id.version, f.username),
                Outcome::Accepted(e) => format!("{}: {}", e.endpoint, e.reply),
                Outcome::Refused { reply } => format!("refused: {reply}"),
                Outcome::Prepared(p) if p.nothing_to_write => "holds the candidate already, nothing to write".into(),
                Outcome::Prepared(_) => "staged, every key looked up".into(),
                Outcome::Swapped => "in place".into(),
                Outcome::Activated => "noticed".into(),
                Outcome::ReadBack(r) => format!("{} gives the candidate ({})", r.keys.join(", "), r.how),
                Outcome::Failed(f) | Outcome::Mismatch(f) | Outcome::ReloadOwed(f) => format!("failed: {}", f.what),
                Outcome::Refrained
                | Outcome::Previewed
                | Outcome::Undone
                | Outcome::Discarded
                | Outcome::Waited
                | Outcome::Committed(_) => "done".into(),
            };
            tell(&format!("{name}: {:<9}{target} {text} ({:.3} s)", step.word(), took.as_secs_f64()));
        }
    }
}

/// The last word, on standard output; what stands in the way, with its fix, on standard error.
fn conclude(credential: &config::Credential, ended: &Ended, word: &str, dry_run: bool, preview: &[Preview]) {
    for p in preview {
        say(&format!("{}: target {} would change:", credential.name, p.target));
        for line in &p.change {
            say(&format!("  {line}"));
        }
        if p.change.is_empty() {
            say("  nothing");
        }
    }
    let version = match (dry_run, &ended.state.candidate, &ended.state.applied) {
        (true, Some(c), _) => format!(" version {} ({})", c.id.version, c.username),
        (_, _, Some(a)) => format!(" version {} ({})", a.id.version, a.username),
        _ => String::new(),
    };
    say(&format!("{}: {word}{}", credential.name, if word.starts_with("failed") { String::new() } else { version }));
    let mut said: Vec<&str> = Vec::new();
    for (target, failure) in &ended.failures {
        if said.contains(&failure.what.as_str()) {
            continue;
        }
        said.push(&failure.what);
        let target = target.as_ref().map(|t| format!(" {t}")).unwrap_or_default();
        tell(&format!("{}{target}: {}", credential.name, failure.what));
        tell(&format!("  fix: {}", failure.fix));
    }
    if ended.failures.is_empty() && ended.end == End::ForNow {
        tell(&format!("{}: {}", credential.name, ended.reason));
    }
}

/// Becomes true at SIGINT or SIGTERM: the step under way is finished first.
fn stop_on_signal() -> tokio::sync::watch::Receiver<bool> {
    let (tell, stop) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return;
        };
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
        let _ = tell.send(true);
        // The channel stays open: a receiver that waits for a change must not spin on a closed one.
        std::future::pending::<()>().await;
    });
    stop
}
