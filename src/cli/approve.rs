//! `relaykey approve`: the version that waits may go.

use std::path::Path;
use std::slice;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::order::{self, OperatorOrder};
use crate::agent;
use crate::control;
use crate::rollover::{Approve, Wake};

#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The credential.
    #[arg(value_name = "NAME")]
    name: String,
    /// The version that is meant, as `relaykey status` shows it. Without it the one that waits; one that was rejected has to
    /// be named.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// How long to wait for what fails for now: 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = order::duration)]
    wait: Duration,
}

pub fn run(path: &Path, json: bool, args: &ApproveArgs) -> Exit {
    let request = |names| {
        control::ControlRequest::Approve(control::ApproveRequest {
            names,
            version: args.version.clone(),
            wait_seconds: order::seconds(args.wait),
        })
    };
    let approve = Approve { version: args.version.clone(), by: agent::operator().to_string() };
    let order = OperatorOrder {
        names: slice::from_ref(&args.name),
        wake: Wake { approve: Some(approve), ..Wake::default() },
        wait: args.wait,
        reveal: false,
        request: Some(Box::new(request)),
    };
    order::carry_out(path, json, &order)
}
