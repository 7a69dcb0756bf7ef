//! `relaykey reject`: the version that waits is not to be taken.

use std::path::Path;
use std::slice;
use std::time::Duration;

use clap::Args;

use super::order::{self, OperatorOrder};
use super::{Exit, complain};
use crate::agent;
use crate::control;
use crate::rollover::{Reject, Wake};
use crate::text;

#[derive(Debug, Args)]
pub struct RejectArgs {
    /// The credential.
    #[arg(value_name = "NAME")]
    name: String,
    /// The version that is meant, as `relaykey status` shows it. Without it the one that waits.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Why: it stands in the audit log and in the report.
    #[arg(long, value_name = "REASON")]
    reason: String,
}

pub fn run(path: &Path, json: bool, args: &RejectArgs) -> Exit {
    let reason: String = text::plain(&args.reason, control::MAX_REASON);
    let reason = reason.trim().to_owned();
    if reason.is_empty() {
        complain("the reason is empty", "say why, for those who ask later: --reason \"not in the change calendar\"");
        return Exit::Usage;
    }
    let request = |names| {
        control::ControlRequest::Reject(control::RejectRequest {
            names,
            version: args.version.clone(),
            reason: reason.clone(),
        })
    };
    let reject = Reject { version: args.version.clone(), reason: reason.clone(), by: agent::operator().to_string() };
    let order = OperatorOrder {
        names: slice::from_ref(&args.name),
        wake: Wake { reject: Some(reject), ..Wake::default() },
        wait: Duration::from_secs(10),
        reveal: false,
        request: Some(Box::new(request)),
    };
    order::carry_out(path, json, &order)
}
