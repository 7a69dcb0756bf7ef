//! The mail logs that are followed: each once, for all credentials that are in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::status_cache::StatusCache;
use super::task::TargetFiles;
use super::watched_files::FileRole;
use super::{Daemon, tell};
use crate::config::{self, Config};
use crate::service::log;
use crate::status::Notice;
use crate::text::Repeats;
use crate::wake;
use crate::wake::alarm::{Alarm, AlarmKind};
use crate::wake::log::LogPlace;

/// The mail logs that are followed. Dropped, it stops.
#[derive(Default)]
pub(super) struct LogFollowers {
    /// By credential and target; `None`: there is no log to be found.
    pub(super) places: BTreeMap<(String, String), Option<LogPlace>>,
    pub(super) tasks: JoinSet<()>,
}

/// An alarm of one kind is written down, and shown anew, this often at most: a revoked key has a line for every message.
const ALARM_TOLD: Duration = Duration::from_secs(60);

impl Daemon {
    /// What a target consists of is known, or has changed: its tables are watched, its mail log is followed.
    pub(super) fn sighted(&mut self, config: &Config, sight: TargetFiles) {
        let mut roles = self.roles.lock();
        let known = roles.len();
        for file in &sight.files {
            let role = (file.clone(), FileRole::Of(sight.credential.clone()));
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
        } else {
            self.socket_look.notify_one();
        }
        let credential = config.credentials.iter().find(|c| c.name == sight.credential);
        let Some(target) = credential.and_then(|c| c.targets.iter().find(|t| t.name == sight.target)) else { return };
        let place = match wake::log::find(&target.log, sight.log.as_deref(), SystemTime::now()) {
            Ok(place) => Some(place),
            Err(finding) => {
                // Once, not with every look.
                if self.followers.places.get(&(sight.credential.clone(), sight.target.clone())) != Some(&None) {
                    tell(&finding);
                }
                None
            }
        };
        if self.followers.places.insert((sight.credential, sight.target), place.clone()) != Some(place) {
            self.listen(config);
        }
    }

    /// Follows every mail log that a target has, once, for all credentials that are in it.
    pub(super) fn listen(&mut self, config: &Config) {
        self.followers.tasks.abort_all();
        let posts = self.posts.lock().clone();
        let places: BTreeSet<LogPlace> = self.followers.places.values().flatten().cloned().collect();
        for place in places {
            let mut listeners = Vec::new();
            for (credential, post) in config.credentials.iter().zip(&posts) {
                let here = |target: &&config::Target| {
                    self.followers.places.get(&(credential.name.clone(), target.name.clone()))
                        == Some(&Some(place.clone()))
                };
                let all = credential.targets.iter().filter(here).flat_map(|target| target.smtp.endpoints());
                let endpoints = all.flat_map(config::Smtp::known_as);
                listeners.push(wake::log::AlarmListener {
                    endpoints: endpoints.collect(),
                    mailbox: post.mailbox.clone(),
                    brake: post.brake.clone(),
                    heard: hearer(&self.cache, &credential.name),
                });
            }
            listeners.retain(|l| !l.endpoints.is_empty());
            let watch = self.watch.clone();
            self.followers.tasks.spawn(async move {
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
}

/// Counts alarms of one credential, and shows what a person should know of.
fn hearer(cache: &Arc<StatusCache>, credential: &str) -> Box<dyn FnMut(&Alarm) + Send> {
    let (cache, credential) = (cache.clone(), credential.to_owned());
    let (mut told, begun) = (Repeats::new(ALARM_TOLD), Instant::now());
    Box::new(move |alarm| {
        let kind = alarm.kind;
        let since = told.happened(kind.class().word(), begun.elapsed());
        let tell = since.is_some();
        if let Some(since) = since {
            log::alarm(&credential, kind.class().word(), &alarm.to_string(), since);
        }
        cache.set_live(&credential, |live| {
            *live.counters.alarms.entry(kind.class().word().to_owned()).or_default() += 1;
            if tell && kind != AlarmKind::Temporary {
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
