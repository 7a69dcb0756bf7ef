//! `relaykey-rotate reactivate`: a deactivated key is brought back, whoever deactivated it.

use clap::Args;

use super::hosts::answered;
use super::{Exit, Place};
use crate::facts::KeyId;
use crate::run::Ask;

#[derive(Debug, Args)]
pub struct ReactivateArgs {
    /// The access key id, AKIA…
    #[arg(value_name = "KEY")]
    key: String,
}

pub async fn run(mut at: Place<'_>, args: &ReactivateArgs) -> Exit {
    let key = KeyId::new(args.key.clone());
    let done = format!("{key} is active");
    answered(&mut at, Ask::Reactivate { key }, "reactivate", &done).await
}
