//! Where HTTP is answered, now or as soon as it can be: any user can listen at most ports, and keeps no key from being rotated.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Daemon;
use super::generation::TaskGeneration;
use super::status_cache::{self, StatusCache};
use crate::config::{Config, Listen};
use crate::health;
use crate::service::log;
use crate::service::log::Matter;
use crate::status::NotListening;
use crate::wake;

/// A place of `[health]` that cannot be listened at is tried again after this, then after twice as long, and so on.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// And at the latest after this.
const LISTEN_AGAIN_LATEST: Duration = Duration::from_secs(300);

impl Daemon {
    /// Answers over HTTP at these places until told to stop.
    pub(super) fn answer_http(
        &self,
        servers: &mut JoinSet<()>,
        listeners: &[health::HttpListener],
        config: &Config,
        stopped: watch::Receiver<bool>,
    ) {
        for listener in listeners {
            log::listening(&listener.shown(), "health");
        }
        let names = [self.identity.name.as_str()];
        let hosts = health::HostAllowList::new(config.health.as_ref(), names);
        let (documents, listeners) = (status_cache::documents(self.cache.clone()), listeners.to_vec());
        let in_all = config.health.as_ref().map_or(0, |health| health.listen.len()).max(listeners.len());
        servers.spawn(async move {
            if let Err(e) = health::serve(&listeners, in_all, documents, hosts, stopped).await {
                log::trouble(Matter::Error, &format!("HTTP: {e}"), "see the limits of this service (LimitNOFILE)");
            }
        });
    }

    /// A place that could not be listened at can be now.
    pub(super) fn heard(&mut self, generation: &mut TaskGeneration, place: &Listen, listener: health::HttpListener) {
        let stopped = generation.http_stop.subscribe();
        self.answer_http(&mut generation.servers, std::slice::from_ref(&listener), &generation.config, stopped);
        self.listeners.push(listener);
        self.cache.set_daemon(|d| d.not_listening.retain(|n| n.place.as_deref() != Some(&*place.to_string())));
    }
}

/// A place that is not listened at, for `status`.
pub(super) fn not_listening(e: &health::ListenError, since: Timestamp) -> NotListening {
    NotListening { since, place: e.place().map(|place| place.to_string()), what: e.to_string(), fix: e.fix() }
}

/// Tries a place until it can be listened at. `said`: why it could not be. Dropped, it stops.
pub(super) async fn listen_later(
    place: Listen,
    mut said: String,
    cache: Arc<StatusCache>,
) -> (Listen, health::HttpListener) {
    let mut pause = LISTEN_AGAIN;
    loop {
        wake::wait(pause).await;
        pause = (pause * 2).min(LISTEN_AGAIN_LATEST);
        let at = place.clone();
        // Off this thread: the directory of a Unix socket may be on a file system that hangs.
        match tokio::task::spawn_blocking(move || health::HttpListener::at(&at)).await {
            Ok(Ok(listener)) => return (place, listener),
            Ok(Err(e)) if e.to_string() != said => {
                said = e.to_string();
                log::trouble(Matter::Error, &format!("{e}; {}", NotListening::GOES_ON), &e.fix());
                cache.set_daemon(|d| {
                    for n in d.not_listening.iter_mut().filter(|n| n.place.as_deref() == Some(&*place.to_string())) {
                        *n = not_listening(&e, n.since);
                    }
                });
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
