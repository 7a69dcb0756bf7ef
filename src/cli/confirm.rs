//! `relaykey confirm`: reads back what the mail server uses, proves it with a login, and reports it. Writes nothing.

use std::path::Path;
use std::slice;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::order::{self, OperatorOrder};
use crate::control;
use crate::rollover::Wake;

#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// The credential.
    #[arg(value_name = "NAME")]
    name: String,
    /// Print the code that somebody types elsewhere to confirm this host by hand.
    #[arg(long)]
    code: bool,
    /// The nonce of the invitation that asks for the code.
    #[arg(long, value_name = "NONCE", requires = "code")]
    nonce: Option<String>,
    /// How long to wait for what fails for now: 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = order::duration)]
    wait: Duration,
}

pub fn run(path: &Path, json: bool, args: &ConfirmArgs) -> Exit {
    let code = args.code.then(|| args.nonce.clone().unwrap_or_default());
    let request = |names| {
        control::ControlRequest::Confirm(control::ConfirmRequest {
            names,
            code: code.clone(),
            wait_seconds: order::seconds(args.wait),
        })
    };
    let order = OperatorOrder {
        names: slice::from_ref(&args.name),
        wake: Wake { confirm: true, code: code.clone(), ..Wake::default() },
        wait: args.wait,
        reveal: false,
        request: Some(Box::new(request)),
    };
    order::carry_out(path, json, &order)
}
