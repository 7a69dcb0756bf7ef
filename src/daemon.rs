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

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use self::board::Board;
use self::keeper::{Keeper, Order, Sight};
use crate::agent::account::SyncDocument;
use crate::agent::{self, Agent, Logs};
use crate::apply;
use crate::audit::By;
use crate::aws;
use crate::config::{self, Config, Listen};
use crate::control::{self, Refusal};
use crate::credential::LocalKey;
use crate::health;
use crate::instruction::relaykey;
use crate::report::{Deliveries, Receivers};
use crate::rollover::{Approve, Reject, Wake};
use crate::service::log::Matter;
use crate::service::{self, Notifier, log};
use crate::source;
use crate::state::{Access, HostIdentity, StateError, Store};
use crate::status::{ConfigRefused, Daemon as DaemonStatus, Mistake, NotListening, Notice};
use crate::text::Repeats;
use crate::tls;
use crate::wake::alarm::{Alarm, Brake, Kind};
use crate::wake::log::LogPlace;
use crate::wake::{self, Cause, Mailbox, Watch};

/// How long the daemon waits at its start for another relaykey that holds the state directory: a `sync` by hand.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// How often a lock that somebody holds is tried.
const LOCK_AGAIN: Duration = Duration::from_millis(50);
/// How often the service manager is told that a step is being finished.
const TOLD: Duration = Duration::from_secs(30);
/// So long the keepers of an old configuration have to end before those of the new one start. One that takes longer holds
/// up its own successor alone.
const SUCCESSION: Duration = Duration::from_secs(5);
/// So long the start waits for first looks. What hangs longer is shown by `status`, and the others are at work.
const FIRST_LOOKS: Duration = Duration::from_secs(120);
/// So long first looks wait until files are watched, so that no change falls in between.
const WATCHED: Duration = Duration::from_secs(2);
/// A configuration that is being written is read when it has been left alone this long.
const EDITED: Duration = Duration::from_millis(200);
/// A place of `[health]` that cannot be listened at is tried again after this, then after twice as long, and so on.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// And at the latest after this.
const LISTEN_AGAIN_LATEST: Duration = Duration::from_secs(300);
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
    board: Arc<Board>,
    store: Arc<Store>,
    identity: HostIdentity,
    posts: Posts,
    logs: Logs,
    sights: mpsc::UnboundedSender<Sight>,
    roles: Roles,
    /// `None`: this host has no inotify to give; changes are seen at the next poll.
    watch: Option<Arc<Watch>>,
    /// Keepers of earlier configurations that have not ended yet, by credential.
    lingering: BTreeMap<String, JoinHandle<()>>,
    ears: Ears,
    /// What is listened at for HTTP; kept from one configuration to the next.
    listeners: Vec<health::Listener>,
    /// Sockets of the service manager's that are of no use.
    unusable: Vec<NotListening>,
    /// Every first look is done, and the service manager knows.
    started: bool,
}

/// Where the keepers of the configuration in force are reached, in the order of the configuration.
#[derive(Clone, Default)]
struct Posts(Arc<Mutex<Vec<Post>>>);

#[derive(Clone)]
struct Post {
    credential: String,
    mailbox: Mailbox,
    /// Looks that the mail log causes.
    brake: Arc<Mutex<Brake>>,
    orders: mpsc::Sender<Order>,
}

impl Posts {
    /// Wakes one credential.
    fn wake(&self, credential: &str, cause: Cause) {
        if let Some(post) = self.lock().iter().find(|post| post.credential == credential) {
            post.mailbox.post(cause);
        }
    }

