//! `relaykey-rotate places`: where the key is published, as the control record knows it.

use clap::{Args, Subcommand};

use super::hosts::answered;
use super::{Exit, Session};
use crate::run::Ask;

#[derive(Debug, Subcommand)]
pub enum PlacesCommand {
    /// No host reads a place any more that rotate.toml does not name: no key lives for its sake.
    Remove(PlaceArgs),
}

#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// In one word, as `relaykey-rotate status` prints the command: secret:us-east-1::NAME.
    #[arg(value_name = "PLACE")]
    place: String,
}

pub async fn run(mut at: Session<'_>, command: &PlacesCommand) -> Exit {
    let PlacesCommand::Remove(args) = command;
    let place = args.place.clone();
    let done = format!("{place} is not looked after any more");
    answered(&mut at, Ask::RemovePlace { place }, "remove-place", &done).await
}
