//! What an operator orders, `sync` and its like: through the daemon where one runs, else in this process; either way with
//! the same words, documents and exit codes.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Exit, choose, complain, load_with_remarks, print_json, runtime, say, tell};
use crate::agent::account::{self, Preview, SyncDocument, SyncOutcome, Synced};
use crate::agent::{self, Agent, FileWarning, FinishedRun, Logs, Run, RunEvent};
use crate::apply;
use crate::audit::StepKind;
use crate::aws;
use crate::config::{self, Config, Reload};
use crate::control::{self, ControlError};
use crate::credential::LocalKey;
use crate::instruction::{Instruction, relaykey};
use crate::report::{Attempt, Receivers};
use crate::rollover::{Outbox, State, Wake};
use crate::source;
use crate::state::{Access, StateError, Store};

/// After so long no more reports of a credential are begun: a receiver may be slow, and owed very many.
const DELIVERING: Duration = Duration::from_secs(60);

/// So long the files are waited for that are only looked at, once everything else is done: one may be on a file system that
/// gives no answer.
const LOOKING: Duration = Duration::from_secs(5);

/// One order, in the words of both ways.
pub struct OperatorOrder<'a> {
    /// Credentials; empty: all.
    pub names: &'a [String],
    /// For this process.
    pub wake: Wake,
    /// How long to wait for what fails for now.
    pub wait: Duration,
    /// Show what a person does to make a change by hand with the password in it.
    pub reveal: bool,
    /// For the daemon, about these credentials; `None`: it is not the daemon's business.
    pub request: Option<Box<dyn Fn(Vec<String>) -> control::ControlRequest + 'a>>,
}

/// How long an order waits, as the protocol says it: whole seconds, not less than asked for.
pub fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// `60s`, `2m`, of a command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text.parse().map_err(|_| "not a duration: write 30s, 2m, 1h".to_owned())?;
    Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())
}