    fn wake_all(&self, cause: &Cause) {
        for post in &*self.lock() {
            post.mailbox.post(cause.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Post>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operator's order to these credentials, or all: at the same time, and the outcomes of all.
    async fn order(
        &self,
        names: &[String],
        wake: Wake,
        wait: u64,
        by: By,
        progress: control::Progress,
    ) -> control::Answer {
        let posts: Vec<Post> = self.lock().clone();
        let known = |name: &String| posts.iter().any(|post| post.credential == *name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            let all: Vec<&str> = posts.iter().map(|post| post.credential.as_str()).collect();
            return Err(Refusal {
                what: format!("the daemon's configuration has no credential {name:?}"),
                fix: format!(
                    "one of: {}; after a change of the configuration: systemctl reload relaykey",
                    all.join(", ")
                ),
                temporary: false,
            });
        }
        let mut answers = Vec::new();
        let chosen = |post: &&Post| names.is_empty() || names.contains(&post.credential);
        for post in posts.iter().filter(chosen) {
            let (answer, answered) = oneshot::channel();
            let progress = progress.clone();
            let order = Order {
                wake: wake.clone(),
                wait: Duration::from_secs(wait),
                by: by.clone(),
                progress: Box::new(move |line| progress.line(line)),
                answer,
            };
            post.orders.try_send(order).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => Refusal {
                    what: format!("{}: others asked for the same, and are waiting for their turn", post.credential),
                    fix: format!("wait for them, or look at: {}", relaykey("status")),
                    temporary: true,
                },
                mpsc::error::TrySendError::Closed(_) => leaving(),
            })?;
            answers.push(answered);
        }
        let mut outcomes = Vec::new();
        for answered in answers {
            outcomes.push(answered.await.map_err(|_| leaving())?);
        }
        Ok(json(&SyncDocument::new(outcomes)))
    }
}

/// The answer to whoever waits while the configuration is exchanged or the daemon ends.
fn leaving() -> Refusal {
    Refusal {
        what: "the daemon ends, or has taken another configuration, and did not come to it".into(),
        fix: "ask again".into(),
        temporary: true,
    }
}

fn json(document: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(document).expect("documents have only text keys")
}

/// What a file is to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Configuration,
    /// Of this credential: its source, or a table of one of its targets.
    Of(String),
}

/// Which files are watched, and for what.
#[derive(Clone, Default)]
struct Roles(Arc<Mutex<Vec<(PathBuf, Role)>>>);

impl Roles {
    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, Role)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration that nothing stands in the way of.
struct Prepared {
    config: Config,
    places: health::Opened,
    http: aws::Http,
    key: LocalKey,
}

/// The keepers of one configuration.
struct Generation {
    config: Arc<Config>,
    /// Which roots it trusts.
    trust: [u8; 32],
    stop: watch::Sender<bool>,
    /// By credential.
    keepers: BTreeMap<String, JoinHandle<()>>,
    /// HTTP.
    servers: JoinSet<()>,
    /// Who tries places that could not be listened at.
    late: JoinSet<(Listen, health::Listener)>,
    /// Each is answered when its keeper has looked for the first time.
    first_looks: Vec<oneshot::Receiver<()>>,
}

impl Generation {
    /// Lets every keeper finish the step that must not be torn, and waits for them; gives those that have not ended by then.
    async fn end(mut self, notifier: &Notifier, patience: Duration) -> BTreeMap<String, JoinHandle<()>> {
        let _ = self.stop.send(true);
        let left = await_keepers(self.keepers, notifier, patience).await;
        // What is being answered has a second.
        while self.servers.join_next().await.is_some() {}
        left
    }
}

