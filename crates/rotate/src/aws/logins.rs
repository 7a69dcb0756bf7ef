//! Logins of the controller's own, at the configured endpoints and nowhere else.

use futures_util::future::join_all;
use relaykey::config::Smtp;
use relaykey::smtp::LoginVerdict;
use relaykey_core::credential::Payload;
use relaykey_core::fault::{Class, Fault};

use super::{CallFailed, Hooks};
use crate::facts::{KeyId, Login, LoginReply};

/// All endpoints, as the policy names them.
pub fn endpoints(smtp: &Smtp) -> Vec<String> {
    smtp.endpoints().map(|smtp| format!("{}:{}", smtp.endpoint, smtp.port)).collect()
}

/// What all endpoints said to one login.
pub struct Replies {
    pub logins: Vec<Login>,
    /// In their words, each after its endpoint; in the order of `logins`.
    pub said: Vec<String>,
    /// Why there was no answer, where there was none.
    pub faults: Vec<Fault>,
}

/// What every endpoint says to this login.
pub async fn log_in(smtp: &Smtp, key: &KeyId, payload: &Payload, hello: &str, hooks: &Hooks) -> Replies {
    let one = async |smtp: &Smtp| {
        let endpoint = format!("{}:{}", smtp.endpoint, smtp.port);
        let verdict = match payload.login(&smtp.endpoint, smtp.region.as_deref()) {
            Ok(login) => {
                // It has a deadline of its own, and its verdict.
                let login = Box::pin(relaykey::agent::login_at(smtp, &login, hello));
                let work = async { Ok::<_, CallFailed>(login.await) };
                hooks.call("smtp:AUTH", &endpoint, work).await.map_err(|failed| *failed.fault)
            }
            Err(error) => {
                let fix = "is `region` in [credential.smtp] right? The value that is published has no password for it";
                Err(Fault::new(Class::Payload, error.to_string(), fix))
            }
        };
        let told = |fault: Fault| {
            let what = format!("no login at {endpoint}: {}", fault.what);
            Fault { what, ..fault }.temporary()
        };
        let (reply, said, fault) = match verdict {
            Ok(LoginVerdict::Accepted { reply }) => (LoginReply::Accepted, reply, None),
            Ok(LoginVerdict::Refused { reply }) => (LoginReply::Refused, reply, None),
            Ok(LoginVerdict::Unknown { class, words, fix, .. }) => {
                let fix = fix.unwrap_or_else(|| "nothing if it passes: it is tried again".into());
                (LoginReply::NoAnswer, words.clone(), Some(told(Fault::new(class, words, fix))))
            }
            Err(fault) => (LoginReply::NoAnswer, fault.what.clone(), Some(told(fault))),
        };
        let said = format!("{endpoint}: {said}");
        (Login { key: key.clone(), endpoint, reply, at: hooks.now() }, said, fault)
    };
    let mut replies = Replies { logins: Vec::new(), said: Vec::new(), faults: Vec::new() };
    for (login, said, fault) in join_all(smtp.endpoints().map(one)).await {
        replies.logins.push(login);
        replies.said.push(said);
        replies.faults.extend(fault);
    }
    replies
}
