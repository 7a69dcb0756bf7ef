//! What the daemon knows, in one place, for everybody who asks: the control socket, HTTP, the service manager.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::config;
use crate::health::Documents;
use crate::rollover::{CloneOf, State};
use crate::status::{DaemonStatus, KnownCredential, Live, Status};

/// So old may a document be that HTTP gives.
const FRESH: Duration = Duration::from_secs(1);

/// The cache. Whoever does something writes it here; whoever is asked reads it, without waiting for anybody's work.
pub struct StatusCache {
    inner: Mutex<Inner>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

struct Inner {
    daemon: DaemonStatus,
    clone_of: Option<CloneOf>,
    rows: Vec<CachedCredential>,
}

/// One credential.
struct CachedCredential {
    credential: config::Credential,
    state: Option<State>,
    live: Live,
}

impl StatusCache {
    /// Without any credential yet. `clone_of`: the installation that this one was made from.
    pub fn new(daemon: DaemonStatus, clone_of: Option<CloneOf>) -> Self {
        Self { inner: Mutex::new(Inner { daemon, clone_of, rows: Vec::new() }), changed: watch::Sender::new(0) }
    }

    /// Becomes another number with every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Other credentials from now on; of those that stay, what is known stays.
    pub fn set_credentials(&self, credentials: &[config::Credential], now: Timestamp) {
        self.write(|inner| {
            let mut before = std::mem::take(&mut inner.rows);
            let kept = |name: &str, rows: &mut Vec<CachedCredential>| {
                let at = rows.iter().position(|row| row.credential.name == name)?;
                Some(rows.swap_remove(at))
            };
            inner.rows = credentials
                .iter()
                .map(|credential| match kept(&credential.name, &mut before) {
                    Some(row) => CachedCredential { credential: credential.clone(), ..row },
                    None => CachedCredential {
                        credential: credential.clone(),
                        state: None,
                        live: Live { since: now, ..Live::default() },
                    },
                })
                .collect();
        });
    }

    /// Changes what is said of the daemon itself.
    pub fn set_daemon(&self, change: impl FnOnce(&mut DaemonStatus)) {
        self.write(|inner| change(&mut inner.daemon));
    }

    /// The state of a credential, as it is on disk now.
    pub fn set_state(&self, credential: &str, state: &State) {
        self.row(credential, |row| row.state = Some(state.clone()));
    }

    /// Changes what is known of a credential beyond its state.
    pub fn set_live(&self, credential: &str, change: impl FnOnce(&mut Live)) {
        self.row(credential, |row| change(&mut row.live));
    }

    /// The document, as of now.
    pub fn status(&self, now: Timestamp) -> Status {
        let inner = self.lock();
        let known = inner.rows.iter().map(|row| KnownCredential {
            credential: &row.credential,
            state: row.state.as_ref(),
            live: Some(&row.live),
        });
        Status::new(Some(inner.daemon.clone()), known, now).of_clone(inner.clone_of.clone())
    }

    fn row(&self, credential: &str, change: impl FnOnce(&mut CachedCredential)) {
        self.write(|inner| {
            if let Some(row) = inner.rows.iter_mut().find(|row| row.credential.name == credential) {
                change(row);
            }
        });
    }

    fn write(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a plain assignment: what a panic leaves is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The documents of HTTP: the same one while nothing has changed, and made anew every few seconds, because time alone
/// makes a host not ready.
pub fn documents(cache: Arc<StatusCache>) -> Documents {
    let kept: Mutex<Option<(u64, Instant, Arc<Status>)>> = Mutex::default();
    let changes = cache.changes();
    Arc::new(move || {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let change = *changes.borrow();
        match &*kept {
            Some((of, made, status)) if *of == change && made.elapsed() < FRESH => status.clone(),
            _ => {
                let status = Arc::new(cache.status(Timestamp::now()));
                *kept = Some((change, Instant::now(), status.clone()));
                status
            }
        }
    })
}
