//! `relaykey run`: the daemon. It puts everything together and decides nothing: keepers keep one credential each fresh,
//! `wake` wakes them, the board tells what is known; here they are started, told to read the configuration again, and
//! stopped.
//!
//! ```text
//! timer, SIGHUP, files, mail log, control socket ──> mailbox ──> keeper ──> agent ──> board ──> HTTP, status, STATUS=
//! ```
//!
//! One thread does all of it; what blocks (files, child processes) is done on threads that end when idle.

pub mod board;
pub mod keeper;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::board::Board;
use self::keeper::{Keeper, Order, Sight};
use crate::agent::{self, Agent, Logs};
use crate::apply;
use crate::config::{self, Config};
use crate::report::{Deliveries, Receivers};
use crate::service::{self, Notifier, log};
use crate::source;
use crate::state::{Access, HostIdentity, StateError, Store};
use crate::status::{ConfigRefused, Daemon as DaemonStatus, Mistake};
use crate::tls;
use crate::wake::{Cause, Mailbox};

/// How long the daemon waits at its start for another relaykey that holds the state directory: a `sync` by hand.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// The service manager is told that the start takes longer than usual, this much at a time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trust(#[from] tls::TrustError),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

impl DaemonError {
    /// Will trying again help without anybody doing anything?
    pub fn is_temporary(&self) -> bool {
        match self {
            DaemonError::State(e) => e.is_temporary(),
            DaemonError::Trust(e) => e.is_temporary(),
            DaemonError::Signals(_) => false,
        }
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            DaemonError::State(e) => e.fix(),
            DaemonError::Trust(e) => e.fix(),
            DaemonError::Signals(_) => "see the limits of this user (ulimit -n)".into(),
        }
    }
}

/// What lasts as long as the process, whatever configuration is in force.
struct Daemon {
    path: PathBuf,
    notifier: Notifier,
    board: Arc<Board>,
    store: Arc<Store>,
    identity: HostIdentity,
    posts: Posts,
    logs: Logs,
    sights: mpsc::UnboundedSender<Sight>,
}

/// Where the keepers of the configuration in force are reached, by credential.
#[derive(Clone, Default)]
pub struct Posts(Arc<Mutex<BTreeMap<String, Post>>>);

#[derive(Clone)]
struct Post {
    mailbox: Mailbox,
    orders: mpsc::Sender<Order>,
}

impl Posts {
    /// Wakes one credential.
    fn wake(&self, credential: &str, cause: Cause) {
        if let Some(post) = self.lock().get(credential) {
            post.mailbox.post(cause);
        }
    }

    fn wake_all(&self, cause: &Cause) {
        for post in self.lock().values() {
            post.mailbox.post(cause.clone());
        }
    }

