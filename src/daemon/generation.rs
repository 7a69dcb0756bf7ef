//! The credential tasks of one configuration, and how those of the next take their place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::http::{listen_later, not_listening};
use super::log_followers::LogFollowers;
use super::orders::TaskHandle;
use super::task::CredentialTask;
use super::watched_files::FileRole;
use super::{Daemon, DaemonError, TOLD};
use crate::agent::{self, Agent};
use crate::apply;
use crate::aws;
use crate::config::{self, Config, Listen};
use crate::control;
use crate::credential::LocalKey;
use crate::health;
use crate::report::{Deliveries, Receivers};
use crate::service::log::Matter;
use crate::service::{Notifier, log};
use crate::source;
use crate::status::{ConfigMistake, ConfigRefused, NotListening};
use crate::wake::alarm::Brake;
use crate::wake::{Cause, Mailbox};

/// So long the tasks of an old configuration have to end before those of the new one start. One that takes longer holds
/// up its own successor alone; HTTP is answered all the time.
const SUCCESSION: Duration = Duration::from_secs(5);

/// So long first looks wait until files are watched, so that no change falls in between.
const WATCHED: Duration = Duration::from_secs(2);

/// A configuration that nothing stands in the way of.
pub(super) struct PreparedConfig {
    config: Config,
    places: health::OpenedPlaces,
    http: aws::Http,
    key: LocalKey,
}

/// The tasks of one configuration.
pub(super) struct TaskGeneration {
    pub(super) config: Arc<Config>,
    /// Which roots it trusts.
    pub(super) trust: [u8; 32],
    pub(super) stop: watch::Sender<bool>,
    /// Ends the HTTP servers, which answer for as long as a task is waited for.
    pub(super) http_stop: watch::Sender<bool>,
    /// By credential.
    pub(super) tasks: BTreeMap<String, JoinHandle<()>>,
    /// HTTP.
    pub(super) servers: JoinSet<()>,
    /// Who tries places that could not be listened at.
    pub(super) late: JoinSet<(Listen, health::HttpListener)>,
    /// Each is answered when its task has looked for the first time.
    pub(super) first_looks: Vec<oneshot::Receiver<()>>,
}

impl TaskGeneration {
    /// Lets every task finish the step that must not be torn, and waits for them; gives those that have not ended by then. HTTP
    /// is answered meanwhile.
    pub(super) async fn end_tasks(
        &mut self,
        notifier: &Notifier,
        patience: Duration,
    ) -> BTreeMap<String, JoinHandle<()>> {
        let _ = self.stop.send(true);
        await_tasks(std::mem::take(&mut self.tasks), notifier, patience).await
    }

    /// Accepts no more over HTTP. What is being answered has a second.
    pub(super) async fn end_http(mut self) {
        let _ = self.http_stop.send(true);
        while self.servers.join_next().await.is_some() {}
    }
}

