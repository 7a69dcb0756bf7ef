//! Which files are watched, and whom a change wakes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::orders::TaskHandles;
use super::{Daemon, tell};
use crate::service::log;
use crate::service::log::Matter;
use crate::wake::{Cause, Watch};

/// What a file is to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileRole {
    Configuration,
    /// Without it nobody can ask the daemon.
    ControlSocket,
    /// Of this credential: its source, or a table of one of its targets.
    Of(String),
}

/// Which files are watched, and for what.
#[derive(Clone, Default)]
pub(super) struct WatchedFiles(Arc<Mutex<Vec<(PathBuf, FileRole)>>>);

impl WatchedFiles {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, FileRole)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn watch_files(
    posts: &TaskHandles,
    roles: &WatchedFiles,
    edited: &Arc<Notify>,
    socket_look: &Arc<Notify>,
) -> Option<Watch> {
    let (posts, roles, edited, socket_look) = (posts.clone(), roles.clone(), edited.clone(), socket_look.clone());
    let on = move |path: &Path| {
        for (_, role) in roles.lock().iter().filter(|(file, _)| file == path) {
            match role {
                FileRole::Configuration => edited.notify_one(),
                FileRole::ControlSocket => socket_look.notify_one(),
                FileRole::Of(credential) => posts.wake(credential, Cause::FileWatch(path.to_owned())),
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

impl Daemon {
    /// Off this thread: one of the files may be on a file system that hangs. `watched` is told when it is done.
    pub(super) fn watch_roles(&self, watched: Option<watch::Sender<bool>>) {
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
}
