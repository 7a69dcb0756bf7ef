//! What is asked at the control socket: orders to credential tasks, and their answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::Daemon;
use super::task::TaskOrder;
use crate::agent;
use crate::agent::account::SyncDocument;
use crate::audit::By;
use crate::control::{self, RequestRefusal};
use crate::credential::is_whole_access_key_id;
use crate::instruction::relaykey;
use crate::rollover::{Approve, Reject, Wake};
use crate::wake::alarm::Brake;
use crate::wake::{Cause, Mailbox};

/// Where the tasks of the configuration in force are reached, in the order of the configuration.
#[derive(Clone, Default)]
pub(super) struct TaskHandles(Arc<Mutex<Vec<TaskHandle>>>);

#[derive(Clone)]
pub(super) struct TaskHandle {
    pub(super) credential: String,
    pub(super) mailbox: Mailbox,
    /// Looks that the mail log causes.
    pub(super) brake: Arc<Mutex<Brake>>,
    pub(super) orders: mpsc::Sender<TaskOrder>,
}

impl TaskHandles {
    /// Wakes one credential.
    pub(super) fn wake(&self, credential: &str, cause: Cause) {
        if let Some(post) = self.lock().iter().find(|post| post.credential == credential) {
            post.mailbox.post(cause);
        }
    }

    pub(super) fn wake_all(&self, cause: &Cause) {
        for post in &*self.lock() {
            post.mailbox.post(cause.clone());
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<TaskHandle>> {
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
    ) -> control::RequestAnswer {
        let posts: Vec<TaskHandle> = self.lock().clone();
        let known = |name: &String| posts.iter().any(|post| post.credential == *name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            let all: Vec<&str> = posts.iter().map(|post| post.credential.as_str()).collect();
            return Err(RequestRefusal {
                what: format!("the daemon's configuration has no credential {name:?}"),
                fix: format!(
                    "one of: {}; after a change of the configuration: systemctl reload relaykey",
                    all.join(", ")
                ),
                temporary: false,
            });
        }
        let mut answers = Vec::new();
        let chosen = |post: &&TaskHandle| names.is_empty() || names.contains(&post.credential);
        for post in posts.iter().filter(chosen) {
            let (answer, answered) = oneshot::channel();
            let progress = progress.clone();
            let order = TaskOrder {
                wake: wake.clone(),
                wait: Duration::from_secs(wait),
                by: by.clone(),
                progress: Box::new(move |line| progress.line(line)),
                answer,
            };
            post.orders.try_send(order).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => RequestRefusal {
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
fn leaving() -> RequestRefusal {
    RequestRefusal {
        what: "the daemon ends, or has taken another configuration, and did not come to it".into(),
        fix: "ask again".into(),
        temporary: true,
    }
}

/// Which key is an earlier one of a credential only root may say, whoever else may ask the daemon; and only what is one.
fn may_name_earlier(id: Option<&str>, uid: u32) -> Result<(), RequestRefusal> {
    let refuse = |what: &str, fix: &str| Err(RequestRefusal { what: what.into(), fix: fix.into(), temporary: false });
    match id {
        Some(_) if uid != 0 => refuse("only root may say which key is an earlier one of a credential", "ask as root"),
        Some(id) if !is_whole_access_key_id(id) => refuse(
            "what is named as an earlier key has not the form of an access key id",
            "name one as it stands in the mail server's table",
        ),
        _ => Ok(()),
    }
}

fn json(document: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(document).expect("documents have only text keys")
}

impl Daemon {
    /// Answers at the control socket.
    pub(super) fn answer(
        &self,
        socket: control::ControlSocket,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (posts, cache, look) = (self.posts.clone(), self.cache.clone(), self.socket_look.clone());
        control::serve(
            socket,
            look,
            move |peer: control::Peer, request, progress| {
                let (posts, cache) = (posts.clone(), cache.clone());
                async move {
                    let by = agent::operator_with(peer.uid, peer.claimed);
                    let (names, wake, wait) = match request {
                        control::ControlRequest::Status => return Ok(json(&cache.status(Timestamp::now()))),
                        control::ControlRequest::Sync(r) => {
                            may_name_earlier(r.previous.as_deref(), peer.uid)?;
                            let (accept_version, previous) = (r.accept_version, r.previous);
                            (r.names, Wake { accept_version, previous, ..Wake::default() }, r.wait_seconds)
                        }
                        control::ControlRequest::Approve(r) => {
                            let approve = Approve { version: r.version, by: by.to_string() };
                            (r.names, Wake { approve: Some(approve), ..Wake::default() }, r.wait_seconds)
                        }
                        control::ControlRequest::Reject(r) => {
                            let reject = Reject { version: r.version, reason: r.reason, by: by.to_string() };
                            (r.names, Wake { reject: Some(reject), ..Wake::default() }, 0)
                        }
                        control::ControlRequest::Confirm(r) => {
                            (r.names, Wake { confirm: true, code: r.code, ..Wake::default() }, r.wait_seconds)
                        }
                        control::ControlRequest::Deregister(r) => (r.names, Wake { leave: true, ..Wake::default() }, 0),
                    };
                    let decides =
                        wake.approve.is_some() || wake.reject.is_some() || wake.confirm || wake.previous.is_some();
                    if decides && names.len() != 1 {
                        return Err(RequestRefusal {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_key_is_named_by_root_alone() {
        for (id, uid, may) in [
            (None, 1000, true),
            (Some("AKIAIOSFODNN7EXAMPLE"), 0, true),
            (Some("AKIAIOSFODNN7EXAMPLE"), 1000, false),
            (Some("joe"), 0, false),
            (Some("AKIA"), 0, false),
            (Some(""), 0, false),
        ] {
            assert_eq!(may_name_earlier(id, uid).is_ok(), may, "{id:?} {uid}");
        }
    }
}
