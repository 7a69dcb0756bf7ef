//! `relaykey-rotate demo`: a whole rotation on this machine.

use clap::Args;

use super::{Exit, complain};

#[derive(Debug, Args)]
pub struct DemoArgs {}

pub fn run(_json: bool, _args: &DemoArgs) -> Exit {
    complain("not built yet", "");
    Exit::ForGood
}