    fn orders(&self, credential: &str) -> Option<mpsc::Sender<Order>> {
        self.lock().get(credential).map(|post| post.orders.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Post>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keepers of one configuration.
struct Generation {
    config: Arc<Config>,
    stop: watch::Sender<bool>,
    keepers: JoinSet<()>,
    /// Each is answered when its keeper has looked for the first time.
    first_looks: Vec<oneshot::Receiver<()>>,
}

impl Generation {
    /// Lets every keeper finish the step that must not be torn, and waits for them.
    async fn end(mut self, notifier: &Notifier) {
        let _ = self.stop.send(true);
        loop {
            tokio::select! {
                ended = self.keepers.join_next() => if ended.is_none() { return },
                () = tokio::time::sleep(PATIENCE / 2) => notifier.extend_timeout(PATIENCE),
            }
        }
    }
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
    let store = Arc::new(Store::open(&config.host.state_dir, Access::Write, LOCK_WAIT)?);
    let identity = store.identity(config.host.name.as_deref(), agent::host_name)?;
    let now = Timestamp::now();
    let board = Arc::new(Board::new(DaemonStatus {
        agent: agent::AGENT.into(),
        host: identity.name.clone(),
        pid: std::process::id(),
        since: now,
        config: path.display().to_string(),
        config_since: now,
        config_refused: None,
    }));
    let (sights, mut seen) = mpsc::unbounded_channel();
    let daemon = Daemon {
        path: path.to_owned(),
        notifier,
        board,
        store,
        identity,
        posts: Posts::default(),
        logs: Logs::default(),
        sights,
    };
    let mut generation = daemon.start(config)?;
    let mut first_looks = std::mem::take(&mut generation.first_looks).into_iter();
    let mut awaited = first_looks.next();
    let mut changes = daemon.board.changes();
    let watchdog = service::watchdog_interval();
    let mut fed = tokio::time::interval(watchdog.unwrap_or(Duration::MAX / 4));
    fed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let names: Vec<&str> = generation.config.credentials.iter().map(|c| c.name.as_str()).collect();
    log::started(agent::AGENT, &path.display().to_string(), &names);
    loop {
        tokio::select! {
            // The loop that feeds the watchdog is the one that starts, reloads and stops: stuck is stuck.
            _ = fed.tick(), if watchdog.is_some() => daemon.notifier.watchdog(),
            looked = async { awaited.as_mut().expect("guarded").await }, if awaited.is_some() => {
                let _ = looked;
                awaited = first_looks.next();
                if awaited.is_none() {
                    daemon.notifier.ready();
                }
            }
            Ok(()) = changes.changed() => {
                daemon.notifier.status(&daemon.board.status(Timestamp::now()).line());
            }
            _ = reload.recv() => {
                generation = daemon.reload(generation).await;
            }
            Some(sight) = seen.recv() => daemon.sighted(sight),
            why = ended(&mut term, &mut int) => {
                log::stopping(why);
                daemon.notifier.stopping();
                daemon.notifier.status("stopping, after the step under way");
                generation.end(&daemon.notifier).await;
                return Ok(());
            }
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

impl Daemon {
    /// Starts a keeper for each credential.
    fn start(&self, config: Config) -> Result<Generation, DaemonError> {
        let http = agent::http(&config)?;
        let key = self.store.key()?;
        self.board.set_credentials(&config.credentials, Timestamp::now());
        let agent = Agent {
            apply: apply::Client::in_process(apply::Server::new(&config)),
            identity: self.identity.clone(),
            store: self.store.clone(),
            receivers: config.reports.clone(),
            logs: self.logs.clone(),
        };
        let receivers = Arc::new(Receivers::open(&config.reports, &http));
        let stop = watch::Sender::new(false);
        let mut keepers = JoinSet::new();
        let mut first_looks = Vec::new();
        let mut posts = BTreeMap::new();
        for credential in &config.credentials {
            let mailbox = Mailbox::new();
            // Orders wait for their turn; more than a few at once for one credential is a mistake of somebody's.
            let (orders, taken) = mpsc::channel(8);
            posts.insert(credential.name.clone(), Post { mailbox: mailbox.clone(), orders });
            let keeper = Keeper {
                credential: credential.clone(),
                agent: agent.clone(),
                source: source::open(credential, &key, &http),
                board: self.board.clone(),
                mailbox,
                orders: taken,
                sights: self.sights.clone(),
                deliveries: Deliveries::new(receivers.clone()),
                stop: stop.subscribe(),
            };
            let (looked, first_look) = oneshot::channel();
            first_looks.push(first_look);
            keepers.spawn(keeper.keep(looked));
        }
        *self.posts.lock() = posts;
        Ok(Generation { config: Arc::new(config), stop, keepers, first_looks })
    }

    /// Reads the configuration again and looks at everything. One with mistakes is refused; the old stays in force.
    async fn reload(&self, generation: Generation) -> Generation {
        self.notifier.reloading();
        let generation = match self.read_again(&generation.config) {
            Ok(None) => {
                self.posts.wake_all(&Cause::Signal);
                generation
            }
            Ok(Some(config)) => {
                let old = generation.config.clone();
                generation.end(&self.notifier).await;
                let names: Vec<String> = config.credentials.iter().map(|c| c.name.clone()).collect();
                match self.start(config) {
                    Ok(new) => {
                        let names: Vec<&str> = names.iter().map(String::as_str).collect();
                        log::config_reloaded(&self.path.display().to_string(), &names);
                        self.board.set_daemon(|d| {
                            d.config_since = Timestamp::now();
                            d.config_refused = None;
                        });
                        new
                    }
                    Err(e) => {
                        self.refuse(vec![Mistake { what: e.to_string(), fix: e.fix() }]);
                        self.start(Config::clone(&old)).unwrap_or_else(|_| Generation {
                            config: old,
                            stop: watch::Sender::new(false),
                            keepers: JoinSet::new(),
                            first_looks: Vec::new(),
                        })
                    }
                }
            }
            Err(mistakes) => {
                self.refuse(mistakes);
                self.posts.wake_all(&Cause::Signal);
                generation
            }
        };
        self.notifier.ready();
        generation
    }

    /// The configuration as it stands in the file now; `None`: it is the one in force.
    fn read_again(&self, old: &Config) -> Result<Option<Config>, Vec<Mistake>> {
        let config = match config::load(&self.path) {
            Ok((config, _)) => config,
            Err(e) => {
                let mistakes = e.findings().into_iter().filter(|f| f.severity == config::Severity::Error);
                let located = |f: &config::Finding| {
                    let file = f.file.as_deref().unwrap_or(&self.path);
                    config::located(Some(file), f.line, &f.what)
                };
                return Err(mistakes.map(|f| Mistake { what: located(&f), fix: f.fix }).collect());
            }
        };
        let fixed: Vec<Mistake> = [
            ("state_dir", old.host.state_dir != config.host.state_dir),
            ("run_dir", old.host.run_dir != config.host.run_dir),
            ("name", old.host.name != config.host.name),
        ]
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| Mistake {
            what: format!("{}: {key} of [host] cannot change while the daemon runs", self.path.display()),
            fix: "restart relaykey (`systemctl restart relaykey`), or take the change back".into(),
        })
        .collect();
        if !fixed.is_empty() {
            return Err(fixed);
        }
        if config == *old {
            // What was refused before has been taken back.
            self.board.set_daemon(|d| d.config_refused = None);
            return Ok(None);
        }
        Ok(Some(config))
    }

    fn refuse(&self, mistakes: Vec<Mistake>) {
        let words = mistakes.iter().map(|m| (m.what.as_str(), m.fix.as_str()));
        log::config_refused(&self.path.display().to_string(), words);
        self.board.set_daemon(|d| d.config_refused = Some(ConfigRefused { at: Timestamp::now(), mistakes }));
    }

    fn sighted(&self, sight: Sight) {
        let _ = sight;
    }
}
