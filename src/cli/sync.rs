//! `relaykey sync`: a rollover now, through the daemon where one runs, else in this process.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::order::{self, Order};
use crate::control;
use crate::rollover::Wake;

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Credentials to look at; all, where none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show what would change, masked, after logging in with the candidate; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Take this version although it is one that this host left behind, or not newer than the applied one.
    #[arg(long, value_name = "VERSION")]
    accept_version: Option<String>,
    /// How long to wait for what fails for now, such as a key that SES does not know yet: 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = order::duration)]
    wait: Duration,
}

pub fn run(path: &Path, json: bool, args: &SyncArgs) -> Exit {
    let request = |names| {
        control::Request::Sync(control::SyncRequest {
            names,
            accept_version: args.accept_version.clone(),
            wait_seconds: order::seconds(args.wait),
        })
    };
    let order = Order {
        names: &args.names,
        wake: Wake { accept_version: args.accept_version.clone(), dry_run: args.dry_run, ..Wake::default() },
        wait: args.wait,
        // One that changes nothing needs no daemon.
        request: if args.dry_run { None } else { Some(Box::new(request)) },
    };
    order::carry_out(path, json, &order)
}