/// Carries an order out, and gives the exit that it comes to.
pub fn carry_out(path: &Path, json: bool, order: &OperatorOrder<'_>) -> Exit {
    let (config, remarks) = match load_with_remarks(path, json) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if !remarks.is_empty() && !json {
        tell(config::render(&remarks, path).trim_end());
    }
    let chosen = match choose(&config.credentials, order.names, |c| &c.name) {
        Ok(chosen) => chosen,
        Err(exit) => return exit,
    };
    let wake = &order.wake;
    let about_one = [
        (wake.accept_version.is_some(), "--accept-version", "sync NAME --accept-version VERSION"),
        (wake.approve.is_some(), "approve", "approve NAME"),
        (wake.reject.is_some(), "reject", "reject NAME --reason REASON"),
        (wake.confirm, "confirm", "confirm NAME"),
    ];
    if let Some((_, what, usage)) = about_one.into_iter().find(|(is, ..)| *is && chosen.len() != 1) {
        complain(&format!("{what} is about one credential"), &format!("name it: {}", relaykey(usage)));
        return Exit::Usage;
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let about = config.clone();
    let doubts = runtime.spawn_blocking(move || agent::doubts(&about));
    let outcomes = {
        let _within = runtime.enter();
        match through_the_daemon(path, &config, &chosen, json, order) {
            Ok(None) => runtime.block_on(here(&config, &chosen, json, order)),
            Ok(Some(outcomes)) => Ok(outcomes),
            Err(e) => Err(e.into()),
        }
    };
    let waited = async { tokio::time::timeout(LOOKING, doubts).await };
    let doubts = runtime.block_on(waited).ok().and_then(Result::ok).unwrap_or_default();
    // What may not be torn has been waited for; what hangs is not.
    runtime.shutdown_background();
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(e) => {
            let (temporary, fix) = match &e {
                OrderError::State(e) => (e.is_temporary(), e.fix()),
                OrderError::Trust(e) => (e.is_temporary(), e.fix()),
                OrderError::Control(e) => (e.is_temporary(), e.fix()),
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
    // Those of credentials that were not asked for are told when they are.
    let is_about =
        |doubt: &FileWarning| doubt.credential.as_ref().is_none_or(|name| chosen.iter().any(|c| c.name == *name));
    let doubts = doubts.into_iter().filter(is_about);
    let mut document = SyncDocument::new(outcomes);
    if json {
        let is_warning = |f: &config::Finding| f.severity == config::Severity::Warning;
        let remarks = remarks.into_iter().filter(is_warning);
        let remarks = remarks.map(|finding| FileWarning { credential: None, about: "config".into(), finding });
        document.warnings = remarks.chain(doubts).collect();
        print_json(&document);
    } else {
        doubts.flat_map(|doubt| doubt.lines()).for_each(|line| tell(&line));
    }
    Exit::of(document.exit)
}

/// What ends an order before any credential is looked at.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trust(#[from] crate::tls::TrustError),
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Has the running daemon do it; `None`: there is none, or none is needed.
fn through_the_daemon(
    path: &Path,
    config: &Config,
    chosen: &[&config::Credential],
    json: bool,
    order: &OperatorOrder<'_>,
) -> Result<Option<Vec<Synced>>, ControlError> {
    let Some(request) = &order.request else { return Ok(None) };
    let Some(client) = control::connect(&config.host.run_dir)? else { return Ok(None) };
    // Its configuration is what counts, not the one read here.
    let status = super::status::ask(client)?;
    for warning in super::status::differences(&status, path) {
        tell(&warning);
    }
    if status.daemon.is_some_and(|daemon| daemon.config_refused.is_some()) {
        let status = relaykey("status");
        tell(&format!("relaykey: the daemon has refused the changed configuration and goes by the old one: {status}"));
    }
    let Some(client) = control::connect(&config.host.run_dir)? else { return Ok(None) };
    let request = request(match order.names.is_empty() {
        // All is all that the daemon has.
        true => Vec::new(),
        false => chosen.iter().map(|c| c.name.clone()).collect(),
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

/// Does it in this process.
async fn here(
    config: &Config,
    chosen: &[&config::Credential],
    json: bool,
    order: &OperatorOrder<'_>,
) -> Result<Vec<Synced>, OrderError> {
    let http = agent::http(config)?;
    let (access, server) = match order.wake.dry_run {
        true => (Access::Read, apply::Server::looking(&config.mail())),
        false => (Access::Write, apply::Server::new(&config.mail())),
    };
    let store = Arc::new(Store::open(&config.host.state_dir, access, order.wait)?);
    let agent = Agent {
        apply: apply::Client::in_process(server),
        identity: store.identity(config.host.name.as_deref(), agent::host_name)?,
        receivers: config.reports.clone(),
        lease: config.host.lease,
        logs: Logs::default(),
        store,
    };
    let receivers = Arc::new(Receivers::open(&config.reports, &http));
    let (stop, key) = (stop_on_signal(), agent.store.key()?);
    let deadline = Instant::now() + order.wait;
    let here = Here { agent, receivers, http, key, stop, json, order, deadline };
    Ok(here.all(chosen).await)
}

/// What every run of this process needs.
struct Here<'a> {
    agent: Agent,
    receivers: Arc<Receivers>,
    http: aws::Http,
    key: LocalKey,
    stop: watch::Receiver<bool>,
    json: bool,
    order: &'a OperatorOrder<'a>,
    deadline: Instant,
}

/// How a run over one credential came out, and what that means to the others.
struct OrderedRun {
    synced: Synced,
    /// It has put a login in place: what others of this host have seen may be no longer so.
    has_swapped: bool,
    /// Its last word names what its mail servers hold beside the login in use.
    names_something: bool,
}

/// Which run over a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Ordered,
    /// Another credential of this host has put a login in place since.
    OnceMore,
}

impl Here<'_> {
    /// Side by side: one that something hangs on holds up no other. Who names what another one has exchanged meanwhile is looked at
    /// once more: no daemon may be there to see that the file has changed.
    async fn all(&self, chosen: &[&config::Credential]) -> Vec<Synced> {
        let run = |nth: usize, which| async move { (nth, which, self.run(chosen[nth], which).await) };
        let mut under_way: FuturesUnordered<_> = (0..chosen.len()).map(|nth| run(nth, Which::Ordered)).collect();
        let mut ended: Vec<Option<OrderedRun>> = chosen.iter().map(|_| None).collect();
        let mut outdated = vec![false; chosen.len()];
        let mut again = vec![false; chosen.len()];
        while let Some((nth, which, came)) = under_way.next().await {
            if which == Which::Ordered && came.has_swapped {
                (0..chosen.len()).filter(|other| *other != nth).for_each(|other| outdated[other] = true);
            }
            again[nth] = false;
            ended[nth] = Some(match ended[nth].take() {
                Some(before) => OrderedRun { synced: before.synced.followed_by(came.synced), ..came },
                None => came,
            });
            if self.order.wake.dry_run || *self.stop.borrow() {
                continue;
            }
            for other in 0..chosen.len() {
                let names_something = ended[other].as_ref().is_some_and(|ended| ended.names_something);
                if names_something && !again[other] && std::mem::take(&mut outdated[other]) {
                    again[other] = true;
                    under_way.push(run(other, Which::OnceMore));
                }
            }
        }
        ended.into_iter().flatten().map(|ended| ended.synced).collect()
    }

    async fn run(&self, credential: &config::Credential, which: Which) -> OrderedRun {
        let (json, dry_run, shows_password) = (self.json, self.order.wake.dry_run, self.order.reveal);
        let mut stop = self.stop.clone();
        let mut preview = Vec::new();
        let mut observer = |event: RunEvent<'_>| {
            if let Some(line) = account::line(credential, &event, Timestamp::now()).filter(|_| !json) {
                tell(&line);
            }
            match event {
                RunEvent::Preview { target, change, logins } => {
                    // What a person has to change is said where it stands in the way, and nothing of it once that is done.
                    if !dry_run {
                        return;
                    }
                    let mut todo = change.steps.clone();
                    if shows_password {
                        match reveal(credential, target, change, logins) {
                            // They stand there already.
                            Ok(()) => todo.clear(),
                            Err(e) => complain(&format!("cannot write to the terminal: {e}"), "run it on another one"),
                        }
                    }
                    preview.push(Preview {
                        target: target.to_owned(),
                        change: change.diff.clone(),
                        reload: change.reload.is_some(),
                        reload_because: change.reload,
                        reload_never: credential.targets.iter().any(|t| t.name == target && t.reload == Reload::Never),
                        by_hand: credential.targets.iter().any(|t| t.name == target && !t.write),
                        steps: Instruction::plain(&todo),
                        todo,
                        differences: change.differences.clone(),
                    });
                }
                RunEvent::Trouble { what, fix } => complain(what, fix),
                _ => {}
            }
        };
        let wake = match which {
            Which::Ordered => Wake { asked: true, ..self.order.wake.clone() },
            // What was ordered was done.
            Which::OnceMore => Wake { asked: true, ..Wake::default() },
        };
        let run = Run {
            credential,
            source: &source::open(credential, &self.key, &self.http),
            wake,
            by: agent::operator(),
            ignore_backoff: true,
            deadline: self.deadline,
            observer: &mut observer,
        };
        let mut ended = match self.agent.run(run, &mut stop).await {
            Ok(ended) => ended,
            // This one cannot go on; the others can.
            Err(e) => FinishedRun::broken(&credential.name, &e),
        };
        if !dry_run && !*stop.borrow() && ended.state.outbox.values().any(|o| !o.owed.is_empty()) {
            let until = Instant::now() + DELIVERING;
            match self.agent.deliver(&mut ended.state, &self.receivers, until, &mut stop).await {
                Ok(attempts) if !json => {
                    attempts.iter().for_each(|a| tell(&delivered(credential, a)));
                    left_over(credential, &ended.state, &attempts).for_each(|line| tell(&line));
                }
                Ok(_) => {}
                Err(e) => complain(&e.to_string(), &e.fix()),
            }
        }
        let has_swapped = ended.steps.iter().any(|step| step.step == StepKind::Swap);
        let names_something = ended.state.names_something();
        let synced = Synced::new(credential, ended, dry_run, preview);
        if !json && (which == Which::Ordered || synced.outcome != SyncOutcome::UpToDate) {
            show(&synced);
        }
        OrderedRun { synced, has_swapped, names_something }
    }
}

/// Shows what to do, with the password in it. Straight to the terminal: no buffer of ours keeps it.
fn reveal(
    credential: &config::Credential,
    target: &str,
    change: &apply::Previewed,
    logins: &apply::Logins,
) -> std::io::Result<()> {
    let smtp =
        credential.targets.iter().find(|t| t.name == target).map(|t| &t.smtp).filter(|smtp| !smtp.also.is_empty());
    let regions: Vec<String> =
        smtp.iter().flat_map(|smtp| smtp.endpoints()).map(|smtp| smtp.relay().takes_password_of()).collect();
    let mut terminal = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    for line in account::by_hand(&credential.name, target, &change.steps) {
        let mut revealed = Zeroizing::new(line);
        for (endpoint, login) in logins.each() {
            let masked = apply::masked(&login.username, regions.get(endpoint).map(String::as_str));
            let pair = Zeroizing::new(format!("{}:{}", login.username, login.password.expose()));
            revealed = Zeroizing::new(revealed.replace(&masked, &pair));
        }
        terminal.write_all(revealed.as_bytes())?;
        terminal.write_all(b"\n")?;
    }
    Ok(())
}

fn delivered(credential: &config::Credential, attempt: &Attempt) -> String {
    let (name, receiver) = (&credential.name, &attempt.receiver);
    match &attempt.outcome {
        Ok(()) => format!("{name}: reported to {receiver} ({:.3} s)", attempt.took.as_secs_f64()),
        Err(e) => format!("{name}: the report to {receiver} stays owed: {}\n  fix: {}", e.what, e.fix),
    }
}

/// A line for each receiver to which reports stay owed although it is not the one that failed.
fn left_over(
    credential: &config::Credential,
    state: &State,
    attempts: &[Attempt],
) -> impl Iterator<Item = String> + use<> {
    let failed = |name: &String| attempts.iter().any(|a| a.receiver == *name && a.outcome.is_err());
    let owed = state.outbox.iter().filter(|(name, outbox)| !outbox.owed.is_empty() && !failed(name));
    let line = |(receiver, outbox): (&String, &Outbox)| {
        let (name, n) = (&credential.name, outbox.owed.len());
        let count = if n == 1 { "1 report".to_owned() } else { format!("{n} reports") };
        let fix =
            format!("nothing where the daemon runs, which goes on by itself; else once more: {}", relaykey("sync"));
        format!("{name}: still owed to {receiver}: {count}; there was no time for more\n  fix: {fix}")
    };
    owed.map(line).collect::<Vec<_>>().into_iter()
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
        apply::ending();
        let _ = tell.send(true);
        // The channel stays open: a receiver that waits for a change must not spin on a closed one.
        std::future::pending::<()>().await;
    });
    stop
}