/// Waits for tasks that were told to end, and gives those that have not by then.
pub(super) async fn await_tasks(
    mut tasks: BTreeMap<String, JoinHandle<()>>,
    notifier: &Notifier,
    patience: Duration,
) -> BTreeMap<String, JoinHandle<()>> {
    let began = Instant::now();
    while let Some(mut first) = tasks.first_entry() {
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
    tasks.retain(|_, task| !task.is_finished());
    tasks
}

impl Daemon {
    /// Everything that a configuration needs and that may fail, so that what runs goes on where it does. A place of `[health]`
    /// that cannot be listened at is no reason to refuse it: any user can listen at most ports, and would keep keys from
    /// being rotated.
    pub(super) fn prepare(&self, config: Config) -> Result<PreparedConfig, DaemonError> {
        let (http, key) = (agent::http(&config)?, self.store.key()?);
        Ok(PreparedConfig { places: health::open(config.health.as_ref(), &self.listeners), http, key, config })
    }

    /// Starts a task for each credential. `first`: why each looks at once.
    pub(super) fn start(&mut self, prepared: PreparedConfig, first: &Cause) -> TaskGeneration {
        let PreparedConfig { config, places: health::OpenedPlaces { listeners, failed }, http, key } = prepared;
        self.cache.set_credentials(&config.credentials, Timestamp::now());
        let about = config.clone();
        // Waited for by nobody: a file may lie on a file system that gives no answer.
        tokio::task::spawn_blocking(move || {
            for doubt in agent::doubts(&about) {
                log::trouble(Matter::Warning, &doubt.finding.located(), &doubt.finding.fix);
            }
        });
        self.logs.retain(&config.credentials);
        let agent = Agent {
            apply: apply::Client::in_process(apply::Server::in_process(&self.apply, &config.mail())),
            identity: self.identity.clone(),
            store: self.store.clone(),
            receivers: config.reports.clone(),
            lease: config.host.lease,
            logs: self.logs.clone(),
        };
        let receivers = Arc::new(Receivers::open(&config.reports, &http));
        let (stop, http_stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut tasks = BTreeMap::new();
        let watched = watch::Sender::new(false);
        let mut first_looks = Vec::new();
        let mut posts = Vec::new();
        for credential in &config.credentials {
            let mailbox = Mailbox::new();
            // Orders wait for their turn; more than a few at once for one credential is a mistake of somebody's.
            let (orders, taken) = mpsc::channel(8);
            let brake = Arc::new(Mutex::new(Brake::default()));
            let name = credential.name.clone();
            posts.push(TaskHandle { credential: name, mailbox: mailbox.clone(), brake: brake.clone(), orders });
            let task = CredentialTask {
                credential: credential.clone(),
                agent: agent.clone(),
                source: source::open(credential, &key, &http),
                cache: self.cache.clone(),
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
                task.keep(looked).await;
            });
            tasks.insert(credential.name.clone(), keeping);
        }
        *self.posts.lock() = posts;
        let (mut servers, mut late) = (JoinSet::new(), JoinSet::new());
        let config = Arc::new(config);
        if !listeners.is_empty() {
            self.answer_http(&mut servers, &listeners, &config, http_stop.subscribe());
        }
        self.listeners = listeners;
        let now = Timestamp::now();
        let not_heard = failed.iter().map(|(_, e)| not_listening(e, now));
        let not_heard: Vec<NotListening> = self.unusable.iter().cloned().chain(not_heard).collect();
        self.cache.set_daemon(|d| d.not_listening = not_heard);
        for (place, e) in failed {
            log::trouble(Matter::Error, &format!("{e}; {}", NotListening::GOES_ON), &e.fix());
            late.spawn(listen_later(place, e.to_string(), self.cache.clone()));
        }
        self.followers = LogFollowers::default();
        // Files of targets that stay are told of again by their tasks.
        let socket = (control::socket_in(&config.host.run_dir), FileRole::ControlSocket);
        let sources =
            config.credentials.iter().filter_map(|c| Some((c.source.file()?.to_owned(), FileRole::Of(c.name.clone()))));
        *self.roles.lock() =
            [(self.path.clone(), FileRole::Configuration), socket].into_iter().chain(sources).collect();
        self.watch_roles(Some(watched));
        TaskGeneration { config, trust: http.trust(), stop, http_stop, tasks, servers, late, first_looks }
    }

    /// Reads the configuration again and looks at everything. One with mistakes, or that cannot be had, is refused; the
    /// old stays in force.
    ///
    /// Asked for, the roots that AWS is checked by are read again too.
    pub(super) async fn reload(&mut self, generation: TaskGeneration, asked: ReloadAsked) -> TaskGeneration {
        if asked == ReloadAsked::Yes {
            self.socket_look.notify_one();
        }
        let read = self.read_again(&generation.config);
        if asked == ReloadAsked::No && matches!(read, Ok(None)) {
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
                            Err(e) if changed => self.refuse(vec![ConfigMistake { what: e.to_string(), fix: e.fix() }]),
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

    fn look_again(&self, asked: ReloadAsked) {
        if asked == ReloadAsked::Yes {
            self.posts.wake_all(&Cause::Signal);
        }
    }

    /// Lets the tasks of one configuration end, and starts those of the next.
    async fn exchange(
        &mut self,
        mut old: TaskGeneration,
        prepared: PreparedConfig,
        asked: ReloadAsked,
    ) -> TaskGeneration {
        let since = (old.config.as_ref() != &prepared.config).then(Timestamp::now);
        let left = old.end_tasks(&self.notifier, SUCCESSION).await;
        self.lingering.retain(|_, task| !task.is_finished());
        self.lingering.extend(left);
        // What was in the way may have been mended just now: these do not wait for what an earlier attempt is due at.
        let first = match asked {
            ReloadAsked::Yes => Cause::Signal,
            ReloadAsked::No => Cause::FileWatch(self.path.clone()),
        };
        let new = self.start(prepared, &first);
        // Not before there are others that accept: whoever asks meanwhile is answered.
        old.end_http().await;
        let names: Vec<&str> = new.config.credentials.iter().map(|c| c.name.as_str()).collect();
        log::config_reloaded(&self.path.display().to_string(), &names);
        self.cache.set_daemon(|d| {
            d.config_since = since.unwrap_or(d.config_since);
            d.config_refused = None;
        });
        new
    }

    /// The configuration as it stands in the file now; `None`: it is the one in force.
    fn read_again(&self, old: &Config) -> Result<Option<Config>, Vec<ConfigMistake>> {
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
                return Err(mistakes.map(|f| ConfigMistake { what: located(&f), fix: f.fix }).collect());
            }
        };
        let fixed: Vec<ConfigMistake> = [
            ("state_dir", old.host.state_dir != config.host.state_dir),
            ("run_dir", old.host.run_dir != config.host.run_dir),
            ("name", old.host.name != config.host.name),
        ]
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| ConfigMistake {
            what: format!("{}: {key} of [host] cannot change while the daemon runs", self.path.display()),
            fix: "restart relaykey (`systemctl restart relaykey`), or take the change back".into(),
        })
        .collect();
        if !fixed.is_empty() {
            return Err(fixed);
        }
        if config == *old {
            // What was refused before has been taken back.
            self.cache.set_daemon(|d| d.config_refused = None);
            return Ok(None);
        }
        Ok(Some(config))
    }

    fn refuse(&self, mistakes: Vec<ConfigMistake>) {
        let words = mistakes.iter().map(|m| (m.what.as_str(), m.fix.as_str()));
        log::config_refused(&self.path.display().to_string(), words);
        self.cache.set_daemon(|d| d.config_refused = Some(ConfigRefused { at: Timestamp::now(), mistakes }));
    }
}

/// Was it asked for that the configuration is read again, or was the file only seen to change?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadAsked {
    Yes,
    No,
}
