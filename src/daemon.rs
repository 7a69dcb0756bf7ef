//! `relaykey run`: the daemon. It puts everything together and decides nothing: a task keeps one credential fresh, `wake`
//! wakes it, the status cache tells what is known; here they are started, told to read the configuration again, and stopped.
//!
//! ```text
//! timer, SIGHUP, files, mail log, control socket ──> mailbox ──> task ──> agent ──> status cache ──> HTTP, status, STATUS=
//! ```
//!
//! - `task`: one credential's, for as long as its configuration is in force.
//! - `generation`: the tasks of one configuration, and how those of the next take their place.
//! - `orders`: what is asked at the control socket, and by whom it is answered.
//! - `watched_files`, `log_followers`: what changes elsewhere, and which task that wakes.
//! - `status_cache`, `http`: what is known, and where it is told.
//!
//! One thread does all of it; what blocks (files, child processes) is done on threads that end when idle.

mod generation;
mod http;
mod log_followers;
mod orders;
mod status_cache;
mod task;
mod watched_files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use self::generation::{ReloadAsked, await_tasks};
use self::http::not_listening;
use self::log_followers::LogFollowers;
use self::orders::TaskHandles;
use self::status_cache::StatusCache;
use self::task::TargetFiles;
use self::watched_files::{WatchedFiles, watch_files};
use crate::agent::{self, Logs};
use crate::apply;
use crate::config::{self, Config};
use crate::control;
use crate::health;
use crate::instruction::relaykey;
use crate::service::log::Matter;
use crate::service::{self, Notifier, log};
use crate::state::{Access, HostIdentity, StateError, Store};
use crate::status::{DaemonStatus, NotListening};
use crate::tls;
use crate::wake::{self, Cause, Watch};

/// How long the daemon waits at its start for another relaykey that holds the state directory: a `sync` by hand.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// How often a lock that somebody holds is tried.
const LOCK_AGAIN: Duration = Duration::from_millis(50);
/// How often the service manager is told that a step is being finished.
const TOLD: Duration = Duration::from_secs(30);
/// So long the start waits for first looks. What hangs longer is shown by `status`, and the others are at work.
const FIRST_LOOKS: Duration = Duration::from_secs(120);
/// A configuration that is being written is read when it has been left alone this long.
const EDITED: Duration = Duration::from_millis(200);
/// Whoever waits for an answer when the daemon ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trust(#[from] tls::TrustError),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Control(control::ControlError),
}

impl DaemonError {
    /// Will trying again help without anybody doing anything?
    pub fn is_temporary(&self) -> bool {
        match self {
            DaemonError::State(e) => e.is_temporary(),
            DaemonError::Trust(e) => e.is_temporary(),
            DaemonError::Control(e) => e.is_temporary(),
            DaemonError::Signals(_) => false,
        }
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            DaemonError::State(e) => e.fix(),
            DaemonError::Trust(e) => e.fix(),
            DaemonError::Control(e) => e.fix(),
            DaemonError::Signals(_) => "see the limits of this user (ulimit -n)".into(),
        }
    }
}

