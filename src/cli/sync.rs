//! `relaykey sync`: a rollover now, through the daemon where one runs, else in this process.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Exit, complain, load, print_json, runtime, say, tell};
use crate::agent::account::{self, Preview, SyncDocument, Synced};
use crate::agent::{self, Agent, End, Ended, Event, Logs, Run};
use crate::apply;
use crate::config::{self, Config};
use crate::control::{self, ControlError};
use crate::credential::Login;
use crate::report::{Attempt, Receivers};
use crate::rollover::Wake;
use crate::source;
use crate::state::{Access, StateError, Store};

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Credentials to look at; all, where none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show what would change, masked, after logging in with the candidate; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run, for root on a terminal: show what to do by hand with the password in it, instead of USER:***.
    #[arg(long, requires = "dry_run")]
    reveal: bool,
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

pub fn run(path: &Path, json: bool, args: &SyncArgs) -> Exit {
    if let Some((what, fix)) = may_not_reveal(json, args) {
        complain(what, fix);
        return Exit::Usage;
    }
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
    let outcomes = {
        let _within = runtime.enter();
        match through_the_daemon(path, &config, &chosen, json, args) {
            Ok(None) => runtime.block_on(sync(&config, &chosen, json, args)),
            Ok(Some(outcomes)) => Ok(outcomes),
            Err(e) => Err(e.into()),
        }
    };
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(e) => {
            let (temporary, fix) = match &e {
                Trouble::State(e) => (e.is_temporary(), e.fix()),
                Trouble::Trust(e) => (e.is_temporary(), e.fix()),
                Trouble::Control(e) => (e.is_temporary(), e.fix()),
            };
            let exit = if temporary { Exit::ForNow } else { Exit::ForGood };
            complain(&e.to_string(), &fix);
            if json {
                let error = serde_json::json!({"what": e.to_string(), "fix": fix, "temporary": temporary});
                print_json(&serde_json::json!({
                    "schema": SyncDocument::SCHEMA, "credentials": [], "error": error, "exit": exit.code(),
                }));
            }
            return exit;
        }
    };
    let document = SyncDocument::new(outcomes);
    if json {
        print_json(&document);
    }
    Exit::of(document.exit)
}

/// Why `--reveal` is not for this run, and what to do; `None` where it is, or was not asked for.
fn may_not_reveal(json: bool, args: &SyncArgs) -> Option<(&'static str, &'static str)> {
    if !args.reveal {
        None
    } else if json {
        Some(("--reveal shows a password, and --json is for programs", "leave one of them out"))
    } else if !rustix::process::geteuid().is_root() {
        Some(("--reveal shows a password, and only to root", "run it as root"))
    } else if !std::io::stdout().is_terminal() {
        Some((
            "--reveal shows a password, and standard output is not a terminal",
            "run it on a terminal, with nothing behind it that could keep the output",
        ))
    } else {
        None
    }
}

/// Shows what to do, with the password in it. Straight to the terminal: no buffer of ours keeps it.
fn reveal(credential: &str, target: &str, change: &apply::Previewed, login: &Login) -> std::io::Result<()> {
    let masked = format!("{}:***", login.username);
    let pair = Zeroizing::new(format!("{}:{}", login.username, login.password.expose()));
    let mut terminal = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    for line in account::by_hand(credential, target, &change.steps) {
        let revealed = Zeroizing::new(line.replace(&masked, &pair));
        terminal.write_all(revealed.as_bytes())?;
        terminal.write_all(b"\n")?;
    }
    Ok(())
}

