//! `relaykey-rotate user`: whose keys are rotated, as the control record knows it.

use clap::{Args, Subcommand};

use super::hosts::answered;
use super::{Exit, Session};
use crate::run::Ask;

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// The keys of the IAM user that rotate.toml leads to are rotated from now on; those of the one before are left as they are.
    Accept(UserArgs),
}

#[derive(Debug, Args)]
pub struct UserArgs {
    /// The IAM user, as rotate.toml names it.
    #[arg(value_name = "NAME")]
    name: String,
}

pub async fn run(mut at: Session<'_>, command: &UserCommand) -> Exit {
    let UserCommand::Accept(args) = command;
    let done = format!("the keys of {:?} are rotated from now on; the roster is to be sealed again", args.name);
    answered(&mut at, Ask::AcceptUser { name: args.name.clone() }, "accept-user", &done).await
}
