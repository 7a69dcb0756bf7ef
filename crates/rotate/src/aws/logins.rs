//! Logins of the controller's own, at the configured endpoints and nowhere else.

use futures_util::future::join_all;
use relaykey::config::Smtp;
use relaykey::smtp::Verdict;
use relaykey_core::credential::Payload;

use super::{CallFailed, Hooks};
use crate::facts::{KeyId, Login, LoginReply};

/// All endpoints, as the policy names them.
pub fn endpoints(smtp: &Smtp) -> Vec<String> {
    smtp.endpoints().map(|smtp| format!("{}:{}", smtp.endpoint, smtp.port)).collect()
}

/// What every endpoint says to this login, and its words.
pub async fn log_in(smtp: &Smtp, key: &KeyId, payload: &Payload, hello: &str, hooks: &Hooks) -> (Vec<Login>, String) {
    let one = async |smtp: &Smtp| {
        let endpoint = format!("{}:{}", smtp.endpoint, smtp.port);
        let verdict = match payload.login(&smtp.endpoint, smtp.region.as_deref()) {
            Ok(login) => {
                // It has a deadline of its own, and its verdict.
                let login = Box::pin(relaykey::agent::login_at(smtp, &login, hello));
                let work = async { Ok::<_, CallFailed>(login.await) };
                hooks.call("smtp:AUTH", &endpoint, work).await.map_err(|failed| failed.fault.what)
            }
            Err(error) => Err(error.to_string()),
        };
        let (reply, said) = match verdict {
            Ok(Verdict::Accepted { reply }) => (LoginReply::Accepted, reply),
            Ok(Verdict::Refused { reply }) => (LoginReply::Refused, reply),
            Ok(Verdict::Unknown { words, .. }) | Err(words) => (LoginReply::NoAnswer, words),
        };
        (Login { key: key.clone(), endpoint: endpoint.clone(), reply, at: hooks.now() }, format!("{endpoint}: {said}"))
    };
    let (logins, said): (Vec<_>, Vec<_>) = join_all(smtp.endpoints().map(one)).await.into_iter().unzip();
    (logins, said.join("; "))
}
