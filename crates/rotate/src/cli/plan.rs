//! `relaykey-rotate plan`: what would be done next, and why.

use super::view::{Document, Stand, text};
use super::{Exit, Place, print_json, refused};

pub async fn run(mut at: Place<'_>) -> Exit {
    let look = match at.controller.look().await {
        Ok(look) => look,
        Err(fault) => return refused(&fault),
    };
    let exit = Stand::of(&look).exit();
    match at.json {
        true => print_json(&Document::of(at.credential, &look, at.config.lab, exit)),
        false => at.say(text(at.credential, &look).trim_end()),
    }
    exit
}
