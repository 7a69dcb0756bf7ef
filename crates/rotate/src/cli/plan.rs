//! `relaykey-rotate plan`: what would be done next, and why.

use super::view::{Document, Stand, last_login, text, unpublished};
use super::{Exit, Session, print_json, refused};
use crate::run::Look;

pub async fn run(mut at: Session<'_>) -> Exit {
    let look = match at.controller.look().await {
        Ok(look) => look,
        Err(fault) => return refused(&fault),
    };
    let exit = Stand::of(&look).exit();
    match at.json {
        true => print_json(&Document::of(at.credential, &look, at.config.lab, exit)),
        false => {
            let said = said_last(&mut at, &look).await;
            at.say(text(at.credential, &look, said.as_deref()).trim_end());
        }
    }
    exit
}

/// What the last login with a new key came to, where there is one: another process made it.
pub async fn said_last(at: &mut Session<'_>, look: &Look) -> Option<String> {
    unpublished(look)?;
    // Where the log cannot be read, all else is told without it.
    last_login(look, &at.controller.history().await.ok()?)
}