/// What ends a sync before any credential is looked at.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trust(#[from] crate::tls::TrustError),
    #[error(transparent)]
    Control(#[from] ControlError),
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

/// Has the running daemon do it; `None`: there is none. `--dry-run` changes nothing and needs none.
fn through_the_daemon(
    path: &Path,
    config: &Config,
    chosen: &[&config::Credential],
    json: bool,
    args: &SyncArgs,
) -> Result<Option<Vec<Synced>>, ControlError> {
    if args.dry_run {
        return Ok(None);
    }
    let Some(client) = control::connect(&config.host.run_dir)? else { return Ok(None) };
    // Its configuration is what counts, not the one read here.
    let status = super::status::ask(client)?;
    for warning in super::status::differences(&status, path) {
        tell(&warning);
    }
    if status.daemon.is_some_and(|daemon| daemon.config_refused.is_some()) {
        tell("relaykey: the daemon has refused the changed configuration and goes by the old one: relaykey status");
    }
    let Some(client) = control::connect(&config.host.run_dir)? else { return Ok(None) };
    let request = control::Request::Sync(control::SyncRequest {
        names: match args.names.is_empty() && args.accept_version.is_none() {
            // All is all that the daemon has.
            true => Vec::new(),
            false => chosen.iter().map(|c| c.name.clone()).collect(),
        },
        accept_version: args.accept_version.clone(),
        wait_seconds: args.wait.as_secs().saturating_add(u64::from(args.wait.subsec_nanos() > 0)),
    });
    let progress = |line: &str| {
        if !json {
            tell(line);
        }
    };
    let mut document = client.call(&request, agent::operator().claimed.as_deref(), progress)?;
    let outcomes = document.get_mut("credentials").map(serde_json::Value::take).unwrap_or_default();
    let outcomes: Vec<Synced> = control::understood(outcomes)?;
    if !json {
        outcomes.iter().for_each(show);
    }
    Ok(Some(outcomes))
}

async fn sync(
    config: &Config,
    chosen: &[&config::Credential],
    json: bool,
    args: &SyncArgs,
) -> Result<Vec<Synced>, Trouble> {
    let http = agent::http(config)?;
    let (access, server) = match args.dry_run {
        true => (Access::Read, apply::Server::looking(config)),
        false => (Access::Write, apply::Server::new(config)),
    };
    let store = Arc::new(Store::open(&config.host.state_dir, access, args.wait)?);
    let agent = Agent {
        apply: apply::Client::in_process(server),
        identity: store.identity(config.host.name.as_deref(), agent::host_name)?,
        receivers: config.reports.clone(),
        logs: Logs::default(),
        store,
    };
    let receivers = Arc::new(Receivers::open(&config.reports, &http));
    let mut stop = stop_on_signal();
    let mut all = Vec::new();
    for credential in chosen {
        let mut preview = Vec::new();
        let mut observer = |event: Event<'_>| {
            if let Some(line) = account::line(credential, &event, Timestamp::now()).filter(|_| !json) {
                tell(&line);
            }
            match event {
                Event::Preview { target, change, login } => {
                    let mut steps = change.steps.clone();
                    if args.reveal {
                        match reveal(&credential.name, target, change, login) {
                            // They stand there already.
                            Ok(()) => steps.clear(),
                            Err(e) => complain(&format!("cannot write to the terminal: {e}"), "run it on another one"),
                        }
                    }
                    preview.push(Preview {
                        target: target.to_owned(),
                        change: change.diff.clone(),
                        reload: change.reload,
                        by_hand: credential.targets.iter().any(|t| t.name == target && !t.write),
                        steps,
                        differences: change.differences.clone(),
                    });
                }
                Event::Trouble { what, fix } => complain(what, fix),
                _ => {}
            }
        };
        let run = Run {
            credential,
            source: &source::open(credential, &agent.store.key()?, &http),
            wake: Wake { accept_version: args.accept_version.clone(), dry_run: args.dry_run },
            by: agent::operator(),
            ignore_backoff: true,
            deadline: Instant::now() + args.wait,
            observer: &mut observer,
        };
        let mut ended = match agent.run(run, &mut stop).await {
            Ok(ended) => ended,
            // This one cannot go on; the others can.
            Err(e) => Ended::broken(&credential.name, &e),
        };
        if !args.dry_run && !*stop.borrow() && ended.state.outbox.values().any(|o| !o.owed.is_empty()) {
            match agent.deliver(&mut ended.state, &receivers).await {
                Ok(attempts) => attempts.iter().filter(|_| !json).for_each(|a| tell(&delivered(credential, a))),
                Err(e) => complain(&e.to_string(), &e.fix()),
            }
        }
        let interrupted = ended.end == End::Interrupted;
        let synced = Synced::new(ended, args.dry_run, preview);
        if !json {
            show(&synced);
        }
        all.push(synced);
        if interrupted {
            break;
        }
    }
    Ok(all)
}

fn delivered(credential: &config::Credential, attempt: &Attempt) -> String {
    let (name, receiver) = (&credential.name, &attempt.receiver);
    match &attempt.outcome {
        Ok(()) => format!("{name}: reported to {receiver} ({:.3} s)", attempt.took.as_secs_f64()),
        Err(e) => format!("{name}: the report to {receiver} stays owed: {}\n  fix: {}", e.what, e.fix),
    }
}

fn show(synced: &Synced) {
    let (out, err) = synced.lines();
    out.iter().for_each(|line| say(line));
    err.iter().for_each(|line| tell(line));
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
