//! `relaykey deregister`: this host leaves the fleet, and says so.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::order::{self, OperatorOrder};
use crate::control;
use crate::rollover::Wake;

#[derive(Debug, Args)]
pub struct DeregisterArgs {
    /// Credentials; all, where none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub fn run(path: &Path, json: bool, args: &DeregisterArgs) -> Exit {
    let request = |names| control::ControlRequest::Deregister(control::DeregisterRequest { names });
    let order = OperatorOrder {
        names: &args.names,
        wake: Wake { leave: true, ..Wake::default() },
        wait: Duration::from_secs(10),
        reveal: false,
        request: Some(Box::new(request)),
    };
    order::carry_out(path, json, &order)
}