/// Waits for keepers that were told to end, and gives those that have not by then.
async fn await_keepers(
    mut keepers: BTreeMap<String, JoinHandle<()>>,
    notifier: &Notifier,
    patience: Duration,
) -> BTreeMap<String, JoinHandle<()>> {
    let began = Instant::now();
    while let Some(mut first) = keepers.first_entry() {
        let left = patience.saturating_sub(began.elapsed());
        tokio::select! {
            _ = first.get_mut() => drop(first.remove()),
            () = tokio::time::sleep(TOLD.min(left)) => {
                if left.is_zero() {
                    break;
                }
                notifier.watchdog();
                notifier.extend_timeout(TOLD * 2);
            }
        }
    }
    keepers.retain(|_, keeper| !keeper.is_finished());
    keepers
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
    let board = Arc::new(Board::new(daemon, identity.clone_of.clone()));
    let (sights, mut seen) = mpsc::unbounded_channel();
    let (posts, roles) = (Posts::default(), Roles::default());
    let edited = Arc::new(Notify::new());
    let (listeners, unusable) = health::inherited();
    for e in &unusable {
        log::trouble(Matter::Error, &e.to_string(), &e.fix());
    }
    let mut daemon = Daemon {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        notifier,
        watch: watch_files(&posts, &roles, &edited).map(Arc::new),
        lingering: BTreeMap::new(),
        board,
        store,
        identity,
        posts,
        logs: Logs::default(),
        sights,
        roles,
        ears: Ears::default(),
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
    let mut changes = daemon.board.changes();
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
                daemon.notifier.status(&daemon.board.status(Timestamp::now()).line());
            }
            asked = reloading(&mut reload, &edited) => {
                if asked == Asked::No {
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
                let _ = generation.end(&daemon.notifier, longest).await;
                let _ = await_keepers(std::mem::take(&mut daemon.lingering), &daemon.notifier, longest).await;
                // Whoever waits for an answer has it by now.
                let _ = tokio::time::timeout(LAST_ANSWERS, &mut control).await;
                return Ok(());
            }
        }
    }
}

/// Comes back when the configuration is to be read again.
async fn reloading(signal: &mut Signal, edited: &Notify) -> Asked {
    tokio::select! {
        _ = signal.recv() => Asked::Yes,
        () = edited.notified() => Asked::No,
    }
}