/// What lasts as long as the process, whatever configuration is in force.
struct Daemon {
    path: PathBuf,
    notifier: Notifier,
    cache: Arc<StatusCache>,
    store: Arc<Store>,
    /// What the mail servers' side shares from one configuration to the next.
    apply: apply::ApplyProcess,
    identity: HostIdentity,
    posts: TaskHandles,
    logs: Logs,
    sights: mpsc::UnboundedSender<TargetFiles>,
    roles: WatchedFiles,
    /// The control socket is to be looked at: is its file still there?
    socket_look: Arc<Notify>,
    /// `None`: this host has no inotify to give; changes are seen at the next poll.
    watch: Option<Arc<Watch>>,
    /// Tasks of earlier configurations that have not ended yet, by credential.
    lingering: BTreeMap<String, JoinHandle<()>>,
    followers: LogFollowers,
    /// What is listened at for HTTP; kept from one configuration to the next.
    listeners: Vec<health::HttpListener>,
    /// Sockets of the service manager's that are of no use.
    unusable: Vec<NotListening>,
    /// Every first look is done, and the service manager knows.
    started: bool,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What stops it before it watches anything: the state directory cannot be used, there are no roots to trust.
pub async fn run(path: &Path, config: Config) -> Result<(), DaemonError> {
    let listen = |kind| signal(kind).map_err(DaemonError::Signals);
    let mut reload = listen(SignalKind::hangup())?;
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let notifier = Notifier::default();
    notifier.status("starting: waiting for the state directory");
    let store = tokio::select! {
        store = open_when_free(&config.host.state_dir) => Arc::new(store?),
        _ = ended(&mut term, &mut int) => return Ok(()),
    };
    let identity = store.identity(config.host.name.as_deref(), agent::host_name)?;
    let now = Timestamp::now();
    let daemon = DaemonStatus {
        agent: agent::AGENT.into(),
        host: identity.name.clone(),
        pid: std::process::id(),
        since: now,
        config: path.display().to_string(),
        config_since: now,
        config_refused: None,
        not_listening: Vec::new(),
    };
    let cache = Arc::new(StatusCache::new(daemon, identity.clone_of.clone()));
    let (sights, mut seen) = mpsc::unbounded_channel();
    let (posts, roles) = (TaskHandles::default(), WatchedFiles::default());
    let (edited, socket_look) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (listeners, unusable) = health::inherited();
    for e in &unusable {
        log::trouble(Matter::Error, &e.to_string(), &e.fix());
    }
    let mut daemon = Daemon {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        notifier,
        watch: watch_files(&posts, &roles, &edited, &socket_look).map(Arc::new),
        socket_look,
        lingering: BTreeMap::new(),
        cache,
        apply: apply::ApplyProcess::new(&config.host.state_dir),
        store,
        identity,
        posts,
        logs: Logs::default(),
        sights,
        roles,
        followers: LogFollowers::default(),
        unusable: unusable.iter().map(|e| not_listening(e, now)).collect(),
        listeners,
        started: false,
    };
    let socket = control::bind(&config.host.run_dir).map_err(DaemonError::Control)?;
    let control_stop = watch::Sender::new(false);
    let mut control = tokio::spawn(daemon.answer(socket, control_stop.subscribe()));
    let mut generation = daemon.start(daemon.prepare(config)?, &Cause::Start);
    let mut first_looks = std::mem::take(&mut generation.first_looks).into_iter();
    let mut awaited = first_looks.next();
    let mut patience = Box::pin(wake::wait(FIRST_LOOKS));
    let mut changes = daemon.cache.changes();
    let watchdog = service::watchdog_interval();
    // By a timer of the kernel's, and at once for the first time: the run time's own would wake up twice in between.
    let mut fed = Box::pin(wake::wait(Duration::ZERO));
    let names: Vec<&str> = generation.config.credentials.iter().map(|c| c.name.as_str()).collect();
    log::started(agent::AGENT, &path.display().to_string(), &names);
    loop {
        tokio::select! {
            // The loop that feeds the watchdog is the one that starts, reloads and stops: stuck is stuck.
            () = &mut fed, if watchdog.is_some() => {
                daemon.notifier.watchdog();
                fed.set(wake::wait(watchdog.expect("guarded")));
            }
            looked = async { awaited.as_mut().expect("guarded").await }, if awaited.is_some() => {
                let _ = looked;
                awaited = first_looks.next();
                if awaited.is_none() {
                    daemon.started = true;
                    daemon.notifier.ready();
                }
            }
            () = &mut patience, if !daemon.started => {
                let what = "the start does not wait any longer for credentials that were not looked at yet";
                let fix = format!("see which, and what they are at: {}", relaykey("status"));
                log::trouble(Matter::Warning, what, &fix);
                awaited = None;
                daemon.started = true;
                daemon.notifier.ready();
            }
            Ok(()) = changes.changed(), if daemon.notifier.is_managed() => {
                daemon.notifier.status(&daemon.cache.status(Timestamp::now()).line());
            }
            asked = reloading(&mut reload, &edited) => {
                if asked == ReloadAsked::No {
                    // An editor may still be writing.
                    wake::wait(EDITED).await;
                }
                generation = daemon.reload(generation, asked).await;
                let new = std::mem::take(&mut generation.first_looks);
                if !daemon.started && !new.is_empty() {
                    // The start is not over before a first look is done, by whatever configuration.
                    first_looks = new.into_iter();
                    awaited = first_looks.next();
                }
            }
            Some(Ok((place, listener))) = generation.late.join_next() => daemon.heard(&mut generation, &place, listener),
            Some(sight) = seen.recv() => daemon.sighted(&generation.config, sight),
            why = ended(&mut term, &mut int) => {
                log::stopping(why);
                daemon.notifier.stopping();
                daemon.notifier.status("stopping, after the step under way");
                let _ = control_stop.send(true);
                apply::ending();
                let longest = agent::LONGEST_STEP + TOLD;
                let _ = generation.end_tasks(&daemon.notifier, longest).await;
                let _ = await_tasks(std::mem::take(&mut daemon.lingering), &daemon.notifier, longest).await;
                // Whoever waits for an answer has it by now.
                let _ = tokio::time::timeout(LAST_ANSWERS, &mut control).await;
                generation.end_http().await;
                return Ok(());
            }
        }
    }
}

/// Comes back when the configuration is to be read again.
async fn reloading(signal: &mut Signal, edited: &Notify) -> ReloadAsked {
    tokio::select! {
        _ = signal.recv() => ReloadAsked::Yes,
        () = edited.notified() => ReloadAsked::No,
    }
}

/// The state directory, once nobody else holds it. Does not block the thread: the daemon may be told to end meanwhile.
async fn open_when_free(dir: &Path) -> Result<Store, StateError> {
    let (since, mut told) = (Instant::now(), false);
    loop {
        match Store::open(dir, Access::Write, Duration::ZERO) {
            Err(e) if e.is_locked() && since.elapsed() < LOCK_WAIT => {
                // One that is about to end lets it go in time; any other one never does.
                if let Some(daemon) = e.held_by_daemon().filter(|_| !told) {
                    let what = format!(
                        "{} is locked by {daemon}, and this one waits {} s at most for that to end",
                        dir.display(),
                        LOCK_WAIT.as_secs()
                    );
                    log::trouble(Matter::Warning, &what, &e.fix());
                    told = true;
                }
                tokio::time::sleep(LOCK_AGAIN).await;
            }
            opened => return opened.map_err(|e| e.after(since.elapsed())),
        }
    }
}

/// Comes back with the name of the signal that ends the daemon.
async fn ended(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

/// A finding has its line, at the level of its severity.
fn tell(finding: &config::Finding) {
    let matter = match finding.severity {
        config::Severity::Error => Matter::Error,
        config::Severity::Warning => Matter::Warning,
        config::Severity::Note => Matter::Note,
    };
    log::trouble(matter, &finding.located(), &finding.fix);
}