/// The state directory, once nobody else holds it. Does not block the thread: the daemon may be told to end meanwhile.
async fn open_when_free(dir: &Path) -> Result<Store, StateError> {
    let since = Instant::now();
    loop {
        match Store::open(dir, Access::Write, Duration::ZERO) {
            Err(e) if e.is_locked() && since.elapsed() < LOCK_WAIT => tokio::time::sleep(LOCK_AGAIN).await,
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

impl Daemon {
    /// Everything that a configuration needs and that may fail, so that what runs goes on where it does. A place of `[health]`
    /// that cannot be listened at is no reason to refuse it: any user can listen at most ports, and would keep keys from
    /// being rotated.
    fn prepare(&self, config: Config) -> Result<Prepared, DaemonError> {
        let (http, key) = (agent::http(&config)?, self.store.key()?);
        Ok(Prepared { places: health::open(config.health.as_ref(), &self.listeners), http, key, config })
    }

    /// Starts a keeper for each credential. `first`: why each looks at once.
    fn start(&mut self, prepared: Prepared, first: &Cause) -> Generation {
        let Prepared { config, places: health::Opened { listeners, failed }, http, key } = prepared;
        self.board.set_credentials(&config.credentials, Timestamp::now());
        let about = config.clone();
        // Waited for by nobody: a file may lie on a file system that gives no answer.
        tokio::task::spawn_blocking(move || {
            for doubt in agent::doubts(&about) {
                log::trouble(Matter::Warning, &doubt.finding.located(), &doubt.finding.fix);
            }
        });
        self.logs.retain(&config.credentials);
        let agent = Agent {
            apply: apply::Client::in_process(apply::Server::new(&config.mail())),
            identity: self.identity.clone(),
            store: self.store.clone(),
            receivers: config.reports.clone(),
            logs: self.logs.clone(),
        };
        let receivers = Arc::new(Receivers::open(&config.reports, &http));
        let stop = watch::Sender::new(false);
        let mut keepers = BTreeMap::new();
        let watched = watch::Sender::new(false);
        let mut first_looks = Vec::new();
        let mut posts = Vec::new();
        for credential in &config.credentials {
            let mailbox = Mailbox::new();
            // Orders wait for their turn; more than a few at once for one credential is a mistake of somebody's.
            let (orders, taken) = mpsc::channel(8);
            let brake = Arc::new(Mutex::new(Brake::default()));
            let name = credential.name.clone();
            posts.push(Post { credential: name, mailbox: mailbox.clone(), brake: brake.clone(), orders });
            let keeper = Keeper {
                credential: credential.clone(),
                agent: agent.clone(),
                source: source::open(credential, &key, &http),
                board: self.board.clone(),
                brake,
                mailbox,
                orders: taken,
                sights: self.sights.clone(),
                deliveries: Deliveries::new(receivers.clone()),
                stop: stop.subscribe(),
                first: first.clone(),
            };
            let (looked, first_look) = oneshot::channel();
            first_looks.push(first_look);
            let before = self.lingering.remove(&credential.name);
            let mut watched = watched.subscribe();
            let keeping = tokio::spawn(async move {
                if let Some(before) = before {
                    let _ = before.await;
                }
                // Where that takes long, changes are found at the next poll.
                let _ = tokio::time::timeout(WATCHED, watched.wait_for(|watched| *watched)).await;
                keeper.keep(looked).await;
            });
            keepers.insert(credential.name.clone(), keeping);
        }
        *self.posts.lock() = posts;
        let (mut servers, mut late) = (JoinSet::new(), JoinSet::new());
        let config = Arc::new(config);
        if !listeners.is_empty() {
            self.answer_http(&mut servers, &listeners, &config, stop.subscribe());
        }
        self.listeners = listeners;
        let now = Timestamp::now();
        let not_heard = failed.iter().map(|(_, e)| not_listening(e, now));
        let not_heard: Vec<NotListening> = self.unusable.iter().cloned().chain(not_heard).collect();
        self.board.set_daemon(|d| d.not_listening = not_heard);
        for (place, e) in failed {
            log::trouble(Matter::Error, &format!("{e}; {}", NotListening::GOES_ON), &e.fix());
            late.spawn(listen_later(place, e.to_string(), self.board.clone()));
        }
        self.ears = Ears::default();
        // Files of targets that stay are told of again by their keepers.
        let sources = config.credentials.iter().filter_map(|c| match &c.source {
            config::Source::File { path, .. } => Some((path.clone(), Role::Of(c.name.clone()))),
            _ => None,
        });
        *self.roles.lock() = std::iter::once((self.path.clone(), Role::Configuration)).chain(sources).collect();
        self.watch_roles(Some(watched));
        Generation { config, trust: http.trust(), stop, keepers, servers, late, first_looks }
    }

    /// Answers over HTTP at these places until told to stop.
    fn answer_http(
        &self,
        servers: &mut JoinSet<()>,
        listeners: &[health::Listener],
        config: &Config,
        stopped: watch::Receiver<bool>,
    ) {
        for listener in listeners {
            log::listening(&listener.shown(), "health");
        }
        let names = [self.identity.name.as_str()];
        let hosts = health::HostAllowList::new(config.health.as_ref(), names);
        let (documents, listeners) = (board::documents(self.board.clone()), listeners.to_vec());
        let in_all = config.health.as_ref().map_or(0, |health| health.listen.len()).max(listeners.len());
        servers.spawn(async move {
            if let Err(e) = health::serve(&listeners, in_all, documents, hosts, stopped).await {
                log::trouble(Matter::Error, &format!("HTTP: {e}"), "see the limits of this service (LimitNOFILE)");
            }
        });
    }

    /// A place that could not be listened at can be now.
    fn heard(&mut self, generation: &mut Generation, place: &Listen, listener: health::Listener) {
        let stopped = generation.stop.subscribe();
        self.answer_http(&mut generation.servers, std::slice::from_ref(&listener), &generation.config, stopped);
        self.listeners.push(listener);
        self.board.set_daemon(|d| d.not_listening.retain(|n| n.place.as_deref() != Some(&*place.to_string())));
    }

    /// Reads the configuration again and looks at everything. One with mistakes, or that cannot be had, is refused; the
    /// old stays in force.
    ///
    /// Asked for, the roots that AWS is checked by are read again too.
    async fn reload(&mut self, generation: Generation, asked: Asked) -> Generation {
        let read = self.read_again(&generation.config);
        if asked == Asked::No && matches!(read, Ok(None)) {
            return generation;
        }
        if self.started {
            self.notifier.reloading();
        }
        let generation = match read {
            Ok(config) => {
                let changed = config.is_some();
                let prepared = self.prepare(config.unwrap_or_else(|| Config::clone(&generation.config)));
                match prepared {
                    // Also where a place can be listened at by now.
                    Ok(prepared)
                        if changed
                            || prepared.http.trust() != generation.trust
                            || prepared.places.listeners.len() > self.listeners.len() =>
                    {
                        self.exchange(generation, prepared, asked).await
                    }
                    result => {
                        match result {
                            Ok(_) => {}
                            Err(e) if changed => self.refuse(vec![Mistake { what: e.to_string(), fix: e.fix() }]),
                            Err(e) => log::trouble(Matter::Error, &e.to_string(), &e.fix()),
                        }
                        self.look_again(asked);
                        generation
                    }
                }
            }
            Err(mistakes) => {
                self.refuse(mistakes);
                self.look_again(asked);
                generation
            }
        };
        if self.started {
            self.notifier.ready();
        }
        generation
    }

    fn look_again(&self, asked: Asked) {
        if asked == Asked::Yes {
            self.posts.wake_all(&Cause::Signal);
        }
    }

    /// Lets the keepers of one configuration end, and starts those of the next.
    async fn exchange(&mut self, old: Generation, prepared: Prepared, asked: Asked) -> Generation {
        let since = (old.config.as_ref() != &prepared.config).then(Timestamp::now);
        let left = old.end(&self.notifier, SUCCESSION).await;
        self.lingering.retain(|_, keeper| !keeper.is_finished());
        self.lingering.extend(left);
        // What was in the way may have been mended just now: these do not wait for what an earlier attempt is due at.
        let first = match asked {
            Asked::Yes => Cause::Signal,
            Asked::No => Cause::FileWatch(self.path.clone()),
        };
        let new = self.start(prepared, &first);
        let names: Vec<&str> = new.config.credentials.iter().map(|c| c.name.as_str()).collect();
        log::config_reloaded(&self.path.display().to_string(), &names);
        self.board.set_daemon(|d| {
            d.config_since = since.unwrap_or(d.config_since);
            d.config_refused = None;
        });
        new
    }

    /// The configuration as it stands in the file now; `None`: it is the one in force.
    fn read_again(&self, old: &Config) -> Result<Option<Config>, Vec<Mistake>> {
        let config = match config::load(&self.path) {
            Ok((config, remarks)) => {
                let is_warning = |f: &&config::Finding| f.severity == config::Severity::Warning;
                for remark in remarks.iter().filter(is_warning).filter(|_| config != *old) {
                    log::trouble(
                        Matter::Warning,
                        &config::located(remark.file.as_deref(), remark.line, &remark.what),
                        &remark.fix,
                    );
                }
                config
            }
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

    /// What a target consists of is known, or has changed: its tables are watched, its mail log is followed.
    fn sighted(&mut self, config: &Config, sight: Sight) {
        let mut roles = self.roles.lock();
        let known = roles.len();
        for file in &sight.files {
            let role = (file.clone(), Role::Of(sight.credential.clone()));
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        let more = roles.len() > known;
        drop(roles);
        if more {
            self.watch_roles(None);
        } else if let Some(watch) = &self.watch {
            // What inotify does not tell, such as a directory further up that was exchanged, is found with each look.
            watch.check();
        }
        let credential = config.credentials.iter().find(|c| c.name == sight.credential);
        let Some(target) = credential.and_then(|c| c.targets.iter().find(|t| t.name == sight.target)) else { return };
        let place = match wake::log::find(&target.log, sight.log.as_deref(), SystemTime::now()) {
            Ok(place) => Some(place),
            Err(finding) => {
                // Once, not with every look.
                if self.ears.places.get(&(sight.credential.clone(), sight.target.clone())) != Some(&None) {
                    tell(&finding);
                }
                None
            }
        };
        if self.ears.places.insert((sight.credential, sight.target), place.clone()) != Some(place) {
            self.listen(config);
        }
    }

    /// Follows every mail log that a target has, once, for all credentials that are in it.
    fn listen(&mut self, config: &Config) {
        self.ears.tasks.abort_all();
        let posts = self.posts.lock().clone();
        let places: BTreeSet<LogPlace> = self.ears.places.values().flatten().cloned().collect();
        for place in places {
            let mut listeners = Vec::new();
            for (credential, post) in config.credentials.iter().zip(&posts) {
                let here = |target: &&config::Target| {
                    self.ears.places.get(&(credential.name.clone(), target.name.clone())) == Some(&Some(place.clone()))
                };
                let endpoints = credential.targets.iter().filter(here).flat_map(|t| {
                    let hosts = std::iter::once(&t.smtp.endpoint).chain(&t.smtp.endpoint_aliases);
                    hosts.map(|host| (host.clone(), t.smtp.port))
                });
                listeners.push(wake::log::Listener {
                    endpoints: endpoints.collect(),
                    mailbox: post.mailbox.clone(),
                    brake: post.brake.clone(),
                    heard: hearer(&self.board, &credential.name),
                });
            }
            listeners.retain(|l| !l.endpoints.is_empty());
            let watch = self.watch.clone();
            self.ears.tasks.spawn(async move {
                let growth = match (&place, watch) {
                    (LogPlace::File(path), Some(watch)) => {
                        let path = path.clone();
                        tokio::task::spawn_blocking(move || watch.follow(&path)).await.ok()
                    }
                    _ => None,
                };
                wake::log::listen(&place, growth, &mut listeners, |finding| {
                    tell(&finding);
                })
                .await;
            });
        }
    }

    /// Off this thread: one of the files may be on a file system that hangs. `watched` is told when it is done.
    fn watch_roles(&self, watched: Option<watch::Sender<bool>>) {
        let (watch, roles) = (self.watch.clone(), self.roles.clone());
        tokio::task::spawn_blocking(move || {
            if let Some(watch) = watch {
                // As they are by then: a later call may come first.
                let files: Vec<PathBuf> = roles.lock().iter().map(|(path, _)| path.clone()).collect();
                watch.update(&files);
                for trouble in watch.troubles() {
                    tell(&trouble);
                }
            }
            if let Some(watched) = watched {
                let _ = watched.send(true);
            }
        });
    }

    /// Answers at the control socket.
    fn answer(
        &self,
        socket: control::Listener,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (posts, board) = (self.posts.clone(), self.board.clone());
        control::serve(
            socket,
            move |peer: control::Peer, request, progress| {
                let (posts, board) = (posts.clone(), board.clone());
                async move {
                    let by = agent::operator_with(peer.uid, peer.claimed);
                    let (names, wake, wait) = match request {
                        control::Request::Status => return Ok(json(&board.status(Timestamp::now()))),
                        control::Request::Sync(r) => {
                            (r.names, Wake { accept_version: r.accept_version, ..Wake::default() }, r.wait_seconds)
                        }
                        control::Request::Approve(r) => {
                            let approve = Approve { version: r.version, by: by.to_string() };
                            (r.names, Wake { approve: Some(approve), ..Wake::default() }, r.wait_seconds)
                        }
                        control::Request::Reject(r) => {
                            let reject = Reject { version: r.version, reason: r.reason, by: by.to_string() };
                            (r.names, Wake { reject: Some(reject), ..Wake::default() }, 0)
                        }
                        control::Request::Confirm(r) => {
                            (r.names, Wake { confirm: true, code: r.code, ..Wake::default() }, r.wait_seconds)
                        }
                        control::Request::Deregister(r) => (r.names, Wake { leave: true, ..Wake::default() }, 0),
                    };
                    let decides = wake.approve.is_some() || wake.reject.is_some() || wake.confirm;
                    if decides && names.len() != 1 {
                        return Err(Refusal {
                            what: "this is about one credential, and the request names another number of them".into(),
                            fix: "name one credential".into(),
                            temporary: false,
                        });
                    }
                    posts.order(&names, wake, wait, by, progress).await
                }
            },
            stop,
        )
    }
}

/// A place that is not listened at, for `status`.
fn not_listening(e: &health::ListenError, since: Timestamp) -> NotListening {
    NotListening { since, place: e.place().map(|place| place.to_string()), what: e.to_string(), fix: e.fix() }
}

/// Tries a place until it can be listened at. `said`: why it could not be. Dropped, it stops.
async fn listen_later(place: Listen, mut said: String, board: Arc<Board>) -> (Listen, health::Listener) {
    let mut pause = LISTEN_AGAIN;
    loop {
        wake::wait(pause).await;
        pause = (pause * 2).min(LISTEN_AGAIN_LATEST);
        let at = place.clone();
        // Off this thread: the directory of a Unix socket may be on a file system that hangs.
        match tokio::task::spawn_blocking(move || health::Listener::at(&at)).await {
            Ok(Ok(listener)) => return (place, listener),
            Ok(Err(e)) if e.to_string() != said => {
                said = e.to_string();
                log::trouble(Matter::Error, &format!("{e}; {}", NotListening::GOES_ON), &e.fix());
                board.set_daemon(|d| {
                    for n in d.not_listening.iter_mut().filter(|n| n.place.as_deref() == Some(&*place.to_string())) {
                        *n = not_listening(&e, n.since);
                    }
                });
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// The mail logs that are followed. Dropped, it stops.
#[derive(Default)]
struct Ears {
    /// By credential and target; `None`: there is no log to be found.
    places: BTreeMap<(String, String), Option<LogPlace>>,
    tasks: JoinSet<()>,
}

/// An alarm of one kind is written down, and shown anew, this often at most: a revoked key has a line for every message.
const ALARM_TOLD: Duration = Duration::from_secs(60);

/// Counts alarms of one credential, and shows what a person should know of.
fn hearer(board: &Arc<Board>, credential: &str) -> Box<dyn FnMut(&Alarm) + Send> {
    let (board, credential) = (board.clone(), credential.to_owned());
    let (mut told, begun) = (Repeats::new(ALARM_TOLD), Instant::now());
    Box::new(move |alarm| {
        let kind = alarm.kind;
        let since = told.happened(kind.class().word(), begun.elapsed());
        let tell = since.is_some();
        if let Some(since) = since {
            log::alarm(&credential, kind.class().word(), &alarm.to_string(), since);
        }
        board.set_live(&credential, |live| {
            *live.counters.alarms.entry(kind.class().word().to_owned()).or_default() += 1;
            if tell && kind != Kind::Temporary {
                live.notices.retain(|n| n.class != kind.class());
                live.notices.push(Notice {
                    at: Timestamp::now(),
                    class: kind.class(),
                    what: format!("{}. The mail log: {alarm}", kind.meaning()),
                    fix: kind.fix().into(),
                });
            }
        });
    })
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

/// Was it asked for that the configuration is read again, or was the file only seen to change?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Yes,
    No,
}

fn watch_files(posts: &Posts, roles: &Roles, edited: &Arc<Notify>) -> Option<Watch> {
    let (posts, roles, edited) = (posts.clone(), roles.clone(), edited.clone());
    let on = move |path: &Path| {
        for (_, role) in roles.lock().iter().filter(|(file, _)| file == path) {
            match role {
                Role::Configuration => edited.notify_one(),
                Role::Of(credential) => posts.wake(credential, Cause::FileWatch(path.to_owned())),
            }
        }
    };
    match Watch::new(&[], on) {
        Ok(watch) => Some(watch),
        Err(e) => {
            log::trouble(Matter::Warning, &e.to_string(), &e.fix());
            None
        }
    }
}
